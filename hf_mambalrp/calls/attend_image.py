"""From a call of ``hidden_attention`` on pictures to its result."""

from collections.abc import Callable, Mapping
from typing import Any

import torch

from hf_mambalrp.attention import Direction, Kind, Reduce, checked_direction, checked_kind, checked_reduce
from hf_mambalrp.calls.explain import own_gradient_mode
from hf_mambalrp.calls.hidden_attention import Positions, matrices, query_positions, wanted_matrices
from hf_mambalrp.calls.image_inputs import read_images
from hf_mambalrp.calls.origin import model_id, versions
from hf_mambalrp.calls.subject import Subject
from hf_mambalrp.errors import OptionError
from hf_mambalrp.results.hidden_attention import HiddenAttention

CLASS = "[class]"
"""How a class token is called among the patches."""


@own_gradient_mode()
def attend_images(
    subject: Subject,
    images: Any,
    *,
    pixel_values: Any,
    processor: Any,
    default_processor: Callable[[], Any],
    layers: int | list[int] | None,
    reduce: Reduce,
    kind: Kind,
    direction: Direction,
    positions: Positions,
    check_forward: bool,
    extras: Mapping[str, Any],
) -> HiddenAttention:
    """Hidden attention of a batch; :meth:`hf_mambalrp.VisionLRPMixin.hidden_attention` documents the arguments."""
    if extras:
        raise OptionError(f"hidden_attention() got {sorted(extras)}, which it does not know.")
    call = subject.begin("hidden_attention", None)
    network = call.network
    reduce, kind, direction = checked_reduce(reduce), checked_kind(kind), checked_direction(direction)
    wanted = wanted_matrices(network, layers, None, reduce)
    batch = read_images(call.name, network, images, pixel_values, processor, subject.place(), default_processor)
    if check_forward:
        call.check_forward()
    embeddings = network.embed(batch.pixel_values)
    mask = torch.ones(embeddings.shape[:2], dtype=torch.int64)
    queries = query_positions(positions, mask)
    size, read = network.config.grid_size, network.head.positions or ()
    return HiddenAttention(
        matrix=matrices(network, embeddings, mask, queries, wanted, reduce, kind, direction),
        layers=[place.layer for place in wanted],
        parts=[place.mixes for place in wanted],
        positions=queries,
        kind=kind,
        tokens=[names(size, read)] * len(batch),
        input_ids=None,
        attention_mask=mask,
        model_id=model_id(network),
        versions=versions(),
        images=batch.images,
        grid=(size, size),
        patch_size=network.config.patch_size,
        stride=network.config.stride,
        class_positions=read,
        direction=direction,
    )


def names(size: int, class_positions: tuple[int, ...]) -> list[str]:
    """What stands at every position: a class token, or a patch as "row,column" from 1 on."""
    patches = iter([f"{row},{column}" for row in range(1, size + 1) for column in range(1, size + 1)])
    return [CLASS if i in class_positions else next(patches) for i in range(size**2 + len(class_positions))]
