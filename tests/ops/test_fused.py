"""The fused ops: the readable twins against formulas written out in float64, the Triton kernels against the twins.

Without a GPU the kernels run in Triton's interpreter. Outputs start as NaN and inputs are views of larger tensors of
NaN, so that an element that is not written, or one that is read past an end, shows.
"""

import sys
from functools import partial

import pytest
import torch

if sys.platform != "linux":  # where it has to be installed
    pytest.skip("triton is built for Linux only", allow_module_level=True)

from torch.nn import functional as F

from hf_mambalrp.methods.mambalrp import mambalrp_rules
from hf_mambalrp.ops.conv_silu import conv_silu
from hf_mambalrp.ops.conv_silu import triton as conv_kernels
from hf_mambalrp.ops.gated_norm import gated_norm
from hf_mambalrp.ops.norm import norm, norm_of_sum
from hf_mambalrp.rules import MAMBALRP

OPS = conv_silu, norm, norm_of_sum, gated_norm
conv_silu_reference, norm_reference, norm_of_sum_reference, gated_norm_reference = (
    partial(op, rules=MAMBALRP, backend="reference") for op in OPS
)
conv_silu_triton, norm_triton, norm_of_sum_triton, gated_norm_triton = (
    partial(op, rules=MAMBALRP, backend="triton") for op in OPS
)

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
RELATIVE = {torch.float32: 2e-6, torch.bfloat16: 6e-3}
"""Largest relative L2 error against the twin in float64: one rounding of bfloat16 is 4e-3 at most."""
DTYPES = [torch.float32, torch.bfloat16]


def random(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def inside_nan(value):
    """The same values as a view whose surroundings are NaN."""
    buffer = torch.full([size + 2 for size in value.shape], torch.nan, dtype=value.dtype)
    view = buffer[tuple(slice(1, 1 + size) for size in value.shape)]
    return view.copy_(value)


@pytest.fixture
def poisoned(monkeypatch):
    empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *args, **kwargs: empty(*args, **kwargs).fill_(torch.nan))


def outputs_and_gradients(op, signals, cotangents):
    """Outputs of ``op`` and the gradients of its signals, flat."""
    signals = [signal.detach().requires_grad_() for signal in signals]
    outputs = op(*signals)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    gradients = torch.autograd.grad(outputs, signals, [c.to(o) for c, o in zip(cotangents, outputs, strict=True)])
    return [*outputs, *gradients]


def check(found_op, wanted_op, signals, cotangents, device=DEVICE):
    """The kernel on ``signals``, each inside NaN, against the twin on the same values in float64."""
    found = outputs_and_gradients(found_op, [inside_nan(signal).to(device) for signal in signals], cotangents)
    wanted = outputs_and_gradients(wanted_op, [signal.double() for signal in signals], cotangents)
    for signal, gradient in zip(signals, found[-len(signals) :], strict=True):
        assert gradient.dtype == signal.dtype
    for one, other in zip(found, wanted, strict=True):
        assert one.shape == other.shape
        error = (one.cpu().double() - other).norm() / other.norm().clamp_min(1e-30)
        assert error <= RELATIVE[one.dtype], f"relative error {error}"


def wide(weight):
    return None if weight is None else weight.double()


def on_device(weight):
    return None if weight is None else weight.to(DEVICE)


# The twins, by the rules' formulas


@pytest.mark.parametrize("width", [1, 2, 4])
def test_conv_silu_is_lrp_0_then_identity(width):
    """u_t = m_t silu(c_t); the gradient of c is m_t gu_t sigmoid(c_t), and the convolution's is the plain one."""
    x, earlier, weight = random(2, 5, 3), random(2, width - 1, 3, seed=1), random(3, width, seed=2)
    bias, mask, gu = random(2, 1, 3, seed=3), torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]), random(2, 5, 3, seed=4)
    signals = [value.requires_grad_() for value in (x, bias, earlier)]
    u = conv_silu_reference(x, weight, bias, earlier, mask)
    c = F.conv1d(torch.cat([earlier, x], 1).mT, weight[:, None], groups=3).mT + bias
    torch.testing.assert_close(u, F.silu(c) * mask[..., None])
    found = torch.autograd.grad(u, signals, gu)
    wanted = torch.autograd.grad(c, signals, gu * mask[..., None] * torch.sigmoid(c))
    torch.testing.assert_close(found, wanted)
    conserved = sum((signal * gradient).sum() for signal, gradient in zip(signals, found, strict=True))
    torch.testing.assert_close(conserved, (u * gu).sum())


def test_norm_keeps_its_normaliser_constant():
    """gx = gy r w."""
    x, weight, gy = random(2, 3, 5).requires_grad_(), random(5, seed=1), random(2, 3, 5, seed=2)
    y = norm_reference(x, weight, 0.01, torch.float64)
    torch.testing.assert_close(y, F.rms_norm(x, (5,), weight, 0.01))
    r = ((x**2).mean(-1, keepdim=True) + 0.01).rsqrt()
    torch.testing.assert_close(torch.autograd.grad(y, x, gy)[0], gy * r * weight)


@pytest.mark.parametrize("backend", ["reference", "chunked"])
def test_the_norm_of_a_sum_hands_on_both(backend):
    """h = x + a; with what arrives at h, gh, both have the gradient gh + gy r w."""
    x, added, gh, gy = (random(2, 3, 5, seed=seed) for seed in range(4))
    weight = random(5, seed=4)
    signals = [value.requires_grad_() for value in (x, added)]
    h, y = norm_of_sum(x, added, weight, 0.01, torch.float64, rules=MAMBALRP, backend=backend)
    torch.testing.assert_close(h, x + added)
    torch.testing.assert_close(y, F.rms_norm(x + added, (5,), weight, 0.01))
    r = (((x + added) ** 2).mean(-1, keepdim=True) + 0.01).rsqrt()
    for gradient in torch.autograd.grad([h, y], signals, [gh, gy]):
        torch.testing.assert_close(gradient, gh + gy * r * weight)


@pytest.mark.parametrize("size", [2, 6])
def test_gated_norm_is_the_gate_then_the_norm_of_each_group(size):
    """gp = go r w, gy = gp silu(z) / 2, gz = gp y sigmoid(z) / 2."""
    y, z = (random(2, 3, 6, seed=seed).requires_grad_() for seed in range(2))
    weight, go = random(6, seed=4), random(2, 3, 6, seed=5)
    o = gated_norm_reference(y, z, weight, 0.01, size)
    p = y * F.silu(z)
    r = ((p.unflatten(-1, (-1, size)) ** 2).mean(-1) + 0.01).rsqrt().repeat_interleave(size, -1)
    torch.testing.assert_close(o, p * r * weight)
    gp = go * r * weight
    found = torch.autograd.grad(o, (y, z), go)
    torch.testing.assert_close(found, (gp * F.silu(z) / 2, gp * y * torch.sigmoid(z) / 2))


# The kernels, against the twins


@pytest.fixture(params=[(8, 128, 1), (2, 16, 3)], ids=["default tiling", "small tiling"])
def tiling(request, monkeypatch):
    """The small one takes several blocks, several runs a program and a last program with fewer of them."""
    steps, block, runs = request.param
    programs = conv_kernels.Tiling().programs if runs == 1 else 1
    for name in ("FORWARD", "BACKWARD"):
        monkeypatch.setattr(conv_kernels, name, conv_kernels.Tiling(steps, block, 1, programs, runs))


def conv_silu_case(batch, length, channels, width, dtype):
    x, earlier = random(batch, length, channels, dtype=dtype), random(batch, width - 1, channels, seed=1, dtype=dtype)
    return [x, random(batch, 1, channels, seed=2, dtype=torch.float32), earlier], random(channels, width, seed=3)


@pytest.mark.parametrize(
    ("length", "channels", "width", "dtype"),
    [
        (1, 3, 4, torch.float32),
        (2, 17, 3, torch.bfloat16),
        (5, 20, 1, torch.float32),
        (3, 5, 8, torch.float32),
        (9, 4, 2, torch.bfloat16),
        (13, 7, 4, torch.float32),
    ],
)
def test_conv_silu(length, channels, width, dtype, tiling, poisoned):
    signals, weight = conv_silu_case(2, length, channels, width, dtype)
    weight = weight.to(dtype)

    def kernel(x, bias, earlier):
        return conv_silu_triton(x, on_device(weight), bias, earlier)

    def twin(x, bias, earlier):
        return conv_silu_reference(x, wide(weight), bias, earlier)

    check(kernel, twin, signals, [random(2, length, channels, seed=4, dtype=dtype)])


@pytest.mark.parametrize(
    ("dtype", "shape"),
    [(torch.float32, (2, 7, 1)), (torch.bool, (2, 7)), (torch.int64, (2, 7)), (torch.bfloat16, (2, 7))],
)
def test_conv_silu_with_a_mask(dtype, shape, poisoned):
    signals, weight = conv_silu_case(2, 7, 5, 4, torch.float32)
    mask = torch.tensor([[1, 1, 1, 1, 0, 0, 0], [0, 0, 1, 1, 1, 1, 1]]).to(dtype).view(shape)

    def kernel(x, bias, earlier):
        return conv_silu_triton(x, weight.float().to(DEVICE), bias, earlier, mask.to(DEVICE))

    def twin(x, bias, earlier):
        return conv_silu_reference(x, weight.float().double(), bias, earlier, mask)

    check(kernel, twin, signals, [random(2, 7, 5, seed=4)])


def test_conv_silu_computes_only_the_gradients_that_are_needed(poisoned):
    (x, bias, earlier), weight = conv_silu_case(1, 2, 3, 2, torch.float32)
    x, bias, earlier, weight = (value.to(DEVICE) for value in (x, bias, earlier, weight.float()))
    for needed in [(x,), (bias,), (earlier,), (x, earlier)]:
        for signal in (x, bias, earlier):
            signal.requires_grad_(any(signal is one for one in needed))
        found = torch.autograd.grad(conv_silu_triton(x, weight, bias, earlier).sum(), needed)
        wanted = torch.autograd.grad(conv_silu_reference(x, weight, bias, earlier).sum(), needed)
        torch.testing.assert_close(found, wanted)
    x.requires_grad_()
    found = torch.autograd.grad(conv_silu_triton(x, weight, None, earlier).sum(), x)
    wanted = torch.autograd.grad(conv_silu_reference(x, weight, None, earlier).sum(), x)
    torch.testing.assert_close(found, wanted)


@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")  # NumPy's, in the interpreter
def test_conv_silu_at_extreme_values(poisoned):
    """The sigmoid is exact at both ends: no overflow, no ratio."""
    x = torch.tensor([0.0, -1e4, 1e4, -100.0, 1e-30], device=DEVICE).view(1, 1, 5).requires_grad_()
    one, nothing = torch.ones(5, 1, device=DEVICE), torch.empty(1, 0, 5, device=DEVICE)
    u = conv_silu_triton(x, one, None, nothing)
    torch.testing.assert_close(u.flatten().cpu(), torch.tensor([0.0, 0.0, 1e4, 0.0, 5e-31]), rtol=1e-6, atol=1e-36)
    (gradient,) = torch.autograd.grad(u.sum(), x)
    torch.testing.assert_close(gradient.flatten().cpu(), torch.tensor([0.5, 0.0, 1.0, 0.0, 0.5]))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("out_dtype", DTYPES)
@pytest.mark.parametrize("shape", [(3, 5), (2, 2, 16)])
def test_norm(shape, dtype, out_dtype, poisoned):
    weight = random(shape[-1], seed=1, dtype=dtype)
    check(
        lambda x: norm_triton(x, on_device(weight), 0.01, out_dtype),
        lambda x: norm_reference(x, wide(weight), 0.01, torch.float64),
        [random(*shape, dtype=dtype)],
        [random(*shape, seed=2, dtype=out_dtype)],
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("out_dtype", DTYPES)
@pytest.mark.parametrize("shape", [(3, 5), (2, 2, 16)])
def test_the_norm_of_a_sum(shape, dtype, out_dtype, poisoned):
    weight = random(shape[-1], seed=1, dtype=dtype)
    check(
        lambda x, added: norm_of_sum_triton(x, added, on_device(weight), 0.01, out_dtype),
        lambda x, added: norm_of_sum_reference(x, added, wide(weight), 0.01, torch.float64),
        [random(*shape, dtype=torch.float32), random(*shape, seed=3, dtype=dtype)],
        [random(*shape, seed=4, dtype=torch.float32), random(*shape, seed=2, dtype=out_dtype)],
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("channels", "size"), [(6, 3), (8, 4), (192, 96), (5, 5), (4, 1)])
def test_gated_norm(channels, size, dtype, poisoned):
    weight = random(channels, seed=1, dtype=dtype)
    check(
        lambda y, z: gated_norm_triton(y, z, on_device(weight), 0.01, size),
        lambda y, z: gated_norm_reference(y, z, wide(weight), 0.01, size),
        [random(2, 3, channels, seed=seed, dtype=dtype) for seed in (2, 3)],
        [random(2, 3, channels, seed=4, dtype=dtype)],
    )


def test_an_expanded_gradient_is_read_as_it_is(poisoned):
    """What ``sum().backward()`` sends: strides of zero."""
    y, z = (random(2, 3, 4, seed=seed, dtype=torch.float32).to(DEVICE).requires_grad_() for seed in range(2))
    rest = (torch.ones(4, device=DEVICE), 0.01, 4)
    found = torch.autograd.grad(gated_norm_triton(y, z, *rest).sum(), (y, z))
    wanted = torch.autograd.grad(gated_norm_reference(y, z, *rest).sum(), (y, z))
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("rows", [0, 1])
def test_no_rows(rows, poisoned):
    x, weight = torch.ones(rows, 3, 4, device=DEVICE)[:, :0], torch.ones(4, device=DEVICE)
    assert norm_triton(x, weight, 0.01, x.dtype).shape == x.shape
    assert norm_of_sum_triton(x, x, weight, 0.01, x.dtype)[1].shape == x.shape
    assert gated_norm_triton(x, x, weight, 0.01, 2).shape == x.shape
    assert conv_silu_triton(x, weight[:, None], None, x).shape == x.shape


# The compiled twin on the CPU


@pytest.mark.parametrize(("length", "channels", "width"), [(1, 3, 4), (5, 70, 1), (3, 5, 8), (13, 130, 4)])
@pytest.mark.parametrize("gamma", [0.0, 0.25])
def test_the_compiled_convolution(length, channels, width, gamma, poisoned):
    signals, weight = conv_silu_case(2, length, channels, width, torch.float32)
    mask = (random(2, length, seed=7) > -0.5).float()
    rules = mambalrp_rules(gamma=gamma, gamma_on="conv1d")

    def compiled(x, bias, earlier):
        return conv_silu(x, weight.float(), bias, earlier, mask, rules=rules, backend="compiled")

    def twin(x, bias, earlier):
        return conv_silu(x, weight.float().double(), bias, earlier, mask, rules=rules, backend="reference")

    given = [signal for signal in signals if signal.numel()]
    if len(given) == len(signals):
        check(compiled, twin, signals, [random(2, length, channels, seed=4)], "cpu")
    else:  # of width 1 nothing comes before

        def without(op):
            return lambda x, bias: op(x, bias, x.new_zeros(2, 0, channels))

        check(without(compiled), without(twin), given, [random(2, length, channels, seed=4)], "cpu")
