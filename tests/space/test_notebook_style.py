"""A result in a notebook looks the same whatever the page around it styles."""

import torch
from results import explanation, generation, image_explanation

from hf_mambalrp.results.generation_explanation import GenerationExplanation
from hf_mambalrp.results.hidden_attention import HiddenAttention

# The rules of exported pages and of the classic notebook for what is inside of an output, and worse.
PAGE = """
html { font-size: 10px }
body { color: green; letter-spacing: 3px; text-align: right; text-transform: uppercase; line-height: 3 }
.jp-RenderedHTMLCommon { font-family: serif; font-size: 30px; white-space: pre }
.jp-RenderedHTMLCommon h2 { font-size: 9px; font-style: italic }
.jp-RenderedHTMLCommon h2:first-child, .rendered_html h2:first-child { margin-top: 40px }
.jp-RenderedHTMLCommon table { border: none; font-size: 12px; table-layout: fixed; margin: 0 auto 1em }
.jp-RenderedHTMLCommon td, .jp-RenderedHTMLCommon th, .jp-RenderedHTMLCommon tr { vertical-align: middle;
  padding: .5em; line-height: normal; white-space: normal; max-width: none; border: none }
:not(.jp-RenderedMarkdown).jp-RenderedHTMLCommon td, :not(.jp-RenderedMarkdown).jp-RenderedHTMLCommon th,
:not(.jp-RenderedMarkdown).jp-RenderedHTMLCommon tr { text-align: right }
.jp-RenderedHTMLCommon tbody tr:nth-child(odd) { background: white }
.jp-RenderedHTMLCommon tbody tr:nth-child(even) { background: yellow }
.jp-RenderedHTMLCommon p { text-align: left; margin: 0 0 1em }
.jp-OutputArea-output dl, .jp-OutputArea-output dt, .jp-OutputArea-output dd { display: block }
.jp-OutputArea-output dt { font-weight: bold; float: left; width: 20%; padding: 0; margin: 0 }
.jp-OutputArea-output dd { float: left; width: 80%; padding: 0; margin: 0 }
.rendered_html * + p, .rendered_html * + table { margin-top: 1em }
.rendered_html i, .rendered_html b, .rendered_html span { color: red; display: block; box-shadow: 0 0 9px }
.rendered_html img { max-width: 20px; border: 3px solid; margin: 9px } .rendered_html input { display: none }
.rendered_html form, .rendered_html fieldset, .rendered_html label, .rendered_html figure { padding: 9px; float: right }
.rendered_html summary, .rendered_html details, .rendered_html footer, .rendered_html section { padding: 20px }
"""
STYLES = """() => [...document.querySelectorAll('.hfm, .hfm *')].filter(e => e.tagName != 'STYLE').map(element => {
  const style = getComputedStyle(element);
  return element.tagName + [...style].map(name => name + ': ' + style.getPropertyValue(name)).join('; ');
})"""


def attention():
    places = torch.tensor([[0, 1]])
    matrix = torch.tensor([[1.0, 0.0], [0.5, -2.0]])[None, None]
    return HiddenAttention(matrix, [0], places, "raw", [["A", " film"]], places, torch.ones(1, 2))


def test_the_page_around_changes_nothing_inside(browser):
    page = browser.new_page()
    page.set_viewport_size({"width": 700, "height": 500})
    around = '<div class="jp-OutputArea-output jp-RenderedHTMLCommon rendered_html" style="width: 600px">{}</div>'
    for result in (explanation("A dull film.", "B"), generation(), attention(), image_explanation()):
        found = []
        for style in ("", PAGE):
            page.set_content(f"<!DOCTYPE html><style>{style}</style>{around.format(result._repr_html_())}")
            found.append(page.evaluate(STYLES))
        bare, inside = found
        assert len(bare) > 20
        for expected, styled in zip(bare, inside, strict=True):
            assert styled.split("; ") == expected.split("; ")
        if isinstance(result, GenerationExplanation):
            page.get_by_role("option", name="down").click()
            assert page.locator(".sum b").first.inner_text() == str(result.step(1)[0].conservation)
    page.close()
