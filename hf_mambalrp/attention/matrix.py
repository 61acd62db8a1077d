"""The attention matrix of one mixer, reduced over channels, a block of query rows at a time."""

from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn.functional import pad

from hf_mambalrp.attention.selective import every_channel, mean_of_channels
from hf_mambalrp.attention.ssd import every_head, mean_of_heads
from hf_mambalrp.attention.unified import Gains, gains_of, unified_channels
from hf_mambalrp.errors import OptionError
from hf_mambalrp.rules.mixer import Signals

Kind = Literal["raw", "unified"]
Reduce = Literal["mean", "none"] | Callable[[Tensor], Tensor]

BLOCK_ELEMENTS = 2**24
"""Of (B, E, R, L), the attention of a block of query rows in every channel (for the mean of Mamba-2 in every head)."""


def attention_matrix(s: Signals, mask: Tensor | None, rows: range, reduce: Reduce, kind: Kind) -> Tensor:
    """Attention of the queries in ``rows`` to all keys, zero where either is padding.

    Args:
        s: signals of the mixer.
        mask: (B, L, 1), zero on padding, or None.
        rows: queries, consecutive.
        reduce: "mean" over channels, "none", or a function of a block of rows (B, E, R, L) -> (B, R, L). The channels
            of raw attention of Mamba-2 are its heads, H of them.
        kind: "raw" is alpha, "unified" H (see :mod:`hf_mambalrp.attention.unified`).

    Returns:
        (B, R, L), with "none" (B, E, R, L); in the dtype and on the device of the signals.

    Raises:
        OptionError: the function returned another shape.
    """
    gains = gains_of(s, mask) if kind == "unified" else None
    parts = []
    for block in row_blocks(s, rows, reduce):
        part = _mean(s, block, gains) if reduce == "mean" else _every_channel(s, block, gains)
        part = _attended(pad(part, (0, s.x.shape[1] - block.stop)), mask, block)
        parts.append(_called(reduce, part) if callable(reduce) else part)
    return torch.cat(parts, -2)


def row_blocks(s: Signals, rows: range, reduce: Reduce) -> list[range]:
    """Consecutive blocks of rows whose attention in every channel fits the memory; the mean of Mamba-1 needs none."""
    if reduce == "mean" and s.A.dim() == 2:
        return [rows]
    batch, length, inner = s.dt.shape if reduce == "mean" else s.x.shape
    size = max(1, BLOCK_ELEMENTS // (batch * length * inner))
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def checked_reduce(reduce: Reduce) -> Reduce:
    """Raise :class:`OptionError` unless it is "mean", "none" or a function."""
    if callable(reduce) or reduce in ("mean", "none"):
        return reduce
    raise OptionError(f"reduce={reduce!r} is not allowed. Give 'mean', 'none' or a function (B, E, R, L) -> (B, R, L).")


def checked_kind(kind: Kind) -> Kind:
    """Raise :class:`OptionError` for an unknown kind."""
    if kind in get_args(Kind):
        return kind
    raise OptionError(f"kind={kind!r} is not allowed; use one of {', '.join(map(repr, get_args(Kind)))}.")


def _mean(s: Signals, rows: range, gains: Gains | None) -> Tensor:
    return mean_of_channels(s, rows, gains) if s.A.dim() == 2 else mean_of_heads(s, rows, gains)


def _every_channel(s: Signals, rows: range, gains: Gains | None) -> Tensor:
    if gains is not None:
        return unified_channels(every_row(s, rows), gains, rows)
    return every_channel(s, rows) if s.A.dim() == 2 else every_head(s, rows)


def every_row(s: Signals, rows: range) -> Tensor:
    """alpha for the queries in ``rows`` in each of the E channels. Shape: (B, E, R, keys up to the last query)."""
    if s.A.dim() == 2:
        return every_channel(s, rows)
    alpha = every_head(s, rows)
    return alpha.repeat_interleave(s.x.shape[2] // alpha.shape[1], 1)


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
