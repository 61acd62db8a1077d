"""What a mixer projects out of a narrow stream: computed again in the backward on a GPU, not kept until then."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor

from hf_mambalrp.families.base import FUSED, Step
from hf_mambalrp.families.parts.reading import masked
from hf_mambalrp.ops.recompute import computed_again
from hf_mambalrp.rules.linear import is_plain, linear_part
from hf_mambalrp.rules.quantised import is_quantised

NARROW = 1024
"""The widest stream D that counts: to project it again takes about a tenth of the time of an explanation, or less.

What is projected is two of the three tensors that a mixer keeps, each twice as wide as the stream, which is kept for
them: half of its memory. The product of a channel grows with D, all else does not: 8 % on an H200 at 768, 14 % at 2560.
"""


@contextmanager
def projected_again(module: Any, x: Tensor, parts: Sequence[Tensor], step: Step) -> Iterator[None]:
    """Operations inside that would keep ``parts`` for their backward compute them again there, if x is narrow.

    Args:
        module: the linear layer that the parts are outputs of, side by side from its first on.
        x: (B, L, D), what it reads before padding is masked.
        parts: (B, L, size) each; the caller holds them until the end.
        step: the step.
    """
    with ExitStack() as stack:
        if step.backend in FUSED and x.shape[-1] <= NARROW and is_plain(module) and not is_quantised(module):
            read, start = x.detach(), 0
            for part in parts:
                rows = slice(start, start + part.shape[-1])
                stack.enter_context(computed_again(part, partial(_projected, module, read, rows, step.mask)))
                start = rows.stop
        yield


def _projected(module: Any, x: Tensor, rows: slice, mask: Tensor | None) -> Tensor:
    with torch.no_grad():
        return linear_part(module, masked(x, mask), rows)
