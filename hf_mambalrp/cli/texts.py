"""The commands that show a few texts: ``explain``, ``attention`` and ``demo``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from hf_mambalrp.cli.files import check_outputs, draw, for_terminal, read_texts, show, write_output
from hf_mambalrp.cli.loading import load_model, tokenizer_named
from hf_mambalrp.cli.options import (
    BACKENDS,
    METHODS,
    METHODS_WITH_LAYERS,
    PARTS,
    ContrastOption,
    HtmlOption,
    JsonOption,
    ModelOption,
    OptionsOfMethod,
    TargetOption,
    TokenizerOption,
    method_options_of,
    read_target,
)
from hf_mambalrp.errors import InputError, OptionError
from hf_mambalrp.runs.checks import one_of
from hf_mambalrp.viz.words import Level

if TYPE_CHECKING:
    from hf_mambalrp.results.explanation import Explanation


PROMPT = "Anna had a dog called Rex. One day the dog ran away."
"""What the demo's language model goes on with."""
DEMO_TOKENS = 24


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
    method_options: OptionsOfMethod = "{}",
    backend: Annotated[str, typer.Option(help="auto, reference, chunked, compiled, triton or mamba_ssm.")] = "auto",
    level: Annotated[str, typer.Option(help="word, token, sentence or passage.")] = "word",
    html: HtmlOption = None,
    json_file: JsonOption = None,
    png: Annotated[Path | None, typer.Option(help="Write a bar chart here (one text).")] = None,
    per_layer: Annotated[
        bool, typer.Option("--per-layer", help="Every layer too: in --json, and in --png as a heat map.")
    ] = False,
    per_part: Annotated[
        bool, typer.Option("--per-part", help="What SSM, attention, MLP and experts read: likewise.")
    ] = False,
) -> None:
    """Explain a text: coloured in a terminal, readable without colour, optionally as HTML, JSON or PNG."""
    one_of("--level", level, get_args(Level))
    one_of("--method", method, METHODS)
    one_of("--backend", backend, BACKENDS)
    for option, asked in (("--per-layer", per_layer), ("--per-part", per_part)):
        if asked:
            one_of(f"{option} with --method", method, METHODS_WITH_LAYERS)
    options = method_options_of(method_options)
    texts = read_texts("explain", text, file, lines, text_column)
    if png is not None and len(texts) != 1:
        raise InputError(f"--png draws one text, and there are {len(texts)}. Leave out --png or --lines.")
    if per_layer and per_part and png is not None:
        raise OptionError("--png draws layers or parts. Leave out --per-layer or --per-part.")
    if (per_layer or per_part) and png is None and json_file is None:
        given, what = ("--per-layer", "every layer") if per_layer else ("--per-part", "what every part read")
        raise OptionError(f"{given} adds {what} to --json and --png. Give one of them.")
    check_outputs(html, json_file, png)
    reads = tokenizer_named(tokenizer)
    loaded = load_model(model)
    explanation: Explanation = loaded.explain(
        texts,
        tokenizer=reads,
        target=read_target(target, loaded),
        contrast=read_target(contrast, loaded),
        method=method,
        backend=backend,
        per_layer=per_layer or per_part,
        **options,
    )
    write_output(html, lambda path: explanation.to_html(path, level=level))  # type: ignore[arg-type]
    write_output(json_file, lambda path: path.write_text(explanation.to_json(indent=1) + "\n", encoding="utf-8"))
    shown: dict[str, Any] = {"level": level, "per_layer": per_layer, "per_part": per_part}
    write_output(png, lambda path: draw(explanation.plot(**shown), path))
    show(json_file, lambda: explanation.to_json(indent=1), lambda: for_terminal(explanation, level=level))


def attention(
    text: Annotated[str, typer.Argument(help="Text to read, as it is; - reads standard input.")],
    model: ModelOption = None,
    tokenizer: TokenizerOption = None,
    layer: Annotated[int | None, typer.Option(help="From 0, or from the last with -1; default: all.")] = None,
    part: Annotated[
        str | None, typer.Option(help="ssm, delta, conv, linear or attention, of a hybrid; default: all.")
    ] = None,
    kind: Annotated[str, typer.Option(help="raw (the scan) or unified (gate, scan, SiLU and convolution).")] = "raw",
    html: HtmlOption = None,
    json_file: JsonOption = None,
    png: Annotated[Path | None, typer.Option(help="Write the last heat map (of the layer) here.")] = None,
) -> None:
    """Show which position of a text reads which: hidden attention, the mean over channels or heads."""
    one_of("--kind", kind, ("raw", "unified"))
    if part is not None:
        one_of("--part", part, PARTS)
    texts = read_texts("attention", text, None, False, None)
    check_outputs(html, json_file, png)
    reads = tokenizer_named(tokenizer)
    found = load_model(model).hidden_attention(texts, tokenizer=reads, layers=layer, part=part, kind=kind)
    write_output(html, found.to_html)
    write_output(json_file, lambda path: path.write_text(found.to_json() + "\n", encoding="utf-8"))
    write_output(png, lambda path: draw(found.plot(), path))
    show(json_file, found.to_json, lambda: str(found))


def demo(
    html: Annotated[Path, typer.Option(help="Where the HTML page goes.")] = Path("out/demo.html"),
    count: Annotated[int, typer.Option(min=1, help="How many reviews.")] = 6,
) -> None:
    """Explain real review sentences, a next word and a generated text with the packaged models, offline."""
    from hf_mambalrp import DEMO_MODEL

    reviews = read_texts("demo", None, Path(DEMO_MODEL) / "reviews.jsonl", False, None)[:count]
    language = load_model("DEMO_LANGUAGE_MODEL")
    pages = {
        html: ("Held-out film reviews, explained by MambaLRP", load_model(None).explain(reviews)),
        html.with_stem(f"{html.stem}-next-word"): ("A next word, explained by MambaLRP", language.explain(PROMPT)),
        html.with_stem(f"{html.stem}-generation"): (
            "A generated text, explained by MambaLRP",
            language.explain_generation(PROMPT, max_new_tokens=DEMO_TOKENS),
        ),
    }
    html.parent.mkdir(parents=True, exist_ok=True)
    for path, (title, result) in pages.items():
        result.to_html(path, title=title)
        print(for_terminal(result))
    print("The same as pages:", *(path.resolve() for path in pages), sep="\n")
