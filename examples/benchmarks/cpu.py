"""CPU benchmark: explain() beside transformers' own forward and gradient x input, in one process, on random weights.

Beside them the matrix products alone that an explanation needs, which no implementation can do without: those of every
layer forward, and transposed those that relevance goes through. Correctness first: relevance must sum to the score and
the score must be the model's own logit, or nothing is timed.

    python examples/benchmarks/cpu.py                      # the 130M shape, two threads; some minutes
    python examples/benchmarks/cpu.py --family mamba2      # or falcon_mamba
    python examples/benchmarks/cpu.py --hidden-size 128 --layers 4 --lengths 64 128 --gradient-length 32

On a machine that others use too, each call again beside programs that never wait, as many as are asked for:

    python examples/benchmarks/cpu.py --lengths 512 --neighbours 1
    OMP_WAIT_POLICY=passive python examples/benchmarks/cpu.py --lengths 512 --neighbours 1
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from datetime import date
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import psutil
import torch
import transformers
from transformers import FalconMambaConfig, Mamba2Config, MambaConfig, PreTrainedModel

from hf_mambalrp import AutoMambaLRPForCausalLM

MIB = 2**20


def seconds(calls: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median wall-clock time of each call, one after the other in turn, so that a change of the machine meets all."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()  # warm up
    for _ in range(repeats):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


@contextmanager
def busy(neighbours: int) -> Iterator[None]:
    """Programs beside this one that never wait."""
    programs = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(neighbours)]
    try:
        yield
    finally:
        for program in programs:
            program.kill()
            program.wait()


HEAD_DIM = 64
CONFIGURATIONS = {
    "mamba": lambda hidden_size: MambaConfig(hidden_size=hidden_size),
    "falcon_mamba": lambda hidden_size: FalconMambaConfig(hidden_size=hidden_size),
    "mamba2": lambda hidden_size: Mamba2Config(
        hidden_size=hidden_size, head_dim=HEAD_DIM, num_heads=2 * hidden_size // HEAD_DIM, state_size=128, n_groups=1
    ),
}


def build(arguments: argparse.Namespace) -> PreTrainedModel:
    """A model of the asked shape with random weights."""
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    config = CONFIGURATIONS[arguments.family](arguments.hidden_size)
    config.vocab_size, config.num_hidden_layers = arguments.vocabulary, arguments.layers
    config.initializer_range = 0.02  # transformers' default of 0.1 makes a chaotic network
    model: PreTrainedModel = AutoMambaLRPForCausalLM.from_config(config).eval()
    return model


def tokens(arguments: argparse.Namespace, length: int) -> torch.Tensor:
    """One row of random ids."""
    return torch.randint(0, arguments.vocabulary, (1, length), generator=torch.Generator().manual_seed(length))


def peak_memory(arguments: argparse.Namespace, name: str, length: int) -> int:
    """Largest resident memory during one call above that before it, in MiB, sampled every 2 ms.

    For a process of its own: what an allocator holds from earlier calls is not this one's. A short call before it
    loads the compiled code, about 180 MiB with numba (Mamba-2 has none), which is not counted.
    """
    model, ids = build(arguments), tokens(arguments, length)
    model.explain(ids[:, :8], target=7, backend="auto" if arguments.family == "mamba2" else "compiled")
    return resident_peak(lambda: CALLS[name](model, ids))


def resident_peak(call: Callable[[], object]) -> int:
    """Largest resident memory during a call above that before it, in MiB, sampled every 2 ms."""
    process, done = psutil.Process(), threading.Event()
    before = peak = process.memory_info().rss

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.002):
            peak = max(peak, process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    call()
    done.set()
    watcher.join()
    return round((peak - before) / MIB)


def check(model: PreTrainedModel, ids: torch.Tensor) -> None:
    """Stop unless the score is the model's own logit and the explanation accounts for it."""
    explanation = model.explain(ids, target=7)
    with torch.no_grad():
        logit = model(ids, use_cache=False).logits[:, -1, 7]
    torch.testing.assert_close(explanation.score, logit, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(explanation.conservation.gap, torch.zeros(len(ids)), rtol=0, atol=1e-4)


def hf_gradient_x_input(model: PreTrainedModel, ids: torch.Tensor) -> torch.Tensor:
    """What a user would write without this package."""
    embeddings = model.get_input_embeddings()(ids).detach().requires_grad_()
    logit = model(inputs_embeds=embeddings, use_cache=False).logits[0, -1, 7]
    return (torch.autograd.grad(logit, embeddings)[0] * embeddings).sum(-1)


def hf_forward(model: PreTrainedModel, ids: torch.Tensor) -> None:
    """transformers' own forward."""
    with torch.no_grad():
        model(ids, use_cache=False)


def products(model: PreTrainedModel, ids: torch.Tensor) -> None:
    """The layers' matrix products, forward, and transposed of the two that relevance goes through.

    Step sizes, B and C are constants of MambaLRP, so the projections that make them are not transposed.
    """
    with torch.no_grad():
        for name, module in model.get_decoder().named_modules():
            if isinstance(module, torch.nn.Linear):
                torch.ones(ids.numel(), module.in_features) @ module.weight.t()
                if name.endswith(("in_proj", "out_proj")):
                    torch.ones(ids.numel(), module.out_features) @ module.weight


CALLS: dict[str, Callable[[PreTrainedModel, torch.Tensor], object]] = {
    "explain()": lambda model, ids: model.explain(ids, target=7),
    "matrix products": products,
    "HF forward, no gradient": hf_forward,
    "HF gradient x input": hf_gradient_x_input,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", choices=sorted(CONFIGURATIONS), default="mamba")
    parser.add_argument("--hidden-size", type=int, default=768)
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--vocabulary", type=int, default=50280)
    parser.add_argument("--lengths", type=int, nargs="+", default=[128, 512, 2048])
    parser.add_argument(
        "--forward-lengths", type=int, nargs="*", default=[128, 512], help="of these, where HF's is timed"
    )
    parser.add_argument("--gradient-length", type=int, default=128, help="of these, where HF gradient x input is")
    parser.add_argument("--neighbours", type=int, default=0, help="time each call again beside so many busy programs")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write the numbers of this run here")
    arguments = parser.parse_args()

    model = build(arguments)
    check(model, tokens(arguments, min(arguments.lengths)))
    where = {
        "explain()": arguments.lengths,
        "matrix products": arguments.lengths,
        "HF forward, no gradient": arguments.forward_lengths,
        "HF gradient x input": [arguments.gradient_length],
    }
    rows = []
    for length in arguments.lengths:
        ids = tokens(arguments, length)
        calls = {name: partial(call, model, ids) for name, call in CALLS.items() if length in where[name]}
        alone = seconds(calls, arguments.repeats)
        with busy(arguments.neighbours):
            beside = seconds(calls, arguments.repeats) if arguments.neighbours else {}
        for name, median in alone.items():
            with ProcessPoolExecutor(1, get_context("spawn")) as process:
                memory = process.submit(peak_memory, arguments, name, length).result()
            rows.append({"what": name, "length": length, "seconds": median, "peak_mib": memory})
            if arguments.neighbours:
                rows[-1]["seconds_beside_neighbours"] = beside[name]

    more = [f"seconds beside {arguments.neighbours} busy", "x alone"] if arguments.neighbours else []
    columns = ["what", "L", "seconds", "x matrix products", "x HF forward", "peak memory above weights and code", *more]
    print(f"| {' | '.join(columns)} |")
    print("|---" * len(columns) + "|")
    for row in rows:
        others = {other["what"]: other["seconds"] for other in rows if other["length"] == row["length"]}
        ratios = [
            f"{row['seconds'] / others[other]:.2f}" if other in others else ""
            for other in ("matrix products", "HF forward, no gradient")
        ]
        cells = [row["what"], row["length"], f"{row['seconds']:.2f}", *ratios, f"{row['peak_mib']} MiB"]
        if arguments.neighbours:
            slowed = row["seconds_beside_neighbours"]
            cells += [f"{slowed:.2f}", f"{slowed / row['seconds']:.2f}"]
        print(f"| {' | '.join(map(str, cells))} |")
    if arguments.json:
        arguments.json.write_text(
            json.dumps(
                {
                    "date": date.today().isoformat(),
                    "machine": platform.machine(),
                    "threads": arguments.threads,
                    "neighbours": arguments.neighbours,
                    "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY"),
                    "torch": torch.__version__,
                    "transformers": transformers.__version__,
                    "family": arguments.family,
                    "shape": {"hidden_size": arguments.hidden_size, "layers": arguments.layers},
                    "rows": rows,
                },
                indent=1,
            )
            + "\n"
        )


if __name__ == "__main__":
    main()
