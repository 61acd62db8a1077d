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

SIZES = ["L", "chunk", *(f"{x}_b" for x in ("u", "delta", "z", "g"))]
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
def _rows(x, start, stride: tl.constexpr, exists, WHOLE: tl.constexpr, U: tl.constexpr):
    """Positions ``start`` to ``start + U`` of a matrix, as a tuple; 0 where columns do not exist, if not all do."""
    x += tl.cast(start, tl.int64) * stride
    rows = ()
    for i in tl.static_range(U):
        if WHOLE:
            rows += (tl.load(x + i * stride).to(tl.float32),)  # type: ignore[assignment]
        else:
            rows += (tl.load(x + i * stride, mask=exists, other=0.0).to(tl.float32),)  # type: ignore[assignment]
    return rows


@triton.jit
def _states(x, start, stride: tl.constexpr, N: tl.constexpr, NP: tl.constexpr, U: tl.constexpr):
    """The same of B or C, whose rows every lane holds whole.

    bfloat16 is the upper half of a float32: two numbers are loaded as one integer, and cost a shift and a mask, where
    each by itself takes two instructions to unpack.
    """
    x += tl.cast(start, tl.int64) * stride
    n = tl.arange(0, NP)
    rows = ()
    for i in tl.static_range(U):
        row = x + i * stride
        if x.dtype.element_ty == tl.bfloat16 and N == NP and N > 1:
            pairs = tl.load(row.to(tl.pointer_type(tl.int32)) + tl.arange(0, NP // 2))
            upper = (pairs & -65536).to(tl.float32, bitcast=True)
            rows += (tl.interleave((pairs << 16).to(tl.float32, bitcast=True), upper),)  # type: ignore[assignment]
        elif N == NP:
            rows += (tl.load(row + n).to(tl.float32),)  # type: ignore[assignment]
        else:
            rows += (tl.load(row + n, mask=n < N, other=0.0).to(tl.float32),)  # type: ignore[assignment]
    return rows


@triton.jit
def _store(x, value, exists, WHOLE: tl.constexpr):
    """Write a position, where its columns exist."""
    if WHOLE:
        tl.store(x, value)
    else:
        tl.store(x, value, mask=exists)


@triton.jit
def _place(E: tl.constexpr, N: tl.constexpr, NP: tl.constexpr, BE: tl.constexpr):
    """This program's row and channels, which of these and of the states exist, and the states' places in an (N, E)."""
    e, n = tl.program_id(0) * BE + tl.arange(0, BE), tl.arange(0, NP)
    row, states = tl.program_id(2).to(tl.int64), n[:, None] * E + e[None, :]
    return row, e, e < E, (n < N)[:, None] & (e < E)[None, :], states


@triton.jit
def _decay_rate(A_log, inside):
    """A log2(e) with A = -exp(A_log), so that exp(dt A) is exp2 of dt times it."""
    return tl.exp2(tl.load(A_log, mask=inside, other=0.0) * LOG2_E) * -LOG2_E


@triton.jit
def _after_chunk(state, decay_rate, ends, sums, chunk, row, E: tl.constexpr, e, has_e, states, inside, N: tl.constexpr):
    """exp(A sum_t dt_t) state + (end from zero)."""
    index = chunk * tl.num_programs(2) + row
    dt = tl.load(sums + index * E + e, mask=has_e, other=0.0)
    end = tl.load(ends + index * N * E + states, mask=inside, other=0.0)
    return tl.exp2(decay_rate * dt[None, :]) * state + end


@triton.jit
def _state_after(
    h, total, start, u, delta, B, decay_rate, shift, has_e,
    u_t: tl.constexpr, delta_t: tl.constexpr, B_t: tl.constexpr, EVEN: tl.constexpr, N: tl.constexpr, NP: tl.constexpr,
    U: tl.constexpr,
):  # fmt: skip
    """The state and the sum of step sizes after ``U`` more positions."""
    delta_rows = _rows(delta, start, delta_t, has_e, EVEN, U)
    u_rows = _rows(u, start, u_t, has_e, EVEN, U)
    B_rows = _states(B, start, B_t, N, NP, U)
    for i in tl.static_range(U):
        dt = _softplus(delta_rows[i] + shift)
        x = dt * u_rows[i]
        h = tl.exp2(decay_rate * dt[None, :]) * h + B_rows[i][:, None] * x[None, :]
        total += dt
    return h, total


@triton.jit(do_not_specialize=SIZES, do_not_specialize_on_alignment=STATES)
def _forward_ends(
    u, delta, A_log, B, bias, ends, sums, L, chunk,
    u_b, delta_b, B_b, u_t: tl.constexpr, delta_t: tl.constexpr, B_t: tl.constexpr,
    E: tl.constexpr, N: tl.constexpr, NP: tl.constexpr, BE: tl.constexpr, U: tl.constexpr,
):  # fmt: skip
    """End state of every chunk but the last, from zero, (K, B, N, E); sum of its step sizes (K, B, E)."""
    EVEN: tl.constexpr = E % BE == 0
    row, e, has_e, inside, states = _place(E, N, NP, BE)
    u, delta, B = u + row * u_b + e, delta + row * delta_b + e, B + row * B_b
    decay_rate = _decay_rate(A_log + states, inside)
    shift = tl.load(bias + e, mask=has_e, other=0.0).to(tl.float32)
    h, total = tl.zeros([NP, BE], tl.float32), tl.zeros([BE], tl.float32)
    first = tl.program_id(1) * chunk
    stop = tl.minimum(first + chunk, L)
    whole = stop - (stop - first) % U
    for start in range(first, whole, U):
        h, total = _state_after(
            h, total, start, u, delta, B, decay_rate, shift, has_e, u_t, delta_t, B_t, EVEN, N, NP, U
        )
    for start in range(whole, stop):
        h, total = _state_after(
            h, total, start, u, delta, B, decay_rate, shift, has_e, u_t, delta_t, B_t, EVEN, N, NP, 1
        )
    index = tl.program_id(1) * tl.num_programs(2) + row
    tl.store(ends + index * N * E + states, h, mask=inside)
    tl.store(sums + index * E + e, total, mask=has_e)


@triton.jit
def _outputs(
    h, start, u, delta, z, B, C, p, y, decay_rate, shift, skip, has_e,
    u_t: tl.constexpr, delta_t: tl.constexpr, z_t: tl.constexpr, B_t: tl.constexpr, C_t: tl.constexpr,
    E: tl.constexpr, EVEN: tl.constexpr, N: tl.constexpr, NP: tl.constexpr, U: tl.constexpr,
):  # fmt: skip
    """The state after ``U`` more positions, whose p and y are written."""
    delta_rows = _rows(delta, start, delta_t, has_e, EVEN, U)
    u_rows = _rows(u, start, u_t, has_e, EVEN, U)
    z_rows = _rows(z, start, z_t, has_e, EVEN, U)
    B_rows = _states(B, start, B_t, N, NP, U)
    C_rows = _states(C, start, C_t, N, NP, U)
    out = tl.cast(start, tl.int64) * E
    for i in tl.static_range(U):
        dt, gate, content = _softplus(delta_rows[i] + shift), z_rows[i], u_rows[i]
        x = dt * content
        h = tl.exp2(decay_rate * dt[None, :]) * h + B_rows[i][:, None] * x[None, :]
        output = tl.sum(C_rows[i][:, None] * h, 0) + skip * content
        _store(y + out + i * E, output, has_e, EVEN)
        _store(p + out + i * E, output * gate * sigmoid(gate), has_e, EVEN)
    return h


@triton.jit(do_not_specialize=SIZES, do_not_specialize_on_alignment=STATES)
def _forward(
    u, delta, z, A_log, B, C, D, bias, initial, ends, sums, p, y, last, L, chunk,
    u_b, delta_b, z_b, B_b, C_b,
    u_t: tl.constexpr, delta_t: tl.constexpr, z_t: tl.constexpr, B_t: tl.constexpr, C_t: tl.constexpr,
    E: tl.constexpr, N: tl.constexpr, NP: tl.constexpr, BE: tl.constexpr, U: tl.constexpr,
):  # fmt: skip
    """p and y (B, L, E), and from the last chunk the state after it (B, N, E)."""
    EVEN: tl.constexpr = E % BE == 0
    row, e, has_e, inside, states = _place(E, N, NP, BE)
    u, delta, z = u + row * u_b + e, delta + row * delta_b + e, z + row * z_b + e
    B, C, p, y = B + row * B_b, C + row * C_b, p + row * L * E + e, y + row * L * E + e
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
    whole = stop - (stop - first) % U
    for start in range(first, whole, U):
        h = _outputs(
            h, start, u, delta, z, B, C, p, y, decay_rate, shift, skip, has_e,
            u_t, delta_t, z_t, B_t, C_t, E, EVEN, N, NP, U,
        )  # fmt: skip
    for start in range(whole, stop):
        h = _outputs(
            h, start, u, delta, z, B, C, p, y, decay_rate, shift, skip, has_e,
            u_t, delta_t, z_t, B_t, C_t, E, EVEN, N, NP, 1,
        )  # fmt: skip
    if stop == L:
        tl.store(last + row * N * E + states, h, mask=inside)


@triton.jit
def _adjoint_before(
    G, total, start, g, delta, z, C, decay_rate, shift, has_e,
    g_t: tl.constexpr, delta_t: tl.constexpr, z_t: tl.constexpr, C_t: tl.constexpr, EVEN: tl.constexpr,
    N: tl.constexpr, NP: tl.constexpr, U: tl.constexpr,
):  # fmt: skip
    """The adjoint of the state, and the sum of step sizes, ``U`` positions earlier."""
    g_rows = _rows(g, start, g_t, has_e, EVEN, U)
    delta_rows = _rows(delta, start, delta_t, has_e, EVEN, U)
    z_rows = _rows(z, start, z_t, has_e, EVEN, U)
    C_rows = _states(C, start, C_t, N, NP, U)
    for i in tl.static_range(U - 1, -1, -1):
        dt, gate = _softplus(delta_rows[i] + shift), z_rows[i]
        gy = g_rows[i] * 0.5 * gate * sigmoid(gate)
        G = tl.exp2(decay_rate * dt[None, :]) * (G + C_rows[i][:, None] * gy[None, :])
        total += dt
    return G, total


@triton.jit(do_not_specialize=SIZES, do_not_specialize_on_alignment=STATES)
def _backward_ends(
    g, delta, z, A_log, C, bias, ends, sums, L, chunk,
    g_b, delta_b, z_b, C_b, g_t: tl.constexpr, delta_t: tl.constexpr, z_t: tl.constexpr, C_t: tl.constexpr,
    E: tl.constexpr, N: tl.constexpr, NP: tl.constexpr, BE: tl.constexpr, U: tl.constexpr,
):  # fmt: skip
    """Adjoint of the state before every chunk but the first, from zero after it (K, B, N, E), and its sum of dt."""
    EVEN: tl.constexpr = E % BE == 0
    row, e, has_e, inside, states = _place(E, N, NP, BE)
    g, delta, z, C = g + row * g_b + e, delta + row * delta_b + e, z + row * z_b + e, C + row * C_b
    decay_rate = _decay_rate(A_log + states, inside)
    shift = tl.load(bias + e, mask=has_e, other=0.0).to(tl.float32)
    G, total = tl.zeros([NP, BE], tl.float32), tl.zeros([BE], tl.float32)
    chunk_index = tl.program_id(1) + 1
    first = chunk_index * chunk
    stop = tl.minimum(first + chunk, L)
    whole = stop - (stop - first) % U
    for done in range(0, stop - whole):
        G, total = _adjoint_before(
            G, total, stop - 1 - done, g, delta, z, C, decay_rate, shift, has_e,
            g_t, delta_t, z_t, C_t, EVEN, N, NP, 1,
        )  # fmt: skip
    for done in range(U, whole - first + U, U):
        G, total = _adjoint_before(
            G, total, whole - done, g, delta, z, C, decay_rate, shift, has_e,
            g_t, delta_t, z_t, C_t, EVEN, N, NP, U,
        )  # fmt: skip
    index = chunk_index * tl.num_programs(2) + row
    tl.store(ends + index * N * E + states, G, mask=inside)
    tl.store(sums + index * E + e, total, mask=has_e)


@triton.jit
def _gradients(
    G, start, g, delta, z, y, B, C, gu, gz, decay_rate, shift, skip, has_e,
    g_t: tl.constexpr, delta_t: tl.constexpr, z_t: tl.constexpr, B_t: tl.constexpr, C_t: tl.constexpr,
    E: tl.constexpr, EVEN: tl.constexpr, N: tl.constexpr, NP: tl.constexpr, U: tl.constexpr,
):  # fmt: skip
    """The adjoint of the state ``U`` positions earlier; their gu and gz are written."""
    g_rows = _rows(g, start, g_t, has_e, EVEN, U)
    delta_rows = _rows(delta, start, delta_t, has_e, EVEN, U)
    z_rows = _rows(z, start, z_t, has_e, EVEN, U)
    y_rows = _rows(y, start, E, has_e, EVEN, U)
    B_rows = _states(B, start, B_t, N, NP, U)
    C_rows = _states(C, start, C_t, N, NP, U)
    out = tl.cast(start, tl.int64) * E
    for i in tl.static_range(U - 1, -1, -1):
        dt, gate = _softplus(delta_rows[i] + shift), z_rows[i]
        half = g_rows[i] * 0.5 * sigmoid(gate)
        gy = half * gate
        q = G + C_rows[i][:, None] * gy[None, :]
        gx = tl.sum(B_rows[i][:, None] * q, 0)
        G = tl.exp2(decay_rate * dt[None, :]) * q
        _store(gu + out + i * E, dt * gx + skip * gy, has_e, EVEN)
        _store(gz + out + i * E, half * y_rows[i], has_e, EVEN)
    return G


@triton.jit(do_not_specialize=SIZES, do_not_specialize_on_alignment=STATES)
def _backward(
    g, delta, z, y, A_log, B, C, D, bias, G_last, ends, sums, gu, gz, G_initial, L, chunk,
    g_b, delta_b, z_b, B_b, C_b,
    g_t: tl.constexpr, delta_t: tl.constexpr, z_t: tl.constexpr, B_t: tl.constexpr, C_t: tl.constexpr,
    E: tl.constexpr, N: tl.constexpr, NP: tl.constexpr, BE: tl.constexpr, U: tl.constexpr,
):  # fmt: skip
    """gu and gz (B, L, E), and from the first chunk the adjoint of the state before it (B, N, E)."""
    EVEN: tl.constexpr = E % BE == 0
    row, e, has_e, inside, states = _place(E, N, NP, BE)
    g, delta, z = g + row * g_b + e, delta + row * delta_b + e, z + row * z_b + e
    B, C, of_row = B + row * B_b, C + row * C_b, row * L * E + e
    y, gu, gz = y + of_row, gu + of_row, gz + of_row
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
    whole = stop - (stop - first) % U
    for done in range(0, stop - whole):
        G = _gradients(
            G, stop - 1 - done, g, delta, z, y, B, C, gu, gz, decay_rate, shift, skip, has_e,
            g_t, delta_t, z_t, B_t, C_t, E, EVEN, N, NP, 1,
        )  # fmt: skip
    for done in range(U, whole - first + U, U):
        G = _gradients(
            G, whole - done, g, delta, z, y, B, C, gu, gz, decay_rate, shift, skip, has_e,
            g_t, delta_t, z_t, B_t, C_t, E, EVEN, N, NP, U,
        )  # fmt: skip
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
        sizes = {"E": channels, "N": state_size, "NP": padded, "BE": block, "U": config.unroll}
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


def _in_pairs(value: Tensor) -> Tensor:
    """B or C such that two numbers of half precision are one aligned integer: as it is wherever it can be."""
    aligned = value.data_ptr() % 4 == 0 and not any(stride % 2 for stride in value.stride()[:2])
    return value if aligned or value.dtype != torch.bfloat16 else value.clone(memory_format=torch.contiguous_format)


def _strides(*values: Tensor) -> list[int]:
    """Strides of rows, then of positions."""
    return [value.stride(dimension) for dimension in (0, 1) for value in values]


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
    logs, B, C = _channels_last(A_log), _in_pairs(B), _in_pairs(C)
    p, y = (torch.empty(u.shape, dtype=u.dtype, device=u.device) for _ in range(2))
    last = torch.empty(batch, A_log.shape[1], channels, dtype=torch.float32, device=u.device)
    initial = None if initial_state is None else _channels_last(initial_state)
    ends = sums = None
    blocks, chunks, _ = plan.grid
    with torch.cuda.device_of(u):
        if chunks > 1:
            ends, sums = plan.ends(A_log, batch)
            _forward_ends[(blocks, chunks - 1, batch)](
                u, delta, logs, B, bias, ends, sums, length, plan.chunk,
                *_strides(u, delta, B), **plan.sizes, num_warps=1,
            )  # fmt: skip
        _forward[plan.grid](
            u, delta, z, logs, B, C, D, bias, initial, ends, sums, p, y, last, length, plan.chunk,
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
    logs, B, C = _channels_last(A_log), _in_pairs(B), _in_pairs(C)
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
                g, delta, z, logs, C, bias, ends, sums, length, plan.chunk,
                *_strides(g, delta, z, C), **plan.sizes, num_warps=1,
            )  # fmt: skip
        _backward[plan.grid](
            g, delta, z, y, logs, B, C, D, bias, after, ends, sums, gu, gz, G_initial, length, plan.chunk,
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
