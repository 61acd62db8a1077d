"""`make docs`: a place for every public call, and pages that need nothing else and do not say where they were made."""

import os
import re
from pathlib import Path

import forks
import pytest
from test_docstrings import CALLS

import hf_mambalrp

ROOT = Path(__file__).parent.parent


def test_the_reference_has_every_public_call_and_needs_no_network(tmp_path):
    if not os.environ.get("CI"):  # where one that is missing is a failure
        pytest.importorskip("pdoc", reason="needs pip install '.[dev]'")
    made = forks.run([ROOT / "tests" / "reference.py", tmp_path])
    assert made.returncode == 0, made.stderr
    pages = {path.relative_to(tmp_path).as_posix(): path.read_text("utf-8") for path in tmp_path.rglob("*.html")}
    assert {"index.html", "hf_mambalrp.html", *(f"hf_mambalrp/{name}.html" for name in ("errors", "methods"))} <= {
        *pages
    }
    package = pages["hf_mambalrp.html"]
    places = set(re.findall(r'id="([\w.]+)"', package))
    for name in CALLS:
        owner, _, method = name.rpartition(".")
        inherited = owner and owner not in hf_mambalrp.__all__  # and is shown with each class that inherits it
        assert any(place.endswith(f".{method}") for place in places) if inherited else name in places, name
    assert "Explanation.to_html" in places  # of a base without a place of its own
    assert 'href="#MambaLRPMixin.explain"' in package.split('<section id="MambaLRPForCausalLM">')[1]
    for name in ("hf_mambalrp.html", "hf_mambalrp/methods.html"):
        assert f'href="{"../" * name.count("/")}tutorial.html"' in pages[name]
    assert "wonderful" in pages["tutorial.html"]
    for name, page in pages.items():
        assert str(ROOT) not in page, name
        assert not re.search(r'(?:src|<link[^>]* href)="(?:https?:)?//', page), name
