"""Explain Mamba language models: Layer-wise Relevance Propagation (MambaLRP) on Hugging Face transformers.

Importing the package lets ``AutoModelForSequenceClassification`` find Mamba classifiers, which transformers has no
class for. It loads neither torch nor transformers: every name loads what it needs when it is first used.
"""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_mambalrp import errors
from hf_mambalrp.auto_model import fill_when_loaded

if TYPE_CHECKING:
    from hf_mambalrp.auto import AutoMambaLRPForCausalLM, AutoMambaLRPForSequenceClassification, make_explainable
    from hf_mambalrp.classification import (
        FalconMambaForSequenceClassification,
        Mamba2ForSequenceClassification,
        MambaForSequenceClassification,
    )
    from hf_mambalrp.errors import MambaLRPError
    from hf_mambalrp.evaluation import Evaluation, evaluate_faithfulness
    from hf_mambalrp.explanation import Conservation, Explanation
    from hf_mambalrp.generation_explanation import GenerationExplanation
    from hf_mambalrp.hidden_attention import HiddenAttention
    from hf_mambalrp.hub import create_space, push_explanations
    from hf_mambalrp.mixin import MambaLRPMixin
    from hf_mambalrp.models import (
        FalconMambaLRPForCausalLM,
        FalconMambaLRPForSequenceClassification,
        Mamba2LRPForCausalLM,
        Mamba2LRPForSequenceClassification,
        MambaLRPForCausalLM,
        MambaLRPForSequenceClassification,
    )
    from hf_mambalrp.parallel import explain_dataset, load_explanations

__version__ = "0.1.0"

fill_when_loaded()

DEMO_MODEL: str = str(Path(__file__).parent / "demo")
"""Folder of the small sentiment classifier that ships with the package; works offline."""

_MODULES = {
    "AutoMambaLRPForCausalLM": "auto",
    "AutoMambaLRPForSequenceClassification": "auto",
    "Conservation": "explanation",
    "Evaluation": "evaluation",
    "Explanation": "explanation",
    "FalconMambaForSequenceClassification": "classification",
    "FalconMambaLRPForCausalLM": "models",
    "FalconMambaLRPForSequenceClassification": "models",
    "GenerationExplanation": "generation_explanation",
    "HiddenAttention": "hidden_attention",
    "Mamba2ForSequenceClassification": "classification",
    "Mamba2LRPForCausalLM": "models",
    "Mamba2LRPForSequenceClassification": "models",
    "MambaForSequenceClassification": "classification",
    "MambaLRPError": "errors",
    "MambaLRPForCausalLM": "models",
    "MambaLRPForSequenceClassification": "models",
    "MambaLRPMixin": "mixin",
    "evaluate_faithfulness": "evaluation",
    "create_space": "hub",
    "explain_dataset": "parallel",
    "load_explanations": "parallel",
    "make_explainable": "auto",
    "push_explanations": "hub",
}

__all__ = [
    "DEMO_MODEL",
    "AutoMambaLRPForCausalLM",
    "AutoMambaLRPForSequenceClassification",
    "Conservation",
    "Evaluation",
    "Explanation",
    "FalconMambaForSequenceClassification",
    "FalconMambaLRPForCausalLM",
    "FalconMambaLRPForSequenceClassification",
    "GenerationExplanation",
    "HiddenAttention",
    "Mamba2ForSequenceClassification",
    "Mamba2LRPForCausalLM",
    "Mamba2LRPForSequenceClassification",
    "MambaForSequenceClassification",
    "MambaLRPError",
    "MambaLRPForCausalLM",
    "MambaLRPForSequenceClassification",
    "MambaLRPMixin",
    "__version__",
    "create_space",
    "errors",
    "evaluate_faithfulness",
    "explain_dataset",
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
