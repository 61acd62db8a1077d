"""Datasets as streams of rows, good and bad ones, and how rows are put together."""

import json

import datasets
import pytest

from hf_mambalrp.errors import InputError
from hf_mambalrp.parallel.plan import batches, windows
from hf_mambalrp.parallel.sources import Columns, Row, count, rows

RECORDS = [{"id": "a", "text": "one", "label": 1}, {"id": "b", "text": "two\nlines, é", "label": 0}]


def write(tmp_path, kind):
    path = tmp_path / f"rows.{kind}"
    if kind == "jsonl":
        path.write_text("".join(json.dumps(record) + "\n" for record in RECORDS) + "\n")
    elif kind == "csv":
        path.write_text('id,text,label\na,one,1\nb,"two\nlines, é",0\n', encoding="utf-8")
    else:
        datasets.Dataset.from_list(RECORDS).to_parquet(path)
    return path


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_a_file_gives_its_rows(tmp_path, kind):
    path = write(tmp_path, kind)
    found = list(rows(path, Columns(target="label")))
    number = str if kind == "csv" else int
    assert found == [Row(i, r["id"], r["text"], number(r["label"])) for i, r in enumerate(RECORDS)]
    assert count(path) == 2


def test_a_text_file_gives_its_lines(tmp_path):
    (tmp_path / "rows.txt").write_text("one\n\ntwo", encoding="utf-8")
    assert [row.text for row in rows(tmp_path / "rows.txt", Columns())] == ["one", "", "two"]


@pytest.mark.parametrize("stream", [False, True])
def test_a_dataset_and_an_iterable(stream):
    dataset = datasets.Dataset.from_list(RECORDS)
    dataset = dataset.to_iterable_dataset() if stream else dataset
    assert [row.id for row in rows(dataset, Columns())] == ["a", "b"]
    assert count(dataset) == (None if stream else 2)
    assert [(row.id, row.text) for row in rows((text for text in ("x", "y")), Columns())] == [("0", "x"), ("1", "y")]
    assert [row.id for row in rows(RECORDS, Columns(id="label"))] == ["1", "0"]


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"body": "x"}, r"no \['text'\], only \['body'\]"),
        ({"text": None}, "no .'text'."),
        ({"text": 7}, "holds a int"),
        (7, "is a int"),
        ({"text": "\ud800"}, "UTF-8"),
    ],
)
def test_a_row_that_cannot_be_read_carries_its_reason(record, reason):
    import re

    bad, good = rows([record, "x"], Columns())
    assert re.search(reason, bad.error)
    assert good == Row(1, "1", "x")


def test_a_line_that_is_not_json_carries_its_reason(tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"text": "a"}\n{"text": \n{"text": "b"}\n')
    found = list(rows(tmp_path / "rows.jsonl", Columns()))
    assert [row.text for row in found] == ["a", "", "b"]
    assert "not JSON" in found[1].error


@pytest.mark.parametrize(
    ("dataset", "message"),
    [("nowhere.jsonl", "is not a file"), (7, "int is no dataset"), ({"train": []}, r"one split: \['train'\]")],
)
def test_what_is_no_dataset_is_an_error(dataset, message):
    with pytest.raises(InputError, match=message):
        list(rows(dataset, Columns()))


def test_a_file_of_another_format_is_an_error(tmp_path):
    (tmp_path / "rows.xlsx").touch()
    with pytest.raises(InputError, match=r"'\.xlsx'.*\.jsonl, \.csv, \.parquet, \.txt"):
        list(rows(tmp_path / "rows.xlsx", Columns()))


def test_windows_are_consecutive():
    assert list(windows(range(7), 3)) == [[0, 1, 2], [3, 4, 5], [6]]


def test_batches_keep_to_their_tokens_and_hold_every_row_once():
    lengths = [5, 1, 9, 2, 2, 30, 8, 1]
    found = batches(lengths, 10)
    assert sorted(row for batch in found for row in batch) == list(range(8))
    for batch in found:
        assert len(batch) == 1 or len(batch) * max(lengths[row] for row in batch) <= 10
    assert found == [[1, 7, 3, 4], [0], [6], [2], [5]]
