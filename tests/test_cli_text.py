"""What the command reads, and that it prints on any stream: after its files are written, and never as an error."""

import codecs
import contextlib
import io
import json
import os
import subprocess
import sys
import time

import pytest
from huggingface_hub import constants
from packaged import read_once
from transformers.utils import logging

from hf_mambalrp import DEMO_MODEL, AutoMambaLRPForSequenceClassification, evaluate_faithfulness
from hf_mambalrp.cli.main import main
from hf_mambalrp.evaluation import plots

EMOJI = "A 😀 film — “naïve”, 映画."
ENCODINGS = ["cp1252", "cp932", "ascii", "latin-1"]


@pytest.fixture(scope="module")
def model():
    return AutoMambaLRPForSequenceClassification.from_pretrained(DEMO_MODEL)


@pytest.fixture
def call(tmp_path, monkeypatch, model):
    """The command in an empty folder, on streams of some encoding: its exit code, standard output, standard error.

    The packaged model is read from its files once, not in every call; test_cli.py's commands read it themselves. Of
    reports no plot is drawn, which would take longest and has no text that the command reads.
    """
    monkeypatch.chdir(tmp_path)
    read_once(monkeypatch, AutoMambaLRPForSequenceClassification, DEMO_MODEL, model)
    monkeypatch.setattr(plots, "svg", lambda *_: "<svg></svg>")

    def run(*arguments, stdin=b"", encoding="utf-8", errors="strict"):
        out, said = (io.TextIOWrapper(io.BytesIO(), encoding, errors, newline="\n") for _ in range(2))
        with monkeypatch.context() as patch:
            for name, stream in (("stdin", io.TextIOWrapper(io.BytesIO(stdin))), ("stdout", out), ("stderr", said)):
                patch.setattr(sys, name, stream)
            with pytest.raises(SystemExit) as stopped:
                main([str(argument) for argument in arguments])
        for stream in (out, said):
            stream.flush()
        return stopped.value.code, out.buffer.getvalue().decode(encoding), said.buffer.getvalue().decode(encoding)

    return run


def texts(answer):
    code, printed, said = answer
    assert code == 0, said
    return json.loads(printed)["texts"]


@pytest.mark.parametrize(
    ("encoding", "arguments", "files"),
    [
        *((encoding, ["explain", EMOJI, "--html", "a.html", "--json", "a.json"], ["a.html", "a.json"])
          for encoding in ENCODINGS),
        ("cp932", ["attention", EMOJI, "--html", "a.html", "--json", "a.json"], ["a.html", "a.json"]),
        ("ascii", ["evaluate", "rows.txt", "--output", "out", "--methods", "mambalrp,random"], ["out/report.md"]),
        ("latin-1", ["explain-dataset", "rows.txt", "--output", "映画 😀"], ["映画 😀/part-000000.parquet"]),
        ("cp1252", ["demo", "--count", "1", "--html", "😀.html"], ["😀.html"]),
        ("ascii", ["explain", "--help"], []),
    ],
)  # fmt: skip
def test_what_a_stream_cannot_hold_is_replaced(call, tmp_path, encoding, arguments, files):
    (tmp_path / "rows.txt").write_text(f"{EMOJI}\n", encoding="utf-8")
    code, printed, said = call(*arguments, encoding=encoding)
    assert (code, "Error" in said) == (0, False), said
    assert printed
    assert all((tmp_path / name).stat().st_size for name in files)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_an_error_can_be_said_on_any_stream(call, encoding):
    code, _, said = call("explain", "a", "--target", "😀 映画", encoding=encoding)
    assert code == 1
    assert said.startswith("hf-mambalrp: target=")
    assert call("explain", "a", "--映画", encoding=encoding)[0] == 2


@pytest.mark.parametrize("shown", [True, False])
def test_the_progress_bars_of_this_process_are_as_before(call, tmp_path, shown):
    (tmp_path / "rows.txt").write_text("A film.\n")
    before = logging.is_progress_bar_enabled()
    try:
        logging.enable_progress_bar() if shown else logging.disable_progress_bar()
        for arguments in (["explain", "A film."], ["explain-dataset", "rows.txt", "--output", "out"]):
            assert call(*arguments)[0] == 0
            assert logging.is_progress_bar_enabled() == shown
    finally:
        logging.enable_progress_bar() if before else logging.disable_progress_bar()


def test_a_stream_keeps_its_own_way_of_replacing(call):
    assert "\\U0001f600" in call("explain", EMOJI, encoding="ascii", errors="backslashreplace")[1]


def test_results_print_and_show_on_any_stream(model):
    explanation = model.explain(EMOJI)
    evaluation = evaluate_faithfulness(model, [EMOJI], methods=["mambalrp"], resamples=9, progress=False)
    attention = model.hidden_attention(EMOJI, layers=-1)
    for encoding in ENCODINGS:
        out = io.TextIOWrapper(io.BytesIO(), encoding, newline="\n")
        with contextlib.redirect_stdout(out):
            for result in (explanation, evaluation, attention, explanation.conservation):
                print(result)
            explanation.show()
            attention.show()
        out.flush()
        printed = out.buffer.getvalue().decode(encoding)
        assert "mambalrp" in printed
        assert printed.count("sum of relevance") == 3, "of the explanation printed and shown, and its conservation"
        assert "film" in printed
    assert str(explanation) == repr(explanation), "where all can be printed nothing is replaced"


class Gone(io.StringIO):
    """A pipe whose reader has gone."""

    def write(self, text):
        raise BrokenPipeError

    def flush(self):
        raise BrokenPipeError


class Full(io.StringIO):
    """A file on a full disk, which takes what is buffered and no more."""

    def flush(self):
        raise OSError(28, "No space left on device")


@pytest.mark.parametrize("stream", [Gone, lambda: None, "closed"])
def test_files_are_written_though_nobody_reads(tmp_path, monkeypatch, stream):
    out = io.StringIO() if stream == "closed" else stream()
    if stream == "closed":
        out.close()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", out)
        patch.setattr(sys, "stderr", out)
        with pytest.raises(SystemExit) as stopped:
            main(["explain", "A film.", "--json", str(tmp_path / "a.json"), "--html", str(tmp_path / "a.html")])
    assert stopped.value.code == 0
    assert (tmp_path / "a.html").is_file()
    assert json.loads((tmp_path / "a.json").read_text())["texts"] == ["A film."]


def test_a_full_disk_is_an_error(monkeypatch, capsys):
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", Full())
        with pytest.raises(SystemExit) as stopped:
            main(["explain", "A film."])
    assert stopped.value.code == 1
    assert capsys.readouterr().err.startswith("hf-mambalrp: [Errno 28]")


def test_a_process_whose_encoding_is_cp932_and_whose_output_is_closed(tmp_path):
    """One process: its standard output has no reader from the beginning."""
    read, written = os.pipe()
    os.close(read)
    with os.fdopen(written, "w") as pipe:
        done = subprocess.run(
            [sys.executable, "-m", "hf_mambalrp.cli", "explain", EMOJI, "--json", tmp_path / "a.json"],
            stdout=pipe, stderr=subprocess.PIPE, env={**os.environ, "PYTHONIOENCODING": "cp932"}, check=False,
        )  # fmt: skip
    assert done.returncode == 0
    assert done.stderr.decode("cp932").splitlines() == [f"written: {tmp_path / 'a.json'}"]
    assert json.loads((tmp_path / "a.json").read_text())["texts"] == [EMOJI]


MARKED = {
    "utf-8": "A fine film.\nnaïve\n".encode(),
    "utf-8, marked": "A fine film.\nnaïve\n".encode("utf-8-sig"),
    "utf-16-le": codecs.BOM_UTF16_LE + "A fine film.\nnaïve\n".encode("utf-16-le"),
    "utf-16-be": codecs.BOM_UTF16_BE + "A fine film.\nnaïve\n".encode("utf-16-be"),
    "utf-32": "A fine film.\nnaïve\n".encode("utf-32"),
    "carriage returns": "A fine film.\r\n\r\nnaïve\r".encode(),
}


@pytest.mark.parametrize("content", MARKED.values(), ids=MARKED)
def test_every_command_reads_the_same_lines(call, tmp_path, content):
    (tmp_path / "rows.txt").write_bytes(content)
    expected = ["A fine film.", "naïve"]
    assert texts(call("explain", "--file", "rows.txt", "--lines", "--json", "-")) == expected
    assert texts(call("explain", "-", "--lines", "--json", "-", stdin=content)) == expected
    assert call("explain-dataset", "rows.txt", "--output", "kept")[1].startswith("2 rows in kept: 2 explained now")
    assert call("explain-dataset", "-", "--output", "piped", stdin=content)[1].startswith("2 rows in piped")
    assert "2 examples" in call("evaluate", "-", "--output", "out", "--methods", "mambalrp", stdin=content)[1]


@pytest.mark.parametrize("inside", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\ufeff"])
def test_only_line_ends_end_a_line(call, inside):
    content = f"one{inside}two\nthree\n".encode()
    assert texts(call("explain", "-", "--lines", "--json", "-", stdin=content)) == [f"one{inside}two", "three"]


def test_a_text_is_explained_as_it_stands(call, tmp_path, model):
    """As the library explains it; of a file the one line end at its end is no part of it."""
    spaced = "  A fine film. \n"
    (tmp_path / "spaced.md").write_text(f"{spaced}\n", newline="\n")
    assert texts(call("explain", spaced, "--json", "-")) == [spaced]
    assert texts(call("explain", "--file", "spaced.md", "--json", "-")) == [spaced]
    assert texts(call("explain", "-", "--json", "-", stdin=b"  A fine film. \r\n")) == [spaced[:-1]]
    numbers = json.loads(call("explain", spaced, "--json", "-")[1])
    assert numbers["score"] == model.explain(spaced).score.tolist()
    for blank in (" ", "\u00a0\n", "\ufeff".encode().decode("utf-8-sig")):
        assert call("explain", blank)[0] == 1
    assert call("attention", " ")[0] == 1


def test_bytes_that_are_no_text_are_named(call, tmp_path):
    for name, content, place in (
        ("a.txt", b"ok\ncaf\xe9 film", "not UTF-8: invalid continuation byte at byte 6"),
        ("b.txt", b"\xef\xbb\xbfcaf\xe9 film", "byte 6"),
        ("c.txt", codecs.BOM_UTF16_LE + "é".encode("utf-16-le") + b"\x41", "not UTF-16: truncated data at byte 4"),
    ):
        (tmp_path / name).write_bytes(content)
        for lines in ([], ["--lines"]):
            code, _, said = call("explain", "--file", name, *lines)
            assert (code, len(said.splitlines())) == (1, 1)
            assert place in said
        code, _, said = call("explain", "-", stdin=content)
        assert code == 1
        assert place in said
    assert "byte 6 of the file is 0xe9" in call("explain-dataset", "a.txt", "--output", "out")[2]


TABLE = [{"id": "a", "text": "A fine film.", "label": 1}, {"id": "b", "text": " A dull\u2028one, really.", "label": 0}]


@pytest.fixture
def tables(tmp_path):
    import datasets

    rows = datasets.Dataset.from_list(TABLE)
    rows.to_parquet(tmp_path / "rows.parquet")
    rows.to_csv(tmp_path / "rows.csv", index=False)
    (tmp_path / "rows.jsonl").write_bytes(codecs.BOM_UTF8 + "".join(f"{json.dumps(row)}\n" for row in TABLE).encode())


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_the_texts_of_a_table_are_explained_not_its_lines(call, tables, kind):
    expected = [row["text"] for row in TABLE]
    for lines in ([], ["--lines"]):
        assert texts(call("explain", "--file", f"rows.{kind}", *lines, "--json", "-")) == expected
    code, _, said = call("explain", "--file", f"rows.{kind}", "--text-column", "review")
    assert code == 1
    assert "['review']" in said
    labels = texts(call("explain", "--file", f"rows.{kind}", "--text-column", "id", "--json", "-"))
    assert labels == ["a", "b"]


def test_json_lines_from_standard_input_are_rows(call):
    content = "".join(f"{json.dumps(row)}\n" for row in TABLE).encode()
    assert texts(call("explain", "-", "--lines", "--json", "-", stdin=content)) == [row["text"] for row in TABLE]
    command = ["explain-dataset", "-", "--output", "out", "--target-column", "label", "--columns", "label,id"]
    assert call(*command, stdin=content)[1].startswith("2 rows in out: 2 explained now, 0 skipped")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["explain", "--file", "rows.tsv", "--lines"], "rows.tsv is a table that is not read"),
        (["explain", "a", "--text-column", "text"], "--text-column is of rows"),
        (["explain", "--file", "bad.jsonl"], "Row 1 (id '1') of bad.jsonl: the line is not JSON"),
        (["explain", "--file", "blank.jsonl"], "Row 0 (id '0') of blank.jsonl: its text is empty"),
        (["explain", "--file", "none.jsonl"], "none.jsonl has no rows"),
        (["explain", "-", "--lines"], "standard input has no rows: it is empty"),
        (["explain-dataset", "a.txt", "--output", "o", "--target", "1", "--target-column", "x"], "not both"),
        (["explain-dataset", "a.txt", "--output", "o", "--contrast", "1", "--contrast-column", "x"], "not both"),
        (["explain-dataset", "rows.tsv", "--output", "o"], "'.tsv'"),
        (["explain-dataset", "a.txt", "--output", "o", "--method", "lime"], "'lime'"),
        (["explain-dataset", "a.txt", "--output", "o", "--batch-tokens", "0"], "batch_tokens=0"),
        (["explain-dataset", "a.txt", "--output", "o", "--on-error", "ignore"], "'ignore'"),
        (["evaluate", "a.txt", "--output", "o", "--measure", "loss"], "'loss'"),
        (["evaluate", "rows.tsv", "--output", "o"], "'.tsv'"),
        (["explain", "a", "--method", "lime"], "'lime'"),
        (["explain", "a", "--method", "random", "--per-layer", "--json", "-"], "--per-layer"),
        (["explain", "a", "--method", "random", "--per-part", "--json", "-"], "--per-part"),
        (["explain", "a", "--per-layer", "--per-part", "--png", "a.png"], "Leave out"),
        (["explain", "a", "--method-options", "gamma=1"], "no JSON"),
        (["explain", "a", "--method-options", "[1]"], "give an object"),
        (["explain-dataset", "a.txt", "--output", "o", "--method-options", "{"], "no JSON"),
        (["attention", "a", "--kind", "cooked"], "'cooked'"),
        (["push", "me/x", "--evaluation", "bad.jsonl"], "no JSON"),
    ],
)
def test_a_wrong_argument_is_said_before_a_model_is_loaded(call, tmp_path, monkeypatch, arguments, words):
    for commands in ("texts", "corpora", "push"):
        monkeypatch.setattr(f"hf_mambalrp.cli.{commands}.load_model", lambda model: pytest.fail("the model was loaded"))
    (tmp_path / "a.txt").write_text("a film\n")
    (tmp_path / "rows.tsv").write_text("id\ttext\n")
    (tmp_path / "bad.jsonl").write_text('{"text": "a"}\n{"text": \n')
    (tmp_path / "blank.jsonl").write_text('{"text": "  "}\n')
    (tmp_path / "none.jsonl").touch()
    code, _, said = call(*arguments)
    assert code == 1
    assert words in said
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "noted"),
    [
        ("missing.txt", True), ("folder/rows.JSONL", True), ("my film.txt", False), ("here is one.txt", True),
        ("A film.", False), ("https://example.org/a.html", False), ("A film in 3.5 parts", False),
    ],
)  # fmt: skip
def test_a_text_that_looks_like_a_file_is_noted(call, tmp_path, text, noted):
    (tmp_path / "here is one.txt").touch()
    answer = call("explain", text, "--json", "-")
    assert texts(answer) == [text]
    assert answer[2] == (
        f"note: {text!r} itself is read as the text; for what is in a file give --file {text}\n" * noted
    )


def test_skipped_rows_are_summed_up_by_reason(call, tmp_path):
    rows = [{"id": f"r{i}", "text": "a film " * i} for i in range(8)] + [{"id": "x", "label": 1}]
    (tmp_path / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    code, printed, _ = call("explain-dataset", "rows.jsonl", "--output", "o", "--max-tokens", "3", "--on-error", "skip")
    assert code == 0
    first, *reasons = printed.splitlines()
    assert first.startswith("9 rows in o: 1 explained now, 8 skipped, 0 there before")
    assert len(reasons) == 3
    assert reasons[0].startswith("  6 x InputError: The text has ")
    assert reasons[0].endswith("more than max_tokens=3. (id r2, r3, r4, r5, r6, ...)")
    assert "no ['text']" in reasons[2]


@pytest.mark.parametrize(("target", "label"), [("1", "positive"), ("0", "negative"), ("Positive", "positive")])
def test_a_target_in_digits(call, target, label):
    code, printed, said = call("explain", "A film.", "--target", target, "--json", "-")
    assert code == 0, said
    assert json.loads(printed)["target_text"] == [label]
    assert call("explain", "A film.", "--target", "2")[0] == 1


@pytest.mark.parametrize("name", ["no/such", "a b", "./missing", "~missing"])
@pytest.mark.parametrize("option", ["--model", "--tokenizer"])
def test_a_name_that_is_nowhere_is_said_at_once(call, tmp_path, monkeypatch, name, option):
    """No connection, an empty cache, and the same where the Hub is not to be asked."""
    waited = []
    monkeypatch.setattr(time, "sleep", waited.append)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    for offline in (False, True):
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
        code, _, said = call("explain", "a film", option, name)
        assert waited == [], "what fails is asked for once"
        assert code == 1
        assert name in said
        assert len(said.splitlines()) == 1
        assert offline == constants.HF_HUB_OFFLINE
        if name == "no/such":
            assert ("HF_HUB_OFFLINE is set" if offline else "the Hub cannot be reached") in said


def test_a_cached_model_is_loaded_where_the_hub_is_out_of_reach(call, tmp_path, monkeypatch):
    snapshot = tmp_path / "cache" / "models--me--mamba" / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text("0" * 40)
    for file in os.scandir(DEMO_MODEL):
        os.link(file.path, snapshot / file.name) if file.is_file() else None
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    code, printed, said = call("explain", "A film.", "--model", "me/mamba")
    assert code == 0, said
    assert "mambalrp on me/mamba" in printed
    assert said == "note: the Hub cannot be reached, so me/mamba is loaded from the cache\n"
    assert not constants.HF_HUB_OFFLINE
