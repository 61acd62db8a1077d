"""The bar of a run."""

import sys
from collections.abc import Iterable
from typing import Any

LOG_S = 10.0
"""Seconds between lines of the bar where it goes to a file."""


def progress_bar(items: Iterable[Any] | None = None, *, shown: bool, **options: Any) -> Any:
    """A bar of tqdm with its ``options``; in a file, such as a cluster's log, it is written now and then only."""
    from transformers.utils import logging

    live = sys.stderr.isatty() or "ipykernel" in sys.modules
    return logging.tqdm(items, disable=not shown, mininterval=0.1 if live else LOG_S, **options)
