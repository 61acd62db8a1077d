"""The page: how it looks, its tabs, the link that opens it, and the API."""

from pathlib import Path
from typing import Any

import gradio as gr

from hf_mambalrp.space.api import Endpoints
from hf_mambalrp.space.audits import place_audits
from hf_mambalrp.space.limits import RefusedError
from hf_mambalrp.space.serve import App
from hf_mambalrp.space.tabs import place_tabs
from hf_mambalrp.space.take_away import read_wanted
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
            js_on_load=None,
            apply_default_css=False,
        )
        with gr.Tabs(elem_id="tabs"):
            place_tabs(app)
            place_audits(app.catalog)
        _save_files(app)
        Endpoints(app).offer()
    # Without api_open=False, gradio has routes that pass by the queue.
    page.queue(max_size=app.limits.waiting, default_concurrency_limit=app.limits.at_once, api_open=False)
    return page


def _save_files(app: App) -> None:
    """Place what the page's script presses for a file: it says which, gets it, and saves it."""
    file = gr.Button("", visible="hidden", elem_id="file")

    def saved(wanted: str, request: gr.Request) -> str:
        try:
            form, asked = read_wanted(wanted)
        except RefusedError as error:
            raise gr.Error(str(error), print_exception=False) from error
        return app.downloaded(request, form, **asked)

    got = file.click(saved, file, file, js="() => explorer.wanted", api_visibility="private", **app.queued)
    got.success(None, file, file, js="explorer.download", api_visibility="private")
