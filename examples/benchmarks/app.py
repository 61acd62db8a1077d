"""App benchmark: from the address to the first page of every tab, in a browser that never saw the app, offline.

Every load has a new browser context, whose empty window is open and at rest before the address is given. The server is
warm: each tab was opened once. A load ends when the tab shows its first answer and its button can be pressed.

    python examples/benchmarks/app.py                # 20 loads of every tab in turn; some minutes
    python examples/benchmarks/app.py --loads 2 --tabs sentence image --json app.json
"""

import argparse
import json
import os
import platform
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from contextlib import suppress
from datetime import date
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import urlopen

import gradio
import psutil
from playwright.sync_api import Browser, Error, sync_playwright

from hf_mambalrp.space.catalog import ALL_PACKAGED, Catalog
from hf_mambalrp.space.pictures import PICTURES
from hf_mambalrp.space.question import TASKS

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
START = "from hf_mambalrp.cli.main import main; main()"
AT_REST = 0.05
"""Of one core: below it a browser has nothing more to do."""
LOOK = 10
"""Milliseconds between two looks. The locators of Playwright look twice a second, so that a page would be there at
0.3, 0.8 or 1.3 seconds."""
READY = """kind => {
  const seen = (where) => [...document.querySelectorAll(where)].some((one) => one.checkVisibility());
  if (kind === "audit") return seen("#audit-answer .hfm"); // which is known, and asks nothing
  return seen(`#${kind}-answer .answer`) && seen("[role=tabpanel] button.primary:enabled");
}"""


def links() -> dict[str, str]:
    """What stands behind the address of every tab: nothing of the first, of the others what they begin with."""
    catalog, found = Catalog(ALL_PACKAGED), {"sentence": ""}
    for kind, tasks in TASKS.items():
        entry = catalog.entry(catalog.titles(*tasks)[0])
        if kind == "image":
            asked = {"picture": next(iter(PICTURES))}
        else:
            asked = {"text": entry.document if kind == "document" else next(iter(entry.begun_with.values()))}
        found.setdefault(kind, "#" + urlencode({"kind": kind, **asked}))
    return {**found, "audit": "#kind=audit"}


def processor(processes: Iterable[psutil.Process]) -> float:
    """Seconds of processor time that processes have used, with those that they started."""
    total = 0.0
    for process in processes:
        for one in (process, *process.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                total += sum(one.cpu_times()[:2])
    return total


def rest(browser: list[psutil.Process]) -> None:
    """Wait until the browser has nothing to do."""
    before, quiet = processor(browser), 0
    while quiet < 2:
        time.sleep(0.2)
        now = processor(browser)
        quiet, before = (quiet + 1 if now - before <= 0.2 * AT_REST else 0), now


def load(browser: Browser, ours: list[psutil.Process], server: psutil.Process, url: str, kind: str) -> dict[str, float]:
    """One load of a tab: time until it can be used, and what it took until then."""
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    page = context.new_page()
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    rest(ours)
    before, start = (processor(ours), processor([server])), time.perf_counter()
    page.goto(url, wait_until="commit")
    page.wait_for_function(READY, arg=kind, polling=LOOK)
    seconds = time.perf_counter() - start
    browser_seconds, server_seconds = processor(ours) - before[0], processor([server]) - before[1]
    context.close()
    return {
        "seconds": seconds,
        "browser_processor_seconds": browser_seconds,
        "server_processor_seconds": server_seconds,
        "requests": len(requests),
    }


def serve(port: int, log: Any) -> subprocess.Popen[bytes]:
    """The app with its packaged models in a process of its own, and without a limit for one client's requests."""
    offline = {"HF_HUB_OFFLINE": "1", "GRADIO_ANALYTICS_ENABLED": "False", "SPACE_REQUESTS_A_MINUTE": "100000"}
    command = [sys.executable, "-c", START, "app", "--port", str(port)]
    server = subprocess.Popen(command, env={**os.environ, **offline}, stdout=log, stderr=log)
    while server.poll() is None:
        with suppress(OSError):
            urlopen(f"http://127.0.0.1:{port}/", timeout=5).close()
            return server
        time.sleep(0.2)
    raise SystemExit("The app did not start; see what it says: hf-mambalrp app")


def measure(tabs: dict[str, str], loads: int) -> dict[str, dict[str, float]]:
    """Median of every number of every tab, all tabs in turn, so that a change of the machine meets all of them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    found: dict[str, list[dict[str, float]]] = {kind: [] for kind in tabs}
    with tempfile.TemporaryFile() as log, sync_playwright() as playwright:
        process = serve(port, log)
        try:
            before = set(psutil.Process().children(recursive=True))
            browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
            ours = [one for one in psutil.Process().children(recursive=True) if one not in before]
            roots = [one for one in ours if one.parent() not in ours]
            for turn in range(loads + 1):
                for kind, link in tabs.items():
                    one = load(browser, roots, psutil.Process(process.pid), f"http://127.0.0.1:{port}/{link}", kind)
                    if turn:  # the first one warms the server up
                        found[kind].append(one)
            browser.close()
        except (Error, psutil.Error):
            log.seek(0)
            said, code = log.read().decode(errors="replace"), process.poll()
            print(f"The app {'runs' if code is None else f'ended with {code}'}, and said:\n{said}", file=sys.stderr)
            raise
        finally:
            process.terminate()
            process.wait(timeout=30)
    return {kind: {name: statistics.median(one[name] for one in all) for name in all[0]} for kind, all in found.items()}


def main() -> None:
    """Measure, print a line a tab, and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--loads", type=int, default=20)
    parser.add_argument("--tabs", nargs="+", choices=list(links()), default=list(links()))
    parser.add_argument("--json", type=Path, help="write the numbers of this run here")
    arguments = parser.parse_args()
    load_before = os.getloadavg()[0]
    found = measure({kind: link for kind, link in links().items() if kind in arguments.tabs}, arguments.loads)
    print("| tab | seconds | processor, browser | processor, server | requests |\n|---|---|---|---|---|")
    for kind, row in found.items():
        print(f"| {kind} | {' | '.join(f'{value:.2f}' for value in row.values())} |")
    machine = {"processor": platform.machine(), "cores": os.cpu_count(), "gradio": gradio.__version__}
    machine |= {"load_average_before": load_before, "loads": arguments.loads, "date": date.today().isoformat()}
    if arguments.json:
        arguments.json.write_text(json.dumps({**machine, "median": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
