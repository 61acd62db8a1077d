"""The parts that networks are made of, each written once: a module of the model with its rules."""

from hf_mambalrp.families.parts.attention import Attention
from hf_mambalrp.families.parts.both_ways import BothWays
from hf_mambalrp.families.parts.delta import DeltaNet
from hf_mambalrp.families.parts.experts import Experts
from hf_mambalrp.families.parts.latent import LatentAttention
from hf_mambalrp.families.parts.lightning import Lightning
from hf_mambalrp.families.parts.mamba3 import Mamba3
from hf_mambalrp.families.parts.mlp import MLP, GatedMLP, WeightedMLP
from hf_mambalrp.families.parts.norm import RMSNorm, normed_by
from hf_mambalrp.families.parts.rg_lru import RGLRU
from hf_mambalrp.families.parts.selective import Selective
from hf_mambalrp.families.parts.selective_heads import SelectiveHeads
from hf_mambalrp.families.parts.shared import SharedBlock, adapter_of
from hf_mambalrp.families.parts.short_conv import ShortConv
from hf_mambalrp.families.parts.ssd import SSD
from hf_mambalrp.families.parts.stems import Patches, Tokens

__all__ = [
    "MLP",
    "RGLRU",
    "SSD",
    "Attention",
    "BothWays",
    "DeltaNet",
    "Experts",
    "GatedMLP",
    "LatentAttention",
    "Lightning",
    "Mamba3",
    "Patches",
    "RMSNorm",
    "Selective",
    "SelectiveHeads",
    "SharedBlock",
    "ShortConv",
    "Tokens",
    "WeightedMLP",
    "adapter_of",
    "normed_by",
]
