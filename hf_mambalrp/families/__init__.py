"""The model families: for each a table of which module plays which role and which rule it gets."""

from hf_mambalrp.families.base import Family
from hf_mambalrp.families.falcon_mamba import FALCON_MAMBA
from hf_mambalrp.families.mamba import MAMBA
from hf_mambalrp.families.mamba2 import MAMBA2
from hf_mambalrp.families.network import Network
from hf_mambalrp.families.vim import VIM

FAMILIES: dict[str, Family] = {family.model_type: family for family in (MAMBA, FALCON_MAMBA, MAMBA2, VIM)}
"""By ``config.model_type``."""

__all__ = ["FAMILIES", "Family", "Network"]
