"""The API reference: pages that are made of the docstrings of what is public, and the tutorial as one of them.

python tests/reference.py out/docs
"""

import json
import sys
import warnings
from html import escape
from pathlib import Path

import pdoc
from jinja2 import ChoiceLoader, DictLoader

import hf_mambalrp
from hf_mambalrp.methods import METHODS

PAGES = [
    "hf_mambalrp",
    r"!hf_mambalrp\.",  # no page for every file: what is public is on the package's
    *(f"hf_mambalrp.{name}" for name in ("errors", "datasets", "evaluation", "methods")),
    r"!hf_mambalrp\.\w+\.",
    *sorted({method.explain.__module__ for method in METHODS.values()} - {"hf_mambalrp.methods.registry"}),
]
STYLE = ".pdoc .attr, .pdoc .inherited { overflow-wrap: anywhere; }"
"""Names and types may be longer than a phone is wide."""


LINK = """{% extends "default/module.html.jinja2" %}{% block nav_title %}{{ super() }}
<p><a href="{{ "../" * module.modulename.count(".") }}tutorial.html">Tutorial</a></p>{% endblock %}"""
"""Every page leads to the tutorial."""
TUTORIAL = Path(__file__).parent.parent / "examples" / "tutorial.ipynb"
PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Tutorial of hf_mambalrp</title><style>
body {{ margin: 0 auto; padding: 1.5rem; max-width: 60rem; font: 16px/1.6 system-ui, sans-serif; color: #1b1f24 }}
pre {{ padding: .75rem 1rem; overflow-x: auto; background: #f3f5f7; border-radius: 4px; font-size: .875rem }}
.output pre {{ background: none; padding: 0 1rem }} img {{ max-width: 100% }} .output {{ overflow-x: auto }}
</style><main><p><a href="hf_mambalrp.html">API reference</a></p>{}</main></html>"""


def tutorial():
    """The notebook as it is committed, with its outputs, as one page."""
    parts = []
    for cell in json.loads(TUTORIAL.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(pdoc.render_helpers.to_html(source))
            continue
        parts.append(f'<pre tabindex="0">{escape(source)}</pre>')
        for output in cell["outputs"]:
            data = {kind: "".join(lines) for kind, lines in output.get("data", {}).items()}
            text = f'<pre tabindex="0">{escape(data.get("text/plain", "".join(output.get("text", ""))))}</pre>'
            image = f'<img alt="A figure" src="data:image/png;base64,{data.get("image/png", "").strip()}">'
            shown = data.get("text/html") or (image if "image/png" in data else text)
            parts.append(f'<div class="output">{shown}</div>')
    return PAGE.format("\n".join(parts))


def ours(doc):
    """Members of a class that this package defines, by the class that defines them: its module and its name."""
    found = {}
    for member in doc.members.values():
        module, name = member.taken_from
        if module.partition(".")[0] == "hf_mambalrp":
            found.setdefault((module, name.rpartition(".")[0]), []).append(member)
    return found


def own_members(doc):
    """The class's own, and those of bases that have no place of their own in the reference, such as ``Shown``."""
    return [
        member
        for place, members in ours(doc).items()
        if place == doc.taken_from or place[1] not in hf_mambalrp.__all__
        for member in members
    ]


def inherited_members(doc):
    """Those of bases that have one, such as ``MambaLRPMixin``, by where that is: pages link to it."""
    return {
        ("hf_mambalrp", name): members
        for (module, name), members in ours(doc).items()
        if (module, name) != doc.taken_from and name in hf_mambalrp.__all__
    }


def build(folder):
    """Write the pages. Whatever pdoc warns of is an error."""
    warnings.simplefilter("error")
    for name in hf_mambalrp.__all__:  # names load what they need when they are first used, and pdoc only looks
        vars(hf_mambalrp)[name] = getattr(hf_mambalrp, name)
    hf_mambalrp.DEMO_MODEL = "hf_mambalrp/demo"  # and not the folder of whoever builds this
    hf_mambalrp.DEMO_LANGUAGE_MODEL = "hf_mambalrp/language_demo"
    hf_mambalrp.DEMO_VISION_MODEL = "hf_mambalrp/vision_demo"
    pdoc.doc.Class.own_members = property(own_members)
    pdoc.doc.Class.inherited_members = property(inherited_members)
    pdoc.render.configure(docformat="google", footer_text=f"hf_mambalrp {hf_mambalrp.__version__}", show_source=False)
    pdoc.render.env.loader = ChoiceLoader(
        [DictLoader({"custom.css": STYLE, "module.html.jinja2": LINK}), pdoc.render.env.loader]
    )
    pdoc.pdoc(*PAGES, output_directory=folder)
    (folder / "tutorial.html").write_text(tutorial(), encoding="utf-8")


if __name__ == "__main__":
    build(Path(sys.argv[1]))
