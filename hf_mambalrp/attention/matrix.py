"""The attention matrix of one mixer, reduced over channels, a block of query rows at a time."""

from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn.functional import pad

from hf_mambalrp.attention.mixing import CausalMixing, Gains, Mixing
from hf_mambalrp.attention.unified import unified_channels
from hf_mambalrp.errors import OptionError

Kind = Literal["raw", "unified"]
Direction = Literal["both", "forward", "backward"]
Part = Literal["ssm", "delta", "conv", "linear", "attention"]
"""What mixes positions: a state-space mixer, a gated delta net, a short convolution, a linear recurrence of another
kind (linear attention, RG-LRU), softmax attention."""
Reduce = Literal["mean", "none"] | Callable[[Tensor], Tensor]

BLOCK_ELEMENTS = 2**24
"""How many numbers (B, E, R, L) a block of query rows has in every channel (for the mean of Mamba-2 in every head)."""


def attention_matrix(
    mixing: Mixing,
    mask: Tensor | None,
    rows: range,
    reduce: Reduce,
    kind: Kind,
    direction: Direction = "both",
) -> Tensor:
    """Attention of the queries in ``rows`` to all keys, zero where either is padding.

    Args:
        mixing: the part as a linear map; of a part of two directions both are added up.
        mask: (B, L, 1), zero on padding, or None.
        rows: queries, consecutive.
        reduce: "mean" over channels, "none", or a function of a block of rows of one direction (B, E, R, L) ->
            (B, R, L). The channels of raw attention of Mamba-2 and of softmax attention are heads, H of them.
        kind: "raw" is alpha, "unified" H (see :mod:`hf_mambalrp.attention.unified`), of softmax attention A times the
            output gate.
        direction: "forward" is what is read of positions before, "backward" of those behind; each with the position.

    Returns:
        (B, R, L), with "none" (B, E, R, L); in the dtype and on the device of the mixing.

    Raises:
        OptionError: the function returned another shape.
    """
    length = mixing.x.shape[1]
    parts = []
    for way, reverse, share in mixing.ways:
        if direction == ("forward" if reverse else "backward"):
            continue
        if reverse:
            behind = range(length - rows.stop, length - rows.start)
            backwards = None if mask is None else mask.flip(1)
            part = _one_way(way, backwards, behind, reduce, kind).flip(-1, -2)
        else:
            part = _one_way(way, mask, rows, reduce, kind)
        parts.append(part if share == 1 else share * part)
    return sum(parts[1:], parts[0])


def weighted_rows(mixing: Mixing, weights: Tensor) -> Tensor:
    """sum_i weights_i mean_d alpha_ij, for every j, in time and memory linear in the length. (B, L) -> (B, L)."""
    parts = []
    for way, reverse, share in mixing.ways:
        part = way.weighted_rows(weights.flip(1)).flip(1) if reverse else way.weighted_rows(weights)
        parts.append(share * part)
    return sum(parts[1:], parts[0])


def _one_way(mixing: CausalMixing, mask: Tensor | None, rows: range, reduce: Reduce, kind: Kind) -> Tensor:
    gains = mixing.gains(mask) if kind == "unified" else None
    parts = []
    for block in _row_blocks(mixing, rows, reduce):
        part = mixing.mean(block, gains) if reduce == "mean" else _every_channel(mixing, block, gains)
        part = _attended(pad(part, (0, mixing.x.shape[1] - block.stop)), mask, block)
        parts.append(_called(reduce, part) if callable(reduce) else part)
    return torch.cat(parts, -2)


def _row_blocks(mixing: CausalMixing, rows: range, reduce: Reduce) -> list[range]:
    """Consecutive blocks of rows whose attention in every channel fits the memory."""
    elements = mixing.mean_elements() if reduce == "mean" else mixing.x.numel()
    size = max(1, BLOCK_ELEMENTS // elements) if elements else len(rows)
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def checked_reduce(reduce: Reduce) -> Reduce:
    """Raise :class:`OptionError` unless it is "mean", "none" or a function."""
    if callable(reduce) or reduce in ("mean", "none"):
        return reduce
    raise OptionError(f"reduce={reduce!r} is not allowed. Give 'mean', 'none' or a function (B, E, R, L) -> (B, R, L).")


def checked_direction(direction: Direction) -> Direction:
    """Raise :class:`OptionError` for an unknown direction."""
    if direction in get_args(Direction):
        return direction
    raise OptionError(
        f"direction={direction!r} is not allowed; use one of {', '.join(map(repr, get_args(Direction)))}."
    )


def checked_part(part: Part | None) -> Part | None:
    """Raise :class:`OptionError` for an unknown part; None is all."""
    if part is None or part in get_args(Part):
        return part
    raise OptionError(
        f"part={part!r} is not allowed; use one of {', '.join(map(repr, get_args(Part)))}, or None for all that mix "
        "positions."
    )


def checked_kind(kind: Kind) -> Kind:
    """Raise :class:`OptionError` for an unknown kind."""
    if kind in get_args(Kind):
        return kind
    raise OptionError(f"kind={kind!r} is not allowed; use one of {', '.join(map(repr, get_args(Kind)))}.")


def _every_channel(mixing: CausalMixing, rows: range, gains: Gains | None) -> Tensor:
    return mixing.alpha(rows) if gains is None else unified_channels(mixing.every_channel(rows), gains, rows)


def _attended(part: Tensor, mask: Tensor | None, rows: range) -> Tensor:
    """Zero in rows and columns of padding. Shape: (B, R, L) or (B, E, R, L)."""
    if mask is None:
        return part
    both = mask[:, rows.start : rows.stop] * mask.transpose(1, 2)  # (B, R, L)
    return part * (both if part.dim() == 3 else both[:, None])


def _called(reduce: Callable[[Tensor], Tensor], part: Tensor) -> Tensor:
    found, expected = reduce(part), (len(part), *part.shape[2:])
    if not isinstance(found, Tensor) or found.shape != expected:
        got = f"shape {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
        raise OptionError(
            f"The reduce function returned {got} for a block of rows {tuple(part.shape)}; it must return {expected}, "
            "for example lambda block: block.amax(1)."
        )
    return found
