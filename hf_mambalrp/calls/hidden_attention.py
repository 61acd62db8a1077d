"""From a call of ``hidden_attention`` to its result: read the input, run layer by layer, join the matrices."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from hf_mambalrp.attention import (
    Direction,
    Kind,
    Part,
    Reduce,
    attention_matrix,
    checked_kind,
    checked_part,
    checked_reduce,
)
from hf_mambalrp.calls.explain import own_gradient_mode
from hf_mambalrp.calls.inputs import TOKENIZER_EXTRAS, brief, integers
from hf_mambalrp.calls.origin import model_id, versions
from hf_mambalrp.calls.subject import Subject
from hf_mambalrp.calls.tokens import describe
from hf_mambalrp.errors import OptionError
from hf_mambalrp.families import Network
from hf_mambalrp.families.base import is_mixer
from hf_mambalrp.families.padding import last_attended, leading, padding_of, rolled
from hf_mambalrp.results.hidden_attention import HiddenAttention
from hf_mambalrp.runs.progress import patient_bar

Positions = int | list[int] | slice | None


class Place(NamedTuple):
    """Where a matrix is read off."""

    layer: int
    number: int
    """Of what mixes positions in the layer, from 0."""
    mixes: str
    """"ssm", "delta", "conv", "linear" or "attention"."""


@own_gradient_mode()
def attend(
    subject: Subject,
    inputs: Any,
    *,
    input_ids: Any,
    attention_mask: Any,
    tokenizer: Any,
    layers: int | list[int] | None,
    part: Part | None,
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
    wanted = wanted_matrices(network, layers, checked_part(part), reduce)
    batch = call.read(inputs, input_ids, attention_mask)
    assert batch.input_ids is not None
    mask = batch.attention_mask
    queries = query_positions(positions, mask)
    if check_forward:
        call.check_forward()

    return HiddenAttention(
        matrix=matrices(network, network.embed(batch.input_ids), mask, queries, wanted, reduce, kind),
        layers=[place.layer for place in wanted],
        parts=[place.mixes for place in wanted],
        positions=queries,
        kind=kind,
        tokens=describe(batch.input_ids, mask, batch, tokenizers.vocabulary()).tokens,
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
    wanted: list[Place],
    reduce: Reduce,
    kind: Kind,
    direction: Direction = "both",
) -> Tensor:
    """Attention of the queries (B, R) in these parts of layers. Shape: (M, B, R, L), or (M, B, E, R, L)."""
    shifts = leading(mask)  # without the padding that rows begin with, as they are explained
    embeddings, mask, queries = (
        rolled(embeddings, shifts),
        rolled(mask, shifts),
        (queries - shifts[:, None]) % mask.shape[1],
    )
    computed = queries.unique()  # sorted; a row of the batch may want others than its partners
    pick = torch.searchsorted(computed, queries)
    alike = len(computed) == queries.shape[1] and bool((computed == queries).all())  # in every row of the batch
    by_place: dict[Place, Tensor] = {}
    plain = network.plain_step(mask, embeddings)
    layers = patient_bar(range(max(wanted).layer + 1), "hidden attention", "layer")
    for layer, hidden in zip(layers, network.streams(embeddings, plain), strict=False):
        if all(place.layer != layer for place in wanted):
            continue
        for number, ((_, _, mixes), mixing) in enumerate(network.mixings(layer, hidden, plain)):
            place = Place(layer, number, mixes)
            if place not in wanted:
                continue
            local = padding_of(mask, mixing.x)
            parts = [attention_matrix(mixing, local, run, reduce, kind, direction) for run in runs(computed)]
            found = torch.cat([part.float().cpu() for part in parts], -2)
            if not alike:
                index = pick.view(len(pick), *[1] * (found.dim() - 3), -1, 1)
                found = found.gather(-2, index.expand(*found.shape[:-2], -1, found.shape[-1]))
            by_place[place] = rolled(found, -shifts, found.dim() - 1)
    return torch.stack([by_place[place] for place in wanted])


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


def wanted_matrices(network: Network, layers: int | list[int] | None, part: Part | None, reduce: Reduce) -> list[Place]:
    """The places of the matrices that are asked for.

    Raises:
        OptionError: layers that are not there or have no such part; with reduce="none" parts of both kinds.
    """
    mixers = [
        [term.part.mixes for branch in layer for term in branch.terms if is_mixer(term.part)]
        for layer in network.layers
    ]
    by_layer = [
        [Place(layer, number, mixes) for number, mixes in enumerate(found) if part in (None, mixes)]
        for layer, found in enumerate(mixers)
    ]
    numbers = checked_layers(layers, len(by_layer))
    what = "mixes positions" if part is None else f"is {part!r}"
    if not any(by_layer):
        there = sorted({mixes for found in mixers for mixes in found})
        raise OptionError(f"part={part!r} is not allowed; what mixes positions in this model is {there}.")
    missing = [] if layers is None else [number for number in numbers if not by_layer[number]]
    if missing:
        having = [number for number, found in enumerate(by_layer) if found]
        raise OptionError(
            f"layers={brief(layers)} is not allowed: nothing in layer {missing[0]} {what}. The layers with such a part "
            f"are {brief(having)}; leave layers out for all of them."
        )
    wanted = [place for number in numbers for place in by_layer[number]]
    if reduce == "none" and len({place.mixes for place in wanted}) > 1:
        raise OptionError(
            "reduce='none' keeps every channel or head, of which 'ssm' and 'attention' have their own. Ask for one of "
            "them: part='ssm' or part='attention'."
        )
    return wanted


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
