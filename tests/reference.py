"""The API reference: pages that are made of the docstrings of what is public.

python tests/reference.py out/docs
"""

import sys
import warnings
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
    pdoc.render.env.loader = ChoiceLoader([DictLoader({"custom.css": STYLE}), pdoc.render.env.loader])
    pdoc.pdoc(*PAGES, output_directory=folder)


if __name__ == "__main__":
    build(Path(sys.argv[1]))
