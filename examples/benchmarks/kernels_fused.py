"""GPU benchmark of the fused element-wise kernels: correctness in float64 first, then bandwidth, then tilings.

    python examples/benchmarks/kernels_fused.py                 # about three minutes on one H100
    python examples/benchmarks/kernels_fused.py --no-tilings --json fused.json
    TRITON_INTERPRET=1 python examples/benchmarks/kernels_fused.py --shapes 1x24 --widths 32   # does it run, on a CPU

Times are medians of replayed CUDA graphs over several input sets, which together are larger than the second-level cache
where memory allows. Bytes are the fewest possible: every input read once, every output written once.
"""

import argparse
import json
import statistics
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from functools import partial
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from hf_mambalrp.ops.conv_silu import conv_silu
from hf_mambalrp.ops.conv_silu import triton as conv_kernels
from hf_mambalrp.ops.gated_norm import gated_norm
from hf_mambalrp.ops.gated_norm import triton as gated_norm_kernels
from hf_mambalrp.ops.norm import norm, norm_of_sum
from hf_mambalrp.ops.norm import triton as norm_kernels
from hf_mambalrp.rules import MAMBALRP

CUDA = torch.cuda.is_available()
DEVICE = "cuda" if CUDA else "cpu"
CACHE = 2**28 if CUDA else 1
"""Bytes of all input sets of a timing, at least, up to ``MOST_SETS``."""
MOST_SETS = 24
EPS = 1e-5
TOLERANCE = {torch.float32: 3e-6, torch.bfloat16: 2**-7}
"""Of a whole tensor, relative: few values that are each rounded twice may all be off by nearly two half units."""

Op = Callable[..., Any]


@dataclass
class Case:
    """One op on one shape."""

    kernel: Op
    twin: Op
    signals: list[Tensor]
    """What gets a gradient."""
    cotangents: list[Tensor]
    rereads: bool
    """Whether the backward reads the signals again."""

    @property
    def bytes_forward(self) -> int:
        return size(self.signals) + size(self.cotangents)

    @property
    def bytes_backward(self) -> int:
        return self.bytes_forward + (size(self.signals) if self.rereads else 0)


def size(tensors: list[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def random(*shape: int, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    return torch.randn(*shape, device=DEVICE, dtype=torch.float32).to(dtype)


def half_of_projection(batch: int, length: int, width: int, dtype: torch.dtype) -> Tensor:
    """As in_proj gives it: a view of a tensor twice as wide."""
    return random(batch, length, 2 * width, dtype=dtype)[..., width:]


def both(op: Op) -> tuple[Op, Op]:
    """The op by its kernel and by its readable twin."""
    return partial(op, rules=MAMBALRP, backend="triton"), partial(op, rules=MAMBALRP, backend="reference")


def conv_silu_case(batch: int, length: int, width: int, dtype: torch.dtype, masked: bool = False) -> Case:
    weight = random(width, 4, dtype=dtype)
    mask = (torch.rand(batch, length, device=DEVICE) > 0.2).to(torch.float32) if masked else None
    signals = [half_of_projection(batch, length, width, dtype), random(batch, 3, width, dtype=dtype)]
    signals.insert(1, random(batch, 1, width, dtype=torch.float32))
    return Case(
        *both(lambda x, bias, earlier, **which: conv_silu(x, weight, bias, earlier, mask, **which)),
        signals,
        [random(batch, length, width, dtype=dtype)],
        True,
    )


def norm_case(batch: int, length: int, width: int, dtype: torch.dtype) -> Case:
    weight = random(width // 2, dtype=dtype)
    return Case(
        *both(lambda x, **which: norm(x, weight, EPS, dtype if x.dtype == torch.float32 else x.dtype, **which)),
        [random(batch, length, width // 2, dtype=torch.float32)],
        [random(batch, length, width // 2, dtype=dtype)],
        False,
    )


def norm_of_sum_case(batch: int, length: int, width: int, dtype: torch.dtype) -> Case:
    weight, shape = random(width // 2, dtype=dtype), (batch, length, width // 2)

    def op(x: Tensor, added: Tensor, **which: Any) -> tuple[Tensor, Tensor]:
        return norm_of_sum(x, added, weight, EPS, dtype if x.dtype == torch.float32 else x.dtype, **which)

    return Case(
        *both(op),
        [random(*shape, dtype=torch.float32), random(*shape, dtype=dtype)],
        [random(*shape, dtype=torch.float32), random(*shape, dtype=dtype)],
        False,
    )


def gated_norm_case(batch: int, length: int, width: int, dtype: torch.dtype) -> Case:
    weight = random(width, dtype=dtype)
    signals = [random(batch, length, width, dtype=dtype), half_of_projection(batch, length, width, dtype)]
    return Case(
        *both(lambda y, z, **which: gated_norm(y, z, weight, EPS, width, **which)),
        signals,
        [random(batch, length, width, dtype=dtype)],
        True,
    )


CASES: dict[str, Callable[..., Case]] = {
    "conv_silu": conv_silu_case,
    "norm": norm_case,
    "norm_of_sum": norm_of_sum_case,
    "gated_norm": gated_norm_case,
}
CHECKED = {**CASES, "conv_silu masked": lambda *arguments: conv_silu_case(*arguments, masked=True)}


# Correctness


def results(op: Op, signals: list[Tensor], cotangents: list[Tensor]) -> list[Tensor]:
    """Outputs and gradients."""
    signals = [signal.detach().requires_grad_() for signal in signals]
    outputs = as_tuple(op(*signals))
    cotangents = [c.to(o.dtype) for c, o in zip(cotangents, outputs, strict=True)]
    return [o.detach() for o in outputs] + list(torch.autograd.grad(outputs, signals, cotangents))


def as_tuple(outputs: Any) -> tuple[Tensor, ...]:
    return outputs if isinstance(outputs, tuple) else (outputs,)


@contextmanager
def poisoned() -> Iterator[None]:
    """What a kernel does not write is NaN."""
    empty = torch.empty
    torch.empty = lambda *a, **k: empty(*a, **k).fill_(torch.nan)  # type: ignore[assignment]
    try:
        yield
    finally:
        torch.empty = empty


def check(name: str, shape: tuple[int, int, int], dtype: torch.dtype) -> bool:
    case = CHECKED[name](*shape, dtype)
    with poisoned():
        found = results(case.kernel, case.signals, case.cotangents)
        again = results(case.kernel, case.signals, case.cotangents)
    wanted = results(case.twin, [signal.double() for signal in case.signals], case.cotangents)
    worst, good = 0.0, True
    for one, two, other in zip(found, again, wanted, strict=True):
        error = ((one.double() - other).norm() / other.norm()).item()
        worst, good = max(worst, error), good and error <= TOLERANCE[one.dtype] and torch.equal(one, two)
    print(f"  {name:18} {shape!s:18} {str(dtype)[6:]:9} {worst:.1e} {'ok' if good else 'WRONG, or not deterministic'}")
    return good


def check_beyond_32_bits(width: int) -> bool:
    """More than 2^31 elements: the last 64 positions, which depend on three before them, against a short twin."""
    length, last, good = 2**31 // width + 10_000, 64, True
    for name in ("conv_silu", "norm", "gated_norm"):
        case = CASES[name](1, length, width if name != "norm" else 2 * width, torch.bfloat16)
        found = [one[:, -last:].double() for one in results(case.kernel, case.signals, case.cotangents)]
        signals = [signal[:, -last - 3 :].double() for signal in case.signals]
        wanted = results(case.twin, signals, [cotangent[:, -last - 3 :] for cotangent in case.cotangents])
        for i in range(len(case.cotangents) + (1 if name == "conv_silu" else len(signals))):
            other = wanted[i][:, -last:]
            error = ((found[i] - other).norm() / other.norm()).item()
            if not error <= TOLERANCE[torch.bfloat16]:
                print(f"  {name} beyond 2^31 elements: result {i} is off by {error:.1e}")
                good = False
        del case, found
        torch.cuda.empty_cache()
    print("  beyond 2^31 elements:", "ok" if good else "WRONG")
    return good


# Times


def milliseconds(calls: list[Callable[[], object]], stream: Any) -> float:
    """Median time of one call."""
    if not CUDA:
        start = time.perf_counter()
        for call in calls:
            call()
        return (time.perf_counter() - start) / len(calls) * 1e3
    with torch.cuda.stream(stream):
        for call in calls[:2]:
            call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.stream(stream):  # torch.cuda.graph would collect garbage and empty the cache every time
        graph.capture_begin()
        try:
            for call in calls:
                call()
        finally:
            graph.capture_end()
    times = []
    for _ in range(10):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end))
    return statistics.median(times[2:]) / len(calls)


def forward_and_backward(case: Case, op: Op, sets: list[tuple[list[Tensor], list[Tensor]]]) -> tuple[float, float]:
    """Milliseconds of each, over the input sets in turn."""
    stream = torch.cuda.Stream() if CUDA else None
    if CUDA:
        torch.cuda.synchronize()  # the inputs were made on another stream

    def forward(signals: list[Tensor]) -> None:
        with torch.no_grad():
            op(*signals)

    first = milliseconds([lambda signals=signals: forward(signals) for signals, _ in sets], stream)
    calls = []
    with torch.cuda.stream(stream):
        for signals, cotangents in sets:
            leaves = [signal.detach().requires_grad_() for signal in signals]
            outputs = as_tuple(op(*leaves))
            g = [c.to(o.dtype) for c, o in zip(cotangents, outputs, strict=True)]
            calls.append(lambda o=outputs, s=leaves, g=g: torch.autograd.grad(o, s, g, retain_graph=True))
    return first, milliseconds(calls, stream)


def input_sets(case: Case) -> list[tuple[list[Tensor], list[Tensor]]]:
    count = max(1, min(MOST_SETS, -(-CACHE // case.bytes_forward)))
    copies = [(case.signals, case.cotangents)]
    for _ in range(count - 1):
        copies.append(([same_layout(s) for s in case.signals], [c.clone() for c in case.cotangents]))
    return copies


def same_layout(view: Tensor) -> Tensor:
    """A copy with the gaps between rows that the view has."""
    if view.is_contiguous():
        return view.clone()
    whole = view.new_empty(*view.shape[:-1], view.stride(-2))
    return whole[..., : view.shape[-1]].copy_(view)


def attempt(what: str, action: Callable[[], Any]) -> Any:
    """One failure must not end the run: None and its last line."""
    try:
        return action()
    except Exception as error:
        print(f"  {what} failed: {type(error).__name__}: {str(error).splitlines()[-1] if str(error) else ''}")
        traceback.print_exc(limit=3)
        return None


def times(name: str, shape: tuple[int, int, int]) -> dict[str, Any]:
    case = CASES[name](*shape, torch.bfloat16)
    sets = input_sets(case)
    row: dict[str, Any] = {"op": name, "shape": shape, "sets": len(sets)}
    for who, op, some in (("kernel", case.kernel, sets), ("twin", case.twin, sets[:4])):
        found = attempt(f"{name} {shape} {who}", lambda op=op, some=some: forward_and_backward(case, op, some))
        row[who] = found or (float("nan"), float("nan"))
    row["GB/s"] = [b / t / 1e6 for b, t in zip((case.bytes_forward, case.bytes_backward), row["kernel"], strict=True)]
    if name == "conv_silu":
        row["causal_conv1d"] = attempt("causal_conv1d", lambda: causal_conv1d_times(sets))
    return row


def causal_conv1d_times(sets: list[tuple[list[Tensor], list[Tensor]]]) -> float | None:
    """The forward of that package, where it is installed."""
    try:
        from causal_conv1d import causal_conv1d_fn
    except ImportError:
        return None
    width = sets[0][0][0].shape[-1]
    weight, bias = random(width, 4), random(width)
    stream = torch.cuda.Stream()
    return milliseconds(
        [lambda x=s[0].mT: causal_conv1d_fn(x, weight, bias, activation="silu") for s, _ in sets], stream
    )


def host_microseconds(name: str, shape: tuple[int, int, int]) -> tuple[float, float]:
    """Time until a forward and a backward are launched: what bounds small inputs without a CUDA graph."""
    case, taken, repeats = CASES[name](*shape, torch.bfloat16), [0.0, 0.0], 200 if CUDA else 1
    signals = [signal.detach().requires_grad_() for signal in case.signals]
    for i in range(2 * repeats):  # the first half warms up
        start = time.perf_counter()
        outputs = as_tuple(case.kernel(*signals))
        middle = time.perf_counter()
        torch.autograd.grad(outputs, signals, case.cotangents)
        end = time.perf_counter()
        if i >= repeats:
            taken[0] += middle - start
            taken[1] += end - middle
    return taken[0] / repeats * 1e6, taken[1] / repeats * 1e6


def copy_bandwidth() -> float:
    """GB/s of a copy, bytes read and written: what is possible."""
    x = torch.randn(2**28 if CUDA else 2**20, device=DEVICE)
    y = torch.empty_like(x)
    stream = torch.cuda.Stream() if CUDA else None
    return 2 * size([x]) / milliseconds([lambda: y.copy_(x)], stream) / 1e6


CONV_TILINGS = [
    conv_kernels.Tiling(*arguments)
    for arguments in [(8, 128, 1), (4, 128, 1), (16, 128, 1), (8, 256, 2), (8, 64, 1), (8, 128, 2), (16, 64, 1)]
] + [conv_kernels.Tiling(8, 128, 1, 2048, 32), conv_kernels.Tiling(8, 128, 1, 8192, 16), conv_kernels.Tiling(8, 256, 1)]
PER_WARP = [256, 512, 1024, 2048]


def tilings() -> Iterator[tuple[str, ModuleType, tuple[str, str], list[Any]]]:
    """Op, module, the settings of forward and backward, and what to try for both."""
    yield "conv_silu", conv_kernels, ("FORWARD", "BACKWARD"), CONV_TILINGS
    yield "norm", norm_kernels, ("FORWARD_PER_WARP", "BACKWARD_PER_WARP"), PER_WARP
    yield "gated_norm", gated_norm_kernels, ("FORWARD_PER_WARP", "BACKWARD_PER_WARP"), PER_WARP
    yield "gated_norm", gated_norm_kernels, ("FORWARD_PER_WARP", "BACKWARD_PER_WARP"), PER_WARP


def time_tilings(shapes: list[tuple[int, int, int]]) -> list[dict[str, Any]]:
    rows = []
    for name, module, settings, values in tilings():
        defaults = [getattr(module, setting) for setting in settings]
        print(f"\n{name}: forward/backward us at {', '.join('x'.join(map(str, shape)) for shape in shapes)}")
        cases = [(case := CASES[name](*shape, torch.bfloat16), input_sets(case)) for shape in shapes]
        for value in values:
            for setting in settings:
                setattr(module, setting, value)
            found = [
                attempt(f"{name} {value}", lambda c=c, s=s: forward_and_backward(c, c.kernel, s)) for c, s in cases
            ]
            label = tuple(value) if isinstance(value, tuple) else value
            print(
                f"  {label!s:24}", "  ".join(f"{1e3 * t[0]:7.1f}/{1e3 * t[1]:7.1f}" if t else "failed" for t in found)
            )
            rows.append({"op": name, "tiling": label, "ms": found})
        for setting, default in zip(settings, defaults, strict=True):
            setattr(module, setting, default)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", default=["1x512", "1x4096", "1x32768", "8x4096"], help="B x L")
    parser.add_argument("--widths", type=int, nargs="+", default=[1536, 5120], help="E; norms are of E / 2")
    parser.add_argument("--no-tilings", action="store_true")
    parser.add_argument("--json", type=Path, help="write the numbers of this run here")
    arguments = parser.parse_args()
    shapes = [tuple(map(int, shape.split("x"))) for shape in arguments.shapes]

    torch.manual_seed(0)
    began = time.perf_counter()
    print("against the twins in float64: largest relative error of outputs and gradients")
    good = True
    for name in CHECKED:
        for width in arguments.widths:
            for dtype in (torch.bfloat16, torch.float32):
                length = 333 if CUDA else 13
                good &= bool(attempt(name, lambda n=name, w=width, d=dtype, k=length: check(n, (2, k, w), d)))
    if CUDA:
        good &= bool(attempt("beyond 2^31", lambda: check_beyond_32_bits(min(arguments.widths))))
    print("ALL CORRECT" if good else "SOME WRONG", f"({time.perf_counter() - began:.0f} s)")

    tiled = []
    if not arguments.no_tilings:
        few = [(b, k, w) for w in arguments.widths for b, k in shapes if b == 1 and (w == min(arguments.widths))]
        few += [(*shapes[min(1, len(shapes) - 1)], arguments.widths[-1])]
        tiled = time_tilings(few)

    small = (*shapes[0], arguments.widths[0])
    print("\nhost microseconds to launch, forward/backward, without a CUDA graph")
    for name in CASES:
        host = attempt(f"host {name}", lambda n=name: host_microseconds(n, small))
        print(f"  {name:18} {host[0]:.0f}/{host[1]:.0f}" if host else "")
    copied = copy_bandwidth()
    print(f"\n({time.perf_counter() - began:.0f} s)  a copy moves {copied:.0f} GB/s; microseconds forward/backward")
    print(f"{'op':18} {'B x L x E':>14} {'kernel':>15} {'GB/s':>11} {'of copy':>11} {'twin':>17}  causal_conv1d")
    rows = []
    for name in CASES:
        for width in arguments.widths:
            for batch, length in shapes:
                row = attempt(name, lambda n=name, s=(batch, length, width): times(n, s))
                if row is None:
                    continue
                rows.append(row)
                cells = [f"{1e3 * row['kernel'][0]:.1f}/{1e3 * row['kernel'][1]:.1f}"]
                cells.append("/".join(f"{rate:.0f}" for rate in row["GB/s"]))
                cells.append("/".join(f"{rate / copied:.2f}" for rate in row["GB/s"]))
                cells.append("/".join(f"{1e3 * t:.0f}" for t in row["twin"]))
                other = row.get("causal_conv1d")
                shape = f"{batch}x{length}x{width}"
                print(f"{name:18} {shape:>14} {cells[0]:>15} {cells[1]:>11} {cells[2]:>11} {cells[3]:>17}", end="")
                print(f"  {1e3 * other:.1f}" if other else "")
                if CUDA:
                    torch.cuda.empty_cache()
    print(f"({time.perf_counter() - began:.0f} s in all)", "ALL CORRECT" if good else "SOME WRONG")
    if arguments.json:
        device = torch.cuda.get_device_name() if CUDA else "interpreter"
        versions = {"torch": torch.__version__, "triton": version("triton")}
        run = {"date": date.today().isoformat(), "device": device, **versions}
        arguments.json.write_text(json.dumps({**run, "rows": rows, "tilings": tiled}, indent=1) + "\n")


if __name__ == "__main__":
    main()
