"""The selective scan for the CPU: a chunk of steps at a time, in buffers that fit the cache.

Inside a chunk the decays exp(dt A), the inputs B (dt u) and the outputs C h are one vectorised operation each; only
h_t = decay_t h_{t-1} + input_t goes step by step, in place. No tensor of size (B, L, E, N) exists, whatever L is.

The scan is linear in u and in the initial state. Its transpose runs the same recurrence backwards in time with B and
C swapped, so under the SSM rule, where dt, B and C are constants, the backward keeps no state and costs a forward.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

BUFFER_ELEMENTS = 2**19
"""Elements of a chunk's buffer: 2 MiB of float32, which is what the cache of one CPU core holds today."""

SMALL = 2**18
"""Elements of the decays that are kept until the backward: to compute so few again costs more than a megabyte."""


def chunk_ranges(length: int, elements_per_step: int) -> list[slice]:
    """Time ranges of at most ``BUFFER_ELEMENTS`` state elements each (never less than 4 steps)."""
    steps = max(4, BUFFER_ELEMENTS // max(1, elements_per_step))
    return [slice(start, min(start + steps, length)) for start in range(0, length, steps)]


def time_first(x: Tensor) -> Tensor:
    """(B, T, F) -> (T, B, F)."""
    return x.transpose(0, 1)


def _part(x: Tensor, chunk: slice) -> Tensor:
    """A chunk of the first axis; most often there is but one, and that is all of it."""
    return x if chunk.stop - chunk.start == x.shape[0] else x[chunk]


Decays = tuple[Tensor, tuple[Tensor, ...]]
"""exp(dt_t A) of a chunk, (T, B, N, E), and the same step by step."""


class _Scan:
    """The chunk loops over one set of parameters, held channels-last: states are (B, N, E) inside."""

    def __init__(self, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, decays: Decays | None = None) -> None:
        self.dt, self.B, self.C = time_first(dt), time_first(B), time_first(C)
        batch, (channels, state_size) = dt.shape[0], A.shape
        self.chunks = chunk_ranges(dt.shape[1], batch * state_size * channels)
        steps = self.chunks[0].stop if self.chunks else 0
        self._states = dt.new_empty(steps, batch, state_size, channels)
        self._steps = self._states.unbind()  # views, made once
        self.A = A.t()  # (N, E)
        self._computed = decays is not None
        if decays is None:
            self.A = self.A.contiguous()
            decay = torch.empty_like(self._states)
            decays = decay, decay.unbind()
        self._decay, self._decay_steps = decays

    def decay(self, chunk: slice) -> Tensor:
        """exp(dt_t A). Shape: (T, B, N, E)."""
        decay = _part(self._decay, slice(0, chunk.stop - chunk.start))
        if self._computed:
            return decay
        return torch.mul(_part(self.dt, chunk).unsqueeze(2), self.A, out=decay).exp_()

    @property
    def decays(self) -> Decays | None:
        """All of them after a pass, where they are few."""
        small = len(self.chunks) == 1 and self._decay.numel() <= SMALL
        return (self._decay, self._decay_steps) if small else None

    def _outer(self, per_state: Tensor, per_channel: Tensor, chunk: slice) -> Tensor:
        """per_state_t per_channel_t^T. Shapes: (T, B, N), (T, B, E) -> (T, B, N, E)."""
        out = _part(self._states, slice(0, chunk.stop - chunk.start))
        return torch.mul(_part(per_state, chunk).unsqueeze(3), _part(per_channel, chunk).unsqueeze(2), out=out)

    def states(self, x: Tensor, chunk: slice, carry: Tensor) -> Tensor:
        """h_t = exp(dt_t A) h_{t-1} + B_t x_t inside a chunk, h before it given. Shape: (T, B, N, E)."""
        self.decay(chunk)
        states, previous = self._outer(self.B, x, chunk), carry
        for decay, state in zip(self._decay_steps, self._steps[: states.shape[0]], strict=False):
            previous = state.addcmul_(decay, previous)
        return states

    def adjoints(self, grad_y: Tensor, chunk: slice, carry: Tensor | None) -> tuple[Tensor, Tensor]:
        """g_t = C_t grad_y_t + exp(dt_{t+1} A) g_{t+1} inside a chunk; ``carry``, where not 0, is the last term for its
        last step.

        Returns g (T, B, N, E) and the carry of the chunk before it, exp(dt_t A) g_t at its first step.
        """
        self.decay(chunk)
        adjoints, last = self._outer(self.C, grad_y, chunk), chunk.stop - chunk.start - 1
        following = self._steps[last] if carry is None else self._steps[last].add_(carry)
        for t in range(last, 0, -1):
            following = self._steps[t - 1].addcmul_(self._decay_steps[t], following)
        return adjoints, self._decay_steps[0] * following

    def contract(self, per_state: Tensor, states: Tensor, chunk: slice, out: Tensor) -> None:
        """out_t = per_state_t . states_t over the state dimension. out: (T, B, E) of the whole length."""
        steps, batch, state_size, channels = states.shape
        rows = _part(per_state, chunk).reshape(steps * batch, 1, state_size)
        result = torch.bmm(rows, states.view(steps * batch, state_size, channels))
        _part(out, chunk).copy_(result.view(steps, batch, channels))


class _SelectiveScan(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, u: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, initial_state: Tensor
    ) -> tuple[Tensor, Tensor]:
        scan = _Scan(dt, A, B, C)
        x = time_first(dt * u)
        y = torch.empty_like(x)
        constant_parameters = not any(ctx.needs_input_grad[1:5])
        before, carry = [], initial_state.transpose(1, 2)
        for chunk in scan.chunks:
            if not constant_parameters:
                before.append(carry)
            states = scan.states(x, chunk, carry)
            scan.contract(scan.C, states, chunk, y)
            carry = states[-1].clone()
        ctx.decays = scan.decays
        ctx.set_materialize_grads(False)  # the last state goes to the next chunk, and most texts have but one
        if constant_parameters:
            ctx.save_for_backward(dt, A, B, C)
        else:
            ctx.save_for_backward(dt, A, B, C, u, torch.stack(before))
        return time_first(y), carry.transpose(1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_y: Tensor | None, grad_last: Tensor | None) -> tuple[Tensor | None, ...]:
        dt, A, B, C, *for_parameters = ctx.saved_tensors
        scan = _Scan(dt, A, B, C, ctx.decays)
        grad_y = time_first(torch.zeros_like(dt) if grad_y is None else grad_y)
        grad_x = torch.empty_like(grad_y)
        carry = None if grad_last is None else grad_last.transpose(1, 2)
        parameters = _ParameterGradients(scan, *for_parameters) if for_parameters else None
        for index in reversed(range(len(scan.chunks))):
            chunk = scan.chunks[index]
            # Both recurrences share one buffer: the states are taken out before the adjoints overwrite it.
            states = parameters.states(index) if parameters else None
            adjoints, carry = scan.adjoints(grad_y, chunk, carry)
            scan.contract(scan.B, adjoints, chunk, grad_x)
            if parameters and states is not None:
                parameters.accumulate(index, states, adjoints, grad_y)
        grad_u = time_first(grad_x) * dt
        grad_state = None if carry is None else carry.transpose(1, 2)
        if parameters is None:
            return grad_u, None, None, None, None, grad_state
        return grad_u, *parameters.result(grad_x), grad_state


class _ParameterGradients:
    """Gradients of dt, A, B and C: what the SSM rule leaves out and a plain gradient needs.

    With g the adjoints of the states: d log-decay_t = g_t exp(dt_t A) h_{t-1}; dB_t = g_t x_t; dC_t = h_t grad_y_t.
    The states of a chunk are recomputed from the state before it.
    """

    def __init__(self, scan: _Scan, u: Tensor, before: Tensor) -> None:
        self.scan, self.u, self.before = scan, time_first(u), before
        self.x = scan.dt * self.u
        self.grad_dt = torch.empty_like(scan.dt)
        self.grad_A = torch.zeros_like(scan.A)
        self.grad_B, self.grad_C = torch.empty_like(scan.B), torch.empty_like(scan.C)

    def states(self, index: int) -> Tensor:
        return self.scan.states(self.x, self.scan.chunks[index], self.before[index]).clone()

    def accumulate(self, index: int, states: Tensor, adjoints: Tensor, grad_y: Tensor) -> None:
        chunk = self.scan.chunks[index]
        self.grad_B[chunk] = torch.einsum("tbne,tbe->tbn", adjoints, self.x[chunk])
        self.grad_C[chunk] = torch.einsum("tbne,tbe->tbn", states, grad_y[chunk])
        previous = torch.cat([self.before[index][None], states[:-1]])
        log_decay = adjoints * self.scan.decay(chunk) * previous
        self.grad_dt[chunk] = (log_decay * self.scan.A).sum(2)
        self.grad_A += (log_decay * self.scan.dt[chunk, :, None, :]).sum((0, 1))

    def result(self, grad_x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Gradients of dt (which also scales the input), A, B and C, in the layout of the caller."""
        grad_dt = self.grad_dt + grad_x * self.u
        return time_first(grad_dt), self.grad_A.t(), time_first(self.grad_B), time_first(self.grad_C)


def selective_scan_chunked(
    u: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, initial_state: Tensor
) -> tuple[Tensor, Tensor]:
    """Same contract as :func:`selective_scan_reference`; memory beyond inputs and outputs does not grow with L."""
    result: tuple[Tensor, Tensor] = _SelectiveScan.apply(u, dt, A, B, C, initial_state)
    return result
