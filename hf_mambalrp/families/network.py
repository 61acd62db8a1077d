"""A model seen through its family's table: embedding, blocks and head as functions, the model itself untouched.

The forward is written out here instead of patched into the model: transformers' mixers read weights without calling
the sub-modules that hold them and take a fused branch in training mode, so hooks do not fire, and nothing that is not
changed has to be restored, whatever thread or exception comes in between.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from accelerate.utils import align_module_device
from torch import Tensor, nn

from hf_mambalrp.errors import BackendError, CheckpointError, DetachedLayerError, UnknownArchitectureError
from hf_mambalrp.families.base import Family, State
from hf_mambalrp.ops.gpu import triton_declines
from hf_mambalrp.rules import MAMBALRP, NO_RULES, Rules
from hf_mambalrp.rules.adapters import effective, innermost
from hf_mambalrp.rules.biases import BiasLedger
from hf_mambalrp.rules.fused import fused_norm
from hf_mambalrp.rules.linear import NoGradient, linear
from hf_mambalrp.rules.mixer import Signals
from hf_mambalrp.rules.twin import in_evaluation, uncompiled

FUSED = ("triton", "mamba_ssm")
"""Backends whose mixers are fused kernels."""
ROUNDING, HALF_ROUNDING = 1e-4, 5e-2
FLOAT32_BYTES = 4
NORM_PARTS = ("weight", "variance_epsilon")
MIXER_PARTS = ("in_proj", "conv1d", "A_log", "D", "out_proj")
"""What the rules read of every norm and mixer."""
SHARDED = (
    "sharded over processes (FSDP, tensor parallelism), and an explanation reads them whole. Explain a copy that was "
    'loaded with device_map="auto", or the checkpoint saved from it.'
)


class Network:
    """One loaded model of one family.

    Arithmetic is in ``dtype``: float32, or float64 for a float64 model. Half-precision weights are cast where they are
    used. Fused kernels keep the residual stream, states and sums in float32, and for a bfloat16 model the signals
    between matrix products in bfloat16.
    """

    def __init__(self, model: nn.Module, families: dict[str, Family]) -> None:
        self.model = base_model(model)
        self.family = self._family(families)
        self.backbone: nn.Module = getattr(self.model, self.family.backbone)
        self.head = self._head()
        self.layers: list[nn.Module] = list(getattr(self.backbone, self.family.layers))
        self.embeddings: nn.Module = getattr(self.backbone, self.family.embeddings)
        self.norms: list[Any] = [effective(getattr(block, self.family.block_norm)) for block in self.layers]
        self.mixers: list[Any] = [effective(getattr(block, self.family.block_mixer)) for block in self.layers]
        self.final_norm: Any = effective(getattr(self.backbone, self.family.final_norm))
        self._check_parts()
        if execution_device(self.embeddings).type == "meta":
            raise CheckpointError(
                f"This {type(self.model).__name__} is on the meta device and has no weights. Load it with "
                "from_pretrained."
            )
        weight: Tensor = innermost(self.embeddings).weight
        self.vocabulary_size, self.hidden_size = weight.shape
        self.dtype = torch.promote_types(weight.dtype, torch.float32)
        half = weight.dtype == torch.bfloat16
        self.signal_dtype = torch.bfloat16 if half else torch.float32  # float16 would lose small gradients
        activation = getattr(self.config, "hidden_act", "silu")
        if activation not in ("silu", "swish"):
            raise UnknownArchitectureError(
                f"This model uses hidden_act={activation!r}; the identity rule is defined for 'silu' here. "
                "Explaining another activation needs a rule of its own in hf_mambalrp/rules/activation.py."
            )

    @property
    def config(self) -> Any:
        """The model's own configuration."""
        return self.model.config

    @property
    def is_language_model(self) -> bool:
        """Whether a position predicts its next token; otherwise a row has one prediction."""
        return hasattr(self.model, "lm_head")

    @property
    def num_outputs(self) -> int:
        """V: tokens of a language model, classes of a classifier."""
        size: int = self.config.vocab_size if self.is_language_model else self.config.num_labels
        return size

    def beyond_rounding(self, gaps: Tensor, sizes: Tensor) -> Tensor:
        """Which gaps between a score and its sum are beyond rounding, by the ``sizes`` of what is summed."""
        beyond = gaps.abs() > ROUNDING * sizes
        return gaps.abs() > HALF_ROUNDING * sizes if beyond.any() and self.has_short_weights() else beyond

    def has_short_weights(self) -> bool:
        """Whether some of its weights have fewer bits than float32."""
        return any(p.element_size() < FLOAT32_BYTES for p in self.model.parameters())

    def embed(self, input_ids: Tensor) -> Tensor:
        """Token embeddings in ``dtype``. Shape: (B, L) -> (B, L, D)."""
        with torch.no_grad(), align_module_device(self.embeddings):
            embedded: Tensor = in_evaluation(self.embeddings)(input_ids.to(execution_device(self.embeddings)))
        return embedded.to(self.dtype)

    def initial_states(self, like: Tensor) -> list[State]:
        """Every mixer's state before the first token of a batch like ``like`` (B, L, D)."""
        states = []
        for mixer in self.mixers:
            on_device = like.new_empty(0, device=execution_device(mixer))
            states.append(self.family.initial_state(mixer, like.shape[0], on_device))
        return states

    def kept_bytes(self, rules: Rules, backend: str) -> int:
        """Bytes a forward keeps for its backward, per row and position."""
        total = 0
        for mixer in self.mixers:
            fused = self.resolved(backend, execution_device(mixer), rules) in FUSED
            size = (self.signal_dtype if fused else self.dtype).itemsize
            total += self.family.kept_per_position(mixer, rules) * size
        return total

    def block(
        self,
        index: int,
        hidden: Tensor,
        mask: Tensor | None,
        state: State,
        rules: Rules,
        ledger: BiasLedger,
        backend: str,
    ) -> tuple[Tensor, State]:
        """h + mixer(norm(h)). Shape: (B, L, D) -> (B, L, D)."""
        norm, mixer = self.norms[index], self.mixers[index]
        hidden = hidden.to(execution_device(mixer))
        mask = None if mask is None else mask.to(hidden.device)
        backend = self.resolved(backend, hidden.device, rules)
        with self._naming_layers():
            if backend in FUSED:
                with align_module_device(norm):
                    normed = fused_norm(norm, hidden, self.signal_dtype)
                mixed, state = self.family.fused_mixer(mixer, normed, mask, state, ledger, backend)
            else:
                with align_module_device(norm):
                    normed = self.family.norm(norm, hidden, rules)
                mixed, state = self.family.mixer(mixer, normed, mask, state, rules, ledger, backend)
        return hidden + mixed, state

    def signals(self, index: int, hidden: Tensor, mask: Tensor | None) -> Signals:
        """The mixer of a block as a linear map, from the residual stream (B, L, D) before the block."""
        norm, mixer = self.norms[index], self.mixers[index]
        hidden = hidden.detach().to(execution_device(mixer))
        with align_module_device(norm):
            normed = self.family.norm(norm, hidden, NO_RULES)
        return self.family.signals(mixer, normed, None if mask is None else mask.to(hidden.device))

    def resolved(self, backend: str, device: torch.device, rules: Rules) -> str:
        """ "auto" on a GPU where the fused kernels can run is "triton"; other names stay what they are.

        Rules change the backward alone, so without a graph the fused kernels serve every method.

        Raises:
            BackendError: fused kernels were asked for and cannot run here.
        """
        if backend != "auto" and backend not in FUSED:
            return backend
        reason = triton_declines(device, self.dtype)
        if rules != MAMBALRP and torch.is_grad_enabled():
            reason = "its kernels are method='mambalrp'; other methods need backend='chunked'"
        if backend == "auto":
            return "triton" if reason is None and device.type == "cuda" else "auto"
        if reason is not None:
            raise BackendError(f"backend={backend!r} cannot run here: {reason}.")
        return backend

    def logits(self, hidden: Tensor, rules: Rules, ledger: BiasLedger) -> Tensor:
        """Final norm and head. Shape: (B, K, D) -> (B, K, V)."""
        norm = self.final_norm
        hidden = hidden.to(execution_device(norm))
        with align_module_device(norm):
            normed = self.family.norm(norm, hidden, rules)
        with self._naming_layers():
            return linear(self.head, normed.to(execution_device(self.head)), ledger)

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

    def _check_parts(self) -> None:
        """Refuse modules in the place of norms and mixers that do not hold what the rules read.

        Raises:
            UnknownArchitectureError: names the module.
        """
        several = torch.distributed.is_available() and torch.distributed.is_initialized()
        if several and any(hasattr(parameter, "full_tensor") for parameter in self.model.parameters()):
            raise UnknownArchitectureError(f"The weights of this {type(self.model).__name__} are {SHARDED}")
        for parts, wanted in (([*self.norms, self.final_norm], NORM_PARTS), (self.mixers, MIXER_PARTS)):
            for part in parts:
                missing = [name for name in wanted if not hasattr(part, name)]
                if missing:
                    raise UnknownArchitectureError(
                        f"{self._name_of(part)} is a {type(part).__name__} without {missing}, which no rule of "
                        f"{self.family.model_type!r} describes. Merge adapters into the model first "
                        "(model.merge_and_unload()), or put the original module back."
                    )

    def _family(self, families: dict[str, Family]) -> Family:
        model_type = getattr(getattr(self.model, "config", None), "model_type", None)
        family = families.get(model_type or "")
        if family is None or not hasattr(self.model, family.backbone):
            raise UnknownArchitectureError(_unknown(self.model, model_type, families))
        return family

    def _head(self) -> nn.Module:
        heads: list[nn.Module] = [getattr(self.model, name) for name in self.family.heads if hasattr(self.model, name)]
        if len(heads) != 1:
            raise UnknownArchitectureError(
                f"{type(self.model).__name__} has no head to explain: expected one of {list(self.family.heads)}. "
                "Load the model with its language-model or sequence-classification class."
            )
        return heads[0]


def base_model(model: nn.Module) -> nn.Module:
    """The transformers model inside wrappers of PEFT, whose adapters sit in its own layers, and of torch.compile."""
    unwrap = getattr(model, "get_base_model", None)
    inner: nn.Module = uncompiled(unwrap() if callable(unwrap) else model)
    return inner


def _unknown(model: Any, model_type: str | None, families: dict[str, Family]) -> str:
    """Why there are no rules for ``model``, and what to do."""
    name = type(model).__name__
    if not isinstance(model, nn.Module):
        holds = isinstance(getattr(model, "model", None), nn.Module)
        remedy = "Pass its .model" if holds else "Load one with AutoMambaLRPForCausalLM.from_pretrained(...)"
        return f"Only a loaded model has rules (known: {sorted(families)}), and this is a {name}. {remedy}."
    if name == "FullyShardedDataParallel":
        return f"The weights in a {name} are {SHARDED}"
    if isinstance(getattr(model, "module", None), nn.Module):
        return f"{name} wraps a model: pass its .module. (Known model types: {sorted(families)}.)"
    if model_type in families:
        return (
            f"{name} has no head, so there is no prediction to explain. Load its checkpoint with "
            "AutoMambaLRPForCausalLM or AutoMambaLRPForSequenceClassification."
        )
    return (
        f"No rules for {name} (model_type {model_type!r}). Known model types with a language-model or classification "
        f"head: {sorted(families)}. Nothing was explained; a new family is a table in hf_mambalrp/families/."
    )


def execution_device(module: nn.Module) -> torch.device:
    """Where the module computes: its hook's device under offload, else that of its parameters.

    Layers without parameters hold packed codes, as those of ``quantize_dynamic``, which compute on the CPU.
    """
    hook = getattr(module, "_hf_hook", None)
    device = getattr(hook, "execution_device", None)
    if device is not None:
        return torch.device(device)
    parameter: Tensor | None = next(module.parameters(), None)
    return torch.device("cpu") if parameter is None else parameter.device
