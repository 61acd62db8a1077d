"""The page: how it looks, its tabs, the link that opens it, and the API."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import gradio as gr

from hf_mambalrp.space.api import Endpoints
from hf_mambalrp.space.audits import place_audits
from hf_mambalrp.space.inputs import begun_with, filled
from hf_mambalrp.space.limits import RefusedError
from hf_mambalrp.space.panel import Panel
from hf_mambalrp.space.pictures import PICTURES
from hf_mambalrp.space.question import TASKS, Question
from hf_mambalrp.space.serve import App
from hf_mambalrp.space.tabs import panels
from hf_mambalrp.space.views import notice
from hf_mambalrp.viz.colors import DARK, LIGHT
from hf_mambalrp.viz.generation import SCRIPT as GENERATION_SCRIPT
from hf_mambalrp.viz.style import GENERATION_STYLE, PASSAGES_STYLE, PICTURE_STYLE, STYLE

HERE = Path(__file__).parent
CSS = (HERE / "style.css").read_text(encoding="utf-8").replace("LIGHT", LIGHT.css()).replace("DARK", DARK.css())
SCRIPT = (HERE / "page.js").read_text(encoding="utf-8")
STYLES = f"{STYLE}{PICTURE_STYLE}{PASSAGES_STYLE}{GENERATION_STYLE}{CSS}"
HEAD = f"<style>{STYLES}</style><script>{SCRIPT}{GENERATION_SCRIPT}</script>"
FONTS: Any = {"font": ["system-ui", "sans-serif"], "font_mono": ["ui-monospace", "monospace"]}
"""Of the visitor's own machine, which no page waits for."""
THEME = gr.themes.Default(primary_hue="slate", neutral_hue="slate", **FONTS).set(
    body_text_color_subdued="*neutral_600",
    body_text_color_subdued_dark="*neutral_300",
    block_title_text_color="*neutral_700",
    block_info_text_color="*neutral_600",
    block_info_text_color_dark="*neutral_300",
    button_primary_background_fill="*neutral_900",
    button_primary_background_fill_hover="*neutral_700",
    button_primary_background_fill_dark="*neutral_100",
    button_primary_background_fill_hover_dark="*neutral_300",
    button_primary_text_color="white",
    button_primary_text_color_dark="*neutral_900",
)


def build(app: App) -> gr.Blocks:
    """Build the page and the API."""
    page: gr.Blocks
    with gr.Blocks(title="Why did the model say that?", analytics_enabled=False) as page:
        gr.HTML(
            "<h1>Why did the model say that?</h1><p>Every word, or place of a picture, has a share of the score: blue "
            "(+) for the answer, red (−) against it. With the biases’ share, all sum to it.</p>",
            elem_id="head",
            apply_default_css=False,
        )
        with gr.Tabs(elem_id="tabs") as tabs:
            placed = panels(app)
            place_audits(app.catalog)
        file = gr.Textbox(visible="hidden", label="File")
        for panel in placed:
            panel.save_into(file)
        file.change(None, file, file, js="explorer.download")
        _open_link(app, page, tabs, placed)
        Endpoints(app).offer()
    # Without api_open=False, gradio has routes that pass by the queue.
    page.queue(max_size=app.limits.waiting, default_concurrency_limit=app.limits.at_once, api_open=False)
    return page


def _open_link(app: App, page: gr.Blocks, tabs: gr.Tabs, placed: list[Panel]) -> None:
    """Fill the page from its link when it opens, and answer what it asks.

    The page's script hands the link to the tab that it is for: one event for all of them would build every component
    of every tab anew, on the server and in the browser.
    """
    first = {"kind": placed[0].kind}
    if first["kind"] == "image":
        first["picture"] = next(iter(PICTURES))
    else:
        first["text"] = begun_with(app.catalog, app.catalog.titles(*TASKS[first["kind"]])[0])

    def opens(panel: Panel) -> Callable[[str, gr.Request], list[Any]]:
        def opened(link: str, request: gr.Request) -> list[Any]:
            fields = Question.__dataclass_fields__
            asked = link.removeprefix("#")
            given = {name: value for name, value in parse_qsl(asked, keep_blank_values=True) if name in fields}
            # Without a link the first tab is open: a visitor who has gone on to another is left there.
            chosen = gr.update(selected=panel.kind) if asked else gr.skip()
            try:
                question = app.asked(request, **{**(first if "kind" not in given else {}), **given})
            except RefusedError as error:
                return [chosen, *[gr.skip()] * len(panel.fields), notice(str(error)), "", ""]
            return [
                chosen,
                *(filled(app.catalog, name, question) for name in panel.fields),
                *app.answered(question),
            ]

        return opened

    links: list[Any] = []
    for panel in placed:
        link = gr.Textbox(visible="hidden", label="Link")
        outputs = [tabs, *panel.fields.values(), panel.html, panel.link, panel.code]
        progress: Any = {"show_progress_on": panel.html}
        link.change(opens(panel), link, outputs, api_visibility="private", **progress, **app.queued)
        links.append(link)
    kinds = json.dumps([panel.kind for panel in placed])
    page.load(None, None, links, js=f"() => explorer.asked({kinds})")
