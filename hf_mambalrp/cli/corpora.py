"""The commands that read a file of rows: ``explain-dataset`` and ``evaluate``."""

import sys
from typing import Annotated, Any

import typer

from hf_mambalrp.cli.files import read_dataset
from hf_mambalrp.cli.loading import load_model, tokenizer_named
from hf_mambalrp.cli.options import (
    METHODS,
    ContrastOption,
    DataArgument,
    IdColumnOption,
    ModelOption,
    OnErrorOption,
    OptionsOfMethod,
    OutputOption,
    RestartOption,
    TargetColumnOption,
    TargetOption,
    TextColumnOption,
    TokenizerOption,
    int_or_float,
    json_object,
    method_options_of,
    names,
    read_target,
)
from hf_mambalrp.errors import OptionError
from hf_mambalrp.runs.checks import check_on_error, check_sizes, one_of
from hf_mambalrp.runs.rows import Columns


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
    method_options: OptionsOfMethod = "{}",
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
    options = method_options_of(method_options)
    kept = tuple(names(columns))
    dataset = read_dataset(data, Columns(text_column, id_column, target_column, contrast_column, kept))
    if (target and target_column) or (contrast and contrast_column):
        raise OptionError("Give --target and --contrast for all rows, or the columns that hold them, not both.")

    from hf_mambalrp import explain_dataset
    from hf_mambalrp.datasets.together import launched

    state = launched()
    loaded = load_model(model).to(state.device)
    run = explain_dataset(
        loaded,
        dataset,
        output,
        tokenizer=tokenizer_named(tokenizer),
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
        **options,
    )
    if state.is_main_process:
        print(run)
    state.destroy_process_group()


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
    ceiling: Annotated[int, typer.Option(help="Search the best order for so many of them; n^2 forwards each.")] = 0,
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

    from hf_mambalrp.evaluation import evaluate_faithfulness
    from hf_mambalrp.evaluation.settings import DEFAULT_METHODS, Settings

    settings: dict[str, Any] = {
        "methods": DEFAULT_METHODS if methods is None else names(methods),
        "method_options": options,
        "target": target,
        "measure": measure,
        "replacement": int(replacement) if replacement.isascii() and replacement.isdigit() else replacement,
        "insertion": insertion,
        "step": int_or_float(step),
        "samples": samples,
        "ceiling": ceiling,
        "confidence": confidence,
        "resamples": resamples,
        "seed": seed,
    }
    Settings(**settings)  # says what is not allowed before a model is loaded
    loaded = load_model(model)
    evaluation = evaluate_faithfulness(
        loaded,
        dataset,
        tokenizer=tokenizer_named(tokenizer),
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
