"""From a call of ``hidden_attention`` to its result: read the input, run layer by layer, join the matrices."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from hf_mambalrp.attention import Direction, Kind, Reduce, attention_matrix, checked_kind, checked_reduce
from hf_mambalrp.calls.explain import model_id, own_gradient_mode, versions
from hf_mambalrp.calls.inputs import TOKENIZER_EXTRAS, brief, integers
from hf_mambalrp.calls.subject import Subject
from hf_mambalrp.calls.tokens import describe
from hf_mambalrp.errors import OptionError
from hf_mambalrp.families import Network
from hf_mambalrp.families.base import Step
from hf_mambalrp.families.padding import last_attended, leading, padding_of, rolled
from hf_mambalrp.results.hidden_attention import HiddenAttention

Positions = int | list[int] | slice | None


@own_gradient_mode()
def attend(
    subject: Subject,
    inputs: Any,
    *,
    input_ids: Any,
    attention_mask: Any,
    tokenizer: Any,
    layers: int | list[int] | None,
    reduce: Reduce,
    kind: Kind,
    positions: Positions,
    check_forward: bool,
    extras: Mapping[str, Any],
) -> HiddenAttention:
    """Hidden attention of one batch; :meth:`hf_mambalrp.MambaLRPMixin.hidden_attention` documents the arguments."""
    if unknown := sorted(extras.keys() - TOKENIZER_EXTRAS):
        raise OptionError(f"hidden_attention() got {unknown}, which it does not know.")
    call = subject.begin("hidden_attention", tokenizer)
    network, tokenizers = call.network, call.tokenizers
    reduce, kind = checked_reduce(reduce), checked_kind(kind)
    wanted = checked_layers(layers, len(network.layers))
    batch = call.read(inputs, input_ids, attention_mask)
    assert batch.input_ids is not None
    mask = batch.attention_mask
    queries = query_positions(positions, mask)
    if check_forward:
        call.check_forward()

    return HiddenAttention(
        matrix=matrices(network, network.embed(batch.input_ids), mask, queries, wanted, reduce, kind),
        layers=wanted,
        positions=queries,
        kind=kind,
        tokens=describe(batch.input_ids, mask, batch, tokenizers.find()).tokens,
        input_ids=batch.input_ids,
        attention_mask=mask,
        model_id=model_id(network),
        versions=versions(),
    )


@torch.no_grad()
def matrices(
    network: Network,
    embeddings: Tensor,
    mask: Tensor,
    queries: Tensor,
    layers: list[int],
    reduce: Reduce,
    kind: Kind,
    direction: Direction = "both",
) -> Tensor:
    """Attention of the queries (B, R) in these layers. Shape: (layers, B, R, L), or (layers, B, E, R, L)."""
    shifts = leading(mask)  # without the padding that rows begin with, as they are explained
    embeddings, mask, queries = (
        rolled(embeddings, shifts),
        rolled(mask, shifts),
        (queries - shifts[:, None]) % mask.shape[1],
    )
    computed = queries.unique()  # sorted; a row of the batch may want others than its partners
    pick = torch.searchsorted(computed, queries)
    alike = len(computed) == queries.shape[1] and bool((computed == queries).all())  # in every row of the batch
    by_layer: dict[int, Tensor] = {}
    plain = network.plain_step(mask, embeddings)
    for layer, hidden in residual_streams(network, embeddings, plain, max(layers)):
        if layer not in layers:
            continue
        ((_, mixing),) = network.mixings(layer, hidden, plain)
        local = padding_of(mask, mixing.x)
        parts = [attention_matrix(mixing, local, run, reduce, kind, direction) for run in runs(computed)]
        found = torch.cat([part.float().cpu() for part in parts], -2)
        if not alike:
            index = pick.view(len(pick), *[1] * (found.dim() - 3), -1, 1)
            found = found.gather(-2, index.expand(*found.shape[:-2], -1, found.shape[-1]))
        by_layer[layer] = rolled(found, -shifts, found.dim() - 1)
    return torch.stack([by_layer[layer] for layer in layers])


def residual_streams(network: Network, hidden: Tensor, step: Step, last: int) -> Iterator[tuple[int, Tensor]]:
    """Yield each layer up to ``last`` with the residual stream before it, (B, L, D), from the embeddings on."""
    for layer, states in enumerate(network.states_of(network.initial_states(hidden))):
        yield layer, hidden
        if layer == last:
            break
        hidden, _ = network.layer(layer, hidden, states, step)


def runs(positions: Tensor) -> list[range]:
    """Sorted positions as ranges of consecutive ones."""
    found: list[range] = []
    for position in positions.tolist():
        if found and found[-1].stop == position:
            found[-1] = range(found[-1].start, position + 1)
        else:
            found.append(range(position, position + 1))
    return found


def query_positions(wanted: Positions, mask: Tensor) -> Tensor:
    """Positions of the queries in every row of the batch. Shape: (B, R).

    Raises:
        OptionError: positions that are none, outside the input, or no integers.
    """
    batch, length = mask.shape
    if wanted is None or isinstance(wanted, slice):
        try:
            positions = torch.arange(length)[slice(None) if wanted is None else wanted].expand(batch, -1)
        except (TypeError, ValueError) as error:
            raise OptionError(f"positions={wanted!r} is not allowed: {error}.") from error
    else:
        numbers = integers(wanted)
        if numbers is None or numbers.dim() > 1:
            raise OptionError(
                f"positions={brief(wanted)} is not allowed. Give an int, a list of ints, a slice or None for all."
            )
        numbers = numbers.reshape(1, -1).expand(batch, -1)
        positions = torch.where(numbers < 0, last_attended(mask)[:, None] + 1 + numbers, numbers)
    if positions.numel() == 0 or bool(((positions < 0) | (positions >= length)).any()):
        raise OptionError(
            f"positions={brief(wanted)} is not allowed for an input of {length} positions (row of the batch by row, "
            f"{brief(mask.sum(1).tolist())} tokens). Give positions from 0, or negative ones from the last token."
        )
    return positions.contiguous()


def checked_layers(layers: int | list[int] | None, number: int) -> list[int]:
    """Numbers of the layers, negative ones counted from the last. OptionError: none, or one that is not there."""
    wanted = torch.arange(number) if layers is None else integers(layers)
    found = [] if wanted is None or wanted.dim() > 1 else wanted.flatten().tolist()
    if not found or not -number <= min(found) <= max(found) < number:
        raise OptionError(
            f"layers={brief(layers)} is not allowed; this model has layers 0..{number - 1}. Give an int, a list of "
            "ints or None for all."
        )
    return [layer % number for layer in found]
