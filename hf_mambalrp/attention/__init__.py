"""The attention that is hidden in a mixer: how much position i reads of position j, as matrices and as row vectors."""

from hf_mambalrp.attention.conv import ConvMixing
from hf_mambalrp.attention.delta import DeltaMixing
from hf_mambalrp.attention.heads import HeadsMixing
from hf_mambalrp.attention.mamba3 import Mamba3Mixing
from hf_mambalrp.attention.matrix import (
    Direction,
    Kind,
    Part,
    Reduce,
    attention_matrix,
    checked_direction,
    checked_kind,
    checked_part,
    checked_reduce,
    weighted_rows,
)
from hf_mambalrp.attention.mixing import BothWaysMixing, CausalMixing, Gains, Mixing, ScanMixing
from hf_mambalrp.attention.rg_lru import RGLRUMixing
from hf_mambalrp.attention.selective import SelectiveMixing
from hf_mambalrp.attention.softmax import SoftmaxMixing
from hf_mambalrp.attention.ssd import SSDMixing
from hf_mambalrp.attention.unified import unified_channels

__all__ = [
    "BothWaysMixing",
    "CausalMixing",
    "ConvMixing",
    "DeltaMixing",
    "Direction",
    "Gains",
    "HeadsMixing",
    "Kind",
    "Mamba3Mixing",
    "Mixing",
    "Part",
    "RGLRUMixing",
    "Reduce",
    "SSDMixing",
    "ScanMixing",
    "SelectiveMixing",
    "SoftmaxMixing",
    "attention_matrix",
    "checked_direction",
    "checked_kind",
    "checked_part",
    "checked_reduce",
    "unified_channels",
    "weighted_rows",
]
