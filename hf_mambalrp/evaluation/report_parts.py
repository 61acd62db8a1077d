"""What a report is made of, independent of its format: chapters of facts, findings, tables and plots."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import floor, isfinite, log10
from statistics import fmean, median
from typing import Any, NamedTuple

from hf_mambalrp.viz.document import Facts, Grid
from hf_mambalrp.viz.method_names import METHOD_NAMES, NAME
from hf_mambalrp.viz.wording import shorten, visible

ACRONYMS = {"roc": "ROC", "auc": "AUC", "ap": "AP", "aopc": "AOPC", "id": "ID", "spearman": "Spearman"}
SHOWN = 12
"""A longer list of numbers within a cell is summed up instead."""
WIDEST = 6
"""Columns of a table that are not turned into rows."""


class Metric(NamedTuple):
    """A metric's name in the report, on an axis, and whether higher is better."""

    symbol: str
    axis: str
    higher: bool

    @property
    def direction(self) -> str:
        """Which end is good, in words."""
        return f"{'higher' if self.higher else 'lower'} is better"


@dataclass(frozen=True)
class Plot:
    """One small plot: its title, the number it shows, what is on the axes, and the function that draws it."""

    title: str
    shows: str
    x: str
    y: str
    draw: Callable[[Any], None]


@dataclass(frozen=True)
class Plots:
    """Plots that share their axes and are compared with each other."""

    title: str
    plots: Sequence[Plot]
    key: Sequence[tuple[str, str]] = ()
    """Look of a line or area (as the HTML's style sheet names it) and what it means."""


@dataclass(frozen=True)
class Findings:
    """Sentences, one point each."""

    sentences: Sequence[str]


@dataclass(frozen=True)
class Chapter:
    """A heading, one or two sentences on how to read what follows, and the parts."""

    title: str
    reading: str
    parts: Sequence[Grid | Plots | Facts | Findings]


def with_superscripts(escaped: str) -> str:
    """Return a text of HTML or Markdown with the metrics' symbols as they are printed."""
    return escaped.replace("ΔA^F", "ΔA<sup>F</sup>").replace("ΔA^I", "ΔA<sup>I</sup>")


def readable(key: object) -> str:
    """Return the key of a dict as a heading: ``recall_at_k`` becomes ``Recall at k``."""
    text = str(key)
    if text in METHOD_NAMES:
        return METHOD_NAMES[text]
    words = " ".join(ACRONYMS.get(word, word) for word in visible(text).replace("_", " ").split(" "))
    return shorten(words[:1].upper() + words[1:], NAME)


def number(value: float) -> str:
    """Return a number with three significant digits; a whole number with all of its own."""
    if isinstance(value, int) or not isfinite(value):
        return str(value)
    if value == 0:
        return "0"
    if abs(value) >= 1000:
        return f"{value:.0f}"
    return f"{value:.3g}" if abs(value) >= 0.001 else f"{value:.1e}"


def fixed(value: float, decimals: int) -> str:
    """Return a number with that many decimals and no minus before a zero."""
    text = f"{value:.{decimals}f}"
    return text.lstrip("-") if float(text) == 0 else text


def decimals_for(stats: Sequence[Mapping[str, Any]]) -> int:
    """Return the decimals that show two digits of the median interval's half width, alike for a whole column."""
    width, peak = median((stat["high"] - stat["low"]) / 2 for stat in stats), max(abs(stat["mean"]) for stat in stats)
    width = peak / 10 if width < peak / 1000 else width
    return min(max(1 - floor(log10(width)), 0), 6) if width > 0 else 2


def with_interval(stat: Mapping[str, Any], decimals: int, separator: str = " ") -> str:
    """Return ``mean [low, high]``."""
    mean, low, high = (fixed(stat[key], decimals) for key in ("mean", "low", "high"))
    return f"{mean}{separator}[{low}, {high}]"


def tables_of(content: Mapping[str, Any], caption: str = "", *, turned: bool = False) -> list[Grid]:
    """Lay any nested dict of numbers out as tables: a row per key and a column per key below it, or a list a column.

    Several results of one kind, such as one per method, are turned over first, so that they stand in one table.
    """
    if not turned and len(content) > 1 and all(map(_is_record, content.values())):
        keys = [list(value) for value in content.values()]
        if all(key == keys[0] for key in keys):
            sides = {key: {name: value[key] for name, value in content.items()} for key in keys[0]}
            return tables_of(sides, caption, turned=True)
    lists = {key: value for key, value in content.items() if isinstance(value, list) and all(map(_single, value))}
    columns = lists if len(lists) > 1 and len({len(value) for value in lists.values()}) == 1 else {}
    single = {key: value for key, value in content.items() if _single(value) or (key in lists and not columns)}
    grid = {key: value for key, value in content.items() if _is_row(value)}
    found = []
    if single:
        found.append(_table(caption, {key: {"value": value} for key, value in single.items()}))
    if grid:
        found.append(_table(caption, grid))
    if columns:
        lines = zip(*columns.values(), strict=True)
        rows = {str(i + 1): dict(zip(columns, line, strict=True)) for i, line in enumerate(lines)}
        found.append(_table(caption, rows))
    for key, value in content.items():
        if key in single or key in grid or key in columns:
            continue
        below = f"{caption}: {readable(key)}" if caption else readable(key)
        inner = value if isinstance(value, Mapping) else _entries(value)
        found += tables_of(inner, below)
    return found


def _entries(values: list[Any]) -> dict[str, Any]:
    """A list of dicts or lists as rows with numbers; many dicts summed up, a row per key."""
    if len(values) > SHOWN and all(map(_is_row, values)):
        keys = dict.fromkeys(key for value in values for key in value)
        return {key: _show([value[key] for value in values if value.get(key) is not None]) for key in keys}
    return {str(i + 1): value for i, value in enumerate(values)}


def _table(caption: str, rows: Mapping[str, Mapping[str, Any]]) -> Grid:
    """One row per key; turned over where that makes a wide table a long one."""
    columns = list(dict.fromkeys(name for row in rows.values() for name in row))
    names = list(rows)
    cells = [[_show(rows[name][column]) if column in rows[name] else "" for column in columns] for name in names]
    if len(columns) > max(WIDEST, len(names)):
        names, columns, cells = columns, names, [list(line) for line in zip(*cells, strict=True)]
    lines = [(readable(name), *line) for name, line in zip(names, cells, strict=True)]
    return Grid(caption or "Overall", ("", *map(readable, columns)), lines)


def _is_stat(value: Any) -> bool:
    return isinstance(value, Mapping) and {"mean", "low", "high"} <= set(value) and value["mean"] is not None


def _single(value: Any) -> bool:
    """Whether a value fits one cell."""
    return _is_stat(value) or not isinstance(value, Mapping | list)


def _is_row(value: Any) -> bool:
    return isinstance(value, Mapping) and not _is_stat(value) and all(map(_single, value.values()))


def _is_record(value: Any) -> bool:
    """Whether a dict holds parts of different kinds, and is no table by itself."""
    return isinstance(value, Mapping) and not _is_row(value) and not all(map(_is_row, value.values()))


def _show(value: Any) -> str:
    if _is_stat(value):
        return with_interval(value, decimals_for([value]), "\n")
    if isinstance(value, list):
        numbers = len(value) > SHOWN and all(isinstance(x, int | float) for x in value)
        if numbers:
            return f"{len(value)} values, {number(min(value))} to {number(max(value))}, mean {number(fmean(value))}"
        return ", ".join(map(_show, value))
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "–"}[value]
    return number(value) if isinstance(value, int | float) else shorten(visible(str(value)), 80)
