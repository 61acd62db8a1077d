"""Explanations as dataset repositories: pushed, shown by the viewer's rules, read back, resumed."""

import ast
import fnmatch
import io
import json
import re
import shutil
import sys
import time
from dataclasses import replace

import datasets
import pyarrow.parquet
import pytest
import torch
import yaml
from huggingface_hub import snapshot_download

from hf_mambalrp import explain_dataset, load_explanations, push_explanations
from hf_mambalrp.errors import (
    HubConnectionError,
    InputError,
    MissingRepositoryError,
    NotLoggedInError,
    OfflineError,
    RepositoryAccessError,
)
from hf_mambalrp.viz.markdown import escaped

pytestmark = pytest.mark.usefixtures("drawn_once")
TEXTS = ["The capital of France is", "England is", "", "Paris", "The capital of England is London."]
"""The empty one is skipped."""


def parquet(columns):
    content = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(columns), content)
    return content.getvalue()


PICTURE = "explanations/explanation-1.png"
FOREIGN = parquet({"a": [1]})


@pytest.fixture(scope="module")
def run(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "out"
    explain_dataset(model, TEXTS, folder, window=2, on_error="skip", progress=False, target=" Paris")
    return folder


def test_a_run_is_read_back_from_the_hub(hub, run):
    address = push_explanations(run, "me/why", private=True)
    repository = hub.repositories["dataset", "me/why"]
    assert address == f"{hub.url}/datasets/me/why/commit/{repository.branches['main']}"
    assert repository.history() == ["Upload explanations with hf_mambalrp", "initial commit"]
    shards = [f"data/part-00000{i}.parquet" for i in range(3)]
    assert sorted(repository.files()) == [".gitattributes", "README.md", *shards, PICTURE, "manifest.json"]
    assert repository.files()[PICTURE].startswith(b"\x89PNG")
    says = "What speaks for “Paris”? Bars of the relevance of the strongest words."
    assert f"![{escaped(says)}]({PICTURE})" in repository.files()["README.md"].decode()
    here, there = list(load_explanations(run)), list(load_explanations("me/why"))
    assert [one.texts for one in there] == [[text] for text in TEXTS if text]
    assert here == there
    assert list(load_explanations("me/why", revision=repository.branches["main"])) == here


def test_the_viewer_finds_the_rows(hub, run):
    push_explanations(run, "me/why")
    files = hub.repositories["dataset", "me/why"].files()
    card = files["README.md"].decode()
    data = yaml.safe_load(card.split("---")[1])
    (config,) = data["configs"]
    (split,) = config["data_files"]
    assert config["config_name"] == "default"
    assert len(fnmatch.filter(files, split["path"])) == 3
    assert "| 5 | 1 | mambalrp | language&#45;model |" in card
    rows = datasets.load_dataset(snapshot_download("me/why", repo_type="dataset"), split=split["split"])
    assert rows["text"] == TEXTS
    assert [error is not None for error in rows["error"]] == [not text for text in TEXTS]
    explained = next(load_explanations(run))
    torch.testing.assert_close(torch.tensor(rows[0]["relevance"]), explained.relevance[0], rtol=0, atol=0)


def test_a_second_push_changes_nothing_and_a_new_run_replaces(hub, run, model, tmp_path):
    assert push_explanations(run, "me/why") == push_explanations(run, "me/why")
    repository = hub.repositories["dataset", "me/why"]
    assert len(repository.history()) == 2
    edited = repository.files()["README.md"].replace(b"# why", b"# Why, by hand")
    repository.commit("main", "theirs", {**repository.files(), "README.md": edited, "notes.txt": b"n"})
    explain_dataset(model, ["Paris is"], tmp_path / "new", progress=False)
    push_explanations(tmp_path / "new", "me/why")
    assert sorted(repository.files()) == [
        ".gitattributes",
        "README.md",
        "data/part-000000.parquet",
        PICTURE,
        "manifest.json",
        "notes.txt",
    ]
    assert b"# Why, by hand" in repository.files()["README.md"]
    assert [one.texts for one in load_explanations("me/why")] == [["Paris is"]]


def test_what_has_arrived_is_not_sent_again(hub, run):
    hub.drop("POST", "/commit/")
    with pytest.raises(HubConnectionError, match="not sent twice"):
        push_explanations(run, "me/why")
    assert hub.count("PUT", "/lfs/") == 3
    with pytest.raises(InputError, match="holds no explanations"):
        load_explanations("me/why")
    push_explanations(run, "me/why")
    assert hub.count("PUT", "/lfs/") == 3
    assert len(list(load_explanations("me/why"))) == 4


def test_an_explanation_pushes_itself(hub, explanation, model):
    explanation.push_to_hub("me/two")
    first, second = load_explanations("me/two")
    assert first == replace(explanation[0], index=[0], ids=["0"], chunk_size=None)
    assert second.tokens == [model.explain("England is").tokens[0]]
    torch.testing.assert_close(second.relevance[0], model.explain("England is", target=" Paris").relevance[0])
    assert "manifest.json" not in hub.repositories["dataset", "me/two"].files()
    ids = model.explain(input_ids=explanation.input_ids[:1])
    ids.push_to_hub("me/two")
    (back,) = load_explanations("me/two")
    assert torch.equal(back.relevance, ids.relevance)


def test_a_generation_pushes_its_steps(hub, model):
    generated = model.explain_generation(["The capital of", "England"], max_new_tokens=2, contrast="runner-up")
    generated.push_to_hub("me/steps")
    found = list(load_explanations("me/steps"))
    steps = [(row, t) for row in range(2) for t in generated.generated(row)]
    assert [(one.columns[0]["row"], one.columns[0]["step"]) for one in found] == steps
    assert [one.ids[0] for one in found] == [f"{row}.{t}" for row, t in steps]
    for (row, t), one in zip(steps, found, strict=True):
        alone = generated[row].step(t)
        real = alone.attention_mask[0] != 0
        assert torch.equal(one.relevance, alone.relevance[:, real])
        assert (one.target, one.target_text, one.contrast_text) == (
            *(alone.target, alone.target_text, alone.contrast_text),
        )
        assert one.words() == [
            replace(word, tokens=tuple(i - int(alone.attention_mask[0].argmax()) for i in word.tokens))
            for word in alone.words()
        ]


def test_without_what_draws_it_a_dataset_has_no_picture(hub, model, monkeypatch):
    explained = model.explain("Paris of London")  # which no other test has drawn
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    explained.push_to_hub("me/two")
    files = hub.repositories["dataset", "me/two"].files()
    assert PICTURE not in files
    assert b"![" not in files["README.md"]


def test_data_of_others_in_the_repository_stays(hub, run):
    """Spark, too, writes data/part-*.parquet; and a card may describe configurations of its own."""
    configs = [{"config_name": "reviews", "data_files": "reviews.parquet"}]
    card = f"---\nlicense: mit\n{yaml.safe_dump({'configs': configs})}---\n# Ours\n"
    spark = "data/part-00000-3c1d.c000.snappy.parquet"
    theirs = {"README.md": card.encode(), "reviews.parquet": FOREIGN, spark: b"PAR1"}
    repository = hub.add("me/reviews", theirs, repo_type="dataset")
    push_explanations(run, "me/reviews")
    pushed = repository.files()
    assert pushed[spark] == b"PAR1"
    text = pushed["README.md"].decode()
    data = yaml.safe_load(text.split("---")[1])
    assert data["license"] == "mit"
    assert data["configs"][:1] == configs
    assert len(data["configs"]) == 2
    repository.commit("main", "theirs", {path: content for path, content in pushed.items() if path != spark})
    folder = snapshot_download("me/reviews", repo_type="dataset")
    asked = re.search(r"`datasets.load_dataset\('me/reviews', (.+?)\)`", text)[1]
    assert datasets.load_dataset(folder, ast.literal_eval(asked), split="train")["text"] == TEXTS
    assert datasets.load_dataset(folder, "reviews", split="train")["a"] == [1]
    push_explanations(run, "me/reviews")
    assert repository.files()["README.md"].decode() == text


def test_a_folder_that_is_damaged_is_refused_before_anything_is_created(hub, run, tmp_path):
    shard = "part-000000.parquet"

    def copy(name, damage):
        damage(shutil.copytree(run, tmp_path / name))
        return tmp_path / name

    for folder, says in (
        (copy("text", lambda to: (to / "manifest.json").write_text("{")), "not the manifest of a run"),
        (copy("list", lambda to: (to / "manifest.json").write_text("[]")), "not the manifest of a run"),
        (copy("page", lambda to: (to / "manifest.json").write_text('{"name": "a"}')), "not the manifest of a run"),
        (copy("lacks", lambda to: (to / shard).unlink()), "lacks.*part-000000"),
        (copy("short", lambda to: (to / shard).write_bytes(b"PAR1")), "damaged"),
        (copy("foreign", lambda to: (to / shard).write_bytes(FOREIGN)), "does not hold explanations"),
    ):
        with pytest.raises(InputError, match=says):
            push_explanations(folder, "me/why")
    assert hub.requests == []


def test_a_repository_of_other_data(hub):
    hub.add("me/foreign", {"data/part-000000.parquet": FOREIGN}, repo_type="dataset")
    hub.add("me/damaged", {"data/part-000000.parquet": b"PAR1"}, repo_type="dataset")
    with pytest.raises(InputError, match="'me/foreign' does not hold explanations"):
        load_explanations("me/foreign")
    with pytest.raises(InputError, match="damaged"):
        load_explanations("me/damaged")


def test_a_revision_a_token_and_a_download_that_breaks(hub, run, monkeypatch):
    push_explanations(run, "me/why", private=True)
    with pytest.raises(MissingRepositoryError, match="no-such-branch"):
        load_explanations("me/why", revision="no-such-branch")
    with pytest.raises(NotLoggedInError, match="hf auth login"):
        load_explanations("me/why", token="hf_wrong")
    with pytest.raises(MissingRepositoryError, match="me/why"):
        load_explanations("me/why", token="hf_other")
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    hub.drop("GET", "part-000001.parquet", 10**6)
    with pytest.raises(HubConnectionError, match="do the same again"):
        load_explanations("me/why")
    hub.faults.clear()
    assert len(list(load_explanations("me/why"))) == 4


def test_errors(hub, run, tmp_path, monkeypatch):
    with pytest.raises(InputError, match="holds no run"):
        push_explanations(tmp_path, "me/why")
    (tmp_path / "manifest.json").write_text(json.dumps({"complete": False}))
    with pytest.raises(InputError, match="has not ended"):
        push_explanations(tmp_path, "me/why")
    with pytest.raises(MissingRepositoryError, match="me/none"):
        load_explanations("me/none")
    hub.add("other/secret", {"data/part-000000.parquet": b""}, repo_type="dataset", private=True)
    with pytest.raises(MissingRepositoryError, match="private"):
        load_explanations("other/secret")
    with pytest.raises(RepositoryAccessError, match="other/secret"):
        push_explanations(run, "other/secret")
    hub.add("other/gated", {"data/part-000000.parquet": b""}, repo_type="dataset").gated = True
    with pytest.raises(RepositoryAccessError, match=r"'other/gated' is gated.*Ask for access"):
        load_explanations("other/gated")
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(MissingRepositoryError, match="other/secret"):
        load_explanations("other/secret")
    with pytest.raises(NotLoggedInError, match="hf auth login"):
        push_explanations(run, "me/why")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(OfflineError):
        push_explanations(run, "me/why")
    with pytest.raises(OfflineError):
        load_explanations("me/none")
    assert {repo for _, repo in hub.repositories} == {"other/secret", "other/gated"}
