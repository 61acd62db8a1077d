"""GPU benchmark of the scan of Mamba-2: the Triton kernels beside mamba_ssm's and plain torch, on real shapes.

Correctness first: outputs and gradients against the chunked scan in float64, with outputs that start as NaN; a dtype
that fails is not timed, and the exit status is 1. Then ways to cut the work on two shapes, then all shapes with the
default. Times are medians of replayed CUDA graphs.

    python examples/benchmarks/kernels_ssd_scan.py --json run.json                    # everything; some minutes
    python examples/benchmarks/kernels_ssd_scan.py --shapes 2.7b --lengths 4096 --batches 1 --no-sweep
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from datetime import date
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
from kernels_fused import milliseconds
from torch import Tensor

from hf_mambalrp.ops.ssd_scan import triton as ssd
from hf_mambalrp.ops.ssd_scan.chunked import ssd_scan_chunked
from hf_mambalrp.ops.ssd_scan.triton import Tuning, ssd_scan_triton, tuning_for

try:
    from mamba_ssm.ops.triton.ssd_combined import mamba_chunk_scan_combined
except Exception as reason:  # broken installations fail in many ways
    print(f"without mamba_ssm: {reason!r}")
    mamba_chunk_scan_combined = None

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}
BOUND = {torch.bfloat16: 1e-2, torch.float16: 2e-3, torch.float32: 1e-5}
CHUNK_SIZE = 256
"""mamba_ssm's, as published models have it."""


class Shape(NamedTuple):
    H: int
    P: int
    N: int
    G: int


SHAPES = {
    "130m": Shape(24, 64, 128, 1),
    "2.7b": Shape(80, 64, 128, 1),
    "7b": Shape(128, 64, 128, 8),
    "odd": Shape(6, 96, 80, 2),
    "wide": Shape(8, 128, 256, 1),
    "tiny": Shape(2, 16, 16, 1),
}


def inputs(shape: Shape, batch: int, length: int, dtype: torch.dtype) -> tuple[Tensor, ...]:
    """x, dt, A, B, C and a state, distributed as in a new model; x, B and C are views of one tensor."""
    H, P, N, G = shape
    g = torch.Generator(DEVICE).manual_seed(length)
    packed = torch.randn(batch, length, H * P + 2 * G * N, generator=g, device=DEVICE, dtype=dtype)
    x, B, C = packed.split([H * P, G * N, G * N], -1)
    dt = 1e-3 * 100 ** torch.rand(batch, length, H, generator=g, device=DEVICE)
    A = -(1 + 15 * torch.rand(H, generator=g, device=DEVICE))
    state = torch.randn(batch, H, P, N, generator=g, device=DEVICE)
    return x.unflatten(-1, (H, P)), dt, A, B.unflatten(-1, (G, N)), C.unflatten(-1, (G, N)), state


def mamba_ssm(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
    result: tuple[Tensor, Tensor] = mamba_chunk_scan_combined(
        x, dt, A, B, C, CHUNK_SIZE, initial_states=state, return_final_states=True
    )
    return result


def with_gradients(scan: Callable[..., Any], arguments: tuple[Tensor, ...], cotangents: Any) -> list[Tensor]:
    x, *constants, state = arguments
    x, state = x.detach().requires_grad_(), state.detach().requires_grad_()
    y, last = scan(x, *constants, state)
    cotangents = [c.to(v.dtype) for c, v in zip(cotangents, (y, last), strict=True)]
    return [y, last, *torch.autograd.grad((y, last), (x, state), cotangents)]


def poisoned(*args: Any, empty: Any = torch.empty, **kwargs: Any) -> Tensor:
    made: Tensor = empty(*args, **kwargs)
    return made.fill_(torch.nan) if made.is_floating_point() else made


def errors(shape: Shape, length: int, dtype: torch.dtype, scans: dict[str, Any]) -> dict[str, list[float] | str]:
    """Relative L2 errors of y, last state, and gradients of x and initial state, by scan."""
    arguments = inputs(shape, 2, length, dtype)
    cotangents = [torch.randn_like(arguments[0]), torch.randn_like(arguments[5])]
    exact = with_gradients(ssd_scan_chunked, tuple(v.double() for v in arguments), [c.double() for c in cotangents])
    found: dict[str, list[float] | str] = {}
    for name, scan in scans.items():
        try:
            with patch("torch.empty", poisoned):
                values = with_gradients(scan, arguments, cotangents)
            pairs = zip(values, exact, strict=True)
            found[name] = [((v.double() - e).norm() / e.norm()).item() for v, e in pairs]
        except Exception as reason:
            found[name] = repr(reason)[:200]
    return found


def tuned(tuning: Tuning | None) -> Callable[..., Any]:
    return lambda *arguments: ssd_scan_triton(*arguments, tuning=tuning)


def gate(dtype: str, names: list[str], lengths: list[int]) -> tuple[dict[str, Any], bool]:
    """All errors, and whether the kernels passed."""
    print(f"\n{dtype}: errors of y, last, grad x, grad state")
    results, passed = {}, True
    for name, length in product(names, lengths):
        shape = SHAPES[name]
        scans: dict[str, Any] = {
            "triton": tuned(None),
            "one segment": tuned(default(dtype, shape)._replace(segments=1)),
        }
        if dtype == "float32" and name == names[0]:
            scans["ieee"] = tuned(Tuning(16, 32, warps=8, stages=1, precision="ieee"))
        if mamba_chunk_scan_combined is not None and dtype == "bfloat16" and (shape.P, shape.N) == (64, 128):
            scans["mamba_ssm"] = mamba_ssm  # for comparison; it would tune itself anew for other shapes
        for scan, found in errors(shape, length, DTYPES[dtype], scans).items():
            results[f"{dtype} {name} {length} {scan}"] = found
            good = not isinstance(found, str) and all(error <= BOUND[DTYPES[dtype]] for error in found)
            text = found if isinstance(found, str) else " ".join(f"{error:.1e}" for error in found)
            print(f"  {name:5} L {length:5} {scan:12} {text}{'' if good else '   <-- over the bound'}", flush=True)
            passed &= good or scan not in ("triton", "one segment")
    return results, passed


def default(dtype: str, shape: Shape) -> Tuning:
    return tuning_for(DTYPES[dtype], shape.P, shape.N)


def back_to_back(call: Callable[[], object], calls: int = 30) -> float:
    """Milliseconds of a call among many, where the time of the host shows."""
    if DEVICE == "cpu":
        return 0.0
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(calls):
        call()
    torch.cuda.synchronize()
    return 1e3 * (time.perf_counter() - start) / calls


def both_ways(scan: Callable[..., Any], arguments: tuple[Tensor, ...], parameters: bool = False) -> list[float]:
    """Forward and backward ms, from no state, and both back to back."""
    x, *constants, _ = (value.detach() for value in arguments)
    signals = [value.requires_grad_() for value in ((x, *constants) if parameters else (x,))]
    stream = torch.cuda.Stream() if DEVICE == "cuda" else None
    grad_y = torch.randn_like(x)
    if stream is not None:
        torch.cuda.synchronize()  # the inputs were made on another stream
    with torch.cuda.stream(stream):
        y = scan(x, *constants, None)[0]  # a backward runs on the stream of its forward

    def forward() -> None:
        with torch.no_grad():
            scan(x, *constants, None)

    def backward() -> None:
        torch.autograd.grad(y, signals, grad_y, retain_graph=True)

    calls = 10 if DEVICE == "cuda" else 1
    graphs = [milliseconds([call] * calls, stream) for call in (forward, backward)]  # without the time of the host
    return [*graphs, back_to_back(forward), back_to_back(backward)]


def attempt(call: Callable[[], list[float]]) -> list[float] | str:
    try:
        return call()
    except Exception as reason:
        return repr(reason)[:160]
    finally:
        if DEVICE == "cuda":
            torch.cuda.empty_cache()


def shown(found: list[float] | str) -> str:
    return found if isinstance(found, str) else " ".join(f"{value:8.3f}" for value in found)


def candidates(dtype: str, shape: Shape) -> list[Tuning]:
    first = default(dtype, shape)
    if dtype == "bfloat16":
        cuts = [(64, 64, 4, 3), (64, 64, 8, 2), (128, 64, 8, 2), (32, 64, 4, 2), (64, 32, 4, 2)]
        return [first, *(Tuning(*cut) for cut in cuts)]
    if dtype == "float16":
        return [first, *(Tuning(*cut) for cut in [(64, 32, 4, 1), (64, 64, 4, 2), (64, 64, 8, 1)])]
    cuts = [(32, 32, 8, 1), (16, 32, 4, 1), (32, 64, 8, 1), (64, 64, 8, 1)]
    return [first, *(Tuning(*cut, precision="tf32x3") for cut in cuts), Tuning(16, 32, 8, 1, precision="ieee")]


def sweep(dtype: str, names: list[str], length: int) -> dict[str, Any]:
    """Cuts of the work with the segments of the rule, and segments with the default cut."""
    results = {}
    for name in names:
        shape, arguments = SHAPES[name], inputs(SHAPES[name], 1, length, DTYPES[dtype])
        choices = candidates(dtype, shape)
        segments = (1, 2, 3, 4, 6, 8, 11, 16, 22, 32) if dtype == "bfloat16" else ()
        choices += [choices[0]._replace(segments=number) for number in segments]
        print(f"\n{dtype} {name} B 1 L {length}: forward and transposed ms; the same back to back")
        for tuning in choices:
            found = attempt(lambda tuning=tuning, arguments=arguments: both_ways(tuned(tuning), arguments))
            results[f"{dtype} {name} {tuple(tuning)}"] = found
            print(f"  {tuple(tuning)!s:40} {shown(found)}", flush=True)
    return results


def compare(dtype: str, names: list[str], lengths: list[int], batches: list[int]) -> list[dict[str, Any]]:
    """All shapes with the default cut, beside the others."""
    rows = []
    print("\nforward and backward ms: triton | mamba_ssm | ratios | back to back: both | plain torch | segments")
    for name, length, batch in product(names, lengths, batches):
        shape = SHAPES[name]
        arguments = inputs(shape, batch, length, DTYPES[dtype])
        row: dict[str, Any] = {"dtype": dtype, "shape": name, "length": length, "batch": batch}
        row["triton"] = attempt(lambda arguments=arguments: both_ways(ssd_scan_triton, arguments))
        if mamba_chunk_scan_combined is not None:
            row["mamba_ssm"] = attempt(lambda arguments=arguments: both_ways(mamba_ssm, arguments, parameters=True))
        if batch * length <= 4096:
            row["chunked"] = attempt(lambda arguments=arguments: both_ways(chunked, arguments))
        tuning, processors = default(dtype, shape), ssd.processors(arguments[0].device)
        programs = batch * shape.H * -(-shape.P // tuning.width)
        row["segments"] = ssd.segments_for(programs, -(-length // tuning.chunk), processors)
        rows.append(row)
        ours, theirs, torchs = (row.get(key, "-") for key in ("triton", "mamba_ssm", "chunked"))
        ratios = "-"
        if not isinstance(ours, str) and not isinstance(theirs, str):
            ratios = f"{ours[0] / theirs[0]:.2f} {ours[1] / theirs[1]:.2f}"
        halves = [found if isinstance(found, str) else shown(found[:2]) for found in (ours, theirs)]
        queued = [found if isinstance(found, str) else shown(found[2:]) for found in (ours, theirs)]
        plain = torchs if isinstance(torchs, str) else shown(torchs[:2])
        print(
            f"{dtype:8} {name:5} L {length:6} B {batch} |", " | ".join([*halves, ratios, *queued, plain]),
            f"| {row['segments']}", flush=True,
        )  # fmt: skip
        del arguments
    return rows


def chunked(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, _: None) -> tuple[Tensor, Tensor]:
    """The plain torch twin; its parameters are float32, so the signals are too."""
    state = x.new_zeros(x.shape[0], *x.shape[2:], B.shape[3], dtype=torch.float32)
    return ssd_scan_chunked(x.float(), dt, A, B.float(), C.float(), state)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", default=["130m", "2.7b", "7b"], choices=list(SHAPES))
    parser.add_argument("--dtypes", nargs="+", default=["bfloat16", "float32", "float16"], choices=list(DTYPES))
    parser.add_argument("--timed-dtypes", nargs="+", default=["bfloat16"], choices=list(DTYPES))
    parser.add_argument("--lengths", nargs="+", type=int, default=[512, 4096, 32768])
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8])
    parser.add_argument("--gate-shapes", nargs="+", default=["130m", "7b", "odd", "wide"], choices=list(SHAPES))
    parser.add_argument("--gate-lengths", nargs="+", type=int, default=[3001])
    parser.add_argument("--sweep-length", type=int, default=4096)
    parser.add_argument("--no-sweep", action="store_true")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    device = torch.cuda.get_device_name() if DEVICE == "cuda" else "cpu, interpreted: times say nothing"
    print(device, "torch", torch.__version__)
    started = time.perf_counter()

    versions = {"torch": torch.__version__, "triton": version("triton")}
    if mamba_chunk_scan_combined is not None:
        versions["mamba_ssm"] = version("mamba_ssm")
    results: dict[str, Any] = {"date": date.today().isoformat(), "device": device, **versions}
    results |= {"errors": {}, "sweep": {}, "times": []}
    failed = []
    for dtype in arguments.dtypes:
        found, passed = gate(dtype, arguments.gate_shapes, arguments.gate_lengths)
        results["errors"] |= found
        if not passed:
            failed.append(dtype)
        elif dtype in arguments.timed_dtypes:
            if not arguments.no_sweep:
                names = [name for name in arguments.shapes if name != "7b"]
                results["sweep"] |= sweep(dtype, names, arguments.sweep_length)
            results["times"] += compare(dtype, arguments.shapes, arguments.lengths, arguments.batches)
        if arguments.json:
            arguments.json.write_text(json.dumps(results, indent=1))
    print(f"{time.perf_counter() - started:.0f} s; over the bound: {failed or 'nothing'}")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
