# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False, disallow-untyped-decorators=False
# mypy: disable-error-code="import-untyped, import-not-found"
"""The kernels of the gated selective scan: step sizes, recurrence, skip and gate in one pass over the data.

A program has some channels of one row, 32 a warp for 16 states, and a range of positions, a chunk. Their states stay
in registers; nothing of size (B, L, E, N) exists. With one chunk the recurrence runs through at once. With more, where
the rows and channels alone do not fill the GPU, a first launch leaves the end of every chunk as if it had started from
zero:

    h_end = exp(A sum_t dt_t) h_start + (end from zero)

because the recurrence is linear, so every program of the second launch computes its own start. The backward is the
same, backwards in time, with B and C swapped; it needs y, which is kept: computing it again would be another forward.

States and A_log are held channels-last, (B, N, E) and (N, E). The compiler spreads a warp over the contiguous
dimension: so a channel's states share a thread, and sums over them need no exchange. It must not see how these arrays
are aligned, or it would load four channels at once and then shuffle all of them every step.

An H200 computes exponentials 60 % of the time that these kernels take, and starts instructions 50 % of it; the rest is
waiting for B and C. So the distance of two positions is a constant, which the loads have in them; ``U`` positions are
loaded at once, and the few at a chunk's end that do not fill such a block run one by one, without a mask anywhere.
"""

import triton
import triton.language as tl

from hf_mambalrp.ops.triton_common import LOG2_E, sigmoid

SIZES = ["L", "chunk", *(f"{x}_b" for x in ("u", "delta", "z", "g"))]
"""Numbers of which the compiled code is independent: any of them runs without compiling again."""
STATES = ["A_log", "initial", "ends", "last", "G_last", "G_initial"]
"""(..., N, E): see above why their alignment is hidden."""


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
def forward_ends(
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
def forward(
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
def backward_ends(
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
def backward(
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
