"""Explain Mamba language models: Layer-wise Relevance Propagation (MambaLRP) on Hugging Face transformers.

Importing the package lets ``AutoModelForSequenceClassification`` find the classifiers that transformers lacks, and
``AutoConfig``, ``AutoModel`` and ``AutoModelForImageClassification`` Vision Mamba, which it has no classes for. It
loads neither torch nor transformers: every name loads what it needs when it is first used.

Beside what is here there are :mod:`hf_mambalrp.errors`; more checks, in :mod:`hf_mambalrp.evaluation`; what a run over
a dataset returns, in :mod:`hf_mambalrp.datasets`; and the methods with their options, in :mod:`hf_mambalrp.methods`.
"""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_mambalrp import errors
from hf_mambalrp.models.auto_model import fill_when_loaded
from hf_mambalrp.models.releases import check_release, family_of, has_family

if TYPE_CHECKING:
    from hf_mambalrp.datasets import explain_dataset, load_explanations, push_explanations
    from hf_mambalrp.errors import MambaLRPError
    from hf_mambalrp.evaluation import Evaluation, evaluate_faithfulness, evaluate_image_explanations
    from hf_mambalrp.models.auto import (
        AutoMambaLRPForCausalLM,
        AutoMambaLRPForImageClassification,
        AutoMambaLRPForSequenceClassification,
    )
    from hf_mambalrp.models.classification import (
        BailingHybridForSequenceClassification,
        BambaForSequenceClassification,
        FalconH1ForSequenceClassification,
        FalconMambaForSequenceClassification,
        GraniteMoeHybridForSequenceClassification,
        KimiLinearForSequenceClassification,
        Lfm2ForSequenceClassification,
        Lfm2MoeForSequenceClassification,
        Mamba2ForSequenceClassification,
        MambaForSequenceClassification,
        NemotronHForSequenceClassification,
        OlmoHybridForSequenceClassification,
        Qwen3_5MoeForSequenceClassification,
        RecurrentGemmaForSequenceClassification,
    )
    from hf_mambalrp.models.explainable import (
        BambaLRPForCausalLM,
        BambaLRPForSequenceClassification,
        FalconH1LRPForCausalLM,
        FalconH1LRPForSequenceClassification,
        FalconMambaLRPForCausalLM,
        FalconMambaLRPForSequenceClassification,
        GraniteMoeHybridLRPForCausalLM,
        GraniteMoeHybridLRPForSequenceClassification,
        JambaLRPForCausalLM,
        JambaLRPForSequenceClassification,
        Mamba2LRPForCausalLM,
        Mamba2LRPForSequenceClassification,
        MambaLRPForCausalLM,
        MambaLRPForSequenceClassification,
        NemotronHLRPForCausalLM,
        NemotronHLRPForSequenceClassification,
        Zamba2LRPForCausalLM,
        Zamba2LRPForSequenceClassification,
        ZambaLRPForCausalLM,
        ZambaLRPForSequenceClassification,
    )
    from hf_mambalrp.models.explainable_delta import (
        BailingHybridLRPForCausalLM,
        BailingHybridLRPForSequenceClassification,
        KimiLinearLRPForCausalLM,
        KimiLinearLRPForSequenceClassification,
        Lfm2LRPForCausalLM,
        Lfm2LRPForSequenceClassification,
        Lfm2MoeLRPForCausalLM,
        Lfm2MoeLRPForSequenceClassification,
        OlmoHybridLRPForCausalLM,
        OlmoHybridLRPForSequenceClassification,
        Qwen3_5LRPForCausalLM,
        Qwen3_5LRPForSequenceClassification,
        Qwen3_5MoeLRPForCausalLM,
        Qwen3_5MoeLRPForSequenceClassification,
        Qwen3NextLRPForCausalLM,
        Qwen3NextLRPForSequenceClassification,
    )
    from hf_mambalrp.models.explainable_linear import (
        MiniMaxLRPForCausalLM,
        MiniMaxLRPForSequenceClassification,
        RecurrentGemmaLRPForCausalLM,
        RecurrentGemmaLRPForSequenceClassification,
    )
    from hf_mambalrp.models.given import make_explainable
    from hf_mambalrp.models.mixin import MambaLRPMixin
    from hf_mambalrp.models.vim.configuration import VimConfig
    from hf_mambalrp.models.vim.modeling import VimForImageClassification, VimModel
    from hf_mambalrp.models.vision import VimLRPForImageClassification, VisionLRPMixin
    from hf_mambalrp.results.comparison import Comparison, compare
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

DEMO_LANGUAGE_MODEL: str = str(Path(__file__).parent / "language_demo")
"""Folder of the small Mamba-2 language model that ships with the package; works offline."""

DEMO_VISION_MODEL: str = str(Path(__file__).parent / "vision_demo")
"""Folder of the small Vision Mamba that ships with the package: it names the garments in a scene; works offline."""

_MODULES = {
    "AutoMambaLRPForCausalLM": "models.auto",
    "AutoMambaLRPForImageClassification": "models.auto",
    "AutoMambaLRPForSequenceClassification": "models.auto",
    "BailingHybridForSequenceClassification": "models.classification",
    "BailingHybridLRPForCausalLM": "models.explainable_delta",
    "BailingHybridLRPForSequenceClassification": "models.explainable_delta",
    "BambaForSequenceClassification": "models.classification",
    "BambaLRPForCausalLM": "models.explainable",
    "BambaLRPForSequenceClassification": "models.explainable",
    "Comparison": "results.comparison",
    "Conservation": "results.explanation",
    "Evaluation": "evaluation",
    "Explanation": "results.explanation",
    "FalconH1ForSequenceClassification": "models.classification",
    "FalconH1LRPForCausalLM": "models.explainable",
    "FalconH1LRPForSequenceClassification": "models.explainable",
    "FalconMambaForSequenceClassification": "models.classification",
    "FalconMambaLRPForCausalLM": "models.explainable",
    "FalconMambaLRPForSequenceClassification": "models.explainable",
    "GenerationExplanation": "results.generation_explanation",
    "GraniteMoeHybridForSequenceClassification": "models.classification",
    "GraniteMoeHybridLRPForCausalLM": "models.explainable",
    "GraniteMoeHybridLRPForSequenceClassification": "models.explainable",
    "HiddenAttention": "results.hidden_attention",
    "ImageExplanation": "results.image_explanation",
    "JambaLRPForCausalLM": "models.explainable",
    "JambaLRPForSequenceClassification": "models.explainable",
    "KimiLinearForSequenceClassification": "models.classification",
    "KimiLinearLRPForCausalLM": "models.explainable_delta",
    "KimiLinearLRPForSequenceClassification": "models.explainable_delta",
    "Lfm2ForSequenceClassification": "models.classification",
    "Lfm2LRPForCausalLM": "models.explainable_delta",
    "Lfm2LRPForSequenceClassification": "models.explainable_delta",
    "Lfm2MoeForSequenceClassification": "models.classification",
    "Lfm2MoeLRPForCausalLM": "models.explainable_delta",
    "Lfm2MoeLRPForSequenceClassification": "models.explainable_delta",
    "Mamba2ForSequenceClassification": "models.classification",
    "Mamba2LRPForCausalLM": "models.explainable",
    "Mamba2LRPForSequenceClassification": "models.explainable",
    "MambaForSequenceClassification": "models.classification",
    "MambaLRPError": "errors",
    "MambaLRPForCausalLM": "models.explainable",
    "MambaLRPForSequenceClassification": "models.explainable",
    "MambaLRPMixin": "models.mixin",
    "MiniMaxLRPForCausalLM": "models.explainable_linear",
    "MiniMaxLRPForSequenceClassification": "models.explainable_linear",
    "NemotronHForSequenceClassification": "models.classification",
    "NemotronHLRPForCausalLM": "models.explainable",
    "NemotronHLRPForSequenceClassification": "models.explainable",
    "OlmoHybridForSequenceClassification": "models.classification",
    "OlmoHybridLRPForCausalLM": "models.explainable_delta",
    "OlmoHybridLRPForSequenceClassification": "models.explainable_delta",
    "PartRelevance": "results.parts",
    "Qwen3NextLRPForCausalLM": "models.explainable_delta",
    "Qwen3NextLRPForSequenceClassification": "models.explainable_delta",
    "Qwen3_5LRPForCausalLM": "models.explainable_delta",
    "Qwen3_5LRPForSequenceClassification": "models.explainable_delta",
    "Qwen3_5MoeForSequenceClassification": "models.classification",
    "Qwen3_5MoeLRPForCausalLM": "models.explainable_delta",
    "Qwen3_5MoeLRPForSequenceClassification": "models.explainable_delta",
    "RecurrentGemmaForSequenceClassification": "models.classification",
    "RecurrentGemmaLRPForCausalLM": "models.explainable_linear",
    "RecurrentGemmaLRPForSequenceClassification": "models.explainable_linear",
    "VimConfig": "models.vim.configuration",
    "VimForImageClassification": "models.vim.modeling",
    "VimLRPForImageClassification": "models.vision",
    "VimModel": "models.vim.modeling",
    "VisionLRPMixin": "models.vision",
    "Zamba2LRPForCausalLM": "models.explainable",
    "Zamba2LRPForSequenceClassification": "models.explainable",
    "ZambaLRPForCausalLM": "models.explainable",
    "ZambaLRPForSequenceClassification": "models.explainable",
    "compare": "results.comparison",
    "create_space": "space.create",
    "evaluate_faithfulness": "evaluation",
    "evaluate_image_explanations": "evaluation",
    "explain_dataset": "datasets",
    "load": "results.loading",
    "load_explanations": "datasets",
    "make_explainable": "models.given",
    "push_explanations": "datasets",
}

__all__ = [
    "DEMO_LANGUAGE_MODEL",
    "DEMO_MODEL",
    "DEMO_VISION_MODEL",
    "AutoMambaLRPForCausalLM",
    "AutoMambaLRPForImageClassification",
    "AutoMambaLRPForSequenceClassification",
    "BailingHybridForSequenceClassification",
    "BailingHybridLRPForCausalLM",
    "BailingHybridLRPForSequenceClassification",
    "BambaForSequenceClassification",
    "BambaLRPForCausalLM",
    "BambaLRPForSequenceClassification",
    "Comparison",
    "Conservation",
    "Evaluation",
    "Explanation",
    "FalconH1ForSequenceClassification",
    "FalconH1LRPForCausalLM",
    "FalconH1LRPForSequenceClassification",
    "FalconMambaForSequenceClassification",
    "FalconMambaLRPForCausalLM",
    "FalconMambaLRPForSequenceClassification",
    "GenerationExplanation",
    "GraniteMoeHybridForSequenceClassification",
    "GraniteMoeHybridLRPForCausalLM",
    "GraniteMoeHybridLRPForSequenceClassification",
    "HiddenAttention",
    "ImageExplanation",
    "JambaLRPForCausalLM",
    "JambaLRPForSequenceClassification",
    "KimiLinearForSequenceClassification",
    "KimiLinearLRPForCausalLM",
    "KimiLinearLRPForSequenceClassification",
    "Lfm2ForSequenceClassification",
    "Lfm2LRPForCausalLM",
    "Lfm2LRPForSequenceClassification",
    "Lfm2MoeForSequenceClassification",
    "Lfm2MoeLRPForCausalLM",
    "Lfm2MoeLRPForSequenceClassification",
    "Mamba2ForSequenceClassification",
    "Mamba2LRPForCausalLM",
    "Mamba2LRPForSequenceClassification",
    "MambaForSequenceClassification",
    "MambaLRPError",
    "MambaLRPForCausalLM",
    "MambaLRPForSequenceClassification",
    "MambaLRPMixin",
    "MiniMaxLRPForCausalLM",
    "MiniMaxLRPForSequenceClassification",
    "NemotronHForSequenceClassification",
    "NemotronHLRPForCausalLM",
    "NemotronHLRPForSequenceClassification",
    "OlmoHybridForSequenceClassification",
    "OlmoHybridLRPForCausalLM",
    "OlmoHybridLRPForSequenceClassification",
    "PartRelevance",
    "Qwen3NextLRPForCausalLM",
    "Qwen3NextLRPForSequenceClassification",
    "Qwen3_5LRPForCausalLM",
    "Qwen3_5LRPForSequenceClassification",
    "Qwen3_5MoeForSequenceClassification",
    "Qwen3_5MoeLRPForCausalLM",
    "Qwen3_5MoeLRPForSequenceClassification",
    "RecurrentGemmaForSequenceClassification",
    "RecurrentGemmaLRPForCausalLM",
    "RecurrentGemmaLRPForSequenceClassification",
    "VimConfig",
    "VimForImageClassification",
    "VimLRPForImageClassification",
    "VimModel",
    "VisionLRPMixin",
    "Zamba2LRPForCausalLM",
    "Zamba2LRPForSequenceClassification",
    "ZambaLRPForCausalLM",
    "ZambaLRPForSequenceClassification",
    "__version__",
    "compare",
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

__all__ = [name for name in __all__ if has_family(family_of(name))]  # what ``import *`` can give


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        check_release(family_of(name), name)
        return getattr(import_module(f"hf_mambalrp.{_MODULES[name]}"), name)
    raise AttributeError(f"module 'hf_mambalrp' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
