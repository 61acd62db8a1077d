"""How an answer is computed, shown, copied and kept: models, time, ZeroGPU, Python, files."""

import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import count
from types import SimpleNamespace

import forks
import pytest
from small import word_tokenizer
from space_server import APP

TEXT = "A warm film with a dull end."


def test_a_model_that_loads_holds_up_nobody_else(space, monkeypatch):
    """Visitors of one model do not wait for another; the model is loaded once for all who ask for it."""
    from threading import Event

    from hf_mambalrp.space.catalog import Catalog, Entry

    may_end, loaded = Event(), []

    def load(wanted):
        loaded.append(wanted.id)
        if wanted.id == "slow":
            assert may_end.wait(30)
        return wanted.id, None

    monkeypatch.setattr(Catalog, "_load", staticmethod(load))
    models = Catalog([Entry(name, name, "text-generation") for name in ("slow", "fast")])
    with ThreadPoolExecutor(4) as visitors:
        waiting = [visitors.submit(models.get, "slow") for _ in range(2)]
        try:
            assert visitors.submit(models.get, "fast").result(timeout=10) == ("fast", None)
        finally:
            may_end.set()
        assert [visit.result(timeout=10) for visit in waiting] == [("slow", None)] * 2
    assert sorted(loaded) == ["fast", "slow"]


def test_the_space_starts_without_its_first_model():
    """A model that cannot be loaded for now is missing for as long, and the rest of the page is there."""
    from hf_mambalrp.space.catalog import PACKAGED, Entry
    from hf_mambalrp.space.page import build
    from hf_mambalrp.space.serve import App

    missing = Entry("/nowhere/at/all", "Missing", "text-classification")
    app = App([missing, PACKAGED])
    build(app)
    html, _, _ = app.shown(None, text=TEXT)
    assert "The model “Missing” could not be loaded just now" in html
    html, _, _ = app.shown(None, text=TEXT, model=PACKAGED.title)
    assert 'class="text"' in html


def test_two_apps_of_one_process_share_nothing():
    """Neither models, nor limits, nor counts of requests, nor answers."""
    from hf_mambalrp.space.catalog import PACKAGED, PACKAGED_VISION
    from hf_mambalrp.space.limits import Limits
    from hf_mambalrp.space.serve import App

    one, other = App([PACKAGED], Limits(characters=10, requests_a_minute=2)), App([PACKAGED, PACKAGED_VISION])
    visitor = SimpleNamespace(client=SimpleNamespace(host="192.0.2.1"), headers={})
    assert "at most 10 are read here" in one.shown(visitor, text=TEXT)[0]
    assert "No image model" in one.shown(visitor, kind="image", picture="bag")[0]
    assert "more than 2 requests a minute" in one.shown(visitor, text="A film.")[0]
    assert 'class="text"' in other.shown(visitor, text=TEXT)[0]
    assert 'class="picture"' in other.shown(visitor, kind="image", picture="bag")[0]
    assert one.catalog.get(PACKAGED.title)[0] is not other.catalog.get(PACKAGED.title)[0]


@pytest.mark.parametrize("asked", [{"text": TEXT}, {"kind": "image", "picture": "bag"}])
def test_what_was_answered_is_not_written_again(space, monkeypatch, asked):
    first = space.shown(None, **asked)[0]
    monkeypatch.setattr(type(space.answers), "answer", None)
    assert space.shown(None, **asked)[0] == first


def test_all_methods_together_have_the_time_of_one_request(space, monkeypatch):
    """By a clock that goes on by a second whenever it is read, as it is before every operation of torch."""
    from hf_mambalrp.space import limits
    from hf_mambalrp.space.question import METHODS

    now = count()
    monkeypatch.setattr(limits, "time", SimpleNamespace(monotonic=lambda: next(now)))

    def asked(text, methods, seconds):
        monkeypatch.setattr(space.answers, "limits", replace(space.limits, seconds=seconds))
        began = next(now)
        html, _, _ = space.shown(None, text=text, view="methods", compared=methods)
        return html, next(now) - began

    longest = max(asked("One for each.", [method], 10**9)[1] for method in METHODS)
    html, took = asked("One for all.", list(METHODS), longest)
    assert f"longer than {longest} seconds and was stopped" in html
    assert took < 1.1 * longest


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"target": "other"}, "is no class of this model"),
        ({"text": "a " * 700}, "at most 512 are read here"),
        ({"text": TEXT}, 'class="text"'),
    ],
)
def test_on_zerogpu_visitors_read_the_same_sentences(space, monkeypatch, values, says):
    """`spaces` runs the function in another process: of an exception only the name of its class comes back."""
    import pickle

    import gradio as gr

    compute = space.answers._compute

    def on_gpu(question):
        try:
            return pickle.loads(pickle.dumps(compute(pickle.loads(pickle.dumps(question)))))
        except Exception as error:
            raise gr.Error(type(error).__name__, title="ZeroGPU worker error") from None

    monkeypatch.setattr(space.answers, "computed", on_gpu)
    space.answers.kept.cache_clear()
    space.written.cache_clear()
    assert says in space.shown(None, **{"text": "A film.", **values})[0]


def test_on_zerogpu_a_used_up_quota_is_said_where_the_answer_would_be(space, monkeypatch):
    import gradio as gr

    def on_gpu(question):
        raise gr.Error("You have exceeded your GPU quota. <b>Try again</b> in 1:00:00.", title="ZeroGPU quota exceeded")

    monkeypatch.setattr(space.answers, "computed", on_gpu)
    space.answers.kept.cache_clear()
    space.written.cache_clear()
    html, query, code = space.shown(None, text=TEXT)
    assert "exceeded your GPU quota. &lt;b&gt;Try again" in html
    assert (query, code) == ("", "")


def test_the_function_for_the_gpu_is_decorated_where_spaces_is_installed(environment, tmp_path):
    (tmp_path / "spaces.py").write_text(
        "def GPU(duration):\n"
        "    def decorate(function):\n"
        "        def on_gpu(*values):\n"
        "            print('on the GPU for', duration, flush=True)\n"
        "            return function(*values)\n"
        "        return on_gpu\n"
        "    return decorate\n"
    )
    code = (
        "from hf_mambalrp.space.serve import App\n"
        "shown = App().shown\n"
        "assert 'class=\"text\"' in shown(None, text='A warm film.')[0]\n"
        "assert 'is no class' in shown(None, text='A warm film.', target='x')[0]\n"
    )
    run = forks.run(["-c", code], env={**os.environ, **environment}, cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines().count("on the GPU for 30") == 2


def test_the_python_gives_what_is_on_the_screen(space, demo, allow_list, capsys):
    import re

    from hf_mambalrp import AutoMambaLRPForCausalLM

    def printed(**values):
        html, _, code = space.shown(None, **values)
        capsys.readouterr()
        run = {}
        exec(code, run)
        return html, run["result"], capsys.readouterr().out

    methods = ["lrp_ln", "gradient_x_input"]
    html, result, out = printed(text=TEXT, view="methods", compared=methods, target="negative")
    assert result.method == "gradient_x_input"
    for name in methods:
        ex = demo.explain(TEXT, method=name, target="negative")
        assert str(ex.conservation) in html
        assert ex.to_text() in out

    html, result, out = printed(text=TEXT, view="layers", level="token")
    titles = re.findall(r'title="([^"]+)"', html)
    numbers = [[float(n) for n in line.split("[")[1].rstrip("]").split(", ")] for line in out.splitlines()]
    columns = [list(map(float, titles[i :: len(numbers)])) for i in range(len(numbers))]
    assert [line[::-1] for line in numbers] == [pytest.approx(column, abs=0.00051) for column in columns]

    html, result, out = printed(text=TEXT, view="parts")
    assert out.strip() == demo.explain(TEXT, per_layer=True).parts.to_text().strip()
    shares = [cell.text for line in result.parts.document().sections[0].blocks[1].cells for cell in line]
    assert all(f">{share}</t" in html for share in shares), shares

    html, result, out = printed(kind="attention", text="Not bad", layer=1)
    assert out.strip() == f"ssm {demo.hidden_attention('Not bad').map(1)}"
    assert "<footer>raw attention" in html

    html, result, out = printed(kind="generation", text="The capital of", tokens=3)
    model = AutoMambaLRPForCausalLM.from_pretrained(json.loads(allow_list.read_text())[0]["id"])
    ex = model.explain_generation("The capital of", max_new_tokens=3)
    assert all(ex.step(step).to_text() in out for step in ex.generated(0))


def test_a_hybrid_is_explained_by_the_rule_that_is_chosen_in_the_view_of_parts(tmp_path):
    """In other views by the usual one, so that what they show does not depend on what is hidden in them."""
    import torch
    from transformers import BambaConfig

    from hf_mambalrp import AutoMambaLRPForSequenceClassification, BambaForSequenceClassification
    from hf_mambalrp.space.catalog import Entry
    from hf_mambalrp.space.serve import App

    tokenizer = word_tokenizer(model_input_names=["input_ids", "attention_mask"])
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 20, "num_hidden_layers": 2, "attn_layer_indices": [1]}
    sizes |= {"num_attention_heads": 4, "num_key_value_heads": 2, "mamba_n_heads": 4, "mamba_d_state": 8}
    config = BambaConfig(vocab_size=len(tokenizer), **sizes, initializer_range=0.3, pad_token_id=0, num_labels=2)
    BambaForSequenceClassification(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    app = App([Entry(str(tmp_path), "Hybrid", "text-classification")])
    model, text = AutoMambaLRPForSequenceClassification.from_pretrained(tmp_path), "a b c d e f"
    parts = {rule: model.explain(text, attention_rule=rule, per_layer=True).parts for rule in ("cp", "attnlrp")}
    assert parts["cp"].shares["attention"] != parts["attnlrp"].shares["attention"]
    for rule, expected in parts.items():
        html, query, code = app.shown(None, text=text, view="parts", rule=rule)
        assert f">{expected.shares['attention'].item():.1%}<" in html
        assert ("rule=attnlrp" in query) == ("attention_rule='attnlrp'" in code) == (rule == "attnlrp")
        found = app.described(None, kind="sentence", text=text, view="parts", rule=rule)["result"]
        assert found["method_options"]["attention_rule"] == rule
    words = [app.shown(None, text=text, view="words", rule=rule)[0] for rule in parts]
    assert words[0] == words[1]
    assert "“rule” can be cp, attnlrp" in app.shown(None, text=text, rule="none")[0]


def test_files_hold_what_is_on_the_screen(space, demo):
    import base64

    def file(form, **values):
        return base64.b64decode(json.loads(space.downloaded(None, form, **values))[2]).decode()

    for level in ("word", "token"):
        assert file("html", text=TEXT, level=level) == demo.explain(TEXT, per_layer=True).to_html(level=level)
    assert "Hidden attention" in file("html", kind="attention", text="Not bad")


def test_the_front_matter_is_what_spaces_needs():
    import gradio
    import transformers
    from huggingface_hub import RepoCard
    from packaging.requirements import Requirement

    card = RepoCard.load(APP / "README.md").data
    assert (card.sdk, card.app_file, card.python_version) == ("gradio", "app.py", "3.12")
    assert card.sdk_version == gradio.__version__, "the release that these tests ran with"
    assert len(card.short_description) <= 60
    lines = (APP / "requirements.txt").read_text().splitlines()
    required = {one.name: one.specifier for one in (Requirement(line.partition("#")[0]) for line in lines)}
    assert set(required) == {"hf_mambalrp", "torch", "transformers"}, "sdk_version installs gradio"
    assert [v for v in ("2.7.1", "2.8.0", "2.11.0", "2.12.0") if v in required["torch"]] == ["2.8.0", "2.11.0"]
    assert transformers.__version__ in required["transformers"]
