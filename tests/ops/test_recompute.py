"""Constants that are computed again in the backward: in place of being kept, in contexts within contexts, by thread."""

from threading import Thread

import torch

from hf_mambalrp.ops.recompute import computed_again


class Times(torch.autograd.Function):
    """x a b, for which a and b are kept."""

    @staticmethod
    def forward(ctx, x, a, b):
        ctx.save_for_backward(a, b)
        return x * a * b

    @staticmethod
    def backward(ctx, grad):
        a, b = ctx.saved_tensors
        return grad * a * b, None, None


def counted(made, name, value):
    return lambda: made.append(name) or value.clone()


def test_contexts_within_contexts():
    x, a, b, made = torch.ones(3, requires_grad=True), torch.arange(3.0), torch.full((3,), 5.0), []
    with computed_again(a, counted(made, "a", a)):
        with computed_again(b, counted(made, "b", b)):
            both = Times.apply(x, a, b)
        one = Times.apply(x, a, b)
    none = Times.apply(x, a, b)
    assert made == []
    for y, again in ((both, ["a", "b"]), (one, ["a"]), (none, [])):
        assert torch.autograd.grad(y.sum(), x)[0].tolist() == [0, 5, 10]
        assert made == again
        made.clear()


def test_what_is_computed_again_is_not_kept():
    """What is changed after the forward would be in the gradient, or refused, were it kept."""
    x, a, b = torch.ones(3, requires_grad=True), torch.arange(3.0), torch.full((3,), 5.0)
    with computed_again(a, lambda: torch.arange(3.0)):
        y = Times.apply(x, a, b)
    a.fill_(7)
    assert torch.autograd.grad(y.sum(), x)[0].tolist() == [0, 5, 10]


def test_another_thread_keeps_its_own():
    x, a, made = torch.ones(3, requires_grad=True), torch.arange(3.0), []
    with computed_again(a, counted(made, "a", a)):
        found = []
        thread = Thread(target=lambda: found.append(Times.apply(x, a, a)))
        thread.start()
        thread.join()
    assert torch.autograd.grad(found[0].sum(), x)[0].tolist() == [0, 1, 4]
    assert made == []
