"""Softmax attention over the positions before (Vaswani et al. 2017), with grouped queries, RoPE, norms and a gate.

Glossary: B batch, L length, D hidden, H heads, K heads of keys and values, P width of a head.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from hf_mambalrp.attention import SoftmaxMixing
from hf_mambalrp.families.base import Step
from hf_mambalrp.families.parts.norm import RMSNorm
from hf_mambalrp.families.parts.reading import reads
from hf_mambalrp.ops.attention import Scores, attention
from hf_mambalrp.ops.attention.dispatch import BACKENDS
from hf_mambalrp.rules import Rules
from hf_mambalrp.rules.adapters import innermost
from hf_mambalrp.rules.linear import linear, linear_without_bias
from hf_mambalrp.rules.twin import evaluation_twin


class Past(NamedTuple):
    """Keys, turned by RoPE, and values of the positions before: what a chunk of positions appends to."""

    k: Tensor
    """(B, T, K, P)."""
    v: Tensor
    """(B, T, K, P)."""


class Attention:
    """``o_proj``(A v [sigmoid(gate)]), A = softmax(scaling rope(q) rope(k)^T), and q, k, v by ``q_proj``, ``k_proj``,
    ``v_proj`` with heads of ``head_dim`` P.

    Of the module, where it has them: ``q_norm`` and ``k_norm``, of every head or of all; ``key_multiplier``;
    ``sliding_window``; ``attn_logit_softcapping``; a gate in ``q_proj``, whose heads are then [q, gate].

    Args:
        module: the module.
        rotary: the model's rotary embedding; None where attention has no positions.
        adapters: of q, k and v the linear layers, one behind the other, whose output is added to the projection's.
    """

    kind = mixes = "attention"
    backends = tuple(BACKENDS)
    causal = appends = recordable = True

    def __init__(self, module: Any, rotary: Any = None, adapters: Sequence[Iterable[nn.Module]] = ()) -> None:
        self.module = m = reads(module, "q_proj", "k_proj", "v_proj", "o_proj", "head_dim")
        self.rotary = None if rotary is None else evaluation_twin(rotary)  # some write into themselves
        self.adapters = adapters
        norms = (getattr(m, name, None) for name in ("q_norm", "k_norm"))
        self.norms = [None if norm is None else RMSNorm(norm) for norm in norms]
        self.width: int = innermost(m.o_proj).in_features
        self.key_width: int = innermost(m.k_proj).out_features
        self.has_gate = innermost(m.q_proj).out_features == 2 * self.width

    def state(self, batch: int, like: Tensor) -> Past:
        """No positions."""
        nothing = like.new_empty(batch, 0, self.key_width // self.module.head_dim, self.module.head_dim)
        return Past(nothing, nothing)

    def kept(self, rules: Rules) -> int:
        """Queries, output, gate, and keys and values; without "cp" also what the projections' norms need."""
        return (3 if rules.attention == "cp" else 5) * self.width + 2 * self.key_width

    def __call__(self, x: Tensor, state: Past, step: Step) -> tuple[Tensor, Past]:
        """Mix the normed stream over positions; the state after them is what they append."""
        m, rules, gamma = self.module, step.rules, step.rules.gamma_of("linear")
        with torch.set_grad_enabled(torch.is_grad_enabled() and rules.attention != "cp"):  # constants
            q, k, gate = self._read(x, step)
        v = self._projected(2, x, step).unflatten(-1, (-1, m.head_dim))
        past = state if state.k.shape[1] else None
        o = attention(q, k, v, past, self._scores(step), rules=rules, ledger=step.ledger, backend=step.backend)
        if gate is not None:
            o = o * torch.sigmoid(gate.detach() if rules.gate else gate)  # what multiplies is constant
        return linear(m.o_proj, o.flatten(2), step.ledger, gamma), Past(k, v)

    def mixing(self, x: Tensor, step: Step) -> SoftmaxMixing:
        """Attention as a linear map of its values."""
        with torch.no_grad():
            q, k, gate = self._read(x, step)
            v = self._projected(2, x, step).unflatten(-1, k.shape[2:])
            values = v.repeat_interleave(q.shape[2] // k.shape[2], 2).flatten(2)
        gate = None if gate is None else torch.sigmoid(gate).flatten(2)
        return SoftmaxMixing(values, q, k, self._scores(step), gate, linear_without_bias(self.module.o_proj))

    def _read(self, x: Tensor, step: Step) -> tuple[Tensor, Tensor, Tensor | None]:
        """q (B, L, H, P) and k (B, L, K, P), normed and turned, and the gate, as q."""
        m, gate = self.module, None
        q, k = self._projected(0, x, step), self._projected(1, x, step)
        if self.has_gate:
            q, gate = q.unflatten(-1, (-1, 2, m.head_dim)).unbind(-2)
            q = q.flatten(2)
        q, k = (self._normed(one, norm, step) for one, norm in zip((q, k), self.norms, strict=True))
        k = k * getattr(m, "key_multiplier", 1.0)
        if self.rotary is not None:
            positions = torch.arange(step.start, step.start + x.shape[1], device=x.device)
            # With the last of the text, whose length sets the frequencies of some.
            positions = torch.cat([positions, torch.full_like(positions[:1], step.length - 1)])[None]
            with torch.no_grad():
                cos, sin = (one[:, :-1, None] for one in self.rotary(x, positions))
            q, k = _turned(q, cos, sin), _turned(k, cos, sin)
        return q, k, gate

    def _projected(self, number: int, x: Tensor, step: Step) -> Tensor:
        """What the projection of q, k or v makes of x, and its adapter."""
        module = getattr(self.module, ("q_proj", "k_proj", "v_proj")[number])
        projected = linear(module, x, step.ledger, step.rules.gamma_of("linear"))
        if not self.adapters:
            return projected
        for layer in self.adapters[number]:
            x = linear(layer, x, step.ledger)
        return projected + x

    def _normed(self, x: Tensor, norm: RMSNorm | None, step: Step) -> Tensor:
        """In heads, and normed before or behind that."""
        width: int = self.module.head_dim
        of_all = norm is not None and norm.module.weight.shape[0] != width
        x = (norm(x, step) if norm is not None and of_all else x).unflatten(-1, (-1, width))
        return x if norm is None or of_all else norm(x, step)

    def _scores(self, step: Step) -> Scores:
        m = self.module
        return Scores(
            float(getattr(m, "scaling", m.head_dim**-0.5)),
            getattr(m, "sliding_window", None),
            getattr(m, "attn_logit_softcapping", None),
            step.keys,
        )


def _turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """RoPE (Su et al. 2021) on the first of a head's dimensions, as many as cos has: pairs are half of them apart."""
    turned, rest = x.split([cos.shape[-1], x.shape[-1] - cos.shape[-1]], -1)
    first, second = turned.chunk(2, -1)
    return torch.cat([turned * cos + torch.cat([-second, first], -1) * sin, rest], -1)
