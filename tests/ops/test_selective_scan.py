"""The selective scan and all its adjoints against a float64 loop, at odd lengths, split anywhere, in bounded memory."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from hf_mambalrp.errors import BackendError
from hf_mambalrp.ops.selective_scan import chunked, selective_scan
from hf_mambalrp.ops.selective_scan.dispatch import WORTH_COMPILING

EVERY_GRADIENT = ["reference", "chunked"]
"""Backends that differentiate every argument; "compiled" holds dt, A, B and C constant."""
NAMES = ("u", "dt", "A", "B", "C", "initial_state")


def inputs(batch, length, channels, state, dtype=torch.float64, seed=0):
    g = torch.Generator().manual_seed(seed)
    values = (
        torch.randn(batch, length, channels, generator=g, dtype=torch.float64),
        torch.rand(batch, length, channels, generator=g, dtype=torch.float64),
        -4 * torch.rand(channels, state, generator=g, dtype=torch.float64),
        torch.randn(batch, length, state, generator=g, dtype=torch.float64),
        torch.randn(batch, length, state, generator=g, dtype=torch.float64),
        torch.randn(batch, channels, state, generator=g, dtype=torch.float64),
    )
    return [value.to(dtype).requires_grad_() for value in values]


def loop(u, dt, A, B, C, initial_state):
    """Every element by the formula: h[n] = exp(dt A[n]) h[n] + dt B[n] u, y = sum_n C[n] h[n]."""
    batch, length, channels = u.shape
    state = [[[initial_state[b, e, n] for n in range(A.shape[1])] for e in range(channels)] for b in range(batch)]
    y = torch.zeros(batch, length, channels, dtype=u.dtype)
    for b in range(batch):
        for t in range(length):
            for e in range(channels):
                for n in range(A.shape[1]):
                    decay = torch.exp(dt[b, t, e] * A[e, n])
                    state[b][e][n] = decay * state[b][e][n] + dt[b, t, e] * B[b, t, n] * u[b, t, e]
                    y[b, t, e] = y[b, t, e] + C[b, t, n] * state[b][e][n]
    return y, torch.stack([torch.stack([torch.stack(row) for row in rows]) for rows in state])


@pytest.fixture(params=[1, 40, 2**19], ids=["chunks of 4", "chunks of 4 or more", "one chunk"])
def buffer(request, monkeypatch):
    monkeypatch.setattr(chunked, "BUFFER_ELEMENTS", request.param)


@pytest.mark.parametrize("backend", EVERY_GRADIENT)
@pytest.mark.parametrize("length", [1, 2, 5, 8, 11])
def test_outputs_and_all_gradients_equal_the_loop(backend, length, buffer):
    arguments = inputs(2, length, 3, 2)
    outputs = selective_scan(*arguments, backend=backend)
    expected = loop(*arguments)
    cotangents = [torch.randn_like(value) for value in expected]
    for found, wanted in zip(outputs, expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-12)
    gradients = torch.autograd.grad(outputs, arguments, cotangents)
    wanted_gradients = torch.autograd.grad(expected, arguments, cotangents)
    for name, found, wanted in zip(NAMES, gradients, wanted_gradients, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-11, msg=lambda m, name=name: f"{name}: {m}")


@pytest.mark.parametrize("length", [1, 3, 63, 64, 65, 501])
def test_chunked_equals_reference_in_float32(length):
    arguments = inputs(3, length, 16, 8, torch.float32, seed=length)
    exact = [value.detach().double().requires_grad_() for value in arguments]
    found, expected = selective_scan(*arguments), selective_scan(*exact, backend="reference")
    gradients = torch.autograd.grad(found[0].sum() + found[1].sum(), arguments)
    wanted = torch.autograd.grad(expected[0].sum() + expected[1].sum(), exact)
    for one, other in zip((*found, *gradients), (*expected, *wanted), strict=True):
        assert (one.double() - other).norm() <= 1e-5 * other.norm()


@pytest.mark.parametrize("backend", EVERY_GRADIENT)
def test_constant_parameters_give_the_transposed_scan(backend):
    """<grad, u> = <cotangent, y>: the backward is the exact transpose of a linear map."""
    u, dt, A, B, C, initial_state = inputs(2, 37, 5, 4)
    dt, A, B, C = (value.detach() for value in (dt, A, B, C))
    y, last = selective_scan(u, dt, A, B, C, initial_state, backend=backend)
    cotangent_y, cotangent_last = torch.randn_like(y), torch.randn_like(last)
    grad_u, grad_state = torch.autograd.grad((y, last), (u, initial_state), (cotangent_y, cotangent_last))
    left = (grad_u * u).sum() + (grad_state * initial_state).sum()
    right = (cotangent_y * y).sum() + (cotangent_last * last).sum()
    torch.testing.assert_close(left, right, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("backend", EVERY_GRADIENT)
@pytest.mark.parametrize("cut", [1, 6, 12])
def test_states_hand_over_exactly(backend, cut):
    arguments = inputs(2, 13, 3, 4)
    u, dt, A, B, C, initial_state = arguments
    y, last = selective_scan(*arguments, backend=backend)
    first, middle = selective_scan(u[:, :cut], dt[:, :cut], A, B[:, :cut], C[:, :cut], initial_state, backend=backend)
    second, end = selective_scan(u[:, cut:], dt[:, cut:], A, B[:, cut:], C[:, cut:], middle, backend=backend)
    torch.testing.assert_close(torch.cat([first, second], 1), y)
    torch.testing.assert_close(end, last)
    cotangents = torch.randn_like(y), torch.randn_like(last)
    whole = torch.autograd.grad((y, last), arguments, cotangents)
    pieces = torch.autograd.grad((torch.cat([first, second], 1), end), arguments, cotangents)
    for found, wanted in zip(pieces, whole, strict=True):
        torch.testing.assert_close(found, wanted)


class TestCompiled:
    def constant(self, arguments):
        return [arguments[0], *(value.detach() for value in arguments[1:5]), arguments[5]]

    @pytest.mark.parametrize("shape", [(1, 1, 1, 1), (3, 501, 16, 8), (2, 64, 300, 16), (1, 33, 520, 4)])
    @pytest.mark.parametrize("threads", [1, 2, 5])
    def test_it_equals_the_reference(self, shape, threads):
        arguments = self.constant(inputs(*shape, torch.float32, seed=sum(shape)))
        exact = self.constant([value.detach().double().requires_grad_() for value in arguments])
        torch.set_num_threads(threads)
        found, expected = selective_scan(*arguments, backend="compiled"), selective_scan(*exact, backend="reference")
        # An exponential's relative rounding is that of its exponent: float32 keeps exp(x) to |x| roundings.
        largest = max(1.0, float((exact[1][..., None] * exact[2]).abs().max()))
        cotangents = [torch.randn_like(value) for value in expected]
        gradients = torch.autograd.grad(found, [arguments[0], arguments[5]], [c.float() for c in cotangents])
        wanted = torch.autograd.grad(expected, [exact[0], exact[5]], cotangents)
        for one, other in zip((*found, *gradients), (*expected, *wanted), strict=True):
            assert (one.double() - other).norm() <= 1e-6 * largest * other.norm()

    @pytest.mark.parametrize(
        ("name", "exactly", "bound"), [("exp_of_negative", torch.exp, 3e-7), ("power_of_two", torch.exp2, 2e-7)]
    )
    def test_its_exponentials_from_zero_to_the_smallest_number(self, name, exactly, bound):
        from hf_mambalrp.ops import numba_common

        power = getattr(numba_common, name)
        x = -torch.cat([torch.zeros(1), torch.logspace(-8, 1.93, 5000), torch.linspace(0, 87, 5000)])
        found = torch.tensor([float(power(v)) for v in x.numpy()], dtype=torch.float64)
        exact = exactly(x.double())
        assert ((found - exact).abs() <= bound * exact).all()
        assert 0 <= power(torch.tensor(-1e30).numpy()[()]) < 2e-38

    def test_nan_and_infinity_come_through(self):
        for bad in (float("nan"), float("inf")):
            for index in (0, 1, 3, 4):
                arguments = [value.detach() for value in inputs(1, 6, 3, 2, torch.float32)]
                arguments[index][0, 2, 1] = bad
                finite, expected = (
                    selective_scan(*arguments, backend=backend)[0].isfinite() for backend in ("compiled", "reference")
                )
                assert torch.equal(finite, expected), (bad, index)

    def test_a_forked_process_has_threads_of_its_own(self):
        import multiprocessing

        arguments = [value.detach() for value in inputs(2, 9, 600, 2, torch.float32)]
        torch.set_num_threads(3)
        expected = selective_scan(*arguments, backend="compiled")[0]
        context = multiprocessing.get_context("fork")
        queue = context.SimpleQueue()
        process = context.Process(
            target=lambda: queue.put(selective_scan(*arguments, backend="compiled")[0].numpy().tobytes())
        )
        process.start()
        process.join(60)
        assert process.exitcode == 0
        assert queue.get() == expected.numpy().tobytes()

    def test_it_declines_what_it_cannot_do_and_says_what_can(self):
        arguments = inputs(1, 4, 3, 2, torch.float32)
        with pytest.raises(BackendError, match=r"'compiled'.*constant.*'chunked'"):
            selective_scan(*arguments, backend="compiled")
        with pytest.raises(BackendError, match=r"float64.*'chunked'"):
            selective_scan(*self.constant(inputs(1, 4, 3, 2)), backend="compiled")

    def test_without_numba_auto_does_without_and_an_explicit_choice_says_so(self, monkeypatch):
        from hf_mambalrp.ops import backend
        from hf_mambalrp.ops.selective_scan import dispatch

        arguments = self.constant(inputs(1, 4, 3, 2, torch.float32))
        monkeypatch.setattr(backend, "find_spec", lambda name: None)
        monkeypatch.setattr(dispatch, "WORTH_COMPILING", 0)
        with pytest.raises(BackendError, match="pip install numba"):
            selective_scan(*arguments, backend="compiled")
        expected = selective_scan(*arguments, backend="chunked")
        assert torch.equal(selective_scan(*arguments)[0], expected[0])

    def test_auto_takes_it_for_large_inputs(self, monkeypatch):
        from hf_mambalrp.ops.selective_scan import compiled

        calls = []
        monkeypatch.setattr(compiled, "selective_scan_compiled", lambda *a: calls.append(len(a)) or (a[0], a[5]))
        small, large = (
            self.constant(inputs(1, length, 64, 16, torch.float32)) for length in (8, WORTH_COMPILING // (64 * 16))
        )
        selective_scan(*small)
        assert not calls
        selective_scan(*large)
        assert calls == [6]


def test_no_initial_state_is_zero():
    u, dt, A, B, C, _ = inputs(1, 5, 3, 2)
    found = selective_scan(u, dt, A, B, C)
    expected = selective_scan(u, dt, A, B, C, torch.zeros(1, 3, 2, dtype=u.dtype))
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


def test_uninitialised_buffers_do_not_leak(monkeypatch):
    """Every ``empty`` filled with NaN: what is not written would show."""
    arguments = inputs(2, 11, 3, 2)
    expected = selective_scan(*arguments)
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", True)
    torch.use_deterministic_algorithms(True)
    try:
        assert torch.empty(3).isnan().all()
        found = selective_scan(*arguments)
        gradients = torch.autograd.grad(found[0].sum() + found[1].sum(), arguments)
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
    assert all(gradient.isfinite().all() for gradient in gradients)


class LargestTensor(TorchDispatchMode):
    """Records the largest tensor that any operation returns."""

    elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for value in tree_leaves(result):
            if isinstance(value, torch.Tensor):
                self.elements = max(self.elements, value.numel())
        return result


@pytest.mark.parametrize("constant", [True, False])
def test_no_tensor_of_the_size_of_all_states(constant, monkeypatch):
    monkeypatch.setattr(chunked, "BUFFER_ELEMENTS", 2**12)
    batch, length, channels, state = 1, 640, 16, 32
    arguments = inputs(batch, length, channels, state, torch.float32)
    if constant:
        arguments[1:5] = [value.detach() for value in arguments[1:5]]
    with LargestTensor() as largest:
        y, last = selective_scan(*arguments)
        torch.autograd.grad(y.sum() + last.sum(), [value for value in arguments if value.requires_grad])
    everything = batch * length * channels * state
    assert largest.elements <= everything / (16 if constant else 8)


def test_an_unknown_backend_names_the_known_ones():
    with pytest.raises(BackendError, match=r"'fast'.*chunked.*compiled.*reference"):
        selective_scan(*inputs(1, 2, 3, 2), backend="fast")
