"""The model families: for each a table of which module plays which role and which rule it gets."""

from hf_mambalrp.families.bailing_hybrid import BAILING_HYBRID
from hf_mambalrp.families.bamba import BAMBA
from hf_mambalrp.families.base import Family
from hf_mambalrp.families.falcon_h1 import FALCON_H1
from hf_mambalrp.families.falcon_mamba import FALCON_MAMBA
from hf_mambalrp.families.granite import GRANITE
from hf_mambalrp.families.jamba import JAMBA
from hf_mambalrp.families.kimi_linear import KIMI_LINEAR
from hf_mambalrp.families.lfm2 import LFM2, LFM2_MOE
from hf_mambalrp.families.mamba import MAMBA
from hf_mambalrp.families.mamba2 import MAMBA2
from hf_mambalrp.families.minimax import MINIMAX
from hf_mambalrp.families.nemotron_h import NEMOTRON_H
from hf_mambalrp.families.network import Network
from hf_mambalrp.families.olmo_hybrid import OLMO_HYBRID
from hf_mambalrp.families.qwen3_next import QWEN3_5, QWEN3_5_MOE, QWEN3_NEXT
from hf_mambalrp.families.recurrent_gemma import RECURRENT_GEMMA
from hf_mambalrp.families.vim import VIM
from hf_mambalrp.families.zamba import ZAMBA
from hf_mambalrp.families.zamba2 import ZAMBA2

FAMILIES: dict[str, Family] = {
    family.model_type: family
    for family in (
        *(MAMBA, FALCON_MAMBA, MAMBA2, VIM),
        *(BAMBA, GRANITE, FALCON_H1, NEMOTRON_H, JAMBA, ZAMBA2, ZAMBA),
        *(QWEN3_NEXT, QWEN3_5, QWEN3_5_MOE, OLMO_HYBRID, KIMI_LINEAR, BAILING_HYBRID, LFM2, LFM2_MOE),
        *(MINIMAX, RECURRENT_GEMMA),
    )
}
"""By ``config.model_type``."""

__all__ = ["FAMILIES", "Family", "Network"]
