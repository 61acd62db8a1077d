"""The package's own rules: imports go one way, no optional package is imported, the table of families is one."""

import ast
import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
from transformers import AutoModelForSequenceClassification, Mamba2Config, MambaConfig, MambaModel

import hf_mambalrp
from hf_mambalrp import MambaForSequenceClassification
from hf_mambalrp.attention import Part
from hf_mambalrp.cli import options as cli_options
from hf_mambalrp.methods import METHODS
from hf_mambalrp.models.auto_model import AUTO_CLASSES, fill_when_loaded
from hf_mambalrp.ops.gated_scan import dispatch as gated_scan
from hf_mambalrp.ops.selective_scan import dispatch as selective_scan
from hf_mambalrp.ops.ssd_scan import dispatch as ssd_scan
from hf_mambalrp.results.hidden_attention import PARTS
from hf_mambalrp.viz.method_names import METHOD_NAMES

PACKAGE = Path(hf_mambalrp.__file__).parent
ROOMS = [
    *("errors", "runs", "rules", "ops", "viz", "hub", "results", "attention", "families", "methods", "calls", "models"),
    *("evaluation", "datasets", "audit", "space", "cli"),
]
"""Each may import those before it. A public name that is imported from the package itself counts as its room's."""
CONSTANTS = {"__version__", "DEMO_LANGUAGE_MODEL", "DEMO_MODEL", "DEMO_VISION_MODEL"}


def imports(path):
    """The rooms that a file imports: at its top, inside functions, for types alone."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "hf_mambalrp":
            names = (alias.name for alias in node.names if alias.name not in CONSTANTS)
            yield from (hf_mambalrp._MODULES.get(name, name).split(".")[0] for name in names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("hf_mambalrp."):
            yield node.module.split(".")[1]
        elif isinstance(node, ast.Import):
            yield from (a.name.split(".")[1] for a in node.names if a.name.startswith("hf_mambalrp."))


def arrows():
    """Every file with its room and each other room that it imports."""
    for path in sorted(PACKAGE.rglob("*.py")):
        place = path.relative_to(PACKAGE)
        own = place.parts[0].removesuffix(".py")
        if own != "__init__":
            yield from ((place, own, imported) for imported in imports(path) if imported != own)


def test_a_room_imports_only_rooms_above_it():
    for place, own, imported in arrows():
        assert own in ROOMS, f"{place} is in no room"
        assert imported in ROOMS, f"{place} imports {imported}, which is no room"
        assert ROOMS.index(imported) < ROOMS.index(own), f"{place} imports {imported}, which is below it"


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
            "DEMO_LANGUAGE_MODEL",
            "DEMO_MODEL",
            "errors",
        }
        <= set(hf_mambalrp.__all__)
        == set(dir(hf_mambalrp))
    )


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """What one process finds that begins with the package alone and ends with all that it offers, and a dataset."""
    code = (
        "import json, sys, hf_mambalrp\n"
        "from hf_mambalrp import errors\n"
        "from hf_mambalrp.cli.main import main\n"
        "def run(*arguments):\n"
        "    sys.argv = ['hf-mambalrp', *arguments]\n"
        "    try: main()\n"
        "    except SystemExit as ended: return ended.code or 0\n"
        "    return 0\n"
        "codes = [run('--version'), run('--help'), run('explain', '--help'), run('explain'), run('explain', '--no')]\n"
        "codes.append(run('explain', 'a text', '--html', 'no/such/folder/page.html'))\n"
        "codes.append(run('explain', 'a text', '--model', './no/such/folder'))\n"
        "codes.append(run('explain', 'a text', '--tokenizer', './no/such/folder'))\n"
        "codes += [run('explain', 'a text', '--method', 'lime'), run('explain', 'a text', '--backend', 'fast')]\n"
        "codes += [run('app', '--help'), run('app', '--port', '0')]\n"
        "codes += [run('explain-image', '--help'), run('explain-image'), run('explain-image', 'a', '--png', 'a.svg')]\n"
        "heavy = [name for name in 'torch transformers numpy numba matplotlib gradio'.split() if name in sys.modules]\n"
        # The order in which transformers' own modules import each other, where filling the slot must not interfere.
        "from transformers.models.mamba.modeling_mamba import MambaForCausalLM\n"
        "from transformers import AutoModelForSequenceClassification, MambaConfig\n"
        "config = MambaConfig(vocab_size=9, hidden_size=8, num_hidden_layers=1)\n"
        "early = 'hf_mambalrp.models.classification' in sys.modules\n"
        "found = type(AutoModelForSequenceClassification.from_config(config)).__module__\n"
        "from transformers import AutoConfig, AutoModel, AutoModelForImageClassification\n"
        "from hf_mambalrp import DEMO_VISION_MODEL\n"
        "classes = (AutoConfig, AutoModel, AutoModelForImageClassification)\n"
        "vision = [type(c.from_pretrained(DEMO_VISION_MODEL)).__name__ for c in classes]\n"
        "for name in hf_mambalrp.__all__: getattr(hf_mambalrp, name)\n"
        "optional = 'matplotlib pandas pyarrow datasets captum vaderSentiment bitsandbytes gradio'.split()\n"
        "optional += 'mamba_ssm causal_conv1d IPython peft'.split()\n"
        # transformers itself imports triton where it is installed; our kernels must not be imported yet.
        "optional += [name for name in sys.modules if name.startswith('hf_mambalrp.ops') and 'triton' in name]\n"
        "optional = [name for name in optional if name in sys.modules]\n"
        "from hf_mambalrp import DEMO_MODEL, AutoMambaLRPForSequenceClassification, explain_dataset\n"
        "model = AutoMambaLRPForSequenceClassification.from_pretrained(DEMO_MODEL)\n"
        "explain_dataset(model, ['A dull film.', 'A fine film.'], 'explained', progress=False)\n"
        "pandas = 'pandas' in sys.modules\n"
        "names = ('codes', 'heavy', 'early', 'found', 'vision', 'optional', 'pandas')\n"
        "print(json.dumps({name: globals()[name] for name in names}))"
    )
    folder = tmp_path_factory.mktemp("seen")
    # No fork: what the tests fork from has imported it all.
    result = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True)
    return json.loads(result.stdout.splitlines()[-1])


def test_the_package_the_command_and_its_errors_load_nothing_heavy(seen):
    assert seen["codes"] == [0, 0, 0, 1, 2, 1, 1, 1, 1, 1, 0, 2, 0, 1, 1]
    assert seen["heavy"] == []


def test_transformers_finds_a_classifier_which_is_loaded_when_it_does(seen):
    assert not seen["early"]
    assert seen["found"] == "hf_mambalrp.models.classification"
    assert seen["vision"] == ["VimConfig", "VimModel", "VimForImageClassification"]


def test_importing_all_that_the_package_offers_pulls_in_no_optional_package(seen):
    assert seen["optional"] == []


def test_a_dataset_is_explained_without_pandas(seen):
    assert seen["pandas"] is False


def test_the_command_knows_the_names_of_methods_and_backends():
    assert list(METHOD_NAMES) == list(cli_options.METHODS) == list(METHODS)
    assert set(cli_options.METHODS_WITH_LAYERS) == {name for name, method in METHODS.items() if method.has_layers}
    assert get_args(Part) == PARTS == cli_options.PARTS
    assert set(cli_options.BACKENDS) == {"auto", *selective_scan.BACKENDS, *ssd_scan.BACKENDS, *gated_scan.BACKENDS}


class Later(MambaForSequenceClassification):
    """A class of the caller's own."""


def test_the_auto_model_slot_is_filled_when_it_is_read_and_keeps_the_callers_class(monkeypatch):
    mapping = AutoModelForSequenceClassification._model_mapping
    monkeypatch.setattr(mapping, "_extra_content", {MambaConfig: Later})
    fill_when_loaded()
    fill_when_loaded()  # once is enough
    assert not isinstance(mapping._extra_content, dict)
    assert mapping[Mamba2Config].__module__ == "hf_mambalrp.models.classification"
    assert mapping[MambaConfig] is Later
    assert type(mapping._extra_content) is dict
    monkeypatch.setattr(mapping, "_extra_content", {})
    fill_when_loaded()
    mapping._extra_content[MambaConfig] = Later  # as register does, which 5.13 to 5.18 ignore
    assert mapping[MambaConfig] is Later
    monkeypatch.setattr(mapping, "_extra_content", {})
    monkeypatch.setitem(mapping._model_mapping, "mamba", "MambaModel")  # once transformers has a class of its own
    fill_when_loaded()
    assert mapping[MambaConfig] is MambaModel


def test_the_slot_is_filled_again_when_transformers_module_is_loaded_again():
    (watch,) = (finder for finder in sys.meta_path if type(finder).__name__ == "_Watch")
    spec = watch.find_spec(AUTO_CLASSES, sys.modules["transformers.models.auto"].__path__)  # as importlib.reload does
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.AutoModelForSequenceClassification._model_mapping[MambaConfig] is MambaForSequenceClassification
    assert type(module.__spec__.loader) is type(sys.modules[AUTO_CLASSES].__spec__.loader)


def test_a_release_without_the_slot_is_said_and_not_an_error(monkeypatch, logged):
    monkeypatch.setattr(sys.modules[AUTO_CLASSES], "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING", {})
    fill_when_loaded()
    assert "AutoMambaLRPForSequenceClassification" in logged.getvalue()
