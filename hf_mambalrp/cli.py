"""The command ``hf-mambalrp``: parses, calls the library, prints."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hf_mambalrp.errors import InputError, MambaLRPError, OptionError

if TYPE_CHECKING:
    from hf_mambalrp.explanation import Explanation

app = typer.Typer(
    help="Explain Mamba language models: which words speak for a prediction, and which against it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback()
def _group() -> None:
    """Keep sub-commands even while there are few."""


@app.command()
def explain(
    text: Annotated[str | None, typer.Argument(help="Text to explain; - reads standard input.")] = None,
    file: Annotated[
        Path | None, typer.Option(help="Read the text from this file instead; - is standard input.")
    ] = None,
    lines: Annotated[bool, typer.Option("--lines", help="Explain every line that is not empty as a text.")] = False,
    model: Annotated[str | None, typer.Option(help="Folder or Hub id; default: the packaged sentiment model.")] = None,
    target: Annotated[str | None, typer.Option(help="Label, token text or id; default: the prediction.")] = None,
    contrast: Annotated[str | None, typer.Option(help="Explain target rather than this one.")] = None,
    method: Annotated[str, typer.Option(help="mambalrp, lrp_ln or gradient_x_input.")] = "mambalrp",
    level: Annotated[str, typer.Option(help="word or token.")] = "word",
    html: Annotated[Path | None, typer.Option(help="Write a self-contained HTML page here.")] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write the numbers here; - is standard output.")
    ] = None,
    png: Annotated[Path | None, typer.Option(help="Write a bar chart here (one text).")] = None,
) -> None:
    """Explain a text: coloured in a terminal, readable without colour, optionally as HTML, JSON or PNG."""
    texts = _texts(text, file, lines)
    if png is not None and len(texts) != 1:
        raise InputError(f"--png draws one text, and there are {len(texts)}. Leave out --png or --lines.")
    explanation: Explanation = _load(model).explain(
        texts, target=_id_or_name(target), contrast=_id_or_name(contrast), method=method
    )
    if json_file is None or str(json_file) != "-":
        _print(explanation, level)
    if html is not None:
        explanation.to_html(html, level=level)  # type: ignore[arg-type]
    if json_file is not None:
        document = explanation.to_json(indent=1)
        print(document) if str(json_file) == "-" else json_file.write_text(document + "\n", encoding="utf-8")
    if png is not None:
        explanation.plot(level=level).savefig(png, dpi=150, bbox_inches="tight")  # type: ignore[arg-type]
    for path in (html, json_file, png):
        if path is not None and str(path) != "-":
            print(f"written: {path}", file=sys.stderr)


@app.command()
def demo(
    html: Annotated[Path, typer.Option(help="Where the HTML page goes.")] = Path("out/demo.html"),
    count: Annotated[int, typer.Option(min=1, help="How many reviews.")] = 6,
) -> None:
    """Explain real review sentences with the packaged model, offline."""
    from hf_mambalrp import DEMO_MODEL

    lines = (Path(DEMO_MODEL) / "reviews.jsonl").read_text(encoding="utf-8").splitlines()
    reviews = [json.loads(line) for line in lines][:count]
    explanation: Explanation = _load(None).explain([review["text"] for review in reviews])
    _print(explanation, "word")
    html.parent.mkdir(parents=True, exist_ok=True)
    explanation.to_html(html, title="Held-out film reviews, explained by MambaLRP")
    print(f"The same as a page: {html.resolve()}")


@app.command()
def push(
    repo: Annotated[str, typer.Argument(help="Repository on the Hub, user/name; created if it is not there.")],
    model: Annotated[str | None, typer.Option(help="Folder or Hub id; default: the packaged sentiment model.")] = None,
    text: Annotated[
        list[str] | None, typer.Option(help="Explain this in the model's card; may be given several times.")
    ] = None,
    evaluation: Annotated[Path | None, typer.Option(help="results.json of an evaluation, for the card.")] = None,
    explanations: Annotated[
        Path | None, typer.Option(help="Push this folder of explain_dataset as a dataset, instead of a model.")
    ] = None,
    space: Annotated[bool, typer.Option("--space", help="Create a Space for --model, instead.")] = False,
    private: Annotated[bool, typer.Option("--private", help="If the repository is created.")] = False,
) -> None:
    """Push a model with explanations in its card, a dataset of them, or a Space. First log in: `hf auth login`."""
    from hf_mambalrp.hub import create_space, push_explanations

    visibility = True if private else None
    if sum([bool(text) or evaluation is not None, explanations is not None, space]) > 1:
        raise OptionError(
            "Give --text and --evaluation for a model, or --explanations FOLDER, or --space: one of these."
        )
    if space and model is None:
        raise OptionError("A Space needs --model user/name: what it explains, on the Hub.")
    if space:
        address = create_space(repo, model_id=str(model), private=visibility)
    elif explanations is not None:
        address = push_explanations(explanations, repo, private=visibility)
    else:
        loaded = _load(model)
        address = loaded.push_to_hub(
            repo,
            explanations=loaded.explain(text) if text else None,
            evaluation=None if evaluation is None else json.loads(evaluation.read_text(encoding="utf-8")),
            private=visibility,
        )
    print(address)


def _texts(text: str | None, file: Path | None, lines: bool) -> list[str]:
    if (text is None) == (file is None):
        given = "both" if text is not None else "neither"
        raise InputError(f"Give a TEXT or --file, and {given} was given. Example: hf-mambalrp explain 'a lovely film'")
    if text == "-" or str(file) == "-":
        text = sys.stdin.buffer.read().decode("utf-8")
    elif file is not None:
        text = file.read_text(encoding="utf-8")
    assert text is not None
    texts = [line.strip() for line in text.splitlines()] if lines else [text.strip()]
    texts = [line for line in texts if line]
    if not texts:
        raise InputError("The text is empty; there is nothing to explain.")
    return texts


def _load(model: str | None) -> Any:
    """Load the explainable class that the checkpoint's ``architectures`` asks for."""
    from transformers.utils import logging

    from hf_mambalrp import DEMO_MODEL
    from hf_mambalrp.auto import AutoMambaLRPForCausalLM, AutoMambaLRPForSequenceClassification, configuration

    logging.disable_progress_bar()
    name = DEMO_MODEL if model is None else model
    if name.startswith((".", "/", "~")) and not Path(name).is_dir():
        raise InputError(
            f"There is no folder {name!r}. Give a folder with a checkpoint, or a Hub id such as user/model."
        )
    architectures = configuration(name).architectures or []
    classifier = any("SequenceClassification" in architecture for architecture in architectures)
    chosen = AutoMambaLRPForSequenceClassification if classifier else AutoMambaLRPForCausalLM
    return chosen.from_pretrained(name)


def _id_or_name(value: str | None) -> int | str | None:
    return int(value) if value is not None and value.isascii() and value.isdigit() else value


def _print(explanation: "Explanation", level: str) -> None:
    from rich.console import Console

    console = Console()
    color = console.is_terminal and not console.no_color
    print(explanation.to_text(color=color, width=console.width, level=level))  # type: ignore[arg-type]


def main() -> None:
    """Entry point. Exit codes: 0 done, 1 an error said in one line, 2 wrong usage, 130 interrupted."""
    try:
        app()
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output has gone; that is not our error
        sys.exit(0)
    except KeyboardInterrupt:
        sys.exit(130)
    except (MambaLRPError, OSError, UnicodeError) as error:
        print(f"hf-mambalrp: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
