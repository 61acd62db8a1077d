"""The tab of audits: what the listed models rely on over a corpus, as it was found and saved before."""

import gradio as gr

from hf_mambalrp.results.audit import Audit
from hf_mambalrp.space.catalog import Catalog
from hf_mambalrp.viz import html

SAYS = (
    "One sentence can mislead. This is what the model relied on over many: words were screened by their relevance, "
    "then deleted from the texts that have them, and the model was asked again."
)


def audits(catalog: Catalog) -> dict[str, str]:
    """The page of every audit, by the title of its model. InputError: a file that is listed is no audit."""
    return {
        entry.title: html.fragment(Audit.load(entry.audit).document())
        for entry in catalog.entries
        if entry.audit is not None
    }


def place_audits(catalog: Catalog) -> None:
    """Place the tab, where a model has an audit; what it shows is known, so nothing is asked of a model."""
    pages = audits(catalog)
    if not pages:
        return
    with gr.Tab("Audit", id="audit"):
        gr.HTML(f"<p>{SAYS}</p>", js_on_load=None)
        titles = list(pages)
        model = gr.Dropdown(titles, value=titles[0], label="Model") if len(titles) > 1 else None
        page = gr.HTML(pages[titles[0]], elem_id="audit-answer", js_on_load=None, apply_default_css=False)
        if model is not None:
            model.change(pages.get, model, page, api_visibility="private", queue=False)
