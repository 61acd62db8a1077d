"""What a model writes behind each row of a batch: what it writes behind that row alone, by its own ``generate``."""

import copy
import inspect
from collections import defaultdict
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, GenerationMixin

from hf_mambalrp.calls.inputs import TokenizerSource, brief
from hf_mambalrp.errors import OptionError
from hf_mambalrp.families import Network
from hf_mambalrp.families.modules import execution_device
from hf_mambalrp.methods.memory import out_of_memory

NEW_TOKENS = 20
"""At most, where nobody says otherwise."""
METADATA = {"transformers_version", "_from_model_config"}
"""What a configuration says of itself."""
OF_EXPLAIN = ("target", "position", "per_layer", "inputs_embeds")
"""Arguments of ``explain`` that a generation has no use for."""
MODES = {"assistant_tokenizer", "trust_remote_code"}
"""What ``generate`` takes besides its parameters and those of its configuration."""
CALLED = {"stopping_criteria", "logits_processor"}
"""Options that are objects of the caller's, which see a batch."""
TOGETHER = {
    *("max_new_tokens", "max_length", "min_new_tokens", "min_length", "eos_token_id", "pad_token_id", "bos_token_id"),
    *("do_sample", "temperature", "top_k", "top_p", "min_p", "typical_p", "repetition_penalty", "no_repeat_ngram_size"),
    "use_cache",
}
"""Settings under which rows of one length may be written in one call: a row ends at its first end token, or with all.

Anything else may end a row in a way that is not seen in what is returned, or see the other rows.
"""


class Writing:
    """How to write: the caller's arguments over the caller's configuration over the model's own over 20 tokens.

    Args:
        model: what is generated with.
        network: the same, as its family has it.
        tokenizers: read ``stop_strings``.
        max_new_tokens: of the call; None leaves it to the configurations.
        options: what else the caller gave for ``generate``.

    Raises:
        OptionError: an option that generate does not know, or that makes other than one sequence a row.
    """

    def __init__(
        self,
        model: Any,
        network: Network,
        tokenizers: TokenizerSource,
        max_new_tokens: int | None,
        options: Mapping[str, Any],
    ) -> None:
        self.model, self.network, self.options = model, network, dict(options)
        config = self.options.pop("generation_config", None)
        if not isinstance(config, GenerationConfig | None):
            raise OptionError(
                f"generation_config={brief(config)} is a {type(config).__name__}; give a transformers.GenerationConfig."
            )
        own = getattr(model, "generation_config", None)
        _check_names(self.options, own)
        given = {**_said(config), **self.options}
        self.given = sorted(given)
        said = {**_said(own), **given}
        self.said = {name: value for name, value in said.items() if value is not None and value is not False}
        if self.said.get("num_return_sequences", 1) != 1 or self.said.get("token_healing"):
            raise OptionError(
                "explain_generation explains one sequence a row, behind the prompt as it is: no num_return_sequences "
                "above 1 (give the text several times) and no token_healing."
            )
        ours: dict[str, Any] = {"pad_token_id": self._padding()}  # of rows that have ended: not read, but looked up
        if max_new_tokens is not None or not {"max_new_tokens", "max_length"} & self.said.keys():
            ours["max_new_tokens"] = NEW_TOKENS if max_new_tokens is None else max_new_tokens
        if config is None:
            self.options |= ours
        else:
            self.options["generation_config"] = config = copy.deepcopy(config)
            config.update(**ours)
        if self.said.get("stop_strings"):
            self.options["tokenizer"] = tokenizers.get("to find stop_strings")

    def behind(self, prompts: list[Tensor]) -> list[Tensor]:
        """The tokens written behind each prompt (L,), up to and including the last of its own.

        Padding is never seen by ``generate``: rows of one length go together where nothing but end tokens can end one
        before the others, all other rows alone.
        """
        groups = defaultdict(list)
        for row, prompt in enumerate(prompts):
            groups[len(prompt) if self.said.keys() <= TOGETHER else -row - 1].append(row)
        found: dict[int, Tensor] = {}
        for rows in groups.values():
            found |= zip(rows, self._written(rows, torch.stack([prompts[row] for row in rows])), strict=True)
        return [found[row] for row in range(len(prompts))]

    def _written(self, rows: list[int], prompts: Tensor) -> list[Tensor]:
        options = dict(self.options)
        allowed = options.get("prefix_allowed_tokens_fn")
        if allowed is not None:
            options["prefix_allowed_tokens_fn"] = lambda _, ids: allowed(rows[0], ids)
        device = execution_device(self.network.embeddings)
        try:
            returned = self.model.generate(
                input_ids=prompts.to(device), attention_mask=torch.ones_like(prompts, device=device), **options
            )
        except (ValueError, TypeError, AttributeError, LookupError, OSError, RuntimeError) as error:
            if out_of_memory(error):
                raise
            called = " (These are called with one row at a time.)" if options.keys() & CALLED else ""
            raise OptionError(
                f"generate() cannot do this with {self.given}: {error}{called} Leave out or change what it names."
            ) from error
        sequences = getattr(returned, "sequences", returned).cpu()
        length = prompts.shape[1]
        if sequences.shape[0] != len(rows) or not torch.equal(sequences[:, :length], prompts):
            raise OptionError(
                f"generate() returned {tuple(sequences.shape)} ids that do not begin with the {tuple(prompts.shape)} "
                "of the prompt, so they cannot be explained. Leave out what makes it return others "
                f"({self.given})."
            )
        if len(rows) == 1:
            return [sequences[0, length:]]
        return [row[: _length(row, self._end_ids())] for row in sequences[:, length:]]

    def _end_ids(self) -> list[int]:
        # An argument that is None means no end, whatever the configurations say.
        end = self.options.get("eos_token_id", self.said.get("eos_token_id"))
        return [] if end is None else torch.as_tensor(end).flatten().tolist()

    def _padding(self) -> int:
        """What was asked for, else an end token; 0 where the embedding has no such id."""
        wanted = [self.said.get("pad_token_id"), *self._end_ids()]
        known = (int(i) for i in wanted if i is not None and 0 <= int(i) < self.network.vocabulary_size)
        return next(known, 0)


def _length(ids: Tensor, end_ids: list[int]) -> int:
    """Number of ids up to and including the first end token."""
    ends = torch.isin(ids, torch.tensor(end_ids, dtype=torch.long)).nonzero().flatten()
    return int(ends[0]) + 1 if len(ends) else len(ids)


def _said(config: GenerationConfig | None) -> dict[str, Any]:
    """What a configuration says other than transformers' defaults."""
    said = {} if config is None else config.to_diff_dict()
    return {name: value for name, value in said.items() if name not in METADATA}


def _check_names(options: Mapping[str, Any], own: GenerationConfig | None) -> None:
    """Raise for what ``generate`` would pass on to the model, or not know."""
    misplaced = sorted(options.keys() & {*OF_EXPLAIN})
    if misplaced:
        raise OptionError(
            f"explain_generation() has no {misplaced}: it explains the logit of every token that is generated behind "
            "ids or texts. To explain another token, call explain(text, target=...)."
        )
    parameters = {*inspect.signature(GenerationMixin.generate).parameters} - {"self", "inputs", "kwargs"}
    known = parameters | MODES | vars(GenerationConfig()).keys() | (set() if own is None else vars(own).keys())
    unknown = sorted(options.keys() - known)
    if unknown:
        close = [match for name in unknown for match in get_close_matches(name, known, 1)]
        meant = f" Did you mean {', '.join(close)}?" if close else ""
        raise OptionError(f"explain_generation() got {unknown}, which neither it nor generate() knows.{meant}")
