"""The command ``hf-mambalrp``: parses, calls the library, prints."""

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from hf_mambalrp.cli.audits import audit
from hf_mambalrp.cli.corpora import evaluate, explain_dataset_command
from hf_mambalrp.cli.generations import explain_generation
from hf_mambalrp.cli.image_corpora import evaluate_images
from hf_mambalrp.cli.images import explain_image
from hf_mambalrp.cli.loading import AT_THE_END
from hf_mambalrp.cli.push import push
from hf_mambalrp.cli.serve import serve
from hf_mambalrp.cli.texts import attention, demo, explain
from hf_mambalrp.errors import MambaLRPError, MissingTokenizerError
from hf_mambalrp.viz.streams import lenient_streams

app = typer.Typer(
    help="Explain Mamba models: which words, or places of a picture, speak for a prediction, and which against it.",
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


app.command()(explain)
app.command(name="explain-image")(explain_image)
app.command(name="explain-generation")(explain_generation)
app.command()(attention)
app.command(name="explain-dataset")(explain_dataset_command)
app.command()(demo)
app.command()(evaluate)
app.command()(audit)
app.command(name="evaluate-images")(evaluate_images)
app.command()(push)
app.command(name="app")(serve)


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
