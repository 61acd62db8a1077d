"""The scan of Mamba-2 and all its adjoints against a float64 loop, at every cut, with decays from none to total."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from hf_mambalrp.errors import BackendError
from hf_mambalrp.ops.ssd_scan import chunked, ssd_scan

BACKENDS = ["reference", "chunked"]
NAMES = ("x", "dt", "A", "B", "C", "initial_state")


def inputs(batch, length, heads, width, groups, state, dtype=torch.float64, seed=0, fastest=4.0):
    g = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    values = (
        normal(batch, length, heads, width),
        torch.rand(batch, length, heads, generator=g, dtype=torch.float64),
        -fastest * torch.rand(heads, generator=g, dtype=torch.float64),
        normal(batch, length, groups, state),
        normal(batch, length, groups, state),
        normal(batch, heads, width, state),
    )
    return [value.to(dtype).requires_grad_() for value in values]


def loop(x, dt, A, B, C, initial_state):
    """Every number by the formula: S[p, n] = exp(dt A) S[p, n] + dt x[p] B[n], y[p] = sum_n S[p, n] C[n]."""
    batch, length, heads, width = x.shape
    groups, size = B.shape[2:]
    y, last = [], []
    for b in range(batch):
        for h in range(heads):
            g = h * groups // heads
            for p in range(width):
                S = [initial_state[b, h, p, n] for n in range(size)]
                for t in range(length):
                    step = dt[b, t, h]
                    S = [torch.exp(step * A[h]) * S[n] + step * x[b, t, h, p] * B[b, t, g, n] for n in range(size)]
                    y.append(sum(S[n] * C[b, t, g, n] for n in range(size)))
                last.append(torch.stack(S))
    y = torch.stack(y).view(batch, heads, width, length).permute(0, 3, 1, 2)
    return y, torch.stack(last).view(batch, heads, width, size)


@pytest.fixture(params=[1, 3, 4, 64], ids="chunks of {}".format)
def chunk(request, monkeypatch):
    """Two of the shortest at a time, and as many as there are of others."""
    monkeypatch.setattr(chunked, "CHUNK", request.param)
    if request.param == 1:
        monkeypatch.setattr(chunked, "ELEMENTS", 2 * 2 * 4 * 3 * 5)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("length", [1, 4, 7])
def test_outputs_and_all_gradients_equal_the_loop(backend, groups, length, chunk):
    arguments = inputs(2, length, 4, 2, groups, 3)
    outputs, expected = ssd_scan(*arguments, backend=backend), loop(*arguments)
    for found, wanted in zip(outputs, expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-12)
    cotangents = [torch.randn_like(value) for value in expected]
    gradients = torch.autograd.grad(outputs, arguments, cotangents)
    wanted_gradients = torch.autograd.grad(expected, arguments, cotangents)
    for name, found, wanted in zip(NAMES, gradients, wanted_gradients, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-11, msg=lambda m, name=name: f"{name}: {m}")


@pytest.mark.parametrize("backend", BACKENDS)
def test_constant_parameters_give_the_transposed_scan(backend, chunk):
    """<grad, x> = <cotangent, y>: the backward is the exact transpose of a linear map."""
    x, dt, A, B, C, initial_state = inputs(2, 13, 4, 3, 2, 5)
    dt, A, B, C = (value.detach() for value in (dt, A, B, C))
    y, last = ssd_scan(x, dt, A, B, C, initial_state, backend=backend)
    cotangents = torch.randn_like(y), torch.randn_like(last)
    grad_x, grad_state = torch.autograd.grad((y, last), (x, initial_state), cotangents)
    left = (grad_x * x).sum() + (grad_state * initial_state).sum()
    right = (cotangents[0] * y).sum() + (cotangents[1] * last).sum()
    torch.testing.assert_close(left, right, rtol=1e-12, atol=1e-12)
    plain = ssd_scan(x, *(value.clone().requires_grad_() for value in (dt, A, B, C)), initial_state, backend=backend)
    torch.testing.assert_close(torch.autograd.grad(plain, (x, initial_state), cotangents), (grad_x, grad_state))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("constant", [True, False])
def test_the_skip_adds_its_multiple_of_the_input(constant, backend):
    """y + D x, and D grad_y at x; D has no gradient."""
    x, dt, A, B, C, initial_state = inputs(2, 7, 4, 3, 2, 5)
    if constant:
        dt, A, B, C = (value.detach() for value in (dt, A, B, C))
    D = torch.tensor([1.0, -2.0, 0.0, 0.5], dtype=torch.float64, requires_grad=True)
    plain, state = ssd_scan(x, dt, A, B, C, initial_state, backend=backend)
    y, last = ssd_scan(x, dt, A, B, C, initial_state, D, backend=backend)
    torch.testing.assert_close(y, plain + D[:, None] * x)
    torch.testing.assert_close(last, state)
    cotangent = torch.randn_like(y)
    gradient, of_skip = torch.autograd.grad(y, (x, D), cotangent, allow_unused=True)
    torch.testing.assert_close(gradient, torch.autograd.grad(plain, x, cotangent)[0] + D[:, None] * cotangent)
    assert of_skip is None


@pytest.mark.parametrize("fastest", [1e-3, 4.0, 200.0], ids=["hardly any decay", "some", "total"])
@pytest.mark.parametrize("length", [1, 63, 64, 65, 501])
def test_float32_is_as_exact_as_float32_can_be(length, fastest):
    arguments = inputs(2, length, 6, 8, 2, 16, torch.float32, seed=length, fastest=fastest)
    arguments = [arguments[0], *(value.detach() for value in arguments[1:5]), arguments[5]]
    exact = [value.detach().double() for value in arguments]
    exact[0].requires_grad_(), exact[5].requires_grad_()
    found, expected = ssd_scan(*arguments), ssd_scan(*exact, backend="reference")
    gradients = torch.autograd.grad(found[0].sum() + found[1].sum(), (arguments[0], arguments[5]))
    wanted = torch.autograd.grad(expected[0].sum() + expected[1].sum(), (exact[0], exact[5]))
    for one, other in zip((*found, *gradients), (*expected, *wanted), strict=True):
        assert (one.double() - other).norm() <= 2e-6 * other.norm()


def test_a_slow_decay_behind_a_fast_one_keeps_its_digits():
    """Decays so fast that their float32 sums lose what separates the slow ones after them."""
    x, dt, A, B, C, initial_state = (value.detach() for value in inputs(1, 64, 1, 4, 1, 4, torch.float32))
    dt[:, :32], dt[:, 32:] = 1e4, 1e-3
    A.fill_(-1.0)
    exact = [value.double() for value in (x, dt, A, B, C, initial_state)]
    y, expected = ssd_scan(x, dt, A, B, C, initial_state)[0], ssd_scan(*exact, backend="reference")[0]
    late = slice(33, None)
    assert (y[:, late].double() - expected[:, late]).norm() <= 2e-6 * expected[:, late].norm()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("cut", [1, 6, 12])
def test_states_hand_over_exactly(backend, cut, chunk):
    arguments = inputs(2, 13, 4, 3, 2, 4)
    x, dt, A, B, C, initial_state = arguments
    y, last = ssd_scan(*arguments, backend=backend)
    first, middle = ssd_scan(x[:, :cut], dt[:, :cut], A, B[:, :cut], C[:, :cut], initial_state, backend=backend)
    second, end = ssd_scan(x[:, cut:], dt[:, cut:], A, B[:, cut:], C[:, cut:], middle, backend=backend)
    torch.testing.assert_close(torch.cat([first, second], 1), y)
    torch.testing.assert_close(end, last)


def test_no_state_for_every_position_exists(monkeypatch):
    """The largest tensor of a forward and backward is the input's size, not L x H x P x N."""

    class Largest(TorchDispatchMode):
        elements = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            result = function(*args, **(kwargs or {}))
            for leaf in tree_leaves(result):
                if isinstance(leaf, torch.Tensor):
                    self.elements = max(self.elements, leaf.untyped_storage().nbytes() // leaf.element_size())
            return result

    monkeypatch.setattr(chunked, "ELEMENTS", 2**15)
    x, dt, A, B, C, initial_state = inputs(1, 640, 4, 16, 1, 32, torch.float32)
    dt, A, B, C = (value.detach() for value in (dt, A, B, C))
    with Largest() as largest:
        y, last = ssd_scan(x, dt, A, B, C, initial_state)
        torch.autograd.grad(y.sum() + last.sum(), (x, initial_state))
    assert largest.elements <= x.numel()


def test_without_an_initial_state_it_starts_from_zero():
    arguments = inputs(2, 5, 2, 3, 1, 4)
    found = ssd_scan(*arguments[:5])
    expected = ssd_scan(*arguments[:5], torch.zeros_like(arguments[5]))
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("backend", ["compiled", "cuda"])
def test_an_unknown_backend_is_an_error(backend):
    with pytest.raises(BackendError, match=rf"{backend}.*'chunked', 'reference'"):
        ssd_scan(*inputs(1, 2, 2, 2, 1, 2), backend=backend)
