"""The command that audits a model over a file of rows, or over pictures: ``audit``."""

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from hf_mambalrp.cli.files import for_terminal, read_dataset
from hf_mambalrp.cli.loading import load_image_model, load_model, tokenizer_named
from hf_mambalrp.cli.options import OutputOption, RestartOption, TokenizerOption, names
from hf_mambalrp.cli.pictures import pictures_in
from hf_mambalrp.errors import InputError, OptionError
from hf_mambalrp.runs.checks import check_sizes, one_of
from hf_mambalrp.runs.rows import Columns

REPLACEMENTS = ("mean", "black", "blur")
"""Their names once more, so that a wrong one is refused before torch is loaded; a test compares."""


def audit(
    data: Annotated[
        Path,
        typer.Argument(
            metavar="DATA",
            help="Of texts a file ending in .jsonl, .csv, .parquet or .txt, or - for standard input. Of images such a "
            "table, or a folder of pictures, or one of folders whose names are the column label.",
        ),
    ],
    output: OutputOption,
    model: Annotated[
        str | None,
        typer.Option(
            help="Folder or Hub id; default: the packaged sentiment model, of images the packaged image model."
        ),
    ] = None,
    masks: Annotated[
        str | None,
        typer.Option(
            help="Of images their regions, with commas: a column of masks in the table; or NAME=FILE, a mask for all; "
            "or of a folder NAME=FOLDER, of masks named as the pictures, .png. What is not black is the region."
        ),
    ] = None,
    image_column: Annotated[
        str | None, typer.Option(help="Column of the images' files, from the table's folder; default: image.")
    ] = None,
    replacement: Annotated[str | None, typer.Option(help="Of a patch: mean, black or blur; default: mean.")] = None,
    tokenizer: TokenizerOption = None,
    text_column: Annotated[str | None, typer.Option(help="Column of the text; default: text.")] = None,
    label: Annotated[str | None, typer.Option(help="Column of the true class; default: the predicted one.")] = None,
    target: Annotated[str | None, typer.Option(help="Of a language model: the next token that is asked for.")] = None,
    contrast: Annotated[str | None, typer.Option(help="And the one that it is compared with.")] = None,
    target_column: Annotated[str | None, typer.Option(help="Or the column that has the one a row.")] = None,
    contrast_column: Annotated[str | None, typer.Option(help="And the column that has the other.")] = None,
    base: Annotated[
        str | None, typer.Option(help="The model that it was fine-tuned from: what rose against it.")
    ] = None,
    swaps: Annotated[
        str | None, typer.Option(help="Words to swap, such as he=she,his=her,him=her; other swaps are its controls.")
    ] = None,
    groups: Annotated[str | None, typer.Option(help="Column by whose values the rows are told apart.")] = None,
    min_effect: Annotated[float, typer.Option(help="Smallest effect, in standard deviations of the score.")] = 0.2,
    candidates: Annotated[int, typer.Option(help="Words, runs and pairs, or regions, that are tested.")] = 12,
    min_texts: Annotated[int, typer.Option(help="A candidate is in at least so many texts or images.")] = 10,
    max_texts: Annotated[int, typer.Option(help="Of more of them so many are drawn.")] = 1000,
    seed: Annotated[int, typer.Option(help="Of the draws.")] = 0,
    batch_tokens: Annotated[int | None, typer.Option(help="Tokens of one forward.")] = None,
    restart: RestartOption = False,
) -> None:
    """Ask a model which words it relies on over a file of texts, or which regions over images with --masks.

    Killed, the same command goes on where it was. The folder gets audit.json, audit.html and what the audit has found
    so far. Example: hf-mambalrp audit photos --masks logo=masks/logo --output out/audit --model user/vim
    """
    check_sizes(batch_tokens=batch_tokens, candidates=candidates, min_texts=min_texts, max_texts=max_texts)
    of_texts = {
        **{"tokenizer": tokenizer, "text-column": text_column, "target": target, "contrast": contrast},
        **{"target-column": target_column, "contrast-column": contrast_column, "base": base, "swaps": swaps},
        **{"batch-tokens": batch_tokens},
    }
    of_images = {"masks": masks, "image-column": image_column, "replacement": replacement}
    asked: dict[str, Any] = {
        "label": label,
        "groups": groups,
        "min_effect": min_effect,
        "candidates": candidates,
        "min_texts": min_texts,
        "max_texts": max_texts,
        "seed": seed,
        "restart": restart,
    }
    images = data.is_dir() or any(value is not None for value in of_images.values())
    if images:
        _check_of_images(of_texts, masks, replacement)
        dataset, regions = _pictures(data, str(masks))
        asked |= {"masks": regions, "image_column": image_column or "image", "replacement": replacement or "mean"}
    else:
        pairs = None if swaps is None else {swaps: [_pair(one) for one in names(swaps)]}
        kept = tuple(name for name in (label, groups) if name is not None)
        dataset = read_dataset(data, Columns(text_column or "text", None, target_column, contrast_column, kept))
        asked |= {"text_column": text_column or "text", "batch_tokens": batch_tokens, "swaps": pairs}
        asked |= {"target": target, "contrast": contrast}
        asked |= {"target_column": target_column, "contrast_column": contrast_column}

    from hf_mambalrp.audit import audit as run
    from hf_mambalrp.datasets.together import launched

    state = launched()
    loaded = (load_image_model if images else load_model)(model).to(state.device)
    if not images:
        asked["tokenizer"] = tokenizer_named(tokenizer)
        asked["base"] = None if base is None else load_model(base).to(state.device)
    found = run(loaded, dataset, output, progress=state.is_main_process, **asked)
    if state.is_main_process:
        found = replace(found, data=data.name)  # also where the library was given the files of a folder
        found.save(output / "audit.json")
        found.to_html(output / "audit.html")
        print(for_terminal(found))
        for name in ("audit.json", "audit.html"):
            print(f"written: {Path(output) / name}", file=sys.stderr)
    state.destroy_process_group()


def _check_of_images(of_texts: Mapping[str, Any], masks: str | None, replacement: str | None) -> None:
    """Raise for what an audit of images has no use for, or lacks, before anything is read."""
    for name, value in of_texts.items():
        if value is not None:
            raise OptionError(
                f"--{name} is for texts, and --masks, --image-column or a folder is of images. Leave it out."
            )
    if masks is None:
        raise OptionError(
            "An audit of images has regions as its candidates, and no --masks are given. Give a column of the table, "
            "NAME=FILE, or of a folder of pictures NAME=FOLDER."
        )
    if replacement is not None:
        one_of("--replacement", replacement, REPLACEMENTS)


def _pictures(data: Path, masks: str) -> tuple[Any, dict[str, Any]]:
    """Data and masks as the library takes them.

    InputError: there is no such folder or file, or no picture has a mask. OptionError: a column of what is no table.
    """
    given = pictures_in(data) if data.is_dir() else None
    regions: dict[str, Any] = {}
    for one in names(masks):
        name, equals, place = (part.strip() for part in one.partition("="))
        path = Path(place)
        if not equals and given is None:
            regions[name] = name
        elif not equals:
            raise OptionError(f"--masks has {one!r}, and a folder has no columns. Give {name}=FOLDER or {name}=FILE.")
        elif path.is_file():
            regions[name] = path
        elif given is None or not path.is_dir():
            what = "is no file" if given is None else "is no file and no folder"
            raise InputError(f"--masks has {one!r}, and {place!r} {what}. Give a mask for all images, or their masks.")
        else:
            regions[name] = [mask if mask.is_file() else None for mask in given.masks_in(path)]
            if not any(regions[name]):
                first = given.masks_in(path)[0]
                raise InputError(
                    f"--masks has {one!r}, and no picture has a mask there: of the first it is {str(first)!r}."
                )
    if given is None:
        return data, regions
    if given.classes is None:
        return given.paths, regions
    rows = [{"image": path, "label": name} for path, name in zip(given.paths, given.classes, strict=True)]
    return rows, regions


def _pair(text: str) -> tuple[str, str]:
    one, equals, other = text.partition("=")
    if not equals:
        raise OptionError(f"--swaps has {text!r}; give pairs such as he=she,his=her.")
    return one.strip(), other.strip()
