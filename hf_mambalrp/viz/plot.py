"""Figures: signed bars per word, heat maps over layers and over generated tokens."""

import warnings
from functools import lru_cache
from textwrap import wrap
from typing import TYPE_CHECKING, Any, cast

import torch

from hf_mambalrp.errors import InputError, MissingExtraError
from hf_mambalrp.viz.colors import LIGHT
from hf_mambalrp.viz.wording import balance, facts, label, question, shorten, signed, unsigned

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from hf_mambalrp.results.explanation import Explanation, Level
    from hf_mambalrp.results.generation_explanation import GenerationExplanation
    from hf_mambalrp.viz.words import Word

MAX_BARS = 40
MAX_COLUMNS = 60
MAX_LINES = 40
AXIS_LABEL = 20
"""Characters of a word on an axis."""
LINE = 84
"""Characters of a line above a figure, at most."""
HEADER = 0.75
"""Inches of a figure's height for the title and the lines below it, as long as they need no more."""
MARGIN = 0.12
"""Inches between what is drawn and the figure's edge."""
BOX = "□"
FALLBACKS = (
    *("Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans SC", "Noto Sans JP", "Source Han Sans SC", "Source Han Sans"),
    *("WenQuanYi Micro Hei", "WenQuanYi Zen Hei", "Microsoft YaHei", "SimHei", "Yu Gothic", "Malgun Gothic"),
    *("PingFang SC", "Hiragino Sans", "Hiragino Sans GB", "Apple SD Gothic Neo", "Arial Unicode MS"),
    *("Noto Emoji", "Segoe UI Emoji", "Symbola"),
)
"""Fonts of Chinese, Japanese and Korean and of emoji, as systems name them; matplotlib draws none with colours."""


def bars(ex: "Explanation", row: int, level: "Level", top: int | None, ax: "Axes | None") -> "Figure":
    """Draw a horizontal bar per word: in reading order, or the ``top`` strongest first."""
    words, note = _chosen(ex, row, level, MAX_BARS if top is None else top)
    if top is not None:
        words.sort(key=lambda word: -abs(word.relevance))
    values = [word.relevance for word in words]
    own, ax = ax is None, ax or _axes(7, 1.6 + 0.26 * len(words))
    colors = [LIGHT.negative if value < 0 else LIGHT.positive for value in values]
    drawn = ax.barh(range(len(words)), values, color=colors, height=0.72)
    ax.bar_label(drawn, [signed(value) for value in values], padding=4, fontsize=8, color=LIGHT.muted)
    ax.set_yticks(range(len(words)), drawable([_name(word) for word in words]), parse_math=False)
    ax.set_ylim(len(words) - 0.4, -0.6)
    ax.axvline(0, color=LIGHT.text, linewidth=0.8)
    ax.margins(x=0.16)
    ax.set_xlabel("relevance, in units of the score", fontsize=9, color=LIGHT.muted)
    ax.grid(axis="x", color=LIGHT.line, linewidth=0.6)
    dress(ax, question(ex, row), [*_about(ex, row), *note], grows=own)
    return cast("Figure", ax.figure)


def layer_map(ex: "Explanation", row: int, level: "Level", top: int | None, ax: "Axes | None") -> "Figure":
    """Draw the relevance after the embedding and after every block, one column per word."""
    if ex.layer_relevance is None:
        raise InputError("there is no layer_relevance to draw; call explain(..., layers=True).")
    words, note = _chosen(ex, row, level, MAX_COLUMNS if top is None else top)
    values = _per_word(ex.layer_relevance[:, row], words)
    names = [_name(word) for word in words]
    own, ax = ax is None, ax or heat_axes(names, 0.14 * min(len(values), 64))
    heat(ax, values, names)
    ax.invert_yaxis()
    ax.locator_params(axis="y", integer=True)
    ax.set_ylabel("after block (0: the embedding)", fontsize=9, color=LIGHT.muted)
    dress(ax, question(ex, row), [*_about(ex, row), *note], grows=own)
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
    own, ax = ax is None, ax or heat_axes(names, 0.24 * len(shown))
    heat(ax, values[:, kept], names)
    generated = [shorten(label(ex.tokens[row][ex.prompt_length + t]), AXIS_LABEL) for t in shown]
    ax.set_yticks(range(len(shown)), drawable(generated), parse_math=False)
    ax.set_ylabel("generated token", fontsize=9, color=LIGHT.muted)
    lines = [f"{ex.method}, largest gap {unsigned(ex.conservation.gap[row].abs().max().item())}"]
    lines += [f"shown: the first {len(shown)} of {len(steps)} generated tokens"] if len(shown) < len(steps) else []
    lines += _note(len(kept), len(words), level)
    dress(ax, "What speaks for each generated token?", lines, grows=own)
    return cast("Figure", ax.figure)


def _chosen(ex: "Explanation", row: int, level: "Level", limit: int) -> "tuple[list[Word], list[str]]":
    """Pick the strongest words, in reading order, with a note if some are left out."""
    words = ex.words(row, level=level)
    kept = {*ex.top(limit, row, level=level)}
    return [word for word in words if word in kept], _note(len(kept), len(words), level)


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
    figure.get_layout_engine().set(w_pad=MARGIN, h_pad=MARGIN)
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
    ax.set_xticks(
        range(len(columns)), drawable(columns), rotation=60, ha="right", rotation_mode="anchor", parse_math=False
    )
    bar = ax.figure.colorbar(image, ax=ax, pad=0.02, aspect=30)
    bar.set_label(meaning, fontsize=9, color=LIGHT.muted)
    bar.ax.tick_params(labelsize=8, colors=LIGHT.text)
    bar.outline.set_visible(False)


def dress(ax: Any, title: str, lines: list[str], *, grows: bool) -> None:
    """Give finished axes a title, what was explained in a few lines below it, and a quiet frame.

    Both are wrapped to the room right of the axes' left edge, which depends on the names there, up to the figure's
    edge or the axes beside them. A figure that ``grows`` gets higher where they need more lines than usual.
    """
    ax.set_facecolor(LIGHT.background)
    ax.set_axisbelow(True)
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0, labelsize=9, colors=LIGHT.text, labelfontfamily=_families())
    figure = ax.figure.canvas.figure
    figure.draw_without_rendering()
    place = ax.get_subplotspec()
    right = figure.bbox.x1 - MARGIN * figure.dpi if place is None or place.is_last_col() else ax.bbox.x1
    room = right - ax.bbox.x0
    under = ax.annotate(
        "",
        (0, 1),
        (0, 6),
        xycoords="axes fraction",
        textcoords="offset points",
        fontsize=9,
        fontfamily=_families(),
        color=LIGHT.muted,
        linespacing=1.3,
        parse_math=False,
    )
    under.set_in_layout(False)  # a long line must not squeeze the axes; the title keeps the room for it
    _fill(under, drawable(lines), room)
    heading = ax.set_title(
        "",
        loc="left",
        pad=10 + under.get_window_extent().height * 72 / figure.dpi,
        fontsize=12,
        fontfamily=_families(),
        fontweight="bold",
        color=LIGHT.text,
        verticalalignment="bottom",
        parse_math=False,
    )
    _fill(heading, drawable([title], "bold"), room)
    header = sum(text.get_window_extent().height for text in (heading, under)) / figure.dpi
    if grows:
        figure.set_figheight(figure.get_figheight() + max(0, header - HEADER))


def _fill(text: Any, paragraphs: list[str], room: float) -> None:
    """Wrap paragraphs to as many characters a line as fit into ``room`` pixels."""
    for width in range(LINE, 8, -2):
        text.set_text("\n".join(part for paragraph in paragraphs for part in wrap(paragraph, width)))
        if text.get_window_extent().width <= room:
            return


def drawable(texts: list[str], weight: str = "normal") -> list[str]:
    """Put a box for every character that no font here can draw, and say once that there are such."""
    known = _characters(tuple(_families()), weight)
    missing = {c for text in texts for c in text} - known - {"\n"}
    if missing:
        _warn_of_boxes()
    return [text.translate(dict.fromkeys(map(ord, missing), BOX)) for text in texts]


@lru_cache(maxsize=1)
def _warn_of_boxes() -> None:
    warnings.warn(
        "No font of this machine has some of the characters, so boxes stand for them. Install one, such as Noto Sans "
        "CJK or Noto Emoji, and start Python again.",
        stacklevel=2,
    )


def _families() -> list[str]:
    """The caller's fonts, and behind them those installed here that have what these lack."""
    from matplotlib import rcParams
    from matplotlib.font_manager import fontManager

    installed = {font.name for font in fontManager.ttflist}
    return [*rcParams["font.family"], *(name for name in FALLBACKS if name in installed)]


@lru_cache(maxsize=4)
def _characters(families: tuple[str, ...], weight: str) -> frozenset[str]:
    """All characters that some of these fonts draw."""
    from matplotlib.font_manager import FontProperties, findfont, get_font

    paths = (findfont(FontProperties(family=[family], weight=weight)) for family in families)
    return frozenset(chr(code) for path in paths for code in get_font(path).get_charmap())


def _per_word(relevance: torch.Tensor, words: "list[Word]") -> torch.Tensor:
    """Sum the columns of each word's tokens. Shape: (N, L) -> (N, words)."""
    return torch.stack([relevance[:, list(word.tokens)].sum(-1) for word in words], dim=-1)


def _name(word: "Word") -> str:
    return shorten(label(word.text), AXIS_LABEL)
