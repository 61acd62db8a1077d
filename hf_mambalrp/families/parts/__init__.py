"""The parts that networks are made of, each written once: a module of the model with its rules."""

from hf_mambalrp.families.parts.both_ways import BothWays
from hf_mambalrp.families.parts.norm import RMSNorm
from hf_mambalrp.families.parts.selective import Selective
from hf_mambalrp.families.parts.ssd import SSD
from hf_mambalrp.families.parts.stems import Patches, Tokens

__all__ = ["SSD", "BothWays", "Patches", "RMSNorm", "Selective", "Tokens"]
