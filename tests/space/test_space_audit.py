"""The tab of audits shows what was saved, for the models that have one."""

import json

import pytest

from hf_mambalrp import DEMO_MODEL
from hf_mambalrp.audit import Audit
from hf_mambalrp.errors import InputError
from hf_mambalrp.space.catalog import PACKAGED, Catalog, read_allow_list


@pytest.fixture
def audits():
    """What imports gradio waits until it is used."""
    from hf_mambalrp.space.audits import audits

    return audits


def test_the_packaged_model_has_a_page_that_says_what_was_confirmed_and_on_how_many_texts(audits):
    found = Audit.load(f"{DEMO_MODEL}/audit.json")
    pages = audits(Catalog())
    assert [*pages] == [PACKAGED.title]
    page = pages[PACKAGED.title]
    assert found.confirmed[0].found.name in page
    assert f"{found.texts} explained" in page
    assert "Not examined" in page


def test_the_page_has_the_tab_and_the_list_of_models_names_the_file(tmp_path, app_of, page_of, audits):
    line = {"id": "a/model", "title": "Mine", "task": "text-classification", "audit": "mine.json"}
    (tmp_path / "models.json").write_text(json.dumps([line]))
    entries = read_allow_list(tmp_path / "models.json")
    with pytest.raises(InputError, match=r"cannot be read: No such file or directory\. Give the file of an audit"):
        audits(Catalog(entries))
    Audit.load(f"{DEMO_MODEL}/audit.json").save(tmp_path / "mine.json")
    assert [*audits(Catalog(entries))] == ["Mine"]
    page = page_of(app_of(entries))
    labels = [part["props"].get("label") for part in page.config["components"] if part["type"] == "tabitem"]
    assert "Audit" in labels
