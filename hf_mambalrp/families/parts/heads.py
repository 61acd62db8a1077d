"""What attention reads, in heads."""

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

from hf_mambalrp.families.base import Step
from hf_mambalrp.families.parts.norm import RMSNorm
from hf_mambalrp.families.parts.reading import in_turn
from hf_mambalrp.rules.adapters import innermost
from hf_mambalrp.rules.linear import linear


class Heads:
    """norm(``module`` x + ``adapter`` x) in heads of P, with the norm of every head or of all of them.

    Args:
        module: the projection.
        width: P.
        norm: None for none.
        adapter: linear layers, one behind the other.
        gated: whether every head of the projection is [q, gate].
    """

    def __init__(
        self, module: nn.Module, width: int, norm: Any = None, adapter: Iterable[nn.Module] = (), *, gated: bool = False
    ) -> None:
        self.module, self.width, self.gated = module, width, gated
        self.norm, self.adapter = None if norm is None else RMSNorm(norm), tuple(adapter)

    @property
    def number(self) -> int:
        """H."""
        found: int = innermost(self.module).out_features // (2 * self.width if self.gated else self.width)
        return found

    def __call__(self, x: Tensor, step: Step) -> tuple[Tensor, Tensor | None]:
        """Heads (B, L, H, P) of x (B, L, D), and the gate, likewise, where there is one."""
        projected = linear(self.module, x, step.ledger, step.rules.gamma_of("linear"))
        if self.adapter:
            projected = projected + in_turn(self.adapter, x, step)
        heads, gate = projected.unflatten(-1, (self.number, -1)), None
        if self.gated:
            heads, gate = heads.chunk(2, -1)
        if self.norm is None:
            return heads, gate
        if self.norm.module.weight.shape[0] == self.width:
            return self.norm(heads, step), gate
        return self.norm(heads.flatten(2), step).unflatten(-1, (self.number, -1)), gate
