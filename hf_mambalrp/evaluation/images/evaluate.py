"""``evaluate_image_explanations``: do the model's output, and the objects, agree with what is called relevant?"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from hf_mambalrp.evaluation.images.evaluator import CALL, ImageEvaluator
from hf_mambalrp.evaluation.images.result import ImageEvaluation
from hf_mambalrp.evaluation.images.settings import DEFAULT_METHODS, ImageSettings
from hf_mambalrp.evaluation.images.summary import summarise
from hf_mambalrp.evaluation.journal import Journal
from hf_mambalrp.runs.checks import check_sizes


class ImageJournal(Journal):
    """The output folder of ``evaluate_image_explanations``."""

    call = CALL


def evaluate_image_explanations(
    model: nn.Module,
    images: Any,
    *,
    labels: Any = None,
    masks: Any = None,
    ids: Sequence[Any] | None = None,
    methods: Sequence[str] = DEFAULT_METHODS,
    method_options: Mapping[str, Mapping[str, Any]] | None = None,
    processor: Any = None,
    measure: str = "logit",
    replacement: str = "mean",
    step: int | float | str = "auto",
    perturbation: bool = True,
    contrast: bool = False,
    samples: int | None = None,
    batch_size: int = 20,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
    processes: int = 1,
    progress: bool = True,
    output_dir: str | Path | None = None,
    restart: bool = False,
) -> ImageEvaluation:
    """Compare methods on pictures: perturb them, and hold the maps against the objects where these are known.

    By perturbation, for the class that is explained:

    - delta_flip: A_LeRF - A_MoRF, A the area under the output over the share k/n of the patches that are replaced, by
      the trapezoid rule; MoRF begins with the most relevant patch (signed; of equal ones the earlier first), LeRF with
      the least relevant one (MambaLRP, Rezaei Jafari et al. 2024).
    - positive_accuracy, negative_accuracy: how often the class is still the most probable one after the 10, 20 .. 90 %
      most, or least, relevant pixels became black, the mean of the nine steps (Chefer et al. 2021).

    With ``masks``, R the map of the patches enlarged bilinearly to the pixels:

    - roc_auc of R of the pixels against the mask; pointing: how often the most relevant pixel lies on it.
    - positive_inside: the share of the patches' positive relevance that lies on it; a patch counts by the share of it
      that does, and a map without positive relevance as 0.
    - pixel_accuracy and miou, over background and foreground, of foreground R > mean(R), from the totals of all
      pictures; map: the mean over pictures of the average precision of (1 - R, R), R scaled to [0, 1] (Chefer et al.
      2021).

    Of pictures with several objects, each is explained in turn, and

    - named: how often the target's own object has more positive relevance than every other one; a map that does not
      depend on the target has 0.5 with two objects, since what is right for one is wrong for the other.
    - named_contrast: the same where each of two is explained against the other.

    Every mean has a percentile interval of a bootstrap over pictures, and so has every paired difference to the first
    method. A picture is measured alone, and equal calls give equal results, interrupted or not.

    Args:
        model: an image classifier.
        images: a list of what ``explain`` takes as one picture (path, PIL image, array), or an array (n, H, W, 3).
        labels: what is explained, one a picture: a class id, a label's name, or a list of them where the picture has
            several objects. None: the predicted class.
        masks: one a picture, of its own height and width: an array (H, W) or a picture, not 0 on the object; where it
            has several labels a list of them, or (T, H, W), in the order of the labels. None: perturbation only.
        ids: names of the pictures in the results; by default their files', or their numbers.
        methods: names; the first is the one that the others are compared with. By default all but occlusion.
        method_options: options by name; with "method" in them, the name may be any other: ``{"gamma 0": {"method":
            "mambalrp", "gamma": 0}}``.
        processor: the image processor; by default the one that ``explain`` takes.
        measure: "logit" or "probability", what the areas are taken of.
        replacement: of a patch: "mean", the picture's mean colour, "black" or "blur".
        step: k grows by so many patches, or by this fraction of n; "auto" makes at most 20 steps.
        perturbation: False leaves perturbation out, which costs about 60 forwards a map.
        contrast: also explain each of two objects against the other.
        samples: evaluate so many pictures, drawn with ``seed``; None is all.
        batch_size: perturbed pictures of one forward.
        confidence: of the intervals.
        resamples: of the bootstrap.
        seed: of the sample, of the methods and of the bootstrap.
        processes: of this machine, each with a copy of the model and one thread.
        progress: show a bar.
        output_dir: a new folder for ``results.json``, ``report.html`` and ``report.md``, or that of the run to go on
            with: finished pictures are kept there in ``progress.jsonl``.
        restart: begin again in the folder of another run, whose finished pictures are removed.

    Returns:
        An :class:`ImageEvaluation`.

    Raises:
        InputError: no pictures, one that cannot be read, a mask that does not fit or is empty in what the model sees
            (says which); neither perturbation nor masks; an output folder of another run or in use by one.
        TargetError: not one label a picture, or one that the model does not have.
        OptionError: an unknown method or option, a value that is not allowed.
        MissingExtraError: pictures without Pillow.
        WorkerError: one of several processes was killed, or could not begin.

    Example:
        >>> from hf_mambalrp import DEMO_VISION_MODEL, VimLRPForImageClassification
        >>> from hf_mambalrp.evaluation import evaluate_image_explanations
        >>> from hf_mambalrp.evaluation.scenes import load_scenes
        >>> model, scenes = VimLRPForImageClassification.from_pretrained(DEMO_VISION_MODEL), load_scenes(2)
        >>> evaluation = evaluate_image_explanations(
        ...     model,
        ...     scenes.images[:2],
        ...     labels=scenes.labels[:2],
        ...     masks=scenes.masks[:2],
        ...     methods=["mambalrp", "attention_rollout"],
        ...     perturbation=False,
        ...     progress=False,
        ... )
        >>> evaluation.results["methods"]["attention_rollout"]["named"]["mean"]
        0.5
    """
    check_sizes(batch_size=batch_size, processes=processes)
    settings = ImageSettings(
        methods=methods,
        method_options=method_options or {},
        measure=measure,
        step=step,
        samples=samples,
        confidence=confidence,
        resamples=resamples,
        seed=seed,
        replacement=replacement,
        perturbation=perturbation,
        contrast=contrast,
    )
    given = {"labels": labels, "masks": masks, "ids": ids, "processor": processor, "batch_size": batch_size}
    evaluator = ImageEvaluator(model, images, settings, **given)
    if output_dir is None:
        return _evaluated(evaluator, processes, progress)
    journal = ImageJournal(output_dir, restart=restart)
    try:
        journal.open(evaluator.depends_on())
        evaluation = _evaluated(evaluator, processes, progress, journal)
        evaluation.write_report(output_dir)
        journal.complete()
    finally:
        journal.release()
    return evaluation


def _evaluated(
    evaluator: ImageEvaluator, processes: int, progress: bool, journal: ImageJournal | None = None
) -> ImageEvaluation:
    """Examine what is not finished, and put all of it together."""
    records = evaluator.records(evaluator.cases, processes, journal, progress=progress)
    return ImageEvaluation({**evaluator.about(), **summarise(records, evaluator.settings)})
