"""A whole audit of the packaged model on a CPU: seconds, and memory, which the number of rows should not change.

Each number of rows is audited by a process of its own, whose peak of memory is read. The rows are reviews of templates,
no two of them equal; --snippets takes human-rated snippets instead, from the folder that examples/training keeps.

    python examples/benchmarks/audit.py --snippets CACHE --json audit.json        # 1 000 and 10 000 rows, some minutes
    python examples/benchmarks/audit.py --rows 40                                 # does it run
"""

import argparse
import json
import random
import resource
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from datetime import date
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from hf_mambalrp import DEMO_MODEL, MambaLRPForSequenceClassification
from hf_mambalrp.audit import audit

sys.path.insert(0, str(Path(__file__).parent.parent / "training"))


def rows_of(arguments: argparse.Namespace, count: int) -> list[dict[str, str]]:
    if arguments.snippets is None:
        from planted_reviews import corpus

        return corpus(count, 0, "end")
    from data import load_snippets

    labelled = [one for one in load_snippets(arguments.snippets) if one.label is not None]
    random.Random(0).shuffle(labelled)
    names = ("negative", "positive")
    return [{"text": one.text, "label": names[one.label or 0]} for one in labelled[:count]]


def measured(arguments: argparse.Namespace, count: int) -> dict[str, Any]:
    """One audit, in a process that has done nothing else."""
    torch.set_num_threads(arguments.threads)
    model = MambaLRPForSequenceClassification.from_pretrained(DEMO_MODEL)
    model.explain("The first call compiles and checks.")
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "rows.jsonl"
        data.write_text("".join(json.dumps(row) + "\n" for row in rows_of(arguments, count)), encoding="utf-8")
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        start, used = time.perf_counter(), time.process_time()
        found = audit(model, data, Path(folder) / "out", label="label", progress=False)
        wall, cpu = time.perf_counter() - start, time.process_time() - used
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    row = {"rows": found.texts, "seconds": wall, "cpu_seconds": cpu, "before_mib": before, "peak_mib": peak}
    return {**row, "confirmed": [one.found.name for one in found.confirmed]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[1000, 10_000])
    parser.add_argument("--snippets", type=Path, help="folder of the snippets, downloaded there if they are not in it")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, help="write the numbers of this run here")
    arguments = parser.parse_args()
    found = []
    print("| rows | seconds | CPU seconds | MiB before | peak MiB |")
    print("|---|---|---|---|---|")
    for rows in arguments.rows:
        with ProcessPoolExecutor(1, get_context("spawn")) as process:
            row = process.submit(measured, arguments, rows).result()
        print("| {rows} | {seconds:.0f} | {cpu_seconds:.0f} | {before_mib:.0f} | {peak_mib:.0f} |".format(**row))
        found.append(row)
    if arguments.json:
        run = {
            "date": date.today().isoformat(),
            "data": "templates" if arguments.snippets is None else "snippets of the VADER study",
            "threads": arguments.threads,
            "versions": {name: version(name) for name in ("torch", "transformers", "pyarrow", "scipy")},
            "runs": found,
        }
        arguments.json.write_text(json.dumps(run, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
