"""The attention that is hidden in a mixer: how much position i reads of position j, as matrices and as row vectors."""

from hf_mambalrp.attention.matrix import Kind, Reduce, attention_matrix, checked_kind, checked_reduce, every_row
from hf_mambalrp.attention.transposed import weighted_rows
from hf_mambalrp.attention.unified import gains_of, unified_channels
from hf_mambalrp.rules.mixer import Signals

__all__ = [
    "Kind",
    "Reduce",
    "Signals",
    "attention_matrix",
    "checked_kind",
    "checked_reduce",
    "every_row",
    "gains_of",
    "unified_channels",
    "weighted_rows",
]
