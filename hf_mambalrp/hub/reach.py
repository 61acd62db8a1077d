"""Whether a model is where its name says, asked before anything is loaded of it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import constants, try_to_load_from_cache

from hf_mambalrp.errors import HubConnectionError, InputError, MissingRepositoryError, OfflineError
from hf_mambalrp.hub.repository import hub_api, hub_errors

SECONDS = 10
"""To wait for the Hub's first answer."""


def check_source(name: str) -> bool:
    """Raise for a model or tokenizer that is nowhere; returns whether the cache has it and the Hub is out of reach.

    Asked before anything is loaded, once and without the retries that transformers makes for each of several files.

    Raises:
        InputError: a path where there is no folder, or a name that no repository can have.
        MissingRepositoryError, OfflineError, HubConnectionError: neither a folder, nor in the cache, nor on the Hub.
    """
    if Path(name).is_dir():
        return False
    if name.startswith((".", "/", "~")) or "\\" in name:
        raise InputError(
            f"There is no folder {name!r}. Give a folder with a checkpoint, or a Hub id such as user/model."
        )
    with hub_errors(name, "model"):
        cached = isinstance(try_to_load_from_cache(name, "config.json"), str)
    neither = f"There is no folder {name!r}, and no model of that name in the cache"
    if constants.HF_HUB_OFFLINE:
        if not cached:
            raise OfflineError(
                f"{neither}; HF_HUB_OFFLINE is set, so the Hub is not asked. Unset it, or give a folder."
            )
        return False
    try:
        with hub_errors(name, "model"):
            hub_api().model_info(name, timeout=SECONDS)
    except MissingRepositoryError as error:
        raise MissingRepositoryError(f"There is no folder {name!r}. {error}") from error
    except HubConnectionError as error:
        if not cached:
            raise HubConnectionError(
                f"{neither}, and the Hub cannot be reached ({type(error.__cause__).__name__}). Check the name and the "
                "connection, or give a folder."
            ) from error
        return True
    return False


@contextmanager
def from_the_cache() -> Iterator[None]:
    """Inside, nothing asks the Hub: every file of every model would be asked for again and again."""
    before, constants.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE, True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before
