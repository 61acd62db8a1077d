"""``hf-mambalrp audit``: the same files as the call, and what was typed wrongly is said in one line."""

from pathlib import Path

import pytest

from hf_mambalrp import DEMO_MODEL, AutoMambaLRPForSequenceClassification
from hf_mambalrp.audit import Audit, audit
from hf_mambalrp.cli.main import main


@pytest.fixture(scope="module")
def reviews(tmp_path_factory):
    """Some of those that come with the packaged model."""
    path = tmp_path_factory.mktemp("reviews") / "reviews.jsonl"
    lines = Path(DEMO_MODEL, "reviews.jsonl").read_text("utf-8").splitlines(keepends=True)
    path.write_text("".join(lines[:24]), "utf-8")
    return str(path)


@pytest.fixture
def run(reviews):
    def called(*arguments):
        with pytest.raises(SystemExit) as ended:
            main(["audit", reviews, *arguments])
        return ended.value.code

    return called


def test_the_command_writes_what_the_call_finds(run, reviews, tmp_path, capsys):
    options = ["--label", "label", "--min-texts", "5", "--candidates", "3", "--swaps", "and=but", "--base", DEMO_MODEL]
    options += ["--groups", "predicted"]
    assert run("--output", str(tmp_path / "audit"), *options) == 0
    said = capsys.readouterr()
    assert "What does the model rely on?" in said.out
    assert f"written: {tmp_path / 'audit' / 'audit.html'}" in said.err
    found = Audit.load(tmp_path / "audit" / "audit.json")
    model = AutoMambaLRPForSequenceClassification.from_pretrained(DEMO_MODEL)
    expected = audit(
        model,
        reviews,
        label="label",
        base=tmp_path / "audit" / "base",
        swaps={"and=but": [("and", "but")]},
        groups="predicted",
        min_texts=5,
        candidates=3,
        progress=False,
    )
    assert found == expected
    assert {change.change for change in found.changed} == {0.0}  # the same model
    assert (tmp_path / "audit" / "audit.html").read_text(encoding="utf-8") == expected.to_html()
    before = (tmp_path / "audit" / "audit.json").read_bytes()
    assert run("--output", str(tmp_path / "audit"), *options) == 0
    assert (tmp_path / "audit" / "audit.json").read_bytes() == before


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--swaps", "he"], "give pairs such as he=she"),
        (["--candidates", "0"], "candidates=0"),
        (["--label", "stars"], "stars"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(run, tmp_path, capsys, options, said):
    assert run("--output", str(tmp_path / "audit"), *options) == 1
    message = capsys.readouterr().err.strip()
    assert said in message
    assert message.splitlines()[-1].startswith("hf-mambalrp: ")
