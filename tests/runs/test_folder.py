"""The folder of a run by itself: what it refuses, what it goes on with, and what a person is told."""

import json

import pytest

from hf_mambalrp.errors import InputError, TargetError
from hf_mambalrp.runs.bad_rows import bad_row, reasons
from hf_mambalrp.runs.files import atomically
from hf_mambalrp.runs.folder import Folder
from hf_mambalrp.runs.rows import Row

SETTINGS = {"seed": 0, "options": {"a": {"steps": 2}}, "names": ("x", "y")}


class Notes(Folder):
    call = "take_notes"
    kept = ("note-*.txt", "unfinished/draft-*")


def begun(path, settings=SETTINGS, notes=1, **options):
    """A run that was opened, has kept some notes, and was left as a kill leaves it."""
    run = Notes(path, **options)
    manifest = run.open(settings)
    for number in range(notes):
        (path / f"note-{number}.txt").write_text("kept")
    run.release()
    return manifest


def test_the_same_settings_go_on_and_know_what_the_run_began_with(tmp_path):
    assert begun(tmp_path / "out", on_error="skip") == {
        "call": "take_notes",
        "format": 2,
        "complete": False,
        "settings": {**SETTINGS, "names": ["x", "y"]},
        "on_error": "skip",
    }
    assert begun(tmp_path / "out")["on_error"] == "skip"
    assert begun(tmp_path / "out", on_error="raise")["on_error"] == "raise"


def test_other_settings_are_refused_by_name_unless_nothing_is_kept(tmp_path):
    begun(tmp_path / "out")
    other = {"seed": 1, "options": {"a": {"steps": 3}}, "names": ["x", "y"], "long": "word " * 99}
    with pytest.raises(InputError) as refused:
        begun(tmp_path / "out", other)
    said = str(refused.value)
    assert "seed was 0 and is now 1; options.a.steps was 2 and is now 3; long was None and is now 'word" in said
    assert "names" not in said
    assert len(said) < 400 + len(str(tmp_path))
    begun(tmp_path / "empty", notes=0)
    assert begun(tmp_path / "empty", other)["settings"] == other


def test_a_restart_removes_what_is_kept_and_nothing_else(tmp_path):
    begun(tmp_path, notes=3)
    (tmp_path / "unfinished" / "draft-0").mkdir()
    (tmp_path / "mine.txt").touch()
    begun(tmp_path, {"seed": 1}, restart=True, notes=1)
    assert sorted(path.name for path in tmp_path.rglob("*") if path.name != "lock") == [
        "manifest.json", "mine.txt", "note-0.txt", "unfinished",
    ]  # fmt: skip


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize("content", ['{"call": "another"}', "{}", "[]", "{"])
def test_a_folder_of_something_else_is_left_alone(tmp_path, content, restart):
    (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(InputError, match="is damaged" if content == "{" else "holds no run of take_notes"):
        begun(tmp_path, restart=restart)
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.json"]


def test_a_complete_run_keeps_what_came_of_it_and_no_traces(tmp_path):
    begun(tmp_path)
    (tmp_path / "note-1.txt.123.part").touch()  # of a process that was killed
    run = Notes(tmp_path)
    run.open(SETTINGS)
    run.complete(rows=1)
    run.release()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["manifest.json", "note-0.txt"]
    again = begun(tmp_path)
    assert (again["complete"], again["rows"]) == (True, 1)
    (tmp_path / "manifest.json").write_text(json.dumps({**again, "format": 1}))
    with pytest.raises(InputError, match="format 1; this is 2"):
        begun(tmp_path)


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    def interrupted(part):
        part.write_text("half")
        raise KeyboardInterrupt

    (tmp_path / "a").write_text("old")
    with pytest.raises(KeyboardInterrupt):
        atomically(tmp_path / "a", interrupted)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]


def test_a_bad_row_is_an_error_or_a_record():
    row, error = Row(3, "r3"), TargetError("no class.")
    with pytest.raises(TargetError, match=r"Row 3 \(id 'r3'\): no class\. on_error='skip' records"):
        bad_row(row, error, "raise")
    assert bad_row(row, error, "skip") == {"index": 3, "id": "r3", "error": "TargetError: no class."}


def test_reasons_put_errors_together_on_lines_that_act_on_no_terminal():
    records = [{"id": f"r{i}", "error": f"InputError: {i} tokens in 'name {i}'"} for i in range(7)]
    records += [{"id": "a\u202eb\n\x1b[31m" + "x" * 999, "error": "TargetError:\nno\x07class"}]
    first, second = map(str, reasons(records))
    assert first == "7 x InputError: 0 tokens in 'name 0' (id r0, r1, r2, r3, r4, ...)"
    assert second.startswith(r"1 x TargetError: no\x07class (id a\u202eb \x1b[31mxxx")
    assert second.isprintable()
    assert len(second) < 300
