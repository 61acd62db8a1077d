"""Softmax attention o = A v, A = softmax(s q k^T): which of its factors are constant, and what the softmax absorbs.

- "cp": o = [A] v, the bracket constant (the AH rule of Ali et al. 2022). It conserves.
- "attnlrp" (Achtibat et al. 2024, propositions 3.1 and 3.3): the products A v and q k^T give each factor half, the
  softmax is linearised: with logits x, R_i = x_i (R_i^A - A_i sum_j R_j^A), its plain gradient. In all v gets 1/2 of
  its gradient, q and k 1/4. The softmax absorbs sum R^A - sum R = o . g / 2 - (q . g_q + k . g_k) / 4 of the plain
  gradients g, g_q and g_k.
- none: the plain gradient.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from hf_mambalrp.rules import Rules
from hf_mambalrp.rules.biases import BiasLedger

Mixed = Callable[..., Tensor]
"""o (B, Lq, H, P) of q, k, v, and k and v of the positions before, if there are any."""

SHARES = (0.25, 0.25, 0.5, 0.25, 0.5)
"""Of the plain gradients of q, k, v, and of k and v of the positions before, under "attnlrp"."""


class _AttnLRP(torch.autograd.Function):
    """Computes o again in the backward, so that only its arguments are kept."""

    @staticmethod
    def forward(ctx: Any, mixed: Mixed, absorbed: Tensor, *arguments: Tensor) -> Tensor:
        ctx.mixed = mixed
        ctx.save_for_backward(*arguments)
        return mixed(*arguments)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        arguments = [tensor.detach().requires_grad_() for tensor in ctx.saved_tensors]
        with torch.enable_grad():
            o = ctx.mixed(*arguments)
        # Of positions before, a window may leave none to read.
        plain = torch.autograd.grad(o, arguments, grad, allow_unused=True, materialize_grads=True)
        found = [share * gradient for share, gradient in zip(SHARES, plain, strict=False)]
        absorbed = _per_row(o, grad) / 2
        for x, gradient, share in zip(arguments, found, SHARES, strict=False):
            if share == 0.25:  # of q and k
                absorbed = absorbed - _per_row(x, gradient)
        return None, absorbed, *found


def attend(mixed: Mixed, arguments: tuple[Tensor, ...], rules: Rules, ledger: BiasLedger) -> Tensor:
    """o under the rules; what a softmax absorbs is recorded. ``arguments`` are those of :data:`Mixed`."""
    if rules.attention == "attnlrp" and torch.is_grad_enabled():
        o: Tensor = _AttnLRP.apply(mixed, ledger.enter_softmax(arguments[0]), *arguments)
        return o
    if rules.attention == "cp":
        arguments = tuple(x if share == 0.5 else x.detach() for x, share in zip(arguments, SHARES, strict=False))
    return mixed(*arguments)


def _per_row(x: Tensor, gradient: Tensor) -> Tensor:
    """x . gradient of every row, in float32 at least. Shape: (B, ...) -> (B, 1, 1)."""
    wide = torch.promote_types(x.dtype, torch.float32)
    return (x.detach().to(wide) * gradient).flatten(1).sum(1)[:, None, None]
