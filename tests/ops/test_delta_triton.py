"""The Triton gated delta rule and its transpose against the float64 loop; without a GPU, in Triton's interpreter.

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
from hf_mambalrp.ops.delta_scan.reference import delta_scan_reference
from hf_mambalrp.ops.delta_scan.triton import Tuning, delta_scan_triton, tuning_for

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
RELATIVE = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1.5e-2}
"""Largest relative L2 error; the interpreter cuts bfloat16 operands where a GPU rounds them."""
every_kind = pytest.mark.parametrize("per", ["head", "channel"])


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


def inputs(length, per="head", dtype=torch.float32, rows=1, heads=1, width=20, groups=1, state=24, fastest=4.0):
    g = torch.Generator().manual_seed(length)

    def normal(*shape):
        return torch.randn(*shape, generator=g).to(DEVICE)

    def uniform(*shape):
        return torch.rand(*shape, generator=g).to(DEVICE)

    return [
        normal(rows, length, heads, width).to(dtype),
        normal(rows, length, groups, state).to(dtype),
        torch.nn.functional.normalize(normal(rows, length, groups, state), dim=-1).to(dtype),
        -fastest * uniform(rows, length, heads, 1 if per == "head" else state),
        2 * uniform(rows, length, heads),
        normal(rows, heads, width, state),
    ]


def tuned(dtype=torch.float32, chunk=16, width=32):
    return tuning_for(dtype, 32, 32, 1, 1)._replace(chunk=chunk, width=width)


def inside_nan(value):
    """The same values as a view whose surroundings are NaN."""
    buffer = torch.full([size + 2 for size in value.shape], torch.nan, dtype=value.dtype, device=value.device)
    return buffer[tuple(slice(1, 1 + size) for size in value.shape)].copy_(value)


def relative(found, expected):
    return ((found.double() - expected).norm() / expected.norm()).item()


def check(arguments, tuning, bound=None):
    """Outputs and gradients of the kernels against those of the loop in float64."""
    v, *constants, state = arguments
    bound = bound or RELATIVE[v.dtype]
    v, state = inside_nan(v).requires_grad_(), inside_nan(state).requires_grad_()
    found = delta_scan_triton(v, *map(inside_nan, constants), state, tuning=tuning)
    assert (found[0].dtype, found[1].dtype) == (v.dtype, torch.float32)
    cotangents = [inside_nan(torch.randn_like(value)) for value in found]
    gradients = torch.autograd.grad(found, (v, state), cotangents)
    exact_v, exact_state = (value.detach().double().requires_grad_() for value in (v, state))
    o, last = delta_scan_reference(exact_v, *(value.double() for value in constants), exact_state)
    wanted = torch.autograd.grad((o, last), (exact_v, exact_state), [value.double() for value in cotangents])
    for one, other in zip((*found, *gradients), (o, last, *wanted), strict=True):
        assert one.shape == other.shape
        assert relative(one, other) <= bound


SIZES = [(length, chunk) for length in (1, 16, 37) for chunk in (16, 32, 64)]
"""Each in turn with a decay per head and per channel, so that these meet every length and every chunk."""


@pytest.mark.parametrize(
    ("length", "chunk", "per"), [(*sizes, ("head", "channel")[n % 2]) for n, sizes in enumerate(SIZES)]
)
def test_outputs_and_gradients_equal_the_loop(length, chunk, per):
    check(inputs(length, per, heads=2), tuned(chunk=chunk))


@every_kind
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype, per):
    check(inputs(37, per, dtype), tuned(dtype))


@every_kind
def test_rows_groups_and_blocks_of_a_head(per):
    check(inputs(18, per, rows=2, heads=4, groups=2, width=24, state=16), tuned(width=16))


@every_kind
@pytest.mark.parametrize("fastest", [1e-3, 200.0], ids=["hardly any decay", "total"])
def test_decays(fastest, per):
    check(inputs(37, per, fastest=fastest), tuned())


def test_equal_keys_which_make_the_system_as_badly_conditioned_as_it_gets():
    arguments = inputs(64, fastest=1e-6)
    arguments[2] = arguments[2][:, :1].expand_as(arguments[2])
    arguments[4] = torch.ones_like(arguments[4])
    check(arguments, tuned(chunk=64))


@every_kind
def test_a_slow_decay_behind_a_fast_one_keeps_its_digits(per):
    """Decays so fast that their float32 sums lose what separates the slow ones after them."""
    arguments = inputs(64, per, width=4, state=4)
    arguments[3][:, :32], arguments[3][:, 32:] = -1e4, -1e-3
    o, _ = delta_scan_triton(*arguments, tuning=tuned(chunk=64))
    expected, _ = delta_scan_reference(*(value.double() for value in arguments))
    late = slice(33, None)
    assert relative(o[:, late], expected[:, late]) <= RELATIVE[torch.float32]


def test_states_hand_over():
    *arguments, state = inputs(37)
    o, last = delta_scan_triton(*arguments, state, tuning=tuned())
    first, middle = delta_scan_triton(*(value[:, :21] for value in arguments), state, tuning=tuned())
    second, end = delta_scan_triton(*(value[:, 21:] for value in arguments), middle, tuning=tuned())
    torch.testing.assert_close(torch.cat([first, second], 1), o)
    torch.testing.assert_close(end, last)


def test_no_initial_state_is_zero_and_either_output_alone_has_gradients():
    v, *constants, state = inputs(18)
    v.requires_grad_()
    o, last = delta_scan_triton(v, *constants, None, tuning=tuned())
    zero = torch.zeros_like(state).requires_grad_()
    other_o, other_last = delta_scan_triton(v, *constants, zero, tuning=tuned())
    torch.testing.assert_close((other_o, other_last), (o, last))
    (both,) = torch.autograd.grad(o.sum() + last.sum(), v, retain_graph=True)
    (from_o,) = torch.autograd.grad(o.sum(), v)  # its cotangent has no strides
    (from_last,) = torch.autograd.grad(other_last.sum(), v)
    torch.testing.assert_close(from_o + from_last, both)


def test_nothing_larger_than_the_input_and_two_squares_a_chunk_exists(allocated):
    arguments = inputs(64)
    delta_scan_triton(*arguments, tuning=tuned())
    squares = 4 * 16 * 16
    assert sorted(allocated) == sorted([arguments[0].numel(), arguments[5].numel(), squares, squares])


def test_parameters_have_no_gradients():
    arguments = inputs(2)
    arguments[1].requires_grad_()
    with pytest.raises(BackendError, match="'chunked'"):
        delta_scan_triton(*arguments)
    with torch.no_grad():
        delta_scan_triton(*arguments, tuning=tuned())


def test_tuning_is_a_power_of_two_that_a_product_can_have_and_fills_the_processors():
    for dtype in RELATIVE:
        for width, state, heads in [(1, 1, 1), (32, 16, 500), (48, 100, 16), (128, 128, 32), (128, 256, 64)]:
            tuning = tuning_for(dtype, width, state, heads, 132)
            assert isinstance(tuning, Tuning)
            assert {tuning.chunk, tuning.width} <= {16, 32, 64}
            assert tuning.width == 16 or heads * width >= 132 * tuning.width
