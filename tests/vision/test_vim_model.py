"""Vision Mamba's forward and gradients against the oracle, at every layer and in every layout."""

import pytest
import torch
from oracle_vim import vim_forward
from small_vim import KINDS, pixels_for, released, small_vim
from tolerances import RELATIVE

every_kind = pytest.mark.parametrize("kind", KINDS)


def expected(model, pixels, weights=None):
    config = model.config
    return vim_forward(weights or released(model), pixels, config.stride, config.class_token, config.divide_out)


def error(found, oracle):
    """Relative L2 error."""
    return float((found.double() - oracle).norm() / oracle.norm())


@every_kind
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_layer_agrees_with_the_oracle(kind, dtype):
    model = small_vim(kind)
    pixels = pixels_for(model)
    oracle = expected(model, pixels)
    with torch.no_grad():
        outputs = model.to(dtype).vim(pixels.to(dtype), output_hidden_states=True)
        classified = model(pixels.to(dtype), output_hidden_states=True)
    assert len(outputs.hidden_states) == model.config.num_hidden_layers + 1
    for found, state in zip(outputs.hidden_states, oracle.states, strict=True):
        assert error(found, state) < RELATIVE[dtype]
    assert error(outputs.last_hidden_state, oracle.last) < RELATIVE[dtype]
    assert error(outputs.pooler_output, oracle.pooled) < RELATIVE[dtype]
    assert error(classified.logits, oracle.logits) < RELATIVE[dtype]
    assert classified.logits.dtype == dtype


@every_kind
def test_gradients_of_all_parameters_and_pixels_agree_with_the_oracle(kind):
    model = small_vim(kind).double().train()
    pixels = pixels_for(model, batch=3).double().requires_grad_()
    labels = torch.tensor([0, 3, 4])
    loss = model(pixels, labels=labels).loss
    loss.backward()

    weights = {name: value.detach().clone().requires_grad_() for name, value in released(model).items()}
    theirs = pixels.detach().clone().requires_grad_()
    logits = expected(model, theirs, weights).logits
    (-logits.log_softmax(-1)[torch.arange(3), labels].mean()).backward()
    assert error(pixels.grad, theirs.grad) < RELATIVE[torch.float64]
    for name, parameter in model.named_parameters():
        oracle = weights[name.removeprefix("vim.")].grad
        if model.config.class_token == "first" and name == "vim.layers.1.mixer.A_log":
            assert not parameter.grad.any()  # what is read is the first of its positions, where no state has decayed
            assert not oracle.any()
            continue
        assert oracle.norm() > 0, name
        assert error(parameter.grad, oracle) < RELATIVE[torch.float64], name
