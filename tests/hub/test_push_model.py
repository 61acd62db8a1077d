"""Models on a Hub: what is pushed and comes back, cards that were there, what goes wrong and how it is mended."""

import copy
import re
import sys
import time

import forks
import pytest
import torch
import yaml
from huggingface_hub import HfApi, constants
from random_models import random_model
from server import blob_oid
from test_card import results
from transformers import AutoModelForCausalLM, AutoTokenizer, MambaForCausalLM

from hf_mambalrp import AutoMambaLRPForCausalLM, MambaLRPForCausalLM, make_explainable
from hf_mambalrp.errors import (
    CardError,
    HubConnectionError,
    HubError,
    InputError,
    MissingExtraError,
    MissingRepositoryError,
    NotLoggedInError,
    OfflineError,
    OptionError,
    RepositoryAccessError,
)
from hf_mambalrp.hub.card import BEGIN, END
from hf_mambalrp.hub.repository import open_repository
from hf_mambalrp.models.fingerprint import fingerprint

THEIRS = b"---\nlicense: mit # ours\ntags: [french]\n---\r\n# By hand\n\n* kept  \n"
WEIGHTS = "model.safetensors"


def card(repository, branch="main"):
    text = repository.files(branch)["README.md"].decode()
    return yaml.safe_load(text.split("---")[1]), text


def test_what_is_pushed_is_a_model_of_transformers_with_a_card(hub, model, explanation):
    address = model.push_to_hub("explained", explanations=explanation, tags=["french"])
    repository = hub.repositories["model", "me/explained"]
    assert address == f"{hub.url}/me/explained/commit/{repository.branches['main']}"
    assert repository.history() == ["Upload MambaForCausalLM with hf_mambalrp", "initial commit"]

    plain, info = AutoModelForCausalLM.from_pretrained("me/explained", output_loading_info=True)
    assert type(plain) is MambaForCausalLM
    assert not any(info[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    for name, value in model.state_dict().items():
        assert torch.equal(plain.state_dict()[name], value)
    tokens = AutoTokenizer.from_pretrained("me/explained")("The capital")["input_ids"]
    assert tokens == explanation.input_ids[0, :2].tolist()

    data, text = card(repository)
    assert data == {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["french", "mamba", "explainability", "lrp", "hf_mambalrp"],
    }
    pictures = re.findall(r"!\[(.+)\]\((.+)\)", text)
    assert [path for _, path in pictures] == ["explanations/explanation-1.png", "explanations/explanation-2.png"]
    for _, path in pictures:
        assert repository.files()[path].startswith(b"\x89PNG")
    for row in range(2):
        assert str(explanation.conservation[row]) in text
        for word in explanation.words(row):
            assert f"| {word.text} | {word.relevance:+.3f} |" in text


def test_a_second_push_changes_nothing(hub, model, explanation):
    first = model.push_to_hub(
        "me/explained", explanations=explanation, evaluation={**results(), "weights": fingerprint(model)}
    )
    sent = hub.count("PUT", "/lfs/")
    second = model.push_to_hub(
        "me/explained", explanations=explanation, evaluation={**results(), "weights": fingerprint(model)}
    )
    assert first == second
    assert len(hub.repositories["model", "me/explained"].history()) == 2
    assert hub.count("PUT", "/lfs/") == sent == 1


def test_a_model_of_texts_takes_no_image_processor(hub, model):
    with pytest.raises(OptionError, match=r"image_processor=str, and .* reads texts\. Give tokenizer="):
        model.push_to_hub("me/explained", image_processor="me/processor")
    assert not hub.repositories


@pytest.mark.usefixtures("drawn_once")
def test_a_card_that_was_there_is_extended(hub, model, explanation):
    repository = hub.add("me/theirs", {"README.md": THEIRS, "notes.txt": b"n", "tokenizer_config.json": b"{}"})
    model.push_to_hub("me/theirs", explanations=explanation)
    data, text = card(repository)
    assert data == {
        "license": "mit",
        "tags": ["french", "mamba", "explainability", "lrp", "hf_mambalrp"],
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
    }
    assert text.startswith("---\nlicense: mit # ours\ntags:")
    assert text[: text.index(BEGIN)].endswith("---\r\n# By hand\n\n* kept  \n\n")
    assert repository.files()["notes.txt"] == b"n"
    assert repository.files()["tokenizer_config.json"] == b"{}"

    edited = text.replace("# By hand", "# By two hands") + "and after\n"
    repository.commit("main", "theirs", {**repository.files(), "README.md": edited.encode()})
    model.push_to_hub("me/theirs", explanations=explanation[0])
    again = card(repository)[1]
    assert again.split(BEGIN)[0] == edited.split(BEGIN)[0]
    assert again.split(END)[1] == edited.split(END)[1]
    assert [path for path in repository.files() if path.endswith(".png")] == ["explanations/explanation-1.png"]

    model.push_to_hub("me/theirs")
    assert card(repository)[1] == again
    assert "explanations/explanation-1.png" in repository.files()


@pytest.mark.usefixtures("drawn_once")
def test_what_is_not_given_stays_as_an_earlier_push_left_it(hub, model, explanation):
    model.push_to_hub("me/explained", explanations=explanation)
    repository = hub.repositories["model", "me/explained"]
    explained = card(repository)[1]
    model.push_to_hub("me/explained", evaluation={**results(), "weights": fingerprint(model)})
    both = card(repository)[1]
    shown = explained[explained.index(BEGIN) : explained.index(END)].strip()
    assert f"{shown}\n\n### Faithfulness\n" in both
    assert {f"explanations/explanation-{i}.png" for i in (1, 2)} < {*repository.files()}
    model.push_to_hub("me/explained", explanations=explanation[0])
    figures = both[both.index("### Faithfulness") : both.index(END)]
    assert card(repository)[1].endswith(f"\n\n{figures}{END}\n")
    assert card(repository)[0]["model-index"]
    assert card(repository)[1].count("![") == 1
    model.push_to_hub("me/explained", explanations=[])
    assert "![" not in card(repository)[1]
    assert not [path for path in repository.files() if path.endswith(".png")]
    assert figures in card(repository)[1]


@pytest.mark.usefixtures("drawn_once")
def test_pictures_of_the_owner_stay(hub, model, explanation, tmp_path):
    theirs = "explanations/explanation-of-the-data.png"
    repository = hub.add("me/theirs", {theirs: b"data", "explanations/explanation-2.png": b"an earlier push's"})
    (tmp_path / "explanations").mkdir()
    (tmp_path / theirs).write_bytes(b"data")
    model.push_to_hub("me/theirs", explanations=explanation[0])
    model.save_pretrained(tmp_path, explanations=explanation[0])
    assert repository.files()[theirs] == (tmp_path / theirs).read_bytes() == b"data"
    assert "explanations/explanation-2.png" not in repository.files()


@pytest.mark.parametrize("shards_first", [False, True])
def test_weights_of_an_earlier_push_are_not_left_beside_the_new_ones(hub, model, shards_first):
    """transformers reads model.safetensors before shards, whichever is older."""
    sizes = [{"max_shard_size": "20KB"}, {}] if shards_first else [{}, {"max_shard_size": "20KB"}]
    model.push_to_hub("me/explained", **sizes[0])
    changed = copy.deepcopy(model)
    with torch.no_grad():
        changed.backbone.norm_f.weight.mul_(2)
    changed.push_to_hub("me/explained", **sizes[1])
    found = AutoModelForCausalLM.from_pretrained("me/explained")
    assert torch.equal(found.backbone.norm_f.weight, changed.backbone.norm_f.weight)
    names = {path for path in hub.repositories["model", "me/explained"].files() if ".safetensors" in path}
    assert (names == {WEIGHTS}) == shards_first
    assert (WEIGHTS in names) == shards_first


def test_a_variant_is_beside_the_other_weights(hub, model):
    model.push_to_hub("me/explained")
    model.push_to_hub("me/explained", variant="fp32")
    assert {WEIGHTS, "model.fp32.safetensors"} < {*hub.repositories["model", "me/explained"].files()}


def test_figures_are_metadata_of_the_card(hub, model):
    model.push_to_hub("me/explained", evaluation={**results(), "weights": fingerprint(model)})
    data, text = card(hub.repositories["model", "me/explained"])
    (entry,) = data["model-index"]
    assert entry["name"] == "explained"
    assert {metric["type"]: metric["value"] for metric in entry["results"][0]["metrics"]} == {
        "delta_flip": 1.0,
        "delta_insert": 2.0,
        "comprehensiveness": 3.0,
        "sufficiency": 4.0,
    }
    assert "| random | -1.000 [-1.500, -0.750] |" in text
    ours = HfApi().model_info("me/explained")
    assert ours.sha == hub.repositories["model", "me/explained"].branches["main"]


@pytest.mark.usefixtures("drawn_once")
def test_the_program_in_the_card_works_as_it_is_written(hub, model, explanation, environment, tmp_path):
    model.push_to_hub("me/explained", explanations=explanation, private=True)
    (program,) = re.findall(r"```python\n(.*?)```", card(hub.repositories["model", "me/explained"])[1], re.DOTALL)
    result = forks.run(["-c", program], env=environment, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    predicted = model.explain("The capital of France is")
    assert str(predicted.conservation[0]) in result.stdout
    assert "capital" in (tmp_path / "explanation.html").read_text()


@pytest.mark.parametrize("how", ["a target of two tokens", "generation"])
def test_the_program_reads_the_prompt_alone(model, tmp_path, how):
    prompt = "The capital of France is"
    if how == "generation":
        explanation = model.explain_generation(prompt, max_new_tokens=2)
    else:
        explanation = model.explain(prompt, target=" Paris is")
    model.save_pretrained(tmp_path, explanations=explanation)
    assert f"model.explain({prompt!r})" in (tmp_path / "README.md").read_text(encoding="utf-8")


@pytest.mark.usefixtures("drawn_once")
def test_the_program_of_a_saved_folder_works_beside_it(model, explanation, environment, tmp_path):
    model.save_pretrained(tmp_path / "explained", explanations=explanation)
    (program,) = re.findall(r"```python\n(.*?)```", (tmp_path / "explained" / "README.md").read_text(), re.DOTALL)
    result = forks.run(["-c", program], env=environment, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert str(model.explain("The capital of France is").conservation[0]) in result.stdout


def test_the_program_of_a_model_without_a_tokenizer_gives_ids(hub, environment, tmp_path):
    random_model(num_layers=1, vocab_size=12, dtype=torch.float32).save_pretrained(tmp_path / "bare")
    bare = MambaLRPForCausalLM.from_pretrained(tmp_path / "bare")
    bare.push_to_hub("me/bare", explanations=bare.explain(input_ids=torch.tensor([[7, 3, 5]])))
    repository = hub.repositories["model", "me/bare"]
    assert not [path for path in repository.files() if "token" in path]
    (program,) = re.findall(r"```python\n(.*?)```", card(repository)[1], re.DOTALL)
    assert "input_ids=torch.tensor([[7, 3, 5]])" in program
    result = forks.run(["-c", program], env=environment, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert str(bare.explain(input_ids=torch.tensor([[7, 3, 5]])).conservation[0]) in result.stdout


@pytest.mark.usefixtures("drawn_once")
def test_a_generation_and_a_long_list_are_shown(hub, model, explanation):
    generated = model.explain_generation("The capital of", max_new_tokens=2)
    model.push_to_hub("me/explained", explanations=[generated, *[explanation] * 4])
    repository = hub.repositories["model", "me/explained"]
    text = card(repository)[1]
    assert "| Generated | Score | Probability | Gap | Strongest words before it |" in text
    assert text.count("\n### ") == 8
    assert text.count("<details><summary>The numbers</summary>") == text.count("</details>") == 8
    shown = re.sub(r"<details>.*?</details>", "", text, flags=re.DOTALL)
    assert not re.search(r"(?<!\d)\d{1,3}\.\d{3}(?!\d)", shown), "numbers are in the pictures, and unfold as tables"
    assert text.count("<sub>") == 1, "what made them all"
    assert "1 more explanations are not shown here." in text
    assert sum(path.endswith(".png") for path in repository.files()) == 8


def test_a_branch_and_a_pull_request(hub, model):
    model.push_to_hub("me/explained", revision="next")
    repository = hub.repositories["model", "me/explained"]
    assert WEIGHTS in repository.files("next")
    assert WEIGHTS not in repository.files("main")
    hub.add("other/theirs", {"README.md": THEIRS})
    answer = model.push_to_hub("other/theirs", create_pr=True)
    assert answer.pr_url.endswith("other/theirs/discussions/1")
    assert hub.repositories["model", "other/theirs"].files()["README.md"] == THEIRS
    assert BEGIN in card(hub.repositories["model", "other/theirs"], "refs/pr/1")[1]


def test_a_folder_gets_the_same_card(hub, model, explanation, tmp_path):
    model.save_pretrained(tmp_path / "explained", explanations=explanation)
    model.push_to_hub("me/explained", explanations=explanation)
    pushed = hub.repositories["model", "me/explained"].files()
    written = {
        path.relative_to(tmp_path / "explained").as_posix(): path.read_bytes()
        for path in (tmp_path / "explained").rglob("*")
        if path.is_file()
    }
    assert (
        written["README.md"].replace(b"from_pretrained('explained')", b"from_pretrained('me/explained')")
        == (pushed["README.md"])
    )
    same = {WEIGHTS, "explanations/explanation-1.png", "explanations/explanation-2.png"}
    assert {blob_oid(written[name]) for name in same} == {blob_oid(pushed[name]) for name in same}
    model.save_pretrained(tmp_path / "explained", explanations=explanation[1])
    assert not (tmp_path / "explained" / "explanations" / "explanation-2.png").exists()
    model.save_pretrained(tmp_path / "plain")
    assert not (tmp_path / "plain" / "README.md").exists()
    with pytest.raises(OptionError, match="push_to_hub"):
        model.save_pretrained(tmp_path / "plain", explanations=explanation, push_to_hub=True)


@pytest.mark.usefixtures("drawn_once")
def test_a_folder_gets_nothing_where_what_it_would_show_is_wrong(model, explanation, tmp_path):
    for wrong in ({"explanations": [explanation, 3]}, {"explanations": "text"}, {"evaluation": {}}):
        with pytest.raises(InputError):
            model.save_pretrained(tmp_path / "new", **wrong)
        assert not any((tmp_path / "new").iterdir())
    (tmp_path / "README.md").write_bytes(b"\xff")
    with pytest.raises(CardError):
        model.save_pretrained(tmp_path, explanations=explanation)
    assert {path.name for path in tmp_path.iterdir()} == {"new", "README.md"}


def test_a_model_made_explainable_is_pushed_with_its_explanations(hub, folder, explanation):
    plain = make_explainable(MambaForCausalLM.from_pretrained(folder))
    plain.push_to_hub("me/stock", explanations=explanation)
    AutoMambaLRPForCausalLM.from_pretrained(folder).push_to_hub("me/ours", explanations=explanation)
    pushed = [hub.repositories["model", f"me/{name}"].files() for name in ("stock", "ours")]
    assert pushed[0].keys() == pushed[1].keys()
    assert pushed[0].pop("README.md").replace(b"stock", b"ours") == pushed[1].pop("README.md")
    assert pushed[0] == pushed[1]


@pytest.mark.parametrize(
    ("token", "error", "says"),
    [(None, NotLoggedInError, "hf auth login"), ("hf_wrong", NotLoggedInError, "settings/tokens")],
)
def test_without_a_good_token(hub, model, monkeypatch, token, error, says):
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    else:
        monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(error, match=says):
        model.push_to_hub("me/explained")
    assert hub.repositories == {}


def test_repositories_of_others(hub, model):
    hub.add("other/open", {})
    hub.add("other/closed", {"config.json": b"{}"}, private=True)
    for name in ("other/open", "other/closed", "other/new"):
        with pytest.raises(RepositoryAccessError, match="create_pr=True"):
            model.push_to_hub(name)
    assert hub.repositories["model", "other/open"].history() == ["theirs", "initial commit"]
    for name in ("other/closed", "me/none"):
        with pytest.raises(OSError, match=name):
            AutoMambaLRPForCausalLM.from_pretrained(name)


def test_a_private_model_is_for_its_owner(hub, model):
    model.push_to_hub("me/secret", private=True)
    with pytest.raises(OSError, match="me/secret"):
        AutoMambaLRPForCausalLM.from_pretrained("me/secret", token="hf_other")
    assert AutoMambaLRPForCausalLM.from_pretrained("me/secret").config.vocab_size == model.config.vocab_size


@pytest.mark.usefixtures("drawn_once")
def test_a_token_that_may_only_read(hub, model, explanation):
    hub.add("me/there", {})
    hub.add("me/there", {}, repo_type="dataset")
    for name in ("me/there", "me/new"):
        with pytest.raises(RepositoryAccessError, match="a token that may write"):
            model.push_to_hub(name, token="hf_read")
        with pytest.raises(RepositoryAccessError, match="a token that may write"):
            explanation.push_to_hub(name, token="hf_read", revision="next")
    assert {repo for _, repo in hub.repositories} == {"me/there"}
    assert all(repository.history() == ["theirs", "initial commit"] for repository in hub.repositories.values())


def test_offline(hub, model, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(OfflineError, match=r"HF_HUB_OFFLINE is set.*save_pretrained"):
        model.push_to_hub("me/explained")
    assert hub.requests == []


def test_no_hub_at_all(hub, model, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(HubConnectionError, match="do the same again"):
        model.push_to_hub("me/explained")


@pytest.mark.usefixtures("drawn_once")
@pytest.mark.parametrize("applied", [False, True])
@pytest.mark.parametrize("fragment", ["/repos/create", "/commit/"])
def test_a_broken_connection_is_mended_by_a_second_push(hub, model, explanation, fragment, applied):
    """Broken before the request has arrived, or after it took effect and before the answer."""
    hub.drop("POST", fragment, applied=applied)
    with pytest.raises(HubConnectionError, match="do the same again"):
        model.push_to_hub("me/explained", explanations=explanation[0])
    half = hub.repositories.get(("model", "me/explained"))
    whole = {WEIGHTS, "README.md", "config.json", "explanations/explanation-1.png"}
    if half:
        assert whole & {*half.files()} == (whole if fragment == "/commit/" and applied else set())
    model.push_to_hub("me/explained", explanations=explanation[0])
    repository = hub.repositories["model", "me/explained"]
    assert whole <= {*repository.files()}
    assert len(repository.history()) == 2
    assert hub.count("PUT", "/lfs/") == 1


@pytest.mark.usefixtures("drawn_once")
@pytest.mark.parametrize("applied", [False, True])
def test_whichever_request_breaks_a_second_push_mends_it(hub, model, explanation, monkeypatch, tmp_path, applied):
    monkeypatch.setattr(time, "sleep", lambda seconds: None)

    def push(place):
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / str(place)))
        model.push_to_hub("me/theirs", explanations=explanation[0], revision="next")

    def begin():
        hub.reset()
        return hub.add("me/theirs", {"README.md": THEIRS})

    whole = begin()
    push("clean")
    requests = list(dict.fromkeys(request for request in hub.requests if "me/theirs" in request[1]))
    assert len(requests) > 6
    for number, (method, path) in enumerate(requests):
        repository = begin()
        hub.drop(method, path, 10**6, applied=applied)
        with pytest.raises(HubConnectionError, match="do the same again"):
            push(number)
        assert hub.count(method, path)
        assert repository.files("main") == whole.files("main")
        assert repository.files("next" if "next" in repository.branches else "main") in (
            whole.files("main"),
            whole.files("next"),
        )
        hub.faults.clear()
        push(f"{number}-again")
        assert repository.files("next") == whole.files("next")
        assert len(repository.history("next")) == 3


@pytest.mark.parametrize("times", [1, 10**6])
def test_weights_that_break_off_half_way(hub, model, monkeypatch, times):
    """Once, which huggingface_hub mends itself; and for good, after which a second push begins anew."""
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    hub.drop("PUT", "/lfs/", times)
    if times > 1:
        with pytest.raises(HubConnectionError, match="do the same again"):
            model.push_to_hub("me/explained")
        assert hub.repositories["model", "me/explained"].history() == ["initial commit"]
        hub.faults.clear()
    model.push_to_hub("me/explained")
    assert hub.repositories["model", "me/explained"].files()[WEIGHTS] == next(iter(hub.large.values()))
    assert AutoMambaLRPForCausalLM.from_pretrained("me/explained").config.vocab_size == model.config.vocab_size


def test_a_commit_in_the_meantime_is_not_overwritten(hub):
    repository = open_repository("me/explained", "model")
    hub.repositories["model", "me/explained"].commit("main", "theirs", {"README.md": THEIRS})
    with pytest.raises(HubError, match="in the meantime"):
        repository.commit({"README.md": b"ours"}, "ours")
    assert hub.repositories["model", "me/explained"].files() == {"README.md": THEIRS}


@pytest.mark.parametrize("status", [429, 500, 504])
def test_an_answer_that_is_an_error_promises_nothing_about_the_commit(hub, model, monkeypatch, status):
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    hub.refuse("POST", "/commit/", status)
    with pytest.raises(HubError, match="as a whole or not at all"):
        model.push_to_hub("me/explained")
    model.push_to_hub("me/explained")
    assert len(hub.repositories["model", "me/explained"].history()) == 2


def test_what_is_wrong_is_said_before_anything_is_written(hub, model, explanation, monkeypatch):
    with pytest.raises(InputError, match="explanations holds a str"):
        model.push_to_hub("me/explained", explanations="text")
    with pytest.raises(InputError, match="evaluate_faithfulness"):
        model.push_to_hub("me/explained", evaluation={})
    with pytest.raises(InputError, match="not the name of a repository"):
        model.push_to_hub("me//explained")
    assert hub.repositories == {}
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "matplotlib", None)
        with pytest.raises(MissingExtraError, match="matplotlib"):
            model.push_to_hub("me/explained", explanations=explanation)
    assert hub.repositories == {}


@pytest.mark.usefixtures("drawn_once")
def test_a_card_that_cannot_be_extended_is_left_as_it_is(hub, model, explanation):
    for damaged in (b"\xff", b"---\na: [\n---\n", BEGIN.encode(), b"---\ntags: {a: 1}\n---\n"):
        repository = hub.add("me/damaged", {"README.md": damaged})
        with pytest.raises(CardError):
            model.push_to_hub("me/damaged", explanations=explanation)
        assert repository.history() == ["theirs", "initial commit"]
    repository = hub.add("me/refused", {"README.md": b"---\nlibrary_name: [a]\n---\n"})
    with pytest.raises(CardError, match="library_name"):
        model.push_to_hub("me/refused")
    assert repository.history() == ["theirs", "initial commit"]


def test_a_missing_branch_of_an_open_pull_request(hub, model):
    with pytest.raises(MissingRepositoryError, match="refs/pr/7"):
        model.push_to_hub("me/explained", revision="refs/pr/7")
