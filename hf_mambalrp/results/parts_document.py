"""The document of relevance by part: a line for each kind, and one for each part of each layer."""

import math
from typing import TYPE_CHECKING

from hf_mambalrp.viz.document import Document, Grid, Heading, Origin, Section
from hf_mambalrp.viz.wording import signed, summary

if TYPE_CHECKING:
    from hf_mambalrp.results.parts import PartRelevance

QUESTION = "Who did the work?"
HEAD = ("Relevance", "Share", "Share of |R|")
READING = (
    "Relevance that a part reads of the stream before its branch, or that goes past the branch (skip). The shares of a "
    "branch add up to 100%. Signs count in them: parts of either sign make shares below 0 or above 100%, and then the "
    "shares of |R| say more."
)
ALL_PASSES = "Whatever the score reads of the tokens passes through the stream between any two layers."
GOES_ROUND = (
    "The shared block also reads the embeddings beside the stream. What it gives them ({around}) goes round the layers "
    "before it, so the stream between two layers does not carry the whole score."
)


def parts_document(parts: "PartRelevance", rows: int | None) -> Document:
    """Return a section for each of the first ``rows``."""
    sections = [
        Section([Heading(QUESTION), grid_of_kinds(parts, row), _grid_of_layers(parts, row)], row, len(parts))
        for row in range(len(parts))[:rows]
    ]
    more = len(parts) - len(sections)
    return Document(sections, Origin("Relevance by part", None, {}, role=""), f"{more} more rows." if more else "")


def grid_of_kinds(parts: "PartRelevance", row: int) -> Grid:
    """Return a line for each kind of part of a row, and how to read it."""
    table, shares, size_shares = parts.table(row), parts.shares, parts.size_shares
    lines = []
    for kind in parts.kinds:
        read = [line.relevance for line in table if line.kind == kind]
        numbers = _percent(shares[kind][row].item()), _percent(size_shares[kind][row].item())
        lines.append((kind_name(kind), str(len(read)), signed(math.fsum(read) / len(read)), *numbers))
    layers = ALL_PASSES if parts.conserving else GOES_ROUND.format(around=signed(parts.around[row].item()))
    head = ("Read by", "Branches", "Mean relevance", *HEAD[1:])
    return Grid("Relevance by part", head, lines, f"{READING} {layers}")


def _grid_of_layers(parts: "PartRelevance", row: int) -> Grid:
    lines = [
        (
            f"layer {line.layer}, {kind_name(line.kind)}",
            signed(line.relevance),
            *(_percent(math.nan if share is None else share) for share in (line.share, line.size_share)),
        )
        for line in parts.table(row)
    ]
    return Grid("Layer by layer", ("Read by", *HEAD), lines)


def parts_summary(parts: "PartRelevance") -> str:
    """Return the shares of the first rows in plain lines."""
    shares = parts.shares
    layers = len({layer for layer, _, _ in parts.names})
    about = f"{layers} layers of {', '.join(kind_name(kind) for kind in parts.kinds[:-1])}"
    rows = (
        [", ".join(f"{kind_name(kind)} {_percent(shares[kind][row].item())}" for kind in parts.kinds)]
        for row in range(len(parts))
    )
    return summary("PartRelevance", len(parts), about, rows)


def kind_name(kind: str) -> str:
    """Return what a kind of part is called in what a person reads."""
    longer = {"delta": "delta net", "conv": "short convolution", "linear": "linear recurrence"}
    return kind.upper() if kind in ("ssm", "mlp") else longer.get(kind, kind)


def _percent(share: float) -> str:
    return "–" if math.isnan(share) else f"{share:.1%}"
