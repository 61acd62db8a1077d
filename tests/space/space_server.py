"""The Space as a process of its own, and the names that its tests share."""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
APP = ROOT / "spaces_app"
SHOTS = ROOT / "out" / "space"
LANGUAGE_MODEL = "A tiny language model"
MARKUP = "<img src=x onerror=hacked=1>"
"""One token of the tiny model's vocabulary."""


def answers(url, runs, said):
    """Wait until a Space is there, while its process runs; what that said is an error's."""
    for _ in range(600):
        assert runs(), said()
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except OSError:
            time.sleep(0.2)
    raise AssertionError(f"the Space did not start:\n{said()}")


def free_port():
    """A port that nothing listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


class Server:
    """``python spaces_app/app.py`` on a free port."""

    def __init__(self, environment, log):
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/"
        variables = {**os.environ, **environment, "GRADIO_SERVER_PORT": str(self.port)}
        self.log = log
        with log.open("w") as out:
            # From another folder: nothing may depend on where it is started.
            self.process = subprocess.Popen(
                [sys.executable, APP / "app.py"], env=variables, cwd=log.parent, stdout=out, stderr=out
            )
        answers(self.url, lambda: self.process.poll() is None, log.read_text)

    def peak_memory(self):
        """The most bytes the process ever held."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))

    def stop(self):
        self.process.terminate()
        self.process.wait(timeout=20)
