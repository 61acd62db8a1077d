"""How a result shows itself: its document, written by the writer of each format."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_mambalrp.viz import html
from hf_mambalrp.viz.document import Document
from hf_mambalrp.viz.streams import Lenient, printable
from hf_mambalrp.viz.words import Level

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult

NOTEBOOK_ROWS, NOTEBOOK_WIDTH = 10, 100
"""A notebook cell shows this many rows, and its text has this many columns; the document shows all."""


class Shown:
    """A result of a method, which has a document."""

    method: str

    @property
    def _title(self) -> str:
        return f"Explanation by {self.method}"

    def document(self, *, rows: int | None = None) -> Document:
        """Return what is shown, of the first ``rows`` or of all."""
        raise NotImplementedError

    def to_html(self, path: str | Path | None = None, *, title: str | None = None) -> str:
        """Return a complete HTML document that needs nothing else, and write it to ``path`` if one is given.

        Every text in it is escaped, it runs no script and loads nothing.

        Example:
            >>> from hf_mambalrp import DEMO_VISION_MODEL, VimLRPForImageClassification
            >>> model = VimLRPForImageClassification.from_pretrained(DEMO_VISION_MODEL)
            >>> ex = model.explain(f"{DEMO_VISION_MODEL}/scenes/pictures/bag.png")
            >>> page = ex.to_html("bag.html", title="A bag")
            >>> "<title>A bag</title>" in page
            True
        """
        return self._page(self.document(), title, path)

    def _page(self, document: Document, title: str | None, path: str | Path | None) -> str:
        return written(html.page(document, title or self._title), path)

    def _repr_html_(self) -> str:
        return html.fragment(self.document(rows=NOTEBOOK_ROWS))

    def to_text(self, *, color: bool = False, width: int = 80) -> str:
        """Return what a terminal shows, ``width`` columns wide; without ``color`` there is no escape sequence in it.

        Example:
            >>> from hf_mambalrp import DEMO_VISION_MODEL, VimLRPForImageClassification
            >>> model = VimLRPForImageClassification.from_pretrained(DEMO_VISION_MODEL)
            >>> ex = model.explain(f"{DEMO_VISION_MODEL}/scenes/pictures/bag.png")
            >>> print(ex.to_text())
            What speaks for bag?
            ...
        """
        return _printed(self.document(), color, width)

    def __rich_console__(self, console: "Console", options: "ConsoleOptions") -> "RenderResult":
        from hf_mambalrp.viz import terminal

        return terminal.lines(self.document())

    def show(self) -> None:
        """Display as HTML in a notebook, else print to the terminal (in colour where it can, see ``NO_COLOR``).

        Example:
            >>> from hf_mambalrp import DEMO_VISION_MODEL, VimLRPForImageClassification
            >>> model = VimLRPForImageClassification.from_pretrained(DEMO_VISION_MODEL)
            >>> ex = model.explain(f"{DEMO_VISION_MODEL}/scenes/pictures/bag.png")
            >>> ex.show()
            What speaks for bag?
            ...
        """
        _display(self._repr_html_, lambda: self.document(rows=NOTEBOOK_ROWS if notebook() else None))

    def __str__(self) -> str:
        """Return ``repr`` as standard output can take it: "?" for characters that its encoding lacks."""
        return printable(repr(self))


class ShownWords(Shown):
    """A result on text, which shows words or the tokens that they are made of."""

    def document(self, *, level: Level = "word", rows: int | None = None) -> Document:
        """Return what is shown, of the first ``rows`` or of all. OptionError: an unknown level."""
        raise NotImplementedError

    def to_html(self, path: str | Path | None = None, *, title: str | None = None, level: Level = "word") -> str:
        """Return a complete HTML document that needs nothing else, and write it to ``path`` if one is given.

        Every text in it is escaped, it loads nothing, and it runs no script, but of a generation one of this package
        that lights up what is chosen. OptionError: an unknown level.

        Example:
            >>> from hf_mambalrp import DEMO_MODEL, AutoMambaLRPForSequenceClassification
            >>> model = AutoMambaLRPForSequenceClassification.from_pretrained(DEMO_MODEL)
            >>> ex = model.explain("A dull film.")
            >>> page = ex.to_html("dull.html", title="A dull film")
            >>> "<title>A dull film</title>" in page
            True
        """
        return self._page(self.document(level=level), title, path)

    def _repr_html_(self, level: Level = "word") -> str:
        return html.fragment(self.document(level=level, rows=NOTEBOOK_ROWS))

    def to_text(self, *, color: bool = False, width: int = 80, level: Level = "word") -> str:
        """Return what a terminal shows, ``width`` columns wide; without ``color`` there is no escape sequence in it.

        Example:
            >>> from hf_mambalrp import DEMO_MODEL, AutoMambaLRPForSequenceClassification
            >>> model = AutoMambaLRPForSequenceClassification.from_pretrained(DEMO_MODEL)
            >>> ex = model.explain("A dull film.")
            >>> print(ex.to_text())
            What speaks for negative?
            ...
            A(+0.104) dull(+0.946) film(+0.188).(+0.684)
            ...
        """
        return _printed(self.document(level=level), color, width)

    def show(self, *, level: Level = "word") -> None:
        """Display as HTML in a notebook, else print to the terminal (in colour where it can, see ``NO_COLOR``).

        OptionError: an unknown level.

        Example:
            >>> from hf_mambalrp import DEMO_MODEL, AutoMambaLRPForSequenceClassification
            >>> model = AutoMambaLRPForSequenceClassification.from_pretrained(DEMO_MODEL)
            >>> ex = model.explain("A dull film.")
            >>> ex.show()
            What speaks for negative?
            ...
            mambalrp on demo
        """
        _display(
            lambda: self._repr_html_(level),
            lambda: self.document(level=level, rows=NOTEBOOK_ROWS if notebook() else None),
        )


def _printed(document: Document, color: bool, width: int) -> str:
    from hf_mambalrp.viz import terminal

    return terminal.printed(terminal.lines(document), color, width)


def _display(page: Callable[[], str], document: Callable[[], Document]) -> None:
    """Display a page in a notebook, with the text for where its HTML is not shown; else print a document."""
    ipython = notebook()
    if ipython is not None:
        shown = {"text/html": page(), "text/plain": _printed(document(), False, NOTEBOOK_WIDTH)}
        ipython.display.display(shown, raw=True)
        return
    from rich.console import Console

    from hf_mambalrp.viz import terminal

    stream: Any = sys.stdout and Lenient(sys.stdout)
    Console(file=stream, force_jupyter=False).print(*terminal.lines(document()), sep="\n")


def notebook() -> Any:
    """IPython where it displays HTML, else None."""
    ipython = sys.modules.get("IPython")
    return ipython if ipython is not None and hasattr(ipython.get_ipython(), "kernel") else None


def written(page: str, path: str | Path | None) -> str:
    """The page, which is written to ``path`` if one is given."""
    if path is not None:
        Path(path).write_text(page, encoding="utf-8")
    return page
