"""The oracle's linear layers, norms, MLPs and mixtures of experts: forward, and LRP by hand.

Nothing here imports the package or uses autograd. A part computes `forward(x)`, (L, D) -> (L, D), of one row without
padding, keeps what its rules need, and `backward(G, absorbed)` takes G of the output to G of the input, where G is the
modified gradient of the score: the relevance of a value is value * G. Rules:

    linear z = W x + b          G_x = W^T G_z, which is R_i = sum_j x_i W_ji / z_j R_j; the bias takes b G_z
    norm   n = w h r            r constant: G_h = G_n w r
    act    a = f(x)             identity: G_x = G_a f(x) / x, so that x G_x = a G_a
    gate   p = a b              half: G_a = b G_p / 2, G_b = a G_p / 2
    experts y = sum_k w_k E_k   router weights w_k constant
    weight y = sigmoid(g) a     sigmoid(g) constant: G_a = sigmoid(g) G_y
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

F64 = torch.float64


@dataclass
class Absorbed:
    """What does not reach the tokens."""

    biases: dict[str, Tensor] = field(default_factory=dict)
    softmax: Tensor = field(default_factory=lambda: torch.zeros((), dtype=F64))

    def bias(self, name: str, bias: Tensor, G: Tensor) -> None:
        """`bias` was added to a value whose modified gradient is `G`, (..., width)."""
        self.biases[name] = self.biases.get(name, torch.zeros((), dtype=F64)) + (bias * G).sum()


class Part(Protocol):
    def forward(self, x: Tensor) -> Tensor: ...
    def backward(self, G: Tensor, absorbed: Absorbed) -> Tensor: ...


# -- activations -------------------------------------------------------------------------------------------------------


def _gaussian_cdf(x: Tensor) -> Tensor:
    return (1 + torch.erf(x / math.sqrt(2))) / 2


def _gaussian_cdf_by_tanh(x: Tensor) -> Tensor:
    return (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2


SLOPE: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": torch.sigmoid,
    "gelu": _gaussian_cdf,
    "gelu_pytorch_tanh": _gaussian_cdf_by_tanh,
    "relu2": lambda x: x.clamp(min=0),
}
"""f(x) / x of every activation."""


# -- linear layers and norms -------------------------------------------------------------------------------------------


class Linear:
    """z = W x + b; `name` is the parameter name of b."""

    def __init__(self, weight: Tensor, bias: Tensor | None = None, name: str = ""):
        self.weight = weight.detach().to(F64)
        self.bias = None if bias is None else bias.detach().to(F64)
        self.name = name

    @classmethod
    def of(cls, module: Any, name: str, rows: slice = slice(None)) -> Linear:
        """`rows` of a torch.nn.Linear called `name`."""
        return cls(module.weight[rows], None if module.bias is None else module.bias[rows], f"{name}.bias")

    def forward(self, x: Tensor) -> Tensor:
        z = x @ self.weight.T
        return z if self.bias is None else z + self.bias

    def backward(self, G: Tensor, absorbed: Absorbed) -> Tensor:
        if self.bias is not None:
            absorbed.bias(self.name, self.bias, G)
        return G @ self.weight


class Adapted:
    """z = W x + b + U V x: a linear layer and its low-rank adapter."""

    def __init__(self, base: Linear, down: Linear, up: Linear):
        self.base, self.down, self.up = base, down, up

    def forward(self, x: Tensor) -> Tensor:
        return self.base.forward(x) + self.up.forward(self.down.forward(x))

    def backward(self, G: Tensor, absorbed: Absorbed) -> Tensor:
        return self.base.backward(G, absorbed) + self.down.backward(self.up.backward(G, absorbed), absorbed)


class Norm:
    """n = w h r, r = 1 / sqrt(mean h^2 + eps), the mean over each of `groups` equal parts of the width.

    w is 1 + weight of the norms of Qwen, which call eps `eps`.
    """

    def __init__(self, module: Any, groups: int = 1):
        self.weight, self.groups = module.weight.detach().to(F64), groups
        if hasattr(module, "variance_epsilon"):
            self.eps = module.variance_epsilon
        else:
            self.weight, self.eps = 1 + self.weight, module.eps

    def forward(self, h: Tensor) -> Tensor:
        squares = h.unflatten(-1, (self.groups, -1)).pow(2).mean(-1, keepdim=True)
        width = h.shape[-1] // self.groups
        self.r = (1 / torch.sqrt(squares + self.eps)).expand(*squares.shape[:-1], width).flatten(-2)
        return self.weight * h * self.r

    def backward(self, G: Tensor) -> Tensor:
        return G * self.weight * self.r


# -- MLPs --------------------------------------------------------------------------------------------------------------


class GatedMLP:
    """y = s_down W_down (f(s_gate W_gate x) * W_up x), biases with each linear layer."""

    def __init__(
        self,
        gate: Linear | Adapted,
        up: Linear | Adapted,
        down: Linear,
        activation: str,
        gate_multiplier: float = 1.0,
        down_multiplier: float = 1.0,
    ):
        self.gate, self.up, self.down, self.slope = gate, up, down, SLOPE[activation]
        self.gate_multiplier, self.down_multiplier = gate_multiplier, down_multiplier

    def forward(self, x: Tensor) -> Tensor:
        self.a = self.gate_multiplier * self.gate.forward(x)
        self.u = self.up.forward(x)
        return self.down_multiplier * self.down.forward(self.a * self.slope(self.a) * self.u)

    def backward(self, G: Tensor, absorbed: Absorbed) -> Tensor:
        G_product = self.down.backward(self.down_multiplier * G, absorbed)
        G_f = G_product * self.u / 2
        G_u = G_product * (self.a * self.slope(self.a)) / 2
        G_a = G_f * self.slope(self.a)
        return self.gate.backward(self.gate_multiplier * G_a, absorbed) + self.up.backward(G_u, absorbed)


class WeightedMLP:
    """y = sigmoid(W_g x) mlp(x)."""

    def __init__(self, mlp: GatedMLP, gate: Linear):
        self.mlp, self.gate = mlp, gate

    def forward(self, x: Tensor) -> Tensor:
        self.weight = torch.sigmoid(self.gate.forward(x))
        return self.weight * self.mlp.forward(x)

    def backward(self, G: Tensor, absorbed: Absorbed) -> Tensor:
        return self.mlp.backward(self.weight * G, absorbed)


class MLP:
    """y = W_down f(W_up x), biases with each linear layer."""

    def __init__(self, up: Linear, down: Linear, activation: str):
        self.up, self.down, self.slope = up, down, SLOPE[activation]

    def forward(self, x: Tensor) -> Tensor:
        self.a = self.up.forward(x)
        return self.down.forward(self.a * self.slope(self.a))

    def backward(self, G: Tensor, absorbed: Absorbed) -> Tensor:
        return self.up.backward(self.down.backward(G, absorbed) * self.slope(self.a), absorbed)


# -- mixtures of experts -----------------------------------------------------------------------------------------------

Route = Callable[[Tensor], dict[int, float]]
"""From a token's router logits (experts,) to the weights of the experts that are chosen."""


def largest(values: Sequence[float], k: int, among: Sequence[int]) -> list[int]:
    """The k indices of `among` with the largest values."""
    return sorted(among, key=lambda index: -values[index])[:k]


def softmax_of_chosen(k: int) -> Route:
    """Granite: the k largest logits, then their softmax."""

    def route(logits: Tensor) -> dict[int, float]:
        values = logits.tolist()
        chosen = largest(values, k, range(len(values)))
        terms = {index: math.exp(values[index]) for index in chosen}
        return {index: term / sum(terms.values()) for index, term in terms.items()}

    return route


def chosen_of_softmax(k: int, normalise: bool = False) -> Route:
    """Jamba: the softmax over all experts, then its k largest values; of Qwen these are divided by their sum."""

    def route(logits: Tensor) -> dict[int, float]:
        terms = [math.exp(value) for value in logits.tolist()]
        chosen = largest(terms, k, range(len(terms)))
        total = sum(terms[index] for index in chosen) if normalise else sum(terms)
        return {index: terms[index] / total for index in chosen}

    return route


def sigmoid_of_groups(
    k: int,
    groups: int,
    groups_kept: int,
    correction: Sequence[float],
    normalise: bool,
    scaling: float,
    added: float = 0.0,
) -> Route:
    """Nemotron-H, Kimi, LFM2: sigmoids; the correction only chooses, and what they are divided by has `added` in it.

    A group is worth the sum of its two largest corrected sigmoids; of the experts in the best groups the k with the
    largest corrected sigmoids are chosen. Their sigmoids, without correction, are the weights.
    """

    def route(logits: Tensor) -> dict[int, float]:
        sigmoids = [1 / (1 + math.exp(-value)) for value in logits.tolist()]
        corrected = [s + c for s, c in zip(sigmoids, correction, strict=True)]
        size = len(corrected) // groups
        members = [range(group * size, (group + 1) * size) for group in range(groups)]
        worth = [sum(corrected[index] for index in largest(corrected, 2, group)) for group in members]
        kept = [index for group in largest(worth, groups_kept, range(groups)) for index in members[group]]
        weights = {index: sigmoids[index] for index in largest(corrected, k, kept)}
        total = sum(weights.values()) + added if normalise else 1.0
        return {index: scaling * weight / total for index, weight in weights.items()}

    return route


class Experts:
    """y_t = sum_k w_k E_k(x_t), token by token; `expert(k)` makes the k-th expert."""

    def __init__(self, router: Tensor, route: Route, expert: Callable[[int], GatedMLP | MLP]):
        self.router, self.route, self.expert = router.detach().to(F64), route, expert

    def forward(self, routed_by: Tensor, x: Tensor) -> Tensor:
        """`routed_by` (L, D) chooses the experts of `x` (L, D or a latent width)."""
        self.called: list[list[tuple[float, GatedMLP | MLP]]] = []
        output = []
        for source, token in zip(routed_by, x, strict=True):
            weights = self.route(self.router @ source)
            calls = [(weight, self.expert(index)) for index, weight in weights.items()]
            terms = [weight * expert.forward(token[None])[0] for weight, expert in calls]
            output.append(torch.stack(terms).sum(0))
            self.called.append(calls)
        return torch.stack(output)

    def backward(self, G: Tensor, absorbed: Absorbed) -> Tensor:
        """G of `x`; nothing goes to `routed_by`."""
        rows = []
        for token, calls in zip(G, self.called, strict=True):
            terms = [expert.backward(weight * token[None], absorbed)[0] for weight, expert in calls]
            rows.append(torch.stack(terms).sum(0))
        return torch.stack(rows)


class MixtureOfExperts:
    """y = W_2 experts(W_1 x) + shared(x); without latent layers W_1 and W_2 are left out, without shared expert it."""

    def __init__(self, experts: Experts, latent: tuple[Linear, Linear] | None = None, shared: Part | None = None):
        self.experts, self.latent, self.shared = experts, latent, shared

    def forward(self, x: Tensor) -> Tensor:
        if self.latent is None:
            y = self.experts.forward(x, x)
        else:
            inner, outer = self.latent
            y = outer.forward(self.experts.forward(x, inner.forward(x)))
        return y if self.shared is None else y + self.shared.forward(x)

    def backward(self, G: Tensor, absorbed: Absorbed) -> Tensor:
        if self.latent is None:
            G_x = self.experts.backward(G, absorbed)
        else:
            inner, outer = self.latent
            G_x = inner.backward(self.experts.backward(outer.backward(G, absorbed), absorbed), absorbed)
        return G_x if self.shared is None else G_x + self.shared.backward(G, absorbed)
