"""The Space as a process of its own, and the names that its tests share."""

import os
import signal
import socket
import sys
import time
import urllib.request
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

import forks  # noqa: E402 - beside the tests of the Space, which a script does not know

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
    """``python spaces_app/app.py`` on a free port, in a fork: tests/hub/test_space.py starts one as a Space does."""

    def __init__(self, environment, folder):
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/"
        variables = {**os.environ, **environment, "GRADIO_SERVER_PORT": str(self.port)}
        process = Future()
        # From another folder: nothing may depend on where it is started.
        options = {"env": variables, "cwd": folder, "begun": process.set_result}
        self.run = ThreadPoolExecutor(1).submit(forks.run, [APP / "app.py"], **options)
        self.process = process.result()
        answers(self.url, lambda: not self.run.done(), lambda: self.run.result().stderr)

    def peak_memory(self):
        """The most bytes the process ever held."""
        status = Path(f"/proc/{self.process}/status").read_text()
        return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))

    def stop(self):
        """What it has said."""
        os.kill(self.process, signal.SIGTERM)
        ended = self.run.result(timeout=20)
        return ended.stdout + ended.stderr
