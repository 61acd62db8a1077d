"""From a call of ``explain`` on pictures to its result: read them, name the target, run the method."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from hf_mambalrp.calls.explain import Options, named, names_of, own_gradient_mode, probability
from hf_mambalrp.calls.image_inputs import WITHOUT_CONTENT, ImageBatch, read_images, without_content
from hf_mambalrp.calls.origin import model_id, versions
from hf_mambalrp.calls.subject import Subject
from hf_mambalrp.calls.targets import Outputs, Target, resolve_target
from hf_mambalrp.errors import OptionError
from hf_mambalrp.families import Network
from hf_mambalrp.families.parts import Patches
from hf_mambalrp.methods import Relevance, method_named, predict
from hf_mambalrp.results.explanation import Conservation
from hf_mambalrp.results.image_explanation import ImageExplanation
from hf_mambalrp.rules.constant import constant
from hf_mambalrp.rules.offload import loaded

GAMMA, GAMMA_ON = 0.25, ("conv1d",)
"""What the authors of MambaLRP use on images."""


@own_gradient_mode()
def explain_images(
    subject: Subject,
    images: Any,
    *,
    pixel_values: Any,
    processor: Any,
    default_processor: Any,
    target: Any,
    contrast: Any,
    gamma: Any,
    gamma_on: Any,
    options: Options,
) -> ImageExplanation:
    """Explain one batch; :meth:`hf_mambalrp.VisionLRPMixin.explain` documents the arguments."""
    call = subject.begin("explain", None)
    network, method = call.network, method_named(options.method)
    gammas = {"gamma": gamma, "gamma_on": gamma_on}
    if "gamma" not in method.options:
        if (gamma, tuple(gamma_on)) != (GAMMA, GAMMA_ON):
            raise OptionError(f"gamma and gamma_on are rules of method 'mambalrp'; {options.method!r} has none.")
        gammas = {}
    options = replace(options, method_options={**options.method_options, **gammas}).checked(call.name)
    options.check_contrast(contrast)
    batch = read_images(call.name, network, images, pixel_values, processor, subject.place(), default_processor)
    outputs = Outputs(network, call.tokenizers)
    wanted = resolve_target(target, "target", len(batch), outputs)
    against = None if contrast is None else resolve_target(contrast, "contrast", len(batch), outputs)
    if options.check_forward:
        call.check_forward()

    embeddings = network.embed(batch.pixel_values)
    said = {name: value for name, value in options.recorded(network).items() if name not in gammas}
    options = _with_baseline(options, network, batch)
    read = network.head.positions
    assert read is not None, "the head of an image classifier reads fixed positions"
    mask = torch.ones(embeddings.shape[:2], dtype=torch.int64)

    def score(logits: Tensor) -> Tensor:
        return wanted.score(logits) if against is None else wanted.score(logits) - against.score(logits)

    problem = options.problem(network, embeddings, mask, torch.tensor([read]).expand(len(batch), -1), score)
    if method.changes_input:
        wanted = named(wanted, wanted.resolved(predict(problem)))
    found = options.explain(replace(problem, gradient=method.rules is not None))
    return _result(network, batch, found, wanted, against, outputs, options, gammas, said)


def _with_baseline(options: Options, network: Network, batch: ImageBatch) -> Options:
    """With the embeddings of pictures without content where a method replaces what it reads by them.

    Class tokens and positions stay, so that the patches alone are what differs.
    """
    method = method_named(options.method)
    if "baseline" not in method.options:
        return options
    how = options.method_options.get("baseline", "mean")
    if how not in WITHOUT_CONTENT:
        raise OptionError(f"baseline={how!r} is not allowed. Give one of {list(WITHOUT_CONTENT)}.")
    blank = network.embed(without_content(batch, how))
    return replace(options, method_options={**options.method_options, "baseline": blank})


def _result(
    network: Network,
    batch: ImageBatch,
    found: Relevance,
    target: Target,
    contrast: Target | None,
    outputs: Outputs,
    options: Options,
    gammas: dict[str, Any],
    method_options: dict[str, Any],
) -> ImageExplanation:
    config = network.config
    ids = target.resolved(found.logits)
    contrast_ids = None if contrast is None else contrast.resolved(found.logits)
    patches, class_tokens = _apart(network, found.tokens)
    layers = None if found.layers is None else _apart(network, found.layers)
    return ImageExplanation(
        relevance=patches,
        class_relevance=class_tokens,
        images=batch.images,
        target=[None if i is None else i[0] for i in ids],
        target_text=names_of(target, ids, outputs),
        contrast=None if contrast_ids is None else [None if i is None else i[0] for i in contrast_ids],
        contrast_text=None if contrast is None or contrast_ids is None else names_of(contrast, contrast_ids, outputs),
        score=found.score,
        probability=probability(network, named(target, ids), found.logits),
        method=options.method,
        conservation=Conservation(found.score, found.tokens.sum(-1), found.biases, found.softmax),
        patch_size=config.patch_size,
        stride=config.stride,
        pixel_relevance=None if found.gradient is None else _of_pixels(network, batch, found.gradient),
        layer_relevance=None if layers is None else layers[0],
        layer_class_relevance=None if layers is None else layers[1],
        sources=batch.sources,
        model_id=model_id(network),
        versions=versions(),
        method_options=method_options,
        convergence_delta=found.convergence_delta,
        gamma=float(gammas.get("gamma", 0.0)),
        gamma_on=tuple(gammas.get("gamma_on", ())) if gammas.get("gamma") else (),
    )


def _apart(network: Network, values: Tensor) -> tuple[Tensor, Tensor]:
    """Patches in their rows and columns, and class tokens. Shape: (..., L) -> (..., rows, columns), (..., T)."""
    read = list(network.head.positions or ())
    rest = [position for position in range(values.shape[-1]) if position not in read]
    size = network.config.grid_size
    return values[..., rest].unflatten(-1, (size, size)), values[..., read]


def _of_pixels(network: Network, batch: ImageBatch, gradient: Tensor) -> Tensor:
    """sum over channels of pixel value * modified gradient, through the patch embedding. Shape: (B, S, S)."""
    patches, _ = _apart(network, gradient.movedim(-1, 1))  # (B, D, rows, columns)
    assert isinstance(network.stem, Patches)
    projection = network.stem.projection
    with loaded(projection):
        weight = constant(projection.weight, patches.dtype).to(patches.device)
    pixels = batch.pixel_values.to(patches.device)
    covered = F.conv_transpose2d(patches, weight, stride=list(projection.stride))
    missing = (pixels.shape[-1] - covered.shape[-1], pixels.shape[-2] - covered.shape[-2])  # no patch has these
    return (pixels * F.pad(covered, (0, missing[0], 0, missing[1]))).sum(1).float().cpu()
