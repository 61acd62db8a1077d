"""What a model has learned: the words that it relies on over a corpus, asked of the model itself."""

from hf_mambalrp.audit.auditing import audit
from hf_mambalrp.audit.effects import HE_SHE, Effect, delete_effect, swap_effect
from hf_mambalrp.audit.result import Audit, Candidate, Swap
from hf_mambalrp.audit.words import Change, WordRow, compare, words_table

__all__ = [
    "HE_SHE",
    "Audit",
    "Candidate",
    "Change",
    "Effect",
    "Swap",
    "WordRow",
    "audit",
    "compare",
    "delete_effect",
    "swap_effect",
    "words_table",
]
