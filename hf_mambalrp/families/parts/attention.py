"""Softmax attention over the positions before (Vaswani et al. 2017), with grouped queries, RoPE, norms and a gate.

Glossary: B batch, L length, D hidden, H heads, K heads of keys and values, P width of a head.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from hf_mambalrp.attention import SoftmaxMixing
from hf_mambalrp.families.base import Step
from hf_mambalrp.families.parts.heads import Heads
from hf_mambalrp.families.parts.reading import named, reads, scaled
from hf_mambalrp.families.parts.rotary import Rotary
from hf_mambalrp.ops.attention import Scores, attention
from hf_mambalrp.ops.attention.dispatch import BACKENDS
from hf_mambalrp.rules import Rules
from hf_mambalrp.rules.adapters import innermost
from hf_mambalrp.rules.gate import sigmoid_gate
from hf_mambalrp.rules.linear import linear, linear_without_bias


class Past(NamedTuple):
    """Keys, turned by RoPE, and values of the positions before: what a chunk of positions appends to."""

    k: Tensor
    """(B, T, K, P)."""
    v: Tensor
    """(B, T, K, P)."""


class Attention:
    """``o_proj``(A v [sigmoid(gate)]), A = softmax(scaling rope(q) rope(k)^T), and q, k, v by ``q_proj``, ``k_proj``,
    ``v_proj`` with heads of ``head_dim`` P.

    Of the module, where it has them: ``q_norm`` and ``k_norm``, or ``_layernorm``, of every head or of all;
    ``key_multiplier``; ``sliding_window``; ``attn_logit_softcapping``; a gate in ``q_proj``, whose heads are then
    [q, gate]. LFM2 calls ``o_proj`` ``out_proj``.

    Args:
        module: the module.
        rotary: the model's rotary embedding; None where attention has no positions.
        adapters: of q, k and v the linear layers, one behind the other, whose output is added to the projection's.
        window: how many positions a query reads, where the module does not say.
    """

    kind = mixes = "attention"
    backends = tuple(BACKENDS)
    causal = appends = recordable = True

    def __init__(
        self,
        module: Any,
        rotary: Any = None,
        adapters: Sequence[Iterable[nn.Module]] = (),
        window: int | None = None,
    ) -> None:
        self.module = m = reads(module, "q_proj", "k_proj", "v_proj", "head_dim")
        self.out = named(m, "o_proj", "out_proj")
        self.rotary, self.width = None if rotary is None else Rotary(rotary), int(innermost(self.out).in_features)
        self.window: int | None = getattr(m, "sliding_window", window)
        of_q, of_k, of_v = adapters or ((), (), ())
        gated = innermost(m.q_proj).out_features == 2 * self.width
        q_norm, k_norm = (getattr(m, f"{x}_norm", getattr(m, f"{x}_layernorm", None)) for x in "qk")
        self.q = Heads(m.q_proj, m.head_dim, q_norm, of_q, gated=gated)
        self.k = Heads(m.k_proj, m.head_dim, k_norm, of_k)
        self.v = Heads(m.v_proj, m.head_dim, None, of_v)

    def state(self, batch: int, like: Tensor) -> Past:
        """No positions."""
        nothing = like.new_empty(batch, 0, self.k.number, self.module.head_dim)
        return Past(nothing, nothing)

    def kept(self, rules: Rules) -> int:
        """Queries, output, gate, and keys and values; without "cp" also what the projections' norms need."""
        return (3 if rules.attention == "cp" else 5) * self.width + 2 * self.k.number * int(self.module.head_dim)

    def __call__(self, x: Tensor, state: Past, step: Step) -> tuple[Tensor, Past]:
        """Mix the normed stream over positions; the state after them is what they append."""
        rules, (q, k, v, gate) = step.rules, self._signals(x, step)
        past = state if state.k.shape[1] else None
        o = attention(q, k, v, past, self._scores(step), rules=rules, ledger=step.ledger, backend=step.backend)
        if gate is not None:
            o = sigmoid_gate(o, gate, rules)
        return linear(self.out, o.flatten(2), step.ledger, rules.gamma_of("linear")), Past(k, v)

    def mixing(self, x: Tensor, step: Step) -> SoftmaxMixing:
        """Attention as a linear map of its values."""
        with torch.no_grad():
            q, k, v, gate = self._signals(x, step)
            values = v.repeat_interleave(q.shape[2] // v.shape[2], 2)
        gate = None if gate is None else torch.sigmoid(gate).expand_as(values).flatten(2)
        return SoftmaxMixing(values.flatten(2), q, k, self._scores(step), gate, linear_without_bias(self.out))

    def _signals(self, x: Tensor, step: Step) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """q, k, values (B, L, K, P), and the gate (B, L, H, P or 1); constant where the weights of attention are."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and step.rules.attention != "cp"):
            q, k, gate = self._read(x, step)
        return q, k, self.v(x, step)[0], gate

    def _read(self, x: Tensor, step: Step) -> tuple[Tensor, Tensor, Tensor | None]:
        """q (B, L, H, P) and k (B, L, K, P), normed and turned, and the gate, as q."""
        (q, gate), (k, _) = self.q(x, step), self.k(x, step)
        k = scaled(k, getattr(self.module, "key_multiplier", 1.0))
        if self.rotary is not None:
            q, k = self.rotary(x, step, q, k)
        return q, k, gate

    def _scores(self, step: Step) -> Scores:
        m = self.module
        scaling = m.scaling if hasattr(m, "scaling") else m.head_dim**-0.5
        cap = getattr(m, "attn_logit_softcapping", None)
        return Scores(float(scaling), self.window, cap, step.keys)
