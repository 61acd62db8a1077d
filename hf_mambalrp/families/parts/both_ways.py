"""The mixer of Vision Mamba (Zhu et al. 2024, section 3.2): Mamba-1's scan along the positions and against them."""

from typing import Any

import torch
from torch import Tensor

from hf_mambalrp.attention import BothWaysMixing
from hf_mambalrp.families.base import State, Step
from hf_mambalrp.families.parts.reading import reads
from hf_mambalrp.families.parts.selective import Scan, content_and_gate
from hf_mambalrp.ops.gated_scan.dispatch import BACKENDS
from hf_mambalrp.rules import Rules
from hf_mambalrp.rules.linear import linear, linear_without_bias


class BothWays:
    """out_proj(share (scan(x, z) + flip(scan_b(flip(x), flip(z))))),  x, z = in_proj(h);  share is 1/2 or 1.

    A :class:`Scan` in each direction; the names of the second one's modules end in ``_b``. The sum is LRP-0.
    """

    kind = mixes = "ssm"
    backends = tuple(BACKENDS)
    causal, appends, recordable = False, False, True

    def __init__(self, module: Any) -> None:
        self.module = reads(module, "in_proj", "out_proj", "divide_out")
        self.along, self.against = Scan(module), Scan(module, suffix="_b")

    def state(self, batch: int, like: Tensor) -> State:
        """Nothing: what reads every position goes whole."""
        return ()

    def kept(self, rules: Rules) -> int:
        """What both scans keep."""
        return self.along.kept(rules) + self.against.kept(rules)

    def __call__(self, x: Tensor, state: State, step: Step) -> tuple[Tensor, State]:
        """Mix the normed stream over positions."""
        x, z = content_and_gate(self.module, self.along, x, step)
        along, _ = self.along(x, z, self.along.state(len(x), x), step)
        against, _ = self.against(x.flip(1), z.flip(1), self.against.state(len(x), x), step)
        p = self._share * (along + against.flip(1))
        return linear(self.module.out_proj, p, step.ledger, step.rules.gamma_of("linear")), ()

    def mixing(self, x: Tensor, step: Step) -> BothWaysMixing:
        """Both scans as linear maps of the convolutions' input, everything that multiplies it constant."""
        with torch.no_grad():
            x, z = content_and_gate(self.module, self.along, x, step)
            out = linear_without_bias(self.module.out_proj)
            along, against = self.along.mixing(x, z, out, step), self.against.mixing(x.flip(1), z.flip(1), out, step)
        return BothWaysMixing(x, out, along, against, self._share)

    @property
    def _share(self) -> float:
        return 0.5 if self.module.divide_out else 1.0
