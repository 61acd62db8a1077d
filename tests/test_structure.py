"""The package's own rules: imports go one way, no optional package is imported, the table of families is one."""

import ast
import subprocess
import sys
from pathlib import Path

import hf_mambalrp

PACKAGE = Path(hf_mambalrp.__file__).parent
ORDER = ["ops", "rules", "families", "attention", "methods", "mixin", "evaluation", "parallel", "hub", "cli"]
"""Each may import those before it. Modules at the top that are not listed belong to the mixin's level."""
FREE = {"errors", "viz", "explanation", "generation_explanation", "hidden_attention", "serialization"}
"""Results and errors: imported from anywhere above, and importing none of the layers."""
SHARED = {"mixin.py", "explanation.py", "parallel/reading.py"}
"""Their methods hand what a user pushes or fetches up to ``hub``, by an import inside the method."""


def layer(name):
    return ORDER.index(name) if name in ORDER else ORDER.index("mixin")


def imports(path):
    tree = ast.parse(path.read_text())
    at_the_top = {id(node) for node in tree.body}
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.ImportFrom)
            and (node.module or "").startswith("hf_mambalrp.hub.")
            and path.relative_to(PACKAGE).as_posix() in SHARED
            and id(node) not in at_the_top
        ):
            continue
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("hf_mambalrp."):
            yield node.module.split(".")[1]
        elif isinstance(node, ast.Import):
            yield from (a.name.split(".")[1] for a in node.names if a.name.startswith("hf_mambalrp."))


def test_imports_go_one_way():
    seen = set()
    for path in sorted(PACKAGE.rglob("*.py")):
        own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        for imported in imports(path):
            seen.add(own)
            if own in FREE:
                assert imported in FREE, f"{path.name} shows results; it must not import {imported}"
            elif imported not in FREE and own not in ("__init__",):
                assert layer(imported) <= layer(own), (
                    f"{path.relative_to(PACKAGE)} imports {imported}, which is above it"
                )
    assert {"rules", "families", "attention", "methods", "mixin"} <= seen


def test_importing_the_package_pulls_in_no_optional_package():
    code = (
        "import sys, hf_mambalrp\n"
        "for name in hf_mambalrp.__all__: getattr(hf_mambalrp, name)\n"
        "optional = 'matplotlib pandas pyarrow datasets captum vaderSentiment bitsandbytes gradio'.split()\n"
        "optional += 'mamba_ssm causal_conv1d IPython peft'.split()\n"
        # transformers itself imports triton where it is installed; our kernels must not be imported yet.
        "optional += [name for name in sys.modules if name.startswith('hf_mambalrp.ops') and 'triton' in name]\n"
        "print([name for name in optional if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_public_names():
    assert (
        {
            "MambaLRPMixin",
            "MambaForSequenceClassification",
            "MambaLRPForCausalLM",
            "MambaLRPForSequenceClassification",
            "AutoMambaLRPForCausalLM",
            "AutoMambaLRPForSequenceClassification",
            "make_explainable",
            "Explanation",
            "DEMO_MODEL",
        }
        <= set(hf_mambalrp.__all__)
        == set(dir(hf_mambalrp))
    )


def test_importing_the_package_fills_the_empty_auto_model_slot():
    code = (
        "import hf_mambalrp\n"
        "from transformers import AutoModelForSequenceClassification, MambaConfig\n"
        "config = MambaConfig(vocab_size=9, hidden_size=8, num_hidden_layers=1)\n"
        "print(type(AutoModelForSequenceClassification.from_config(config)).__module__)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "hf_mambalrp.classification"
