"""explain_dataset beside a loop over single explain() calls, and its memory, for the packaged model on a CPU.

The loop is timed on some of the rows before and after the dataset. Memory is the peak of a process of its own for each
number of rows.

    python examples/benchmarks/dataset.py --json dataset.json                     # 10 000 rows, some minutes
    python examples/benchmarks/dataset.py --rows 40 80 --single 5                 # does it run
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import date
from importlib.metadata import version
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import torch

from hf_mambalrp import DEMO_MODEL, MambaLRPForSequenceClassification, explain_dataset

REVIEWS = Path(DEMO_MODEL) / "reviews.jsonl"


def texts(path: Path, rows: int) -> list[str]:
    """As many rows as asked for, from the start again where the file ends."""
    found = [json.loads(line)["text"] for line in path.read_text(encoding="utf-8").splitlines()]
    return list(islice(cycle(found), rows))


def seconds_of_a_loop(model: Any, rows: list[str]) -> list[float]:
    found = []
    for text in rows:
        start = time.perf_counter()
        model.explain(text)
        found.append(time.perf_counter() - start)
    return found


def worker(arguments: argparse.Namespace, rows: int) -> None:
    """Explain ``rows`` rows, and the loop on both sides of it."""
    model = MambaLRPForSequenceClassification.from_pretrained(DEMO_MODEL)
    single = texts(arguments.data, rows)[: arguments.single]
    model.explain(single[0])  # the first call compiles and checks
    loop = seconds_of_a_loop(model, single)
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "rows.jsonl"
        with data.open("w", encoding="utf-8") as file:
            for text in texts(arguments.data, rows):
                file.write(json.dumps({"text": text}) + "\n")
        run = explain_dataset(model, data, Path(folder) / "out", progress=False, batch_tokens=arguments.batch_tokens)
    loop += seconds_of_a_loop(model, single)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    found = {"rows": run.rows, "seconds": run.seconds, "loop_seconds_per_row": statistics.mean(loop), "peak_mib": peak}
    print(json.dumps(found))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[1000, 10000])
    parser.add_argument("--single", type=int, default=200, help="rows of the loop, before and after")
    parser.add_argument("--batch-tokens", type=int, default=8192)
    parser.add_argument("--data", type=Path, default=REVIEWS, help="JSONL with a column text")
    parser.add_argument("--json", type=Path, help="write the numbers of this run here")
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        return worker(arguments, arguments.worker)

    found = []
    print("| rows | explain_dataset, rows/s | loop of explain(), rows/s | ratio | peak MiB of the process |")
    print("|---|---|---|---|---|")
    for rows in arguments.rows:
        command = [sys.executable, __file__, *sys.argv[1:], "--worker", str(rows)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        row: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        rate, alone = row["rows"] / row["seconds"], 1 / row["loop_seconds_per_row"]
        print(f"| {rows} | {rate:.0f} | {alone:.0f} | {rate / alone:.1f} | {row['peak_mib']:.0f} |", flush=True)
        found.append(row)
    if arguments.json:
        run = {
            "date": date.today().isoformat(),
            "threads": torch.get_num_threads(),
            "versions": {name: version(name) for name in ("torch", "transformers", "pyarrow")},
            "batch_tokens": arguments.batch_tokens,
            "runs": found,
        }
        arguments.json.write_text(json.dumps(run, indent=1) + "\n")
    return None


if __name__ == "__main__":
    main()
