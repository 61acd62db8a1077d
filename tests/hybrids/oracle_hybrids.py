"""The slow float64 oracle of hybrid language models: forward and LRP by hand, branch by branch.

`explain(model, ids)` reads a transformers model (`oracle_families`) as embeddings, layers of branches
(`oracle_branches`) and a head; the parts and their rules are in `oracle_parts`, `oracle_softmax` and `oracle_ssm`.
Nothing here imports the package or uses autograd. G is the modified gradient: the relevance of a value is value * G.

It explains one row without padding; rows of a padded batch are explained alone, each without its padding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from oracle_families import network_of
from oracle_parts import F64, Absorbed
from torch import Tensor


@dataclass(frozen=True)
class HybridResult:
    """All float64. For every i

        layer_relevance[i].sum() + (around + biases_by_layer + softmax_by_layer of i and later).sum() == score
        layer_relevance[0] + around.sum(0) == relevance

    and `branch_relevance` of one branch sums to the relevance of its input, which for the first branch of a layer is
    `layer_relevance` of that layer.
    """

    logits: Tensor  # (V,) at the position
    score: Tensor  # () sum_v weights_v logit_v
    relevance: Tensor  # (L,)
    biases: Tensor  # () what additive biases absorbed
    softmax: Tensor  # () what softmaxes absorbed
    layer_relevance: Tensor  # (layers + 1, L): i = residual stream before layer i, last = before the final norm
    around: Tensor  # (layers, L): what layer i gives the embeddings directly; zero but for Zamba's hybrid layers
    biases_by_layer: Tensor  # (layers + 1,), last = after the layers
    softmax_by_layer: Tensor  # (layers + 1,)
    biases_by_name: dict[str, Tensor]  # parameter name -> ()
    branch_relevance: dict[tuple[int, int, str], Tensor]  # (layer, branch, part or "skip") -> (L,)
    hidden_states: Tensor  # (layers + 1, L, D) residual stream, like layer_relevance


def explain(
    model: Any,
    ids: Tensor,
    *,
    position: int = -1,
    weights: Tensor | None = None,
    attention: str = "cp",
) -> HybridResult:
    """Explains sum_v weights_v logit_v at `position` of one row of token ids (L,); by default the largest logit."""
    network = network_of(model, attention)
    embeddings = network.embedding_multiplier * network.embedding[ids]
    streams = [embeddings]
    for layer in network.layers:
        h = streams[-1]
        for branch in layer:
            h = branch.forward(h, embeddings)
        streams.append(h)
    read = network.norm.forward(streams[-1])[position]
    logits = network.head_multiplier * network.head.forward(read[None])[0]
    slopes = torch.ones_like(logits)
    if network.cap is not None:
        slopes = network.cap * torch.tanh(logits / network.cap) / logits
        logits = slopes * logits
    if weights is None:
        weights = torch.zeros_like(logits)
        weights[logits.argmax()] = 1.0

    absorbed = [Absorbed() for _ in range(len(network.layers) + 1)]
    G_normed = torch.zeros_like(embeddings)
    G_normed[position] = network.head.backward(network.head_multiplier * (slopes * weights)[None], absorbed[-1])[0]
    G = network.norm.backward(G_normed)
    layer_relevance = [(streams[-1] * G).sum(-1)]
    around: list[Tensor] = []
    branch_relevance = {}
    for index in reversed(range(len(network.layers))):
        G_around = torch.zeros_like(embeddings)
        for number, branch in reversed(list(enumerate(network.layers[index]))):
            G, G_embeddings, relevance = branch.backward(G, absorbed[index])
            G_around = G_around + G_embeddings
            branch_relevance.update({(index, number, name): value for name, value in relevance.items()})
        layer_relevance.insert(0, (streams[index] * G).sum(-1))
        around.insert(0, (embeddings * G_around).sum(-1))

    by_name: dict[str, Tensor] = {}
    for part in absorbed:
        by_name.update(part.biases)
    biases = torch.stack([torch.stack([*part.biases.values(), torch.zeros((), dtype=F64)]).sum() for part in absorbed])
    softmax = torch.stack([part.softmax for part in absorbed])
    return HybridResult(
        logits=logits,
        score=(weights.to(F64) * logits).sum(),
        relevance=layer_relevance[0] + torch.stack(around).sum(0),
        biases=biases.sum(),
        softmax=softmax.sum(),
        layer_relevance=torch.stack(layer_relevance),
        around=torch.stack(around),
        biases_by_layer=biases,
        softmax_by_layer=softmax,
        biases_by_name=by_name,
        branch_relevance=branch_relevance,
        hidden_states=torch.stack(streams),
    )
