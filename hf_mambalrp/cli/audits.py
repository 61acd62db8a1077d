"""The command that audits a model over a file of rows: ``audit``."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from hf_mambalrp.cli.files import for_terminal, read_dataset
from hf_mambalrp.cli.loading import load_model, tokenizer_named
from hf_mambalrp.cli.options import (
    DataArgument,
    ModelOption,
    OutputOption,
    RestartOption,
    TextColumnOption,
    TokenizerOption,
    names,
)
from hf_mambalrp.errors import OptionError
from hf_mambalrp.runs.checks import check_sizes
from hf_mambalrp.runs.rows import Columns


def audit(
    data: DataArgument,
    output: OutputOption,
    model: ModelOption = None,
    tokenizer: TokenizerOption = None,
    text_column: TextColumnOption = "text",
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
    groups: Annotated[str | None, typer.Option(help="Column by whose values the texts are told apart.")] = None,
    min_effect: Annotated[float, typer.Option(help="Smallest effect, in standard deviations of the score.")] = 0.2,
    candidates: Annotated[int, typer.Option(help="Words, runs and pairs that are tested.")] = 12,
    min_texts: Annotated[int, typer.Option(help="A candidate is in at least so many texts.")] = 10,
    max_texts: Annotated[int, typer.Option(help="Of more texts with a candidate so many are drawn.")] = 1000,
    seed: Annotated[int, typer.Option(help="Of the draws.")] = 0,
    batch_tokens: Annotated[int | None, typer.Option(help="Tokens of one forward.")] = None,
    restart: RestartOption = False,
) -> None:
    """Ask a model which words it relies on, over a file of texts; killed, the same command goes on where it was.

    The folder gets audit.json, audit.html and the explanations that the candidates are from.
    """
    check_sizes(batch_tokens=batch_tokens, candidates=candidates, min_texts=min_texts, max_texts=max_texts)
    pairs = None if swaps is None else {swaps: [_pair(one) for one in names(swaps)]}
    kept = tuple(name for name in (label, groups) if name is not None)
    dataset = read_dataset(data, Columns(text_column, None, target_column, contrast_column, kept))

    from hf_mambalrp.audit import audit as run
    from hf_mambalrp.datasets.together import launched

    state = launched()
    loaded = load_model(model).to(state.device)
    before = None if base is None else load_model(base).to(state.device)
    found = run(
        loaded,
        dataset,
        output,
        tokenizer=tokenizer_named(tokenizer),
        text_column=text_column,
        label=label,
        target=target,
        contrast=contrast,
        target_column=target_column,
        contrast_column=contrast_column,
        base=before,
        swaps=pairs,
        groups=groups,
        min_effect=min_effect,
        candidates=candidates,
        min_texts=min_texts,
        max_texts=max_texts,
        seed=seed,
        batch_tokens=batch_tokens,
        restart=restart,
        progress=state.is_main_process,
    )
    if state.is_main_process:
        found.save(output / "audit.json")
        found.to_html(output / "audit.html")
        print(for_terminal(found))
        for name in ("audit.json", "audit.html"):
            print(f"written: {Path(output) / name}", file=sys.stderr)
    state.destroy_process_group()


def _pair(text: str) -> tuple[str, str]:
    one, equals, other = text.partition("=")
    if not equals:
        raise OptionError(f"--swaps has {text!r}; give pairs such as he=she,his=her.")
    return one.strip(), other.strip()
