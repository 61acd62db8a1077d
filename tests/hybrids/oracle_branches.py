"""The oracle's residual stream: what is added to it, forward and backward.

    h' = h + s sum_p out_p part_p(in_p Norm(h))                      G_h = G + Norm^T sum_p in_p part_p^T(s out_p G)
    h' = h + mamba(Norm(h + t(h, e0)))                               Zamba's hybrid layer, e0 the embeddings,
    h' = h + Norm(part(h))                                           OLMo-Hybrid's attention layers
    h' = a Norm(h) + s part(Norm(h))                                 MiniMax
    t(h, e0) = W_linear mlp(Norm(attention(Norm([h, e0]))))          with the shared transformer in it

G is the modified gradient; a ^T is the backward of a part under its rules.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from oracle_parts import Absorbed, GatedMLP, Linear, Norm, Part
from oracle_softmax import Attention
from torch import Tensor


@dataclass(frozen=True)
class Scaled:
    """out * part(in * x)."""

    part: Part
    scale_in: float = 1.0
    scale_out: float = 1.0


@dataclass
class Branch:
    """h' = h + scale * sum_p out_p part_p(in_p Norm(h))."""

    norm: Norm
    parts: dict[str, Scaled]
    scale: float = 1.0
    behind: bool = False
    """h' = h + Norm(part(h)) instead, of one part without factors."""
    past: float | None = None
    """The factor a of h' = a Norm(h) + scale * sum_p out_p part_p(in_p Norm(h)) instead."""

    def forward(self, h: Tensor, _embeddings: Tensor) -> Tensor:
        self.h = h
        if self.behind:
            (only,) = self.parts.values()
            return h + self.norm.forward(only.part.forward(h))
        u = self.norm.forward(h)
        outputs = [p.scale_out * p.part.forward(p.scale_in * u) for p in self.parts.values()]
        return (h if self.past is None else self.past * u) + self.scale * torch.stack(outputs).sum(0)

    def backward(self, G: Tensor, absorbed: Absorbed) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """G of h and of the embeddings, and the relevance that the skip and each part pass down to h, (L,)."""
        by_path = {"skip": G if self.past is None else self.norm.backward(self.past * G)}
        for name, p in self.parts.items():
            if self.behind:
                by_path[name] = p.part.backward(self.norm.backward(G), absorbed)
                continue
            by_path[name] = self.norm.backward(p.scale_in * p.part.backward(self.scale * p.scale_out * G, absorbed))
        relevance = {name: (self.h * G_h).sum(-1) for name, G_h in by_path.items()}
        return torch.stack(list(by_path.values())).sum(0), torch.zeros_like(G), relevance


@dataclass
class SharedBranch:
    """Zamba's hybrid layer, h' = h + mamba(Norm(h + linear(mlp(Norm(attention(Norm([h, e0]))))))).

    "mamba_decoder" is what comes down to h through the mixer's own sum, "shared_transformer" what through the shared
    transformer; what that one gives e0 is apart.
    """

    norm: Norm
    mamba: Part
    first_norm: Norm
    attention: Attention
    second_norm: Norm
    mlp: GatedMLP
    linear: Linear

    def forward(self, h: Tensor, embeddings: Tensor) -> Tensor:
        self.h = h
        u = self.attention.forward(self.first_norm.forward(torch.cat([h, embeddings], -1)))
        t = self.linear.forward(self.mlp.forward(self.second_norm.forward(u)))
        return h + self.mamba.forward(self.norm.forward(h + t))

    def backward(self, G: Tensor, absorbed: Absorbed) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        G_sum = self.norm.backward(self.mamba.backward(G, absorbed))
        G_u = self.second_norm.backward(self.mlp.backward(self.linear.backward(G_sum, absorbed), absorbed))
        G_h, G_embeddings = self.first_norm.backward(self.attention.backward(G_u, absorbed)).chunk(2, -1)
        by_path = {"skip": G, "mamba_decoder": G_sum, "shared_transformer": G_h}
        relevance = {name: (self.h * path).sum(-1) for name, path in by_path.items()}
        return G + G_sum + G_h, G_embeddings, relevance


@dataclass(frozen=True)
class Network:
    embedding: Tensor  # (V, D)
    embedding_multiplier: float
    layers: list[list[Branch | SharedBranch]]
    norm: Norm
    head: Linear
    head_multiplier: float
    cap: float | None = None
    """c of logits c tanh(z / c), which have the identity rule."""
