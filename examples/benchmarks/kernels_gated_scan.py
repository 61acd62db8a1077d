"""Check and time the gated scan's kernels on a GPU, for every way of cutting it into programs, beside mamba-ssm's.

    python examples/benchmarks/kernels_gated_scan.py --json run.json

First a comparison with a float64 loop, every configuration; then device time of the forward and the transposed scan:
CUDA graphs of calls on rotating inputs that together exceed the cache, median over replays. mamba-ssm's selective scan
computes the same forward (softplus, skip and gate included) in its own (B, E, L) layout; its backward also has the
gradients of the parameters. A configuration that fails is printed and left out.
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from datetime import date
from functools import partial
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # read when triton is imported

from hf_mambalrp.ops.gated_scan.triton import BACKWARD, FORWARD, Config, gated_scan_backward, gated_scan_forward

GPU = torch.cuda.is_available()
RANKS = {1536: 48, 5120: 160}
"""E of mamba-130m and mamba-2.8b: R, the width of the step sizes in front of B and C."""
CACHE = 2 * 60 * 2**20
CONFIGS = [
    *(Config(together=together) for together in (1, 2, 4, 8, 16)),
    *(Config(16, unroll, warps) for unroll in (2, 4, 8) for warps in (8, 12, 16, 20)),
    *(Config(16, 1, warps) for warps in (8, 16)),
    *(Config(32, unroll, warps) for unroll in (1, 2) for warps in (4, 8)),
    *(Config(8, unroll, warps) for unroll in (2, 4) for warps in (8, 16)),
    *(Config(states, 4, 0) for states in (2, 4, 8, 16)),
]
TOLERANCE = {torch.float32: 5e-5, torch.bfloat16: 1e-2}
"""Were the GPU's exponential, good to 2.4e-7, always off to the same side, 1000 steps would be off by 3e-5."""

Row = dict[str, Any]


def inputs(batch: int, length: int, channels: int, dtype: torch.dtype, states: int = 16, seed: int = 0) -> list[Tensor]:
    """u, delta, z, A_log, B, C, D, bias as a mixer of that width has them: z, B and C slices, A_log transposed."""
    device = torch.device("cuda" if GPU else "cpu")
    g = torch.Generator(device).manual_seed(seed)
    normal = partial(torch.randn, generator=g, device=device)
    rank = RANKS.get(channels, 8)
    u, delta = (normal(batch, length, channels).to(dtype) for _ in range(2))
    z = normal(batch, length, 2 * channels).to(dtype)[..., channels:]
    _, B, C = normal(batch, length, rank + 2 * states).to(dtype).split([rank, states, states], -1)
    rates = torch.arange(1, states + 1, device=device).float()[:, None] * (0.5 + torch.rand(channels, device=device))
    # Steps of 0.001 to 0.1, the initialisation of the paper's models.
    steps = torch.exp(torch.empty(channels, device=device).uniform_(-6.9, -2.3, generator=g))
    return [u, delta, z, rates.log().t(), B, C, normal(channels), torch.log(torch.expm1(steps))]


def exact(arguments: list[Tensor], initial: Tensor, g: Tensor, G_last: Tensor) -> list[Tensor]:
    """Outputs and modified gradients step by step, in float64."""
    u, delta, z, A_log, B, C, D, bias, h, g, G = (value.double() for value in (*arguments, initial, g, G_last))
    A = -torch.exp(A_log)
    dt, sigmoid = torch.nn.functional.softplus(delta + bias), torch.sigmoid(z)
    y, gu, gy = torch.empty_like(u), torch.empty_like(u), g * z * sigmoid / 2
    for t in range(u.shape[1]):
        h = torch.exp(dt[:, t, :, None] * A) * h + (dt[:, t] * u[:, t])[:, :, None] * B[:, t, None]
        y[:, t] = torch.einsum("ben,bn->be", h, C[:, t]) + D * u[:, t]
    for t in reversed(range(u.shape[1])):
        q = C[:, t, None] * gy[:, t, :, None] + G
        gu[:, t] = dt[:, t] * torch.einsum("ben,bn->be", q, B[:, t]) + D * gy[:, t]
        G = torch.exp(dt[:, t, :, None] * A) * q
    return [y * z * sigmoid, h, gu, g * y * sigmoid / 2, G]


def errors(configs: list[Config], shape: tuple[int, int, int], dtype: torch.dtype) -> dict[Config, float]:
    """Largest relative L2 error of the five results; infinite where a configuration fails."""
    arguments = inputs(*shape, dtype)
    u, delta, z, A_log, B, C, D, bias = arguments
    initial, G_last = states(arguments), states(arguments)
    g = torch.randn_like(u)
    expected, found = exact(arguments, initial, g, G_last), {}
    for config in configs:
        try:
            p, y, last = gated_scan_forward(*arguments, initial, config=config)
            gu, gz, G = gated_scan_backward(g, G_last, delta, z, y, A_log, B, C, D, bias, config=config)
            pairs = zip((p, last, gu, gz, G), expected, strict=True)
            found[config] = max(float((one.double() - other).norm() / other.norm()) for one, other in pairs)
        except Exception as error:
            print(f"{config}: {type(error).__name__}: {str(error)[:300]}")
            found[config] = float("inf")
    return found


def states(arguments: list[Tensor]) -> Tensor:
    """Some (B, E, N), held as the kernels hold them."""
    u, A_log = arguments[0], arguments[3]
    return torch.randn(u.shape[0], *A_log.t().shape, device=u.device).transpose(1, 2)


def compile_ahead(config: Config, dtype: torch.dtype, channels: int) -> None:
    """Fill triton's cache on disk."""
    arguments = inputs(1, 256, channels, dtype)
    try:
        p, y, last = gated_scan_forward(*arguments, states(arguments), config=config)
        gated_scan_backward(p, last, arguments[1], arguments[2], y, *arguments[3:], config=config)
    except Exception:
        return  # the check meets it again, and says so


def milliseconds(calls: list[Callable[[], object]], replays: int = 15) -> float:
    """Device time of one call: all of them captured in one graph, or, where that fails, one after the other."""
    for call in calls:
        call()
    torch.cuda.synchronize()
    replay: Callable[[], object]
    try:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for call in calls:
                call()
        replay = graph.replay
    except Exception as error:
        print(f"(no graph: {type(error).__name__})")
        torch.cuda.synchronize()
        replay = lambda: [call() for call in calls]  # noqa: E731
    replay()
    times = []
    for _ in range(replays):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        replay()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end))
    return float(statistics.median(times)) / len(calls)


def ours(sets: list[list[Tensor]], config: Config, float32_parameters: bool = False) -> tuple[float, float]:
    """Forward and transposed; with ``float32_parameters`` B and C are converted first, in the time."""

    def parameters(s: list[Tensor]) -> list[Tensor]:
        return [s[3], *(v.float() if float32_parameters else v for v in s[4:6]), *s[6:8]]

    def forward(s: list[Tensor]) -> tuple[Tensor, ...]:
        return gated_scan_forward(*s[:3], *parameters(s), initial_state=s[9], config=config)

    def backward(s: list[Tensor], y: Tensor) -> tuple[Tensor, ...]:
        return gated_scan_backward(s[8], s[9], *s[1:3], y, *parameters(s), config=config)

    kept = [forward(s)[1] for s in sets]
    return milliseconds([partial(forward, s) for s in sets]), milliseconds(
        [partial(backward, s, y) for s, y in zip(sets, kept, strict=True)]
    )


def mamba_ssm(sets: list[list[Tensor]]) -> tuple[float, float]:
    """Forward and backward of mamba-ssm's kernels, channels-first as they want it."""
    from mamba_ssm.ops.selective_scan_interface import selective_scan_fn

    def scan(u: Tensor, delta: Tensor, z: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, bias: Tensor) -> Tensor:
        p: Tensor = selective_scan_fn(u, delta, A, B, C, D, z=z, delta_bias=bias, delta_softplus=True)
        return p

    turned, graphs = [], []
    for s in sets:
        leaves = [s[i].transpose(1, 2).contiguous() if i in (0, 1, 2, 4, 5) else s[i].contiguous() for i in range(8)]
        leaves[3] = -torch.exp(leaves[3])
        leaves = [leaf.detach().requires_grad_() for leaf in leaves]
        turned.append(leaves)
        graphs.append((scan(*leaves), leaves, s[8].transpose(1, 2).contiguous()))

    def forward(leaves: list[Tensor]) -> Tensor:
        with torch.no_grad():
            return scan(*leaves)

    def backward(p: Tensor, leaves: list[Tensor], g: Tensor) -> object:
        return torch.autograd.grad(p, leaves, g, retain_graph=True)

    times = milliseconds([partial(forward, leaves) for leaves in turned])
    return times, milliseconds([partial(backward, *graph) for graph in graphs])


def name_of(config: Config) -> str:
    """States, unroll, warps of a multiprocessor and, where they are several, of a program."""
    return " ".join(map(str, config[:3])) + (f" x{config.together}" if config.together > 1 else "")


def timed(shape: tuple[int, int, int], dtype: torch.dtype, configs: list[Config]) -> list[Row]:
    """A row for mamba-ssm and one per configuration, fastest first."""
    batch, length, channels = shape
    size = batch * length * channels * dtype.itemsize
    count = max(1, min(8, CACHE // (4 * size)))
    sets = [
        [*(s := inputs(*shape, dtype, seed=seed)), torch.randn(shape, device=s[0].device).to(dtype), states(s)]
        for seed in range(count)
    ]
    ways: dict[str, Callable[[], tuple[float, float]]] = {"mamba-ssm": partial(mamba_ssm, sets)}
    for config in configs:
        ways[name_of(config)] = partial(ours, sets, config)
    ways[name_of(FORWARD) + " B, C float32"] = partial(ours, sets, FORWARD, True)
    rows = []
    for name, way in ways.items():
        try:
            forward, backward = way()
        except ImportError:
            print("mamba_ssm is not installed: not compared")
            continue
        except Exception as error:
            print(f"{shape} {name}: {type(error).__name__}: {str(error)[:200]}")
            torch.cuda.synchronize()
            continue
        rows.append({"B": batch, "L": length, "E": channels, "dtype": str(dtype).removeprefix("torch."), "what": name,
                     "forward_ms": forward, "backward_ms": backward})  # fmt: skip
    return rows


def show(rows: list[Row], best: int) -> None:
    """The fastest, and each time over mamba-ssm's."""
    base = next((row for row in rows if row["what"] == "mamba-ssm"), None)
    print(f"\nB {rows[0]['B']} L {rows[0]['L']} E {rows[0]['E']} {rows[0]['dtype']}: states unroll warps (xtogether)")
    if base:
        print(f"  mamba-ssm                forward {base['forward_ms']:9.4f}   backward {base['backward_ms']:9.4f} ms")
    for which in ("forward_ms", "backward_ms"):
        for row in sorted((row for row in rows if row is not base), key=lambda row: row[which])[:best]:
            ratio = f"{row[which] / base[which]:.2f} x" if base else ""
            print(f"  {which[:-3]:9}{row['what']:24} {row[which]:9.4f} ms  {ratio}")


def defaults(rows: list[Row]) -> None:
    """One line per shape for the configurations that the library uses."""
    print("\ndefaults\n| B | L | E | dtype | forward ms | / mamba-ssm | backward ms | / mamba-ssm | best of each |")
    shapes = dict.fromkeys((row["B"], row["L"], row["E"], row["dtype"]) for row in rows)
    for shape in shapes:
        here = {row["what"]: row for row in rows if (row["B"], row["L"], row["E"], row["dtype"]) == shape}
        base, line = here.get("mamba-ssm"), [str(part) for part in shape]
        for which, config in (("forward_ms", FORWARD), ("backward_ms", BACKWARD)):
            row = here.get(name_of(config))
            line += [f"{row[which]:.4f}" if row else "-", f"{row[which] / base[which]:.2f}" if row and base else "-"]
        mine = [row for row in here.values() if row is not base]
        line.append(", ".join(f"{min(row[w] for row in mine):.4f}" for w in ("forward_ms", "backward_ms")))
        print("| " + " | ".join(line) + " |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--channels", type=int, nargs="+", default=[1536, 5120])
    parser.add_argument("--lengths", type=int, nargs="+", default=[512, 4096, 16384, 65536])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--most-tokens", type=int, default=2**17, help="of a shape, B times L")
    parser.add_argument("--best", type=int, default=3, help="configurations shown for each shape and direction")
    parser.add_argument("--jobs", type=int, default=12, help="processes that compile")
    parser.add_argument("--json", type=Path, help="write all numbers here")
    arguments = parser.parse_args()

    configs = list(dict.fromkeys([FORWARD, BACKWARD, *CONFIGS]))
    if not GPU:
        print("No GPU: a check of one configuration in triton's interpreter, no times.")
        print(errors([Config(16, 2, 8, 2)], (1, 5, 20), torch.float32))
        return
    begin = time.perf_counter()
    with ProcessPoolExecutor(arguments.jobs, mp_context=get_context("spawn")) as pool:
        cuts = dict.fromkeys(config._replace(warps=warps) for config in configs for warps in (8, 0))
        list(pool.map(compile_ahead, *zip(*product(cuts, TOLERANCE, arguments.channels), strict=True)))
    print(f"{torch.cuda.get_device_name()}, compiled in {time.perf_counter() - begin:.0f} s")

    right = set(configs)
    for shape, dtype, checked in [
        ((1, 1001, 1536), torch.float32, configs),
        ((1, 1001, 1536), torch.bfloat16, configs),
        ((2, 333, 5120), torch.bfloat16, configs),
        ((3, 131, 1000), torch.float32, configs[:1]),  # odd strides: compiled once more
    ]:
        found = errors(checked, shape, dtype)
        wrong = {config for config, error in found.items() if not error <= TOLERANCE[dtype]}
        right -= wrong
        print(f"{shape} {dtype}: largest error {max(found.values()):.1e}, wrong: {[*wrong] or 'none'}")
    torch.cuda.empty_cache()

    rows = []
    shapes = [(b, length, e) for e in arguments.channels for b in arguments.batches for length in arguments.lengths]
    for shape in shapes:
        if shape[0] * shape[1] <= arguments.most_tokens:
            rows.append(timed(shape, torch.bfloat16, [config for config in configs if config in right]))
            show(rows[-1], arguments.best)
    rows.append(timed((1, 4096, 1536), torch.float32, [config for config in configs if config in right]))
    show(rows[-1], arguments.best)
    flat = [row for of_shape in rows for row in of_shape]
    defaults(flat)
    if arguments.json:
        run = {"date": date.today().isoformat(), "device": torch.cuda.get_device_name(), "torch": torch.__version__}
        arguments.json.write_text(json.dumps({**run, "rows": flat}, indent=1) + "\n")
    print(f"{time.perf_counter() - begin:.0f} s in all")


if __name__ == "__main__":
    main()
