"""The Triton scan of Mamba-2 and its transpose against the float64 loop; without a GPU, in Triton's interpreter.

Outputs start as NaN and inputs are views of larger tensors of NaN, so that an element that is not written, or one that
is read past an end, shows.
"""

import sys

import pytest
import torch

if sys.platform != "linux":  # where it has to be installed
    pytest.skip("triton is built for Linux only", allow_module_level=True)

from triton import language as tl
from triton.runtime.interpreter import InterpreterBuilder

from hf_mambalrp.errors import BackendError
from hf_mambalrp.ops.ssd_scan.reference import ssd_scan_reference
from hf_mambalrp.ops.ssd_scan.triton import Tuning, segments_for, ssd_scan_triton, tuning_for

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
RELATIVE = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1.2e-2}
"""Largest relative L2 error; the interpreter cuts bfloat16 operands where a GPU rounds them."""

pytestmark = pytest.mark.filterwarnings("ignore:divide by zero encountered in log2:RuntimeWarning")  # dt after the end


@pytest.fixture(autouse=True)
def bfloat16_products(monkeypatch):
    """The interpreter keeps bfloat16 as integers, and multiplies those."""
    product = InterpreterBuilder.create_dot

    def create_dot(self, a, b, *rest):
        a, b = (self.create_fp_ext(v, tl.float32) if v.dtype.scalar == tl.bfloat16 else v for v in (a, b))
        return product(self, a, b, *rest)

    monkeypatch.setattr(InterpreterBuilder, "create_dot", create_dot)


@pytest.fixture(autouse=True)
def allocated(monkeypatch):
    """Sizes of the tensors that the scan makes, each full of NaN."""
    empty, sizes = torch.empty, []

    def poisoned(*args, **kwargs):
        made = empty(*args, **kwargs).fill_(torch.nan)
        sizes.append(made.numel())
        return made

    monkeypatch.setattr(torch, "empty", poisoned)
    return sizes


def inputs(length, dtype=torch.float32, rows=1, heads=1, width=20, groups=1, state=24, fastest=4.0):
    g = torch.Generator().manual_seed(length)

    def normal(*shape):
        return torch.randn(*shape, generator=g).to(DEVICE)

    return [
        normal(rows, length, heads, width).to(dtype),
        torch.rand(rows, length, heads, generator=g).to(DEVICE),
        -fastest * torch.rand(heads, generator=g).to(DEVICE),
        normal(rows, length, groups, state).to(dtype),
        normal(rows, length, groups, state).to(dtype),
        normal(rows, heads, width, state),
    ]


def tuned(dtype=torch.float32, segments=2, chunk=16, width=32):
    return tuning_for(dtype, 32, 32)._replace(chunk=chunk, width=width, segments=segments)


def inside_nan(value):
    """The same values as a view whose surroundings are NaN."""
    buffer = torch.full([size + 2 for size in value.shape], torch.nan, dtype=value.dtype, device=value.device)
    return buffer[tuple(slice(1, 1 + size) for size in value.shape)].copy_(value)


def relative(found, expected):
    return ((found.double() - expected).norm() / expected.norm()).item()


def check(arguments, tuning, bound=None, skip=None):
    """Outputs and gradients of the kernels against those of the loop in float64, whose skip D is added here."""
    x, *constants, state = arguments
    bound = bound or RELATIVE[x.dtype]
    x, state = inside_nan(x).requires_grad_(), inside_nan(state).requires_grad_()
    D = None if skip is None else inside_nan(skip)
    found = ssd_scan_triton(x, *map(inside_nan, constants), state, D, tuning=tuning)
    assert (found[0].dtype, found[1].dtype) == (x.dtype, torch.float32)
    cotangents = [inside_nan(torch.randn_like(value)) for value in found]
    gradients = torch.autograd.grad(found, (x, state), cotangents)
    exact_x, exact_state = (value.detach().double().requires_grad_() for value in (x, state))
    y, last = ssd_scan_reference(exact_x, *(value.double() for value in constants), exact_state)
    y = y if skip is None else y + skip.double()[:, None] * exact_x
    wanted = torch.autograd.grad((y, last), (exact_x, exact_state), [value.double() for value in cotangents])
    for one, other in zip((*found, *gradients), (y, last, *wanted), strict=True):
        assert one.shape == other.shape
        assert relative(one, other) <= bound


@pytest.mark.parametrize("segments", [1, 3])
@pytest.mark.parametrize("length", [1, 16, 37])
def test_outputs_and_gradients_equal_the_loop(length, segments):
    check(inputs(length, heads=2), tuned(segments=segments))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype):
    check(inputs(37, dtype), tuned(dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("segments", [1, 3])
def test_the_skip_is_added_both_ways(segments, dtype):
    arguments = inputs(37, dtype, rows=2, heads=3)
    check(arguments, tuned(dtype, segments=segments), skip=torch.randn(3, device=DEVICE))


def test_rows_groups_and_blocks_of_a_head():
    check(inputs(18, rows=2, heads=2, groups=2, width=24, state=16), tuned(width=16))


@pytest.mark.parametrize("fastest", [1e-3, 200.0], ids=["hardly any decay", "total"])
def test_decays(fastest):
    check(inputs(37, fastest=fastest), tuned())


@pytest.mark.parametrize("chunk", [64, 128])
def test_a_slow_decay_behind_a_fast_one_keeps_its_digits(chunk):
    """Decays so fast that their float32 sums lose what separates the slow ones after them."""
    x, dt, A, B, C, state = inputs(chunk, heads=1, width=4, state=4)
    dt[:, : chunk // 2], dt[:, chunk // 2 :] = 1e4, 1e-3
    A.fill_(-1.0)
    y, _ = ssd_scan_triton(x, dt, A, B, C, state, tuning=tuned(chunk=chunk, segments=1))
    expected, _ = ssd_scan_reference(*(value.double() for value in (x, dt, A, B, C, state)))
    late = slice(chunk // 2 + 1, None)
    assert relative(y[:, late], expected[:, late]) <= RELATIVE[torch.float32]


def test_a_step_of_zero_leaves_the_state_alone():
    arguments = inputs(18)
    arguments[1][:, 3:17] = 0.0
    check(arguments, tuned())


def test_states_hand_over():
    x, dt, A, B, C, state = inputs(37)
    y, last = ssd_scan_triton(x, dt, A, B, C, state, tuning=tuned())
    first, middle = ssd_scan_triton(x[:, :21], dt[:, :21], A, B[:, :21], C[:, :21], state, tuning=tuned())
    second, end = ssd_scan_triton(x[:, 21:], dt[:, 21:], A, B[:, 21:], C[:, 21:], middle, tuning=tuned())
    torch.testing.assert_close(torch.cat([first, second], 1), y)
    torch.testing.assert_close(end, last)


def test_no_initial_state_is_zero_and_either_output_alone_has_gradients():
    x, dt, A, B, C, state = inputs(18)
    x.requires_grad_()
    y, last = ssd_scan_triton(x, dt, A, B, C, None, tuning=tuned())
    zero = torch.zeros_like(state).requires_grad_()
    other_y, other_last = ssd_scan_triton(x, dt, A, B, C, zero, tuning=tuned())
    torch.testing.assert_close((other_y, other_last), (y, last))
    (both,) = torch.autograd.grad(y.sum() + last.sum(), x, retain_graph=True)
    (from_y,) = torch.autograd.grad(y.sum(), x)  # its cotangent has no strides
    (from_last,) = torch.autograd.grad(other_last.sum(), x)
    torch.testing.assert_close(from_y + from_last, both)


def test_nothing_larger_than_the_input_and_a_state_per_segment_exists(allocated):
    x, dt, A, B, C, state = inputs(64, heads=1)
    ssd_scan_triton(x, dt, A, B, C, state, tuning=tuned(segments=3))
    assert sorted(allocated) == sorted([x.numel(), state.numel(), state.numel(), 1])  # four chunks make two segments


def test_parameters_have_no_gradients():
    arguments = inputs(2)
    arguments[1].requires_grad_()
    with pytest.raises(BackendError, match="'chunked'"):
        ssd_scan_triton(*arguments)
    with torch.no_grad():
        ssd_scan_triton(*arguments, tuning=tuned())


@pytest.mark.parametrize("programs", [1, 24, 80, 1024])
@pytest.mark.parametrize("chunks", [1, 8, 64, 16384])
def test_segments_fill_the_processors_and_no_more(programs, chunks):
    segments = segments_for(programs, chunks, 132)
    assert 1 <= segments <= min(chunks, 64)
    assert segments == 1 or programs * segments <= 16 * 132
    assert programs * segments >= 132 or segments == 64 or chunks <= 64


def test_tuning_is_a_power_of_two_that_a_product_can_have():
    for dtype in RELATIVE:
        for width, state in [(1, 1), (32, 16), (48, 100), (64, 128), (128, 256)]:
            tuning = tuning_for(dtype, width, state)
            assert isinstance(tuning, Tuning)
            assert {tuning.chunk, tuning.width} <= {16, 32, 64, 128}
