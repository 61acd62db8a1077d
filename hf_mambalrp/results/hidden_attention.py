"""The result of ``hidden_attention``: matrices of who reads whom, and how to show, store and slice them."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from hf_mambalrp.errors import InputError, OptionError
from hf_mambalrp.results.attention_document import (
    CELLS,
    attention_document,
    attention_summary,
    has_attention,
    matrix_of,
)
from hf_mambalrp.results.figures import map_of_attention
from hf_mambalrp.results.serialization import Column, Rows, row_indices
from hf_mambalrp.results.shown import notebook, written
from hf_mambalrp.viz import html
from hf_mambalrp.viz.document import Document
from hf_mambalrp.viz.picture import as_texts, from_texts
from hf_mambalrp.viz.streams import Lenient, printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PARTS = ("ssm", "delta", "conv", "linear", "attention")
"""What mixes positions."""


@dataclass(eq=False, repr=False)
class HiddenAttention(Rows):
    """Attention of mixers: ``matrix[k, b, r, j]`` is what ``positions[b, r]`` reads of position j in ``layers[k]``, by
    its ``parts[k]``.

    Signed, 0 where either is padding, and for j > i of a model that reads in one direction. Indexing picks rows of the
    batch, as for an Explanation.

    Args:
        matrix: (layers, B, R, L) float32; (layers, B, E, R, L) with every channel, of Mamba-2 and of softmax attention
            every head where raw.
        layers: number of the layer of each matrix, counted from 0; twice where two parts of a layer mix positions.
        positions: (B, R) int64, those of the queries.
        kind: "raw" or "unified".
        tokens: per row of the batch L display strings.
        input_ids: (B, L) int64; None of an image.
        attention_mask: (B, L) of 0 and 1.
        model_id: repository or folder of the model.
        versions: package name to version.
        images: (B, H, W, 3) uint8, what the model saw; None of a text.
        grid: rows and columns of patches; the positions that are no class token, row by row.
        patch_size: pixels of a patch's side; 0 of a text.
        stride: pixels from a patch to the next; 0 of a text.
        class_positions: positions of the class tokens.
        direction: "both" directions of a mixer added up, or one of them: "forward" or "backward".
        parts: what each matrix is of, "ssm" (a state-space mixer), "delta" (a gated delta net), "conv" (a short
            convolution), "linear" (linear attention or RG-LRU) or "attention" (softmax attention); not given, "ssm".

    Raises:
        InputError: fields disagree in shape.
        NonFiniteRelevanceError: a number is NaN or infinite.

    Example:
        >>> from hf_mambalrp import DEMO_MODEL, AutoMambaLRPForSequenceClassification
        >>> model = AutoMambaLRPForSequenceClassification.from_pretrained(DEMO_MODEL)
        >>> attention = model.hidden_attention("A dull film.")
        >>> attention.layers, attention.matrix.shape
        ([0, 1, 2], torch.Size([3, 1, 4, 4]))
    """

    matrix: Tensor
    layers: list[int]
    positions: Tensor
    kind: str
    tokens: list[list[str]]
    input_ids: Tensor | None
    attention_mask: Tensor
    model_id: str | None = None
    versions: dict[str, str] = field(default_factory=dict)
    images: Tensor | None = None
    grid: tuple[int, int] | None = None
    patch_size: int = 0
    stride: int = 0
    class_positions: tuple[int, ...] = ()
    direction: str = "both"
    parts: list[str] = field(default_factory=list)

    _columns: ClassVar[dict[str, Column]] = {
        "matrix": Column("NBRL", torch.float32),
        "positions": Column("BR", torch.int64),
        "tokens": Column("BL", fill=""),
        "input_ids": Column("BL", torch.int64, optional=True),
        "attention_mask": Column("BL", torch.int64),
        "images": Column("BHWK", torch.uint8, optional=True),
    }
    _encoders: ClassVar[dict[str, Callable[[Any], Any]]] = {"images": as_texts}
    _decoders: ClassVar[dict[str, Callable[[Any], Any]]] = {
        "images": from_texts,
        "grid": lambda grid: grid and tuple(grid),
        "class_positions": tuple,
        "parts": lambda parts: parts or [],
    }

    def __post_init__(self) -> None:
        if self.matrix.dim() == 5:
            vars(self)["_columns"] = {**self._columns, "matrix": Column("NBERL", torch.float32)}
        super().__post_init__()
        self.parts = self.parts or ["ssm"] * len(self.layers)
        if len(self.layers) != len(self.matrix):
            raise InputError(
                f"matrix holds {len(self.matrix)} layers and layers names {len(self.layers)}: {self.layers}."
            )
        if len(self.parts) != len(self.layers) or {*self.parts} - {*PARTS}:
            raise InputError(
                f"parts={self.parts!r} does not name one of {', '.join(map(repr, PARTS))} for each of the "
                f"{len(self.layers)} matrices."
            )

    def __len__(self) -> int:
        return self.matrix.shape[1]

    def __repr__(self) -> str:
        shape = ", ".join(map(str, self.matrix.shape))
        parts = f", parts {self.parts}" if has_attention(self) else ""
        return f"HiddenAttention({self.kind}, layers {self.layers}{parts}, matrix ({shape}), model {self.model_id})"

    def __str__(self) -> str:
        """Return a few plain lines: what the last position, or each that was asked for, reads most strongly."""
        return printable(attention_summary(self))

    def document(
        self, *, layers: Sequence[int] | None = None, rows: int | None = None, cells: int | None = CELLS
    ) -> Document:
        """Return what is shown of the first ``rows`` of the batch, or of all, and of these ``layers``, or of all.

        A heat map has at most ``cells`` queries and keys, groups of consecutive ones where there are more; None groups
        nothing. Errors of :meth:`map`.

        Example:
            >>> from hf_mambalrp import DEMO_MODEL, AutoMambaLRPForSequenceClassification
            >>> model = AutoMambaLRPForSequenceClassification.from_pretrained(DEMO_MODEL)
            >>> attention = model.hidden_attention("A dull film.")
            >>> len(attention.document(layers=[0]).sections)
            1
        """
        wanted = self.layers if layers is None else layers
        for layer in wanted:
            if layer not in self.layers:
                self._number(layer, None)
        return attention_document(self, wanted, rows, cells)

    def map(self, layer: int | None = None, row: int = 0, part: str | None = None) -> Tensor:
        """Return one layer's matrix (R, L) of one row of the batch; channels, where there are any, are averaged.

        ``layer`` is a number in ``layers`` and ``part`` a name in ``parts``; without a layer it is the last matrix (of
        that part). OptionError: no such matrix, or several in the layer and no part given. IndexError: no such row.

        Example:
            >>> from hf_mambalrp import DEMO_MODEL, AutoMambaLRPForSequenceClassification
            >>> model = AutoMambaLRPForSequenceClassification.from_pretrained(DEMO_MODEL)
            >>> attention = model.hidden_attention("A dull film.")
            >>> strongest = attention.map(layer=0)[-1].abs().argmax()  # of what the last token reads
            >>> attention.tokens[0][strongest]
            ' film'
        """
        return matrix_of(self, self._number(layer, part), row)

    def _number(self, layer: int | None, part: str | None) -> int:
        """Which k ``matrix[k]`` is of a layer and part, given as for :meth:`map`, with its errors."""
        places = list(zip(self.layers, self.parts, strict=True))
        found = [k for k, (number, name) in enumerate(places) if layer in (None, number) and part in (None, name)]
        if not found:
            given = [f"layer={layer!r}"] * (layer is not None) + [f"part={part!r}"] * (part is not None)
            parts = f" and their parts {self.parts}" if has_attention(self) else ""
            raise OptionError(f"{' with '.join(given)} is not in this result, which holds layers {self.layers}{parts}.")
        if layer is not None and len(found) > 1:
            raise OptionError(
                f"layer={layer!r} has several matrices in this result, of {[self.parts[k] for k in found]}. Say which "
                "with part=, or read matrix and layers."
            )
        return found[-1]

    def class_map(self, layer: int | None = None, row: int = 0) -> Tensor:
        """Return what the class token reads of every patch, (rows, columns): the mean over several class tokens.

        ``layer`` and ``row`` as in :meth:`map`. OptionError: the result is of a text, or without a class token's row.

        Example:
            >>> import torch
            >>> from hf_mambalrp import VimConfig, VimLRPForImageClassification
            >>> sizes = dict(image_size=32, patch_size=8, hidden_size=16, num_hidden_layers=2)
            >>> model = VimLRPForImageClassification(VimConfig(**sizes))
            >>> model.hidden_attention(pixel_values=torch.rand(1, 3, 32, 32)).class_map().shape
            torch.Size([4, 4])
        """
        if self.grid is None:
            raise OptionError("class_map() is of an image, and this is the attention of a text. Use map().")
        places = self.positions[row_indices(row, len(self))[0]].tolist()
        queries = [places.index(position) for position in self.class_positions if position in places]
        if not queries:
            raise OptionError(
                f"No class token is among the positions of this result; they are {self.class_positions} in the "
                "sequence. Leave positions out, or name one of them."
            )
        patches = [j for j in range(self.matrix.shape[-1]) if j not in self.class_positions]
        return self.map(layer, row)[queries].mean(0)[patches].view(self.grid)

    def plot(
        self, *, layer: int | None = None, row: int = 0, part: str | None = None, ax: "Axes | None" = None
    ) -> "Figure":
        """Draw a heat map, queries down and keys across, of the attended tokens; a long input shows groups of tokens.

        The figure belongs to the caller and is not registered with pyplot. MissingExtraError: matplotlib is not
        installed. Errors of :meth:`map`.

        Example:
            >>> from hf_mambalrp import DEMO_MODEL, AutoMambaLRPForSequenceClassification
            >>> model = AutoMambaLRPForSequenceClassification.from_pretrained(DEMO_MODEL)
            >>> attention = model.hidden_attention("A dull film.")
            >>> attention.plot(layer=0).savefig("attention.png")
        """
        return map_of_attention(self, self._number(layer, part), row, ax)

    def to_html(self, path: str | Path | None = None, *, title: str | None = None) -> str:
        """Return a complete HTML document with a heat map for every row and layer, and write it to ``path`` if given.

        Every text in it is escaped, it runs no script and loads nothing.

        Example:
            >>> from hf_mambalrp import DEMO_MODEL, AutoMambaLRPForSequenceClassification
            >>> model = AutoMambaLRPForSequenceClassification.from_pretrained(DEMO_MODEL)
            >>> attention = model.hidden_attention("A dull film.")
            >>> page = attention.to_html("attention.html")
            >>> "<title>Hidden attention</title>" in page
            True
        """
        return written(html.page(self.document(), title or "Hidden attention"), path)

    def _repr_html_(self) -> str:
        return html.fragment(self.document(layers=self.layers[-1:], rows=1))

    def show(self) -> None:
        """Display the last layer of the first row as HTML in a notebook, else print a summary.

        Example:
            >>> from hf_mambalrp import DEMO_MODEL, AutoMambaLRPForSequenceClassification
            >>> model = AutoMambaLRPForSequenceClassification.from_pretrained(DEMO_MODEL)
            >>> attention = model.hidden_attention("A dull film.")
            >>> attention.show()
            HiddenAttention of 1 row: raw attention, model demo
            ...
        """
        ipython = notebook()
        if ipython is not None:
            ipython.display.display(self)
        else:
            print(self, file=sys.stdout and Lenient(sys.stdout))
