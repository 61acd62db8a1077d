"""``hf-mambalrp app``: the app on this machine."""

from pathlib import Path
from typing import Annotated

import typer


def serve(
    models: Annotated[
        Path | None,
        typer.Option(
            help="JSON file of the models to choose from, as spaces_app/models.json is; default: the packaged ones."
        ),
    ] = None,
    host: Annotated[
        str | None, typer.Option(help="Address to listen on, 0.0.0.0 for every one; default: this machine alone.")
    ] = None,
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Port; default: the first free one from 7860 on.")
    ] = None,
) -> None:
    """Start the app: explain what you type in a browser, offline with the packaged models. Ctrl-C ends it.

    Limits are environment variables, such as SPACE_TOKENS and SPACE_SECONDS: see spaces_app/README.md.
    """
    from hf_mambalrp.space.app import launch

    launch(models, host=host, port=port)
