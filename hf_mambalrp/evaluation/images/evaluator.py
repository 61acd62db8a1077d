"""One picture after another: explain it by every method, hold the maps against the masks, perturb it."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from hf_mambalrp.calls.explain import Options
from hf_mambalrp.calls.explain_image import GAMMA, GAMMA_ON, explain_images
from hf_mambalrp.calls.image_inputs import ImageBatch, processor_beside, read_images
from hf_mambalrp.calls.inputs import TokenizerSource
from hf_mambalrp.calls.pictures import read_pictures
from hf_mambalrp.calls.targets import Outputs
from hf_mambalrp.errors import InputError
from hf_mambalrp.evaluation.dataset import drawn
from hf_mambalrp.evaluation.examiner import Examiner
from hf_mambalrp.evaluation.images.cases import Case, digest, read_cases, read_mask
from hf_mambalrp.evaluation.images.maps import against_mask, confusion, covered, enlarged, named, positive_inside
from hf_mambalrp.evaluation.images.perturbation import ImageOutput, Plan, plan
from hf_mambalrp.evaluation.images.settings import ImageSettings
from hf_mambalrp.models.fingerprint import fingerprint
from hf_mambalrp.models.vim.processor import image_processor
from hf_mambalrp.results.image_explanation import ImageExplanation

CALL = "evaluate_image_explanations"


class ImageEvaluator(Examiner):
    """One model, its pictures and settings."""

    unit = "picture"

    def __init__(
        self,
        model: nn.Module,
        images: Any,
        settings: ImageSettings,
        *,
        labels: Any,
        masks: Any,
        ids: Any,
        processor: Any,
        batch_size: int,
    ) -> None:
        self.batch_size = batch_size
        super().__init__(model)
        network, place = self.subject.network(), self.subject.place()
        self.process = (
            processor if processor is not None else processor_beside(place) or image_processor(network.config)
        )
        outputs = Outputs(network, TokenizerSource(None, place))
        self.cases = drawn(read_cases(images, labels, masks, ids, outputs), settings.samples, settings.seed)
        if not settings.perturbation and masks is None:
            raise InputError("perturbation=False without masks leaves nothing to measure. Give masks, or leave it out.")
        pairs = masks is not None and all(case.labels is not None and len(case.labels) == 2 for case in self.cases)
        if settings.contrast and not pairs:
            raise InputError(
                "contrast=True holds two objects of a picture against each other. Give two labels and two masks each."
            )
        self.settings = replace(settings, samples=len(self.cases))
        self.labels = outputs.labels
        self.weights = fingerprint(model)

    def look(self) -> None:
        """Look at the model and its output."""
        super().look()
        self.output = ImageOutput(self.subject, self.batch_size)

    def depends_on(self) -> dict[str, Any]:
        """What finished pictures depend on: a run may go on with them only if this is the same."""
        about = self.about()
        return {**about.pop("settings"), **about, "data": digest(self.cases), "batch_size": self.batch_size}

    def examine(self, case: Case) -> dict[str, Any]:
        """Explain one picture by every method, and measure; plain JSON types."""
        settings, network = self.settings, self.subject.network()
        (picture,) = read_pictures(CALL, case.image).images
        batch = read_images(CALL, network, picture, None, self.process, self.subject.place(), lambda: self.process)
        predicted = self.output.predicted(batch)
        targets = (predicted,) if case.labels is None else case.labels
        masks = [read_mask(case, mask, picture.size, self.process) for mask in case.masks or ()]
        found = {name: self._explain(batch, targets, None, name) for name in settings.methods}
        against = {
            name: self._explain(batch, targets, targets[::-1], name)
            for name in settings.methods
            if settings.contrast and settings.reads_score(name)
        }
        first = next(iter(found.values()))
        measured: dict[str, list[dict[str, Any]]] = {name: [{} for _ in targets] for name in found}
        for name, explanation in found.items():
            for row, part in enumerate(measured[name]):
                part.update(_on_objects(explanation, masks, row))
                if name in against:
                    part["named_contrast"] = _on_objects(against[name], masks, row)["named"]
        if settings.perturbation:
            self._perturb(batch, targets, found, measured)
        assert first.probability is not None
        return {
            "id": case.id,
            "targets": first.target_text,
            "predicted": str(self.labels.get(predicted, predicted)),
            "scores": first.score.tolist(),
            "probabilities": first.probability.tolist(),
            "patches": first.relevance[0].numel(),
            "evidence": [mask.double().mean().item() for mask in masks],
            "methods": measured,
        }

    def _perturb(
        self,
        batch: ImageBatch,
        targets: Sequence[int],
        found: dict[str, ImageExplanation],
        measured: dict[str, list[dict[str, Any]]],
    ) -> None:
        settings, plans = self.settings, dict[tuple[str, int], Plan]()
        for name, explanation in found.items():
            for row in range(len(targets)):
                relevance = explanation.relevance[row]
                plans[name, row] = plan(
                    relevance,
                    enlarged(relevance, batch.pixel_values.shape[-1]),
                    patch_size=explanation.patch_size,
                    stride=explanation.stride,
                    step=settings.step,
                    replacement=settings.replacement,
                )
        logits = self.output(batch, [form for each in plans.values() for rows in each.rows.values() for form in rows])
        output = logits
        if settings.measure == "probability":
            output = {form: self.output.probabilities(values) for form, values in logits.items()}
        for (name, row), each in plans.items():
            measured[name][row].update(each.measures(logits, output, targets[row]))

    def _explain(
        self, batch: ImageBatch, targets: Sequence[int], contrast: Sequence[int] | None, name: str
    ) -> ImageExplanation:
        """The explanation of every target of a picture, under a name of the comparison."""
        options = self.settings.options_of(name)
        rest = {key: value for key, value in options.items() if key not in ("gamma", "gamma_on")}
        return explain_images(
            self.subject,
            None,
            pixel_values=batch.pixel_values.expand(len(targets), -1, -1, -1),
            processor=self.process,
            default_processor=lambda: self.process,
            target=list(targets),
            contrast=None if contrast is None else list(contrast),
            gamma=options.get("gamma", GAMMA),
            gamma_on=options.get("gamma_on", GAMMA_ON),
            options=Options(self.settings.method_of(name), False, "auto", "auto", rest),
        )


def _on_objects(explanation: ImageExplanation, masks: Sequence[Tensor], row: int) -> dict[str, Any]:
    """One target's map against the masks of the picture's objects; of several, against its own and each other."""
    if not masks:
        return {}
    relevance, mask = explanation.relevance[row], masks[row]
    pixels = enlarged(relevance, mask.shape[-1])
    shares = [covered(each, explanation.patch_size, explanation.stride) for each in masks]
    found: dict[str, Any] = {
        **against_mask(pixels, mask),
        "positive_inside": positive_inside(relevance, shares[row]),
        "confusion": confusion(pixels, mask),
    }
    if len(masks) > 1:
        found["named"] = named(relevance, shares, row)
    return found
