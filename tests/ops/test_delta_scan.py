"""The gated delta rule and all its adjoints against a float64 loop, at every cut, with a decay a head or a channel."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from hf_mambalrp.errors import BackendError
from hf_mambalrp.ops.delta_scan import chunked, delta_scan

BACKENDS = ["reference", "chunked"]
NAMES = ("v", "q", "k", "log_decay", "beta", "initial_state")
PER = ["head", "channel"]
every_kind = pytest.mark.parametrize("per", PER)


def inputs(batch, length, heads, width, groups, state, per="head", dtype=torch.float64, seed=0, fastest=4.0, beta=1.0):
    """Keys of length 1, as models have them, beta from 0 to ``beta``."""
    g = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    def uniform(*shape):
        return torch.rand(*shape, generator=g, dtype=torch.float64)

    decays = (batch, length, heads) if per == "head" else (batch, length, heads, state)
    values = (
        normal(batch, length, heads, width),
        normal(batch, length, groups, state),
        torch.nn.functional.normalize(normal(batch, length, groups, state), dim=-1),
        -fastest * uniform(*decays),
        beta * uniform(batch, length, heads),
        normal(batch, heads, width, state),
    )
    return [value.to(dtype).requires_grad_() for value in values]


def loop(v, q, k, log_decay, beta, initial_state):
    """By the matrices of the formula: S <- S D (I - beta k k^T) + beta v k^T, o = S q."""
    batch, length, heads, _ = v.shape
    groups, size = k.shape[2:]
    outputs, last = [], []
    for b in range(batch):
        for h in range(heads):
            g, S, of_head = h * groups // heads, initial_state[b, h], []
            for t in range(length):
                D = torch.diag(torch.exp(log_decay[b, t, h]) * torch.ones(size, dtype=v.dtype))
                key, strength = k[b, t, g], beta[b, t, h]
                S = S @ D @ (torch.eye(size, dtype=v.dtype) - strength * torch.outer(key, key))
                S = S + strength * torch.outer(v[b, t, h], key)
                of_head.append(S @ q[b, t, g])
            outputs.append(torch.stack(of_head))
            last.append(S)
    o = torch.stack(outputs).unflatten(0, (batch, heads)).transpose(1, 2)
    return o, torch.stack(last).unflatten(0, (batch, heads))


def adjoint(v, q, k, log_decay, beta, grad_o, grad_last):
    """Backwards in time: L += do q^T, dv = beta L k, L <- L (I - beta k k^T) D."""
    batch, length, heads, _ = v.shape
    groups, size = k.shape[2:]
    grad_v, grad_state = torch.zeros_like(v), torch.zeros_like(grad_last)
    for b in range(batch):
        for h in range(heads):
            g, L = h * groups // heads, grad_last[b, h]
            for t in reversed(range(length)):
                key, strength = k[b, t, g], beta[b, t, h]
                L = L + torch.outer(grad_o[b, t, h], q[b, t, g])
                grad_v[b, t, h] = strength * (L @ key)
                D = torch.diag(torch.exp(log_decay[b, t, h]) * torch.ones(size, dtype=v.dtype))
                L = L @ (torch.eye(size, dtype=v.dtype) - strength * torch.outer(key, key)) @ D
            grad_state[b, h] = L
    return grad_v, grad_state


def with_constants(arguments):
    """Constant but for v and the initial state."""
    return [arguments[0], *(value.detach() for value in arguments[1:5]), arguments[5]]


@pytest.fixture(params=[1, 3, 4, 64], ids="chunks of {}".format)
def chunk(request, monkeypatch):
    monkeypatch.setattr(chunked, "CHUNK", request.param)


@pytest.mark.parametrize("backend", BACKENDS)
@every_kind
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("length", [1, 4, 7])
def test_outputs_and_all_gradients_equal_the_loop(backend, per, groups, length, chunk):
    arguments = inputs(2, length, 4, 2, groups, 3, per, beta=2.0)
    outputs, expected = delta_scan(*arguments, backend=backend), loop(*arguments)
    for found, wanted in zip(outputs, expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-12)
    cotangents = [torch.randn_like(value) for value in expected]
    gradients = torch.autograd.grad(outputs, arguments, cotangents)
    wanted_gradients = torch.autograd.grad(expected, arguments, cotangents)
    for name, found, wanted in zip(NAMES, gradients, wanted_gradients, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-11, msg=lambda m, name=name: f"{name}: {m}")


@pytest.mark.parametrize("backend", BACKENDS)
@every_kind
def test_constant_parameters_give_the_transposed_scan(backend, per, chunk):
    """The adjoint of the docstring, and <grad, (v, S)> = <cotangent, (o, S')>: the map is linear, homogeneous of 1."""
    v, q, k, log_decay, beta, initial_state = with_constants(inputs(2, 13, 4, 3, 2, 5, per, beta=2.0))
    o, last = delta_scan(v, q, k, log_decay, beta, initial_state, backend=backend)
    cotangents = torch.randn_like(o), torch.randn_like(last)
    grad_v, grad_state = torch.autograd.grad((o, last), (v, initial_state), cotangents)
    left = (grad_v * v).sum() + (grad_state * initial_state).sum()
    right = (cotangents[0] * o).sum() + (cotangents[1] * last).sum()
    torch.testing.assert_close(left, right, rtol=1e-12, atol=1e-12)
    expected = adjoint(v.detach(), q, k, log_decay, beta, *cotangents)
    torch.testing.assert_close((grad_v, grad_state), expected, rtol=1e-9, atol=1e-11)


@every_kind
@pytest.mark.parametrize("fastest", [1e-3, 4.0, 200.0], ids=["hardly any decay", "some", "total"])
@pytest.mark.parametrize("length", [1, 2, 31, 63, 64, 65, 129, 300])
def test_float32_is_as_exact_as_float32_can_be(length, fastest, per):
    arguments = with_constants(inputs(2, length, 6, 8, 2, 16, per, torch.float32, seed=length, fastest=fastest))
    exact = [value.detach().double() for value in arguments]
    exact[0].requires_grad_(), exact[5].requires_grad_()
    found, expected = delta_scan(*arguments), delta_scan(*exact, backend="reference")
    gradients = torch.autograd.grad(found[0].sum() + found[1].sum(), (arguments[0], arguments[5]))
    wanted = torch.autograd.grad(expected[0].sum() + expected[1].sum(), (exact[0], exact[5]))
    for one, other in zip((*found, *gradients), (*expected, *wanted), strict=True):
        assert (one.double() - other).norm() <= 3e-6 * other.norm()


@every_kind
def test_equal_keys_which_make_the_system_as_badly_conditioned_as_it_gets(per):
    arguments = with_constants(inputs(1, 64, 1, 4, 1, 8, per, torch.float32, fastest=1e-6, beta=1.0))
    arguments[2] = arguments[2][:, :1].expand_as(arguments[2])
    arguments[4] = torch.ones_like(arguments[4])
    found = delta_scan(*arguments)
    expected = delta_scan(*(value.detach().double() for value in arguments), backend="reference")
    for one, other in zip(found, expected, strict=True):
        assert (one.double() - other).norm() <= 1e-5 * other.norm()


def test_bfloat16_is_computed_in_float32():
    arguments = with_constants(inputs(2, 37, 4, 8, 2, 16, "head", torch.bfloat16))
    found = delta_scan(*arguments)
    assert (found[0].dtype, found[1].dtype) == (torch.bfloat16, torch.float32)
    expected = delta_scan(*(value.detach().double() for value in arguments), backend="reference")
    for one, other in zip(found, expected, strict=True):
        assert (one.double() - other).norm() <= 1e-2 * other.norm()


@every_kind
def test_a_slow_decay_behind_a_fast_one_keeps_its_digits(per):
    """Decays so fast that their float32 sums lose what separates the slow ones after them."""
    arguments = [value.detach() for value in inputs(1, 64, 1, 4, 1, 4, per, torch.float32)]
    arguments[3][:, :32], arguments[3][:, 32:] = -1e4, -1e-3
    exact = [value.double() for value in arguments]
    o, expected = delta_scan(*arguments)[0], delta_scan(*exact, backend="reference")[0]
    late = slice(33, None)
    assert (o[:, late].double() - expected[:, late]).norm() <= 2e-6 * expected[:, late].norm()


@pytest.mark.parametrize("backend", BACKENDS)
@every_kind
@pytest.mark.parametrize("cut", [1, 6, 12])
def test_states_hand_over_exactly(backend, per, cut, chunk):
    *arguments, initial_state = inputs(2, 13, 4, 3, 2, 4, per)
    o, last = delta_scan(*arguments, initial_state, backend=backend)
    first, middle = delta_scan(*(value[:, :cut] for value in arguments), initial_state, backend=backend)
    second, end = delta_scan(*(value[:, cut:] for value in arguments), middle, backend=backend)
    torch.testing.assert_close(torch.cat([first, second], 1), o)
    torch.testing.assert_close(end, last)


def test_no_memory_is_read_before_it_is_written(monkeypatch):
    empty = torch.empty
    arguments = with_constants(inputs(2, 70, 4, 3, 2, 5))
    expected = torch.autograd.grad(delta_scan(*arguments)[0].sum(), arguments[0])
    monkeypatch.setattr(torch, "empty", lambda *args, **named: empty(*args, **named).fill_(torch.nan))
    found = torch.autograd.grad(delta_scan(*arguments)[0].sum(), arguments[0])
    assert torch.equal(found[0], expected[0])


@every_kind
def test_no_state_for_every_position_exists(per):
    """The largest tensor of a forward and backward is the input's size, not L x H x P x N."""

    class Largest(TorchDispatchMode):
        elements = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            result = function(*args, **(kwargs or {}))
            for leaf in tree_leaves(result):
                if isinstance(leaf, torch.Tensor):
                    self.elements = max(self.elements, leaf.untyped_storage().nbytes() // leaf.element_size())
            return result

    arguments = with_constants(inputs(1, 1280, 4, 32, 1, 32, per, torch.float32))
    with Largest() as largest:
        o, last = delta_scan(*arguments)
        torch.autograd.grad(o.sum() + last.sum(), (arguments[0], arguments[5]))
    assert largest.elements <= arguments[0].numel()


def test_without_an_initial_state_it_starts_from_zero():
    arguments = inputs(2, 5, 2, 3, 1, 4)
    found = delta_scan(*arguments[:5])
    expected = delta_scan(*arguments[:5], torch.zeros_like(arguments[5]))
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("backend", ["compiled", "cuda"])
def test_an_unknown_backend_is_an_error(backend):
    with pytest.raises(BackendError, match=rf"{backend}.*'chunked', 'reference'"):
        delta_scan(*inputs(1, 2, 2, 2, 1, 2), backend=backend)
