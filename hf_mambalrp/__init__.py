"""Explain Mamba language models: Layer-wise Relevance Propagation (MambaLRP) on Hugging Face transformers.

Importing the package lets ``AutoModelForSequenceClassification`` find Mamba classifiers, and ``AutoConfig``,
``AutoModel`` and ``AutoModelForImageClassification`` Vision Mamba, which transformers has no classes for. It loads
neither torch nor transformers: every name loads what it needs when it is first used.

Beside what is here there are :mod:`hf_mambalrp.errors`; more checks, in :mod:`hf_mambalrp.evaluation`; what a run over
a dataset returns, in :mod:`hf_mambalrp.datasets`; and the methods with their options, in :mod:`hf_mambalrp.methods`.
"""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_mambalrp import errors
from hf_mambalrp.models.auto_model import fill_when_loaded

if TYPE_CHECKING:
    from hf_mambalrp.datasets import explain_dataset, load_explanations, push_explanations
    from hf_mambalrp.errors import MambaLRPError
    from hf_mambalrp.evaluation import Evaluation, evaluate_faithfulness, evaluate_image_explanations
    from hf_mambalrp.models.auto import (
        AutoMambaLRPForCausalLM,
        AutoMambaLRPForImageClassification,
        AutoMambaLRPForSequenceClassification,
        make_explainable,
    )
    from hf_mambalrp.models.classification import (
        FalconMambaForSequenceClassification,
        Mamba2ForSequenceClassification,
        MambaForSequenceClassification,
    )
    from hf_mambalrp.models.explainable import (
        FalconMambaLRPForCausalLM,
        FalconMambaLRPForSequenceClassification,
        Mamba2LRPForCausalLM,
        Mamba2LRPForSequenceClassification,
        MambaLRPForCausalLM,
        MambaLRPForSequenceClassification,
    )
    from hf_mambalrp.models.mixin import MambaLRPMixin
    from hf_mambalrp.models.vim.configuration import VimConfig
    from hf_mambalrp.models.vim.modeling import VimForImageClassification, VimModel
    from hf_mambalrp.models.vision import VimLRPForImageClassification, VisionLRPMixin
    from hf_mambalrp.results.explanation import Conservation, Explanation
    from hf_mambalrp.results.generation_explanation import GenerationExplanation
    from hf_mambalrp.results.hidden_attention import HiddenAttention
    from hf_mambalrp.results.image_explanation import ImageExplanation
    from hf_mambalrp.results.loading import load
    from hf_mambalrp.results.parts import PartRelevance
    from hf_mambalrp.space.create import create_space

__version__ = "0.1.0"

fill_when_loaded()

DEMO_MODEL: str = str(Path(__file__).parent / "demo")
"""Folder of the small sentiment classifier that ships with the package; works offline."""

DEMO_VISION_MODEL: str = str(Path(__file__).parent / "vision_demo")
"""Folder of the small Vision Mamba that ships with the package: it names the garments in a scene; works offline."""

_MODULES = {
    "AutoMambaLRPForCausalLM": "models.auto",
    "AutoMambaLRPForImageClassification": "models.auto",
    "AutoMambaLRPForSequenceClassification": "models.auto",
    "Conservation": "results.explanation",
    "Evaluation": "evaluation",
    "Explanation": "results.explanation",
    "FalconMambaForSequenceClassification": "models.classification",
    "FalconMambaLRPForCausalLM": "models.explainable",
    "FalconMambaLRPForSequenceClassification": "models.explainable",
    "GenerationExplanation": "results.generation_explanation",
    "HiddenAttention": "results.hidden_attention",
    "ImageExplanation": "results.image_explanation",
    "Mamba2ForSequenceClassification": "models.classification",
    "Mamba2LRPForCausalLM": "models.explainable",
    "Mamba2LRPForSequenceClassification": "models.explainable",
    "MambaForSequenceClassification": "models.classification",
    "MambaLRPError": "errors",
    "MambaLRPForCausalLM": "models.explainable",
    "MambaLRPForSequenceClassification": "models.explainable",
    "MambaLRPMixin": "models.mixin",
    "PartRelevance": "results.parts",
    "VimConfig": "models.vim.configuration",
    "VimForImageClassification": "models.vim.modeling",
    "VimLRPForImageClassification": "models.vision",
    "VimModel": "models.vim.modeling",
    "VisionLRPMixin": "models.vision",
    "evaluate_faithfulness": "evaluation",
    "evaluate_image_explanations": "evaluation",
    "create_space": "space.create",
    "explain_dataset": "datasets",
    "load": "results.loading",
    "load_explanations": "datasets",
    "make_explainable": "models.auto",
    "push_explanations": "datasets",
}

__all__ = [
    "DEMO_MODEL",
    "DEMO_VISION_MODEL",
    "AutoMambaLRPForCausalLM",
    "AutoMambaLRPForImageClassification",
    "AutoMambaLRPForSequenceClassification",
    "Conservation",
    "Evaluation",
    "Explanation",
    "FalconMambaForSequenceClassification",
    "FalconMambaLRPForCausalLM",
    "FalconMambaLRPForSequenceClassification",
    "GenerationExplanation",
    "HiddenAttention",
    "ImageExplanation",
    "Mamba2ForSequenceClassification",
    "Mamba2LRPForCausalLM",
    "Mamba2LRPForSequenceClassification",
    "MambaForSequenceClassification",
    "MambaLRPError",
    "MambaLRPForCausalLM",
    "MambaLRPForSequenceClassification",
    "MambaLRPMixin",
    "PartRelevance",
    "VimConfig",
    "VimForImageClassification",
    "VimLRPForImageClassification",
    "VimModel",
    "VisionLRPMixin",
    "__version__",
    "create_space",
    "errors",
    "evaluate_faithfulness",
    "evaluate_image_explanations",
    "explain_dataset",
    "load",
    "load_explanations",
    "make_explainable",
    "push_explanations",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(f"hf_mambalrp.{_MODULES[name]}"), name)
    raise AttributeError(f"module 'hf_mambalrp' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
