"""The command ``hf-mambalrp``: parses, calls the library, prints."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hf_mambalrp.cli_files import check_outputs, draw, read, write, write_text
from hf_mambalrp.errors import InputError, MambaLRPError, MissingTokenizerError, OptionError

if TYPE_CHECKING:
    from hf_mambalrp.explanation import Explanation

ModelOption = Annotated[
    str | None, typer.Option("--model", help="Folder or Hub id; default: the packaged sentiment model.")
]
TokenizerOption = Annotated[
    str | None, typer.Option("--tokenizer", help="Folder or Hub id; default: the one beside the model.")
]
TargetOption = Annotated[
    str | None, typer.Option("--target", help="Label, token text or id; default: the model's prediction.")
]
HtmlOption = Annotated[Path | None, typer.Option("--html", help="Write a self-contained HTML page here.")]
JsonOption = Annotated[Path | None, typer.Option("--json", help="Write the numbers here; - is standard output.")]

app = typer.Typer(
    help="Explain Mamba language models: which words speak for a prediction, and which against it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from hf_mambalrp import __version__

        print(__version__)
        raise typer.Exit


@app.callback()
def _group(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """What is given before the command's name."""


@app.command()
def explain(
    text: Annotated[str | None, typer.Argument(help="Text to explain; - reads standard input.")] = None,
    file: Annotated[
        Path | None, typer.Option(help="Read the text from this file instead; - is standard input.")
    ] = None,
    lines: Annotated[bool, typer.Option("--lines", help="Explain every line that is not empty as a text.")] = False,
    model: ModelOption = None,
    tokenizer: TokenizerOption = None,
    target: TargetOption = None,
    contrast: Annotated[str | None, typer.Option(help="Explain target rather than this one.")] = None,
    method: Annotated[str, typer.Option(help="mambalrp or another one; a wrong name lists them.")] = "mambalrp",
    backend: Annotated[str, typer.Option(help="auto, reference, chunked, compiled, triton or mamba_ssm.")] = "auto",
    level: Annotated[str, typer.Option(help="word or token.")] = "word",
    html: HtmlOption = None,
    json_file: JsonOption = None,
    png: Annotated[Path | None, typer.Option(help="Write a bar chart here (one text).")] = None,
    layers: Annotated[
        bool, typer.Option("--layers", help="Every layer too: in --json, and in --png as a heat map.")
    ] = False,
) -> None:
    """Explain a text: coloured in a terminal, readable without colour, optionally as HTML, JSON or PNG."""
    texts = _texts(text, file, lines)
    if png is not None and len(texts) != 1:
        raise InputError(f"--png draws one text, and there are {len(texts)}. Leave out --png or --lines.")
    if layers and png is None and json_file is None:
        raise OptionError("--layers adds every layer to --json and --png. Give one of them.")
    check_outputs(html, json_file, png)
    reads = _load_tokenizer(tokenizer)
    explanation: Explanation = _load(model).explain(
        texts,
        tokenizer=reads,
        target=_id_or_name(target),
        contrast=_id_or_name(contrast),
        method=method,
        backend=backend,
        layers=layers,
    )
    if json_file is None or str(json_file) != "-":
        _print(explanation, level)
    write(html, lambda path: explanation.to_html(path, level=level))  # type: ignore[arg-type]
    write(json_file, lambda path: write_text(path, explanation.to_json(indent=1)))
    write(png, lambda path: draw(explanation.plot(level=level, layers=layers), path))  # type: ignore[arg-type]


@app.command()
def attention(
    text: Annotated[str, typer.Argument(help="Text to read; - reads standard input.")],
    model: ModelOption = None,
    tokenizer: TokenizerOption = None,
    layer: Annotated[int | None, typer.Option(help="From 0, or from the last with -1; default: all.")] = None,
    kind: Annotated[str, typer.Option(help="raw (the scan) or unified (gate, scan, SiLU and convolution).")] = "raw",
    html: HtmlOption = None,
    json_file: JsonOption = None,
    png: Annotated[Path | None, typer.Option(help="Write a heat map of the layer, else of the last one, here.")] = None,
) -> None:
    """Show which position of a text reads which: hidden attention, the mean over channels."""
    texts = _texts(text, None, lines=False)
    check_outputs(html, json_file, png)
    reads = _load_tokenizer(tokenizer)
    found = _load(model).hidden_attention(texts, tokenizer=reads, layers=layer, kind=kind)
    if json_file is None or str(json_file) != "-":
        print(found)
    write(html, found.to_html)
    write(json_file, lambda path: write_text(path, found.to_json()))
    write(png, lambda path: draw(found.plot(), path))


@app.command(name="explain-dataset")
def explain_dataset_command(
    data: Annotated[
        Path, typer.Argument(help="File ending in .jsonl, .csv, .parquet or .txt (a text a line, blank ones left out).")
    ],
    output: Annotated[Path, typer.Option(help="New folder, or that of a run to go on with.")],
    model: ModelOption = None,
    tokenizer: TokenizerOption = None,
    text_column: Annotated[str, typer.Option(help="Column of the text.")] = "text",
    id_column: Annotated[str | None, typer.Option(help="Column of the id; default: id, or the row's number.")] = None,
    target: TargetOption = None,
    target_column: Annotated[str | None, typer.Option(help="Or the column that holds one a row.")] = None,
    method: Annotated[str, typer.Option(help="Attribution method.")] = "mambalrp",
    batch_tokens: Annotated[int, typer.Option(help="Tokens of a batch, padding included.")] = 8192,
    max_tokens: Annotated[int | None, typer.Option(help="Longer rows are not explained.")] = None,
    window: Annotated[int, typer.Option(help="Rows a process takes at a time.")] = 1024,
    on_error: Annotated[
        str | None,
        typer.Option(help="skip or raise; default: what the run began with, raise on one process, skip on several."),
    ] = None,
) -> None:
    """Explain every row of a file into Parquet; killed, the same command goes on where it was.

    On several GPUs: torchrun --nproc_per_node 2 -m hf_mambalrp.cli explain-dataset DATA --output FOLDER
    """
    from accelerate import PartialState
    from torch.cuda import is_available
    from transformers.utils import logging

    from hf_mambalrp import explain_dataset

    state = PartialState(cpu=not is_available())
    loaded = _load(model).to(state.device)
    logging.enable_progress_bar()
    run = explain_dataset(
        loaded,
        data,
        output,
        tokenizer=_load_tokenizer(tokenizer),
        text_column=text_column,
        id_column=id_column,
        target=_id_or_name(target),
        target_column=target_column,
        method=method,
        batch_tokens=batch_tokens,
        max_tokens=max_tokens,
        window=window,
        on_error=on_error,  # type: ignore[arg-type]
    )
    if state.is_main_process:
        print(
            f"{run.rows} rows in {run.output_dir}: {run.computed} explained now, {run.skipped} skipped, "
            f"{run.rows - run.computed - run.skipped} there before; {run.seconds:.1f} s on {run.processes} process(es)"
        )
    state.destroy_process_group()


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
def evaluate(
    data: Annotated[Path, typer.Option(help="A .jsonl file with a 'text' a row, or a file with a text a line.")],
    out: Annotated[Path, typer.Option(help="Folder for report.html, report.md and results.json.")],
    model: ModelOption = None,
    tokenizer: TokenizerOption = None,
    methods: Annotated[
        str | None, typer.Option(help="Names with commas, the one to compare with first; default: all but occlusion.")
    ] = None,
    method_options: Annotated[
        str, typer.Option(help="""JSON, for example '{"integrated_gradients": {"steps": 20}}'.""")
    ] = "{}",
    target: TargetOption = None,
    output: Annotated[str, typer.Option(help="logit or probability, what the areas are taken of.")] = "logit",
    replacement: Annotated[str, typer.Option(help="auto, zero, a token's id or text.")] = "auto",
    insertion: Annotated[str, typer.Option(help="remove absent tokens, or replace them.")] = "remove",
    step: Annotated[str, typer.Option(help="Tokens (2), a fraction (0.05), or auto: at most 20 steps.")] = "auto",
    samples: Annotated[int | None, typer.Option(help="Evaluate so many rows, drawn with the seed.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Rows of one forward.")] = None,
    confidence: Annotated[float, typer.Option(help="Of the intervals.")] = 0.95,
    resamples: Annotated[int, typer.Option(help="Of the bootstrap.")] = 2000,
    seed: Annotated[int, typer.Option(help="Of the sample, the methods and the bootstrap.")] = 0,
    processes: Annotated[int, typer.Option(help="Of this machine, each with a copy of the model.")] = 1,
    restart: Annotated[bool, typer.Option("--restart", help="Begin again where the folder holds a run.")] = False,
) -> None:
    """Compare methods by what the model does as tokens go and come; an interrupted run goes on where it was."""
    from transformers.utils import logging

    from hf_mambalrp.evaluation import evaluate_faithfulness

    loaded = _load(model)
    logging.enable_progress_bar()
    chosen = {} if methods is None else {"methods": [name.strip() for name in methods.split(",")]}
    evaluation = evaluate_faithfulness(
        loaded,
        data,
        tokenizer=_load_tokenizer(tokenizer),
        **chosen,  # type: ignore[arg-type]
        method_options=_json_object("--method-options", method_options),
        target=_id_or_name(target),
        output=output,
        replacement=_id_or_name(replacement),  # type: ignore[arg-type]
        insertion=insertion,
        step=_number(step),
        samples=samples,
        batch_size=batch_size,
        confidence=confidence,
        resamples=resamples,
        seed=seed,
        processes=processes,
        out=out,
        restart=restart,
    )
    print(evaluation)
    for name in ("report.html", "report.md", "results.json"):
        print(f"written: {out / name}", file=sys.stderr)


@app.command()
def push(
    repo: Annotated[str, typer.Argument(help="Repository on the Hub, user/name; created if it is not there.")],
    model: ModelOption = None,
    tokenizer: TokenizerOption = None,
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
        reads = _load_tokenizer(tokenizer)
        loaded = _load(model)
        address = loaded.push_to_hub(
            repo,
            tokenizer=reads,
            explanations=loaded.explain(text, tokenizer=reads) if text else None,
            evaluation=None if evaluation is None else _json("--evaluation", read(evaluation)),
            private=visibility,
        )
    print(address)


def _texts(text: str | None, file: Path | None, lines: bool) -> list[str]:
    if (text is None) == (file is None):
        given = "both" if text is not None else "neither"
        raise InputError(f"Give a TEXT or --file, and {given} was given. Example: hf-mambalrp explain 'a lovely film'")
    if file is not None or text == "-":
        text = read(file or Path("-"))
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
    _check_folder(name)
    architectures = configuration(name).architectures or []
    classifier = any("SequenceClassification" in architecture for architecture in architectures)
    chosen = AutoMambaLRPForSequenceClassification if classifier else AutoMambaLRPForCausalLM
    return chosen.from_pretrained(name)


def _load_tokenizer(name: str | None) -> Any:
    """The tokenizer of that name; None, which is the one beside the model, for None."""
    if name is None:
        return None
    from hf_mambalrp.tokenizing import load_tokenizer

    _check_folder(name)
    found = load_tokenizer(name)
    if found is None:
        raise InputError(f"--tokenizer {name!r}: none can be loaded from there. Give a folder with one, or a Hub id.")
    return found


def _check_folder(name: str) -> None:
    if name.startswith((".", "/", "~")) and not Path(name).is_dir():
        raise InputError(
            f"There is no folder {name!r}. Give a folder with a checkpoint, or a Hub id such as user/model."
        )


def _number(value: str) -> int | float | str:
    """Tokens as an int, a fraction as a float; other text stays, to be refused by name."""
    for kind in (int, float):
        try:
            return kind(value)
        except ValueError:
            continue
    return value


def _json(option: str, text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise OptionError(f"{option} is no JSON: {error}.") from error


def _json_object(option: str, text: str) -> dict[str, Any]:
    found = _json(option, text)
    if not isinstance(found, dict) or not all(isinstance(options, dict) for options in found.values()):
        raise OptionError(f'{option} is {text}; give an object of objects: {{"smoothgrad": {{"samples": 10}}}}')
    return found


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
        hint = " As an option of this command: --tokenizer NAME." if isinstance(error, MissingTokenizerError) else ""
        print(f"hf-mambalrp: {' '.join(str(error).split())}{hint}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
