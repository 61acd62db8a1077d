"""The command ``push``."""

from pathlib import Path
from typing import Annotated

import typer

from hf_mambalrp.cli.files import read_file
from hf_mambalrp.cli.loading import load_model, quietly, tokenizer_named
from hf_mambalrp.cli.options import ModelOption, TokenizerOption, json_value
from hf_mambalrp.errors import OptionError


def push(
    repo: Annotated[str, typer.Argument(help="Repository on the Hub, user/name; created if it is not there.")],
    model: ModelOption = None,
    tokenizer: TokenizerOption = None,
    text: Annotated[
        list[str] | None, typer.Option(help="Explain this in the model's card; may be given several times.")
    ] = None,
    evaluation: Annotated[Path | None, typer.Option(help="results.json of an evaluation, for the card.")] = None,
    audit: Annotated[Path | None, typer.Option(help="audit.json of an audit, for the card or the Space.")] = None,
    explanations: Annotated[
        Path | None, typer.Option(help="Push this folder of explain_dataset as a dataset, instead of a model.")
    ] = None,
    space: Annotated[bool, typer.Option("--space", help="Create a Space for --model, instead.")] = False,
    private: Annotated[bool, typer.Option("--private", help="If the repository is created.")] = False,
) -> None:
    """Push a model with explanations in its card, a dataset of them, or a Space. First log in: `hf auth login`."""
    visibility = True if private else None
    of_card = bool(text) or evaluation is not None or (audit is not None and not space)
    if sum([of_card, explanations is not None, space]) > 1:
        raise OptionError(
            "Give --text, --evaluation and --audit for a model, or --explanations FOLDER, or --space, which takes "
            "--audit too: one of these."
        )
    if space and model is None:
        raise OptionError("A Space needs --model user/name: what it explains, on the Hub.")
    figures = None if evaluation is None else json_value("--evaluation", read_file(evaluation))

    from hf_mambalrp import create_space, push_explanations
    from hf_mambalrp.audit import Audit

    with quietly():
        if space:
            address = create_space(repo, model_id=str(model), audit=audit, private=visibility)
        elif explanations is not None:
            address = push_explanations(explanations, repo, private=visibility)
        else:
            audited = None if audit is None else Audit.load(audit)  # a wrong file is refused before a model is loaded
            reads = tokenizer_named(tokenizer)
            loaded = load_model(model)
            address = loaded.push_to_hub(
                repo,
                tokenizer=reads,
                explanations=loaded.explain(text, tokenizer=reads) if text else None,
                evaluation=figures,
                audit=audited,
                private=visibility,
            )
    print(address)
