"""What an answer is taken away as: markup that is text, and files that the page's script asks for."""

from html.parser import HTMLParser
from urllib.parse import urlencode

import pytest
from space_server import MARKUP

from hf_mambalrp.space.limits import RefusedError


class Read(HTMLParser):
    """The elements of what is taken away, and the text in its text field."""

    def __init__(self, html):
        super().__init__()
        self.elements, self.python, self.within = [], "", None
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.within = tag
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.python += data if self.within == "textarea" else ""

    def handle_endtag(self, tag):
        self.within = None


@pytest.fixture
def parts():
    """What imports the space waits until it is used."""
    from hf_mambalrp.space import take_away

    return take_away


def test_what_is_asked_is_text_and_comes_back(parts):
    python = f"result = model.explain(\n    {MARKUP + '</textarea>'!r},\n)\n"
    link = urlencode({"kind": "next", "text": f"\"{MARKUP}'&"})
    read = Read(parts.take_away("next", link, python, {}))
    assert read.python == python
    tags = {tag for tag, _ in read.elements}
    assert tags == {"details", "summary", "div", "label", "textarea", "button", "input"}
    assert read.elements[0][1] == {"class": "hfm more", "data-asked": link}
    assert [found["data-form"] for _, found in read.elements if "data-form" in found] == ["html", "json", "png"]


def test_a_file_of_a_visitor_is_in_no_link_and_what_else_is_asked_is_kept(parts):
    asked = {"picture": "data:image/png;base64,AAAA", "method": "lrp_ln", "gamma": 0.5}
    details = Read(parts.take_away("image", "", "python", asked)).elements[0][1]
    assert details == {"class": "hfm more", "data-asked": "kind=image&method=lrp_ln&gamma=0.5", "data-file": None}
    form, question = parts.read_wanted(f"picture {details['data-asked']} {asked['picture']}")
    assert (form, question) == (
        "picture",
        {"kind": "image", "method": "lrp_ln", "gamma": "0.5"} | {"picture": asked["picture"]},
    )


def test_where_nothing_is_answered_there_is_nothing_to_take_away(parts):
    assert parts.take_away("sentence", "", "", {}) == ""


@pytest.mark.parametrize("wanted", ["", "exe kind=next&text=a ", "picture kind=next&text=a ", "../html text=a "])
def test_another_file_is_refused(parts, wanted):
    with pytest.raises(RefusedError, match="The files of an answer are html, json, png"):
        parts.read_wanted(wanted)
