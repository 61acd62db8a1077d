"""The README's Python runs as it stands, its files exist, and its commands are the Makefile's."""

import json
import re
import shlex
from pathlib import Path

import forks
import pytest
import tomllib
import versions
from typer.main import get_command

from hf_mambalrp import (
    DEMO_MODEL,
    DEMO_VISION_MODEL,
    AutoMambaLRPForSequenceClassification,
    VimLRPForImageClassification,
)
from hf_mambalrp.cli.main import app

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_six_lines_run_as_they_stand(tmp_path):
    code = re.findall(r"```python\n(.*?)```", README, re.DOTALL)[0]
    assert len([line for line in code.splitlines() if line.strip()]) == 5
    result = forks.run(["-c", code], cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "wonderful" in result.stdout
    assert "sum of relevance" in result.stdout.splitlines()[-1]


def test_every_command_of_the_package_is_understood():
    """Of shell blocks and of the text: the command is there, and takes these arguments."""
    blocks = "\n".join(re.findall(r"```bash\n(.*?)```", README, re.DOTALL))
    commands = re.findall(r"^hf-mambalrp (.+)$", blocks, re.MULTILINE)
    commands += re.findall(r"`hf-mambalrp ([^` ]+ [^`]+)`", README)
    assert len(commands) >= 6
    known = get_command(app).commands
    for name, *arguments in (shlex.split(line, comments=True) for line in commands):
        assert known[name].make_context(name, arguments).params, name
    names = re.findall(r"`hf-mambalrp ([a-z-]+)`", README)
    assert {"explain-dataset", "push"} <= set(names) <= set(known)


def test_every_extra_that_is_installed_is_one():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    named = {name for listed in re.findall(r"\[([a-z]+(?:,[a-z]+)*)\]['\"`]", README) for name in listed.split(",")}
    named |= set(re.findall(r"^\| `([a-z]+)` \|", README, re.MULTILINE)) - {"method", "position"}
    assert {"plot", "pandas", "data", "space", "cuda"} <= named <= set(extras)


def test_the_share_of_the_end_is_what_the_packaged_model_has():
    texts = [json.loads(line)["text"] for line in (Path(DEMO_MODEL) / "reviews.jsonl").read_text("utf-8").splitlines()]
    model = AutoMambaLRPForSequenceClassification.from_pretrained(DEMO_MODEL)
    reviews, whole = model.explain(texts), model.explain(" ".join(texts))
    shares = [reviews.end_share(row) for row in range(len(reviews))]
    mean, end = f"{sum(shares) / len(shares):.0%}", f"{whole.end_share(part=0.05):.0%}"
    said = (
        f"over the packaged model's {len(texts)} reviews it has {mean} of all |relevance| on average, and in these "
        f"reviews joined to one text the last 5% of the words have {end}"
    )
    assert said.replace("%", " %") in " ".join(README.split())
    own = model.explain("The plot is thin, but the two leads are wonderful.", target="positive")
    assert f"{own.conservation.ratio.item():.0%} of it to the words here".replace("%", " %") in README


def test_where_the_score_of_the_bag_went_is_what_the_packaged_model_says():
    model = VimLRPForImageClassification.from_pretrained(DEMO_VISION_MODEL)
    found = model.explain(f"{DEMO_VISION_MODEL}/scenes/pictures/bag_trouser.png", target="bag")
    parts = [found.relevance.sum(), found.class_relevance.sum(), found.conservation.biases.sum()]
    score, patches, token, biases = (f"{part.item():.2f}" for part in [found.score.sum(), *parts])
    said = (
        f"bag's score of {score} here, {patches} is in the patches, {token} in the class token and {biases} in biases"
    )
    assert said in " ".join(README.split())


def test_the_releases_that_make_test_passed_with_are_those_that_it_installs():
    assert versions.table()["make test"][2:] == versions.constrained()


def test_every_linked_file_exists():
    links = [link for link in re.findall(r"\]\(([^)]+)\)", README) if "://" not in link]
    assert {"examples/images/explanation.png", "examples/images/image.png"} <= set(links)
    headings = [line[3:].lower().replace(" ", "-") for line in README.splitlines() if line.startswith("## ")]
    for link in links:
        if link.startswith("#"):
            assert link[1:] in headings
            continue
        assert (ROOT / link).exists(), link


def test_every_make_command_is_a_target():
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {"demo", "test"} <= set(re.findall(r"(?:^|`)make (\w+)", README, re.MULTILINE)) <= targets


@pytest.mark.parametrize("run", ["cpu.json", "cpu_mamba2.json"])
def test_the_benchmark_table_is_the_run_that_is_committed(run):
    rows = json.loads((ROOT / "examples/benchmarks/results" / run).read_text())["rows"]
    for row in rows:
        assert f"| {row['what']} | {row['length']} | {row['seconds']:.2f} |" in README


def test_the_table_of_a_busy_neighbour_is_the_runs_that_are_committed():
    names = ["cpu_neighbour.json", "cpu_neighbour_passive.json", "cpu_neighbour_one_thread.json"]
    runs = [json.loads((ROOT / "examples/benchmarks/results" / name).read_text()) for name in names]
    assert [(run["neighbours"], run["threads"], run["OMP_WAIT_POLICY"]) for run in runs] == [
        (1, 2, None),
        (1, 2, "passive"),
        (1, 1, None),
    ]
    for rows in zip(*(run["rows"] for run in runs), strict=True):
        (what,) = {row["what"] for row in rows}
        pairs = [(row["seconds"], row["seconds_beside_neighbours"]) for row in rows]
        cells = [f"{alone:.2f}, {beside:.2f} ({beside / alone:.2f} x)" for alone, beside in pairs]
        assert f"| {what} | {' | '.join(cells)} |" in README
