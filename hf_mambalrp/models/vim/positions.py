"""Class tokens among patches, and positions of one grid for another. M patches, n class tokens, D hidden."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def among_patches(patches: Tensor, tokens: Tensor, places: Sequence[int]) -> Tensor:
    """Put token i at position ``places[i]`` of the sequence. (B, M, D), (B, n, D) -> (B, M + n, D)."""
    pieces, done = [], 0
    for i, place in enumerate(places):
        pieces += [patches[:, done : place - i], tokens[:, i : i + 1]]
        done = place - i
    return torch.cat([*pieces, patches[:, done:]], 1)


def apart(sequence: Tensor, places: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Undo :func:`among_patches`. (B, M + n, D) -> (B, M, D), (B, n, D)."""
    starts, ends = [0, *(place + 1 for place in places)], [*places, sequence.shape[1]]
    patches = torch.cat([sequence[:, start:end] for start, end in zip(starts, ends, strict=True)], 1)
    return patches, torch.cat([sequence[:, place : place + 1] for place in places], 1)


def resized(positions: Tensor, grid: tuple[int, int], new_grid: tuple[int, int]) -> Tensor:
    """Interpolate the positions of patches from one grid to another (bicubic). (1, M, D) -> (1, M', D)."""
    if new_grid == grid:
        return positions
    plane = positions.unflatten(1, grid).permute(0, 3, 1, 2)  # (1, D, rows, columns)
    wide = plane.to(torch.promote_types(plane.dtype, torch.float32))
    moved = F.interpolate(wide, size=new_grid, mode="bicubic", align_corners=False)
    return moved.flatten(2).transpose(1, 2).to(positions.dtype)
