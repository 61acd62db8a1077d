"""The parts that networks are made of, each written once: a module of the model with its rules."""

from hf_mambalrp.families.parts.norm import RMSNorm
from hf_mambalrp.families.parts.selective import Selective
from hf_mambalrp.families.parts.ssd import SSD

__all__ = ["SSD", "RMSNorm", "Selective"]
