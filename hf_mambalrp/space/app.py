"""Start the app in this process."""

import os
import socket
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread

from hf_mambalrp.errors import MissingExtraError, OptionError


def launch(models: Path | None = None, *, host: str | None = None, port: int | None = None) -> None:
    """Serve the app until it is interrupted.

    Args:
        models: a JSON file that lists what can be chosen; by default the packaged models.
        host: name or IPv4 address to listen on; by default ``GRADIO_SERVER_NAME``, or this machine alone.
        port: by default ``GRADIO_SERVER_PORT``, or the first free one from 7860 on.

    Raises:
        MissingExtraError: gradio is not installed.
        OptionError: a host that is not this machine's, a port that is taken; a limit, an environment variable
            ``SPACE_*``, that is no whole number of at least 1.
        InputError: ``models`` is no list of models.
        FileNotFoundError: there is no such file.
    """
    # After every event gradio sums up all that it has had; it reads this when it begins.
    os.environ.setdefault("GRADIO_ANALYTICS_CACHE_FREQUENCY", "1000")
    try:
        import gradio  # noqa: F401
    except ImportError as error:
        raise MissingExtraError('The app needs gradio: pip install "hf_mambalrp[space]"') from error
    _check(host, port)

    with suppress(ImportError):
        import matplotlib

        matplotlib.use("agg")  # at the first event, gradio would look for windows to draw in: a quarter of a second

    import torch
    from starlette.middleware import Middleware

    from hf_mambalrp.space.assets import Assets
    from hf_mambalrp.space.catalog import read_allow_list
    from hf_mambalrp.space.limits import BodyLimit, Limits
    from hf_mambalrp.space.page import HEAD, THEME, build
    from hf_mambalrp.space.serve import App

    limits = Limits.from_environment()
    app = App(limits=limits) if models is None else App(read_allow_list(models), limits)
    page = build(app)
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // limits.at_once))
    page.launch(
        server_name=host,
        server_port=port,
        theme=THEME,
        head=HEAD,
        app_kwargs={
            "middleware": [
                Middleware(BodyLimit, most=limits.body_bytes),
                Middleware(Assets, types={block.get_block_name() for block in page.blocks.values()}),
            ]
        },
        footer_links=["api"],
        state_session_capacity=1000,
        max_file_size=1,
        ssr_mode=False,
        prevent_thread_lock=True,
    )
    # No earlier: gradio asks for its own page first, and gives up where that takes three seconds, as it can beside a
    # compiler. Waited for, and no daemon: torn down in the middle of torch, the process would abort at its end.
    stopped = Event()
    warming = Thread(target=app.answers.warm_up, args=(stopped,))
    warming.start()
    try:
        page.block_thread()
    finally:
        stopped.set()
        warming.join()


def _check(host: str | None, port: int | None) -> None:
    """Raise where nothing can listen; gradio tries a host that is none for minutes, on a hundred ports."""
    try:
        socket.create_server((host or "127.0.0.1", port or 0)).close()
    except OSError as error:
        raise OptionError(f"host={host!r}, port={port!r}: nothing can listen there ({error}). Give others.") from error
