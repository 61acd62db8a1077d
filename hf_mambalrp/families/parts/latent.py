"""Softmax attention whose keys and values are read off a narrow latent (DeepSeek-AI 2024, section 2.1)."""

from typing import Any

import torch
from torch import Tensor

from hf_mambalrp.families.base import Step
from hf_mambalrp.families.parts.attention import Attention, Past
from hf_mambalrp.families.parts.norm import RMSNorm
from hf_mambalrp.families.parts.reading import reads
from hf_mambalrp.families.parts.rotary import Rotary
from hf_mambalrp.rules import Rules
from hf_mambalrp.rules.linear import linear


class LatentAttention(Attention):
    """``o_proj``(A v), A = softmax(scaling q k^T); of a module with ``g_proj``, D -> H, ``o_proj``([sigmoid(g)] A v).

    k_rot and c are ``kv_a_proj_with_mqa`` x; of every head [k_nope, v] = ``kv_b_proj``(``kv_a_layernorm`` c) and
    k = [k_nope, k_rot]; q = [q_nope, q_rot] is ``q_proj`` x, or ``q_b_proj``(``q_a_layernorm``(``q_a_proj`` x)).

    Args:
        module: the module.
        rotary: turns q_rot and k_rot by positions, whose pairs are neighbours; None where attention has no positions,
            as Kimi's.
    """

    def __init__(self, module: Any, rotary: Any = None) -> None:
        self.module = m = reads(module, "kv_a_proj_with_mqa", "kv_a_layernorm", "kv_b_proj", "o_proj", "num_heads")
        self.out, self.latent = m.o_proj, RMSNorm(m.kv_a_layernorm)
        self.window = None
        self.rotary = None if rotary is None else Rotary(rotary)
        self.width, self.number = m.num_heads * m.v_head_dim, int(m.num_heads)
        narrow = getattr(m, "q_a_proj", None)
        self.of_q = None if narrow is None else RMSNorm(m.q_a_layernorm)

    def state(self, batch: int, like: Tensor) -> Past:
        """No positions."""
        m = self.module
        return Past(*(like.new_empty(batch, 0, self.number, width) for width in (m.qk_head_dim, m.v_head_dim)))

    def kept(self, rules: Rules) -> int:
        """Queries, keys, values and output; without "cp" also what the projections' norms need."""
        m = self.module
        return (2 if rules.attention == "cp" else 3) * (self.width + self.number * int(m.qk_head_dim))

    def _signals(self, x: Tensor, step: Step) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        m, ledger, gamma, cp = self.module, step.ledger, step.rules.gamma_of("linear"), step.rules.attention == "cp"
        with torch.set_grad_enabled(torch.is_grad_enabled() and not cp):
            if self.of_q is None:
                q = linear(m.q_proj, x, ledger, gamma)
            else:
                q = linear(m.q_b_proj, self.of_q(linear(m.q_a_proj, x, ledger, gamma), step), ledger, gamma)
        q = q.unflatten(-1, (self.number, -1))
        widths = [m.kv_lora_rank, m.qk_rope_head_dim]
        c, k_rot = linear(m.kv_a_proj_with_mqa, x, ledger, gamma).split(widths, -1)
        k_rot = k_rot[:, :, None]
        if self.rotary is not None:
            q_nope, q_rot = q.split([m.qk_nope_head_dim, m.qk_rope_head_dim], -1)
            q_rot, k_rot = self.rotary(x, step, _halves(q_rot), _halves(k_rot))
            q = torch.cat([q_nope, q_rot], -1)
        kv = linear(m.kv_b_proj, self.latent(c, step), ledger, gamma).unflatten(-1, (self.number, -1))
        k_nope, v = kv.split([m.qk_nope_head_dim, m.v_head_dim], -1)
        k = torch.cat([k_nope, k_rot.expand(-1, -1, self.number, -1)], -1)
        gate = linear(m.g_proj, x, ledger)[..., None] if hasattr(m, "g_proj") else None
        return q, k.detach() if cp else k, v, gate


def _halves(pairs: Tensor) -> Tensor:
    """The firsts of all pairs, then the seconds: of neighbours what RoPE turns. Products of q and k stay the same."""
    halves: Tensor = pairs.unflatten(-1, (-1, 2)).transpose(-1, -2)
    return halves.flatten(-2)
