"""Options that every run has, checked before a model is loaded, a row is read or a file is written."""

from typing import Any

from hf_mambalrp.errors import OptionError


def check_sizes(**sizes: Any) -> None:
    """Raise :class:`OptionError` for what is no whole number of at least 1; None is not given."""
    for name, value in sizes.items():
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
            raise OptionError(f"{name}={value!r} is not allowed; give a whole number of at least 1.")


def check_on_error(on_error: Any) -> None:
    """Raise :class:`OptionError` for another value than "raise", "skip" and None."""
    if on_error not in (None, "raise", "skip"):
        raise OptionError(f"on_error={on_error!r} is not allowed; use 'raise' or 'skip'.")
