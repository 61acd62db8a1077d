# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False, disallow-untyped-decorators=False
# mypy: disable-error-code="import-untyped, import-not-found"
"""The gated selective scan for a GPU, in Triton: how its kernels are cut, launched and differentiated.

States go in and out as transposed views of what the kernels hold, (B, N, E).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor
from torch.autograd.function import once_differentiable

from hf_mambalrp.ops.gated_scan.triton_kernels import backward, backward_ends, forward, forward_ends
from hf_mambalrp.ops.recompute import computed_again
from hf_mambalrp.ops.triton_common import processors, with_unit_stride
from hf_mambalrp.rules import Rules


class Config(NamedTuple):
    """How a scan is cut into programs."""

    states: int = 16
    """States in a thread: a warp has 32 ``states`` / N channels, at least one."""
    unroll: int = 8
    """Positions whose loads are in flight together."""
    warps: int = 16
    """Wanted on a multiprocessor: there are chunks until there are as many; 0 for one chunk."""
    shortest: int = 32
    """Positions in a chunk, at least."""
    registers: int = 128
    """Of a thread, at most: with more, so many warps would not be on a multiprocessor at the same time."""
    together: int = 1
    """Warps in a program, which read the same B and C and are spread evenly; 1 where such programs would leave more
    than :data:`IDLE` of the GPU idle."""


FORWARD, BACKWARD = Config(together=8), Config(together=16)
"""The fastest, or within 3 % of it, of those that examples/benchmarks/kernels_gated_scan.py timed on an H200."""
IDLE = 0.05


class _Plan(NamedTuple):
    """How many programs, and over what."""

    grid: tuple[int, int, int]
    """Blocks of channels, chunks, rows."""
    chunk: int
    """Positions in a chunk, a multiple of ``unroll``."""
    options: dict[str, int]
    """The kernels' constants, and how they are compiled."""

    @classmethod
    def of(cls, u: Tensor, state_size: int, config: Config) -> "_Plan":
        batch, length, channels = u.shape
        padded, room = triton.next_power_of_2(state_size), config.warps * processors(u.device)
        block = max(1, 32 * config.states // padded) * config.together
        blocks = triton.cdiv(channels, block)
        wanted = max(1, room // (batch * blocks * config.together))
        chunk = max(config.shortest, triton.cdiv(length, wanted))
        chunk = triton.cdiv(chunk, config.unroll) * config.unroll
        chunks = triton.cdiv(length, chunk)
        warps = batch * blocks * chunks * config.together
        if config.together > 1 and (channels % block or warps < (1 - IDLE) * room * triton.cdiv(warps, max(1, room))):
            return cls.of(u, state_size, config._replace(together=1))
        sizes = {"E": channels, "N": state_size, "NP": padded, "BE": block, "U": config.unroll}
        options = {**sizes, "num_warps": config.together, "maxnreg": config.registers}
        return cls((blocks, chunks, batch), chunk, options)

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
            forward_ends[(blocks, chunks - 1, batch)](
                u, delta, logs, B, bias, ends, sums, length, plan.chunk,
                *_strides(u, delta, B), **plan.options,
            )  # fmt: skip
        forward[plan.grid](
            u, delta, z, logs, B, C, D, bias, initial, ends, sums, p, y, last, length, plan.chunk,
            *_strides(u, delta, z, B, C), **plan.options,
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
            backward_ends[(blocks, chunks - 1, batch)](
                g, delta, z, logs, C, bias, ends, sums, length, plan.chunk,
                *_strides(g, delta, z, C), **plan.options,
            )  # fmt: skip
        backward[plan.grid](
            g, delta, z, y, logs, B, C, D, bias, after, ends, sums, gu, gz, G_initial, length, plan.chunk,
            *_strides(g, delta, z, B, C), **plan.options,
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
