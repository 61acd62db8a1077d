# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False, disallow-untyped-decorators=False
# mypy: disable-error-code="import-untyped, import-not-found"
"""The gated selective scan for a GPU, in Triton: step sizes, recurrence, skip and gate in one pass over the data.

A program is one warp with some channels of one row and a range of positions, a chunk. Their states stay in registers;
nothing of size (B, L, E, N) exists. With one chunk the recurrence runs through at once. With more, where the rows and
channels alone do not fill the GPU, a first launch leaves the end of every chunk as if it had started from zero:

    h_end = exp(A sum_t dt_t) h_start + (end from zero)

because the recurrence is linear, so every program of the second launch computes its own start. The backward is the
same, backwards in time, with B and C swapped; it needs y, which is kept: computing it again would be another forward.

States and A_log are held channels-last, (B, N, E) and (N, E), and states go in and out as transposed views. The
compiler spreads a warp over the contiguous dimension: so a channel's states share a thread, and sums over them need no
exchange. It must not see how these arrays are aligned, or it would load four channels at once and then shuffle all of
them every step.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from hf_mambalrp.ops.recompute import computed_again
from hf_mambalrp.ops.triton_common import LOG2_E, processors, sigmoid, with_unit_stride
from hf_mambalrp.rules import Rules

SIZES = ["L", "E", "chunk", *(f"{x}_{stride}" for x in ("u", "delta", "z", "g") for stride in "bt")]
"""Numbers of which the compiled code is independent: any of them runs without compiling again."""
STATES = ["A_log", "initial", "ends", "last", "G_last", "G_initial"]
"""(..., N, E): see above why their alignment is hidden."""


class Config(NamedTuple):
    """How a scan is cut into programs of one warp."""

    states: int = 16
    """States in a thread: a program has 32 ``states`` / N channels, at least one."""
    unroll: int = 2
    """Positions whose loads are in flight together."""
    warps: int = 12
    """Programs wanted on a multiprocessor: there are chunks until there are as many; 0 for one chunk."""
    shortest: int = 32
    """Positions in a chunk, at least."""


FORWARD, BACKWARD = Config(unroll=4, warps=12), Config(unroll=2, warps=16)
"""The fastest of those that examples/benchmarks/kernels_gated_scan.py timed on an H100."""


@triton.jit
def _softplus(x):
    """max(x, 0) + log1p(exp(-|x|)), log1p as a polynomial with a relative error below 3e-7; 0 at minus infinity."""
    w = tl.exp2(tl.abs(x) * -LOG2_E)
    p = 0.0051261018961668015 * w - 0.029074065387248993
    p = p * w + 0.0775160863995552
    p = p * w - 0.13602247834205627
    p = p * w + 0.19076880812644958
    p = p * w - 0.2483539879322052
    p = p * w + 0.3331812024116516
    p = p * w - 0.4999944567680359
    p = p * w + 0.9999999403953552
    return p * w + tl.maximum(x, 0.0)


@triton.jit
def _exists(position, stop, columns, width):
    """Mask of columns before ``width``, of none from ``stop`` on; & would make it integer in triton's interpreter."""
    return columns < tl.where(position < stop, width, 0)


@triton.jit
def _rows(x, start, stop, stride, columns, width, other, U: tl.constexpr):
    """Positions ``start`` to ``start + U`` of a matrix ``width`` wide, as a tuple; ``other`` outside."""
    x += tl.cast(start, tl.int64) * stride
    rows = ()
    for i in tl.static_range(U):
        rows += (tl.load(x + i * stride + columns, mask=_exists(start + i, stop, columns, width), other=other),)  # type: ignore[assignment]
    return rows


@triton.jit
def _place(E, N: tl.constexpr, NP: tl.constexpr, BE: tl.constexpr):
    """This program's row, channels and states, which of these exist, and the offsets of its states in an (N, E)."""
    e, n = tl.program_id(0) * BE + tl.arange(0, BE), tl.arange(0, NP)
    row, states = tl.program_id(2).to(tl.int64), n[:, None] * E + e[None, :]
    return row, e, n, e < E, (n < N)[:, None] & (e < E)[None, :], states


@triton.jit
def _decay_rate(A_log, inside):
    """A log2(e) with A = -exp(A_log), so that exp(dt A) is exp2 of dt times it."""
    return tl.exp2(tl.load(A_log, mask=inside, other=0.0) * LOG2_E) * -LOG2_E


@triton.jit
def _after_chunk(state, decay_rate, ends, sums, chunk, row, E, e, has_e, states, inside, N: tl.constexpr):
    """exp(A sum_t dt_t) state + (end from zero)."""
    index = chunk * tl.num_programs(2) + row
    dt = tl.load(sums + index * E + e, mask=has_e, other=0.0)
    end = tl.load(ends + index * N * E + states, mask=inside, other=0.0)
    return tl.exp2(decay_rate * dt[None, :]) * state + end


@triton.jit(do_not_specialize=SIZES, do_not_specialize_on_alignment=STATES)
def _forward_ends(
    u, delta, A_log, B, bias, ends, sums, L, E, chunk,
    u_b, u_t, delta_b, delta_t, B_b, B_t,
    N: tl.constexpr, NP: tl.constexpr, BE: tl.constexpr, U: tl.constexpr,
):  # fmt: skip
    """End state of every chunk but the last, from zero, (K, B, N, E); sum of its step sizes (K, B, E)."""
    row, e, n, has_e, inside, states = _place(E, N, NP, BE)
    u, delta, B = u + row * u_b, delta + row * delta_b, B + row * B_b
    decay_rate = _decay_rate(A_log + states, inside)
    shift = tl.load(bias + e, mask=has_e, other=0.0).to(tl.float32)
    h, total = tl.zeros([NP, BE], tl.float32), tl.zeros([BE], tl.float32)
    first = tl.program_id(1) * chunk
    stop = tl.minimum(first + chunk, L)
    for start in range(first, stop, U):
        delta_rows = _rows(delta, start, stop, delta_t, e, E, -float("inf"), U)
        u_rows = _rows(u, start, stop, u_t, e, E, 0.0, U)
        B_rows = _rows(B, start, stop, B_t, n, N, 0.0, U)
        for i in tl.static_range(U):
            dt = _softplus(delta_rows[i].to(tl.float32) + shift)  # 0 past the end: the state stays
            x = dt * u_rows[i].to(tl.float32)
            h = tl.exp2(decay_rate * dt[None, :]) * h + B_rows[i].to(tl.float32)[:, None] * x[None, :]
            total += dt
    index = tl.program_id(1) * tl.num_programs(2) + row
    tl.store(ends + index * N * E + states, h, mask=inside)
    tl.store(sums + index * E + e, total, mask=has_e)


@triton.jit(do_not_specialize=SIZES, do_not_specialize_on_alignment=STATES)
def _forward(
    u, delta, z, A_log, B, C, D, bias, initial, ends, sums, p, y, last, L, E, chunk,
    u_b, u_t, delta_b, delta_t, z_b, z_t, B_b, B_t, C_b, C_t,
    N: tl.constexpr, NP: tl.constexpr, BE: tl.constexpr, U: tl.constexpr,
):  # fmt: skip
    """p and y (B, L, E), and from the last chunk the state after it (B, N, E)."""
    row, e, n, has_e, inside, states = _place(E, N, NP, BE)
    u, delta, z, B, C = u + row * u_b, delta + row * delta_b, z + row * z_b, B + row * B_b, C + row * C_b
    p, y = p + row * L * E, y + row * L * E
    decay_rate = _decay_rate(A_log + states, inside)
    shift = tl.load(bias + e, mask=has_e, other=0.0).to(tl.float32)
    skip = tl.load(D + e, mask=has_e, other=0.0).to(tl.float32)
    h = tl.zeros([NP, BE], tl.float32)
    if initial is not None:
        h += tl.load(initial + row * N * E + states, mask=inside, other=0.0)
    if ends is not None:
        for earlier in tl.range(0, tl.program_id(1), loop_unroll_factor=4):
            h = _after_chunk(h, decay_rate, ends, sums, earlier, row, E, e, has_e, states, inside, N)
    first = tl.program_id(1) * chunk
    stop = tl.minimum(first + chunk, L)
    for start in range(first, stop, U):
        delta_rows = _rows(delta, start, stop, delta_t, e, E, -float("inf"), U)
        u_rows = _rows(u, start, stop, u_t, e, E, 0.0, U)
        z_rows = _rows(z, start, stop, z_t, e, E, 0.0, U)
        B_rows = _rows(B, start, stop, B_t, n, N, 0.0, U)
        C_rows = _rows(C, start, stop, C_t, n, N, 0.0, U)
        out = tl.cast(start, tl.int64) * E + e
        for i in tl.static_range(U):
            dt, gate = _softplus(delta_rows[i].to(tl.float32) + shift), z_rows[i].to(tl.float32)
            content = u_rows[i].to(tl.float32)
            x = dt * content
            h = tl.exp2(decay_rate * dt[None, :]) * h + B_rows[i].to(tl.float32)[:, None] * x[None, :]
            output = tl.sum(C_rows[i].to(tl.float32)[:, None] * h, 0) + skip * content
            exists = _exists(start + i, stop, e, E)
            tl.store(y + out + i * E, output, mask=exists)
            tl.store(p + out + i * E, output * gate * sigmoid(gate), mask=exists)
    if stop == L:
        tl.store(last + row * N * E + states, h, mask=inside)


@triton.jit(do_not_specialize=SIZES, do_not_specialize_on_alignment=STATES)
def _backward_ends(
    g, delta, z, A_log, C, bias, ends, sums, L, E, chunk,
    g_b, g_t, delta_b, delta_t, z_b, z_t, C_b, C_t,
    N: tl.constexpr, NP: tl.constexpr, BE: tl.constexpr, U: tl.constexpr,
):  # fmt: skip
    """Adjoint of the state before every chunk but the first, from zero after it (K, B, N, E), and its sum of dt."""
    row, e, n, has_e, inside, states = _place(E, N, NP, BE)
    g, delta, z, C = g + row * g_b, delta + row * delta_b, z + row * z_b, C + row * C_b
    decay_rate = _decay_rate(A_log + states, inside)
    shift = tl.load(bias + e, mask=has_e, other=0.0).to(tl.float32)
    G, total = tl.zeros([NP, BE], tl.float32), tl.zeros([BE], tl.float32)
    chunk_index = tl.program_id(1) + 1
    first = chunk_index * chunk
    stop = tl.minimum(first + chunk, L)
    for done in range(0, stop - first, U):
        start = first + (tl.cdiv(stop - first, U) - 1) * U - done
        g_rows = _rows(g, start, stop, g_t, e, E, 0.0, U)
        delta_rows = _rows(delta, start, stop, delta_t, e, E, -float("inf"), U)
        z_rows = _rows(z, start, stop, z_t, e, E, 0.0, U)
        C_rows = _rows(C, start, stop, C_t, n, N, 0.0, U)
        for i in tl.static_range(U - 1, -1, -1):
            dt, gate = _softplus(delta_rows[i].to(tl.float32) + shift), z_rows[i].to(tl.float32)
            gy = g_rows[i].to(tl.float32) * 0.5 * gate * sigmoid(gate)
            G = tl.exp2(decay_rate * dt[None, :]) * (G + C_rows[i].to(tl.float32)[:, None] * gy[None, :])
            total += dt
    index = chunk_index * tl.num_programs(2) + row
    tl.store(ends + index * N * E + states, G, mask=inside)
    tl.store(sums + index * E + e, total, mask=has_e)


@triton.jit(do_not_specialize=SIZES, do_not_specialize_on_alignment=STATES)
def _backward(
    g, delta, z, y, A_log, B, C, D, bias, G_last, ends, sums, gu, gz, G_initial, L, E, chunk,
    g_b, g_t, delta_b, delta_t, z_b, z_t, B_b, B_t, C_b, C_t,
    N: tl.constexpr, NP: tl.constexpr, BE: tl.constexpr, U: tl.constexpr,
):  # fmt: skip
    """gu and gz (B, L, E), and from the first chunk the adjoint of the state before it (B, N, E)."""
    row, e, n, has_e, inside, states = _place(E, N, NP, BE)
    g, delta, z, B, C = g + row * g_b, delta + row * delta_b, z + row * z_b, B + row * B_b, C + row * C_b
    y, gu, gz = y + row * L * E, gu + row * L * E, gz + row * L * E
    decay_rate = _decay_rate(A_log + states, inside)
    shift = tl.load(bias + e, mask=has_e, other=0.0).to(tl.float32)
    skip = tl.load(D + e, mask=has_e, other=0.0).to(tl.float32)
    G = tl.zeros([NP, BE], tl.float32)
    if G_last is not None:
        G += tl.load(G_last + row * N * E + states, mask=inside, other=0.0)
    chunks = tl.num_programs(1)
    if ends is not None:
        for later in tl.range(0, chunks - 1 - tl.program_id(1), loop_unroll_factor=4):
            G = _after_chunk(G, decay_rate, ends, sums, chunks - 1 - later, row, E, e, has_e, states, inside, N)
    first = tl.program_id(1) * chunk
    stop = tl.minimum(first + chunk, L)
    for done in range(0, stop - first, U):
        start = first + (tl.cdiv(stop - first, U) - 1) * U - done
        g_rows = _rows(g, start, stop, g_t, e, E, 0.0, U)
        delta_rows = _rows(delta, start, stop, delta_t, e, E, -float("inf"), U)
        z_rows = _rows(z, start, stop, z_t, e, E, 0.0, U)
        y_rows = _rows(y, start, stop, E, e, E, 0.0, U)
        B_rows = _rows(B, start, stop, B_t, n, N, 0.0, U)
        C_rows = _rows(C, start, stop, C_t, n, N, 0.0, U)
        out = tl.cast(start, tl.int64) * E + e
        for i in tl.static_range(U - 1, -1, -1):
            dt, gate = _softplus(delta_rows[i].to(tl.float32) + shift), z_rows[i].to(tl.float32)
            half = g_rows[i].to(tl.float32) * 0.5 * sigmoid(gate)
            gy = half * gate
            q = G + C_rows[i].to(tl.float32)[:, None] * gy[None, :]
            gx = tl.sum(B_rows[i].to(tl.float32)[:, None] * q, 0)
            G = tl.exp2(decay_rate * dt[None, :]) * q
            exists = _exists(start + i, stop, e, E)
            tl.store(gu + out + i * E, dt * gx + skip * gy, mask=exists)
            tl.store(gz + out + i * E, half * y_rows[i].to(tl.float32), mask=exists)
    if first == 0:
        tl.store(G_initial + row * N * E + states, G, mask=inside)


class _Plan(NamedTuple):
    """How many programs, and over what."""

    grid: tuple[int, int, int]
    """Blocks of channels, chunks, rows."""
    chunk: int
    """Positions in a chunk, a multiple of ``unroll``."""
    sizes: dict[str, int]
    """The kernels' constants."""

    @classmethod
    def of(cls, u: Tensor, state_size: int, config: Config) -> "_Plan":
        batch, length, channels = u.shape
        padded = triton.next_power_of_2(state_size)
        block = max(1, 32 * config.states // padded)
        blocks = triton.cdiv(channels, block)
        wanted = max(1, config.warps * processors(u.device) // (batch * blocks))
        chunk = max(config.shortest, triton.cdiv(length, wanted))
        chunk = triton.cdiv(chunk, config.unroll) * config.unroll
        sizes = {"N": state_size, "NP": padded, "BE": block, "U": config.unroll}
        return cls((blocks, triton.cdiv(length, chunk), batch), chunk, sizes)

    def ends(self, A_log: Tensor, batch: int) -> tuple[Tensor, Tensor]:
        """Buffers for the end states of chunks (K, B, N, E) and the sums of their step sizes (K, B, E), float32."""
        channels, state_size = A_log.shape
        chunks = self.grid[1]
        return (
            torch.empty(chunks, batch, state_size, channels, dtype=torch.float32, device=A_log.device),
            torch.empty(chunks, batch, channels, dtype=torch.float32, device=A_log.device),
        )


def _channels_last(state: Tensor) -> Tensor:
    """(..., E, N) -> (..., N, E), contiguous float32: no copy of what these functions returned, else one launch."""
    state = state.detach().transpose(-1, -2)
    return state if state.dtype == torch.float32 and state.is_contiguous() else _copied(state)


def _copied(state: Tensor) -> Tensor:
    return torch.empty(state.shape, dtype=torch.float32, device=state.device).copy_(state)


def _strides(*values: Tensor) -> list[int]:
    """Strides of rows and of positions."""
    return [stride for value in values for stride in value.stride()[:2]]


def gated_scan_forward(
    u: Tensor,
    delta: Tensor,
    z: Tensor,
    A_log: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    bias: Tensor,
    initial_state: Tensor | None = None,
    *,
    config: Config | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """p and y (B, L, E) in the dtype of ``u``, and the last state (B, E, N) in float32, without a graph."""
    batch, length, channels = u.shape
    plan = _Plan.of(u, A_log.shape[1], config or FORWARD)
    logs = _channels_last(A_log)
    p, y = (torch.empty(u.shape, dtype=u.dtype, device=u.device) for _ in range(2))
    last = torch.empty(batch, A_log.shape[1], channels, dtype=torch.float32, device=u.device)
    initial = None if initial_state is None else _channels_last(initial_state)
    ends = sums = None
    blocks, chunks, _ = plan.grid
    with torch.cuda.device_of(u):
        if chunks > 1:
            ends, sums = plan.ends(A_log, batch)
            _forward_ends[(blocks, chunks - 1, batch)](
                u, delta, logs, B, bias, ends, sums, length, channels, plan.chunk,
                *_strides(u, delta, B), **plan.sizes, num_warps=1,
            )  # fmt: skip
        _forward[plan.grid](
            u, delta, z, logs, B, C, D, bias, initial, ends, sums, p, y, last, length, channels, plan.chunk,
            *_strides(u, delta, z, B, C), **plan.sizes, num_warps=1,
        )  # fmt: skip
    return p, y, last.transpose(1, 2)


def gated_scan_backward(
    g: Tensor,
    G_last: Tensor | None,
    delta: Tensor,
    z: Tensor,
    y: Tensor,
    A_log: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    bias: Tensor,
    *,
    config: Config | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of u, z (B, L, E) and the initial state (B, E, N) from those of p and the last state."""
    batch, length, channels = z.shape
    plan = _Plan.of(z, A_log.shape[1], config or BACKWARD)
    logs = _channels_last(A_log)
    g = with_unit_stride(g)
    gu = torch.empty(g.shape, dtype=g.dtype, device=g.device)
    gz = torch.empty(z.shape, dtype=z.dtype, device=z.device)
    G_initial = torch.empty(batch, A_log.shape[1], channels, dtype=torch.float32, device=z.device)
    after = None if G_last is None else _channels_last(G_last)
    ends = sums = None
    blocks, chunks, _ = plan.grid
    with torch.cuda.device_of(z):
        if chunks > 1:
            ends, sums = plan.ends(A_log, batch)
            _backward_ends[(blocks, chunks - 1, batch)](
                g, delta, z, logs, C, bias, ends, sums, length, channels, plan.chunk,
                *_strides(g, delta, z, C), **plan.sizes, num_warps=1,
            )  # fmt: skip
        _backward[plan.grid](
            g, delta, z, y, logs, B, C, D, bias, after, ends, sums, gu, gz, G_initial, length, channels, plan.chunk,
            *_strides(g, delta, z, B, C), **plan.sizes, num_warps=1,
        )  # fmt: skip
    return gu, gz, G_initial.transpose(1, 2)


class _GatedScan(torch.autograd.Function):
    """A forward kernel, which is the first argument, and the transposed scan."""

    @staticmethod
    def forward(
        ctx: Any,
        kernel: Callable[..., tuple[Tensor, Tensor, Tensor]],
        u: Tensor,
        z: Tensor,
        initial_state: Tensor | None,
        delta: Tensor,
        *parameters: Tensor,
    ) -> tuple[Tensor, Tensor]:
        p, y, last = kernel(u, delta, z, *parameters, initial_state)
        ctx.save_for_backward(delta, z, y, *parameters)
        ctx.set_materialize_grads(False)
        return p, last

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor | None, G_last: Tensor | None) -> tuple[Tensor | None, ...]:
        delta, z, y, *parameters = ctx.saved_tensors
        g = torch.zeros_like(y) if g is None else g
        gu, gz, G_initial = gated_scan_backward(g, G_last, delta, z, y, *parameters)
        return None, gu, gz, G_initial if ctx.needs_input_grad[3] else None, *[None] * (1 + len(parameters))


def gated_scan_triton(
    u: Tensor,
    step_size: Callable[[], Tensor],
    z: Tensor,
    A_log: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    bias: Tensor,
    initial_state: Tensor | None,
    rules: Rules,
    *,
    kernel: Callable[..., tuple[Tensor, Tensor, Tensor]] = gated_scan_forward,
) -> tuple[Tensor, Tensor]:
    """Same contract as :func:`gated_scan_reference`; u, delta, z, B and C may be views whose last dimension is dense.

    MambaLRP's rules are built in: without a graph, where no rule counts, it serves all of them.
    y is kept for the backward, in the dtype of ``u``.
    Another forward ``kernel`` may take the place of :func:`gated_scan_forward`; the transposed scan is ours.
    """

    def dense() -> Tensor:
        with torch.no_grad():
            return with_unit_stride(step_size())

    u, z, B, C = map(with_unit_stride, (u, z, B, C))
    delta = dense()
    A_log = _channels_last(A_log).transpose(0, 1)  # once for forward and backward
    constants = (v.detach() for v in (A_log, B, C, D, bias))
    with computed_again(delta, dense):
        result: tuple[Tensor, Tensor] = _GatedScan.apply(kernel, u, z, initial_state, delta, *constants)
    return result
