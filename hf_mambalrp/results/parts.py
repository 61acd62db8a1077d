"""Who did the work: what every part of every layer reads of the stream's relevance, and what goes past it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from hf_mambalrp.errors import InputError, OptionError
from hf_mambalrp.results.figures import bars_of_parts
from hf_mambalrp.results.parts_document import parts_document, parts_summary
from hf_mambalrp.results.serialization import Column, Rows, row_indices
from hf_mambalrp.results.shown import Shown
from hf_mambalrp.viz.document import Document

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SKIP, EMBEDDINGS = "skip", "embeddings"


class PartLine(NamedTuple):
    """What one part reads, or what goes past a branch."""

    layer: int
    """From 0."""
    branch: int
    """Of the layer, from 0."""
    kind: str
    relevance: float
    """The sum over the tokens, in units of the score."""
    size: float
    """The sum of |R| over the tokens."""
    share: float | None
    """Of the stream's relevance before the branch; None where that is 0, and of what is not in the stream."""
    size_share: float | None
    """Of all |R| before the branch, likewise."""


def _names(names: Any) -> Any:
    """Turn the lists that JSON gives for names back into tuples."""
    return [tuple(name) for name in names]


@dataclass(eq=False, repr=False)
class PartRelevance(Shown, Rows):
    """The relevance that each part of a layer reads of the residual stream, per token, and what is skipped.

    A layer is one or more branches h + sum of parts(h), such as h + attention(norm h) and then h + mlp(norm h). Before
    a branch the relevance of the stream at every token is what its parts read there and what goes past them:

        R(h_i) = sum over parts p of R(h_i through p) + R(h_i past all),

    exactly, whatever biases or a softmax absorb inside of the parts. What is read at token i may count at a later one.

    Args:
        relevance: (P, B, L) float32 in units of the score, 0 on padding.
        names: the P of them in the order of the forward: layer, branch of it, and what reads: "ssm", "delta" (a gated
            delta net), "conv" (a short convolution), "linear" (linear attention or RG-LRU), "attention", "mlp",
            "experts", "shared block" (Zamba's transformer); "skip" for what goes past; "embeddings" for what a shared
            block reads of the embeddings beside the stream.

    Raises:
        InputError: not one name for each.
        NonFiniteRelevanceError: a number is NaN or infinite.

    Example:
        >>> from transformers import BambaConfig, BambaForCausalLM
        >>> from hf_mambalrp import make_explainable
        >>> sizes = dict(hidden_size=16, intermediate_size=32, num_hidden_layers=2, mamba_n_heads=4, mamba_d_state=4)
        >>> heads = dict(num_attention_heads=4, num_key_value_heads=2, attn_layer_indices=[1])
        >>> model = make_explainable(BambaForCausalLM(BambaConfig(vocab_size=50, **sizes, **heads)))
        >>> parts = model.explain([[1, 2, 3]], per_layer=True).parts
        >>> parts.kinds
        ['ssm', 'mlp', 'attention', 'skip']
        >>> parts.relevance.shape, parts.names[:2]
        (torch.Size([8, 1, 3]), [(0, 0, 'ssm'), (0, 0, 'skip')])
    """

    relevance: Tensor
    names: list[tuple[int, int, str]]

    _columns: ClassVar[dict[str, Column]] = {"relevance": Column("PBL", torch.float32)}
    _decoders: ClassVar[dict[str, Callable[[Any], Any]]] = {"names": _names}
    _title: ClassVar[str] = "Relevance by part"

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.names) != len(self.relevance):
            raise InputError(
                f"names has {len(self.names)} entries, but relevance has shape {tuple(self.relevance.shape)}: expected "
                "one for each of the first dimension."
            )

    def __repr__(self) -> str:
        return parts_summary(self)

    @property
    def kinds(self) -> list[str]:
        """The kinds of parts in the order of the forward, and "skip" at the end."""
        found = dict.fromkeys(kind for _, _, kind in self.names if kind not in (SKIP, EMBEDDINGS))
        return [*found, SKIP]

    @property
    def conserving(self) -> bool:
        """Whether all that the score reads of the tokens passes through the stream between any two layers.

        Not so in Zamba and Zamba2: a shared block reads the embeddings beside the stream, so that part of the relevance
        goes round the layers before it.
        """
        return not any(kind == EMBEDDINGS for _, _, kind in self.names)

    @property
    def around(self) -> Tensor:
        """What goes round layers to the embeddings, summed over layers and tokens. Shape: (B,)."""
        rows = [row for row, (_, _, kind) in enumerate(self.names) if kind == EMBEDDINGS]
        return self.relevance[rows].double().sum((0, 2)).float()

    @property
    def branches(self) -> list[list[int]]:
        """The numbers of the entries that add up to the stream before a branch, in the order of the forward.

        What a branch adds for the next one alone, as Zamba's shared block does, is read before the same stream.
        """
        found: list[list[int]] = [[]]
        for number, (_, _, kind) in enumerate(self.names):
            if kind != EMBEDDINGS:
                found[-1].append(number)
            if kind == SKIP:
                found.append([])
        return found[:-1]

    @property
    def shares(self) -> dict[str, Tensor]:
        """For every kind, what it reads as a share of what passes its branches, each (B,); NaN where that is 0.

        Signs are kept: parts of either sign can make a share negative or larger than 1.

            share = sum over its branches, tokens of R(h through it) / sum over its branches, tokens of R(h)

        Example:
            >>> from transformers import MambaConfig
            >>> from hf_mambalrp import MambaLRPForCausalLM
            >>> model = MambaLRPForCausalLM(MambaConfig(vocab_size=50, hidden_size=16, num_hidden_layers=2))
            >>> shares = model.explain([[1, 2, 3]], per_layer=True).parts.shares
            >>> round((shares["ssm"] + shares["skip"]).item(), 5)
            1.0
        """
        return self._shares(self.relevance.double().sum(-1))

    @property
    def size_shares(self) -> dict[str, Tensor]:
        """The same of |R|, which takes no notice of signs: from 0 to 1."""
        return self._shares(self.relevance.double().abs().sum(-1))

    def _shares(self, values: Tensor) -> dict[str, Tensor]:
        """Of values (P, B)."""
        found = {}
        for kind in self.kinds:
            own = [[n for n in branch if self.names[n][2] == kind] for branch in self.branches]
            passed = [n for branch, mine in zip(self.branches, own, strict=True) if mine for n in branch]
            read = values[[n for mine in own for n in mine]].sum(0)
            found[kind] = (read / values[passed].sum(0)).nan_to_num(torch.nan, torch.nan, torch.nan).float()
        return found

    def by_token(self, kind: str) -> Tensor:
        """Return what parts of a kind read at every token, summed over the layers. Shape: (B, L).

        OptionError: no part is of this kind.

        Example:
            >>> from transformers import MambaConfig
            >>> from hf_mambalrp import MambaLRPForCausalLM
            >>> model = MambaLRPForCausalLM(MambaConfig(vocab_size=50, hidden_size=16, num_hidden_layers=2))
            >>> model.explain([[1, 2, 3]], per_layer=True).parts.by_token("ssm").shape
            torch.Size([1, 3])
        """
        if kind not in self.kinds:
            raise OptionError(f"kind={kind!r} is not allowed; this model has {', '.join(map(repr, self.kinds))}.")
        rows = [row for row, (_, _, what) in enumerate(self.names) if what == kind]
        return self.relevance[rows].double().sum(0).float()

    def table(self, row: int = 0) -> list[PartLine]:
        """Return a line for every part and every skip of a row, in the order of the forward. IndexError: no such row.

        The shares of the lines of a branch add up to 1. ``pandas.DataFrame(parts.table())`` is a table of it.

        Example:
            >>> from transformers import MambaConfig
            >>> from hf_mambalrp import MambaLRPForCausalLM
            >>> model = MambaLRPForCausalLM(MambaConfig(vocab_size=50, hidden_size=16, num_hidden_layers=2))
            >>> table = model.explain([[1, 2, 3]], per_layer=True).parts.table()
            >>> [(line.layer, line.kind) for line in table]
            [(0, 'ssm'), (0, 'skip'), (1, 'ssm'), (1, 'skip')]
        """
        return list(self._lines(row_indices(row, len(self))[0]))

    def _lines(self, row: int) -> Iterator[PartLine]:
        sums = self.relevance[:, row].double().sum(-1).tolist()
        sizes = self.relevance[:, row].double().abs().sum(-1).tolist()
        branch_of = {number: branch for branch in self.branches for number in branch}

        def share(values: list[float], number: int) -> float | None:
            whole = sum(values[other] for other in branch_of.get(number, []))
            return values[number] / whole if whole else None

        for number, name in enumerate(self.names):
            yield PartLine(*name, sums[number], sizes[number], share(sums, number), share(sizes, number))

    def document(self, *, rows: int | None = None) -> Document:
        """Return what every rendering shows of the first ``rows``, or of all.

        Example:
            >>> from transformers import MambaConfig
            >>> from hf_mambalrp import MambaLRPForCausalLM
            >>> model = MambaLRPForCausalLM(MambaConfig(vocab_size=50, hidden_size=16, num_hidden_layers=2))
            >>> parts = model.explain([[1, 2, 3]], per_layer=True).parts
            >>> parts.document().sections[0].blocks[0]
            Heading(text='Who did the work?')
        """
        return parts_document(self, rows)

    def plot(self, row: int = 0, *, ax: "Axes | None" = None) -> "Figure":
        """Draw for every branch, layers down, what its parts read and what goes past them, side by side.

        Positive relevance is stacked to the right of 0 and negative to the left; a mark shows their sum, which is the
        relevance of the stream there. The figure belongs to the caller and is not registered with pyplot; ``ax`` draws
        into axes of your own.

        Raises:
            MissingExtraError: matplotlib is not installed.
            IndexError: no such row.

        Example:
            >>> from transformers import MambaConfig
            >>> from hf_mambalrp import MambaLRPForCausalLM
            >>> model = MambaLRPForCausalLM(MambaConfig(vocab_size=50, hidden_size=16, num_hidden_layers=2))
            >>> model.explain([[1, 2, 3]], per_layer=True).parts.plot().savefig("parts.png")
        """
        return bars_of_parts(self, row_indices(row, len(self))[0], ax)
