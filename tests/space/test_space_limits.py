"""Abuse: sizes, rates, times, foreign models and files, hostile texts; on the page and on the API alike."""

import json
import re
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from html.parser import HTMLParser
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import hostile
import load
import pytest
import torch
from gradio_client import Client
from load import USUAL
from space_server import LANGUAGE_MODEL

from hf_mambalrp import DEMO_LANGUAGE_MODEL, Explanation
from hf_mambalrp.errors import InputError, OptionError

TEXT = "A warm film with a dull end."
TAGS = {"div", "section", "p", "span", "sup", "b", "i", "h3", "h4", "ul", "ol", "li", "table", "thead", "tbody", "tr"}
TAGS |= {"th", "td", "caption", "bdi", "details", "summary", "footer", "mark", "a", "button", "br"}
ATTRIBUTES = {"class", "style", "role", "title", "tabindex", "data-tip", "dir", "lang", "scope"}
ATTRIBUTES |= {"aria-label", "aria-hidden", "aria-selected", "aria-pressed", "aria-multiselectable", "aria-live"}
ATTRIBUTES |= {"href", "id", "open", "type", "data-from", "data-to", "data-values", "data-terms"}
NUMBERS = re.compile(r"[\w+/=]*|\{(\"[a-z ]+\": \[[-\d., e]+\](, )?)+\}")
"""Of generated tokens: float32 in base 64, and the terms of scores."""
PLACE = re.compile(r"#?[0-9a-f]{8}-\d+")
"""A sentence of a long text, by the hash of the text, and what leads to it."""


class OwnMarkup(HTMLParser):
    """Fails on any tag or attribute that the views do not write themselves."""

    def handle_starttag(self, tag, attrs):
        assert tag in TAGS, tag
        assert {name for name, _ in attrs} <= ATTRIBUTES, attrs
        assert all(PLACE.fullmatch(value) for name, value in attrs if name in ("href", "id")), attrs
        assert all(NUMBERS.fullmatch(value) for name, value in attrs if name.startswith("data-") and name != "data-tip")
        assert dict(attrs).get("type", "button") == "button"
        assert not any("url(" in (value or "") for name, value in attrs if name == "style")


def post(server, name, data, timeout=60):
    """Call the API as plain HTTP does; returns the event and its data, or the status and its text."""
    body = data if isinstance(data, bytes) else json.dumps({"data": data}).encode()
    url = f"{server.url}gradio_api/call/{name}"
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=timeout) as response:
            event = json.load(response)["event_id"]
        with urllib.request.urlopen(f"{url}/{event}", timeout=timeout) as response:
            lines = response.read().decode().splitlines()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    said, data = [line for line in lines if line][-2:]  # behind the heartbeats of an answer that takes long
    return said.removeprefix("event: "), json.loads(data.removeprefix("data: "))


@pytest.fixture(scope="module")
def client(server):
    return Client(server.url, verbose=False)


def test_the_api_returns_the_same_numbers(client, demo):
    found = client.predict(TEXT, target="negative", contrast="positive", method="lrp_ln", api_name="/explain")
    ex = demo.explain(TEXT, target="negative", contrast="positive", method="lrp_ln")
    assert Explanation.from_dict(found["result"]).relevance.equal(ex.relevance)
    assert found["probabilities"]["negative"] == pytest.approx(ex.probability.item(), rel=1e-5)
    assert sum(found["probabilities"].values()) == pytest.approx(1)


def test_the_api_offers_no_more_than_the_page(client):
    named = client.view_api(return_format="dict", print_info=False)["named_endpoints"]
    assert set(named) == {
        *("/explain", "/next_token", "/generate", "/attention", "/compare", "/document", "/explain_image")
    }


@pytest.mark.parametrize(
    ("name", "arguments", "says"),
    [
        ("/explain", {"text": "a " * 1001}, "at most 2,000 are read here"),
        ("/explain", {"text": "aq" * 900}, "tokens, and at most 512 are read here"),
        ("/document", {"text": "a " * 10_001}, "at most 20,000 are read here"),
        ("/generate", {"text": "a", "tokens": 10_000}, "from 1 to 24"),
        ("/generate", {"text": "a", "tokens": -1}, "from 1 to 24"),
        ("/attention", {"text": "a " * 97}, "at most 96 are read here"),
        ("/explain", {"text": "a", "model": "openai-community/gpt2"}, "not one of this Space"),
        ("/explain", {"text": "a", "model": "/etc"}, "not one of this Space"),
        ("/explain", {"text": "a", "model": LANGUAGE_MODEL}, "cannot answer this"),
        ("/explain", {"text": "a", "method": "__class__"}, "can be mambalrp"),
        ("/explain", {"text": "a", "target": "<b>other</b>"}, "is no class of this model"),
        ("/next_token", {"text": "a", "target": "b" * 101}, "up to 100 characters"),
        ("/explain", {"text": ""}, "no text yet"),
    ],
)
def test_the_api_has_the_limits_of_the_page(client, space, name, arguments, says):
    with pytest.raises(Exception, match=says):
        client.predict(api_name=name, **arguments)
    kind = {"/explain": "sentence", "/next_token": "next", "/generate": "generation"}.get(name, name[1:])
    html, query, code = space.shown(None, kind=kind, **arguments)
    assert says in html
    assert (query, code) == ("", "")
    OwnMarkup().feed(html)


def test_200_hostile_inputs(space):
    given = hostile.inputs()
    assert len(given) == 200
    answers, refused = 0, 0
    for text in given:
        html, _, _ = space.shown(None, kind="sentence", text=text)
        OwnMarkup().feed(html)
        html.encode("utf-8")
        answers += 'class="text"' in html
        refused += 'role="alert"' in html
    assert answers + refused == 200
    assert refused < 60, "most of them are text, and text is explained"


@pytest.mark.parametrize("kind", ["generation", "attention", "document", "next"])
def test_hostile_inputs_in_the_other_tabs(space, kind):
    for text in hostile.inputs()[::12]:
        html, _, _ = space.shown(None, kind=kind, text=text, tokens=2)
        OwnMarkup().feed(html)
        html.encode("utf-8")


def test_hostile_inputs_over_http(server):
    for text in hostile.inputs()[::8]:
        event, data = post(server, "explain", [text, *USUAL])
        if event == "complete":
            assert Explanation.from_dict(data[0]["result"]).score.isfinite().all()
        else:
            assert event in ("error", 413), (event, data)
            assert data, "an error says what is wrong"


def test_every_other_argument_may_be_hostile_too(space):
    for value in hostile.inputs()[::5]:
        names = (
            "target",
            "contrast",
            "method",
            "model",
            "level",
            "view",
            "compared",
            "kind",
            "tokens",
            "layer",
            "rule",
        )
        for name in names:
            html, _, _ = space.shown(None, **{"text": TEXT, name: value})
            OwnMarkup().feed(html)


def test_a_body_that_is_too_large_is_refused(server):
    status, said = post(server, "explain", ["x" * 10_000_000])
    assert status == 413
    assert "Send a shorter text" in said

    def pieces():
        for _ in range(64):
            yield b"x" * 65536

    for route in ("call/explain", "upload"):
        request = urllib.request.Request(server.url + f"gradio_api/{route}", pieces(), {"Transfer-Encoding": "chunked"})
        with pytest.raises(urllib.error.HTTPError, match="413"):
            urllib.request.urlopen(request, timeout=30)


@pytest.mark.parametrize("route", ["gradio_api/upload", "gradio_api/upload/", "upload"])
def test_no_file_can_be_left(server, route):
    body = b'--X\r\nContent-Disposition: form-data; name="files"; filename="a.txt"\r\n\r\na\r\n--X--\r\n'
    request = urllib.request.Request(server.url + route, body, {"Content-Type": "multipart/form-data; boundary=X"})
    with pytest.raises(urllib.error.HTTPError, match="403") as refused:
        urllib.request.urlopen(request, timeout=10)
    assert "Files cannot be uploaded here" in json.load(refused.value)["detail"]


@pytest.mark.parametrize("route", ["run/explain", "api/explain", "run/predict"])
def test_no_route_passes_by_the_queue(server, route):
    body = json.dumps({"data": [TEXT, *USUAL], "fn_index": 0}).encode()
    url = f"{server.url}gradio_api/{route}"
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(urllib.request.Request(url, body, {"Content-Type": "application/json"}), timeout=20)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'{"data": 7}', b'{"data": [[]]}', b"\xff\xfe\x00"])
def test_malformed_bodies_are_errors_and_no_crash(server, body):
    event, _ = post(server, "explain", body)
    assert event == "error" or 400 <= event <= 500
    assert post(server, "explain", [TEXT, *USUAL])[0] == "complete"


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        "app.py",
        "../app.py",
        "models.json",
        "../hf_mambalrp/space/limits.py",
        "..%2f..%2fetc%2fpasswd",
        "https://a.example",
    ],
)
def test_no_file_can_be_read(server, path):
    for route in ("gradio_api/file=", "file=", "static/", "assets/", "gradio_api/file/", "custom_component/", ""):
        if route == "" and path.startswith("https"):
            continue
        try:
            with urllib.request.urlopen(server.url + route + path.lstrip("/" * (route == "")), timeout=10) as response:
                said = response.read()
        except urllib.error.HTTPError as error:
            said = error.read()
        assert b"root:" not in said
        assert b"text-generation" not in said
        assert b"RefusedError" not in said


def test_a_request_that_runs_too_long_is_cancelled_and_leaves_the_model_as_it_was(space, demo, monkeypatch):
    from hf_mambalrp.space import limits
    from hf_mambalrp.space.limits import Deadline, RefusedError
    from hf_mambalrp.space.question import Question

    before = demo.explain(TEXT).relevance
    now = count()
    monkeypatch.setattr(limits, "time", SimpleNamespace(monotonic=lambda: next(now)))  # a second for an operation
    with pytest.raises(RefusedError, match=r"longer than 1000 seconds and was stopped"), Deadline(1000):
        demo.explain("A long film. " * 600, method="gradient_x_input", chunk_size=8)
    assert next(now) < 1005
    assert demo.explain(TEXT).relevance.equal(before)
    assert not any(module._forward_hooks or "forward" in vars(module) for module in demo.modules())

    asked = Question.asked(space.catalog, space.limits, text="A film that nobody asked about before.")
    monkeypatch.setattr(space.answers, "limits", replace(space.limits, seconds=0))
    with pytest.raises(RefusedError, match="was stopped"):
        space.answers.answer(asked)
    monkeypatch.undo()
    assert space.answers.answer(asked).result.relevance.isfinite().all(), "a cancelled answer is not kept"


@pytest.mark.parametrize(("outer", "inner"), [(10, 100), (100, 10), (10, 10)])
def test_of_two_deadlines_the_nearer_counts_and_the_outer_goes_on(monkeypatch, outer, inner):
    from hf_mambalrp.space import limits
    from hf_mambalrp.space.limits import Deadline, RefusedError

    def operations(most):
        """How many there is time for."""
        for done in range(most):
            try:
                torch.zeros(1)
            except RefusedError:
                return done
        return most

    now = count()
    monkeypatch.setattr(limits, "time", SimpleNamespace(monotonic=lambda: next(now)))  # a second for an operation
    with Deadline(outer):
        with Deadline(inner):
            assert 4 <= operations(50) <= 10
        assert operations(50) == (0 if outer == 10 else 50)
    assert operations(5) == 5


def test_the_rate_is_limited_per_client_and_refilled(space):
    from hf_mambalrp.space.limits import RateLimit, RefusedError

    now = [0.0]
    rate = RateLimit(6, clock=lambda: now[0])
    for _ in range(6):
        rate.take("a")
    with pytest.raises(RefusedError, match=r"more than 6 requests a minute. Please try again in 10 seconds"):
        rate.take("a")
    rate.take("b")
    now[0] = 9.9
    with pytest.raises(RefusedError, match=r"Please try again in 1 second\."):
        rate.take("a")
    now[0] = 10.0
    rate.take("a")
    with pytest.raises(RefusedError):
        rate.take("a")
    now[0] = 1e6
    for _ in range(6):
        rate.take("a")
    with pytest.raises(RefusedError):
        rate.take("a")
    rate.CLIENTS = 3
    for name in "cdefgh":
        rate.take(name)
    assert len(rate.left) == 3


def test_page_and_api_share_the_rate(space, monkeypatch):
    import gradio as gr

    from hf_mambalrp.space.limits import RateLimit

    monkeypatch.setattr(space, "rate", RateLimit(2))
    request = SimpleNamespace(client=SimpleNamespace(host="192.0.2.1"), headers={})
    space.shown(request, text=TEXT)
    space.described(request, kind="sentence", text=TEXT)
    assert "more than 2 requests a minute" in space.shown(request, text=TEXT)[0]
    for call in (space.described, lambda r, **values: space.downloaded(r, "json", **values)):
        with pytest.raises(gr.Error, match="more than 2 requests a minute"):
            call(request, kind="sentence", text=TEXT)


def test_behind_a_proxy_of_a_space_the_visitor_is_counted(space, monkeypatch):
    from hf_mambalrp.space.limits import client_of

    def client(forwarded):
        headers = {"x-forwarded-for": forwarded} if forwarded else {}
        return client_of(SimpleNamespace(client=SimpleNamespace(host="10.0.0.1"), headers=headers))

    assert client("9.9.9.9, 10.0.0.9") == "10.0.0.1", "anyone can write that header where there is no proxy"
    monkeypatch.setenv("SPACE_ID", "user/space")
    assert client("9.9.9.9, 10.0.0.9") == "9.9.9.9"
    assert client("1.1.1.1, nonsense, 9.9.9.9, 10.0.0.9") == "9.9.9.9", "what the visitor wrote there does not count"
    assert client("2606:4700:4700::1111") == "2606:4700:4700::1111"
    assert client("") == client("10.0.0.9") == client("nonsense") == "10.0.0.1"


def test_a_link_asks_what_was_asked(space):
    from urllib.parse import parse_qsl

    from hf_mambalrp.space.question import Question

    asked = Question.asked(
        space.catalog,
        space.limits,
        text='a & b=c "é" 🙂\n+',
        target="positive",
        method="lrp_ln",
        view="methods",
        compared=["lrp_ln"],
    )
    assert Question.asked(space.catalog, space.limits, **dict(parse_qsl(asked.query(space.catalog)))) == asked


def test_a_list_names_all_that_can_be_chosen(tmp_path):
    from hf_mambalrp.space.catalog import read_allow_list

    given = [
        {"id": "a/language", "title": "A", "task": "text-generation"},
        {"id": "a/classes", "title": "B", "task": "text-classification"},
        {"id": "a/pictures", "title": "C", "task": "image-classification"},
    ]
    (tmp_path / "models.json").write_text(json.dumps(given))
    found = [entry.id for entry in read_allow_list(tmp_path / "models.json")]
    assert found == ["a/classes", "a/language", "a/pictures"]


def test_a_packaged_model_stands_where_a_list_names_it(tmp_path):
    from hf_mambalrp.space.catalog import ALL_PACKAGED, read_allow_list

    given = [
        {"id": "DEMO_LANGUAGE_MODEL", "title": "Stories", "task": "text-generation"},
        {"id": "a/language", "title": "A", "task": "text-generation"},
    ]
    (tmp_path / "models.json").write_text(json.dumps(given))
    found = read_allow_list(tmp_path / "models.json")
    assert [entry.id for entry in found] == [DEMO_LANGUAGE_MODEL, "a/language"]
    assert found[0].title == "Stories"
    shipped = read_allow_list(Path(__file__).parents[2] / "spaces_app" / "models.json")
    assert [entry.id for entry in shipped if "/" not in entry.id or Path(entry.id).is_dir()] == [
        p.id for p in ALL_PACKAGED
    ]
    assert shipped[1].id == DEMO_LANGUAGE_MODEL  # before the model that the Hub has


def test_a_link_to_what_no_model_can_do_says_so():
    from hf_mambalrp.space.catalog import PACKAGED
    from hf_mambalrp.space.serve import App

    html, _, _ = App([PACKAGED]).shown(None, kind="next", text=TEXT)
    assert "No language model is configured for this Space" in html


@pytest.mark.parametrize("line", [{"id": "a/b"}, {"id": "a/b", "title": "x", "task": "other"}, "a/b"])
def test_an_allow_list_that_is_none_is_an_error(tmp_path, line):
    from hf_mambalrp.space.catalog import read_allow_list

    (tmp_path / "models.json").write_text(json.dumps([line]))
    with pytest.raises(InputError, match="is no model; give an id, a title and a task"):
        read_allow_list(tmp_path / "models.json")


@pytest.mark.parametrize(
    ("text", "says"), [("[", r"is no JSON .* Give a list of models in JSON"), ("{}", "no list. Give one of models")]
)
def test_a_file_that_holds_no_list_is_an_error(tmp_path, text, says):
    from hf_mambalrp.space.catalog import read_allow_list

    (tmp_path / "models.json").write_text(text)
    with pytest.raises(InputError, match=says):
        read_allow_list(tmp_path / "models.json")


@pytest.mark.parametrize("value", ["0", "-1", "1.5", "many", ""])
def test_a_limit_that_is_no_number_is_an_error(monkeypatch, value):
    from hf_mambalrp.space.limits import Limits

    monkeypatch.setenv("SPACE_SECONDS", "7")
    assert Limits.from_environment() == Limits(seconds=7)
    monkeypatch.setenv("SPACE_TOKENS", value)
    with pytest.raises(OptionError, match=f"SPACE_TOKENS={value} is not allowed; give a whole number of at least 1"):
        Limits.from_environment()


def test_50_visitors_at_once(server):
    """Each asks something of its own, from an address of its own; the script load.py measures the times."""
    assert load.ask(server.url, "198.51.100.200", "The script asks as these do.") > 0

    def visitor(number):
        with urllib.request.urlopen(server.url, timeout=60) as page:
            assert page.status == 200
        event, data = post(server, "explain", [f"Visitor {number} saw a fine film.", *USUAL], timeout=120)
        return event, event == "complete" and Explanation.from_dict(data[0]["result"]).texts[0].split()[1]

    with ThreadPoolExecutor(50) as visitors:
        answers = list(visitors.map(visitor, range(50)))
    assert answers == [("complete", str(number)) for number in range(50)]
    assert server.peak_memory() < 2.5e9
