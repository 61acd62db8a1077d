"""The command ``explain-image``."""

import sys
import warnings
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hf_mambalrp.cli.files import check_outputs, check_paths, draw, for_terminal, show, write_output
from hf_mambalrp.cli.loading import load_image_model
from hf_mambalrp.cli.options import (
    BACKENDS,
    METHODS,
    METHODS_WITH_LAYERS,
    ContrastOption,
    HtmlOption,
    JsonOption,
    TargetOption,
    names,
    read_target,
)
from hf_mambalrp.errors import InputError, OptionError
from hf_mambalrp.runs.checks import one_of
from hf_mambalrp.viz.wording import signed

if TYPE_CHECKING:
    from hf_mambalrp.results.image_explanation import ImageExplanation

STANDARD_INPUT = "-"


def explain_image(
    pictures: Annotated[
        list[str] | None, typer.Argument(metavar="PICTURE...", help="Files to explain; - reads standard input.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Folder or Hub id; default: the packaged model of scenes of clothes.")
    ] = None,
    target: TargetOption = None,
    contrast: ContrastOption = None,
    method: Annotated[str, typer.Option(help="mambalrp or another one; a wrong name lists them.")] = "mambalrp",
    gamma: Annotated[float | None, typer.Option(help="Of LRP-gamma, for mambalrp; 0 is LRP-0; default: 0.25.")] = None,
    gamma_on: Annotated[str | None, typer.Option(help="conv1d, linear, or both with a comma; default: conv1d.")] = None,
    backend: Annotated[str, typer.Option(help="auto, reference, chunked, compiled, triton or mamba_ssm.")] = "auto",
    top: Annotated[int | None, typer.Option(min=1, help="Name so many of the strongest patches, too.")] = None,
    html: HtmlOption = None,
    json_file: JsonOption = None,
    png: Annotated[Path | None, typer.Option(help="Write every picture with its map beside it here.")] = None,
    per_layer: Annotated[
        bool, typer.Option("--per-layer", help="Every layer too: in --json, and in --png in place of the rest.")
    ] = False,
) -> None:
    """Explain what an image classifier says about pictures: where in them it found what speaks for its answer.

    Example: hf-mambalrp explain-image photo.jpg --model user/vim --target tabby --contrast tiger --html photo.html
    """
    one_of("--method", method, METHODS)
    one_of("--backend", backend, BACKENDS)
    if not pictures:
        raise InputError("Give a PICTURE. Example: hf-mambalrp explain-image photo.jpg --html photo.html")
    if per_layer:
        one_of("--per-layer with --method", method, METHODS_WITH_LAYERS)
        if png is None and json_file is None:
            raise OptionError("--per-layer adds every layer to --json and --png. Give one of them.")
        if png is not None and len(pictures) != 1:
            raise InputError(f"--png draws the layers of one picture, and there are {len(pictures)}. Give one.")
        check_outputs(html, json_file, png)
    else:
        check_paths(html, json_file, png)
        if png is not None and png.suffix.lower() != ".png":
            raise OptionError(f"--png {png} has another ending. Give a name that ends in .png.")
    found = _read(pictures)
    loaded = load_image_model(model)
    options: dict[str, Any] = {"gamma": gamma, "gamma_on": None if gamma_on is None else tuple(names(gamma_on))}
    explanation: ImageExplanation = loaded.explain(
        found,
        target=read_target(target, loaded),
        contrast=read_target(contrast, loaded),
        method=method,
        backend=backend,
        per_layer=per_layer,
        **{name: value for name, value in options.items() if value is not None},
    )
    write_output(html, explanation.to_html)
    write_output(json_file, lambda path: path.write_text(explanation.to_json(indent=1) + "\n", encoding="utf-8"))
    if per_layer:
        write_output(png, lambda path: draw(explanation.plot(per_layer=True), path))
    else:
        write_output(png, lambda path: explanation.save_png(path, row=slice(None)))
    show(json_file, lambda: explanation.to_json(indent=1), lambda: _reading(explanation, top))


def _reading(explanation: "ImageExplanation", top: int | None) -> str:
    lines = [for_terminal(explanation)]
    for row in range(len(explanation) if top else 0):
        lines += ["", f"Strongest patches of picture {row + 1}:"]
        lines += [f"{signed(patch.relevance):>8}  {patch.text}" for patch in explanation.top(top or 1, row)]
    return "\n".join(lines)


def _read(pictures: list[str]) -> list[Any]:
    """The pictures, read before a model is loaded: what cannot be read is said at once, and in one line."""
    from hf_mambalrp.calls.pictures import read_pictures

    given: list[Any] = [_piped() if picture == STANDARD_INPUT else picture for picture in pictures]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Pillow, about what is refused, or read in spite of its headers
        read = read_pictures("explain-image", given)
    for image, source in zip(read.images, read.sources, strict=True):
        image.filename = source or ""  # type: ignore[attr-defined]
    return list(read.images)


def _piped() -> Any:
    from hf_mambalrp.calls.pictures import read_file

    if sys.stdin is None:
        raise InputError("There is no standard input to read. Give a file.")
    return read_file(BytesIO(sys.stdin.buffer.read()), "Standard input")
