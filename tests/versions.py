"""README's table of tested releases: one row a command, written by the command after its tests have passed.

python tests/versions.py "make test-newest"
"""

import re
import sys
from datetime import date
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGES = ("torch", "transformers", "huggingface-hub", "accelerate", "tokenizers", "peft", "datasets", "gradio")
START, END = "<!-- versions:start -->", "<!-- versions:end -->"


def constrained():
    """Releases in constraints.txt of the table's packages, which are the same for every Python."""
    pinned = (ROOT / "constraints.txt").read_text()
    return [re.search(rf"^{package}==(\S+)$", pinned, re.MULTILINE)[1] for package in PACKAGES]


def table():
    """Rows of the README's table: its command, then a cell a column."""
    body = (ROOT / "README.md").read_text(encoding="utf-8").split(START)[1].split(END)[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in body.strip().splitlines()]
    return {row[0].strip("`"): row[1:] for row in rows[2:]}


def write(command):
    """Put the releases that are installed here, this Python and the day into the command's row."""
    rows = table()
    rows[command] = [
        str(date.today()),
        ".".join(map(str, sys.version_info[:2])),
        *(re.sub(r"\+.*", "", version(package)) for package in PACKAGES),
    ]
    head = ["command", "passed on", "Python", *PACKAGES]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    lines += [f"| `{name}` | {' | '.join(cells)} |" for name, cells in rows.items()]
    page = (ROOT / "README.md").read_text(encoding="utf-8")
    before, rest = page.split(START)
    after = rest.split(END)[1]
    text = "\n".join([before + START, *lines, END + after])
    (ROOT / "README.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write(sys.argv[1])
