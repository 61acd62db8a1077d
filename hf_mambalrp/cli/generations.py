"""The command that generates a text and explains it: ``explain-generation``."""

from pathlib import Path
from typing import Annotated, get_args

import typer

from hf_mambalrp.cli.files import check_outputs, draw, for_terminal, read_texts, show, write_output
from hf_mambalrp.cli.loading import load_model, tokenizer_named
from hf_mambalrp.cli.options import (
    BACKENDS,
    METHODS_WITH_LAYERS,
    HtmlOption,
    JsonOption,
    OptionsOfMethod,
    TokenizerOption,
    method_options_of,
    read_target,
)
from hf_mambalrp.errors import InputError
from hf_mambalrp.runs.checks import one_of
from hf_mambalrp.viz.words import Level


def explain_generation(
    prompt: Annotated[str | None, typer.Argument(help="Text to go on with, as it is; - reads standard input.")] = None,
    file: Annotated[Path | None, typer.Option(help="Read the prompt from this file instead.")] = None,
    lines: Annotated[bool, typer.Option("--lines", help="Every line that is not blank is a prompt.")] = False,
    model: Annotated[
        str, typer.Option(help="Folder or Hub id of a language model; default: the packaged one.")
    ] = "DEMO_LANGUAGE_MODEL",
    tokenizer: TokenizerOption = None,
    tokens: Annotated[
        int | None, typer.Option(min=1, help="To generate, at most; default: what the model's settings say, or 20.")
    ] = None,
    contrast: Annotated[
        str | None, typer.Option(help="Rather than this token: its text, its id in digits, or runner-up.")
    ] = None,
    method: Annotated[str, typer.Option(help=f"One of {', '.join(METHODS_WITH_LAYERS)}.")] = "mambalrp",
    method_options: OptionsOfMethod = "{}",
    backend: Annotated[str, typer.Option(help="auto, reference, chunked, compiled, triton or mamba_ssm.")] = "auto",
    level: Annotated[str, typer.Option(help="word, token, sentence or passage.")] = "word",
    html: HtmlOption = None,
    json_file: JsonOption = None,
    png: Annotated[Path | None, typer.Option(help="Write a heat map here (one prompt).")] = None,
) -> None:
    """Generate a text and explain every token of it: on a page where each lights up what spoke for and against it."""
    one_of("--level", level, get_args(Level))
    one_of("--method", method, METHODS_WITH_LAYERS)
    one_of("--backend", backend, BACKENDS)
    options = method_options_of(method_options)
    prompts = read_texts("explain-generation", prompt, file, lines, None)
    if png is not None and len(prompts) != 1:
        raise InputError(f"--png draws one prompt, and there are {len(prompts)}. Leave out --png or --lines.")
    check_outputs(html, json_file, png)
    reads, loaded = tokenizer_named(tokenizer), load_model(model)
    found = loaded.explain_generation(
        prompts,
        tokenizer=reads,
        max_new_tokens=tokens,
        contrast=read_target(contrast, loaded),
        method=method,
        backend=backend,
        **options,
    )
    write_output(html, lambda path: found.to_html(path, level=level))
    write_output(json_file, lambda path: found.to_json(path, indent=1))
    write_output(png, lambda path: draw(found.plot(level=level), path))
    show(json_file, lambda: found.to_json(indent=1), lambda: for_terminal(found, level=level))
