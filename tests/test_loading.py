"""``load``: whatever was saved is read back as what it was."""

import json

import pytest
import torch
from results import capital, conserved, generation

from hf_mambalrp import HiddenAttention, load
from hf_mambalrp.errors import InputError


def attention():
    places = torch.tensor([[0, 1]])
    return HiddenAttention(torch.eye(2)[None, None], [0], places, "raw", [["A", " film"]], places, torch.ones(1, 2))


@pytest.mark.parametrize("build", [capital, generation, attention])
def test_any_result_is_read_back(build, tmp_path):
    saved = build()
    saved.save(tmp_path)
    for path in (tmp_path, str(tmp_path)):
        found = load(path)
        assert type(found) is type(saved)
        assert found == saved == type(saved).load(path)


def test_what_is_no_result_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"is no saved result: explanation\.json is missing"):
        load(tmp_path)
    conserved(torch.ones(1, 2)).save(tmp_path)
    with pytest.raises(InputError, match="a saved 'Conservation', and this hf_mambalrp reads Comparison, Expl"):
        load(tmp_path)
    for content in ("[]", "{}", '{"format": 9, "class": ["Explanation"]}'):
        (tmp_path / "explanation.json").write_text(content)
        with pytest.raises(InputError, match="pip install --upgrade hf_mambalrp"):
            load(tmp_path)
    capital().save(tmp_path)
    newer = json.loads((tmp_path / "explanation.json").read_text()) | {"format": 99}
    (tmp_path / "explanation.json").write_text(json.dumps(newer))
    with pytest.raises(InputError, match="written in format 99"):
        load(tmp_path)
