"""One colour scale for every rendering: blue speaks for the target, red against it, stronger is more opaque.

Blue and red stay apart for every common colour blindness. The opacity is capped so that text on a coloured
background keeps a contrast of at least 4.5:1, in light and in dark.
"""

from dataclasses import dataclass

MAX_ALPHA = 0.55
"""Opacity behind the strongest word of a row."""

TERMINAL_POSITIVE, TERMINAL_NEGATIVE = "#2378c6", "#ce463d"
"""Luminance 0.18: at least 4.5:1 on black and on white, since a terminal does not say which it is."""


@dataclass(frozen=True)
class Palette:
    """Colours of one theme; ``positive`` and ``negative`` lie behind words, the ``_text`` ones colour numbers."""

    background: str
    text: str
    muted: str
    line: str
    positive: str
    negative: str
    positive_text: str
    negative_text: str

    def css(self) -> str:
        """Return the palette as declarations of CSS variables."""
        return (
            f"--bg:{self.background};--fg:{self.text};--muted:{self.muted};--line:{self.line};"
            f"--pos:{_listed(self.positive)};--neg:{_listed(self.negative)};"
            f"--pos-text:{self.positive_text};--neg-text:{self.negative_text}"
        )


PARTS = {
    "attention": "#e69f00",
    "SSM": "#009e73",
    "MLP": "#7a5195",
    "experts": "#cc79a7",
    "shared block": "#8c6d31",
    "skip": "#d9dee3",
}
"""Kinds of parts. They stay apart for every common colour blindness, and none is the blue or the red of a sign."""
LIGHT = Palette("#ffffff", "#1b1f24", "#59636e", "#d9dee3", "#2166ac", "#b2182b", "#1f5f9f", "#a81729")
DARK = Palette("#15181d", "#e6e9ee", "#9aa5b1", "#343b44", "#4393c3", "#d6604d", "#86bde6", "#f4a58a")


def strength(relevance: float, peak: float) -> float:
    """Return |relevance| / peak in [0, 1]; 0 where the whole row is 0."""
    return min(abs(relevance) / peak, 1.0) if peak > 0 else 0.0


def channels(color: str) -> list[int]:
    """Return red, green and blue of a colour, from 0 to 255."""
    return [int(color[i : i + 2], 16) for i in (1, 3, 5)]


def _listed(color: str) -> str:
    return ",".join(map(str, channels(color)))
