"""Fonts of figures: those of this machine that have the characters of a text, and a box where none has."""

import warnings
from collections.abc import Sequence
from functools import lru_cache

BOX = "□"
FALLBACKS = (
    *("Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans SC", "Noto Sans JP", "Source Han Sans SC", "Source Han Sans"),
    *("WenQuanYi Micro Hei", "WenQuanYi Zen Hei", "Microsoft YaHei", "SimHei", "Yu Gothic", "Malgun Gothic"),
    *("PingFang SC", "Hiragino Sans", "Hiragino Sans GB", "Apple SD Gothic Neo", "Arial Unicode MS"),
    *("Noto Emoji", "Segoe UI Emoji", "Symbola"),
)
"""Fonts of Chinese, Japanese and Korean and of emoji, as systems name them; matplotlib draws none with colours."""


def drawable(texts: Sequence[str], weight: str = "normal") -> list[str]:
    """Put a box for every character that no font here can draw, and say once that there are such."""
    known = _characters(tuple(families()), weight)
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


def families() -> list[str]:
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
