"""The document of hidden attention: for every row a heat map of each matrix, queries down and keys across."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from hf_mambalrp.results.serialization import row_indices
from hf_mambalrp.viz.document import Block, Document, Heading, Heat, Origin, Picture, Section
from hf_mambalrp.viz.picture import spread
from hf_mambalrp.viz.wording import axis_label, label, signed, summary

if TYPE_CHECKING:
    from hf_mambalrp.results.hidden_attention import HiddenAttention

CELLS = 48
"""Queries and keys shown, at most; a longer input shows groups of consecutive tokens."""
SUMMARY_LAYERS, SUMMARY_QUERIES, SUMMARY_KEYS = 4, 3, 5
"""What the plain summary lists, at most."""
READING = (
    "Rows: the position that reads (query). Columns: the position that is read (key). "
    "Blue: positive; red with a stroke: negative."
)


def attention_document(
    attention: "HiddenAttention", layers: Sequence[int], rows: int | None, cells: int | None
) -> Document:
    """Return a section for each of the first ``rows``, with the heat maps of ``layers``, those of the last open."""
    sections, layers = [], list(dict.fromkeys(layers))
    shown = [(k, layer) for layer in layers for k, number in enumerate(attention.layers) if number == layer]
    for row in range(len(attention))[:rows]:
        blocks = _maps_of_class_tokens(attention, layers, row)
        if not blocks:
            heats = [attention_heat(attention, k, row, cells, is_open=layer == layers[-1]) for k, layer in shown]
            blocks = [Heading("Which position reads which?"), *heats]
        sections.append(Section(blocks, row, len(attention)))
    return Document(sections, origin(attention))


def _maps_of_class_tokens(attention: "HiddenAttention", layers: Sequence[int], row: int) -> list[Block]:
    """Of an image what its class token reads, layer by layer; nothing where it is not among the queries."""
    if attention.images is None or not {*attention.class_positions} & {*attention.positions[row].tolist()}:
        return []
    image, (side, stride) = attention.images[row], (attention.patch_size, attention.stride)
    blocks: list[Block] = []
    for layer in layers:
        patches = attention.class_map(layer, row)
        heat = spread(patches, side, stride, image.shape[:2])
        picture = Picture(image, heat, patches, min(side, stride), "is read with a plus sign", "with a minus sign")
        blocks += [Heading(f"What does the class token read in layer {layer}?"), picture]
    return blocks


def attention_heat(
    attention: "HiddenAttention", k: int, row: int, cells: int | None = CELLS, *, is_open: bool = True
) -> Heat:
    """Take padding out of the matrix k and group what does not fit: a cell is its group's strongest value."""
    values, tokens = matrix_of(attention, k, row), attention.tokens[row]
    keys = attention.attention_mask[row].nonzero().flatten()
    is_token = attention.attention_mask[row, attention.positions[row]] != 0
    queries = attention.positions[row, is_token]
    values = values[is_token][:, keys]
    by = [-(-len(axis) // cells) if cells else 1 for axis in (queries, keys)]
    for axis, size in enumerate(by):
        values = _strongest(values, axis, size)
    note = f"Each cell: the strongest of up to {by[0]} x {by[1]} entries; a label is its first token."
    return Heat(
        place_of(attention, k).capitalize(),
        values,
        [_name(tokens[i], size=by[0]) for i in queries[:: by[0]].tolist()],
        [_name(tokens[j], size=by[1]) for j in keys[:: by[1]].tolist()],
        READING,
        note if max(by) > 1 else "",
        is_open,
    )


def matrix_of(attention: "HiddenAttention", k: int, row: int) -> Tensor:
    """Return ``matrix[k]`` of a row (R, L), the mean over channels where there are any. IndexError: no such row."""
    found = attention.matrix[k, row_indices(row, len(attention))[0]]
    return found.mean(0) if found.dim() == 3 else found


def has_attention(attention: "HiddenAttention") -> bool:
    """Return whether softmax attention is in it, so that parts have to be told apart."""
    return "attention" in attention.parts


def place_of(attention: "HiddenAttention", k: int) -> str:
    """Return the layer that the matrix k is of, and the part where it has to be told apart."""
    return f"layer {attention.layers[k]}" + (f", {attention.parts[k]}" if has_attention(attention) else "")


def attention_summary(attention: "HiddenAttention") -> str:
    """Return what queries read most strongly, in plain lines: of the first rows of the batch and the last layers.

    Where every position is a query it is the last one that is listed, else the last few that were asked for.
    """
    made = origin(attention)
    about = ", ".join([made.name, *([f"model {made.model}"] if made.model else [])])
    return summary("HiddenAttention", len(attention), about, _summary_lines(attention))


def _summary_lines(attention: "HiddenAttention") -> Iterator[list[str]]:
    count, what = len(attention.layers), "matrices" if has_attention(attention) else "layers"
    rest = f" (of {count} {what} the last {SUMMARY_LAYERS}; map(layer) has each)" * (count > SUMMARY_LAYERS)
    for row in range(len(attention)):
        lines = [f"what a position reads most strongly{rest}"]
        for k in range(count)[-SUMMARY_LAYERS:]:
            lines += [f"{place_of(attention, k)}, {read}" for read in _reads(attention, k, row)]
        yield lines


def _reads(attention: "HiddenAttention", k: int, row: int) -> Iterator[str]:
    """Yield each listed query with its strongest keys and their signed weights."""
    names = [label(token) for token in attention.tokens[row]]
    keys = attention.attention_mask[row].nonzero().flatten()
    queries = [(r, i) for r, i in enumerate(attention.positions[row].tolist()) if attention.attention_mask[row, i]]
    asked = len(attention.positions[row]) < len(names)
    for r, i in queries[-SUMMARY_QUERIES if asked else -1 :]:
        weights = matrix_of(attention, k, row)[r, keys]
        top = weights.abs().topk(min(SUMMARY_KEYS, len(keys))).indices
        found = [
            f"“{names[j]}” {signed(w)}" for j, w in zip(keys[top].tolist(), weights[top].tolist(), strict=True) if w
        ]
        yield f"position {i} “{names[i]}”: {', '.join(found) or 'nothing'}"


def origin(attention: "HiddenAttention") -> Origin:
    """Return what was read, and of which model."""
    channels = attention.matrix.shape[2] if attention.matrix.dim() == 5 else 0
    way = "" if attention.direction == "both" else f", {attention.direction}"
    what = f"{attention.kind} attention{way}" + (f", mean of {channels} channels" if channels else "")
    return Origin(what, attention.model_id, attention.versions, role="")


def _strongest(values: Tensor, axis: int, size: int) -> Tensor:
    """The value of largest magnitude, sign kept, of every ``size`` entries along an axis."""
    parts = values.split(size, axis)
    return torch.stack([p.gather(axis, p.abs().argmax(axis, keepdim=True)).squeeze(axis) for p in parts], axis)


def _name(token: str, size: int) -> str:
    return axis_label(token) + (" …" if size > 1 else "")
