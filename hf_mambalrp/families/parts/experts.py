"""A mixture of experts: sum_k [w_k] E_k(x), the weights of the router constant where what selects is.

With w constant the sum is linear in the experts' outputs: R of the output is sum_k w_k E_k . g, which is what each E_k
gets, so none is lost and none goes to the router. No paper has this rule; it is this project's own.
"""

from typing import Any

import torch
from torch import Tensor, nn

from hf_mambalrp.families.base import State, Step
from hf_mambalrp.families.parts.mlp import GatedMLP, Positionwise
from hf_mambalrp.families.parts.reading import factor_of, reads
from hf_mambalrp.families.parts.routing import experts_of_a_token, routed
from hf_mambalrp.families.parts.stacked import Stacked
from hf_mambalrp.rules import Rules
from hf_mambalrp.rules.adapters import effective
from hf_mambalrp.rules.biases import RowLedger
from hf_mambalrp.rules.linear import linear


class _Permuted(torch.autograd.Function):
    """x[to], a permutation whose inverse is known: without it the backward would add row by row, in bfloat16."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, to: Tensor, back: Tensor) -> Tensor:
        ctx.save_for_backward(back)
        return x.index_select(0, to)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (back,) = ctx.saved_tensors
        return grad.index_select(0, back), None, None


class _Sent(torch.autograd.Function):
    """x[order // k]: a token's k copies, in the order of the experts that they go to. Shape: (T, D) -> (T k, D)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, order: Tensor, place: Tensor, k: int) -> Tensor:
        ctx.k = k
        ctx.save_for_backward(place)
        return x.index_select(0, order // k)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        (place,) = ctx.saved_tensors
        return grad.index_select(0, place).unflatten(0, (-1, ctx.k)).sum(1), None, None, None


class Experts(Positionwise):
    """sum_k [w_k] E_k(x) of the experts that :func:`routed` chose, E a gated or a plain MLP.

    Experts are modules in a list, or :class:`Stacked`: ``experts.gate_up_proj`` or ``experts.up_proj``, and
    ``experts.down_proj``; before transformers 5 ``input_linear.weight`` and ``output_linear.weight``. They stand
    between ``fc1_latent_proj`` and ``fc2_latent_proj``, where the module has these and they are linear. What every
    token goes through beside the experts is a part of its own.
    """

    kind = "experts"

    def __init__(self, module: Any) -> None:
        self.module = m = effective(module)
        experts = effective(getattr(m, "experts", None))
        self.experts: Stacked | list[GatedMLP]
        if isinstance(experts, nn.ModuleList):
            names = (("w1", "w3"), "w2") if hasattr(experts[0], "w1") else ()
            self.experts = [GatedMLP(expert, *names) for expert in experts]
        elif experts is not None:
            name = "gate_up_proj" if hasattr(experts, "gate_up_proj") else "up_proj"
            self.experts = Stacked(experts, name, experts, "down_proj", factor_of(experts))
        else:
            m = reads(m, "input_linear", "output_linear")
            self.experts = Stacked(m.input_linear, "weight", m.output_linear, "weight", factor_of(m))
        self.width = (self.experts if isinstance(self.experts, Stacked) else self.experts[0]).width
        # Expert by expert the work would be another for every input: it depends on which tokens go where.
        self.recordable = isinstance(self.experts, Stacked) and self.experts.grouped
        ends = (getattr(m, name, None) for name in ("fc1_latent_proj", "fc2_latent_proj"))
        self.latent = [None if isinstance(layer, nn.Identity) else layer for layer in ends]

    def kept(self, rules: Rules) -> int:
        """What an expert keeps, for each expert of a token."""
        return experts_of_a_token(self.module) * (2 if rules.gate and rules.silu else 5) * self.width

    def __call__(self, x: Tensor, state: State, step: Step) -> tuple[Tensor, State]:
        """(B, L, D) -> (B, L, D)."""
        before, behind = self.latent
        with torch.set_grad_enabled(torch.is_grad_enabled() and not step.rules.ssm):  # constants
            weights, numbers = routed(self.module, x.flatten(0, 1))
        read = x if before is None else linear(before, x, step.ledger)
        if isinstance(self.experts, Stacked) and self.experts.whole(read.dtype):
            mixed = self._at_once(self.experts, read.flatten(0, 1), weights, numbers, step).view_as(read)
        else:
            mixed = self._one_by_one(read, weights, numbers, step)
        return mixed if behind is None else linear(behind, mixed, step.ledger), ()

    def _at_once(self, experts: Stacked, x: Tensor, weights: Tensor, numbers: Tensor, step: Step) -> Tensor:
        """Every token k times, sorted by expert. Shape: (T, D) -> (T, D)."""
        numbers, order = numbers.flatten().sort(stable=True)
        place = torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))
        outputs = experts.all(_Sent.apply(x, order, place, weights.shape[1]), numbers, step)
        shares = weights.flatten()[order, None].to(x.dtype)
        mixed: Tensor = _Permuted.apply(shares * outputs, place, order).unflatten(0, weights.shape).sum(1)
        return mixed

    def _one_by_one(self, x: Tensor, weights: Tensor, numbers: Tensor, step: Step) -> Tensor:
        """Each expert in turn over its own tokens. Shape: (B, L, D) -> (B, L, D)."""
        tokens, outputs = [], []
        for number in numbers.unique().tolist():
            chosen, place = (numbers == number).nonzero(as_tuple=True)
            share = weights[chosen, place, None].to(x.dtype)
            outputs.append(share * self._expert(number, x, chosen, step))
            tokens.append(chosen)
        return torch.zeros_like(x).flatten(0, 1).index_add(0, torch.cat(tokens), torch.cat(outputs)).view_as(x)

    def _expert(self, number: int, x: Tensor, chosen: Tensor, step: Step) -> Tensor:
        """An expert of these tokens of (B, L, D), numbered through the batch. Shape: (T, D)."""
        if isinstance(self.experts, Stacked):
            return self.experts(number, x.flatten(0, 1)[chosen], step)
        # Row by row: what biases in it absorb is of a row, and rows send it different numbers of tokens.
        rows = chosen // x.shape[1]
        found = []
        for row in rows.unique_consecutive().tolist():
            own = chosen[rows == row] - row * x.shape[1]
            y, _ = self.experts[number](x[row, own][None], (), step._replace(ledger=RowLedger(step.ledger, row)))
            found.append(y[0])
        return torch.cat(found)
