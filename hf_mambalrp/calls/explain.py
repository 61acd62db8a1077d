"""From a call of ``explain`` to its result: read the input, name the target, run the method, join the result."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from functools import lru_cache
from inspect import signature
from typing import Any

import torch
from torch import Tensor

from hf_mambalrp.calls.forcing import Forced, force, merge_sides, stack
from hf_mambalrp.calls.inputs import TOKENIZER_EXTRAS, Batch, TokenizerSource, brief, integers
from hf_mambalrp.calls.origin import model_id, versions
from hf_mambalrp.calls.pooling import pooled_positions
from hf_mambalrp.calls.subject import Subject
from hf_mambalrp.calls.targets import Outputs, Target, resolve_target
from hf_mambalrp.calls.tokens import TokenText, describe
from hf_mambalrp.errors import InputError, OptionError, TargetError
from hf_mambalrp.families import Network
from hf_mambalrp.families.padding import last_attended
from hf_mambalrp.methods import METHODS, Problem, Relevance, method_named, predict
from hf_mambalrp.methods.problem import back_in_place, without_leading_padding
from hf_mambalrp.results.explanation import Conservation, Explanation
from hf_mambalrp.results.parts import PartRelevance

Score = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Options:
    """How to explain: everything of a call that is neither input nor target."""

    method: str
    per_layer: bool
    chunk_size: int | str
    backend: str
    method_options: Mapping[str, Any]
    check_forward: bool = True

    def checked(self, call: str) -> "Options":
        """Raise for an unknown method or method option; drop what a tokenizer's output brings along."""
        wanted = {name: value for name, value in self.method_options.items() if name not in TOKENIZER_EXTRAS}
        method = method_named(self.method)
        try:
            method.check_options(call, wanted)
        except OptionError as error:
            raise OptionError(f"{error}{_meant(wanted)}") from None
        if self.per_layer and not method.has_layers:
            able = sorted(name for name, other in METHODS.items() if other.has_layers)
            raise OptionError(
                f"per_layer=True: method {self.method!r} has no relevance of layers. These have it: {able}."
            )
        return replace(self, method_options=wanted)

    def check_contrast(self, contrast: Any) -> None:
        """Raise for a contrast where the method cannot tell one target from another."""
        if contrast is not None and not method_named(self.method).reads_score:
            able = sorted(name for name, other in METHODS.items() if other.reads_score)
            raise OptionError(
                f"contrast={contrast!r}: the relevance of method {self.method!r} does not depend on what is explained, "
                f"so it cannot tell one from another. These can: {able}."
            )

    def problem(self, network: Network, embeddings: Tensor, mask: Tensor, positions: Tensor, score: Score) -> Problem:
        """The problem of one batch under these options."""
        return Problem(network, embeddings, mask, positions, score, self.per_layer, self.chunk_size, self.backend)

    def recorded(self, network: Network) -> dict[str, Any]:
        """The method's options as a result holds them: those that were given, and always the rule of attention."""
        method, given = method_named(self.method), dict(self.method_options)
        if "attention" in network.mixes and "attention_rule" in method.options:
            given.setdefault("attention_rule", method.default("attention_rule"))
        return {name: _plain(given[name]) for name in sorted(given)}

    def explain(self, problem: Problem) -> Relevance:
        """Run the method."""
        moved = without_leading_padding(problem)
        return back_in_place(method_named(self.method).explain(moved, **self.method_options), moved.shifts)


def _plain(option: Any) -> Any:
    """A method's option as JSON has it; of a tensor its shape."""
    if isinstance(option, Tensor):
        return f"tensor of shape {tuple(option.shape)}"
    if isinstance(option, list | tuple | set | frozenset):
        return [_plain(one) for one in (sorted(option) if isinstance(option, set | frozenset) else option)]
    return option if option is None or isinstance(option, bool | int | float | str) else repr(option)


def _meant(names: Iterable[str]) -> str:
    """The arguments of ``explain`` that are spelt almost like these."""
    known = {*signature(explain_batch).parameters, *(field.name for field in fields(Options))}
    arguments = sorted(known - {"model", "options", "method_options"})
    close = [match for name in names for match in get_close_matches(name, arguments, 1)]
    return f" Did you mean {', '.join(close)}?" if close else ""


@contextmanager
def own_gradient_mode() -> Iterator[None]:
    """Gradients on, inference mode and autocast off inside, whatever the caller's context is. Also a decorator."""
    with torch.inference_mode(False), torch.enable_grad(), _without_autocast("cpu"), _without_autocast("cuda"):
        yield


def _without_autocast(device: str) -> AbstractContextManager[Any]:
    return torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else nullcontext()


@dataclass(frozen=True)
class Explained:
    """A batch that is explained, its tokens and targets by number; naming them is Python's work, and may be done later.

    Args:
        values: what an :class:`Explanation` is made of besides names.
        sides: the target, and the contrast where there is one, by the field that names it: with its ids, a tuple a row.
        tokens: names and places of the tokens.
        outputs: names what the model puts out.
    """

    values: Mapping[str, Any]
    sides: Mapping[str, tuple[Target, list[tuple[int, ...] | None]]]
    tokens: Callable[[], TokenText]
    outputs: Outputs

    def names(self) -> dict[str, Any]:
        """Names of the rows' targets, and of their contrasts where they have any."""
        found = {field: names_of(*side, self.outputs) for field, side in self.sides.items()}
        return {"contrast_text": None, **found}

    def result(self) -> Explanation:
        """All of it, with names."""
        named = self.tokens()
        return Explanation(
            tokens=named.tokens,
            offsets=named.offsets,
            texts=named.texts,
            special_tokens_mask=named.special,
            **self.names(),
            **self.values,
        )


@own_gradient_mode()
def explain_batch(
    subject: Subject,
    inputs: Any,
    *,
    input_ids: Any,
    attention_mask: Any,
    inputs_embeds: Any,
    tokenizer: Any,
    target: Any,
    contrast: Any,
    position: Any,
    options: Options,
) -> Explained:
    """Explain one batch; :meth:`hf_mambalrp.MambaLRPMixin.explain` documents the arguments."""
    call = subject.begin("explain", tokenizer)
    network, tokenizers = call.network, call.tokenizers
    options = options.checked(call.name)
    options.check_contrast(contrast)
    batch = call.read(inputs, input_ids, attention_mask, inputs_embeds)
    last = explained_positions(network, batch, position)
    outputs = Outputs(network, tokenizers, batch, last)
    wanted = resolve_target(target, "target", len(batch), outputs)
    against = None if contrast is None else resolve_target(contrast, "contrast", len(batch), outputs)
    if options.check_forward:
        call.check_forward()

    @lru_cache(maxsize=1)
    def of_logits(logits: Tensor) -> tuple[list[Any], list[Any] | None, Tensor | None]:
        """What is explained, against what, and the probability, where the logits are."""
        ids = wanted.resolved(logits)
        contrast_ids = None if against is None else against.resolved(logits[-len(batch) :])
        return ids, contrast_ids, probability(network, named(wanted, ids), logits[: len(batch)])

    if wanted.tokens == 1 and (against is None or against.tokens == 1):
        if method_named(options.method).changes_input and wanted.function is None:
            wanted = _predicted(network, batch, wanted, last, options)
        input_ids, mask = batch.input_ids, batch.attention_mask
        tokens = _described(input_ids, mask, batch, tokenizers)
        relevance = _explain_single(
            network, batch, wanted, against, last, options, lambda logits: (tokens(), of_logits(logits))
        )
    else:
        _check_forcing(batch, wanted, against, position)
        wanted = _predicted(network, batch, wanted, last, options)
        relevance, input_ids, mask = _explain_forced(network, batch, wanted, against, last, options)
        tokens = _described(input_ids, mask, batch, tokenizers)

    ids, contrast_ids, chance = of_logits(relevance.logits)
    values = {
        "relevance": relevance.tokens,
        "input_ids": input_ids,
        "attention_mask": mask,
        "target": [single(i) for i in ids],
        "contrast": None if contrast_ids is None else [single(i) for i in contrast_ids],
        "score": relevance.score,
        "probability": None if chance is None else chance.cpu(),
        "method": options.method,
        "conservation": Conservation(relevance.score, relevance.tokens.sum(-1), relevance.biases, relevance.softmax),
        "position": last if network.is_language_model else None,
        "layer_relevance": relevance.layers,
        "parts": None if relevance.parts is None else PartRelevance(relevance.parts.relevance, relevance.parts.names),
        "model_id": model_id(network),
        "versions": versions(),
        "method_options": options.recorded(network),
        "convergence_delta": relevance.convergence_delta,
        "chunk_size": relevance.chunk_size,
    }
    sides = {"target_text": (wanted, ids)}
    if against is not None and contrast_ids is not None:
        sides["contrast_text"] = against, contrast_ids
    return Explained(values, sides, tokens, outputs)


def explained_positions(network: Network, batch: Batch, position: Any) -> Tensor:
    """Position of each row whose prediction is explained. Shape: (B,).

    Raises:
        InputError: a position for a classifier, outside the row or on padding; a batch whose ends cannot be told.
        UnknownArchitectureError: a classifier whose pooling is not known.
    """
    if network.is_language_model:
        return _language_model_positions(batch, position)
    if position is not None:
        raise InputError(
            f"position={brief(position)} was given, but a classifier has one prediction a row; leave it out."
        )
    return pooled_positions(network, batch)


def _language_model_positions(batch: Batch, position: Any) -> Tensor:
    last = last_attended(batch.attention_mask)
    if position is None:
        return last
    positions = integers(position)
    if positions is None or positions.shape not in ((), (len(batch),)):
        raise InputError(
            f"position={brief(position)} is not allowed. Give an integer, or one a row ({len(batch)} here); negative "
            "numbers count from the last real token."
        )
    positions = positions.expand(len(batch))
    positions = torch.where(positions < 0, last + 1 + positions, positions)
    length = batch.attention_mask.shape[1]
    for row, column in enumerate(positions.tolist()):
        if not 0 <= column < length or not batch.attention_mask[row, column]:
            raise InputError(
                f"position={brief(position)} is outside row {row} or on its padding; its real tokens are at "
                f"{batch.attention_mask[row].nonzero().flatten().tolist()[:: max(1, int(last[row]))]} (first and last)."
            )
    return positions


def _described(ids: Tensor | None, mask: Tensor, batch: Batch, tokenizers: TokenizerSource) -> Callable[[], TokenText]:
    """Names and places of tokens, which are looked for when they are first asked for."""

    @lru_cache(maxsize=1)
    def described() -> TokenText:
        return describe(ids, mask, batch, None if ids is None else tokenizers.vocabulary())

    return described


def _explain_single(
    network: Network,
    batch: Batch,
    target: Target,
    contrast: Target | None,
    last: Tensor,
    options: Options,
    meanwhile: Callable[[Tensor], object],
) -> Relevance:
    def score(logits: Tensor) -> Tensor:
        value = target.score(logits)
        return value if contrast is None else value - contrast.score(logits)

    embeddings = _embeddings(network, batch)
    problem = options.problem(network, embeddings, batch.attention_mask, last[:, None], score)
    return options.explain(replace(problem, meanwhile=meanwhile) if embeddings.is_cuda else problem)


def _explain_forced(
    network: Network, batch: Batch, target: Target, contrast: Target | None, last: Tensor, options: Options
) -> tuple[Relevance, Tensor, Tensor]:
    rows = force(batch, last, target)
    if contrast is not None:
        rows = stack(rows, force(batch, last, contrast))

    def score(logits: Tensor) -> Tensor:
        value = target.score(logits[: len(batch)])
        return value if contrast is None else torch.cat([value, -contrast.score(logits[len(batch) :])])

    found = options.explain(
        options.problem(network, network.embed(rows.input_ids), rows.attention_mask, rows.positions, score)
    )
    if contrast is None:
        return found, rows.input_ids, rows.attention_mask
    return _one_row_each(found, rows, last, target, contrast)


def _one_row_each(
    found: Relevance, rows: Forced, last: Tensor, target: Target, contrast: Target
) -> tuple[Relevance, Tensor, Tensor]:
    """Join the target's rows with the contrast's, which entered with a minus."""

    def merged(values: Tensor, shared: str) -> Tensor:
        return merge_sides(values, last, target, contrast, shared)

    def added(values: Tensor | None) -> Tensor | None:
        return None if values is None else values.unflatten(-1, (2, -1)).sum(-2)

    parts = found.parts
    relevance = replace(
        found,
        tokens=merged(found.tokens, "sum"),
        score=found.score.view(2, -1).sum(0),
        biases=found.biases.view(2, -1).sum(0),
        layers=None if found.layers is None else merged(found.layers, "sum"),
        softmax=added(found.softmax),
        layer_absorbed=added(found.layer_absorbed),
        parts=None if parts is None else replace(parts, relevance=merged(parts.relevance, "sum")),
        convergence_delta=added(found.convergence_delta),
    )
    return relevance, merged(rows.input_ids, "first"), merged(rows.attention_mask, "first")


def _check_forcing(batch: Batch, target: Target, contrast: Target | None, position: Any) -> None:
    problem = None
    if position is not None:
        problem = "with position=...: the tokens behind it would be replaced; cut the input there instead"
    elif batch.input_ids is None:
        problem = "with inputs_embeds: the target's own tokens have to be read by the model; give input_ids"
    elif target.function is not None or (contrast is not None and contrast.function is not None):
        problem = "together with a function of the logits; give both sides as tokens"
    if problem:
        raise TargetError(f"A target or contrast of several tokens cannot be explained {problem}.")


def _predicted(network: Network, batch: Batch, target: Target, last: Tensor, options: Options) -> Target:
    """The target with its prediction read off first, where what is explained has to stay the same at other inputs."""
    if target.ids is not None:
        return target
    problem = options.problem(network, _embeddings(network, batch), batch.attention_mask, last[:, None], target.score)
    return named(target, target.resolved(predict(without_leading_padding(problem))))


def named(target: Target, ids: list[tuple[int, ...] | None]) -> Target:
    """The target with what it was resolved to; a function stays one."""
    return target if target.function is not None else Target([row for row in ids if row is not None])


def _embeddings(network: Network, batch: Batch) -> Tensor:
    if batch.inputs_embeds is not None:
        return network.entered(batch.inputs_embeds)
    assert batch.input_ids is not None
    return network.embed(batch.input_ids)


def probability(network: Network, target: Target, logits: Tensor) -> Tensor | None:
    """Probability of the target, on the logits' device: softmax, or sigmoid for independent labels; None for regression
    and functions."""
    problem_type = None if network.is_language_model else network.config.problem_type
    if target.function is not None or problem_type == "regression":
        return None
    if not network.is_language_model and network.num_outputs == 1:
        return None
    if problem_type == "multi_label_classification":
        return torch.sigmoid(target.score(logits)).float()
    return target.score(logits.float().log_softmax(-1)).exp()


def single(ids: tuple[int, ...] | None) -> int | tuple[int, ...] | None:
    """The id of a target of one, the ids of one of several."""
    return ids[0] if ids is not None and len(ids) == 1 else ids


def names_of(target: Target, ids: list[tuple[int, ...] | None], outputs: Outputs) -> list[str]:
    """How every row's target is called in what a person reads."""
    name = getattr(target.function, "__name__", None) or type(target.function).__name__
    return [name if i is None else outputs.text_of(i) for i in ids]
