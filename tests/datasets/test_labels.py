"""Targets as tables hold them: digits, floats beside a missing one, names of a dataset's classes."""

import json

import datasets
import numpy as np
import pandas as pd
import pytest
from random_models import random_model
from small import word_tokenizer
from transformers import MambaConfig

from hf_mambalrp import MambaLRPForSequenceClassification, evaluate_faithfulness, load_explanations, make_explainable
from hf_mambalrp.calls.labels import read_label
from hf_mambalrp.calls.subject import Subject
from hf_mambalrp.calls.targets import Outputs
from hf_mambalrp.datasets import explain_dataset
from hf_mambalrp.errors import InputError, OptionError, TargetError
from hf_mambalrp.families import FAMILIES, Network

TEXTS = ["a b c", "d e", "f g h i", "j k"]


def classifier(*labels):
    names = dict(enumerate(labels))
    config = MambaConfig(
        vocab_size=19, hidden_size=8, num_hidden_layers=1, state_size=4, time_step_rank=2, id2label=names,
        label2id={label: number for number, label in names.items()},
    )  # fmt: skip
    return MambaLRPForSequenceClassification(config).eval()


@pytest.fixture(scope="module")
def model():
    return classifier("bad", "good", "mixed")


@pytest.fixture(scope="module")
def language_model():
    return make_explainable(random_model(num_layers=1))


def explained(model, dataset, folder, **options):
    """Targets of the rows, None for one that was skipped, and the reasons."""
    options = {"on_error": "skip", "target_column": "label", **options}
    run = explain_dataset(model, dataset, folder, tokenizer=word_tokenizer(), progress=False, **options)
    rows = load_explanations(folder, skipped=True)
    return [None if hasattr(row, "error") else row.target[0] for row in rows], run.reasons


def frame(labels):
    return pd.DataFrame({"text": TEXTS, "label": labels})


WRITERS = {
    "csv": lambda table, path: table.to_csv(path, index=False),
    "jsonl": lambda table, path: table.to_json(path, orient="records", lines=True),
    "parquet": lambda table, path: table.to_parquet(path),
    "datasets": lambda table, path: datasets.Dataset.from_pandas(table),
    "datasets.csv": lambda table, path: datasets.Dataset.from_pandas(table).to_csv(path, index=False),
    "datasets.parquet": lambda table, path: datasets.Dataset.from_pandas(table).to_parquet(path),
    "mappings": lambda table, path: table.to_dict("records"),
    "streaming": lambda table, path: datasets.Dataset.from_pandas(table).to_iterable_dataset(),
}


def written(table, kind, tmp_path):
    path = tmp_path / f"rows.{kind.rpartition('.')[2]}"
    made = WRITERS[kind](table, path)
    return path if path.exists() else made


@pytest.mark.parametrize("kind", WRITERS)
def test_ids_with_a_missing_one_beside_them(model, tmp_path, kind):
    """pandas makes floats of them, 1.0 and NaN; the row without one is skipped, and no other."""
    data = written(frame([1, 0, None, 2]), kind, tmp_path)
    found, (reason,) = explained(model, data, tmp_path / "out")
    assert found == [1, 0, None, 2]
    assert reason.error == "InputError: The row has nothing in column 'label'."
    with pytest.raises(InputError, match=r"Row 2 \(id '2'\): The row has nothing in column 'label'"):
        explained(model, data, tmp_path / "raised", on_error="raise")
    both, _ = explained(model, data, tmp_path / "contrast", target_column=None, contrast_column="label")
    assert [one is None for one in both] == [False, False, True, False]


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("labels", [[1, 0, 2, 1], ["good", "bad", "MIXED", "good"], ["1", "0", "2", "1"]])
def test_ids_and_labels(model, tmp_path, kind, labels):
    assert explained(model, written(frame(labels), kind, tmp_path), tmp_path / "out")[0] == [1, 0, 2, 1]


@pytest.mark.parametrize("kind", WRITERS)
def test_what_is_no_class_is_an_error_of_its_row(model, tmp_path, kind):
    found, reasons = explained(model, written(frame([1, 7, -1, 0.5]), kind, tmp_path), tmp_path / "out")
    assert found == [1, None, None, None]
    assert all(reason.error.startswith("TargetError: ") for reason in reasons)


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet", "datasets", "mappings"])
def test_a_truth_value_is_no_class(model, tmp_path, kind):
    found, reasons = explained(model, written(frame([True, False, True, True]), kind, tmp_path), tmp_path / "out")
    assert found == [None] * 4
    assert sum(reason.rows for reason in reasons) == 4


def test_numbers_of_numpy(model, tmp_path):
    labels = [np.int64(1), np.uint8(0), np.float32(2), np.float64("nan")]
    rows = [{"text": text, "label": label} for text, label in zip(TEXTS, labels, strict=True)]
    assert explained(model, rows, tmp_path / "out")[0] == [1, 0, 2, None]
    rows = [{"text": text, "label": np.bool_(True)} for text in TEXTS]
    assert explained(model, rows, tmp_path / "truth")[0] == [None] * 4


def test_labels_that_are_numbers_are_labels(tmp_path):
    """Stars: "1" is the label, of class 0; and no row is read as the id of another."""
    stars = classifier("1", "2", "3", "4", "5")
    found, (reason,) = explained(stars, frame(["1", "5", "0", "3"]).to_dict("records"), tmp_path / "out")
    assert found == [0, 4, None, 2]
    assert "'0' is no class" in reason.error
    data = written(frame([1, 5, None, 3]), "csv", tmp_path)
    assert explained(stars, data, tmp_path / "floats")[0] == [0, 4, None, 2]
    outputs = Outputs(Network(stars, FAMILIES), Subject(stars).begin("explain", None).tokenizers)
    assert [read_label(value, outputs) for value in ("1", "1.0", 1, 1.0, True)] == ["1", "1", 1, 1, True]


@pytest.mark.parametrize("kind", ["datasets", "datasets.parquet", "streaming"])
def test_named_classes_are_the_models_labels_of_these_names(model, tmp_path, kind):
    """A dataset numbers its classes as it likes; -1 is a row without one."""
    names = ["good", "Mixed", "bad"]
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=names)})
    dataset = datasets.Dataset.from_dict({"text": TEXTS, "label": [0, 2, 1, -1]}, features=features)
    if kind == "datasets.parquet":
        dataset.to_parquet(tmp_path / "rows.parquet")
        dataset = tmp_path / "rows.parquet"
    dataset = dataset.to_iterable_dataset() if kind == "streaming" else dataset
    assert explained(model, dataset, tmp_path / "out")[0] == [1, 0, 2, None]
    unnamed = classifier("LABEL_0", "LABEL_1", "LABEL_2")
    assert explained(unnamed, dataset, tmp_path / "unnamed")[0] == [0, 2, 1, None]
    with pytest.raises(TargetError, match=r"no label \['Mixed'\]"):
        explained(classifier("good", "bad", "other"), dataset, tmp_path / "some")
    assert not (tmp_path / "some").exists()


def test_a_language_models_targets_are_tokens(language_model, tmp_path):
    """Digits in a text are the text, as everywhere; numbers are ids, and numbers of named classes neither."""
    labels = ["b", 3, 4.0, "7"]
    rows = [{"text": text, "label": label} for text, label in zip(TEXTS, labels, strict=True)]
    assert explained(language_model, rows, tmp_path / "out")[0] == [3, 3, 4, None]  # "7" is no token here
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["a", "b"])})
    dataset = datasets.Dataset.from_dict({"text": TEXTS, "label": [0, 1, 1, 0]}, features=features)
    with pytest.raises(TargetError, match="a language model has tokens"):
        explained(language_model, dataset, tmp_path / "named")


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet", "datasets"])
def test_an_evaluation_reads_the_same_rows_and_labels(model, tmp_path, kind):
    options = {"tokenizer": word_tokenizer(), "methods": ["mambalrp"], "resamples": 9, "progress": False}
    data = written(frame([1, 0, 2, 1]), kind, tmp_path)
    found = evaluate_faithfulness(model, data, target_column="label", id_column="text", **options).results["examples"]
    assert [(one["id"], one["target"]) for one in found] == list(
        zip(TEXTS, ["good", "bad", "mixed", "good"], strict=True)
    )
    with pytest.raises(OptionError, match="not both"):
        evaluate_faithfulness(model, data, target_column="label", target=1, **options)
    bad = written(frame([1, 0, None, 7]), kind, tmp_path)
    with pytest.raises(InputError, match=r"Row 2 \(id '2'\).*nothing in column 'label'"):
        evaluate_faithfulness(model, bad, target_column="label", **options)


def test_columns_travel_with_a_row(model, tmp_path):
    rows = [
        {"text": "a b", "id": 7, "label": 1, "score": 0.5, "meta": {"when": np.datetime64("2024-01-02")}},
        {"text": "", "label": None, "score": float("nan")},
        {"text": "c d e", "id": "x", "label": 0, "meta": [np.int8(1), float("inf"), "\ud800"]},
    ]
    options = {"target_column": None, "columns": ["label", "score", "meta"]}
    explained(model, rows, tmp_path / "out", **options)
    first, skipped, last = load_explanations(tmp_path / "out", skipped=True)
    assert (first.index, first.ids, last.index, last.ids) == ([0], ["7"], [2], ["x"])
    assert first.columns == [{"label": 1, "score": 0.5, "meta": {"when": "2024-01-02"}}]
    assert last.columns == [{"label": 0, "score": None, "meta": [1, "inf", "?"]}]
    assert (skipped.index, skipped.id, skipped.text, skipped.columns) == (
        1,
        "1",
        "",
        {"label": None, "score": None, "meta": None},
    )
    assert "no tokens" in skipped.error
    with pytest.warns(UserWarning, match=r"Row 1 \(id '1'\) was not explained and is left out.*skipped=True"):
        assert [one.index for one in load_explanations(tmp_path / "out")] == [[0], [2]]

    joined = type(first).concat([first, last])
    table = joined.to_pandas()
    assert table["row"].tolist() == [0, 0, 2, 2, 2]
    assert table["id"].tolist() == ["7", "7", "x", "x", "x"]
    assert table["label"].tolist() == [1, 1, 0, 0, 0]
    assert table["source_score"].tolist()[0] == 0.5
    assert table["score"].iloc[0] == pytest.approx(first.score.item())
    words = joined.to_pandas(level="word")
    assert list(words.columns[:4]) == ["row", "id", "position", "word"]
    assert "token_id" not in words
    joined.save(tmp_path / "saved")
    assert type(first).load(tmp_path / "saved") == joined
    assert type(first).from_dict(json.loads(joined.to_json())) == joined
    assert joined[1].ids == ["x"]

    with pytest.raises(InputError, match="holds another run"):
        explained(model, rows, tmp_path / "out", **{**options, "columns": ["label"]})
    changed = [{**row, "score": 9} for row in rows]
    with pytest.raises(InputError, match="not those"):
        explained(model, changed, tmp_path / "out", **options)
    with pytest.raises(InputError, match=r"has \['lable'\]"):
        explained(model, rows, tmp_path / "typo", target_column=None, columns=["lable"])
    with pytest.raises(OptionError, match="a list of names"):
        explained(model, rows, tmp_path / "typo", target_column=None, columns="label")


def test_a_folder_of_another_format_is_an_error(model, tmp_path):
    explained(model, TEXTS, tmp_path / "out", target_column=None)
    manifest = tmp_path / "out" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"format": 2', '"format": 1'))
    with pytest.raises(InputError, match="format 1; this is 2"):
        load_explanations(tmp_path / "out")


def test_a_text_with_commas_is_not_cut(model, tmp_path):
    (tmp_path / "rows.csv").write_text('text,label\na b,1\nc d, e f,0\n"g h, i",1\n')
    found, (reason,) = explained(model, tmp_path / "rows.csv", tmp_path / "out")
    assert found == [1, None, 1]
    assert "3 cells, the first row 2" in reason.error
