"""Measure the Space: first paint in a browser, then 50 visitors at once. ``python tests/space/load.py``

Each visitor has an address of its own (the server is asked through its proxy header, which it trusts on loopback only),
loads the page and explains sentences that nobody asked about before, with the limits as they are shipped.
"""

import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.request import Request, urlopen

from space_server import Server

VISITORS, ROUNDS, PAINTS = 50, 4, 20
USUAL = ["", "", "mambalrp", "", "cp"]
"""Target, contrast, method, model and rule of attention of the endpoint ``explain``."""


def paint(url):
    """Seconds from the click to the answer on the screen, once the page is open."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page()
        page.goto(url)
        page.wait_for_selector("#sentence-answer .answer")
        times = []
        for number in range(PAINTS):
            text = f"Take {number}: the plot is thin, but the cast is warm and the ending is simply wonderful."
            page.locator("textarea:visible").first.fill(text)
            begin = time.perf_counter()
            page.get_by_role("button", name="Explain", exact=True).click()
            page.wait_for_function(
                f"document.querySelector('#sentence-answer .text')?.innerText.startsWith('Take {number}:')"
            )
            times.append(time.perf_counter() - begin)
        browser.close()
    return times


def ask(url, address, text):
    """Seconds for one explanation over the API; raises if it is none."""
    body = json.dumps({"data": [text, *USUAL]}).encode()
    headers = {"Content-Type": "application/json", "X-Forwarded-For": address}
    begin = time.perf_counter()
    call = f"{url}gradio_api/call/explain"
    with urlopen(Request(call, body, headers), timeout=120) as response:
        event = json.load(response)["event_id"]
    with urlopen(Request(f"{call}/{event}", headers=headers), timeout=120) as response:
        assert b"event: complete" in response.read()  # behind the heartbeats of an answer that takes long
    return time.perf_counter() - begin


def visit(url, number):
    """One visitor: the page, then some sentences one after the other."""
    address = f"198.51.100.{number}"
    urlopen(Request(url, headers={"X-Forwarded-For": address}), timeout=120).close()
    text = "Visitor {} in round {} found the first half rather dull, and the second wonderful."
    times, failed = [], []
    for turn in range(ROUNDS):
        try:
            times.append(ask(url, address, text.format(number, turn)))
        except (OSError, AssertionError) as error:
            failed.append(repr(error))
    return times, failed


def percentiles(times):
    """The middle and the 95th of a hundred, in words."""
    cuts = statistics.quantiles(times, n=20)
    return f"p50 {statistics.median(times):.2f} s, p95 {cuts[18]:.2f} s, longest {max(times):.2f} s, n {len(times)}"


def main():
    with tempfile.TemporaryDirectory() as folder:
        server = Server({"HF_HUB_OFFLINE": "1", "GRADIO_ANALYTICS_ENABLED": "False"}, Path(folder))
        try:
            ask(server.url, "198.51.100.200", "The first visitor waits until the model is there.")
            print(f"load average before: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
            print(f"first paint of a sentence: {percentiles(paint(server.url))}")
            begin = time.perf_counter()
            with ThreadPoolExecutor(VISITORS) as visitors:
                found = list(visitors.map(lambda number: visit(server.url, number), range(VISITORS)))
            wall = time.perf_counter() - begin
            times, failed = ([entry for one in found for entry in one[part]] for part in (0, 1))
            print(
                f"{VISITORS} visitors, {ROUNDS} sentences each: {percentiles(times)}; {len(failed)} failed {failed[:3]}"
            )
            print(
                f"{len(times) / wall:.1f} explanations a second; server at most {server.peak_memory() / 2**20:.0f} MiB"
            )
            sys.exit(bool(failed))
        finally:
            server.stop()


if __name__ == "__main__":
    main()
