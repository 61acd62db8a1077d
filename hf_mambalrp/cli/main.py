"""The command ``hf-mambalrp``: parses, calls the library, prints."""

import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hf_mambalrp.cli.files import check_outputs, draw, read, read_dataset, read_texts, show, write
from hf_mambalrp.cli.options import (
    BACKENDS,
    METHODS,
    METHODS_WITH_LAYERS,
    ContrastOption,
    DataArgument,
    HtmlOption,
    IdColumnOption,
    JsonOption,
    ModelOption,
    OnErrorOption,
    OutputOption,
    RestartOption,
    TargetColumnOption,
    TargetOption,
    TextColumnOption,
    TokenizerOption,
    json_object,
    json_value,
    names,
    number,
    read_target,
)
from hf_mambalrp.cli.serve import serve
from hf_mambalrp.errors import InputError, MambaLRPError, MissingTokenizerError, OptionError
from hf_mambalrp.runs.checks import check_on_error, check_sizes, one_of
from hf_mambalrp.runs.rows import Columns
from hf_mambalrp.viz.streams import lenient_streams

if TYPE_CHECKING:
    from hf_mambalrp.results.explanation import Explanation

AT_THE_END = ExitStack()
"""What is undone when the command ends."""

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
    text: Annotated[str | None, typer.Argument(help="Text to explain, as it is; - reads standard input.")] = None,
    file: Annotated[
        Path | None,
        typer.Option(help="Read the text from this file instead, or the texts of a .jsonl, .csv or .parquet file."),
    ] = None,
    lines: Annotated[bool, typer.Option("--lines", help="Explain every line that is not blank as a text.")] = False,
    text_column: Annotated[str | None, typer.Option(help="Column of the texts in a table; default: text.")] = None,
    model: ModelOption = None,
    tokenizer: TokenizerOption = None,
    target: TargetOption = None,
    contrast: ContrastOption = None,
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
    one_of("--level", level, ("word", "token"))
    one_of("--method", method, METHODS)
    one_of("--backend", backend, BACKENDS)
    if layers:
        one_of("--layers with --method", method, METHODS_WITH_LAYERS)
    texts = read_texts(text, file, lines, text_column)
    if png is not None and len(texts) != 1:
        raise InputError(f"--png draws one text, and there are {len(texts)}. Leave out --png or --lines.")
    if layers and png is None and json_file is None:
        raise OptionError("--layers adds every layer to --json and --png. Give one of them.")
    check_outputs(html, json_file, png)
    reads = _load_tokenizer(tokenizer)
    loaded = _load(model)
    explanation: Explanation = loaded.explain(
        texts,
        tokenizer=reads,
        target=read_target(target, loaded),
        contrast=read_target(contrast, loaded),
        method=method,
        backend=backend,
        layers=layers,
    )
    write(html, lambda path: explanation.to_html(path, level=level))  # type: ignore[arg-type]
    write(json_file, lambda path: path.write_text(explanation.to_json(indent=1) + "\n", encoding="utf-8"))
    write(png, lambda path: draw(explanation.plot(level=level, layers=layers), path))  # type: ignore[arg-type]
    show(json_file, lambda: explanation.to_json(indent=1), lambda: _reading(explanation, level))


@app.command()
def attention(
    text: Annotated[str, typer.Argument(help="Text to read, as it is; - reads standard input.")],
    model: ModelOption = None,
    tokenizer: TokenizerOption = None,
    layer: Annotated[int | None, typer.Option(help="From 0, or from the last with -1; default: all.")] = None,
    kind: Annotated[str, typer.Option(help="raw (the scan) or unified (gate, scan, SiLU and convolution).")] = "raw",
    html: HtmlOption = None,
    json_file: JsonOption = None,
    png: Annotated[Path | None, typer.Option(help="Write a heat map of the layer, else of the last one, here.")] = None,
) -> None:
    """Show which position of a text reads which: hidden attention, the mean over channels."""
    one_of("--kind", kind, ("raw", "unified"))
    texts = read_texts(text, None, False, None)
    check_outputs(html, json_file, png)
    reads = _load_tokenizer(tokenizer)
    found = _load(model).hidden_attention(texts, tokenizer=reads, layers=layer, kind=kind)
    write(html, found.to_html)
    write(json_file, lambda path: path.write_text(found.to_json() + "\n", encoding="utf-8"))
    write(png, lambda path: draw(found.plot(), path))
    show(json_file, found.to_json, lambda: str(found))


@app.command(name="explain-dataset")
def explain_dataset_command(
    data: DataArgument,
    output: OutputOption,
    model: ModelOption = None,
    tokenizer: TokenizerOption = None,
    text_column: TextColumnOption = "text",
    id_column: IdColumnOption = None,
    target: TargetOption = None,
    target_column: TargetColumnOption = None,
    contrast: ContrastOption = None,
    contrast_column: TargetColumnOption = None,
    columns: Annotated[
        str | None, typer.Option(help="Columns to keep beside a row's explanation, names with commas.")
    ] = None,
    method: Annotated[str, typer.Option(help="Attribution method.")] = "mambalrp",
    batch_tokens: Annotated[int, typer.Option(help="Tokens of a batch, padding included.")] = 8192,
    max_tokens: Annotated[int | None, typer.Option(help="Longer rows are not explained.")] = None,
    window: Annotated[int, typer.Option(help="Rows a process takes at a time.")] = 1024,
    on_error: OnErrorOption = None,
    restart: RestartOption = False,
) -> None:
    """Explain every row of a file into Parquet; killed, the same command goes on where it was.

    On several GPUs: torchrun --nproc_per_node 2 -m hf_mambalrp.cli explain-dataset DATA --output FOLDER
    """
    one_of("--method", method, METHODS)
    check_on_error(on_error)
    check_sizes(batch_tokens=batch_tokens, window=window, max_tokens=max_tokens)
    kept = tuple(names(columns))
    dataset = read_dataset(data, Columns(text_column, id_column, target_column, contrast_column, kept))
    if (target and target_column) or (contrast and contrast_column):
        raise OptionError("Give --target and --contrast for all rows, or the columns that hold them, not both.")

    from accelerate import PartialState
    from torch.cuda import is_available
    from transformers.utils import logging

    from hf_mambalrp import explain_dataset

    state = PartialState(cpu=not is_available())
    loaded = _load(model).to(state.device)
    logging.enable_progress_bar()
    run = explain_dataset(
        loaded,
        dataset,
        output,
        tokenizer=_load_tokenizer(tokenizer),
        text_column=text_column,
        id_column=id_column,
        target=read_target(target, loaded),
        target_column=target_column,
        contrast=read_target(contrast, loaded),
        contrast_column=contrast_column,
        columns=kept,
        method=method,
        batch_tokens=batch_tokens,
        max_tokens=max_tokens,
        window=window,
        on_error=on_error,  # type: ignore[arg-type]
        restart=restart,
    )
    if state.is_main_process:
        print(run)
    state.destroy_process_group()


@app.command()
def demo(
    html: Annotated[Path, typer.Option(help="Where the HTML page goes.")] = Path("out/demo.html"),
    count: Annotated[int, typer.Option(min=1, help="How many reviews.")] = 6,
) -> None:
    """Explain real review sentences with the packaged model, offline."""
    from hf_mambalrp import DEMO_MODEL

    reviews = read_texts(None, Path(DEMO_MODEL) / "reviews.jsonl", False, None)[:count]
    explanation: Explanation = _load(None).explain(reviews)
    html.parent.mkdir(parents=True, exist_ok=True)
    explanation.to_html(html, title="Held-out film reviews, explained by MambaLRP")
    print(_reading(explanation, "word"))
    print(f"The same as a page: {html.resolve()}")


@app.command()
def evaluate(
    data: DataArgument,
    output: OutputOption,
    model: ModelOption = None,
    tokenizer: TokenizerOption = None,
    text_column: TextColumnOption = "text",
    id_column: IdColumnOption = None,
    methods: Annotated[
        str | None, typer.Option(help="Names with commas, the one to compare with first; default: all but occlusion.")
    ] = None,
    method_options: Annotated[
        str, typer.Option(help="""JSON, for example '{"integrated_gradients": {"steps": 20}}'.""")
    ] = "{}",
    target: TargetOption = None,
    target_column: TargetColumnOption = None,
    measure: Annotated[str, typer.Option(help="logit or probability, what the areas are taken of.")] = "logit",
    replacement: Annotated[str, typer.Option(help="auto, zero, a token's id or text.")] = "auto",
    insertion: Annotated[str, typer.Option(help="remove absent tokens, or replace them.")] = "remove",
    step: Annotated[str, typer.Option(help="Tokens (2), a fraction (0.05), or auto: at most 20 steps.")] = "auto",
    samples: Annotated[int | None, typer.Option(help="Evaluate so many rows, drawn with the seed.")] = None,
    batch_tokens: Annotated[int | None, typer.Option(help="Tokens of one forward.")] = None,
    confidence: Annotated[float, typer.Option(help="Of the intervals.")] = 0.95,
    resamples: Annotated[int, typer.Option(help="Of the bootstrap.")] = 2000,
    seed: Annotated[int, typer.Option(help="Of the sample, the methods and the bootstrap.")] = 0,
    processes: Annotated[int, typer.Option(help="Of this machine, each with a copy of the model.")] = 1,
    on_error: OnErrorOption = None,
    restart: RestartOption = False,
) -> None:
    """Compare methods by what the model does as tokens go and come; an interrupted run goes on where it was."""
    for name in names(methods):
        one_of("--methods", name, METHODS)
    check_on_error(on_error)
    check_sizes(batch_tokens=batch_tokens, processes=processes)
    dataset = read_dataset(data, Columns(text_column, id_column, target_column))
    options = json_object("--method-options", method_options)

    from transformers.utils import logging

    from hf_mambalrp.evaluation import evaluate_faithfulness
    from hf_mambalrp.evaluation.settings import DEFAULT_METHODS, Settings

    settings: dict[str, Any] = {
        "methods": DEFAULT_METHODS if methods is None else names(methods),
        "method_options": options,
        "target": target,
        "measure": measure,
        "replacement": int(replacement) if replacement.isascii() and replacement.isdigit() else replacement,
        "insertion": insertion,
        "step": number(step),
        "samples": samples,
        "confidence": confidence,
        "resamples": resamples,
        "seed": seed,
    }
    Settings(**settings)  # says what is not allowed before a model is loaded
    loaded = _load(model)
    logging.enable_progress_bar()
    evaluation = evaluate_faithfulness(
        loaded,
        dataset,
        tokenizer=_load_tokenizer(tokenizer),
        text_column=text_column,
        id_column=id_column,
        target_column=target_column,
        **{**settings, "target": read_target(target, loaded)},
        batch_tokens=batch_tokens,
        processes=processes,
        on_error=on_error,  # type: ignore[arg-type]
        output_dir=output,
        restart=restart,
    )
    print(evaluation)
    for name in ("report.html", "report.md", "results.json"):
        print(f"written: {output / name}", file=sys.stderr)


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
    visibility = True if private else None
    if sum([bool(text) or evaluation is not None, explanations is not None, space]) > 1:
        raise OptionError(
            "Give --text and --evaluation for a model, or --explanations FOLDER, or --space: one of these."
        )
    if space and model is None:
        raise OptionError("A Space needs --model user/name: what it explains, on the Hub.")
    figures = None if evaluation is None else json_value("--evaluation", read(evaluation))

    from hf_mambalrp import create_space, push_explanations

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
            evaluation=figures,
            private=visibility,
        )
    print(address)


app.command(name="app")(serve)


def _load(model: str | None) -> Any:
    """Load the explainable class that the checkpoint's ``architectures`` asks for."""
    if model is not None:
        _reach(model)

    from transformers.utils import logging

    from hf_mambalrp import DEMO_MODEL
    from hf_mambalrp.models.auto import AutoMambaLRPForCausalLM, AutoMambaLRPForSequenceClassification, configuration

    shown = logging.is_progress_bar_enabled()
    AT_THE_END.callback(logging.enable_progress_bar if shown else logging.disable_progress_bar)
    logging.disable_progress_bar()
    name = DEMO_MODEL if model is None else model
    architectures = configuration(name).architectures or []
    classifier = any("SequenceClassification" in architecture for architecture in architectures)
    chosen = AutoMambaLRPForSequenceClassification if classifier else AutoMambaLRPForCausalLM
    return chosen.from_pretrained(name)


def _load_tokenizer(name: str | None) -> Any:
    """The tokenizer of that name; None, which is the one beside the model, for None."""
    if name is None:
        return None
    _reach(name)

    from hf_mambalrp.calls.tokenizing import load_tokenizer

    found = load_tokenizer(name)
    if found is None:
        raise InputError(f"--tokenizer {name!r}: none can be loaded from there. Give a folder with one, or a Hub id.")
    return found


def _reach(name: str) -> None:
    """Raise for what cannot be loaded; from here on only the cache is read where the Hub is out of reach."""
    from hf_mambalrp.hub.reach import check_source, from_the_cache

    if check_source(name):
        print(f"note: the Hub cannot be reached, so {name} is loaded from the cache", file=sys.stderr)
        AT_THE_END.enter_context(from_the_cache())


def _reading(explanation: "Explanation", level: str) -> str:
    from rich.console import Console

    console = Console()
    color = console.is_terminal and not console.no_color
    return explanation.to_text(color=color, width=console.width, level=level)  # type: ignore[arg-type]


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point. Exit codes: 0 done, 1 an error said in one line, 2 wrong usage, 130 interrupted."""
    with lenient_streams(), AT_THE_END:
        try:
            try:
                app(args=None if arguments is None else list(arguments))
            finally:
                sys.stdout.flush()
        except KeyboardInterrupt:
            sys.exit(130)
        except (MambaLRPError, OSError, UnicodeError) as error:
            hint = (
                " As an option of this command: --tokenizer NAME." if isinstance(error, MissingTokenizerError) else ""
            )
            print(f"hf-mambalrp: {' '.join(str(error).split())}{hint}", file=sys.stderr)
            sys.exit(1)
