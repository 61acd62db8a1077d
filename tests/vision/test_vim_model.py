"""Vision Mamba's forward and gradients against the oracle, at every layer and in every layout."""

import pytest
import torch
from oracle_vim import vim_forward
from small_vim import KINDS, pixels_for, released, small_vim
from tolerances import RELATIVE

from hf_mambalrp.ops.selective_scan import selective_scan

HALF = 0.06
"""Largest relative error of logits where every linear map is rounded to bfloat16: some of its steps of 0.004."""
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


@every_kind
def test_other_image_sizes_keep_the_class_tokens_positions(kind):
    """Where patches move to a grid of twice the size, all of one position stay what they are and so do class tokens."""
    model = small_vim(kind)
    config, vim = model.config, model.vim
    places = list(config.class_token_positions)
    own = torch.arange(config.num_class_tokens * config.hidden_size).reshape(1, config.num_class_tokens, -1).float()
    with torch.no_grad():
        for parameter in (*vim.patch_embed.parameters(), vim.cls_token, vim.pos_embed):
            parameter.zero_()
        vim.pos_embed += 0.25  # of patches
        if config.class_token == "spread":
            vim.pos_embed_cls.copy_(own)
        else:
            vim.pos_embed[:, places] = own
        height, width = 2 * config.image_size, config.image_size + config.stride
        pixels = torch.zeros(1, config.num_channels, height, width)
        found = vim.embed(pixels, interpolate_pos_encoding=True)
    rows, columns = ((pixels - config.patch_size) // config.stride + 1 for pixels in (height, width))
    moved = {"first": [0], "middle": [rows * columns // 2]}.get(config.class_token)
    if moved is None:
        between = rows * columns // (config.num_class_tokens + 1)
        moved = [between + i * (between + 1) for i in range(config.num_class_tokens)]
    expected = torch.full((1, rows * columns + config.num_class_tokens, config.hidden_size), 0.25)
    expected[:, moved] = own
    torch.testing.assert_close(found, expected)


def cubic_weights(size, new_size):
    """(new_size, size) weights of cubic convolution with a = -3/4 (Keys 1981), edges repeated."""
    weights = torch.zeros(new_size, size)
    for i in range(new_size):
        at = (i + 0.5) * size / new_size - 0.5  # centre of the finer patch, in the coarser ones
        for j in range(int(at) - 2, int(at) + 4):
            d = abs(at - j)
            inner, outer = 1.25 * d**3 - 2.25 * d**2 + 1, -0.75 * (d**3 - 5 * d**2 + 8 * d - 4)
            weights[i, min(max(j, 0), size - 1)] += inner if d <= 1 else outer if d < 2 else 0
    return weights


def test_positions_of_patches_are_interpolated_in_two_dimensions():
    model = small_vim("vim", image_size=20)  # 5 x 5 patches
    vim, grid = model.vim, torch.randn(5, 5, 12)
    with torch.no_grad():
        for parameter in (*vim.patch_embed.parameters(), vim.cls_token):
            parameter.zero_()
        rows = [*grid.reshape(25, 12)]
        vim.pos_embed[0] = torch.stack([*rows[:12], torch.full((12,), 7.0), *rows[12:]])
        found = vim.embed(torch.zeros(1, 3, 36, 28), interpolate_pos_encoding=True)[0]  # 9 x 7 patches
    assert torch.equal(found[31], torch.full((12,), 7.0))
    expected = torch.einsum("ir,jc,rcd->ijd", cubic_weights(5, 9), cubic_weights(5, 7), grid)
    torch.testing.assert_close(torch.cat([found[:31], found[32:]]), expected.reshape(63, 12))


def test_the_own_size_is_not_changed_by_interpolation():
    model = small_vim()
    pixels = pixels_for(model)
    with torch.no_grad():
        assert torch.equal(model(pixels).logits, model(pixels, interpolate_pos_encoding=True).logits)


@pytest.mark.parametrize("kind", ["vim", "mamba-r"])
def test_train_and_eval_mode_and_batch_partners_agree(kind):
    model = small_vim(kind)
    pixels = pixels_for(model, batch=3)
    with torch.no_grad():
        together, alone = model(pixels).logits, model(pixels[1:2]).logits
        trained = model.train()(pixels).logits
    torch.testing.assert_close(together[1:2], alone)
    assert torch.equal(together, trained)


def test_a_batch_that_the_compiled_scan_takes_agrees_with_the_oracle():
    model = small_vim("vim", hidden_size=48, state_size=8, num_hidden_layers=1)
    pixels = pixels_for(model, batch=100)  # 100 x 17 x 96 x 8 updates, more than the compiled scan is worth from on
    with torch.no_grad():
        found = model(pixels).logits
    assert error(found, expected(model, pixels).logits) < RELATIVE[torch.float32]


@pytest.mark.parametrize("kind", ["vim", "mamba-r"])
def test_half_precision(kind, monkeypatch):
    """The residual stream and the scan are in float32; what is left is the rounding of linear maps to eight bits."""
    scanned = []

    def scan(*arguments):
        scanned.append((torch.is_autocast_enabled("cpu"), *{value.dtype for value in arguments}))
        return selective_scan(*arguments)

    monkeypatch.setattr("hf_mambalrp.models.vim.parts.selective_scan", scan)
    model = small_vim(kind)
    pixels = pixels_for(model)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        mixed = model(pixels, output_hidden_states=True)
    with torch.no_grad():
        half = model.to(torch.bfloat16)(pixels, output_hidden_states=True)
    assert half.logits.dtype == torch.bfloat16
    assert {state.dtype for state in (*half.hidden_states, *mixed.hidden_states)} == {torch.float32}
    assert set(scanned) == {(False, torch.float32)}
    oracle = expected(model, pixels).logits  # of the rounded weights
    assert error(mixed.logits, oracle) < HALF
    assert error(half.logits, oracle) < HALF


def test_half_precision_trains():
    for dtype, context in [(torch.bfloat16, False), (torch.float32, True)]:
        model = small_vim("mamba-r").to(dtype).train()
        with torch.autocast("cpu", torch.bfloat16, enabled=context):
            loss = model(pixels_for(model), labels=torch.tensor([1, 2])).loss
        loss.backward()
        assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
        assert all(parameter.grad.any() for parameter in model.parameters())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@every_kind
def test_a_gpu_agrees_with_the_oracle(kind):
    model = small_vim(kind)
    pixels = pixels_for(model)
    oracle = expected(model, pixels)
    model.cuda()
    loss = model(pixels.cuda(), labels=torch.tensor([1, 2]).cuda()).loss
    loss.backward()
    assert error(model(pixels.cuda()).logits.cpu(), oracle.logits) < RELATIVE[torch.float32]
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
