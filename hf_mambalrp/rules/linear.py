"""Linear maps under LRP-0: z_j = sum_i x_i w_ij + b_j, relevance in proportion to x_i w_ij; or under LRP-gamma.

As a modified gradient LRP-0 is the plain gradient with the weights constant; the bias keeps its share, which the ledger
records. For gamma see :mod:`hf_mambalrp.rules.gamma`. Weights are used in the dtype of the activations (float32 for a
half-precision model), cast when used.
"""

from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hf_mambalrp.errors import OptionError
from hf_mambalrp.rules.biases import BiasLedger
from hf_mambalrp.rules.constant import WHOLE, Product, Weight, constant
from hf_mambalrp.rules.gamma import gamma_linear
from hf_mambalrp.rules.offload import loaded
from hf_mambalrp.rules.quantised import bias_of, dequantised, is_quantised
from hf_mambalrp.rules.twin import in_evaluation, is_hooked


class NoGradient(Exception):  # noqa: N818 - becomes an error where the layer's name is known
    """A layer behind which relevance would be lost; who knows its name raises a ``DetachedLayerError``."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module


class _LinearMap(torch.autograd.Function):
    """x W^T with constant W: keeps neither the input nor a loaded, cast or dequantised copy of the weight."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Weight, product: Product) -> Tensor:
        ctx.weight, ctx.product = weight, product
        return product.forward(x, weight(x.dtype))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return ctx.product.transposed(grad, ctx.weight(grad.dtype)), None, None


class _LinearParts(torch.autograd.Function):
    """x W_k^T for several constant W_k: the transposed products are summed while they are computed."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weights: Sequence[Weight]) -> tuple[Tensor, ...]:
        ctx.weights, ctx.shape = weights, x.shape
        ctx.set_materialize_grads(False)  # of a part that is constant there is none
        return tuple(F.linear(x, weight(x.dtype)) for weight in weights)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, None]:
        total: Tensor | None = None
        for grad, weight in zip(grads, ctx.weights, strict=True):
            if grad is not None:
                rows, W = grad.reshape(-1, grad.shape[-1]), weight(grad.dtype)
                total = rows @ W if total is None else total.addmm_(rows, W)
        return None if total is None else total.view(ctx.shape), None


def linear(module: nn.Module, x: Tensor, ledger: BiasLedger | None = None, gamma: float = 0.0) -> Tensor:
    """LRP-0, or with a ``gamma`` LRP-gamma, through a linear layer. Shape: (B, L, F_in) -> (B, L, F_out).

    A plain ``nn.Linear`` is applied by its weight, a quantised layer by the weight that it stands for. Anything else in
    its place (LoRA, a layer with hooks) is called as it is, in evaluation mode, so that the model's own forward is what
    is explained.

    Without a ledger the layer is on no content path, so its bias is not recorded.

    Raises:
        NoGradient: a layer that is called, and whose output does not depend on its input through differentiable
            operations.
        OptionError: gamma for a layer that is called, whose weights are not known.
    """
    if is_plain(module):
        with loaded(module):
            bias = _entered(bias_of(module), x.dtype, ledger)
        return linear_map(x, _weight(module), bias, gamma)
    if gamma:
        raise OptionError(
            f"gamma={gamma} acts on linear layers (gamma_on) and needs their weights, and this model has a "
            f"{type(module).__name__} in the place of one. Merge adapters into the model and take hooks out first, or "
            "leave 'linear' out of gamma_on."
        )
    return _called(module, x, ledger)


def _entered(bias: Tensor | None, dtype: torch.dtype, ledger: BiasLedger | None) -> Tensor | None:
    """The bias, recorded where there is a ledger; of an offloaded layer, while its weights are there."""
    if bias is None:
        return None
    return constant(bias, dtype) if ledger is None else ledger.enter(bias, dtype)


def linear_map(
    x: Tensor, weight: Weight, bias: Tensor | None = None, gamma: float = 0.0, product: Product = WHOLE
) -> Tensor:
    """x W^T + b under LRP-0, or with a ``gamma`` LRP-gamma; a bias that is recorded has one copy a row.

    Shape: (..., F_in) -> (..., F_out).
    """
    if gamma:
        return gamma_linear(x, weight, bias, gamma, product)
    y: Tensor = _LinearMap.apply(x, weight, product)
    return y if bias is None else y + bias


def _called(module: nn.Module, x: Tensor, ledger: BiasLedger | None) -> Tensor:
    """An affine layer of unknown parts, y = W x + c: of zeros it returns c, the biases of all its parts together."""
    own = getattr(module, "weight", None)
    dtype = own.dtype if isinstance(own, Tensor) and own.is_floating_point() else x.dtype
    layer = in_evaluation(module)
    if not (torch.is_grad_enabled() and x.requires_grad):
        plain: Tensor = layer(x.to(dtype)).to(x.dtype)
        return plain
    recorded = None if ledger is None else ledger.enter(_biases_of(module, layer, x, dtype), x.dtype)
    y: Tensor = layer(x.to(dtype)).to(x.dtype)
    if not y.requires_grad:
        raise NoGradient(module)
    return y if recorded is None else y + (recorded - recorded.detach())  # zero: the layer has added its biases already


def _biases_of(module: nn.Module, layer: nn.Module, x: Tensor, dtype: torch.dtype) -> Tensor:
    """What the layer returns of zeros: (1, 1, F_out), or (B, L, F_out) of one with hooks, which may read positions."""
    hooked = any(map(is_hooked, module.modules()))
    with torch.no_grad():
        biases: Tensor = layer(
            torch.zeros_like(x, dtype=dtype) if hooked else x.new_zeros(1, 1, x.shape[-1], dtype=dtype)
        )
    return biases.nan_to_num(0.0, 0.0, 0.0)


def linear_parts(module: Any, x: Tensor, sizes: Sequence[int], ledger: BiasLedger, gamma: float = 0.0) -> list[Tensor]:
    """A linear layer whose output is several signals side by side, (B, L, size) each.

    By rows of the weight, each signal is a tensor of its own: a slice of the whole output would be read with gaps, its
    gradient would have to be put together again, and a block twice as large as all others fragments the heap.
    """
    if not is_plain(module) or is_quantised(module):
        return list(linear(module, x, ledger, gamma).split_with_sizes(sizes, -1))
    ends = list(accumulate(sizes))
    rows = [slice(end - size, end) for end, size in zip(ends, sizes, strict=True)]
    with loaded(module):
        parts = [None] * len(rows) if module.bias is None else module.bias.split(sizes)
        biases = [_entered(bias, x.dtype, ledger) for bias in parts]
    weights = [_weight(module, part) for part in rows]
    if gamma:
        return [gamma_linear(x, *both, gamma, WHOLE) for both in zip(weights, biases, strict=True)]
    products = _LinearParts.apply(x, weights)
    return [y if bias is None else y + bias for y, bias in zip(products, biases, strict=True)]


def linear_part(module: Any, x: Tensor, rows: slice) -> Tensor:
    """These outputs of a plain layer, as :func:`linear_parts` has them: (B, L, F_in) -> (B, L, size)."""
    y = F.linear(x, _weight(module, rows)(x.dtype))
    with loaded(module):
        return y if module.bias is None else y + constant(module.bias, x.dtype)[rows]


def linear_without_bias(module: nn.Module) -> Callable[[Tensor], Tensor]:
    """A linear layer without its bias, as a function. Shape: (..., F_in) -> (..., F_out)."""

    def product(x: Tensor) -> Tensor:
        rows = x.reshape(1, -1, x.shape[-1])
        found: Tensor = linear(module, rows) - linear(module, torch.zeros_like(rows[:, :1]))
        return found.view(*x.shape[:-1], -1)

    return product


def _weight(module: Any, rows: slice | None = None) -> Weight:
    """The weight or rows of it, read each time they are used: an offloaded one is on its device no longer than that."""
    quantised = is_quantised(module)

    def read(dtype: torch.dtype) -> Tensor:
        with loaded(module):
            if quantised:
                return dequantised(module, dtype)
            weight: Tensor = module.weight.detach()
            return (weight if rows is None else weight[rows]).to(dtype)

    return read


def is_plain(module: nn.Module) -> bool:
    """Whether its forward is the product with its weight, or accelerate's, which only moves weights."""
    replaced = "forward" in vars(module) and not hasattr(module, "_hf_hook")
    # A parametrised layer computes its weight, and may write into itself when it does.
    own = type(module).forward is nn.Linear.forward and "weight" in module._parameters
    return (own or is_quantised(module)) and not (is_hooked(module) or replaced)
