"""Rows a second of explain_dataset on 1, 2, ... processes, one GPU each, and how much of the ideal rate that is.

The model has random weights and the rows have all the same length. Every process explains some rows before the clock
starts, so that nothing is imported or compiled while it runs.

    python examples/distributed/measure_scaling.py --processes 1 2 --json scaling.json     # 130M shape, 4096 tokens
    python examples/distributed/measure_scaling.py --processes 1 2 --layers 2 --hidden-size 32 --length 32 --rows 8
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from transformers import AutoTokenizer, MambaConfig

from hf_mambalrp import DEMO_MODEL, MambaLRPForCausalLM, explain_dataset
from hf_mambalrp.datasets import DatasetRun


def texts(tokenizer: Any, rows: int, length: int) -> list[str]:
    """Words that are one token each, so that every row has ``length`` tokens."""
    words = [" film", " good", " bad", " movie", " story", " and", " with", " the", " a", " of"]
    whole = [word for word in words if len(tokenizer(word + word)["input_ids"]) == 2]
    chosen = random.Random(0)
    return ["".join(chosen.choices(whole, k=length)) for _ in range(rows)]


def worker(arguments: argparse.Namespace) -> None:
    """One of the launched processes."""
    state = PartialState(cpu=not torch.cuda.is_available())
    torch.manual_seed(0)
    config = MambaConfig(
        vocab_size=50280, hidden_size=arguments.hidden_size, num_hidden_layers=arguments.layers, initializer_range=0.02
    )
    dtype = torch.bfloat16 if torch.cuda.is_available() else torch.float32
    model = MambaLRPForCausalLM(config).to(state.device, dtype).eval()
    tokenizer = AutoTokenizer.from_pretrained(DEMO_MODEL)
    data = texts(tokenizer, arguments.rows, arguments.length)
    lengths = {len(tokenizer(text)["input_ids"]) for text in data}
    assert lengths == {arguments.length}, lengths
    batch = max(1, arguments.batch_tokens // arguments.length)

    def explained(rows: list[str], output: str) -> DatasetRun:
        options = {"batch_tokens": arguments.batch_tokens, "window": arguments.window, "progress": False}
        return explain_dataset(model, rows, output, tokenizer=tokenizer, **options)

    # Imports and compiles; the second batch of a shape is recorded as CUDA graphs, the third replayed.
    explained(data[: 3 * batch * state.num_processes], arguments.output + "-before")
    state.wait_for_everyone()
    run = explained(data, arguments.output)
    if state.is_main_process:
        found = {"processes": run.processes, "rows": run.rows, "seconds": run.seconds}
        Path(arguments.result).write_text(json.dumps(found))
    state.destroy_process_group()


def measure(arguments: argparse.Namespace, processes: int) -> dict[str, Any]:
    """Launch ``processes`` of them, and read what they found."""
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result.json"
        command = [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)),
            *(__file__, *sys.argv[1:], "--output", str(Path(folder) / "explained"), "--result", str(result)),
        ]
        threads = max(1, (os.cpu_count() or 1) // max(arguments.processes))
        subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": str(threads)})
        found: dict[str, Any] = json.loads(result.read_text())
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--hidden-size", type=int, default=768)
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--length", type=int, default=4096, help="tokens a row")
    parser.add_argument("--rows", type=int, default=1536)
    parser.add_argument("--batch-tokens", type=int, default=16384)
    parser.add_argument("--window", type=int, default=32)
    parser.add_argument("--json", type=Path, help="write the numbers of this run here")
    parser.add_argument("--output", help=argparse.SUPPRESS)
    parser.add_argument("--result", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.result:
        return worker(arguments)

    found = [measure(arguments, processes) for processes in arguments.processes]
    one = found[0]["rows"] / found[0]["seconds"] / found[0]["processes"]
    print("| processes | rows/s | tokens/s | efficiency |\n|---|---|---|---|")
    for row in found:
        row["rows_per_second"] = row["rows"] / row["seconds"]
        row["efficiency"] = row["rows_per_second"] / one / row["processes"]
        tokens = row["rows_per_second"] * arguments.length
        print(f"| {row['processes']} | {row['rows_per_second']:.2f} | {tokens:.0f} | {row['efficiency']:.2f} |")
    if arguments.json:
        run = {
            "date": date.today().isoformat(),
            "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU",
            "versions": {name: version(name) for name in ("torch", "transformers", "accelerate")},
            "shape": {name: getattr(arguments, name) for name in ("hidden_size", "layers", "length", "batch_tokens")},
            "runs": found,
        }
        arguments.json.write_text(json.dumps(run, indent=1) + "\n")
    return None


if __name__ == "__main__":
    main()
