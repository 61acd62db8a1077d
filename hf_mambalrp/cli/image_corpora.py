"""The command that reads a folder of pictures: ``evaluate-images``."""

import sys
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from hf_mambalrp.cli.options import METHODS, OutputOption, RestartOption, int_or_float, json_object, names
from hf_mambalrp.cli.pictures import pictures_in
from hf_mambalrp.errors import InputError, OptionError
from hf_mambalrp.runs.checks import check_sizes, one_of

GARMENTS = {"one": 1, "two": 2}
"""The scenes that ship with the package, by what stands in a command."""


class Found(NamedTuple):
    """What the library takes."""

    images: Any
    labels: Any
    masks: Any
    ids: Any


def evaluate_images(
    pictures: Annotated[
        str,
        typer.Argument(
            metavar="PICTURES",
            help="Folder of pictures; of folders of pictures, whose names are their classes; or one or two, the scenes "
            "of so many garments that ship with the package.",
        ),
    ],
    output: OutputOption,
    model: Annotated[
        str | None, typer.Option("--model", help="Folder or Hub id; default: the packaged image model.")
    ] = None,
    masks: Annotated[
        Path | None, typer.Option(help="Folder of masks, named as the pictures, .png; not black on the object.")
    ] = None,
    methods: Annotated[
        str | None, typer.Option(help="Names with commas, the one to compare with first; default: all but occlusion.")
    ] = None,
    method_options: Annotated[
        str, typer.Option(help="""JSON, for example '{"gamma 0": {"method": "mambalrp", "gamma": 0}}'.""")
    ] = "{}",
    measure: Annotated[str, typer.Option(help="logit or probability, what the areas are taken of.")] = "logit",
    replacement: Annotated[str, typer.Option(help="Of a patch: mean, black or blur.")] = "mean",
    step: Annotated[str, typer.Option(help="Patches (2), a fraction (0.05), or auto: at most 20 steps.")] = "auto",
    perturbation: Annotated[bool, typer.Option(help="Perturb the pictures too.")] = True,
    contrast: Annotated[bool, typer.Option(help="Explain each of two objects against the other too.")] = False,
    samples: Annotated[int | None, typer.Option(help="Evaluate so many pictures, drawn with the seed.")] = None,
    batch_size: Annotated[int, typer.Option(help="Perturbed pictures of one forward.")] = 20,
    confidence: Annotated[float, typer.Option(help="Of the intervals.")] = 0.95,
    resamples: Annotated[int, typer.Option(help="Of the bootstrap.")] = 2000,
    seed: Annotated[int, typer.Option(help="Of the sample, the methods and the bootstrap.")] = 0,
    processes: Annotated[int, typer.Option(help="Of this machine, each with a copy of the model.")] = 1,
    restart: RestartOption = False,
) -> None:
    """Compare methods on pictures, by perturbation and by masks; an interrupted run goes on where it was."""
    options = json_object("--method-options", method_options)
    for name in names(methods):
        one_of("--methods", options.get(name, {}).get("method", name), METHODS)
    check_sizes(batch_size=batch_size, processes=processes)
    found = _found(pictures, masks)

    from hf_mambalrp.cli.loading import load_image_model
    from hf_mambalrp.evaluation.images import evaluate_image_explanations
    from hf_mambalrp.evaluation.images.settings import DEFAULT_METHODS, ImageSettings

    settings: dict[str, Any] = {
        "methods": DEFAULT_METHODS if methods is None else names(methods),
        "method_options": options,
        "measure": measure,
        "replacement": replacement,
        "step": int_or_float(step),
        "perturbation": perturbation,
        "contrast": contrast,
        "samples": samples,
        "confidence": confidence,
        "resamples": resamples,
        "seed": seed,
    }
    ImageSettings(**settings)  # says what is not allowed before a model is loaded
    loaded = load_image_model(model)
    evaluation = evaluate_image_explanations(
        loaded,
        **found._asdict(),
        **settings,
        batch_size=batch_size,
        processes=processes,
        output_dir=output,
        restart=restart,
    )
    print(evaluation)
    for name in ("report.html", "report.md", "results.json"):
        print(f"written: {output / name}", file=sys.stderr)


def _found(pictures: str, masks: Path | None) -> Found:
    """Pictures of a folder, or the scenes that ship.

    Raises:
        InputError: no such folder, none in it, a picture without a mask.
        OptionError: masks for the scenes, which have their own.
    """
    if pictures in GARMENTS:
        if masks is not None:
            raise OptionError(f"--masks {masks}: the scenes that ship have masks of their own.")
        from hf_mambalrp.evaluation.scenes import load_scenes

        scenes = load_scenes(GARMENTS[pictures])
        return Found(scenes.images, scenes.labels, scenes.masks, None)
    folder = Path(pictures)
    if not folder.is_dir():
        raise InputError(f"{pictures!r} is no folder. Give one of pictures, or one of {list(GARMENTS)}.")
    given = pictures_in(folder)
    found = None
    if masks is not None:
        found = given.masks_in(masks)
        missing = [str(path) for path in found if not path.is_file()]
        if missing:
            raise InputError(f"{len(missing)} of {len(found)} pictures have no mask, the first {missing[0]!r}.")
    return Found(given.paths, given.classes, found, given.ids)
