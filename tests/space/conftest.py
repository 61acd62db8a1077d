"""One server, one browser, a tiny language model, and the parts of the app in this process."""

import json
import os

import pytest
import torch
from screen import SIZES, WAIT
from space_server import LANGUAGE_MODEL, MARKUP, Server


@pytest.fixture(scope="session")
def allow_list(tmp_path_factory):
    """A file that lists a random language model, of which one token is markup, and the packaged models."""
    import small
    from transformers import MambaConfig

    from hf_mambalrp import MambaLRPForCausalLM
    from hf_mambalrp.space.catalog import PACKAGED, PACKAGED_LANGUAGE, PACKAGED_VISION

    folder = tmp_path_factory.mktemp("models")
    tokenizer = small.byte_level_tokenizer("The capital of France is Paris. One, two, three, four, five. " * 20, 400)
    tokenizer.add_tokens([MARKUP])
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 4, "time_step_rank": 4}
    ids = {"pad_token_id": 1, "eos_token_id": 0, "bos_token_id": 0}
    model = MambaLRPForCausalLM(MambaConfig(vocab_size=len(tokenizer), **sizes, **ids))
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    entry = {"id": str(folder / "model"), "title": LANGUAGE_MODEL, "task": "text-generation"}
    packaged = {
        "DEMO_MODEL": PACKAGED,
        "DEMO_LANGUAGE_MODEL": PACKAGED_LANGUAGE,
        "DEMO_VISION_MODEL": PACKAGED_VISION,
    }
    entries = [{"id": name, "title": known.title, "task": known.task} for name, known in packaged.items()]
    (folder / "models.json").write_text(json.dumps([entry, *entries]))
    return folder / "models.json"


@pytest.fixture(scope="session")
def environment(allow_list):
    """Variables of the Space under test."""
    return {
        "SPACE_MODELS": str(allow_list),
        "SPACE_REQUESTS_A_MINUTE": "1000",
        "GRADIO_ANALYTICS_ENABLED": "False",
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
    }


@pytest.fixture(scope="session")
def app_of():
    """Makes an app of entries. It imports gradio, four seconds that a process without these tests is spared."""
    from hf_mambalrp.space.serve import App

    return App


@pytest.fixture(scope="session")
def page_of():
    """Builds the page of an app."""
    from hf_mambalrp.space.page import build

    return build


@pytest.fixture(scope="session")
def space(allow_list):
    """An app in this process, with the limits as they are shipped but for the rate, of which tests make their own."""
    from hf_mambalrp.space.catalog import read_allow_list
    from hf_mambalrp.space.limits import Limits
    from hf_mambalrp.space.serve import App

    return App(read_allow_list(allow_list), Limits(requests_a_minute=10**9))


@pytest.fixture(scope="session")
def server(environment, tmp_path_factory):
    if not os.environ.get("CI"):  # where one that is missing is a failure: the Space does not start
        pytest.importorskip("gradio", reason='needs pip install "hf_mambalrp[space]"')
    running = Server(environment, tmp_path_factory.mktemp("server"))
    yield running
    log = running.stop()
    assert "hf_mambalrp/space" not in log, f"an error that was not expected:\n{log}"


@pytest.fixture(scope="session")
def demo():
    from hf_mambalrp import DEMO_MODEL, AutoMambaLRPForSequenceClassification

    return AutoMambaLRPForSequenceClassification.from_pretrained(DEMO_MODEL)


@pytest.fixture(scope="session")
def demo_vision():
    from hf_mambalrp import DEMO_VISION_MODEL, AutoMambaLRPForImageClassification

    return AutoMambaLRPForImageClassification.from_pretrained(DEMO_VISION_MODEL)


@pytest.fixture
def visit(server, request):
    """Open the page; afterwards nothing may have been loaded from elsewhere, and no script of a text have run.

    Visitors know nothing of each other: what a browser keeps beside scripts as they are served is cleared after them.
    A tab that shows nothing is used again, in which the page opens with a third less work than in a new one.
    """
    opened, foreign, broken = {}, [], []

    def request_made(made):
        if not made.url.startswith((server.url, "data:", "blob:")):
            foreign.append(made.url)

    def page_error(error):
        broken.append(str(error))

    def visited(query="", size="desktop", kind="sentence", touch=False, color_scheme="light"):
        browser = request.getfixturevalue("phone" if touch else "browser")
        idle = (page for page in browser.pages if page.url == "about:blank")
        page = next(idle, None) or browser.new_page()
        page.bring_to_front()
        opened[page] = {"request": request_made, "pageerror": page_error}
        for event, handler in opened[page].items():
            page.on(event, handler)
        width, height = SIZES[size]
        page.set_viewport_size({"width": width, "height": height})
        page.emulate_media(color_scheme=color_scheme)
        page.set_default_timeout(WAIT)
        page.mouse.move(0, 0)
        page.goto(server.url + query)
        page.wait_for_selector(f"#{kind}-answer .answer")
        return page

    yield visited
    for page, handlers in opened.items():
        assert page.evaluate("typeof hacked") == "undefined"
        page.evaluate("sessionStorage.clear()")
        kept = {"origin": server.url, "storageTypes": "all"}
        page.context.new_cdp_session(page).send("Storage.clearDataForOrigin", kept)
        page.goto("about:blank")
        for event, handler in handlers.items():
            page.remove_listener(event, handler)
    assert foreign == []
    assert broken == []
