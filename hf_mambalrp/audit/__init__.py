"""What a model has learned: the words that it relies on over a corpus, asked of the model itself."""

from hf_mambalrp.audit.auditing import audit
from hf_mambalrp.audit.effects import HE_SHE, delete_effect, swap_effect
from hf_mambalrp.audit.words import WordRow, compare, words_table
from hf_mambalrp.results.audit import Audit
from hf_mambalrp.results.audit_parts import Candidate, Change, Effect, Group, Positions, Swap

__all__ = [
    "HE_SHE",
    "Audit",
    "Candidate",
    "Change",
    "Effect",
    "Group",
    "Positions",
    "Swap",
    "WordRow",
    "audit",
    "compare",
    "delete_effect",
    "swap_effect",
    "words_table",
]
