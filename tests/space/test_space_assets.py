"""How the page is served: what it needs is named in its head, compressed once, and kept."""

import re
from types import SimpleNamespace
from urllib.request import Request, urlopen

import brotli
import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

FOR_GOOD = "public, max-age=31536000, immutable"


@pytest.fixture
def served():
    """Pages and assets behind the middleware, and how often each was asked for behind it."""
    from hf_mambalrp.space.assets import Assets

    asked = []

    def answer(request):
        asked.append(request.url.path)
        found = "missing" not in request.url.path
        body = "<html><head><title>1 €</title></head></html>" if request.url.path == "/" else "let a = 1; // " * 99
        return PlainTextResponse(body, 200 if found else 404, {"etag": "1"})

    app = Assets(Starlette(routes=[Route("/{path:path}", answer)]), types=["textbox", "none-such"])
    return SimpleNamespace(client=TestClient(app), asked=asked, app=app)


def test_an_asset_is_compressed_once(served):
    for _ in range(3):
        found = served.client.get("/assets/Index-a_1-B.js", headers={"accept-encoding": "gzip, br"})
        assert found.text == "let a = 1; // " * 99
        assert found.headers["content-encoding"] == "br"
        assert found.headers["cache-control"] == FOR_GOOD
        assert found.headers["content-type"].startswith("text/plain")
        assert int(found.headers["content-length"]) < 100
    assert served.asked == ["/assets/Index-a_1-B.js"]


@pytest.mark.parametrize(
    ("path", "accepted"),
    [
        ("/assets/Index-a.js", "gzip"),  # brotli is not asked for
        ("/assets/missing.js", "br"),  # an error passes
        ("/assets/below/Index-a.js", "br"),  # one file under many names would fill the memory
        ("/assets//Index-a.js", "br"),
        ("/gradio_api/Index-a.js", "br"),
    ],
)
def test_what_is_not_kept_is_asked_for_every_time(served, path, accepted):
    for _ in range(2):
        found = served.client.get(path, headers={"accept-encoding": accepted})
        assert found.status_code == (404 if "missing" in path else 200)
        assert "cache-control" not in found.headers
    assert served.asked == [path] * 2
    assert served.app.kept == {}


@pytest.mark.parametrize("accepted", ["br", "identity"])
def test_the_head_of_the_page_names_what_it_needs(served, accepted):
    found = served.client.get("/", headers={"accept-encoding": accepted})
    assert re.search(r"<title>1 €</title><link rel='stylesheet' [^>]+></head></html>$", found.text), "over gradio's own"
    assert found.text.startswith("<html><head><link rel='modulepreload' crossorigin href='./assets/")
    assert "cache-control" not in found.headers, "the page is made anew for every visitor"
    assert found.headers.get("content-encoding", "identity") == accepted
    assert served.client.post("/").status_code == 405


def test_a_page_of_more_components_needs_more_and_nothing_for_tables_of_examples():
    from hf_mambalrp.space.assets import FRONTEND, needed

    one, more = needed(["textbox"]), needed(["textbox", "slider"])
    assert set(one) < set(more)
    assert all((FRONTEND / "assets" / file).is_file() for file in more)
    assert needed([]) == needed(["none-such"])


@pytest.mark.parametrize("accepted", ["br", "identity"])
def test_the_styles_of_all_components_are_one_file(served, accepted):
    from hf_mambalrp.space.assets import FRONTEND, needed

    headers = {"accept-encoding": accepted}
    text = served.client.get("/", headers=headers).text
    (sheet,) = re.findall(r"<link rel='stylesheet' crossorigin href='\./(assets/page-\w+\.css)'>", text)
    found = served.client.get(f"/{sheet}", headers=headers)
    listed = [file for file in needed(["textbox"]) if file.endswith(".css")]
    assert listed == re.findall(r"<link rel='stylesheet' disabled href='\./assets/([\w.-]+)'>", text)
    assert found.text == "".join((FRONTEND / "assets" / file).read_text() + "\n" for file in listed)
    assert found.headers["content-type"].startswith("text/css")
    assert found.headers["cache-control"] == FOR_GOOD
    assert found.headers.get("content-encoding", "identity") == accepted
    assert served.asked == ["/"], "it is made here"


def test_what_a_sheet_says_is_said_anywhere():
    """In one file with others: no import, which has to come first, and no address that goes from where it stands."""
    from hf_mambalrp.space.assets import FRONTEND, needed

    for file in needed(["textbox", "html", "radio", "dropdown", "button", "slider", "checkboxgroup", "tabitem"]):
        if file.endswith(".css"):
            assert not re.search(r"@import|@charset|url\((?!['\"]?data:)", (FRONTEND / "assets" / file).read_text()), (
                file
            )


def test_a_browser_finds_all_that_it_loads_named_in_the_head(visit, server):
    """Of every type that the first tab shows; what only a later tab shows is loaded with it."""
    text = urlopen(server.url).read().decode()
    named = set(re.findall(r"""(?:src|href)=["']\./assets/([\w.-]+)""", text))
    page = visit()
    loaded = page.evaluate("performance.getEntriesByType('resource').map(one => one.name)")
    assets = {url.rpartition("/")[2] for url in loaded if "/assets/" in url}
    assert len(assets) > 30
    assert assets - named == set()
    assert sum(name.endswith(".css") for name in assets) == 2, "gradio's own, and that of all components"


def test_gradios_own_server_sends_what_is_kept(server):
    text = urlopen(server.url).read().decode()
    url = server.url + re.search(r"assets/core-[\w-]+\.js", text)[0]
    plain = urlopen(url).read()
    with urlopen(Request(url, headers={"Accept-Encoding": "br"})) as small:
        assert small.headers["cache-control"] == FOR_GOOD
        assert brotli.decompress(small.read()) == plain
