"""From a call of ``explain_generation`` to its result: generate, one forward over everything, a backward a token."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from hf_mambalrp.calls.explain import Options, own_gradient_mode
from hf_mambalrp.calls.generation import Writing
from hf_mambalrp.calls.inputs import TOKENIZER_EXTRAS, Batch, brief, integers, pad_right
from hf_mambalrp.calls.origin import model_id, versions
from hf_mambalrp.calls.subject import Call, Subject
from hf_mambalrp.calls.targets import Outputs, resolve_target
from hf_mambalrp.calls.tokens import describe
from hf_mambalrp.errors import OptionError, TargetError, UnknownArchitectureError
from hf_mambalrp.families.padding import last_attended
from hf_mambalrp.methods import Forward, Problem, Relevance, by_chunks, method_named
from hf_mambalrp.results.explanation import Conservation
from hf_mambalrp.results.generation_explanation import GenerationExplanation
from hf_mambalrp.runs.progress import patient_bar

RUNNER_UP = "runner-up"
"""The contrast that is at every step the token with the highest logit but for the one that was generated."""


@own_gradient_mode()
def explain_generated(
    subject: Subject,
    inputs: Any,
    *,
    input_ids: Any,
    attention_mask: Any,
    tokenizer: Any,
    max_new_tokens: int | None,
    contrast: Any,
    options: Options,
    generate_options: dict[str, Any],
) -> GenerationExplanation:
    """Explain every generated token; :meth:`hf_mambalrp.MambaLRPMixin.explain_generation` documents the arguments."""
    call = subject.begin("explain_generation", tokenizer)
    network, tokenizers = call.network, call.tokenizers
    if not network.is_language_model:
        raise UnknownArchitectureError(
            f"{type(network.model).__name__} does not generate, as explain_generation needs. Use explain()."
        )
    method = method_named(options.method)
    if method.rules is None:
        raise OptionError(f"Method {options.method!r} is not one modified gradient, which explain_generation needs.")
    of_method = {name: value for name, value in generate_options.items() if name in method.options}
    options = replace(options, method_options=of_method).checked(call.name)
    rules = method.rules(**options.method_options)
    wanted = {name: generate_options[name] for name in generate_options if name not in {*TOKENIZER_EXTRAS, *of_method}}
    writing = Writing(subject.model, network, tokenizers, _checked(max_new_tokens), wanted)
    batch = call.read(inputs, input_ids, attention_mask)
    if options.check_forward:
        call.check_forward()
    assert batch.input_ids is not None
    rather = _contrast(contrast, call, batch)
    prompts = [row[kept != 0] for row, kept in zip(batch.input_ids, batch.attention_mask, strict=True)]
    written = writing.behind(prompts)
    rows = [torch.cat(both) for both in zip(prompts, written, strict=True)]
    before = torch.tensor([len(prompt) for prompt in prompts])
    generated = pad_right(written, 0)
    steps = generated.shape[1]

    # Explained with the padding behind them: before them, what biases of in_proj put there would be read.
    positions = torch.minimum(before[:, None] - 1 + torch.arange(steps), torch.tensor([[len(row) - 1] for row in rows]))
    embeddings = network.embed(pad_right(rows, 0))
    problem = options.problem(network, embeddings, _ones(rows), positions, _unscored)
    alive = _ones(written).to(embeddings.dtype)

    def every_step(chunked: Problem) -> list[Relevance]:
        forward = Forward(chunked, rules, reusable=True)
        explained: list[Relevance] = []
        for step in patient_bar(range(steps), "explain: generated tokens", "token"):
            found = forward.explain(_TokenLogit(step, generated, alive, rather))
            # Logits are of the forward and so the same in every step: they are kept once.
            explained.append(replace(found, logits=explained[0].logits) if explained else found)
        return explained

    found = by_chunks(problem, rules, every_step)

    logits = found[0].logits.cpu()
    probability = logits.float().softmax(-1).gather(-1, generated[:, :, None])[:, :, 0] * alive.float()
    prompt_length = int(before.max())
    ids, mask = (_ending_at(values, before, prompt_length, steps) for values in (pad_right(rows, 0), _ones(rows)))
    relevance = _ending_at(torch.stack([step.tokens for step in found], 1), before, prompt_length, steps)
    score, biases = torch.stack([step.score for step in found], 1), torch.stack([step.biases for step in found], 1)
    of_softmax = [step.softmax for step in found if step.softmax is not None]
    softmax = torch.stack(of_softmax, 1) if of_softmax else None
    texts = describe(ids, mask, None, tokenizers.vocabulary())
    others = None if rather is None else rather(logits, generated) * _ones(written)
    named = None if others is None else describe(others, torch.ones_like(others), None, tokenizers.vocabulary())
    return GenerationExplanation(
        relevance=relevance,
        tokens=texts.tokens,
        input_ids=ids,
        attention_mask=mask,
        prompt_length=prompt_length,
        score=score,
        probability=probability,
        method=options.method,
        conservation=Conservation(score, relevance.sum(-1), biases, softmax),
        offsets=texts.offsets,
        texts=texts.texts,
        model_id=model_id(network),
        versions=versions(),
        method_options=options.recorded(network),
        contrast_ids=others,
        contrast_tokens=None if named is None else named.tokens,
    )


Contrast = Callable[[Tensor, Tensor], Tensor]
"""From logits (B, T, V) and the generated ids (B, T) to the ids that they are compared with."""


def _contrast(value: Any, call: Call, batch: Batch) -> Contrast | None:
    """What every generated token is compared with. TargetError, OptionError: it is not one token."""
    if value is None:
        return None
    if isinstance(value, str) and value == RUNNER_UP:
        return _runner_up
    outputs = Outputs(call.network, call.tokenizers, batch, last_attended(batch.attention_mask))
    found = resolve_target(value, "contrast", len(batch), outputs).ids
    if found is None:
        raise OptionError(
            f"contrast={brief(value)} is a function; explain_generation compares with a token: give its id, its text, "
            f"one a row, or {RUNNER_UP!r}."
        )
    for row, ids in enumerate(found):
        if len(ids) > 1:
            raise TargetError(
                f"contrast={brief(value)} has {len(ids)} tokens in row {row}, and every generated token is compared "
                f"with one. Give one token's id or text, or {RUNNER_UP!r}."
            )
    fixed = torch.tensor(found)
    return lambda logits, ids: fixed.to(ids.device).expand_as(ids)


def _runner_up(logits: Tensor, ids: Tensor) -> Tensor:
    return logits.detach().scatter(-1, ids[..., None], -torch.inf).argmax(-1)


class _TokenLogit:
    """The logit of one generated token, less its contrast's if there is one; 0 for rows that have ended."""

    def __init__(self, step: int, generated: Tensor, alive: Tensor, contrast: Contrast | None) -> None:
        self.step, self.ids, self.alive = step, generated[:, step : step + 1], alive[:, step]
        self.contrast = contrast

    def __call__(self, logits: Tensor) -> Tensor:
        here, ids = logits[:, self.step : self.step + 1], self.ids.to(logits.device)
        score = here.gather(-1, ids[..., None])
        if self.contrast is not None:
            score = score - here.gather(-1, self.contrast(here, ids)[..., None])
        return score[:, 0, 0] * self.alive.to(logits.device)


def _unscored(logits: Tensor) -> Tensor:
    raise AssertionError("a generation is explained step by step")


def _ones(rows: list[Tensor]) -> Tensor:
    """The mask of rows padded on the right. Shape: (B, L)."""
    return pad_right([torch.ones_like(row) for row in rows], 0)


def _ending_at(values: Tensor, before: Tensor, prompt_length: int, steps: int) -> Tensor:
    """Rows of which ``before`` (B,) are of the prompt, moved so that all prompts end together.

    Shape: (B, ..., L) -> (B, ..., prompt_length + steps).
    """
    rows = []
    for row, own in zip(values, before.tolist(), strict=True):
        kept = row[..., : own + steps]
        rows.append(pad(kept, (prompt_length - own, own + steps - kept.shape[-1])))
    return torch.stack(rows)


def _checked(max_new_tokens: int | None) -> int | None:
    number = integers(max_new_tokens)
    if max_new_tokens is not None and (number is None or number.ndim or number < 1):
        raise OptionError(f"max_new_tokens={brief(max_new_tokens)} is not allowed; give a number from 1 up.")
    return None if number is None else int(number)
