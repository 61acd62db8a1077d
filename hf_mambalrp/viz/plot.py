"""Figures: signed bars per word, heat maps over layers and over generated tokens."""

from textwrap import fill, wrap
from typing import TYPE_CHECKING, Any, cast

import torch

from hf_mambalrp.errors import InputError, MissingExtraError
from hf_mambalrp.viz.colors import LIGHT
from hf_mambalrp.viz.wording import balance, facts, label, question, shorten, signed, unsigned

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from hf_mambalrp.explanation import Explanation, Level
    from hf_mambalrp.generation_explanation import GenerationExplanation
    from hf_mambalrp.viz.words import Word

MAX_BARS = 40
MAX_COLUMNS = 60
MAX_LINES = 40
AXIS_LABEL = 20
"""Characters of a word on an axis."""


def bars(ex: "Explanation", row: int, level: "Level", top: int | None, ax: "Axes | None") -> "Figure":
    """Draw a horizontal bar per word: in reading order, or the ``top`` strongest first."""
    words, note = _chosen(ex, row, level, MAX_BARS if top is None else top)
    if top is not None:
        words.sort(key=lambda word: -abs(word.relevance))
    values = [word.relevance for word in words]
    ax = ax or _axes(7, 1.6 + 0.26 * len(words))
    colors = [LIGHT.negative if value < 0 else LIGHT.positive for value in values]
    drawn = ax.barh(range(len(words)), values, color=colors, height=0.72)
    ax.bar_label(drawn, [signed(value) for value in values], padding=4, fontsize=8, color=LIGHT.muted)
    ax.set_yticks(range(len(words)), [_name(word) for word in words], parse_math=False)
    ax.set_ylim(len(words) - 0.4, -0.6)
    ax.axvline(0, color=LIGHT.text, linewidth=0.8)
    ax.margins(x=0.16)
    dress(ax, question(ex, row), [*_about(ex, row), *note])
    ax.set_xlabel("relevance, in units of the score", fontsize=9, color=LIGHT.muted)
    ax.grid(axis="x", color=LIGHT.line, linewidth=0.6)
    return cast("Figure", ax.figure)


def layer_map(ex: "Explanation", row: int, level: "Level", top: int | None, ax: "Axes | None") -> "Figure":
    """Draw the relevance after the embedding and after every block, one column per word."""
    if ex.layer_relevance is None:
        raise InputError("there is no layer_relevance to draw; call explain(..., layers=True).")
    words, note = _chosen(ex, row, level, MAX_COLUMNS if top is None else top)
    values = _per_word(ex.layer_relevance[:, row], words)
    names = [_name(word) for word in words]
    ax = ax or heat_axes(names, 0.14 * min(len(values), 64))
    heat(ax, values, names)
    ax.invert_yaxis()
    ax.locator_params(axis="y", integer=True)
    ax.set_ylabel("after block (0: the embedding)", fontsize=9, color=LIGHT.muted)
    dress(ax, question(ex, row), [*_about(ex, row), *note])
    return cast("Figure", ax.figure)


def generation_map(ex: "GenerationExplanation", row: int, level: "Level", ax: "Axes | None") -> "Figure":
    """Draw one line per generated token over the words before it."""
    steps = ex.generated(row)
    if not steps:
        raise InputError(f"row {row} generated no token, so there is nothing to draw.")
    shown = steps[:MAX_LINES]
    words = ex.step(shown[-1]).words(row, level=level)
    values = _per_word(ex.relevance[row, shown], words)
    kept = sorted(values.abs().amax(0).topk(min(MAX_COLUMNS, len(words))).indices.tolist())
    names = [_name(words[i]) for i in kept]
    ax = ax or heat_axes(names, 0.24 * len(shown))
    heat(ax, values[:, kept], names)
    generated = [shorten(label(ex.tokens[row][ex.prompt_length + t]), AXIS_LABEL) for t in shown]
    ax.set_yticks(range(len(shown)), generated, parse_math=False)
    ax.set_ylabel("generated token", fontsize=9, color=LIGHT.muted)
    lines = [f"{ex.method}, largest gap {unsigned(ex.conservation.gap[row].abs().max().item())}"]
    lines += [f"shown: the first {len(shown)} of {len(steps)} generated tokens"] if len(shown) < len(steps) else []
    lines += _note(len(kept), len(words), level)
    dress(ax, "What speaks for each generated token?", lines)
    return cast("Figure", ax.figure)


def _chosen(ex: "Explanation", row: int, level: "Level", limit: int) -> "tuple[list[Word], list[str]]":
    """Pick the strongest words, in reading order, with a note if some are left out."""
    words = ex.words(row, level=level)
    kept = {word.tokens for word in ex.top(limit, row, level=level)}
    return [word for word in words if word.tokens in kept], _note(len(kept), len(words), level)


def _note(shown: int, count: int, level: str) -> list[str]:
    return [f"shown: the {shown} strongest of {count} {level}s"] if shown < count else []


def _about(ex: "Explanation", row: int) -> list[str]:
    score, *rest = [f"{name} {value}" for name, value in facts(ex, row)]
    return [score, *([", ".join(rest)] if rest else []), balance(ex, row)]


def _axes(width: float, height: float) -> Any:
    try:
        from matplotlib import pyplot as plt
    except ImportError as error:
        raise MissingExtraError('plot needs matplotlib: pip install "hf_mambalrp[plot]"') from error
    figure = plt.figure(figsize=(width, height), layout="constrained", facecolor=LIGHT.background)
    figure.get_layout_engine().set(w_pad=0.12, h_pad=0.12)
    plt.close(figure)  # only pyplot lets go of it: a notebook would show it twice, a loop would pile figures up
    return figure.add_subplot()


def heat_axes(columns: list[str], height: float) -> Any:
    """Make axes for a heat map with these names below its columns."""
    return _axes(max(7, 3 + 0.24 * len(columns)), 1.8 + 0.08 * max(map(len, columns)) + height)


def heat(ax: Any, values: torch.Tensor, columns: list[str], meaning: str = "relevance: blue for, red against") -> None:
    """Draw values around a white zero, with a colour bar that says what the signs mean."""
    from matplotlib.colors import LinearSegmentedColormap

    scale = LinearSegmentedColormap.from_list("relevance", [LIGHT.negative, LIGHT.background, LIGHT.positive])
    peak = values.abs().max().item() or 1.0
    image = ax.imshow(values.numpy(), cmap=scale, vmin=-peak, vmax=peak, aspect="auto", interpolation="nearest")
    ax.set_xticks(range(len(columns)), columns, rotation=60, ha="right", rotation_mode="anchor", parse_math=False)
    bar = ax.figure.colorbar(image, ax=ax, pad=0.02, aspect=30)
    bar.set_label(meaning, fontsize=9, color=LIGHT.muted)
    bar.ax.tick_params(labelsize=8, colors=LIGHT.text)
    bar.outline.set_visible(False)


def dress(ax: Any, title: str, lines: list[str]) -> None:
    """Give the axes their title, what was explained in a few lines below it, and a quiet frame."""
    ax.set_facecolor(LIGHT.background)
    ax.set_axisbelow(True)
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0, labelsize=9, colors=LIGHT.text)
    lines = [part for line in lines for part in wrap(line, 84)]
    pad = 6 + 13 * len(lines)
    ax.set_title(
        fill(title, 56),
        loc="left",
        pad=pad,
        fontsize=12,
        fontweight="bold",
        color=LIGHT.text,
        verticalalignment="bottom",
        parse_math=False,
    )
    under = ax.annotate(
        "\n".join(lines),
        (0, 1),
        (0, 6),
        xycoords="axes fraction",
        textcoords="offset points",
        fontsize=9,
        color=LIGHT.muted,
        linespacing=1.3,
        parse_math=False,
    )
    under.set_in_layout(False)  # a long line must not squeeze the axes; the title keeps the room for it


def _per_word(relevance: torch.Tensor, words: "list[Word]") -> torch.Tensor:
    """Sum the columns of each word's tokens. Shape: (N, L) -> (N, words)."""
    return torch.stack([relevance[:, list(word.tokens)].sum(-1) for word in words], dim=-1)


def _name(word: "Word") -> str:
    return shorten(label(word.text), AXIS_LABEL)
