"""GPU benchmark of the gated delta rule: the Triton kernels beside flash-linear-attention's and plain torch.

Correctness first: outputs and gradients against the chunked scan in float64, with outputs that start as NaN; what fails
is not timed, and the exit status is 1. Times are medians of replayed CUDA graphs. The transposed scan is all that an
explanation needs; flash-linear-attention's backward gives the gradients of q, k, decay and beta too.

    python examples/benchmarks/kernels_delta_scan.py --json run.json
    python examples/benchmarks/kernels_delta_scan.py --shapes qwen3.5-0.8b --lengths 4096 --sweep
"""

import argparse
import json
import sys
from collections.abc import Callable
from datetime import date
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
from kernels_ssd_scan import BOUND, DEVICE, DTYPES, attempt, both_ways, poisoned, shown, with_gradients
from torch import Tensor
from transformers.models.qwen3_next.modeling_qwen3_next import torch_chunk_gated_delta_rule

from hf_mambalrp.ops.delta_scan.chunked import delta_scan_chunked
from hf_mambalrp.ops.delta_scan.triton import Tuning, delta_scan_triton, processors, tuning_for

try:
    from fla.ops.gated_delta_rule import chunk_gated_delta_rule
    from fla.ops.kda import chunk_kda
except Exception as reason:  # broken installations fail in many ways
    print(f"without flash-linear-attention: {reason!r}")
    chunk_gated_delta_rule = chunk_kda = None


class Shape(NamedTuple):
    H: int
    P: int
    G: int
    N: int
    by_channel: bool = False
    """Whether every channel of the key has its decay."""


SHAPES = {
    "qwen3.5-0.8b": Shape(16, 128, 16, 128),
    "qwen3-next": Shape(32, 128, 16, 128),
    "kimi-linear": Shape(32, 128, 32, 128, by_channel=True),
    "tiny": Shape(4, 16, 2, 16),
    "tiny-channels": Shape(2, 16, 2, 16, by_channel=True),
}


def inputs(shape: Shape, length: int, dtype: torch.dtype) -> tuple[Tensor, ...]:
    """v, q, k, log decay and beta of one row, and a state, distributed as in a new model."""
    g = torch.Generator(DEVICE).manual_seed(length)
    H, P, G, N, by_channel = shape

    def normal(*size: int) -> Tensor:
        return torch.randn(*size, generator=g, device=DEVICE)

    q, k = (torch.nn.functional.normalize(normal(1, length, G, N), dim=-1).to(dtype) for _ in range(2))
    rate = 16 * torch.rand(H, 1, generator=g, device=DEVICE)
    log_decay = -rate * torch.nn.functional.softplus(normal(1, length, H, N if by_channel else 1) - 4)
    beta, v = torch.sigmoid(normal(1, length, H)), normal(1, length, H, P).to(dtype)
    return v, N**-0.5 * q, k, log_decay, beta, normal(1, H, P, N)


def flash_linear_attention(
    v: Tensor, q: Tensor, k: Tensor, log_decay: Tensor, beta: Tensor, state: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Their scan; heads of values that share a key get it repeated, as transformers does."""
    q, k = (x.repeat_interleave(v.shape[2] // x.shape[2], 2) for x in (q, k))
    options: dict[str, Any] = {"initial_state": None if state is None else state.mT, "output_final_state": True}
    if log_decay.shape[3] > 1:
        o, last = chunk_kda(q, k, v, log_decay, beta, scale=1.0, **options)
    else:
        o, last = chunk_gated_delta_rule(q, k, v, log_decay[..., 0], beta, scale=1.0, **options)
    return o, last.mT


def transformers_rule(
    v: Tensor, q: Tensor, k: Tensor, log_decay: Tensor, beta: Tensor, _: None
) -> tuple[Tensor, Tensor]:
    """What transformers computes where flash-linear-attention is not installed."""
    q, k = (x.repeat_interleave(v.shape[2] // x.shape[2], 2) for x in (q, k))
    o, last = torch_chunk_gated_delta_rule(q, k, v, log_decay[..., 0], beta, output_final_state=True)
    return o, last.mT


def errors(
    shape: Shape, length: int, dtype: torch.dtype, scans: dict[str, Callable[..., Any]]
) -> dict[str, list[float] | str]:
    """Relative L2 errors of o, last state, and gradients of v and initial state, by scan."""
    arguments = inputs(shape, length, dtype)
    cotangents = [torch.randn_like(arguments[0]), torch.randn_like(arguments[5])]
    exact = with_gradients(delta_scan_chunked, tuple(x.double() for x in arguments), [c.double() for c in cotangents])
    found: dict[str, list[float] | str] = {}
    for name, scan in scans.items():

        def compared(scan: Callable[..., Any] = scan) -> list[float]:
            pairs = zip(with_gradients(scan, arguments, cotangents), exact, strict=True)
            return [((value.double() - e).norm() / e.norm()).item() for value, e in pairs]

        with patch("torch.empty", poisoned):
            found[name] = attempt(compared)
    return found


def tuned(tuning: Tuning | None) -> Callable[..., Any]:
    return lambda *arguments: delta_scan_triton(*arguments, tuning=tuning)


def candidates(shape: Shape, dtype: torch.dtype) -> list[Tuning]:
    """The default first."""
    first = tuning_for(dtype, shape.P, shape.N, shape.H, processors(torch.device(DEVICE)))
    cuts = [
        (64, 64, 8, 2),
        (64, 32, 8, 2),
        (64, 32, 4, 2),
        (64, 16, 4, 2),
        (64, 16, 8, 3),
        (32, 32, 4, 3),
        (32, 16, 4, 3),
    ]
    return [first, *(Tuning(*cut) for cut in cuts)]


def sweep(name: str, length: int, dtype: torch.dtype) -> dict[str, Any]:
    """Cuts of the work of one shape."""
    arguments, results = inputs(SHAPES[name], length, dtype), {}
    print(f"\n{name} L {length}: forward and transposed ms; the same back to back")
    for tuning in candidates(SHAPES[name], dtype):
        found = attempt(lambda tuning=tuning: both_ways(tuned(tuning), arguments))
        results[f"{name} {tuple(tuning)}"] = found
        print(f"  {tuple(tuning)!s:32} {shown(found)}", flush=True)
    return results


def compare(name: str, length: int, dtype: torch.dtype) -> dict[str, Any]:
    """All scans on one shape; the last numbers are the ratios to flash-linear-attention, or else to transformers."""
    arguments = inputs(SHAPES[name], length, dtype)
    row: dict[str, Any] = {"shape": name, "length": length}
    row["triton"] = attempt(lambda: both_ways(delta_scan_triton, arguments))
    if chunk_kda is not None:
        row["fla"] = attempt(lambda: both_ways(flash_linear_attention, arguments, parameters=True))
    elif not SHAPES[name].by_channel and length <= 4096:
        row["transformers"] = attempt(lambda: both_ways(transformers_rule, arguments, parameters=True))
    found = [row[key] for key in ("triton", "fla", "transformers") if key in row]
    timed = [times for times in found if not isinstance(times, str)]
    comparable = DEVICE == "cuda" and len(timed) == 2
    row["ratios"] = [ours / theirs for ours, theirs in zip(*timed, strict=True)] if comparable else None
    ratios = "" if row["ratios"] is None else " ".join(f"{ratio:.2f}" for ratio in row["ratios"])
    print(f"{name:14} L {length:6} |", " | ".join(shown(times) for times in found), "|", ratios, flush=True)
    return row


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    timed = [name for name in SHAPES if not name.startswith("tiny")]
    parser.add_argument("--shapes", nargs="+", default=timed, choices=list(SHAPES))
    parser.add_argument("--lengths", nargs="+", type=int, default=[512, 4096, 32768])
    parser.add_argument("--dtype", default="bfloat16", choices=list(DTYPES))
    parser.add_argument("--gate-length", type=int, default=1001)
    parser.add_argument("--sweep", action="store_true", help="other cuts of the work too, at the second length")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    dtype = DTYPES[arguments.dtype]
    device = torch.cuda.get_device_name() if DEVICE == "cuda" else "cpu, interpreted: times say nothing"
    packages = ["torch", "triton", *(["fla-core"] if chunk_kda is not None else [])]
    results: dict[str, Any] = {"date": date.today().isoformat(), "device": device, "dtype": arguments.dtype}
    results |= {package: version(package) for package in packages} | {"errors": {}, "sweep": {}, "times": []}
    print(device, "torch", torch.__version__)
    scans: dict[str, Callable[..., Any]] = {"triton": delta_scan_triton}
    if chunk_kda is not None:
        scans["fla"] = flash_linear_attention
    passed = []
    for name in arguments.shapes:
        results["errors"][name] = found = errors(SHAPES[name], arguments.gate_length, dtype, scans)
        print(f"{name}: errors of o, last, grad v, grad state: {found}", flush=True)
        if not isinstance(found["triton"], str) and max(found["triton"]) <= BOUND[dtype]:
            passed.append(name)
    for name, length in product(passed, arguments.lengths):
        results["times"].append(compare(name, length, dtype))
    if arguments.sweep:
        for name in passed:
            results["sweep"] |= sweep(name, arguments.lengths[min(1, len(arguments.lengths) - 1)], dtype)
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1) + "\n")
    failed = [name for name in arguments.shapes if name not in passed]
    print(f"over the bound: {failed or 'nothing'}")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
