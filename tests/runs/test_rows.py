"""Datasets as streams of rows, good and bad ones, and how rows are put together."""

import json
import random

import datasets
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hf_mambalrp.errors import InputError
from hf_mambalrp.runs.plan import batches, common_length, common_rows, windows
from hf_mambalrp.runs.rows import Columns, Row, check, check_first, count, rows

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


@pytest.mark.parametrize("content", [b"one\n\ntwo", b"one\r\n\r\ntwo", b"\n  \none\n\t\n two\n\n"])
def test_a_text_file_gives_its_lines_that_are_not_blank(tmp_path, content):
    (tmp_path / "rows.txt").write_bytes(content)
    found = list(rows(tmp_path / "rows.txt", Columns()))
    assert [(row.index, row.text.strip()) for row in found] == [(0, "one"), (1, "two")]
    assert count(tmp_path / "rows.txt") == 2


@pytest.mark.parametrize(
    ("records", "columns", "missing"),
    [
        ([{"review": "x", "id": "a"}, {"id": "b"}], Columns(), "text"),
        ([{"text": "x"}, "not a mapping", {"text": "y", "id": "b"}], Columns(target="label"), "label"),
        ([7, {"review": "x"}], Columns(), "text"),
    ],
)
def test_a_column_that_none_of_the_first_rows_has_is_an_error(records, columns, missing):
    with pytest.raises(InputError, match=rf"None of the first {len(records)} rows has \['{missing}'\].*text_column"):
        check_first(list(rows(records, columns)), columns)


@pytest.mark.parametrize("records", [[{"text": None}, {"review": "x"}], ["x"], [7], [{"review": "x"}, "x"], []])
def test_rows_that_are_bad_themselves_are_no_error_of_the_call(records):
    check_first(list(rows(records, Columns())), Columns())


@pytest.mark.parametrize("kind", ["jsonl", "csv", "txt"])
def test_the_mark_before_a_file_is_no_part_of_it(tmp_path, kind):
    content = {"jsonl": '{"text": "one"}\n', "csv": "text\none\n", "txt": "one\n"}[kind]
    (tmp_path / f"rows.{kind}").write_bytes(b"\xef\xbb\xbf" + content.encode())
    check(tmp_path / f"rows.{kind}", Columns())
    assert list(rows(tmp_path / f"rows.{kind}", Columns())) == [Row(0, "0", "one")]


@pytest.mark.parametrize("kind", ["jsonl", "csv", "txt"])
def test_a_row_that_is_not_utf_8_carries_its_reason_and_the_others_are_read(tmp_path, kind):
    lines = [b"one", b"caf\xe9", b"two"]
    if kind == "jsonl":
        lines = [b'{"text": "' + line + b'"}' for line in lines]
    lines = [b"text", *lines] if kind == "csv" else lines
    (tmp_path / f"rows.{kind}").write_bytes(b"\n".join(lines))
    first, bad, last = rows(tmp_path / f"rows.{kind}", Columns())
    assert (first.text, bad.text, last.text) == ("one", "caf?", "two")
    assert "UTF-8" in bad.error


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c"])
@pytest.mark.parametrize("kind", ["jsonl", "csv", "txt"])
def test_only_line_ends_end_a_line(tmp_path, kind, separator):
    text = f"one{separator}two"
    content = {"jsonl": json.dumps({"text": text}, ensure_ascii=False), "csv": f"text\n{text}", "txt": text}[kind]
    if kind == "jsonl" and separator < " ":
        content = content.replace(json.dumps(separator)[1:-1], separator)  # raw, which JSON does not allow
    (tmp_path / f"rows.{kind}").write_text(f"{content}\n", encoding="utf-8")
    (row,) = rows(tmp_path / f"rows.{kind}", Columns())
    assert row.text == text or "not JSON" in row.error


def test_a_csv_file_keeps_quotes_and_line_ends_of_a_cell(tmp_path):
    (tmp_path / "rows.csv").write_bytes(b'id,text\r\na,"one ""quoted"", \r\n two"\r\nb,three')
    assert [row.text for row in rows(tmp_path / "rows.csv", Columns())] == ['one "quoted", \r\n two', "three"]


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())])
def test_a_parquet_file_of_several_row_groups(tmp_path, kind):
    texts = [f"text {i}" for i in range(150)]
    pq.write_table(pa.table({"text": pa.array(texts).cast(kind)}), tmp_path / "rows.parquet", row_group_size=40)
    assert [row.text for row in rows(tmp_path / "rows.parquet", Columns())] == texts
    assert count(tmp_path / "rows.parquet") == 150


@pytest.mark.parametrize("kind", ["jsonl", "csv", "txt"])
def test_an_empty_file_has_no_rows(tmp_path, kind):
    (tmp_path / f"rows.{kind}").touch()
    check(tmp_path / f"rows.{kind}", Columns())
    assert list(rows(tmp_path / f"rows.{kind}", Columns())) == []


@pytest.mark.parametrize("kind", ["csv", "parquet", "dataset"])
@pytest.mark.parametrize("columns", [Columns("review"), Columns(id="key"), Columns(target="y"), Columns(contrast="y")])
def test_a_table_without_a_column_is_an_error(tmp_path, kind, columns):
    dataset = datasets.Dataset.from_list(RECORDS) if kind == "dataset" else write(tmp_path, kind)
    with pytest.raises(InputError, match=r"has no \['(review|key|y)'\]; its columns are \['id', 'text', 'label'\]"):
        check(dataset, columns)
    check(dataset, Columns(id="id", target="label"))


def test_a_damaged_parquet_file_is_an_error(tmp_path):
    (tmp_path / "rows.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match=r"rows\.parquet.*damaged"):
        check(tmp_path / "rows.parquet", Columns())


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
        ({"text": None}, "nothing in column 'text'"),
        ({"text": 7}, "holds a int"),
        (7, "is a int"),
        ({"text": "\ud800"}, "UTF-8"),
        ({"text": ["a"]}, "holds a list"),
        ({"text": 0.5}, "holds a float"),
        ({"text": float("nan")}, "nothing in column 'text'"),
    ],
)
def test_a_row_that_cannot_be_read_carries_its_reason(record, reason):
    import re

    bad, good = rows([record, "x"], Columns())
    assert re.search(reason, bad.error)
    assert good == Row(1, "1", "x")


def test_an_id_is_a_text_whatever_it_was():
    records = [{"id": name, "text": "x"} for name in (7, 7.0, float("nan"), None, "a", "a", "\ud800")]
    assert [row.id for row in rows(records, Columns())] == ["7", "7", "2", "3", "a", "a", "?"]


def test_a_text_has_no_other_columns():
    (row,) = rows(["one"], Columns(target="label"))
    assert "no ['label']" in row.error


def test_a_line_nested_too_deep_carries_its_reason(tmp_path):
    (tmp_path / "rows.jsonl").write_text("[" * 200_000 + '\n{"text": "b"}\n')
    bad, good = rows(tmp_path / "rows.jsonl", Columns())
    assert "not JSON" in bad.error
    assert good.text == "b"


def test_a_line_that_is_not_json_carries_its_reason(tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"text": "a"}\n{"text": \n{"text": "b"}\n')
    found = list(rows(tmp_path / "rows.jsonl", Columns()))
    assert [row.text for row in found] == ["a", "", "b"]
    assert "not JSON" in found[1].error


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        ("nowhere.jsonl", "is not a file"),
        (".", "is not a file"),
        (7, "int is no dataset"),
        ({"train": []}, r"one split: \['train'\]"),
        (pd.DataFrame({"text": ["a"]}), "DataFrame is no dataset.*from_pandas"),
    ],
)
def test_what_is_no_dataset_is_an_error(dataset, message):
    for read in (rows, check):
        with pytest.raises(InputError, match=message):
            list(read(dataset, Columns()))


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
    assert found == [[5], [2], [6], [0, 3], [4, 1, 7]]


def test_batches_of_texts_have_few_shapes():
    """Padded to one of eight lengths an octave, all but the last have the rows that fit into their tokens."""
    draw = random.Random(0)
    lengths = [round(draw.lognormvariate(5, 0.6)) + 1 for _ in range(2000)]
    found = batches(lengths, 4096, common_length)
    shapes = [(len(batch), common_length(max(lengths[row] for row in batch))) for batch in found]
    assert sorted(row for batch in found for row in batch) == list(range(2000))
    assert all(rows == 4096 // length for rows, length in shapes[:-1])
    assert all(
        length <= of * 9 / 8 for (_, length), of in zip(shapes, (lengths[batch[0]] for batch in found), strict=True)
    )
    assert len({*shapes[:-1]}) <= len({common_length(length) for length in range(1, max(lengths) + 1)}) < 70


def test_a_common_length_is_at_most_an_eighth_longer():
    found = [common_length(length) for length in range(1, 5000)]
    assert all(length <= common <= length * 9 / 8 for length, common in enumerate(found, 1))
    assert found == sorted(found)
    assert [common for common in dict.fromkeys(found) if 128 < common <= 256] == [*range(144, 257, 16)]


def test_what_is_left_over_has_few_numbers_of_rows():
    found = {common_rows(rows, 20) for rows in range(1, 21)}
    assert found == {20, 10, 5, 2, 1}
    assert all(rows <= common_rows(rows, 20) <= max(rows, 20) for rows in range(1, 40))
    assert common_rows(11, 20) == 20
    assert common_rows(10, 20) == 10
    assert common_rows(7, 0) == common_rows(7, 1) == 7, "a row that is longer than a batch may be"
