"""Datasets explained in one process: the rows, bad rows, memory, and runs that are killed and go on."""

import errno
import io
import json
import os
import random
import shutil
import signal
import sys
import time

import datasets
import pyarrow.parquet as pq
import pytest
import torch
from parallel_runs import WORDS, assert_same_rows, explained, in_a_child, records_kept, table
from random_models import random_model
from small import byte_level_tokenizer
from tokenizers.processors import TemplateProcessing

from hf_mambalrp import AutoMambaLRPForCausalLM, Explanation, load_explanations, make_explainable
from hf_mambalrp.datasets import explaining, runner
from hf_mambalrp.datasets.store import Store
from hf_mambalrp.errors import InputError, NonFiniteRelevanceError, OptionError, RowMemoryError, TargetError
from hf_mambalrp.runs import folder as folders
from hf_mambalrp.runs.plan import common_length, common_rows


@pytest.fixture(scope="module")
def tokenizer():
    return byte_level_tokenizer(" ".join(WORDS))


@pytest.fixture(scope="module")
def model(tokenizer):
    return make_explainable(random_model(num_layers=2, vocab_size=len(tokenizer), dtype=torch.float32))


@pytest.fixture(scope="module")
def texts():
    chosen = random.Random(0)
    return [" ".join(chosen.choices(WORDS, k=chosen.randint(1, 12))) for _ in range(40)]


@pytest.fixture(scope="module")
def undisturbed(model, tokenizer, texts, tmp_path_factory):
    """The folder of a run that nothing ended."""
    folder = tmp_path_factory.mktemp("undisturbed")
    explained(model, tokenizer, texts, folder)
    return folder


def test_every_row_is_the_explanation_of_its_text(model, tokenizer, texts, tmp_path):
    run = explained(model, tokenizer, texts, tmp_path / "out", target=3, contrast=5)
    assert (run.rows, run.skipped, run.computed, run.processes) == (40, 0, 40, 1)
    found = list(load_explanations(tmp_path / "out"))
    assert len(found) == 40
    for text, explanation in zip(texts, found, strict=True):
        alone = model.explain(text, tokenizer=tokenizer, target=3, contrast=5)
        torch.testing.assert_close(explanation.relevance, alone.relevance, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(explanation.score, alone.score, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(explanation.conservation.biases, alone.conservation.biases, rtol=1e-5, atol=1e-6)
        for name in ("tokens", "target", "target_text", "contrast", "contrast_text", "offsets", "texts", "method"):
            assert getattr(explanation, name) == getattr(alone, name)
        for name in ("input_ids", "attention_mask", "position", "special_tokens_mask"):
            assert torch.equal(getattr(explanation, name), getattr(alone, name))
        assert [word.text for word in explanation.words()] == [word.text for word in alone.words()]
    assert not (tmp_path / "out" / "unfinished").exists()
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["complete"]
    assert [shard["rows"] for shard in manifest["shards"]] == [16, 16, 8]


def test_batches_of_common_shapes_have_the_rows_of_others(model, tokenizer, texts, tmp_path, monkeypatch):
    """A GPU is given few shapes: rows are padded to common lengths, and what is left over with rows."""
    explained(model, tokenizer, texts, tmp_path / "own")
    explain, shapes = runner.explain_batch, []

    def seen(subject, inputs, **options):
        shapes.append((len(inputs.texts), inputs.length))
        return explain(subject, inputs, **options)

    monkeypatch.setattr(runner, "explain_batch", seen)
    monkeypatch.setattr(explaining, "execution_device", lambda module: torch.device("cuda"))
    run = explained(model, tokenizer, texts, tmp_path / "common", batch_tokens=100)
    assert run.computed == 40
    assert_same_rows(table(tmp_path / "common"), table(tmp_path / "own"))
    assert sum(rows for rows, _ in shapes) > 40, "nothing was left over"
    assert all(rows == common_rows(rows, 100 // length) for rows, length in shapes)
    assert all(length == common_length(length) for _, length in shapes)


def test_the_shards_are_a_table_for_datasets(model, tokenizer, texts, tmp_path):
    explained(model, tokenizer, [{"id": f"r{i}", "text": t} for i, t in enumerate(texts)], tmp_path / "out")
    files = str(tmp_path / "out" / "part-*.parquet")
    loaded = datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=str(tmp_path / "cache"))
    assert loaded["id"] == [f"r{i}" for i in range(40)]
    assert loaded[3]["text"] == texts[3]
    columns = {"id", "text", "tokens", "offsets", "relevance", "target", "score", "conservation", "method", "model"}
    assert columns | {"versions", "error"} <= set(loaded.column_names)
    assert [len(r) for r in loaded["relevance"]] == [len(t) for t in loaded["tokens"]]


def test_targets_of_each_row(model, tokenizer, texts, tmp_path):
    rows = [{"text": text, "label": i % 5} for i, text in enumerate(texts)]
    explained(model, tokenizer, rows, tmp_path / "out", target_column="label")
    for row, explanation in zip(rows, load_explanations(tmp_path / "out"), strict=True):
        assert explanation.target == [row["label"]]
        alone = model.explain(row["text"], tokenizer=tokenizer, target=row["label"])
        torch.testing.assert_close(explanation.relevance, alone.relevance, rtol=1e-5, atol=1e-6)


def test_a_target_of_several_tokens(model, tokenizer, texts, tmp_path):
    explained(model, tokenizer, texts[:3], tmp_path / "out", target=" lovely film")
    for text, explanation in zip(texts, load_explanations(tmp_path / "out"), strict=False):
        alone = model.explain(text, tokenizer=tokenizer, target=" lovely film")
        assert isinstance(explanation, Explanation)
        assert explanation.target == alone.target
        assert explanation.tokens == alone.tokens
        torch.testing.assert_close(explanation.relevance, alone.relevance, rtol=1e-5, atol=1e-6)
        assert explanation.texts == [text]  # the dataset's own, without what was fed back
        assert max(end for _, end in explanation.offsets[0]) <= len(text) < max(end for _, end in alone.offsets[0])
        used = [i for word in explanation.words() for i in word.tokens]
        assert used == list(range(explanation.relevance.shape[1]))


BAD = ["", {"text": 7, "label": 1}, {"body": "x", "label": 1}, " ".join(WORDS * 4), {"text": "film", "label": 10**6}]


def mixed(texts):
    """Good rows with each of BAD among them."""
    rows = [{"text": text, "label": 2} for text in texts[:20]]
    for place, bad in zip((0, 5, 6, 17, 24), BAD, strict=True):
        rows.insert(place, bad if isinstance(bad, dict) else {"text": bad, "label": 1})
    return rows


def test_a_bad_row_is_recorded_with_its_reason_and_stops_nothing(model, tokenizer, texts, tmp_path):
    rows = mixed(texts)
    options = {"max_tokens": 40, "target_column": "label"}
    run = explained(model, tokenizer, rows, tmp_path / "out", on_error="skip", **options)
    assert (run.rows, run.skipped, run.computed) == (25, 5, 20)
    found = table(tmp_path / "out")
    assert [r["index"] for r in found if r["error"]] == [0, 5, 6, 17, 24]
    reasons = [r["error"] for r in found if r["error"]]
    for reason, words in zip(
        reasons, ("no tokens", "holds a int", "no ['text'", "more than max_tokens=40", "TargetError"), strict=True
    ):
        assert words in reason
    assert len(list(load_explanations(tmp_path / "out"))) == 20
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert [skipped["index"] for skipped in manifest["skipped"]] == [0, 5, 6, 17, 24]
    good = [row for i, row in enumerate(rows) if i not in (0, 5, 6, 17, 24)]
    explained(model, tokenizer, good, tmp_path / "good", **options)
    relevance = [r["relevance"] for r in found if not r["error"]]
    for one, other in zip(relevance, table(tmp_path / "good"), strict=True):
        torch.testing.assert_close(torch.tensor(one), torch.tensor(other["relevance"]), rtol=1e-5, atol=1e-6)


def test_a_bad_row_stops_one_process_unless_it_is_to_be_skipped(model, tokenizer, texts, tmp_path):
    with pytest.raises(InputError, match=r"Row 2 \(id '2'\).*no tokens.*on_error='skip'"):
        explained(model, tokenizer, [*texts[:2], "", *texts[2:]], tmp_path / "out")
    rows = [{"text": "film", "label": 1}, {"text": "scene", "label": 10**6}]
    with pytest.raises(TargetError, match=r"Row 1 \(id '1'\)"):
        explained(model, tokenizer, rows, tmp_path / "other", target_column="label")


def test_what_is_not_finite_is_a_bad_row(tokenizer, tmp_path):
    model = random_model(num_layers=1, vocab_size=len(tokenizer), dtype=torch.float32)
    word = tokenizer(" lovely")["input_ids"][0]
    with torch.no_grad():
        model.backbone.embeddings.weight[word] = float("inf")
    rows = ["a dull film", "one lovely scene", "the middle of it"]
    run = explained(make_explainable(model), tokenizer, rows, tmp_path / "out", on_error="skip", check_forward=False)
    assert run.skipped == 1
    assert NonFiniteRelevanceError.__name__ in table(tmp_path / "out")[1]["error"]


def test_an_error_of_the_call_is_no_bad_row(model, tokenizer, texts, tmp_path):
    with pytest.raises(OptionError, match="samples=0"):
        explained(model, tokenizer, texts, tmp_path / "out", on_error="skip", method="smoothgrad", samples=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": 0}, "window=0"),
        ({"batch_tokens": 1.5}, "batch_tokens=1.5"),
        ({"max_tokens": True}, "max_tokens=True"),
        ({"on_error": "ignore"}, "on_error='ignore'.*'raise' or 'skip'"),
        ({"method": "no_such_method"}, "no_such_method"),
        ({"method": "smoothgrad", "sampels": 3}, "sampels"),
        ({"target": 1, "target_column": "label"}, "not both"),
    ],
)
def test_an_option_that_is_not_allowed(model, tokenizer, texts, tmp_path, options, message):
    with pytest.raises(OptionError, match=message):
        explained(model, tokenizer, texts, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_where_memory_runs_out_a_batch_is_halved(model, tokenizer, texts, tmp_path, monkeypatch):
    explained(model, tokenizer, texts, tmp_path / "whole")
    asked, explain = [], runner.Share._explained

    def limited(self, group):
        asked.append(len(group))
        if len(group) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return explain(self, group)

    monkeypatch.setattr(runner.Share, "_explained", limited)
    run = explained(model, tokenizer, texts, tmp_path / "halved")
    assert max(asked) > 2
    assert run.computed == 40
    assert_same_rows(table(tmp_path / "halved"), table(tmp_path / "whole"))


def test_a_row_that_does_not_fit_into_memory_is_a_bad_row(model, tokenizer, texts, tmp_path, monkeypatch):
    """Under "skip" the others are explained; "raise" says which row it is, and its tokens."""
    rows = [{"id": f"r{i}", "text": text} for i, text in enumerate(texts)]
    rows[20]["text"] = " ".join(WORDS * 3)
    length, explain = len(tokenizer(rows[20]["text"])["input_ids"]), runner.Share._explained

    def limited(self, group):
        if rows[20]["text"] in [one.row.text for one in group]:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return explain(self, group)

    monkeypatch.setattr(runner.Share, "_explained", limited)
    said = f"{length} tokens do not fit into memory"
    with pytest.raises(RowMemoryError, match=rf"Row 20 \(id 'r20'\): .*{said}.*CUDA out of memory") as raised:
        explained(model, tokenizer, rows, tmp_path / "stopped")
    assert isinstance(raised.value.__cause__.__cause__, torch.OutOfMemoryError)
    run = explained(model, tokenizer, rows, tmp_path / "out", on_error="skip")
    assert (run.computed, run.skipped) == (39, 1)
    found = table(tmp_path / "out")
    assert [record["id"] for record in found if record["error"]] == ["r20"]
    assert said in found[20]["error"]
    assert found[20]["error"].startswith("RowMemoryError")


def test_a_run_goes_on_with_the_same_weights_offloaded(tokenizer, texts, tmp_path):
    random_model(num_layers=2, vocab_size=len(tokenizer), dtype=torch.float32).save_pretrained(tmp_path / "model")
    parts = ("backbone.embeddings", "backbone.norm_f", "lm_head", "backbone.layers.0", "backbone.layers.1")

    def run(dataset, *on_disk):
        places = {part: "disk" if part in on_disk else "cpu" for part in parts}
        model = AutoMambaLRPForCausalLM.from_pretrained(
            tmp_path / "model", device_map=places, offload_folder=tmp_path / "offload"
        )
        return explained(model, tokenizer, dataset, tmp_path / "out").computed

    def interrupted():
        yield from texts[:16]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(interrupted(), "backbone.layers.1")
    assert run(texts, "backbone.layers.0", "lm_head") == 24


@pytest.mark.parametrize("seed", range(6))
def test_a_run_killed_at_any_point_goes_on_and_computes_nothing_twice(
    model, tokenizer, texts, tmp_path, undisturbed, seed
):
    folder, chosen = tmp_path / "out", random.Random(seed)
    child = in_a_child(lambda: explained(model, tokenizer, texts, folder))
    wanted, deadline = chosen.randint(0, 38), time.monotonic() + 30
    while len(records_kept(folder)) < wanted and time.monotonic() < deadline:
        time.sleep(0.005)  # a look reads every file
    time.sleep(chosen.random() * 0.01)
    os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    kept = len(records_kept(folder))
    assert os.WIFSIGNALED(status) or kept == 40
    run = explained(model, tokenizer, texts, folder)
    assert run.computed == 40 - kept
    assert_same_rows(table(folder), table(undisturbed))
    assert sorted(path.name for path in folder.iterdir()) == [
        "manifest.json", "part-000000.parquet", "part-000001.parquet", "part-000002.parquet",
    ]  # fmt: skip
    assert explained(model, tokenizer, texts, folder).computed == 0


@pytest.mark.parametrize("finished", [True, False])
def test_another_dataset_or_other_settings_are_refused(model, tokenizer, texts, tmp_path, finished, monkeypatch):
    folder = tmp_path / "out"
    if finished:
        explained(model, tokenizer, texts, folder)
    else:  # ends in the middle of the first window
        monkeypatch.setattr(Store, "finish", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
        os.waitpid(in_a_child(lambda: explained(model, tokenizer, texts, folder)), 0)
        monkeypatch.undo()
        assert records_kept(folder)
    with pytest.raises(InputError, match=r"method was 'mambalrp' and is now 'lrp_ln'.*another output folder"):
        explained(model, tokenizer, texts, folder, method="lrp_ln")
    with pytest.raises(InputError, match=r"not (those|the one) that"):
        explained(model, tokenizer, ["another text", *texts[1:]], folder)


def test_a_restart_removes_what_another_run_has_finished(model, tokenizer, texts, tmp_path):
    folder = tmp_path / "out"
    explained(model, tokenizer, texts, folder)
    run = explained(model, tokenizer, texts[:20], folder, method="lrp_ln", restart=True)
    assert (run.rows, run.computed) == (20, 20)
    assert {record["method"] for record in table(folder)} == {"lrp_ln"}
    assert len(table(folder)) == 20


def test_a_folder_of_something_else_is_left_alone(model, tokenizer, texts, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    for restart in (False, True):
        with pytest.raises(InputError, match="not empty"):
            explained(model, tokenizer, texts, tmp_path, restart=restart)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    with pytest.raises(InputError, match="holds no explanations"):
        load_explanations(tmp_path)


def test_rows_are_streamed(model, tokenizer, texts, tmp_path):
    """At most three windows are in memory: one that is read, one that is explained, one that is written."""
    read = []

    def stream():
        for i in range(96):
            read.append(i)
            kept = records_kept(tmp_path / "out")
            assert i - len(kept) < 3 * 16
            yield texts[i % 40]

    assert explained(model, tokenizer, stream(), tmp_path / "out").rows == 96
    assert len(read) == 96


def test_progress_is_shown_with_rate_and_total(model, tokenizer, texts, tmp_path, capfd):
    explained(model, tokenizer, texts, tmp_path / "out", progress=True)
    shown = capfd.readouterr().err
    assert "40/40" in shown
    assert "row/s" in shown


def test_processes_that_do_not_see_each_other_are_warned_of(model, tokenizer, texts, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.warns(UserWarning, match="WORLD_SIZE is 2, but this process sees 1"):
        explained(model, tokenizer, texts[:2], tmp_path / "out")


def killed_in(place, action):
    """Run ``action`` in a child that is killed where it comes to ``Store.place``."""

    def killed(*_, **__):
        os.kill(os.getpid(), signal.SIGKILL)

    def run():
        setattr(Store, place, killed)
        action()

    assert os.WIFSIGNALED(os.waitpid(in_a_child(run), 0)[1])


@pytest.mark.parametrize("place", ["_write_manifest", "join", "add_piece", "finish", "close"])
def test_a_run_killed_at_a_step_goes_on(model, tokenizer, texts, tmp_path, undisturbed, place):
    folder = tmp_path / "out"
    killed_in(place, lambda: explained(model, tokenizer, texts, folder))
    kept = len(records_kept(folder))
    assert explained(model, tokenizer, texts, folder).computed == 40 - kept
    assert_same_rows(table(folder), table(undisturbed))


def test_a_second_run_into_a_folder_is_refused(model, tokenizer, texts, tmp_path, monkeypatch):
    folder, go = tmp_path / "out", tmp_path / "go"
    monkeypatch.setattr(folders, "ENDING_S", 0.2)

    def held():
        yield from texts[:20]
        while not go.exists():
            time.sleep(0.01)
        yield from texts[20:]

    child = in_a_child(lambda: explained(model, tokenizer, held(), folder, window=4))
    deadline = time.monotonic() + 30
    while len(records_kept(folder)) < 4 and time.monotonic() < deadline:
        time.sleep(0.01)
    with pytest.raises(InputError, match="Another run is at work"):
        explained(model, tokenizer, texts, folder, window=4)
    go.touch()
    assert os.waitpid(child, 0)[1] == 0
    assert [record["text"] for record in table(folder)] == texts
    assert explained(model, tokenizer, texts, folder, window=4).computed == 0


@pytest.mark.parametrize("rows", [32, 36, 48])
def test_a_dataset_of_another_number_of_rows_is_refused(model, tokenizer, texts, tmp_path, rows):
    """Also where no window that was finished has changed."""
    folder = tmp_path / "out"
    explained(model, tokenizer, texts, folder, window=4)
    with pytest.raises(InputError, match=f"has {rows if rows < 40 else 44} rows.* had 40"):
        explained(model, tokenizer, (texts + texts)[:rows], folder, window=4)
    assert len(table(folder)) == 40


def test_other_targets_in_a_column_are_another_dataset(model, tokenizer, texts, tmp_path):
    rows = [{"text": text, "label": 1} for text in texts[:10]]
    killed_in("finish", lambda: explained(model, tokenizer, rows, tmp_path / "out", target_column="label"))
    assert records_kept(tmp_path / "out")
    others = [{**row, "label": 2} for row in rows]
    with pytest.raises(InputError, match="are not those that"):
        explained(model, tokenizer, others, tmp_path / "out", target_column="label")


def test_other_weights_are_another_run(tokenizer, texts, tmp_path):
    model = random_model(num_layers=1, vocab_size=len(tokenizer), dtype=torch.float32)
    explained(make_explainable(model), tokenizer, texts, tmp_path / "out")
    with torch.no_grad():
        model.backbone.layers[0].mixer.D[0] += 1e-3
    with pytest.raises(InputError, match=r"weights was .* and is now"):
        explained(make_explainable(model), tokenizer, texts, tmp_path / "out")


def test_a_run_goes_on_with_what_it_does_to_bad_rows(model, tokenizer, texts, tmp_path):
    """Begun under "skip", as on several processes, it does not stop where one process goes on with it."""
    rows = [*texts[:20], "", *texts[20:]]
    killed_in("finish", lambda: explained(model, tokenizer, rows, tmp_path / "out", on_error="skip"))
    run = explained(model, tokenizer, rows, tmp_path / "out")
    assert (run.rows, run.skipped) == (41, 1)


def test_a_call_that_kept_nothing_leaves_the_folder_to_the_next(model, tokenizer, texts, tmp_path):
    with pytest.raises(OptionError):
        explained(model, tokenizer, texts, tmp_path / "out", method="smoothgrad", samples=0)
    assert (tmp_path / "out" / "manifest.json").is_file()
    assert explained(model, tokenizer, texts, tmp_path / "out").computed == 40


@pytest.mark.parametrize("dataset", ["nowhere.jsonl", {"train": ["a film"]}])
def test_without_a_dataset_nothing_is_written(model, tokenizer, tmp_path, dataset):
    with pytest.raises(InputError):
        explained(model, tokenizer, dataset, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"target": 10**6}, TargetError, "out of range"),
        ({"contrast": 10**6}, TargetError, "out of range"),
        ({"target": [1, 2]}, OptionError, "target=.*one for all rows"),
        ({"target": torch.tensor([1, 2])}, OptionError, "target=.*one for all rows"),
        ({"position": [0, 0]}, OptionError, "position=.*one for all rows"),
        ({"per_layer": True}, OptionError, "layers"),
    ],
)
def test_what_no_row_can_have_is_an_error_of_the_call(model, tokenizer, texts, tmp_path, options, error, message):
    with pytest.raises(error, match=message):
        explained(model, tokenizer, texts[:2], tmp_path / "out", on_error="skip", **options)
    assert not (tmp_path / "out").exists()


def test_where_no_row_can_be_explained_there_is_a_warning(model, tokenizer, tmp_path):
    with pytest.warns(UserWarning, match="None of the 40 rows"):
        explained(model, tokenizer, [{"text": ""}] * 40, tmp_path / "out", on_error="skip")


@pytest.mark.parametrize("form", ["jsonl", "list", "stream"])
def test_a_column_that_no_row_has_is_an_error_and_leaves_the_folder_to_the_next(
    model, tokenizer, texts, tmp_path, form
):
    """Of a stream after its first window: what is skipped would be every row."""
    read = []
    rows = [{"review": text, "stars": 5} for text in texts]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    dataset = {"jsonl": tmp_path / "rows.jsonl", "list": rows, "stream": (read.append(row) or row for row in rows)}
    with pytest.raises(InputError, match=r"first 16 rows has \['text'\].*columns are \['review', 'stars'\]"):
        explained(model, tokenizer, dataset[form], tmp_path / "out", on_error="skip")
    assert len(read) == (16 if form == "stream" else 0)
    assert explained(model, tokenizer, rows, tmp_path / "out", text_column="review").computed == 40


def test_an_empty_text_is_a_bad_row_also_with_a_token_before_every_text(model, texts, tmp_path):
    tokenizer = byte_level_tokenizer(" ".join(WORDS))
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", 0)]
    )
    run = explained(model, tokenizer, [texts[0], "", " "], tmp_path / "out", on_error="skip")
    assert (run.computed, run.skipped) == (2, 1)
    assert [record["error"] is None for record in table(tmp_path / "out")] == [True, False, True]


def test_names_that_are_not_unicode_are_written_with_question_marks(model, tokenizer, tmp_path):
    rows = [{"id": "a\ud800", "text": "film"}, {"id": "b", "text": "film", "label": "\ud800"}]
    run = explained(model, tokenizer, rows[:1], tmp_path / "ids")
    assert run.computed == 1
    assert table(tmp_path / "ids")[0]["id"] == "a?"
    with pytest.warns(UserWarning, match="None of the 1 rows"):
        explained(model, tokenizer, rows[1:], tmp_path / "targets", target_column="label", on_error="skip")
    assert "'label'" in table(tmp_path / "targets")[0]["error"]


def test_memory_that_runs_out_in_every_batch_is_learnt_once(model, tokenizer, tmp_path, monkeypatch):
    """64 texts of one token fit, so batches of 100 become batches of 50 and stay that."""
    texts, asked, explain = ["a"] * 400, [], runner.Share._explained
    assert len(tokenizer("a")["input_ids"]) == 1

    def limited(self, group):
        asked.append(len(group))
        if len(group) > 64:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return explain(self, group)

    monkeypatch.setattr(runner.Share, "_explained", limited)
    assert explained(model, tokenizer, texts, tmp_path / "out", window=256, batch_tokens=100).computed == 400
    assert asked == [100, *[50] * 4, *[50, 6], *[50] * 2, 44]  # 256 rows, which begin 100, 100, 56; then 144


def test_a_full_disk_is_said_and_leaves_no_half_file(model, tokenizer, texts, tmp_path, monkeypatch):
    whole = pq.write_table
    written = []

    def on_a_full_disk(table, path, **options):
        whole(table, path, **options)
        written.append(path)
        if len(written) > 5:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pq, "write_table", on_a_full_disk)
    with pytest.raises(OSError, match="No space left"):
        explained(model, tokenizer, texts, tmp_path / "out")
    assert not list(tmp_path.rglob("*.part"))
    monkeypatch.undo()
    kept = len(records_kept(tmp_path / "out"))
    assert 0 < kept < 40
    assert explained(model, tokenizer, texts, tmp_path / "out").computed == 40 - kept


def test_an_interrupted_run_goes_on(model, tokenizer, texts, tmp_path):
    def interrupted():
        yield from texts[:24]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        explained(model, tokenizer, interrupted(), tmp_path / "out")
    assert explained(model, tokenizer, texts, tmp_path / "out").computed == 24


def test_a_run_whose_files_are_removed_is_not_complete(model, tokenizer, texts, tmp_path):
    def removing():
        for i, text in enumerate(texts):
            if i == 20:
                shutil.rmtree(tmp_path / "out" / "unfinished")
            yield text

    with pytest.raises((RuntimeError, OSError)):
        explained(model, tokenizer, removing(), tmp_path / "out")
    assert not json.loads((tmp_path / "out" / "manifest.json").read_text())["complete"]


def test_reading_a_run_that_has_not_ended_is_warned_of(model, tokenizer, texts, tmp_path):
    killed_in("close", lambda: explained(model, tokenizer, texts, tmp_path / "out"))
    with pytest.warns(UserWarning, match="has not ended"):
        assert len(list(load_explanations(tmp_path / "out"))) == 40


def test_reading_back_is_lazy_and_wants_every_shard(model, tokenizer, texts, tmp_path):
    folder = tmp_path / "out"
    explained(model, tokenizer, texts, folder)
    found = load_explanations(folder)
    assert next(found).texts == texts[:1]
    (folder / "part-000001.parquet").write_bytes(b"")  # not opened so far
    with pytest.raises(InputError, match=r"part-000001\.parquet.*damaged"):
        list(found)
    (folder / "part-000001.parquet").unlink()
    with pytest.raises(InputError, match=r"lacks \['part-000001\.parquet'\]"):
        load_explanations(folder)


def test_an_empty_dataset_is_explained_by_no_rows(model, tokenizer, tmp_path):
    assert explained(model, tokenizer, [], tmp_path / "out").rows == 0
    assert list(load_explanations(tmp_path / "out")) == []


@pytest.mark.parametrize("terminal", [True, False])
def test_a_file_gets_few_lines_of_progress(model, tokenizer, texts, tmp_path, monkeypatch, terminal, slowly):
    class Screen(io.StringIO):
        def isatty(self):
            return terminal

    monkeypatch.setattr(sys, "stderr", Screen())
    explained(model, tokenizer, slowly(texts), tmp_path / "out", progress=True, window=2)
    lines = sys.stderr.getvalue().split("\r")
    assert "40row" in lines[-1].replace(" ", "")
    assert len(lines) > 4 if terminal else len(lines) <= 4
