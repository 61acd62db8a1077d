"""CPU benchmark: explain() beside transformers' own forward and gradient x input, in one process, on random weights.

Correctness first: relevance must sum to the score and the score must be the model's own logit, or nothing is timed.

    python examples/benchmarks/cpu.py                      # the 130M shape, two threads; some minutes
    python examples/benchmarks/cpu.py --hidden-size 128 --layers 4 --lengths 64 128 --gradient-length 32
"""

import argparse
import json
import platform
import statistics
import threading
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

import psutil
import torch
import transformers
from transformers import MambaConfig

from hf_mambalrp import MambaLRPForCausalLM

MIB = 2**20


def seconds(call: Callable[[], object], repeats: int) -> float:
    """Median wall-clock time of a call, after one call to warm up."""
    call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def peak_memory(call: Callable[[], object]) -> float:
    """Largest resident memory during a call above that before it, in MiB, sampled every 2 ms."""
    process, done = psutil.Process(), threading.Event()
    before = peak = process.memory_info().rss

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.002):
            peak = max(peak, process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        call()
    finally:
        done.set()
        watcher.join()
    return (peak - before) / MIB


def check(model: MambaLRPForCausalLM, ids: torch.Tensor) -> None:
    """Stop unless the score is the model's own logit and the explanation accounts for it."""
    explanation = model.explain(ids, target=7)
    with torch.no_grad():
        logit = model(ids, use_cache=False).logits[:, -1, 7]
    torch.testing.assert_close(explanation.score, logit, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(explanation.conservation.gap, torch.zeros(len(ids)), rtol=0, atol=1e-4)


def hf_gradient_x_input(model: MambaLRPForCausalLM, ids: torch.Tensor) -> torch.Tensor:
    """What a user would write without this package."""
    embeddings = model.get_input_embeddings()(ids).detach().requires_grad_()
    logit = model(inputs_embeds=embeddings, use_cache=False).logits[0, -1, 7]
    return (torch.autograd.grad(logit, embeddings)[0] * embeddings).sum(-1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hidden-size", type=int, default=768)
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--vocabulary", type=int, default=50280)
    parser.add_argument("--lengths", type=int, nargs="+", default=[128, 512, 2048])
    parser.add_argument(
        "--forward-lengths", type=int, nargs="*", default=[128, 512], help="where HF's forward is timed"
    )
    parser.add_argument("--gradient-length", type=int, default=128, help="HF gradient x input is quadratic: keep short")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write the numbers of this run here")
    arguments = parser.parse_args()

    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    config = MambaConfig(
        vocab_size=arguments.vocabulary,
        hidden_size=arguments.hidden_size,
        num_hidden_layers=arguments.layers,
        initializer_range=0.02,  # transformers' default of 0.1 makes a chaotic network
    )
    model = MambaLRPForCausalLM(config).eval()
    inputs = {
        length: torch.randint(0, arguments.vocabulary, (1, length))
        for length in sorted({*arguments.lengths, *arguments.forward_lengths, arguments.gradient_length})
    }
    check(model, inputs[min(inputs)])

    def forward(ids: torch.Tensor) -> None:
        with torch.no_grad():
            model(ids, use_cache=False)

    rows = []
    # Memory first and from long to short would reuse what the allocator holds; from short to long each is a new peak.
    for length in arguments.lengths:
        ids = inputs[length]
        memory = peak_memory(lambda ids=ids: model.explain(ids, target=7))
        rows.append(
            {
                "what": "explain()",
                "length": length,
                "peak_mib": round(memory),
                "seconds": seconds(lambda ids=ids: model.explain(ids, target=7), arguments.repeats),
            }
        )
    for length in arguments.forward_lengths:
        ids = inputs[length]
        rows.append(
            {
                "what": "HF forward, no gradient",
                "length": length,
                "peak_mib": None,
                "seconds": seconds(lambda ids=ids: forward(ids), arguments.repeats),
            }
        )
    ids = inputs[arguments.gradient_length]
    memory = peak_memory(lambda: hf_gradient_x_input(model, ids))
    rows.append(
        {
            "what": "HF gradient x input",
            "length": arguments.gradient_length,
            "peak_mib": round(memory),
            "seconds": seconds(lambda: hf_gradient_x_input(model, ids), 1),
        }
    )

    forwards = {row["length"]: row["seconds"] for row in rows if row["what"].startswith("HF forward")}
    print("| what | L | seconds | x HF forward | peak memory above the weights |")
    print("|---|---|---|---|---|")
    for row in rows:
        ratio = f"{row['seconds'] / forwards[row['length']]:.2f}" if row["length"] in forwards else ""
        memory_text = "" if row["peak_mib"] is None else f"{row['peak_mib']} MiB"
        print(f"| {row['what']} | {row['length']} | {row['seconds']:.2f} | {ratio} | {memory_text} |")
    if arguments.json:
        arguments.json.write_text(
            json.dumps(
                {
                    "date": date.today().isoformat(),
                    "machine": platform.machine(),
                    "threads": arguments.threads,
                    "torch": torch.__version__,
                    "transformers": transformers.__version__,
                    "shape": {"hidden_size": arguments.hidden_size, "layers": arguments.layers},
                    "rows": rows,
                },
                indent=1,
            )
            + "\n"
        )


if __name__ == "__main__":
    main()
