"""The gated scan that numba compiles against the float64 loop of :mod:`test_gated_scan`."""

import pytest
import torch
from test_gated_scan import MAMBALRP, assert_close, cotangents, gated_scan, inputs, loop, run

from hf_mambalrp.errors import BackendError
from hf_mambalrp.ops.gated_scan import compiled, dispatch
from hf_mambalrp.ops.numba_common import sigmoid, softplus
from hf_mambalrp.rules import LRP_LN, NO_RULES


def gated_scan_compiled(u, delta, *rest, rules=MAMBALRP):
    return gated_scan(u, delta.clone, *rest, rules=rules, backend="compiled")


def given(*shape):
    """Arguments and cotangents on the CPU."""
    arguments = [value.cpu() for value in inputs(*shape)]
    return arguments, *cotangents(arguments)


def check(arguments, g, G_last):
    found, expected = run(gated_scan_compiled, arguments, g, G_last), loop(*arguments, g, G_last)
    assert [value.dtype for value in found] == [torch.float32] * 5
    assert_close(found, expected, torch.float32)


# Batch, length, channels, states: one position, more positions than between two looks for small states, ragged blocks.
@pytest.mark.parametrize("shape", [(1, 1, 3, 2), (2, 35, 5, 3), (1, 3, 150, 2), (1, 2, 3, 20), (3, 4, 70, 1)])
@pytest.mark.parametrize("kept", [True, False])
def test_outputs_and_gradients_equal_the_loop(shape, kept, monkeypatch):
    monkeypatch.setattr(compiled, "SMALL", 10**9 if kept else 0)
    check(*given(*shape))


def test_several_threads(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    check(*given(2, 5, 300, 2))


def test_step_sizes_from_nothing_to_thirty():
    """Softplus at its ends, states kept whole and states forgotten at once."""
    arguments, g, G_last = given(1, 6, 6, 2)
    arguments[7].zero_()
    arguments[1].copy_(torch.tensor([-80.0, -20, -8, 0.5, 20, 30]).expand(6, 6) + 0.1 * arguments[1])
    arguments[3].add_(torch.tensor([1e-6, 50]).log())
    arguments[2][:, 0] = 80
    arguments[2][:, 1] = -80
    check(arguments, g, G_last)


def test_any_strides():
    arguments, g, G_last = given(2, 3, 3, 2)
    arguments[:3] = [value.transpose(1, 2).contiguous().transpose(1, 2) for value in arguments[:3]]
    check(arguments, g.transpose(1, 2).contiguous().transpose(1, 2), G_last)


def test_every_element_is_written(monkeypatch):
    arguments, g, G_last = given(2, 5, 5, 2)
    empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *sizes, **kwargs: empty(*sizes, **kwargs).fill_(torch.nan))
    check(arguments, g, G_last)


def test_states_hand_over_and_none_are_zero():
    arguments, g, _ = given(1, 5, 3, 2)
    u, delta, z, A_log, B, C, D, bias, initial = arguments
    initial.zero_()
    leaves = u, z = [value.requires_grad_() for value in (u, z)]
    first, middle = gated_scan_compiled(u[:, :3], delta[:, :3], z[:, :3], A_log, B[:, :3], C[:, :3], D, bias)
    second, last = gated_scan_compiled(u[:, 3:], delta[:, 3:], z[:, 3:], A_log, B[:, 3:], C[:, 3:], D, bias, middle)
    p = torch.cat([first, second], 1)
    found = p, last, *torch.autograd.grad(p, leaves, g)
    expected = loop(*(value.detach() for value in arguments), g, torch.zeros_like(initial))
    assert_close(found, expected[:4], torch.float32)


def test_without_a_graph_it_serves_all_rules():
    arguments, g, G_last = given(2, 5, 3, 2)
    with torch.no_grad():
        found = gated_scan_compiled(*arguments, rules=NO_RULES)
    assert_close(found, loop(*arguments, g, G_last)[:2], torch.float32)


def test_nan_and_infinity_come_through():
    for bad in (float("nan"), float("inf")):
        for index in (0, 1, 2, 4, 5):
            arguments, *_ = given(1, 6, 3, 2)
            arguments[index][0, 2, 1] = bad
            finite, expected = (
                gated_scan(
                    arguments[0], lambda given=arguments: given[1], *arguments[2:], rules=MAMBALRP, backend=name
                )[0].isfinite()
                for name in ("compiled", "reference")
            )
            assert torch.equal(finite, expected), (bad, index)


def test_it_declines_what_it_cannot_do_and_says_what_can():
    arguments, *_ = given(1, 4, 3, 2)
    with pytest.raises(BackendError, match=r"'compiled'.*method='mambalrp'.*'chunked'"):
        gated_scan_compiled(*arguments, rules=LRP_LN)
    with pytest.raises(BackendError, match=r"float64.*'chunked'"):
        gated_scan_compiled(*(value.double() for value in arguments))


def test_auto_takes_it_for_large_inputs(monkeypatch):
    arguments, *_ = given(1, 4, 3, 2)
    calls = []
    monkeypatch.setattr(compiled, "gated_scan_compiled", lambda *a: calls.append(len(a)) or (a[0], a[8]))
    for worth, rules, expected in ((25, MAMBALRP, []), (24, LRP_LN, []), (24, MAMBALRP, [10])):
        monkeypatch.setattr(dispatch, "WORTH_COMPILING", worth)
        gated_scan(arguments[0], lambda: arguments[1], *arguments[2:], rules=rules)
        assert calls == expected


def test_its_functions_in_all_of_float32s_range():
    sizes = torch.cat([torch.zeros(1), torch.logspace(-8, 1.9, 2000), torch.linspace(0, 80, 2000)])
    for x in (sizes, -sizes):
        exact = x.double()
        for function, expected in (
            (sigmoid, 1 / (1 + torch.exp(-exact))),
            (softplus, torch.log1p(torch.exp(-exact.abs())) + exact.clamp(min=0)),
        ):
            found = torch.tensor([float(function(value)) for value in x.numpy()], dtype=torch.float64)
            assert ((found - expected).abs() <= 1e-6 * expected).all()
