"""Benchmark of hidden attention: the mean over channels in every layer, and one row alone, on random weights.

Correctness first: entries are compared with the formula in float64, or nothing is timed.

    python examples/benchmarks/attention.py                                  # the 130M shape, two threads
    python examples/benchmarks/attention.py --family mamba2 --kind unified
    python examples/benchmarks/attention.py --device cuda --length 4096
"""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from datetime import date
from multiprocessing import get_context
from pathlib import Path

import torch
import transformers
from cpu import CONFIGURATIONS, MIB, build, resident_peak, tokens
from transformers import PreTrainedModel

from hf_mambalrp.families import FAMILIES, Network

TOLERANCE = 1e-5
"""Largest error of an entry in float32, relative to the largest entry checked."""


def placed(arguments: argparse.Namespace) -> tuple[PreTrainedModel, torch.Tensor]:
    """The model and its input on the device."""
    return build(arguments).to(arguments.device), tokens(arguments, arguments.length)


CALLS: dict[str, Callable[[PreTrainedModel, torch.Tensor, str], object]] = {
    "mean over channels, L x L": lambda model, ids, kind: model.hidden_attention(ids, kind=kind),
    "the last row": lambda model, ids, kind: model.hidden_attention(ids, kind=kind, positions=-1),
}


def check(model: PreTrainedModel, ids: torch.Tensor) -> None:
    """Stop unless entries of the first layer's raw attention are what the formula gives from the same signals."""
    found = model.hidden_attention(ids, layers=0).matrix[0, 0].double()
    network = Network(model, FAMILIES)
    embeddings = network.embed(ids)
    ((_, s),) = network.mixings(0, embeddings, network.plain_step(torch.ones_like(ids), embeddings))
    dt, A, B, C = (value.double().cpu() for value in (s.dt[0], s.A, s.B[0], s.C[0]))
    if A.dim() == 1:  # Mamba-2: channels are heads, which share B and C in a group
        A = A[:, None]
        B, C = (value.repeat_interleave(len(A) // value.shape[1], 1) for value in (B, C))
    else:
        B, C = B[:, None], C[:, None]
    length = ids.shape[1]
    wanted = [(length - 1, length // 3), (length // 2, length // 2), (length - 1, length - 2), (length // 2, 0), (0, 0)]
    expected = []
    for i, j in wanted:
        decay = torch.exp(dt[j + 1 : i + 1].sum(0)[:, None] * A)
        expected.append(((C[i] * decay * B[j]).sum(-1) * dt[j]).mean())
    entries = torch.stack([found[i, j] for i, j in wanted])
    error = float((entries - torch.stack(expected)).abs().max() / torch.stack(expected).abs().max())
    if not error < TOLERANCE:
        raise SystemExit(f"wrong: entries differ from the formula by {error:.1e} of the largest")
    print(f"correct: entries within {error:.1e} of the formula in float64")


def seconds(call: Callable[[], object], repeats: int, warm: bool) -> float:
    """Median wall-clock time; the result is on the CPU, so a GPU has finished."""
    if warm:
        call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def peak_memory(arguments: argparse.Namespace, name: str) -> int:
    """Largest memory during a call above that before it, in MiB; for a process of its own.

    Of a GPU what torch allocates; of the CPU the resident memory, sampled every 2 ms.
    """
    model, ids = placed(arguments)
    model.hidden_attention(ids[:, :8])
    if arguments.device != "cpu":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        CALLS[name](model, ids, arguments.kind)
        return round((torch.cuda.max_memory_allocated() - before) / MIB)
    return resident_peak(lambda: CALLS[name](model, ids, arguments.kind))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", choices=sorted(CONFIGURATIONS), default="mamba")
    parser.add_argument("--hidden-size", type=int, default=768)
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--vocabulary", type=int, default=50280)
    parser.add_argument("--length", type=int, default=1024)
    parser.add_argument("--kind", choices=["raw", "unified"], default="raw")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write the numbers of this run here")
    arguments = parser.parse_args()

    model, ids = placed(arguments)
    check(model, ids)
    rows = []
    for name, call in CALLS.items():
        taken = seconds(
            lambda call=call: call(model, ids, arguments.kind), arguments.repeats, arguments.device != "cpu"
        )
        with ProcessPoolExecutor(1, get_context("spawn")) as process:
            memory = process.submit(peak_memory, arguments, name).result()
        rows.append({"what": name, "seconds": taken, "per_layer": taken / arguments.layers, "peak_mib": memory})

    print(
        f"\n{arguments.family}, {arguments.kind}, L = {arguments.length}, {arguments.layers} layers, {arguments.device}"
    )
    print("| what | seconds, all layers | seconds a layer | peak memory above weights |\n|---|---|---|---|")
    for row in rows:
        print(f"| {row['what']} | {row['seconds']:.2f} | {row['per_layer']:.3f} | {row['peak_mib']} MiB |")
    if arguments.json:
        on_gpu = arguments.device != "cpu"
        run = {
            "date": date.today().isoformat(),
            "device": torch.cuda.get_device_name() if on_gpu else platform.machine(),
            "threads": arguments.threads,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "family": arguments.family,
            "kind": arguments.kind,
            "length": arguments.length,
            "shape": {"hidden_size": arguments.hidden_size, "layers": arguments.layers},
            "rows": rows,
        }
        arguments.json.write_text(json.dumps(run, indent=1) + "\n")


if __name__ == "__main__":
    main()
