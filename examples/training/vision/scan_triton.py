"""The selective scan of both directions for training on a GPU: one Triton kernel forward, one backward.

The package's own scan is made for explanations, where dt, A, B and C are constant. Here everything has a gradient and
images are short, so the backward runs the recurrence again and keeps its states, instead of keeping them from the
forward. Tests run it in Triton's interpreter. Symbols: 2 directions, B images, L positions, E channels, N states.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor


def scan_triton(u: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
    """The contract of ``fast_forward.scan_plain``."""
    return _Scan.apply(u, dt, A, B, C)


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(ctx, u: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
        arguments = [x.contiguous() for x in (u, dt, A, B, C)]
        y = torch.empty_like(arguments[0])
        channels, states = A.shape[1:]
        block = min(64, triton.next_power_of_2(channels))
        grid = (u.shape[0] * u.shape[1], triton.cdiv(channels, block))
        _forward[grid](*arguments, y, u.shape[1], u.shape[2], channels, states, block, num_warps=2)
        ctx.save_for_backward(*arguments)
        return y

    @staticmethod
    def backward(ctx, grad_y: Tensor) -> tuple[Tensor, ...]:
        u, dt, A, B, C = ctx.saved_tensors
        directions, batch, length, channels = u.shape
        grads = [torch.empty_like(x) for x in (u, dt)]
        grad_A = A.new_empty(directions, batch, *A.shape[1:])
        grads_BC = [torch.empty_like(x) for x in (B, C)]
        states = torch.empty(*u.shape, A.shape[2], dtype=torch.float32, device=u.device)
        _backward[(directions * batch,)](
            *(u, dt, A, B, C, grad_y.contiguous(), states),
            *(*grads, grad_A, *grads_BC),
            *(batch, length, channels, A.shape[2], triton.next_power_of_2(channels)),
            num_warps=8,
        )
        return *grads, grad_A.sum(1), *grads_BC


@triton.jit
def _forward(u, dt, A, B, C, y, batch, length, channels, N: tl.constexpr, BLOCK: tl.constexpr):
    """A program is one image in one direction and BLOCK channels; its states stay in registers."""
    row = tl.program_id(0).to(tl.int64)
    e = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    n = tl.arange(0, N)
    real = e < channels
    a = tl.load(A + ((row // batch) * channels + e[:, None]) * N + n[None, :], mask=real[:, None], other=0.0)
    h = tl.zeros((BLOCK, N), tl.float32)
    for t in range(length):
        at = (row * length + t) * channels + e
        at_n = (row * length + t) * N + n
        dt_t = tl.load(dt + at, mask=real, other=0.0).to(tl.float32)
        x_t = dt_t * tl.load(u + at, mask=real, other=0.0).to(tl.float32)
        h = h * tl.exp(dt_t[:, None] * a) + x_t[:, None] * tl.load(B + at_n).to(tl.float32)[None, :]
        y_t = tl.sum(h * tl.load(C + at_n).to(tl.float32)[None, :], 1)
        tl.store(y + at, y_t.to(y.dtype.element_ty), mask=real)


@triton.jit
def _backward(
    u,
    dt,
    A,
    B,
    C,
    grad_y,
    states,
    grad_u,
    grad_dt,
    grad_A,
    grad_B,
    grad_C,
    batch,
    length,
    channels,
    N: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """A program is one image in one direction with all channels, so sums over channels need no second kernel.

    With g_t = C_t grad_y_t + exp(dt_{t+1} A) g_{t+1}: grad_x_t = B_t g_t where x = dt u, grad_B_t = sum_e g_t x_t,
    grad_C_t = sum_e h_t grad_y_t, and the gradient of dt_t A is g_t exp(dt_t A) h_{t-1}.
    """
    row = tl.program_id(0).to(tl.int64)
    e = tl.arange(0, BLOCK)
    n = tl.arange(0, N)
    real = e < channels
    both = real[:, None] & (n[None, :] < N)
    a = tl.load(A + ((row // batch) * channels + e[:, None]) * N + n[None, :], mask=both, other=0.0)
    h = tl.zeros((BLOCK, N), tl.float32)
    for t in range(length):
        at = (row * length + t) * channels + e
        dt_t = tl.load(dt + at, mask=real, other=0.0).to(tl.float32)
        x_t = dt_t * tl.load(u + at, mask=real, other=0.0).to(tl.float32)
        B_t = tl.load(B + (row * length + t) * N + n).to(tl.float32)
        h = h * tl.exp(dt_t[:, None] * a) + x_t[:, None] * B_t[None, :]
        tl.store(states + at[:, None] * N + n[None, :], h, mask=both)
    tl.debug_barrier()  # another thread of the program may read a state than the one that wrote it

    carry = tl.zeros((BLOCK, N), tl.float32)
    sum_A = tl.zeros((BLOCK, N), tl.float32)
    for i in range(length):
        t = length - 1 - i
        at = (row * length + t) * channels + e
        at_n = (row * length + t) * N + n
        dt_t = tl.load(dt + at, mask=real, other=0.0).to(tl.float32)
        u_t = tl.load(u + at, mask=real, other=0.0).to(tl.float32)
        grad_t = tl.load(grad_y + at, mask=real, other=0.0).to(tl.float32)
        B_t = tl.load(B + at_n).to(tl.float32)
        C_t = tl.load(C + at_n).to(tl.float32)
        there = e[:, None] < tl.where(t > 0, channels, 0)  # both & (t > 0) is no mask in Triton's interpreter
        before = tl.load(states + (at - channels)[:, None] * N + n[None, :], mask=there, other=0.0)
        decay = tl.exp(dt_t[:, None] * a)
        g = carry + grad_t[:, None] * C_t[None, :]
        grad_x = tl.sum(g * B_t[None, :], 1)
        grad_exponent = g * decay * before
        grad_dt_t = grad_x * u_t + tl.sum(grad_exponent * a, 1)
        tl.store(grad_u + at, (grad_x * dt_t).to(grad_u.dtype.element_ty), mask=real)
        tl.store(grad_dt + at, grad_dt_t.to(grad_dt.dtype.element_ty), mask=real)
        tl.store(grad_B + at_n, tl.sum(g * (dt_t * u_t)[:, None], 0).to(grad_B.dtype.element_ty))
        tl.store(grad_C + at_n, tl.sum(h * grad_t[:, None], 0).to(grad_C.dtype.element_ty))
        sum_A += grad_exponent * dt_t[:, None]
        carry = g * decay
        h = before
    tl.store(grad_A + (row * channels + e[:, None]) * N + n[None, :], sum_A, mask=both)
