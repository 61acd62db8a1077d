"""Shared test settings: one thread, no network, GPU kernels without a GPU; a browser."""

import atexit
import gc
import io
import logging
import os
import shlex
import shutil
import sys
import time
from functools import partial
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["SSL_CERT_DIR"] = os.devnull  # of certificates that nobody shows: reading them takes 30 ms a client
os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is imported, by processes that tests start too

import forks
import interpreter
import pytest

HANDS_OUT = "-n" in sys.argv and "0" not in sys.argv and "PYTEST_XDIST_WORKER" not in os.environ
"""Whether this process gives others their tests: it can do without torch, and they start sooner."""
if not HANDS_OUT:
    import torch

    if not torch.cuda.is_available():
        os.environ["TRITON_INTERPRET"] = "1"  # read when triton is imported, which importing transformers does
gc.disable()  # until all is imported: modules are no garbage, and have half a million objects


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers():
    """A process more than there are cores: some of the time each waits, for a browser, a server, a program."""
    return os.cpu_count() + 1


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes(specs):
    """Workers are forks of one process that has imported what all do, but for GPUs, which a fork cannot use."""
    if sys.platform == "linux" and not any(Path("/dev", gpu).exists() for gpu in ("nvidiactl", "dxg", "kfd")):
        os.environ["TRITON_INTERPRET"] = "1"
        forks.started()
        for spec in specs:
            spec.python = shlex.join([sys.executable, forks.__file__])


def pytest_collection_modifyitems(items):
    """Those with a browser first, so that one of several processes has them all: others take from the end."""
    items.sort(key=lambda item: "space" not in item.path.parts and "chromium" not in item.fixturenames)


def pytest_collection_finish():
    """From here on garbage is looked for among what tests make, and seldom: tensors are many objects and few cycles."""
    interpreter.patch()
    gc.freeze()
    gc.set_threshold(20_000)
    gc.enable()


@atexit.register
def unfreeze():
    """What is frozen when Python ends looks leaked to libraries that count, as nanobind does, and they say so."""
    gc.unfreeze()


@pytest.fixture(autouse=True)
def one_thread():
    """Tiny tensors are many times slower on two threads of a shared machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def one_seed():
    """The same numbers in every run and order: a bound that holds today holds tomorrow."""
    # The former keeps, for every kind of device that is not there, a picture of the stack: milliseconds a call.
    seed = torch.manual_seed if torch.cuda.is_available() else torch.default_generator.manual_seed
    seed(0)


@pytest.fixture
def logged():
    """The stream that all loggers write to. pytest's own visits every library's, a thousand, six times a test."""
    stream = io.StringIO()
    handler, loggers = logging.StreamHandler(stream), [logging.getLogger(), logging.getLogger("transformers")]
    for logger in loggers:
        logger.addHandler(handler)
    yield stream
    for logger in loggers:
        logger.removeHandler(handler)


@pytest.fixture
def slowly(monkeypatch):
    """Items that come eight a second by the clock of the bars of progress, however fast the machine is."""
    now = float(int(time.time()))
    monkeypatch.setattr("tqdm.std.time", lambda: now)

    def one_by_one(items):
        nonlocal now
        for item in items:
            now += 1 / 8
            yield item

    return one_by_one


@pytest.fixture(scope="session")
def chromium():
    """Starts headless Chromium: where CI is set, one that is missing is a failure."""
    path = shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        message = "these tests need Chromium: apt-get install chromium"
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)
    from playwright.sync_api import sync_playwright

    # Scripts run too shortly to win back what compiling them well takes, a fifth of all that a page does.
    args = ["--no-sandbox", "--disable-gpu", "--js-flags=--no-opt,--no-maglev"]
    with sync_playwright() as playwright:
        yield partial(playwright.chromium.launch_persistent_context, executable_path=path, args=args)


@pytest.fixture(scope="session")
def browser(chromium, tmp_path_factory):
    """A browser that keeps gradio's scripts compiled, which is most of the time of a visit."""
    with chromium(tmp_path_factory.mktemp("browser")) as running:
        yield running


@pytest.fixture(scope="session")
def phone(chromium, tmp_path_factory):
    """The same with a screen that is touched."""
    with chromium(tmp_path_factory.mktemp("phone"), has_touch=True, is_mobile=True) as running:
        yield running
