"""The README's Python runs as it stands, its files exist, and its commands are the Makefile's."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import versions

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_six_lines_run_as_they_stand(tmp_path):
    code = re.findall(r"```python\n(.*?)```", README, re.DOTALL)[0]
    assert len([line for line in code.splitlines() if line.strip()]) == 5
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "wonderful" in result.stdout
    assert "sum of relevance" in result.stdout.splitlines()[-1]


def test_the_releases_that_make_test_passed_with_are_those_that_it_installs():
    assert versions.table()["make test"][2:] == versions.constrained()


def test_every_linked_file_exists():
    links = [link for link in re.findall(r"\]\(([^)]+)\)", README) if "://" not in link]
    assert "examples/images/explanation.png" in links
    for link in links:
        assert (ROOT / link).exists(), link


def test_every_make_command_is_a_target():
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {"demo", "test"} <= set(re.findall(r"(?:^|`)make (\w+)", README, re.MULTILINE)) <= targets


@pytest.mark.parametrize("run", ["cpu.json", "cpu_mamba2.json"])
def test_the_benchmark_table_is_the_run_that_is_committed(run):
    rows = json.loads((ROOT / "examples/benchmarks/results" / run).read_text())["rows"]
    for row in rows:
        assert f"| {row['what']} | {row['length']} | {row['seconds']:.2f} |" in README
