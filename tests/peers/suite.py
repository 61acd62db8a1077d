"""transformers' own model tests, once for a class of transformers and once for each of ours that stands in its place.

Not collected by ``make test``: ``make test-peers`` runs it through ``compare.py``, with the source archive of the
installed release on the path. What that archive leaves out is empty here: the tests of ``generate`` and of exporters.
"""

import sys
import types
import unittest

import torch

LEFT_OUT = {"tests.generation.test_utils": "GenerationTesterMixin", "tests.exporters.test_export": "ExportTesterMixin"}
for name, mixin in LEFT_OUT.items():
    module = types.ModuleType(name)
    setattr(module, mixin, type(mixin, (), {}))
    sys.modules[name] = module

from tests.test_modeling_common import ModelTesterMixin, ids_tensor  # noqa: E402
from transformers import (  # noqa: E402
    BambaConfig,
    BambaForCausalLM,
    FalconH1Config,
    FalconH1ForCausalLM,
    FalconMambaConfig,
    FalconMambaForCausalLM,
    GPT2Config,
    GPT2ForSequenceClassification,
    GraniteMoeHybridConfig,
    GraniteMoeHybridForCausalLM,
    JambaConfig,
    JambaForCausalLM,
    JambaForSequenceClassification,
    LlamaConfig,
    LlamaForSequenceClassification,
    Mamba2Config,
    Mamba2ForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    NemotronHConfig,
    NemotronHForCausalLM,
    Zamba2Config,
    Zamba2ForCausalLM,
    Zamba2ForSequenceClassification,
    ZambaConfig,
    ZambaForCausalLM,
    ZambaForSequenceClassification,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES  # noqa: E402

import hf_mambalrp  # noqa: E402
from hf_mambalrp.models.classification import CLASSIFIERS  # noqa: E402

SMALL = {"vocab_size": 99, "hidden_size": 32, "num_hidden_layers": 2, "num_labels": 3, "pad_token_id": 0}
HEADS = {"intermediate_size": 40, "num_attention_heads": 4, "num_key_value_heads": 4}
MAMBA_2 = {"mamba_n_heads": 8, "mamba_d_state": 16, "mamba_chunk_size": 8}
MAMBA_1 = {"mamba_d_state": 4, "mamba_dt_rank": 4}
LAYERS = {**SMALL, "num_hidden_layers": 3, "layers_block_type": ["mamba", "hybrid", "hybrid"]}
CONFIGS = {
    "bamba": BambaConfig(**SMALL, **HEADS, **MAMBA_2, attn_layer_indices=[1]),
    "granitemoehybrid": GraniteMoeHybridConfig(
        **SMALL,
        **HEADS,
        **MAMBA_2,
        layer_types=["mamba", "attention"],
        shared_intermediate_size=40,
        num_local_experts=4,
    ),
    "falcon_h1": FalconH1Config(**SMALL, **HEADS, **MAMBA_2, mamba_d_ssm=64, mamba_d_head=8),
    "nemotron_h": NemotronHConfig(
        **{**SMALL, "num_hidden_layers": None},
        **HEADS,
        hybrid_override_pattern="M*E",
        head_dim=8,
        mamba_num_heads=8,
        mamba_head_dim=8,
        n_groups=1,
        ssm_state_size=16,
        chunk_size=8,
        n_routed_experts=4,
        moe_intermediate_size=40,
        moe_shared_expert_intermediate_size=40,
    ),
    "jamba": JambaConfig(
        **SMALL, **HEADS, **MAMBA_1, attn_layer_period=2, attn_layer_offset=1, num_experts=4, expert_layer_offset=1
    ),
    "zamba": ZambaConfig(**LAYERS, **HEADS, **MAMBA_1),
    "zamba2": Zamba2Config(
        **LAYERS, intermediate_size=40, num_attention_heads=4, mamba_d_state=16, n_mamba_heads=8, chunk_size=8
    ),
    "mamba": MambaConfig(**SMALL),
    "falcon_mamba": FalconMambaConfig(**SMALL),
    "mamba2": Mamba2Config(**SMALL, num_heads=8, head_dim=8, state_size=16, n_groups=1, chunk_size=8),
    "gpt2": GPT2Config(vocab_size=99, n_embd=32, n_layer=2, n_head=4, num_labels=3, pad_token_id=0, n_positions=64),
    "llama": LlamaConfig(**SMALL, intermediate_size=37, num_attention_heads=4, num_key_value_heads=4),
}
FAMILIES = {"mamba": "Mamba", "falcon_mamba": "FalconMamba", "mamba2": "Mamba2"}
HYBRIDS = {"bamba": "Bamba", "granitemoehybrid": "GraniteMoeHybrid", "falcon_h1": "FalconH1", "nemotron_h": "NemotronH"}
WITH_CLASSIFIER = {"jamba": "Jamba", "zamba": "Zamba", "zamba2": "Zamba2"}

# By their names transformers' tests tell which labels a class takes; ours are looked up by the class itself elsewhere.
MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES.update({found.__name__: found.__name__ for found in CLASSIFIERS})


class Tester:
    """What transformers' tests ask of a model's own tests: a small configuration, and inputs."""

    batch_size, seq_length, hidden_size, is_training = 3, 7, 32, True

    def __init__(self, family):
        self.config = CONFIGS[family]
        self.num_hidden_layers = self.config.num_hidden_layers

    def get_config(self):
        return type(self.config)(**self.config.to_dict())

    def prepare_config_and_inputs_for_common(self):
        ids = ids_tensor([self.batch_size, self.seq_length], self.config.vocab_size).clamp(min=1)  # 0 is padding
        return self.get_config(), {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


class Common(ModelTesterMixin):
    """The tests; the class that is tested is set by :func:`tests_of`."""

    has_attentions = False
    test_all_params_have_gradient = True
    all_generative_model_classes = ()
    # It is about the sizes in this file: at most two layers, where Nemotron-H has one of each of its three kinds.
    test_num_layers_is_small = None

    def setUp(self):
        self.model_tester = Tester(self.family)


def tests_of(model_class, family):
    attributes = {"all_model_classes": (model_class,), "family": family, "__module__": __name__}
    return type(f"Test{model_class.__name__}", (Common, unittest.TestCase), attributes)


LANGUAGE_MODELS = {
    "mamba": MambaForCausalLM,
    "falcon_mamba": FalconMambaForCausalLM,
    "mamba2": Mamba2ForCausalLM,
    "bamba": BambaForCausalLM,
    "granitemoehybrid": GraniteMoeHybridForCausalLM,
    "falcon_h1": FalconH1ForCausalLM,
    "nemotron_h": NemotronHForCausalLM,
    "jamba": JambaForCausalLM,
    "zamba": ZambaForCausalLM,
    "zamba2": Zamba2ForCausalLM,
}
THEIRS = [(model_class, family) for family, model_class in LANGUAGE_MODELS.items()]
THEIRS += [(GPT2ForSequenceClassification, "gpt2"), (LlamaForSequenceClassification, "llama")]
THEIRS += [(JambaForSequenceClassification, "jamba"), (ZambaForSequenceClassification, "zamba")]
THEIRS += [(Zamba2ForSequenceClassification, "zamba2")]
OURS = [
    (getattr(hf_mambalrp, f"{name}{kind}"), family)
    for family, name in {**FAMILIES, **HYBRIDS, **WITH_CLASSIFIER}.items()
    for kind in ("LRPForCausalLM", "ForSequenceClassification", "LRPForSequenceClassification")
    if hasattr(hf_mambalrp, f"{name}{kind}")
]
globals().update({f"Test{found.__name__}": tests_of(found, family) for found, family in THEIRS + OURS})
