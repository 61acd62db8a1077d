"""The tutorial runs as it stands, and what is committed with it can be read where styles are taken away.

python tests/test_tutorial.py writes its outputs anew.
"""

import json
import os
import re
import tempfile
from pathlib import Path

import forks
import pytest

PATH = Path(__file__).parent.parent / "examples" / "tutorial.ipynb"
TEXT = PATH.read_text(encoding="utf-8")
NOTEBOOK = json.loads(TEXT)
NUMBER = re.compile(r"[-+]?\d[\d.,]*(?:e[-+]?\d+)?%?")
WORD = re.compile(r"\S\(([-+]\d+\.\d+)\)")
"""A word with its relevance, as a terminal has it."""


KERNEL = """
import matplotlib
from ipykernel.kernelapp import launch_new_instance
matplotlib.rcParams["backend"] = "module://matplotlib_inline.backend_inline"
launch_new_instance()
"""
"""In a fork, where matplotlib has been imported before a kernel says in the environment where it draws."""


def code_cells(notebook):
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def outputs(notebook):
    """Kind and text of what every cell gives, its numbers left out: their last digit depends on the machine."""
    for cell in code_cells(notebook):
        for output in cell["outputs"]:
            if output.get("name") != "stderr":  # what a machine says about itself
                data = output.get("data", {"text/plain": output.get("text", "")})
                text = "".join(data.get("text/plain", ""))
                yield output["output_type"], sorted(data), re.sub(r"\s+", " ", NUMBER.sub("#", text))


def ran(folder):
    """The notebook with the outputs of a new run, which writes into a folder."""
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.reads(TEXT, as_version=4)
    client = NotebookClient(notebook, timeout=300, resources={"metadata": {"path": folder}})
    client.create_kernel_manager().kernel_spec.argv[1:3] = [forks.__file__, "-c", KERNEL]
    client.execute()
    return notebook


def test_it_runs_as_it_stands(tmp_path, monkeypatch):
    if not os.environ.get("CI"):  # where one that is missing is a failure
        pytest.importorskip("nbclient", reason="needs pip install '.[dev]'")
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path))
    assert list(outputs(ran(tmp_path))) == list(outputs(NOTEBOOK))


def test_it_shows_every_step_and_comes_with_all_outputs():
    titles = re.findall(r"^## (.*)$", "\n".join("".join(cell["source"]) for cell in NOTEBOOK["cells"]), re.MULTILINE)
    assert titles == [
        *("A classified text", "Two of them side by side", "The next word", "A generated text", "Hidden attention"),
        *("A long document", "A whole dataset", "Sharing"),
    ]
    counts = [cell["execution_count"] for cell in code_cells(NOTEBOOK)]
    assert counts == list(range(1, len(counts) + 1))
    assert not re.search(r"/(?:work|tmp|home|root|Users)/", TEXT)
    assert len(TEXT) < 500_000


def test_without_scripts_and_styles_it_says_the_same():
    """As GitHub shows a page of HTML: a table has what the colours say, or the picture of the next cell."""
    seen, cells = 0, code_cells(NOTEBOOK)
    for number, cell in enumerate(cells):
        drawn = any("image/png" in output.get("data", {}) for output in cells[(number + 1) % len(cells)]["outputs"])
        for output in cell["outputs"]:
            data = output.get("data", {})
            if "text/html" not in data:
                assert "image/png" in data or output["output_type"] == "stream"
                continue
            html = re.sub(r"<(style|script).*?</\1>", "", "".join(data["text/html"]), flags=re.DOTALL)
            shown = set(re.sub(r"<[^>]*>", " ", html).split())
            said = set(WORD.findall("".join(data["text/plain"])))
            assert said <= shown or drawn
            seen += len(said & shown)
    assert seen > 15


def write():
    """Run the notebook, and keep its outputs but for what a machine says about itself."""
    import nbformat

    with tempfile.TemporaryDirectory() as folder:
        notebook = ran(folder)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
    for cell in code_cells(notebook):
        cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    notebook.metadata.language_info = {"name": "python"}
    nbformat.write(notebook, PATH)


if __name__ == "__main__":
    write()
