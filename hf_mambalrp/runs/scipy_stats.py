"""scipy's statistics, which are optional: what tests and compares asks for them here."""

from typing import Any

from hf_mambalrp.errors import MissingExtraError


def stats(needed_by: str, extra: str) -> Any:
    """The module ``scipy.stats``. MissingExtraError: it is not installed; the ``extra`` of the package brings it."""
    try:
        import scipy.stats
    except ImportError as error:
        raise MissingExtraError(f'{needed_by} needs scipy: pip install "hf_mambalrp[{extra}]"') from error
    return scipy.stats
