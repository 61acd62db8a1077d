"""A fingerprint is of the weights, whatever holds them."""

import pytest
import torch
from random_models import random_model
from torch import nn

from hf_mambalrp import AutoMambaLRPForCausalLM
from hf_mambalrp.models.fingerprint import fingerprint

PARTS = ("backbone.embeddings", "backbone.norm_f", "lm_head", "backbone.layers.0", "backbone.layers.1")


def test_a_fingerprint_sees_every_weight_and_its_name():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    before = fingerprint(model)
    assert fingerprint(model) == before
    with torch.no_grad():
        model[1].bias[1] += 1
    changed = fingerprint(model)
    assert changed != before
    model[0], model[1] = model[1], model[0]
    assert fingerprint(model) != changed
    assert fingerprint(model.bfloat16()) != fingerprint(model.half())
    assert fingerprint("a") != fingerprint("b")


@pytest.mark.parametrize("model_type", ["mamba", "mamba2"])
def test_equal_weights_are_equal_wherever_they_are(tmp_path, model_type):
    model = random_model(num_layers=2, dtype=torch.float32, model_type=model_type)
    model.save_pretrained(tmp_path / "a")
    with torch.no_grad():
        model.backbone.layers[0].mixer.D[0] += 1
    model.save_pretrained(tmp_path / "b")

    def loaded(name, on_disk, dtype=torch.float32):
        places = {part: "disk" if part in on_disk else "cpu" for part in PARTS}
        model = AutoMambaLRPForCausalLM.from_pretrained(
            tmp_path / name, device_map=places, offload_folder=tmp_path / f"{name} {dtype}", dtype=dtype
        )
        assert any(weight.is_meta for weight in model.state_dict().values()) == bool(on_disk)
        found = fingerprint(model)
        assert any(weight.is_meta for weight in model.state_dict().values()) == bool(on_disk), "as it was"
        return found

    in_memory = loaded("a", ())
    assert [loaded("a", PARTS), loaded("a", PARTS[3:4]), loaded("a", PARTS[4:])] == [in_memory] * 3
    assert loaded("b", PARTS[3:]) not in (in_memory, loaded("a", PARTS, torch.bfloat16))
    assert loaded("b", PARTS[3:]) == loaded("b", ())
