"""Rows a second of explain_dataset on 1, 2, ... processes, one GPU each, and how much of the ideal rate that is.

The model has random weights. The rows have all the same length, or with ``--lengths real`` those of reviews: about 200
tokens in the mean, drawn from a log-normal distribution. Every process explains some rows before the clock starts, so
that nothing is imported or compiled while it runs. On one process explain() of the same batches, of ready token ids
and with nothing written, is timed beside it: from where the run began, so that shapes are met and recorded as CUDA
graphs as in the run, and a second time, when all are.

With --kill a run on the most processes is killed when it has half of its rows, and gone on with on the number before:
its rows must be those of the undisturbed run on the most, each once, with the same relevance.

    python examples/distributed/measure_scaling.py --processes 1 2 --json scaling.json       # 130M, 512 and 4096 tokens
    python examples/distributed/measure_scaling.py --processes 1 2 --layers 2 --hidden-size 32 --lengths 32 --tokens 256
"""

import argparse
import json
import math
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch
from accelerate import PartialState
from torch import Tensor
from transformers import AutoTokenizer, MambaConfig

from hf_mambalrp import DEMO_MODEL, MambaLRPForCausalLM, explain_dataset
from hf_mambalrp.calls.subject import subject_of
from hf_mambalrp.datasets import DatasetRun
from hf_mambalrp.runs.plan import batches, common_length, common_shape

REAL = "real"
MEAN = 200
"""Tokens of a real row."""


def lengths_of(rows: int, length: str) -> list[int]:
    """How many tokens each row has."""
    chosen = random.Random(1)
    spread = 0.6
    return [
        round(chosen.lognormvariate(math.log(MEAN) - spread**2 / 2, spread)) + 1 if length == REAL else int(length)
        for _ in range(rows)
    ]


def texts(tokenizer: Any, lengths: list[int]) -> list[str]:
    """Words that are one token each, so that every row has as many tokens as it should."""
    words = [" film", " good", " bad", " movie", " story", " and", " with", " the", " a", " of"]
    whole = [word for word in words if len(tokenizer(word + word)["input_ids"]) == 2]
    chosen = random.Random(0)
    return ["".join(chosen.choices(whole, k=length)) for length in lengths]


def ready_batches(tokenizer: Any, rows: list[str], window: int, batch_tokens: int) -> list[tuple[Tensor, Tensor]]:
    """Ids and masks of the batches that explain_dataset makes of the rows of each window."""
    on_gpu = torch.cuda.is_available()
    ready, rounded = [], common_length if on_gpu else int
    for first in range(0, len(rows), window):
        ids = [tokenizer(text)["input_ids"] for text in rows[first : first + window]]
        for numbers in batches([len(row) for row in ids], batch_tokens, rounded):
            batch = [ids[number] for number in numbers]
            lengths = [len(row) for row in batch]
            count, length = common_shape(lengths, batch_tokens) if on_gpu else (len(batch), max(lengths))
            batch += (count - len(batch)) * batch[-1:]
            padded = torch.tensor([row + [0] * (length - len(row)) for row in batch])
            mask = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in batch])
            ready.append((padded, mask))
    return ready


def seconds_of_explain(model: Any, ready: list[tuple[Tensor, Tensor]]) -> float:
    """explain() alone."""
    began = time.perf_counter()
    for ids, mask in ready:
        model.explain(ids, attention_mask=mask)
    return time.perf_counter() - began


def worker(arguments: argparse.Namespace) -> None:
    """One of the launched processes."""
    state = PartialState(cpu=not torch.cuda.is_available())
    Path(f"{arguments.result}-process-{state.process_index}").write_text(str(os.getpid()))
    torch.manual_seed(0)
    config = MambaConfig(
        vocab_size=50280, hidden_size=arguments.hidden_size, num_hidden_layers=arguments.layers, initializer_range=0.02
    )
    dtype = torch.bfloat16 if torch.cuda.is_available() else torch.float32
    model = MambaLRPForCausalLM(config).to(state.device, dtype).eval()
    tokenizer = AutoTokenizer.from_pretrained(DEMO_MODEL)
    lengths = lengths_of(arguments.rows_now, arguments.length)
    data = texts(tokenizer, lengths)
    assert [len(tokenizer(text)["input_ids"]) for text in data] == lengths
    window = max(1, arguments.window_tokens // tokens_of(arguments.length))

    def explained(rows: list[str], output: str) -> DatasetRun:
        options = {"batch_tokens": arguments.batch_tokens, "window": window, "progress": False}
        return explain_dataset(model, rows, output, tokenizer=tokenizer, **options)

    # A window each: imports and compiles, and records the shapes of its batches as CUDA graphs.
    explained(data[: window * state.num_processes], f"{arguments.output}-before-{state.num_processes}")
    state.wait_for_everyone()
    run = explained(data, arguments.output)
    if state.is_main_process:
        found = {"processes": run.processes, "rows": run.rows, "computed": run.computed, "seconds": run.seconds}
        if run.processes == 1 and run.computed == run.rows:
            before, ready = (
                ready_batches(tokenizer, rows, window, arguments.batch_tokens) for rows in (data[:window], data)
            )
            subject_of(model).network().recordings.clear()
            seconds_of_explain(model, before)
            found["seconds_of_explain"] = seconds_of_explain(model, ready)
            found["seconds_of_explain_recorded"] = seconds_of_explain(model, ready)
        Path(arguments.result).write_text(json.dumps(found))
    state.destroy_process_group()


class Launch:
    """So many processes over rows of one length, into one folder."""

    def __init__(self, arguments: argparse.Namespace, length: str, processes: int, folder: Path) -> None:
        self.output, self.result, self.processes = folder / "explained", folder / f"result-{processes}", processes
        self.rows = arguments.tokens // tokens_of(length)
        self.command = [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)),
            *(__file__, *sys.argv[1:], "--output", str(self.output), "--result", str(self.result)),
            *("--length", length, "--rows-now", str(self.rows)),
        ]
        threads = max(1, (os.cpu_count() or 1) // max(arguments.processes))
        self.environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}

    def finished(self) -> dict[str, Any]:
        """What it found."""
        subprocess.run(self.command, check=True, env=self.environment)
        found: dict[str, Any] = json.loads(self.result.read_text())
        return found

    def killed(self) -> int:
        """Kill it when half of the rows are kept; how many then are."""
        launcher = subprocess.Popen(self.command, env=self.environment)
        while (kept := len(self.kept())) < self.rows / 2:
            if launcher.poll() is not None:
                raise SystemExit("It ended before it was killed: give more rows.")
            time.sleep(0.05)
        launcher.kill()  # first, or it would end the others in its own way
        for process in self.result.parent.glob(f"{self.result.name}-process-*"):
            os.kill(int(process.read_text()), signal.SIGKILL)
        launcher.wait()
        print(f"killed with {kept} of {self.rows} rows kept", flush=True)
        return kept

    def kept(self) -> list[int]:
        """Numbers of the rows in whole files."""
        found: list[int] = []
        for path in [*self.output.glob("unfinished/window-*/piece-*.parquet"), *self.output.glob("part-*.parquet")]:
            try:
                found += pq.read_table(path, columns=["index"])["index"].to_pylist()
            except OSError:  # merged into its shard meanwhile
                continue
        return found

    def relevance(self) -> tuple[list[int], torch.Tensor]:
        """Numbers of the rows in their order in the folder, and their relevance (rows, tokens)."""
        files = sorted(self.output.glob("part-*.parquet"))
        rows = [row for path in files for row in pq.read_table(path, columns=["index", "relevance"]).to_pylist()]
        return [row["index"] for row in rows], torch.tensor([row["relevance"] for row in rows])


def tokens_of(length: str) -> int:
    """Tokens of a row, in the mean."""
    return MEAN if length == REAL else int(length)


def longest(arguments: argparse.Namespace) -> int:
    """Tokens of the longest rows that are asked for."""
    return max(map(tokens_of, arguments.lengths))


def killed_and_gone_on_with(arguments: argparse.Namespace, length: str, undisturbed: Launch) -> dict[str, Any]:
    """A run that is killed and finished by fewer processes, beside the undisturbed one."""
    fewer = sorted({*arguments.processes, 1})[-2]
    with tempfile.TemporaryDirectory() as folder:
        first, second = (Launch(arguments, length, n, Path(folder)) for n in (undisturbed.processes, fewer))
        kept, run = first.killed(), second.finished()
        (numbers, found), (_, wanted) = second.relevance(), undisturbed.relevance()
    assert numbers == list(range(first.rows)), "rows are lost, doubled or out of order"
    difference = float((found - wanted).norm() / wanted.norm())
    assert difference < (2e-2 if torch.cuda.is_available() else 1e-5), difference
    assert kept <= run["rows"] - run["computed"] < run["rows"], "what was kept is not computed again"
    return {"killed_on": first.processes, "gone_on_with_on": fewer, "kept": kept, "difference": difference, **run}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--hidden-size", type=int, default=768)
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--lengths", nargs="+", default=[REAL, "512", "4096"], help="tokens a row, or real")
    parser.add_argument("--tokens", type=int, default=6291456, help="so many tokens' rows of every length")
    parser.add_argument("--batch-tokens", type=int, default=16384)
    parser.add_argument("--window-tokens", type=int, default=131072, help="so many tokens' rows make a window")
    parser.add_argument("--kill", action="store_true", help="also a run of the longest rows that is killed")
    parser.add_argument("--json", type=Path, help="write the numbers of this run here, after each")
    for name, kind in (("output", str), ("result", str), ("length", str), ("rows-now", int)):
        parser.add_argument(f"--{name}", type=kind, help=argparse.SUPPRESS)  # of a launched process
    arguments = parser.parse_args()
    if arguments.result:
        return worker(arguments)

    run: dict[str, Any] = {
        "date": date.today().isoformat(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU",
        "versions": {name: version(name) for name in ("torch", "transformers", "accelerate")},
        "shape": {
            name: getattr(arguments, name) for name in ("hidden_size", "layers", "batch_tokens", "window_tokens")
        },
        "runs": [],
        "killed": [],
    }

    def keep(of: str, found: dict[str, Any]) -> None:
        run[of].append(found)
        if arguments.json:
            arguments.json.write_text(json.dumps(run, indent=1) + "\n")

    print(
        "| tokens a row | processes | rows/s | tokens/s | efficiency | of explain() alone | of it, all recorded |\n"
        "|---|---|---|---|---|---|---|"
    )
    for length in sorted(arguments.lengths, key=tokens_of):
        one = None
        for processes in sorted(arguments.processes):
            with tempfile.TemporaryDirectory() as folder:
                launch = Launch(arguments, length, processes, Path(folder))
                found = {"length": length, **launch.finished()}
                rate = found["rows"] / found["seconds"]
                one = one or rate / processes
                keep("runs", {**found, "rows_per_second": rate, "efficiency": rate / one / processes})
                alone = [found.get(name) for name in ("seconds_of_explain", "seconds_of_explain_recorded")]
                shares = ["" if took is None else f"{took / found['seconds']:.2f}" for took in alone]
                print(
                    f"| {length} | {processes} | {rate:.2f} | {rate * tokens_of(length):.0f} | "
                    f"{rate / one / processes:.2f} | {' | '.join(shares)} |",
                    flush=True,
                )
                if arguments.kill and processes == max(arguments.processes) and tokens_of(length) == longest(arguments):
                    keep("killed", killed := killed_and_gone_on_with(arguments, length, launch))
                    print(
                        f"killed on {processes} with {killed['kept']} rows, gone on with on "
                        f"{killed['gone_on_with_on']}: {killed['rows']} rows, none lost or doubled"
                    )
    return None


if __name__ == "__main__":
    main()
