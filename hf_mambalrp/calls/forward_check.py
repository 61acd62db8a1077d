"""The self-check: before a model is explained for the first time, our forward is compared with transformers' own.

The forward under the rules is written out by this package, so a release of transformers that computes something else
would make it explain another network. Each block is compared on transformers' own input to it, so that rounding in half
precision does not build up over the layers, and the logits after the last block.
"""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from inspect import signature
from typing import Any
from weakref import ref

import torch
import transformers
from torch import Tensor, nn
from torch.nn.modules import module as torch_modules

from hf_mambalrp.errors import ForwardMismatchError
from hf_mambalrp.families import Network
from hf_mambalrp.families.base import Step, Stream
from hf_mambalrp.families.modules import execution_device
from hf_mambalrp.methods.memory import out_of_memory
from hf_mambalrp.rules import NO_RULES
from hf_mambalrp.rules.biases import BiasLedger
from hf_mambalrp.rules.quantised import is_quantised
from hf_mambalrp.rules.twin import evaluation_twin

TOLERANCE, HALF_TOLERANCE = 5e-3, 5e-2
"""Largest relative difference (a GPU may round float32 products to TF32), and that of weights of less than 32 bits."""

CHUNK = 6
"""Positions that a scan of transformers takes at a time in the check on a CPU.

So it has to join several chunks, and in some releases that is where it is wrong.
"""

SETTINGS = frozenset((bool, int, float, str, tuple, type(None)))
"""Types of a module's attributes that its forward may read as settings."""


def ingredients(modules: list[nn.Module]) -> list[Any]:
    """What a forward through these modules is made of besides weights: classes, hooks, methods, settings, adapters.

    Two lists are equal where nothing of it has changed in between. Nothing in them keeps a module alive.
    """
    kinds: dict[Any, None] = dict.fromkeys(map(type, modules))
    plain = {kind for kind in kinds if kind.__module__.startswith("torch.nn.")}
    found: list[Any] = [*torch_modules._global_forward_hooks, *torch_modules._global_forward_pre_hooks]
    found += [(kind, kind.forward) for kind in kinds]
    for module in modules:
        kind, state = type(module), vars(module)
        found += (id(module), kind)
        hooks, pre_hooks = state["_forward_hooks"], state["_forward_pre_hooks"]
        if hooks or pre_hooks:
            found += (*hooks, None, *pre_hooks)
        if "forward" in state:
            found.append(ref(state["forward"]))
        if kind not in plain:
            found += [(name, value) for name, value in state.items() if type(value) in SETTINGS and name != "training"]
            if "merged_adapters" in state or "_adapters" in state:
                found.append(repr((state.get("_active_adapter"), state.get("merged_adapters"))))
    return found


def compare_forwards(model: nn.Module, network: Network) -> None:
    """Compare our forward of ``model`` with its own on the sample of its stem.

    Raises:
        ForwardMismatchError: a layer or the logits differ by more than rounding explains.
    """
    device = execution_device(network.embeddings)
    sample = {name: value.to(device) for name, value in network.stem.sample().items()}
    own_model = evaluation_twin(model)
    module: Any
    for module in own_model.modules() if device.type == "cpu" else ():
        if hasattr(module, "chunk_size"):
            module.chunk_size = CHUNK
    try:
        with _quiet():
            own = own_model(**sample, **without_cache(network), output_hidden_states=True, return_dict=True)
    except Exception as error:
        if out_of_memory(error):
            raise
        raise _mismatch(network, f"its own raises {error!r}") from error
    embedded, ledger = network.embed(next(iter(sample.values()))), BiasLedger(1)
    step = Step(NO_RULES, ledger, backend="chunked", embeddings=embedded, length=embedded.shape[1])
    states = list(network.states_of(network.initial_states(embedded)))
    # What enters each layer, and leaves the one before it; some models record what enters the first too. The last state
    # is normed, so the logits stand for it.
    recorded = list(own.hidden_states)
    if torch.equal(recorded[0], embedded.to(recorded[0])):
        del recorded[0]
    streams = [embedded, *(stream.to(network.dtype) for stream in recorded[: len(network.layers) - 1])]
    if streams[-1].shape != embedded.shape:
        raise _mismatch(
            network, f"it has states of shape {tuple(streams[-1].shape)} for an input of {tuple(embedded.shape)}"
        )
    coarse = network.has_short_weights() or any(map(is_quantised, network.model.modules()))
    for layer, stream in enumerate(streams):
        found = network.layer(layer, Stream(stream), states[layer], step)[0].whole
        if layer + 1 < len(streams):
            before, after = stream.to(found), streams[layer + 1].to(found)  # a model may be spread over devices
            where = f"layer {layer} (counted from 0)"
            _same(found - before, after - before, before, where, network, coarse, layer)
    read = network.head.positions
    logits = network.logits(found if read is None else found[:, list(read)], NO_RULES, ledger)
    expected = own.logits.to(logits)
    if not network.is_language_model:
        logits = logits[:, -1]
    last = len(streams) - 1 if logits.dim() == 3 else None
    _same(logits, expected, expected, "the logits", network, coarse, last)


def without_cache(network: Network) -> dict[str, bool]:
    """The option of the model's forward that makes no cache, where it has it: some cannot make theirs."""
    return {"use_cache": False} if "use_cache" in signature(network.model.forward).parameters else {}


@contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' warnings in this thread.

    A slow path does not matter to a few tokens, and explanations do not take it.
    """
    this_thread = threading.get_ident()

    def of_another_thread(record: logging.LogRecord) -> bool:
        return record.thread != this_thread or not record.name.startswith("transformers")

    handlers = [*logging.getLogger("transformers").handlers, *logging.getLogger().handlers]
    for handler in handlers:
        handler.addFilter(of_another_thread)
    try:
        yield
    finally:
        for handler in handlers:
            handler.removeFilter(of_another_thread)


def _same(
    found: Tensor, expected: Tensor, scale: Tensor, where: str, network: Network, coarse: bool, layer: int | None
) -> None:
    """||found - expected|| <= tolerance ||expected||, and one rounding of ``scale``, which they were taken from.

    Both are those of weights of less than 32 bits where some are ``coarse``.

    Where the model's own numbers are not finite there is nothing to compare with; the explanation will say so. Rounding
    of half precision makes a router of many experts choose others for some positions, so behind a ``layer`` that has
    one it is the half of the positions that is nearer which is compared.
    """
    if not expected.isfinite().all():
        return
    if coarse and layer is not None and network.routes(layer):
        off = ((found - expected).norm(dim=-1) / expected.norm(dim=-1)).flatten()
        near = off.argsort()[: (len(off) + 1) // 2]
        found, expected, scale = (x.flatten(0, 1)[near] for x in (found, expected, scale))
    tolerance = HALF_TOLERANCE if coarse else TOLERANCE
    rounding = 2**-8 if coarse else 2**-23
    difference = float((found - expected).norm())
    allowed = tolerance * float(expected.norm()) + rounding * float(scale.norm())
    if not difference <= allowed:
        raise _mismatch(network, f"they differ by {difference:.2g} at {where}, where rounding explains {allowed:.2g}")


def _mismatch(network: Network, how: str) -> ForwardMismatchError:
    return ForwardMismatchError(
        f"Nothing was explained: this package's forward of {type(network.model).__name__} is not the model's own in "
        f"transformers {transformers.__version__}: {how}. The relevance would be that of another network. Remove what "
        "changes the model's forward (hooks, prompts, patches), or install a release of transformers that this version "
        "of hf_mambalrp was tested with (4.57 to 5.24). check_forward=False explains anyway."
    )
