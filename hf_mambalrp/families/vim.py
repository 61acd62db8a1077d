"""Vision Mamba (``VimForImageClassification``), Mamba-R with its spread class tokens, VideoMamba's image models."""

from typing import Any

from torch import nn

from hf_mambalrp.families.base import Family, Head, Neck, branch
from hf_mambalrp.families.parts import BothWays, Patches, RMSNorm


def head(model: Any, linear: nn.Module) -> Head:
    """The linear head on the class tokens, behind the neck where there is one."""
    vim = model.vim
    neck = Neck(vim.neck, RMSNorm(vim.norm_neck)) if hasattr(vim, "neck") else None
    return Head(RMSNorm(vim.norm_f), linear, positions=vim.config.class_token_positions, neck=neck)


VIM = Family(
    "vim",
    stem=lambda model: Patches(model.vim),
    layers=lambda model: [(branch(RMSNorm(b.norm), BothWays(b.mixer)),) for b in model.vim.layers],
    head=head,
)
