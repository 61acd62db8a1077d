"""A model seen through its family's table: embedding, blocks and head as functions, the model itself untouched.

The forward is written out here instead of patched into the model: transformers' mixers read weights without calling
the sub-modules that hold them and take a fused branch in training mode, so hooks do not fire, and nothing that is not
changed has to be restored, whatever thread or exception comes in between.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any
from weakref import ref

import torch
from torch import Tensor, nn

from hf_mambalrp.attention import Mixing
from hf_mambalrp.errors import BackendError, CheckpointError, DetachedLayerError, UnknownArchitectureError
from hf_mambalrp.families.base import (
    FUSED,
    HEADS,
    Branch,
    Family,
    Head,
    Part,
    State,
    Stem,
    Step,
    Stream,
    is_mixer,
    tapped,
)
from hf_mambalrp.families.lookup import SHARDED, family_of
from hf_mambalrp.families.modules import base_model, execution_device, is_recordable, walk
from hf_mambalrp.families.padding import keys_of, padding_of
from hf_mambalrp.families.parts.norm import RMSNorm
from hf_mambalrp.families.parts.reading import UnknownActivation, UnreadableModule, scaled
from hf_mambalrp.families.parts.stems import Tokens
from hf_mambalrp.families.recordings import Recordings
from hf_mambalrp.ops.backend import kernels_decline
from hf_mambalrp.rules import NO_RULES, Rules
from hf_mambalrp.rules.activation import softcap
from hf_mambalrp.rules.biases import BiasLedger
from hf_mambalrp.rules.constant import constant
from hf_mambalrp.rules.linear import NoGradient, linear
from hf_mambalrp.rules.twin import is_hooked

ROUNDING, HALF_ROUNDING = 1e-4, 5e-2
"""Largest gap between a score and its sum, by the size of what is summed; the latter with weights below 32 bits."""
HALF_LOGIT = 1e-2
"""The same by the largest logit: with such weights none is known better, and a score near zero is one of them."""
FLOAT32_BYTES = 4


class Network:
    """One loaded model of one family.

    Arithmetic is in ``dtype``: float32, or float64 for a float64 model. Half-precision weights are cast where they are
    used. Fused kernels keep the residual stream, states and sums in float32, and for a bfloat16 model the signals
    between matrix products in bfloat16.
    """

    def __init__(self, model: nn.Module, families: dict[str, Family], *, weakly: bool = False) -> None:
        inner = base_model(model)
        self.family = family_of(inner, families)
        # Weakly where it stands in the model itself: a circle would keep a GPU's memory until it is collected.
        self._model: Callable[[], nn.Module | None] = ref(inner) if weakly else lambda: inner
        linear_head = self._linear_head()
        self.is_language_model = hasattr(inner, "lm_head")
        """Whether a position predicts its next token; otherwise a row has one prediction."""
        self._check_whole()
        try:
            self.stem: Stem = self.family.stem(self.model)
            self.layers = [
                tuple(branch for branch in branches if branch is not None)
                for branches in self.family.layers(self.model)
            ]
            self.head: Head = self.family.head(self.model, linear_head)
        except UnreadableModule as error:
            raise UnknownArchitectureError(
                f"{self._name_of(error.module)} is a {type(error.module).__name__} without {error.missing}, which no "
                f"rule of {self.family.model_type!r} describes. Merge adapters into the model first "
                "(model.merge_and_unload()), or put the original module back."
            ) from None
        except UnknownActivation as error:
            raise UnknownArchitectureError(
                f"{self._name_of(error.module)} uses the activation {error.name!r}; the identity rule is defined for "
                f"{error.known} there. Explaining another activation needs a factor of its own in "
                "hf_mambalrp/rules/activation.py."
            ) from None
        except AttributeError as error:
            raise UnknownArchitectureError(
                f"{type(self.model).__name__} is said to be a {self.family.model_type!r} and has no {error.name!r} as "
                f"transformers' {self.family.model_type!r} has. Load the checkpoint with transformers' own class."
            ) from error
        self.parameters: list[nn.Parameter] = list(self.model.parameters())
        self._kept: dict[Any, int] = {}
        self._shapes_of: dict[int, list[State]] = {}
        self.weight_bytes: Counter[torch.device] = Counter()
        """Bytes of the weights on every device."""
        for parameter in self.parameters:
            self.weight_bytes[parameter.device] += parameter.numel() * parameter.element_size()
        self.parts: list[Part] = [term.part for layer in self.layers for branch in layer for term in branch.terms]
        self.mixes = frozenset(part.mixes for part in self.parts if is_mixer(part))
        """The kinds of what mixes positions, as :attr:`Mixer.mixes` names them."""
        self._tail = _tail(self.layers[-1])
        self.appends = any(part.appends for part in self.parts)
        """Whether a part's state grows with the text."""
        same_work = all(part.recordable for part in self.parts)
        self.recordings = Recordings(same_work and is_recordable(self.model) and len(self.weight_bytes) == 1)
        self.causal = all(part.causal for part in self.parts)
        """Whether no position reads one behind it; otherwise the positions go whole."""
        self.embeddings: nn.Module = self.stem.module
        if execution_device(self.embeddings).type == "meta":
            raise CheckpointError(
                f"This {type(self.model).__name__} is on the meta device and has no weights. Load it with "
                "from_pretrained."
            )
        weight, self.hidden_size = self.stem.weight, self.stem.hidden_size
        self.dtype = torch.promote_types(weight.dtype, torch.float32)
        half = weight.dtype == torch.bfloat16
        self.signal_dtype = torch.bfloat16 if half else torch.float32  # float16 would lose small gradients

    @property
    def model(self) -> nn.Module:
        """The transformers model."""
        model = self._model()
        assert model is not None, "the model of this network is gone"
        return model

    @property
    def config(self) -> Any:
        """The model's own configuration."""
        return self.model.config

    @property
    def num_outputs(self) -> int:
        """V: tokens of a language model, classes of a classifier."""
        size: int = self.config.vocab_size if self.is_language_model else self.config.num_labels
        return size

    def beyond_rounding(self, gaps: Tensor, sizes: Tensor, logits: Tensor) -> Tensor:
        """Which gaps (..., B) between scores and their sums are beyond rounding.

        Args:
            gaps: the gaps.
            sizes: (..., B) of what is summed.
            logits: (B, K, V), of which the largest of a row counts.
        """
        beyond = gaps.abs() > ROUNDING * sizes
        if not (beyond.any() and self.has_short_weights()):
            return beyond
        beyond = gaps.abs() > HALF_ROUNDING * sizes
        if not beyond.any():
            return beyond
        return beyond & (gaps.abs() > HALF_LOGIT * logits.abs().flatten(1).amax(1).to(gaps))

    def has_short_weights(self) -> bool:
        """Whether some of its weights have fewer bits than float32."""
        return any(p.element_size() < FLOAT32_BYTES for p in self.parameters)

    @property
    def vocabulary_size(self) -> int:
        """How many token ids its stem reads."""
        assert isinstance(self.stem, Tokens), "a model of images has no vocabulary"
        return self.stem.vocabulary_size

    def embed(self, inputs: Tensor) -> Tensor:
        """What the first layer reads, in ``dtype``: (B, L, D) of ids (B, L), or pixels (B, C, height, width)."""
        with torch.no_grad():
            return self.stem(inputs.to(execution_device(self.embeddings))).to(self.dtype)

    def entered(self, embeddings: Tensor) -> Tensor:
        """What the first layer reads of embeddings that a caller gives the model. Shape: (B, L, D) -> (B, L, D)."""
        return self.stem.entered(constant(embeddings, self.dtype))

    def initial_states(self, like: Tensor) -> list[State]:
        """Every part's state before the first position of a batch like ``like`` (B, L, D): zeros.

        They are views of one tensor a device: to fill each by itself takes a GPU as long as to fill all.
        """
        sizes: Counter[torch.device] = Counter()
        places = []
        for part, state in zip(self.parts, self._shapes(like.shape[0]), strict=True):
            device, own = execution_device(part.module), []
            for one in state:
                own.append((one.shape, one.stride(), sizes[device]))
                sizes[device] += one.numel()
            places.append((type(state), device, own))
        zeros = {device: like.new_zeros(size, device=device) for device, size in sizes.items()}
        return [kind(*(zeros[device].as_strided(*place) for place in own)) for kind, device, own in places]

    def _shapes(self, batch: int) -> list[State]:
        """Every part's state without memory."""
        if batch not in self._shapes_of:
            like = torch.empty(0, device="meta")
            self._shapes_of[batch] = [part.state(batch, like) for part in self.parts]
        return self._shapes_of[batch]

    def kept_bytes(self, rules: Rules, backend: str) -> int:
        """Bytes a forward keeps for its backward, per row and position."""
        key = rules, backend, torch.is_grad_enabled()
        if key not in self._kept:
            total = 0
            for part in self.parts:
                fused = self.resolved(backend, execution_device(part.module), rules) in FUSED
                total += part.kept(rules) * (self.signal_dtype if fused else self.dtype).itemsize
            self._kept[key] = total
        return self._kept[key]

    def layer(
        self, index: int, stream: Stream, states: list[State], step: Step, at: Tensor | None = None
    ) -> tuple[Stream, list[State]]:
        """The branches of a layer, one after the other, with its parts' states. Shape: (B, L, D) -> (B, L, D).

        Of the last layer it may be asked for ``at`` some positions (B, K) alone, (B, K, D): what no longer mixes
        positions then does not compute the others.
        """
        found: list[State] = []
        aside: Tensor | None = None
        with self._naming_layers():
            for number, branch in enumerate(self.layers[index]):
                if at is not None and number in self._tail:
                    aside = None if aside is None else picked(aside, at)
                    stream, at = stream.of_each(partial(picked, at=at)), None
                own = states[len(found) : len(found) + len(branch.terms)]
                stream, aside, behind = self._branch((index, number), stream, aside, own, step)
                found += behind
        return stream if at is None else stream.of_each(partial(picked, at=at)), found

    def routes(self, index: int) -> bool:
        """Whether a router of this layer chooses experts."""
        return any(term.part.kind == "experts" for branch in self.layers[index] for term in branch.terms)

    def _branch(
        self, place: tuple[int, int], stream: Stream, aside: Tensor | None, states: list[State], step: Step
    ) -> tuple[Stream, Tensor | None, list[State]]:
        """A branch: the stream behind it, what it puts aside for the next, its parts' states."""
        branch = self.layers[place[0]][place[1]]
        stream, local = self._placed(branch, stream, step, place)
        hidden, x = _entered(branch, stream, aside, local)
        if local.taps is not None and local.embeddings is not None:
            local = local._replace(embeddings=tapped(local, "embeddings", local.embeddings))
        outputs, behind = [], []
        for term, state in zip(branch.terms, states, strict=True):
            if x is None or local.taps is not None:  # which each part then reads by a name of its own
                x = _read(branch, tapped(local, term.part.kind, hidden), aside, local)
            y, after = term.part(scaled(x, term.before).to(execution_device(term.part.module)), state, local)
            y = tapped(local, term.part.kind, y, output=True)
            outputs.append(scaled(y, term.after).to(hidden.device))
            behind.append(after)
        out = sum(outputs[1:], outputs[0])
        out = scaled(out if branch.post is None else branch.post(out, local), branch.scale)
        if branch.aside:
            return Stream(hidden), out, behind
        skip = tapped(local, "skip", hidden)
        if branch.past is not None:
            if x is None or local.taps is not None or x.dtype != skip.dtype:  # otherwise it is what the parts read
                x = _read(branch, skip, aside, local._replace(dtype=skip.dtype))
            skip = scaled(x, branch.past)
        fused = local.backend in FUSED and local.taps is None
        return Stream(skip, out) if fused else Stream(skip + out), None, behind

    def states_of(self, states: list[State]) -> Iterator[list[State]]:
        """The states of every layer's parts, layer by layer, from those of all parts."""
        start = 0
        for layer in self.layers:
            count = sum(len(branch.terms) for branch in layer)
            yield states[start : start + count]
            start += count

    def streams(self, hidden: Tensor, step: Step) -> Iterator[Tensor]:
        """The residual stream of a whole text before each layer, from the embeddings on, and behind the last.

        Each is computed when it is asked for. Shape: (B, L, D) each.
        """
        yield hidden
        for layer, states in enumerate(self.states_of(self.initial_states(hidden))):
            hidden = self.layer(layer, Stream(hidden), states, step)[0].whole
            yield hidden

    def plain_step(self, mask: Tensor, embeddings: Tensor) -> Step:
        """The step of a forward of a whole text without rules, by its mask (B, L)."""
        padding, keys = padding_of(mask, embeddings), keys_of(mask, embeddings)
        ledger = BiasLedger(len(embeddings))
        return Step(NO_RULES, ledger, padding, embeddings=embeddings, length=embeddings.shape[1], keys=keys)

    def mixings(self, index: int, hidden: Tensor, step: Step) -> list[tuple[tuple[int, int, str], Mixing]]:
        """The parts of a layer that mix positions as linear maps, from the residual stream (B, L, D) before it.

        Each with its place: layer, branch, and what mixes.
        """
        found: list[tuple[tuple[int, int, str], Mixing]] = []
        stream, aside, step = Stream(hidden.detach()), None, step._replace(backend="chunked")
        mixed = [any(is_mixer(term.part) for term in branch.terms) for branch in self.layers[index]]
        with torch.no_grad():
            for number, branch in enumerate(self.layers[index]):
                stream, local = self._placed(branch, stream, step, (index, number))
                x = _read(branch, stream.whole, aside, local)
                for term in branch.terms:
                    if is_mixer(term.part):
                        read = scaled(x, term.before).to(execution_device(term.part.module))
                        found.append(((index, number, term.part.mixes), term.part.mixing(read, local)))
                if not any(mixed[number + 1 :]):
                    break
                states = [term.part.state(len(hidden), stream.h) for term in branch.terms]
                stream, aside, _ = self._branch((index, number), stream, aside, states, step)
        return found

    def modules_of_layer(self, index: int) -> list[nn.Module]:
        """The modules of a layer's norms and parts."""
        found: list[nn.Module] = []
        for branch in self.layers[index]:
            found += [norm.module for norm in (branch.pre, branch.post) if norm is not None]
            found += [term.part.module for term in branch.terms]
        return found

    def _placed(self, branch: Branch, stream: Stream, step: Step, place: tuple[int, int]) -> tuple[Stream, Step]:
        """The stream where a branch computes, and the step with its backend chosen and its tensors there."""
        device = execution_device(branch.terms[0].part.module)
        backend = self.resolved(step.backend, device, step.rules)
        return stream.of_each(lambda one: one.to(device)), step._replace(
            place=place,
            backend=backend,
            dtype=self.signal_dtype if backend in FUSED else self.dtype,
            mask=None if step.mask is None else step.mask.to(device),
            embeddings=None if step.embeddings is None else step.embeddings.to(device),
        )

    def resolved(self, backend: str, device: torch.device, rules: Rules) -> str:
        """ "auto" on a GPU where the fused kernels can run is "triton"; other names stay what they are.

        Rules change the backward alone, so without a graph the fused kernels serve every method.

        Raises:
            BackendError: no op of a part has a backend of this name.
        """
        if backend == "auto":
            fused = device.type == "cuda" and kernels_decline(device, self.dtype, rules) is None
            return "triton" if fused else "auto"
        for part in self.parts:
            if backend not in part.backends:
                raise BackendError(
                    f"This model's scan has no backend {backend!r}. Choose 'auto' or one of {sorted(part.backends)}."
                )
        return backend

    def logits(self, hidden: Tensor, rules: Rules, ledger: BiasLedger) -> Tensor:
        """Final norm and head. Shape: (B, K, D) -> (B, K, V); where the head reads all K side by side, (B, 1, V)."""
        head, step = self.head, Step(rules, ledger, backend="chunked", dtype=self.dtype)
        normed = head.norm(hidden.to(execution_device(head.norm.module)), step)
        with self._naming_layers():
            if head.neck is not None:
                narrow = linear(head.neck.linear, normed.to(execution_device(head.neck.linear)), ledger)
                normed = head.neck.norm(narrow.flatten(1)[:, None], step)
            elif head.positions is not None:
                normed = normed.flatten(1)[:, None]
            logits = scaled(linear(head.linear, normed.to(execution_device(head.linear)), ledger), head.scale)
        return logits if head.cap is None else softcap(logits, head.cap, rules)

    @contextmanager
    def _naming_layers(self) -> Iterator[None]:
        """Give an error of a layer the layer's name."""
        try:
            yield
        except NoGradient as error:
            raise DetachedLayerError(
                f"The output of {self._name_of(error.module)} ({type(error.module).__name__}) does not depend on its "
                "input through differentiable operations, so relevance would end there and nothing was explained. "
                "Explain the model before it is quantised, or with a layer that keeps gradients (no .detach(), no "
                "torch.no_grad(), no integers)."
            ) from None

    def _name_of(self, module: nn.Module) -> str:
        return next((name for name, found in self.model.named_modules() if found is module), "a layer")

    def _check_whole(self) -> None:
        """Refuse weights that are sharded over processes.

        Raises:
            UnknownArchitectureError: they are.
        """
        several = torch.distributed.is_available() and torch.distributed.is_initialized()
        if several and any(hasattr(parameter, "full_tensor") for parameter in self.model.parameters()):
            raise UnknownArchitectureError(f"The weights of this {type(self.model).__name__} are {SHARDED}")

    def _linear_head(self) -> nn.Module:
        heads: list[nn.Module] = [getattr(self.model, name) for name in HEADS if hasattr(self.model, name)]
        if not heads:
            raise UnknownArchitectureError(
                f"{type(self.model).__name__} has no head, so there is no prediction to explain. Load its checkpoint "
                "with AutoMambaLRPForCausalLM or AutoMambaLRPForSequenceClassification."
            )
        if len(heads) > 1:
            raise UnknownArchitectureError(f"{type(self.model).__name__} has several heads: {list(HEADS)}.")
        return heads[0]


def _tail(branches: tuple[Branch, ...]) -> range:
    """The branches at the end of a layer that work position by position; a hook may tell one from another."""
    first = len(branches)
    for number, branch in reversed(list(enumerate(branches))):
        norms = [norm.module for norm in (branch.pre, branch.post) if norm is not None]
        modules = [m for module in [*norms, *(term.part.module for term in branch.terms)] for m in walk(module)]
        if any(is_mixer(term.part) for term in branch.terms) or any(map(is_hooked, modules)):
            break
        first = number
    return range(first, len(branches))


def picked(stream: Tensor, at: Tensor) -> Tensor:
    """(B, L, D) at positions (B, K). Shape: (B, K, D)."""
    return stream.gather(1, at.to(stream.device)[:, :, None].expand(-1, -1, stream.shape[-1]))


def _entered(branch: Branch, stream: Stream, aside: Tensor | None, step: Step) -> tuple[Tensor, Tensor | None]:
    """The stream in one piece; with what the branch reads, where its norm computes both in one pass."""
    if stream.added is None or aside is not None or not isinstance(branch.pre, RMSNorm):
        return stream.whole, None
    return branch.pre.of_sum(stream.h, stream.added, step)


def _read(branch: Branch, hidden: Tensor, aside: Tensor | None, step: Step) -> Tensor:
    """What the parts of a branch read, but for their own factors."""
    x = hidden if aside is None else hidden + aside.to(hidden.device)
    return x.to(step.dtype) if branch.pre is None else branch.pre(x, step)
