"""The options that several commands have, and their values, from what was typed to what the library takes."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from hf_mambalrp.errors import OptionError
from hf_mambalrp.viz.method_names import METHOD_NAMES

ModelOption = Annotated[
    str | None,
    typer.Option("--model", help="Folder, Hub id or DEMO_LANGUAGE_MODEL; default: the packaged sentiment model."),
]
TokenizerOption = Annotated[
    str | None, typer.Option("--tokenizer", help="Folder or Hub id; default: the one beside the model.")
]
TargetOption = Annotated[
    str | None, typer.Option("--target", help="Label, token text, or id in digits; default: the model's prediction.")
]
HtmlOption = Annotated[Path | None, typer.Option("--html", help="Write a self-contained HTML page here.")]
DataArgument = Annotated[
    Path,
    typer.Argument(
        metavar="DATA",
        help="File ending in .jsonl, .csv, .parquet or .txt (a text a line, blank ones left out); - is standard input, "
        "JSON objects or texts a line.",
    ),
]
TextColumnOption = Annotated[str, typer.Option(help="Column of the text.")]
IdColumnOption = Annotated[str | None, typer.Option(help="Column of the id; default: id, or the row's number.")]
TargetColumnOption = Annotated[str | None, typer.Option(help="Or the column that holds one a row.")]
ContrastOption = Annotated[str | None, typer.Option("--contrast", help="Explain target rather than this one.")]
OutputOption = Annotated[Path, typer.Option("--output", help="New folder, or that of a run to go on with.")]
OnErrorOption = Annotated[
    str | None,
    typer.Option(
        "--on-error",
        help="skip or raise; default: what the run began with, raise unless explain-dataset has several processes.",
    ),
]
RestartOption = Annotated[
    bool, typer.Option("--restart", help="Begin again in the folder of another run, whose files are removed.")
]
OptionsOfMethod = Annotated[
    str, typer.Option("--method-options", help="""JSON, for example '{"attention_rule": "attnlrp"}'.""")
]
JsonOption = Annotated[Path | None, typer.Option("--json", help="Write the numbers here; - is standard output.")]

METHODS_WITH_LAYERS = ("mambalrp", "lrp_ln", "gradient_x_input")
METHODS = tuple(METHOD_NAMES)
BACKENDS = ("auto", "reference", "chunked", "compiled", "triton", "mamba_ssm")
PARTS = ("ssm", "delta", "conv", "linear", "attention")
"""Their names once more, so that a wrong one is refused before torch is loaded; a test compares."""


def names(value: str | None) -> list[str]:
    """Names between commas."""
    return [] if value is None else [name.strip() for name in value.split(",")]


def int_or_float(value: str) -> int | float | str:
    """Tokens as an int, a fraction as a float; other text stays, to be refused by name."""
    for kind in (int, float):
        try:
            return kind(value)
        except ValueError:
            continue
    return value


def json_value(option: str, text: str) -> Any:
    """What a text of JSON stands for. OptionError: it is none."""
    try:
        return json.loads(text)
    except ValueError as error:
        raise OptionError(f"{option} is no JSON: {error}.") from error


def method_options_of(text: str) -> dict[str, Any]:
    """Options of one method by name. OptionError: something else."""
    found = json_value("--method-options", text)
    if not isinstance(found, dict):
        raise OptionError(f'--method-options is {text}; give an object: {{"gamma": 0.25}}')
    return found


def json_object(option: str, text: str) -> dict[str, Any]:
    """Options by name. OptionError: something else."""
    found = json_value(option, text)
    if not isinstance(found, dict) or not all(isinstance(options, dict) for options in found.values()):
        raise OptionError(f'{option} is {text}; give an object of objects: {{"smoothgrad": {{"samples": 10}}}}')
    return found


def read_target(value: str | None, model: Any) -> int | str | None:
    """A target as ``explain`` takes it: digits are an id, unless a classifier's labels are numbers themselves."""
    from hf_mambalrp.calls.inputs import TokenizerSource
    from hf_mambalrp.calls.labels import read_label
    from hf_mambalrp.calls.subject import subject_of
    from hf_mambalrp.calls.targets import Outputs

    if value is None or not (value.isascii() and value.isdigit()):
        return value
    subject = subject_of(model)
    network = subject.network()
    found = value if not network.is_language_model else int(value)
    named: int | str = read_label(found, Outputs(network, TokenizerSource(None, subject.place())))
    return named
