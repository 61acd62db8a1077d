"""The fused gated scan and its modified gradients against a float64 loop, in triton's interpreter where no GPU is."""

import sys

import pytest
import torch

if sys.platform != "linux":  # where it has to be installed
    pytest.skip("triton is built for Linux only", allow_module_level=True)

from hf_mambalrp.ops.gated_scan import gated_scan
from hf_mambalrp.ops.gated_scan import triton as kernels
from hf_mambalrp.rules import MAMBALRP

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
pytestmark = pytest.mark.filterwarnings("ignore:overflow encountered in exp2:RuntimeWarning")  # sigmoid(-90)
RELATIVE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 1e-2, torch.float16: 2e-3}
NAMES = ("p", "last state", "gradient of u", "gradient of z", "gradient of the initial state")
ONE_CHUNK, MANY_CHUNKS = kernels.Config(), kernels.Config(states=4, unroll=2, warps=10**6, shortest=2)


def gated_scan_reference(u, delta, *rest):
    return gated_scan(u, lambda: delta, *rest, rules=MAMBALRP, backend="reference")


def gated_scan_triton(u, delta, *rest):
    return gated_scan(u, lambda: delta, *rest, rules=MAMBALRP, backend="triton")


def inputs(batch=1, length=5, channels=5, states=2, dtype=torch.float32, seed=0, rank=3):
    """u, delta, z, A_log, B, C, D, bias, initial state, as of a mixer: z, B and C are slices of wider tensors."""
    g = torch.Generator().manual_seed(seed)
    xz = torch.randn(batch, length, 2 * channels, generator=g).to(DEVICE, dtype)
    parameters = torch.randn(batch, length, rank + 2 * states, generator=g).to(DEVICE, dtype)
    u, delta = (torch.randn(batch, length, channels, generator=g).to(DEVICE, dtype) for _ in range(2))
    A_log = (4 * torch.rand(channels, states, generator=g)).log()
    D, bias = torch.randn(channels, generator=g), torch.randn(channels, generator=g)
    initial = torch.randn(batch, channels, states, generator=g)
    A_log, D, bias, initial = (value.to(DEVICE) for value in (A_log, D, bias, initial))
    return [
        u,
        delta,
        xz[..., channels:],
        A_log,
        parameters[..., rank:-states],
        parameters[..., -states:],
        D,
        bias,
        initial,
    ]


def loop(u, delta, z, A_log, B, C, D, bias, initial, g, G_last):
    """Outputs and modified gradients step by step, in float64, from the formulas."""
    u, delta, z, A_log, B, C, D, bias, h, g, G = (
        value.double() for value in (u, delta, z, A_log, B, C, D, bias, initial, g, G_last)
    )
    A = -torch.exp(A_log)
    dt = torch.log1p(torch.exp(-(delta + bias).abs())) + (delta + bias).clamp(min=0)
    length, y = u.shape[1], torch.zeros_like(u)
    for t in range(length):
        h = torch.exp(dt[:, t, :, None] * A) * h + (dt * u)[:, t, :, None] * B[:, t, None]
        y[:, t] = (C[:, t, None] * h).sum(-1) + D * u[:, t]
    sigmoid = 1 / (1 + torch.exp(-z))
    gy, gu = g * z * sigmoid / 2, torch.zeros_like(u)
    for t in reversed(range(length)):
        q = C[:, t, None] * gy[:, t, :, None] + G
        gu[:, t] = dt[:, t] * (B[:, t, None] * q).sum(-1) + D * gy[:, t]
        G = torch.exp(dt[:, t, :, None] * A) * q
    return y * z * sigmoid, h, gu, g * y * sigmoid / 2, G


def run(scan, arguments, g, G_last):
    leaves = [value.detach().requires_grad_() for value in (arguments[0], arguments[2], arguments[8])]
    p, last = scan(leaves[0], arguments[1], leaves[1], *arguments[3:8], leaves[2])
    return p, last, *torch.autograd.grad((p, last), leaves, (g, G_last))


def cotangents(arguments):
    torch.manual_seed(1)
    return torch.randn_like(arguments[0]), torch.randn_like(arguments[8])


def assert_close(found, expected, dtype):
    for name, one, other in zip(NAMES[: len(expected)], found, expected, strict=True):
        error = (one.double() - other).norm() / other.norm()
        assert error <= RELATIVE[dtype], f"{name}: {error:.1e}"


def use(config, monkeypatch):
    for direction in ("FORWARD", "BACKWARD"):
        monkeypatch.setattr(kernels, direction, config)


@pytest.fixture(params=[ONE_CHUNK, MANY_CHUNKS], ids=["one chunk", "many chunks"])
def config(request, monkeypatch):
    use(request.param, monkeypatch)


@pytest.fixture
def many_chunks(monkeypatch):
    use(MANY_CHUNKS, monkeypatch)


def test_the_reference_equals_the_loop():
    arguments = [value.double() for value in inputs(2, 6, 5, 3)]
    given = cotangents(arguments)
    assert_close(run(gated_scan_reference, arguments, *given), loop(*arguments, *given), torch.float64)


# Batch, length, channels, states: one position, ragged chunks, ragged blocks of channels, padded states.
@pytest.mark.parametrize("shape", [(1, 1, 3, 2), (2, 5, 5, 3), (1, 3, 67, 2), (1, 2, 3, 20), (1, 4, 4, 1)])
def test_outputs_and_gradients_equal_the_loop(shape, config):
    arguments = inputs(*shape)
    given = cotangents(arguments)
    found = run(gated_scan_triton, arguments, *given)
    assert [value.dtype for value in found] == [torch.float32] * 5
    assert_close(found, loop(*arguments, *given), torch.float32)


# Of one row and 128 channels, or 192, of 2 states: room for four warps, for five, for more than two rows fill.
@pytest.mark.parametrize(
    ("rows", "channels", "warps", "together", "chunks"),
    [(1, 128, 4, 2, 2), (1, 128, 5, 1, 2), (1, 192, 6, 1, 2), (3, 128, 4, 1, 1), (3, 128, 3, 2, 1), (1, 128, 0, 2, 1)],
    ids=["full", "a fifth idle", "channels left over", "a quarter idle", "two waves", "one chunk"],
)
def test_warps_go_together_where_they_fill_the_gpu(rows, channels, warps, together, chunks, monkeypatch):
    config = kernels.Config(states=4, unroll=2, warps=warps, shortest=2, together=2)
    monkeypatch.setattr(kernels, "processors", lambda device: 1)
    use(config, monkeypatch)
    arguments = inputs(rows, 6, channels, 2)
    plan = kernels._Plan.of(arguments[0], 2, config)
    assert (plan.options["num_warps"], plan.options["BE"], plan.grid[1]) == (together, 64 * together, chunks)
    given = cotangents(arguments)
    assert_close(run(gated_scan_triton, arguments, *given), loop(*arguments, *given), torch.float32)


# An odd rank puts B and C where two of their numbers are no aligned integer, and so does an odd number of states.
@pytest.mark.parametrize(("rank", "states"), [(3, 2), (4, 4), (4, 3), (4, 1)])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_differs_by_the_rounding_of_what_is_stored(dtype, rank, states, many_chunks):
    arguments = inputs(states=states, dtype=dtype, rank=rank)
    given = cotangents(arguments)
    p, last, gu, gz, G = run(gated_scan_triton, arguments, *given)
    assert (p.dtype, last.dtype, gu.dtype, gz.dtype, G.dtype) == (dtype, torch.float32, dtype, dtype, torch.float32)
    assert_close((p, last, gu, gz, G), loop(*arguments, *given), dtype)
    reference = run(gated_scan_reference, arguments, *given)
    assert_close(reference, loop(*arguments, *given), dtype)


def test_step_sizes_from_nothing_to_thirty(config):
    """Softplus at its ends, states kept whole and states forgotten at once."""
    arguments = inputs(1, 6, 6, 2)
    arguments[7].zero_()
    arguments[1].copy_(torch.tensor([-200.0, -20, -8, 0.5, 20, 30]).to(DEVICE).expand(6, 6) + 0.1 * arguments[1])
    arguments[3].mul_(torch.tensor([1e-6, 50]).to(DEVICE))
    arguments[2][:, 0] = 90
    arguments[2][:, 1] = -90
    given = cotangents(arguments)
    found, expected = run(gated_scan_triton, arguments, *given), loop(*arguments, *given)
    assert all(value.isfinite().all() for value in found)
    assert_close(found, expected, torch.float32)


def test_states_hand_over(many_chunks):
    cut = 3
    arguments = inputs()
    u, delta, z, A_log, B, C, D, bias, initial = arguments
    g, G_last = cotangents(arguments)
    whole = run(gated_scan_triton, arguments, g, G_last)
    leaves = u, z, initial = [value.detach().requires_grad_() for value in (u, z, initial)]
    first, middle = gated_scan_triton(
        u[:, :cut], delta[:, :cut], z[:, :cut], A_log, B[:, :cut], C[:, :cut], D, bias, initial
    )
    second, last = gated_scan_triton(
        u[:, cut:], delta[:, cut:], z[:, cut:], A_log, B[:, cut:], C[:, cut:], D, bias, middle
    )
    p = torch.cat([first, second], 1)
    pieces = p, last, *torch.autograd.grad((p, last), leaves, (g, G_last))
    assert_close(pieces, [value.double() for value in whole], torch.float32)


def test_no_states_are_zero_states_and_an_unused_output_has_no_gradient(many_chunks):
    arguments = inputs()
    arguments[8].zero_()
    g, G_last = cotangents(arguments)
    expected = loop(*arguments, g, torch.zeros_like(G_last))
    u, z = (value.detach().requires_grad_() for value in (arguments[0], arguments[2]))
    p, last = gated_scan_triton(u, arguments[1], z, *arguments[3:8])
    gradients = torch.autograd.grad(p, (u, z), g, retain_graph=True)
    assert_close((p, last, *gradients), expected[:4], torch.float32)
    gu, gz = torch.autograd.grad(last, (u, z), G_last)
    assert gu.isfinite().all()
    assert not gz.any()


def test_parameters_are_constants():
    arguments = [value.detach().requires_grad_() for value in inputs(1, 2, 3, 2)]
    p, last = gated_scan_triton(*arguments)
    gradients = torch.autograd.grad(p.sum() + last.sum(), arguments, allow_unused=True)
    assert [value is not None for value in gradients] == [index in (0, 2, 8) for index in range(9)]


def test_every_element_is_written(many_chunks, monkeypatch):
    """Every ``empty`` filled with NaN: what is not written would show."""
    arguments = inputs()
    given = cotangents(arguments)
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", True)
    torch.use_deterministic_algorithms(True)
    try:
        assert torch.empty(3).isnan().all()
        found = run(gated_scan_triton, arguments, *given)
    finally:
        torch.use_deterministic_algorithms(False)
    assert_close(found, loop(*arguments, *given), torch.float32)


def test_any_strides_and_a_given_place_for_the_gradient_of_z():
    arguments = inputs(2, 3, 3, 2)
    g, G_last = cotangents(arguments)
    expected = loop(*arguments, g, G_last)
    arguments[:3] = [value.transpose(1, 2).contiguous().transpose(1, 2) for value in arguments[:3]]
    turned = run(gated_scan_triton, arguments, g.transpose(1, 2).contiguous().transpose(1, 2), G_last)
    assert_close(turned, expected, torch.float32)
