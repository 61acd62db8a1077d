"""What parts share: the check of a module's attributes, the convolution, padding."""

from collections.abc import Iterable
from typing import Any

import torch
from accelerate.utils import align_module_device
from torch import Tensor, nn

from hf_mambalrp.families.base import Step
from hf_mambalrp.ops.conv_silu import conv_silu
from hf_mambalrp.rules import activation as activations
from hf_mambalrp.rules.adapters import effective
from hf_mambalrp.rules.constant import constant
from hf_mambalrp.rules.linear import linear


class UnreadableModule(Exception):  # noqa: N818 - becomes an error where the module's name is known
    """A module in the place of a part that lacks what the part reads."""

    def __init__(self, module: Any, missing: list[str]) -> None:
        super().__init__()
        self.module, self.missing = module, missing


class UnknownActivation(Exception):  # noqa: N818 - becomes an error where the module's name is known
    """A module with an activation that has no rule there."""

    def __init__(self, module: Any, name: str, known: list[str]) -> None:
        super().__init__()
        self.module, self.name, self.known = module, name, known


def reads(module: Any, *names: str) -> Any:
    """What computes in the place of the module, behind adapters, with the attributes of these ``names``.

    Raises:
        UnreadableModule: it lacks some.
    """
    found = effective(module)
    missing = [name for name in names if not hasattr(found, name)]
    if missing:
        raise UnreadableModule(found, missing)
    return found


def named(module: Any, *names: str) -> Any:
    """What the module has under the first of these ``names`` that it has, which differ between models.

    Raises:
        UnreadableModule: it has none.
    """
    for name in names:
        if hasattr(module, name):
            return getattr(module, name)
    raise UnreadableModule(module, [names[0]])


def factor_of(module: Any) -> activations.Factor:
    """factor(x) of the activation x factor(x) that the module has as ``act_fn`` or ``activation``.

    Raises:
        UnknownActivation: one that no rule is known of.
    """
    found = getattr(module, "act_fn", None) or module.activation
    factor = activations.factor_of(found)
    if factor is None:
        raise UnknownActivation(module, type(found).__name__, sorted(activations.FACTORS))
    return factor


def with_silu(mixer: Any) -> Any:
    """The mixer, whose kernels have SiLU built in.

    Raises:
        UnknownActivation: it has another activation.
    """
    name = getattr(mixer, "activation", "silu")
    if name not in ("silu", "swish"):
        raise UnknownActivation(mixer, name, ["silu"])
    return mixer


def in_turn(layers: Iterable[nn.Module], x: Tensor, step: Step) -> Tensor:
    """What linear layers make of x, one behind the other."""
    for layer in layers:
        x = linear(layer, x, step.ledger)
    return x


def masked(x: Tensor, mask: Tensor | None) -> Tensor:
    """Zero on padding."""
    return x if mask is None else x * mask


def wide(dtype: torch.dtype) -> torch.dtype:
    """What parameters beside matrices are held in, for signals of ``dtype``: float32 at least."""
    return torch.promote_types(dtype, torch.float32)


def convolved(
    module: nn.Conv1d, x: Tensor, earlier: Tensor, step: Step, channels: slice = slice(None)
) -> tuple[Tensor, Tensor]:
    """silu of the causal depthwise convolution, zero on padding: LRP-0, then the identity rule.

    Args:
        module: ``nn.Conv1d`` with one filter of width K for each channel.
        x: (B, L, E).
        earlier: (B, K - 1, E), the inputs before the first position; zeros at the start of a text.
        step: the step.
        channels: those of the module that ``x`` holds, E of them.

    Returns:
        u (B, L, E), and the last K - 1 inputs (B, K - 1, E), which the next chunk starts from.
    """
    dtype = wide(x.dtype)
    with align_module_device(module):
        weight = constant(module.weight, dtype)[channels, 0]
        bias = None if module.bias is None else step.ledger.enter(module.bias[channels], dtype)
    u = conv_silu(x, weight, bias, earlier, step.mask, rules=step.rules, backend=step.backend)
    kept = weight.shape[-1] - 1
    return u, torch.cat([earlier, x[:, -kept:]], 1)[:, -kept:] if kept else earlier


def taps_of(module: nn.Conv1d, channels: slice, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Taps (E, K) and bias (E,) of the convolution's channels; zeros where it has none."""
    with align_module_device(module):
        taps = constant(module.weight, dtype)[channels, 0]
        bias = taps.new_zeros(len(taps)) if module.bias is None else constant(module.bias, dtype)[channels]
    return taps, bias
