"""Sanity checks: does an explanation depend on the weights, on how the input is encoded, on chance or on neighbours?"""

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Generator, Tensor, nn

from hf_mambalrp.attention import Mixing
from hf_mambalrp.calls.explain import own_gradient_mode
from hf_mambalrp.errors import UnknownArchitectureError
from hf_mambalrp.evaluation.statistics import mean_with_interval, rank_agreement
from hf_mambalrp.families import FAMILIES, Network
from hf_mambalrp.families.base import State, Step, Stream
from hf_mambalrp.families.padding import last_attended
from hf_mambalrp.methods import Problem, method_named
from hf_mambalrp.results.explanation import Explanation
from hf_mambalrp.rules.adapters import innermost
from hf_mambalrp.runs.checks import check_confidence
from hf_mambalrp.runs.progress import patient_bar

MethodOptions = Mapping[str, Mapping[str, Any]]
EXTRA = 3
"""Columns of padding that :func:`determinism` adds on either side."""
TINY = 1e-12
"""Relevance below this norm counts as none."""


Correlations = dict[str, dict[str, list[float | None]]]
"""By method and depth, the correlation of every row; None where a row has no two different relevances."""


@dataclass(frozen=True)
class Randomisation:
    """Rank correlation with the original explanation after each further layer was made random, by method and depth."""

    signed: Correlations
    """Correlation of the relevance R, in [-1, 1], with its sign."""
    absolute: Correlations
    """Correlation of |R|, in [-1, 1]."""
    examples: int
    seed: int
    """Of the random weights."""
    confidence: float
    """Mass of the intervals."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types: every correlation's mean over rows, its bootstrap interval, and the rows' own."""
        found = {
            kind: {
                method: {depth: _over_rows(rows, self) for depth, rows in depths.items()}
                for method, depths in correlations.items()
            }
            for kind, correlations in (("signed", self.signed), ("absolute", self.absolute))
        }
        return {**asdict(self), **found}


def randomisation_test(
    model: Any,
    inputs: Any,
    *,
    methods: Sequence[str] = ("mambalrp",),
    method_options: MethodOptions | None = None,
    tokenizer: Any = None,
    seed: int = 0,
    confidence: float = 0.95,
) -> Randomisation:
    """Make the weights random from the head downwards and compare each explanation with the original's.

    The model parameter randomisation test (Adebayo et al. 2018, section 3.1), cascading: :func:`randomised`. What is
    explained stays the original prediction. A method whose correlation stays near 1 does not explain the model.
    Correlations are Spearman's over a row's attended tokens.

    The model is not changed: a deep copy is.

    Args:
        model: an explainable model.
        inputs: texts, token ids or a tokenizer's output, explained as one batch.
        methods: names of methods.
        method_options: options by method.
        tokenizer: as for ``explain``.
        seed: of the random weights.
        confidence: mass of the intervals over rows in ``to_dict()``.

    Raises:
        OptionError: a confidence that is no number between 0 and 1.
        UnknownArchitectureError: weights that are not floating point numbers, as a quantised model's.
        Errors of ``explain``.
    """
    check_confidence(confidence)
    options = method_options or {}
    first = _explained(model, inputs, tokenizer)
    originals = {name: _again(model, first, name, options) for name in methods}
    signed: Correlations = {name: {} for name in methods}
    absolute: Correlations = {name: {} for name in methods}
    depths = patient_bar(range(len(Network(model, FAMILIES).layers) + 2), "sanity checks", "layer")
    for _, (depth, altered) in zip(depths, randomised(model, seed), strict=True):
        for name, original in originals.items():
            found = _again(altered, first, name, options)
            signed[name][depth] = _correlations(original, found, first.attention_mask)
            absolute[name][depth] = _correlations(original.abs(), found.abs(), first.attention_mask)
    return Randomisation(signed, absolute, len(first), seed, confidence)


def randomised(model: Any, seed: int = 0) -> Iterator[tuple[str, Any]]:
    """Yield one copy of a model again and again, every time with one more layer of random weights.

    From the head with its norm downwards to the embeddings, and by the name of what became random last: every tensor
    becomes N(mean, std^2) of its own values, and stays so.

    Args:
        model: an explainable model; it is not changed.
        seed: of the random weights.

    Raises:
        UnknownArchitectureError: weights that are not floating point numbers, as a quantised model's.
    """
    altered, generator = copy.deepcopy(model), Generator().manual_seed(seed)
    for depth, modules in _from_the_head(altered):
        for module in modules:
            _randomise(module, generator)
        yield depth, altered


@dataclass(frozen=True)
class Invariance:
    """Change of relevance, ||R' - R|| / ||R||, when the input is encoded in another way, by method."""

    change: dict[str, list[float]]
    """Of every row."""
    examples: int
    seed: int
    """Of the vector."""
    confidence: float
    """Mass of the intervals."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types: every change's mean over the rows, its bootstrap interval, and the rows' own."""
        return {**asdict(self), "change": {name: _over_rows(rows, self) for name, rows in self.change.items()}}


@own_gradient_mode()
def input_invariance(
    model: Any,
    inputs: Any,
    *,
    methods: Sequence[str] = ("mambalrp",),
    method_options: MethodOptions | None = None,
    tokenizer: Any = None,
    seed: int = 0,
    confidence: float = 0.95,
) -> Invariance:
    """Add a constant vector to every token's embedding, subtract it before the first block, and explain that network.

    It is the same function of the tokens, so a method is input invariant (Kindermans et al. 2019, section 3) if its
    relevance stays the same. A gradient times the embedding is not: its change is the vector times the gradient. The
    vector is drawn from N(0, std^2) with the embeddings' own std. "random" and "smoothgrad" draw their noise from the
    embeddings, so theirs is another draw.

    Args:
        model: an explainable model.
        inputs: texts, token ids or a tokenizer's output, explained as one batch.
        methods: names of methods.
        method_options: options by method.
        tokenizer: as for ``explain``.
        seed: of the vector.
        confidence: mass of the intervals over rows in ``to_dict()``.

    Raises:
        OptionError: a confidence that is no number between 0 and 1.
        Errors of ``explain``.
    """
    check_confidence(confidence)
    options = method_options or {}
    first = _explained(model, inputs, tokenizer)
    network = Network(model, FAMILIES)
    weight = innermost(network.embeddings).weight.detach().float()
    drawn = torch.randn(weight.shape[1], generator=Generator().manual_seed(seed), dtype=torch.float32)
    shifted = _Shifted(model, (weight.std() * drawn.to(weight)).to(network.dtype))
    change = {}
    for name in methods:
        method_named(name).check_options("input_invariance", options.get(name, {}))
        plain, moved = (
            method_named(name).explain(_problem(each, first), **options.get(name, {})).tokens
            for each in (network, shifted)
        )
        change[name] = _change(plain, moved).tolist()
    return Invariance(change, len(first), seed, confidence)


@dataclass(frozen=True)
class Determinism:
    """Whether equal calls give equal bits, and the largest ||R' - R|| / ||R|| of a row in other company, by method."""

    repeated: dict[str, bool]
    """A second call gave the same bits."""
    alone: dict[str, float]
    """The row by itself instead of in the batch."""
    padded_left: dict[str, float]
    padded_right: dict[str, float]
    tolerance: float
    examples: int

    @property
    def passed(self) -> dict[str, bool]:
        """Whether a method's calls were equal and its deviations within the tolerance."""
        deviations = (self.alone, self.padded_left, self.padded_right)
        return {
            name: equal and all(each[name] <= self.tolerance for each in deviations)
            for name, equal in self.repeated.items()
        }

    def to_dict(self) -> dict[str, Any]:
        """Return the fields and ``passed`` as plain JSON types."""
        return {"passed": self.passed, **asdict(self)}


def determinism(
    model: Any,
    inputs: Any,
    *,
    methods: Sequence[str] = ("mambalrp",),
    method_options: MethodOptions | None = None,
    tokenizer: Any = None,
    tolerance: float = 1e-4,
) -> Determinism:
    """Explain a batch twice, each of its rows alone, and the batch with padding added on the left and on the right.

    Args:
        model: an explainable model.
        inputs: texts, token ids or a tokenizer's output, explained as one batch.
        methods: names of methods.
        method_options: options by method.
        tokenizer: as for ``explain``.
        tolerance: of ||R' - R|| / ||R||.

    Raises:
        Errors of ``explain``.
    """
    options = method_options or {}
    first = _explained(model, inputs, tokenizer)
    repeated: dict[str, bool] = {}
    deviations: dict[str, dict[str, float]] = {"alone": {}, "padded_left": {}, "padded_right": {}}
    for name in methods:
        relevance = _again(model, first, name, options)
        repeated[name] = torch.equal(relevance, _again(model, first, name, options))
        deviations["alone"][name] = _deviation(relevance, _alone(model, first, name, options))
        left, right = (_again(model, first, name, options, pad=pad) for pad in ((EXTRA, 0), (0, EXTRA)))
        deviations["padded_left"][name] = _deviation(relevance, left[:, EXTRA:])
        deviations["padded_right"][name] = _deviation(relevance, right[:, :-EXTRA])
    return Determinism(repeated, **deviations, tolerance=tolerance, examples=len(first))


class _Shifted(Network):
    """A network that reads embeddings with a vector added to each, and subtracts it before the first block."""

    def __init__(self, model: nn.Module, shift: Tensor) -> None:
        super().__init__(model, FAMILIES)
        self.shift = shift

    def embed(self, input_ids: Tensor) -> Tensor:
        embedded = super().embed(input_ids)
        return embedded + self.shift.to(embedded.device)

    def layer(
        self, index: int, stream: Stream, states: list[State], step: Step, at: Tensor | None = None
    ) -> tuple[Stream, list[State]]:
        if index == 0:  # an additive bias like others
            h = stream.whole
            stream = Stream(h + step.ledger.enter(-self.shift.to(h.device), h.dtype))
        return super().layer(index, stream, states, step, at)

    def mixings(self, index: int, hidden: Tensor, step: Step) -> list[tuple[tuple[int, int, str], Mixing]]:
        unshifted = hidden - self.shift.to(hidden.device) if index == 0 else hidden
        return super().mixings(index, unshifted, step)


def _explained(model: Any, inputs: Any, tokenizer: Any) -> Explanation:
    """Which tokens, predictions and positions the explanations are about."""
    found: Explanation = model.explain(inputs, tokenizer=tokenizer, method="random")
    return found


def _again(model: Any, first: Explanation, name: str, options: MethodOptions, pad: tuple[int, int] = (0, 0)) -> Tensor:
    """Relevance (B, L) of the same rows and the same targets, with padding added on either side."""
    assert first.input_ids is not None
    found: Explanation = model.explain(
        input_ids=nn.functional.pad(first.input_ids, pad),
        attention_mask=nn.functional.pad(first.attention_mask, pad),
        target=first.target,
        position=None if first.position is None else first.position + pad[0],
        method=name,
        **options.get(name, {}),
    )
    return found.relevance


def _alone(model: Any, first: Explanation, name: str, options: MethodOptions) -> Tensor:
    """Relevance (B, L) of the same rows, each explained by itself and without padding."""
    assert first.input_ids is not None
    relevance = torch.zeros(first.relevance.shape, dtype=torch.float32)
    for row, attended in enumerate(first.attention_mask != 0):
        ids, target = first.input_ids[row, attended][None], first.target[row]
        found = model.explain(input_ids=ids, target=target, method=name, **options.get(name, {}))
        relevance[row, attended] = found.relevance[0]
    return relevance


def _problem(network: Network, first: Explanation) -> Problem:
    assert first.input_ids is not None
    mask, targets = first.attention_mask, torch.tensor(first.target)
    position = last_attended(mask) if first.position is None else first.position

    def score(logits: Tensor) -> Tensor:
        return logits[:, 0].gather(1, targets[:, None].to(logits.device))[:, 0]

    return Problem(network, network.embed(first.input_ids), mask, position[:, None], score)


def _from_the_head(model: Any) -> Iterator[tuple[str, list[nn.Module]]]:
    """Name and modules of every depth, the head with its norm first, the embeddings last."""
    network = Network(model, FAMILIES)
    norm, head = network.head.norm, network.head.linear
    if head.weight is innermost(network.embeddings).weight:
        head.weight = nn.Parameter(head.weight.detach().clone())
    yield "head", [head, norm.module]
    for index in reversed(range(len(network.layers))):
        yield f"layer {index}", network.modules_of_layer(index)
    yield "embeddings", [network.embeddings]


@torch.no_grad()
def _randomise(module: nn.Module, generator: Generator) -> None:
    for name, tensor in module.named_parameters():
        if not tensor.is_floating_point():
            raise UnknownArchitectureError(
                f"{name} has dtype {tensor.dtype}, so its weights cannot be made random. Load the model unquantised."
            )
        values = tensor.float()
        drawn = torch.randn(values.shape, generator=generator, dtype=torch.float32).to(values)
        tensor.copy_(values.mean() + values.std(correction=0) * drawn)


def _correlations(one: Tensor, other: Tensor, mask: Tensor) -> list[float | None]:
    """Of every row, over its attended tokens."""
    pairs = [torch.stack([a[m != 0], b[m != 0]]) for a, b, m in zip(one, other, mask, strict=True)]
    found = [float(rank_agreement([pair])[0, 1]) for pair in pairs]
    return [None if math.isnan(value) else value for value in found]


def _change(relevance: Tensor, other: Tensor) -> Tensor:
    """||R' - R|| / ||R|| of every row; 0 where both are 0. Shape: (B, L) -> (B,)."""
    change: Tensor = (other - relevance).norm(dim=1) / relevance.norm(dim=1).clamp(min=TINY)
    return change


def _over_rows(values: list[float | None] | list[float], of: Randomisation | Invariance) -> dict[str, Any]:
    return {**mean_with_interval(values, of.confidence), "values": values}


def _deviation(relevance: Tensor, other: Tensor) -> float:
    return float(_change(relevance, other).max())
