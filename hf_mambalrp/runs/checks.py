"""Options that several calls have, checked before a model is loaded, a row is read or a file is written."""

from collections.abc import Collection
from typing import Any

from hf_mambalrp.errors import OptionError


def is_whole(value: Any, least: int) -> bool:
    """Whether a value is an integer from ``least`` up; True and False are none."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def whole_number(name: str, value: Any, least: int) -> int:
    """The option's value, or :class:`OptionError` if it is no whole number from ``least`` up."""
    if not is_whole(value, least):
        raise OptionError(f"{name}={value!r} is not allowed; give a whole number of at least {least}.")
    number: int = value
    return number


def one_of(name: str, value: Any, allowed: Collection[Any]) -> None:
    """Raise :class:`OptionError` for another value."""
    if value not in allowed:
        raise OptionError(f"{name}={value!r} is not allowed; use one of {', '.join(map(repr, allowed))}.")


def check_sizes(**sizes: Any) -> None:
    """Raise :class:`OptionError` for what is no whole number of at least 1; None is not given."""
    for name, value in sizes.items():
        if value is not None:
            whole_number(name, value, 1)


def check_confidence(value: Any) -> None:
    """Raise :class:`OptionError` for what is no number between 0 and 1."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1:
        raise OptionError(f"confidence={value!r} is not allowed; give a number between 0 and 1, such as 0.95.")


def check_on_error(on_error: Any) -> None:
    """Raise :class:`OptionError` for another value than "raise", "skip" and None."""
    if on_error not in (None, "raise", "skip"):
        raise OptionError(f"on_error={on_error!r} is not allowed; use 'raise' or 'skip'.")
