"""Benchmark of images: explain() beside Vision Mamba's own forward and gradient x input, in one run, on random weights.

Correctness first, for every model and dtype: on a small model the relevance of patches, class token and pixels on the
device must be that of float64 on the CPU; on the full shape it must sum to the score, and the score must be the model's
own logit. What fails is not timed, and the exit status is 1.

A model's own forward has the selective scan of this package, which on a GPU is plain torch, step by step. So there are
two forwards: the model's own, and "network forward", the same function through the kernels that explain() runs. On a
GPU explain() replays CUDA graphs, and "network forward, recorded" is that forward as one CUDA graph.

    python examples/benchmarks/vision.py                                  # CPU, two threads, one picture
    python examples/benchmarks/vision.py --device cuda --json run.json    # GPU, bfloat16, batches of 32
    python examples/benchmarks/vision.py --models tiny --repeats 1
"""

import argparse
import gc
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from copy import deepcopy
from datetime import date
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from cpu import resident_peak
from torch import Tensor

from hf_mambalrp import VimConfig, VimLRPForImageClassification
from hf_mambalrp.calls.subject import subject_of
from hf_mambalrp.families.network import HALF_ROUNDING, ROUNDING
from hf_mambalrp.methods import Problem, predict
from hf_mambalrp.methods.blocks import Blocks, Chunk
from hf_mambalrp.rules import NO_RULES
from hf_mambalrp.rules.biases import BiasLedger

TARGET = 7
MIB = 2**20
WARM_UP = 2
"""Rounds before those that are timed: the first compiles, the second records CUDA graphs."""
DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}
SHAPES: dict[str, dict[str, int]] = {
    "vim-ti": {"hidden_size": 192},
    "vim-s": {"hidden_size": 384},
    "tiny": {"hidden_size": 16, "num_hidden_layers": 2, "image_size": 32, "patch_size": 8, "num_labels": 10},
}
"""What differs from Vim-Ti at 224 pixels with a thousand classes."""


def build(shape: dict[str, int], dtype: torch.dtype, device: str) -> Any:
    """Random weights; every part of :class:`VimConfig`'s initialisation is Vim's own, with 0.02."""
    torch.manual_seed(0)
    config = VimConfig(**{"num_labels": 1000, **shape}, initializer_range=0.02)
    return VimLRPForImageClassification(config).to(device, dtype).eval()


def pixels(model: Any, batch: int) -> Tensor:
    """Random pixels on the model's device."""
    size, generator = model.config.image_size, torch.Generator().manual_seed(batch)
    return torch.randn(batch, 3, size, size, generator=generator).to(model.device)


# What is timed --------------------------------------------------------------------------------------------------------


def own_forward(model: Any, pixel_values: Tensor) -> Tensor:
    """The model's own, as a user calls it."""
    with torch.no_grad():
        logits: Tensor = model(pixel_values).logits
    return logits


def gradient_x_input(model: Any, pixel_values: Tensor) -> Tensor:
    """What a user would write without this package, on pixels."""
    given = pixel_values.detach().requires_grad_()
    logits = model(given).logits[:, TARGET]
    relevance: Tensor = (torch.autograd.grad(logits.sum(), given)[0] * given).sum(1)
    return relevance


def class_positions(model: Any, batch: int) -> Tensor:
    """Where the head reads, (B, 1), on the model's device."""
    return torch.tensor(model.config.class_token_positions, device=model.device).repeat(batch, 1)


def problem_of(model: Any, pixel_values: Tensor, positions: Tensor) -> Problem:
    """What explain() hands to its method."""
    network = subject_of(model).network()
    embeddings = network.embed(pixel_values)
    mask = torch.ones(embeddings.shape[:2], dtype=torch.int64)
    return Problem(network, embeddings, mask, positions, lambda logits: logits[:, -1, TARGET])


def network_forward(model: Any, pixel_values: Tensor) -> Tensor:
    """The forward of this package without a gradient, through the kernels of explain()."""
    return predict(problem_of(model, pixel_values, class_positions(model, len(pixel_values))))[:, -1]


class Recorded:
    """:func:`network_forward` as a CUDA graph for pictures of one number, which its first call records."""

    def __init__(self) -> None:
        self.graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, model: Any, pixel_values: Tensor) -> Tensor:
        if self.graph is None:
            self.graph = self._record(model, pixel_values)
        self.read.copy_(pixel_values)
        self.graph.replay()
        logits: Tensor = self.logits[:, -1].cpu()
        return logits

    @torch.no_grad()
    def _record(self, model: Any, pixel_values: Tensor) -> torch.cuda.CUDAGraph:
        self.read, positions = pixel_values.clone(), class_positions(model, len(pixel_values))

        def forward() -> Tensor:
            problem = problem_of(model, self.read, positions)
            blocks = Blocks(problem, NO_RULES, Chunk(problem.embeddings, None, positions, None))
            return problem.network.logits(blocks.selected, NO_RULES, BiasLedger(len(positions)))

        gc.collect()  # a graph that is let go within a capture would end it
        stream, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            forward()
        torch.cuda.current_stream().wait_stream(stream)
        with torch.cuda.graph(graph, stream=stream):
            self.logits = forward()
        return graph


def explain(model: Any, pixel_values: Tensor) -> Any:
    """The default: MambaLRP with gamma 0.25 on the convolutions, relevance of patches and of pixels."""
    return model.explain(pixel_values=pixel_values, target=TARGET)


OWN, NETWORK = "own forward", "network forward"
METHODS = {
    OWN: "the model called under no_grad",
    "explain()": "model.explain(pixel_values=..., target=7), every option at its default",
    NETWORK: "hf_mambalrp.methods.predict, which runs the kernels of explain() without a gradient",
    f"{NETWORK}, recorded": "the same as one CUDA graph; on a GPU only",
    "gradient x input": "the model called on pixels, and one logit's gradient at them",
}


def calls(names: list[str], cuda: bool) -> dict[str, Callable[[Any, Tensor], object]]:
    """The methods as functions of model and pixels, nothing recorded yet."""
    table: dict[str, Callable[[Any, Tensor], object]] = {
        OWN: own_forward,
        "explain()": explain,
        NETWORK: network_forward,
        "gradient x input": gradient_x_input,
    }
    if cuda:
        table[f"{NETWORK}, recorded"] = Recorded()
    return {name: table[name] for name in names if name in table}


# The gate -------------------------------------------------------------------------------------------------------------

ALLOWED = {"relevance": 1, "class_relevance": 5, "pixel_relevance": 5}
"""Times the tolerance: less is summed in a class token, and pixels are many small numbers, so that more can cancel."""


def difference(actual: Tensor, expected: Tensor) -> float:
    """Of norms, relative."""
    return float((actual - expected).norm() / expected.norm())


def check_small(dtype: torch.dtype, device: str) -> dict[str, float]:
    """Relevance on the device against float64 on the CPU with the same (rounded) weights, relative.

    Wide weights, so that in so small a model every mixer matters; an odd grid, and a batch whose rows differ.
    """
    sizes = {"hidden_size": 32, "num_hidden_layers": 4, "image_size": 72, "patch_size": 8, "num_labels": 10}
    model = build(sizes, torch.float32, "cpu")
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)), alpha=0.1)
    model = model.to(dtype)
    reference: Any = deepcopy(model).double()
    given = pixels(model, 3)
    model.to(device)
    found, tolerance = {}, 1e-5 if dtype == torch.float32 else 2e-2
    for gamma in (0.25, 0.0):
        expected = reference.explain(pixel_values=given, target=TARGET, gamma=gamma, backend="reference")
        actual = model.explain(pixel_values=given.to(device), target=TARGET, gamma=gamma)
        for name, allowed in ALLOWED.items():
            value = difference(getattr(actual, name), getattr(expected, name))
            found[f"{name}, gamma {gamma:g}"] = value
            if not value <= allowed * tolerance:
                raise AssertionError(f"relevance differs from that of float64 on the CPU: {found}")
    return found


def check_full(model: Any, pixel_values: Tensor) -> dict[str, float]:
    """Relevance and biases sum to the score, and the score is the model's own logit; so is the network's forward.

    All relative to the largest logit: a score, and with it what relevance sums to, may be near zero.
    """
    explanation = explain(model, pixel_values)
    own = own_forward(model, pixel_values).float().cpu()
    scale, gap = own.abs().amax(-1), explanation.conservation.gap.abs()
    found = {
        "sum of relevance": float((gap / scale).max()),
        "score": float(((explanation.score - own[:, TARGET]).abs() / scale).max()),
        NETWORK: float(((network_forward(model, pixel_values).float() - own).abs().amax(-1) / scale).max()),
    }
    half = model.dtype != torch.float32
    tolerances = {"sum of relevance": HALF_ROUNDING if half else ROUNDING, "score": 5e-2 if half else 1e-3}
    for name, value in found.items():
        if not value <= tolerances.get(name, tolerances["score"]):
            raise AssertionError(f"{name}: a relative difference of {value:.2g}")
    return found


# Timing ---------------------------------------------------------------------------------------------------------------


class Bench:
    """One run: what is asked for, the time that is left, and the rows so far, which are on disk after each of them."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments, self.cuda = arguments, arguments.device.startswith("cuda")
        self.began = time.monotonic()
        self.run: dict[str, Any] = {**environment(arguments), "checks": [], "rows": []}
        self.left_out = 0

    def seconds_left(self) -> float:
        budget: float = self.arguments.budget_seconds
        return budget - (time.monotonic() - self.began)

    def write(self) -> None:
        if self.arguments.json:
            self.arguments.json.write_text(json.dumps(self.run, indent=1) + "\n")

    def group(self, name: str) -> None:
        """Check, then time one model at every size of batch."""
        dtype, device = DTYPES[self.arguments.dtype], self.arguments.device
        check: dict[str, Any] = {"model": name, "dtype": self.arguments.dtype, "passed": False}
        model: Any = None
        try:
            check["small"] = check_small(dtype, device)
            model = build(SHAPES[name], dtype, device)
            check |= {"full": check_full(model, pixels(model, 2)), "passed": True}
        except Exception as error:
            check["error"] = f"{type(error).__name__}: {error}"[:500]
        self.run["checks"].append(check)
        print(f"check {json.dumps(check)}", flush=True)
        self.write()
        for batch in self.arguments.batches if check["passed"] else []:
            self.time_batch(name, model, batch)
            self.write()

    def time_batch(self, name: str, model: Any, batch: int) -> None:
        """Time every method in turn, so that a change of the machine's speed meets all; then measure their memory."""
        key = {"model": name, "dtype": self.arguments.dtype, "batch": batch}
        given, methods = pixels(model, batch), calls(self.arguments.methods, self.cuda)
        times: dict[str, list[float]] = {what: [] for what in methods}
        for repeat in range(-WARM_UP, self.arguments.repeats):
            if repeat > 0 and self.seconds_left() <= 0:
                break
            for what in list(times):
                try:
                    elapsed = self.seconds(partial(methods[what], model, given))
                except Exception as error:
                    del times[what]
                    self.failed(key, what, error)
                    continue
                if repeat >= 0:
                    times[what].append(elapsed)
        del methods
        for what, found in times.items():
            peak = self.peak(name, model, given, what) if self.seconds_left() > 0 else None
            self.run["rows"].append(
                {**key, "method": what, "status": "ok", **figures(what, times, batch), "peak_mib": peak}
            )
            print(f"{name} x {batch} {what}: {1e3 * statistics.median(found):.2f} ms", flush=True)

    def failed(self, key: dict[str, Any], what: str, error: Exception) -> None:
        said = (
            "out of memory" if isinstance(error, torch.OutOfMemoryError) else f"{type(error).__name__}: {error}"[:300]
        )
        self.run["rows"].append({**key, "method": what, "status": said})
        print(f"{key['model']} x {key['batch']} {what}: {said}", flush=True)
        error.__traceback__ = None  # its frames hold the tensors

    def seconds(self, call: Callable[[], object]) -> float:
        """Wall-clock time of one call."""
        self.synchronize()
        start = time.perf_counter()
        call()
        self.synchronize()
        return time.perf_counter() - start

    def peak(self, name: str, model: Any, given: Tensor, what: str) -> int:
        """Largest memory above the weights, in MiB: of the process on the CPU; on a GPU reserved, with CUDA graphs."""
        if not self.cuda:
            with ProcessPoolExecutor(1, get_context("spawn")) as process:
                return process.submit(resident, self.arguments, name, len(given), what).result()
        subject_of(model).network().recordings.clear()
        self.release()
        before, call = torch.cuda.memory_reserved(), calls([what], self.cuda)[what]
        torch.cuda.reset_peak_memory_stats()
        for _ in range(WARM_UP + 1):
            call(model, given)
        return round((torch.cuda.max_memory_reserved() - before) / MIB)

    def synchronize(self) -> None:
        if self.cuda:
            torch.cuda.synchronize()

    def release(self) -> None:
        gc.collect()
        if self.cuda:
            torch.cuda.empty_cache()


def figures(what: str, times: dict[str, list[float]], batch: int) -> dict[str, Any]:
    """Medians of a method's times, and of their ratios to those of the forwards in the same round."""
    milliseconds = [1e3 * seconds for seconds in times[what]]
    median = statistics.median(milliseconds)
    ratios = {
        f"x {forward}": statistics.median(a / b for a, b in zip(times[what], times[forward], strict=False))
        for forward in times
        if "forward" in forward
    }
    extremes = {"ms_min": min(milliseconds), "ms_max": max(milliseconds), "calls": len(milliseconds)}
    return {"ms": median, **extremes, "ms_a_picture": median / batch, **ratios}


def resident(arguments: argparse.Namespace, name: str, batch: int, what: str) -> int:
    """Largest resident memory during one call above that before it, in MiB, for a process of its own.

    A call on the tiny model before it loads the compiled code, about 180 MiB with numba, which is not counted.
    """
    torch.set_num_threads(arguments.threads)
    dtype = DTYPES[arguments.dtype]
    model, small, call = (
        build(SHAPES[name], dtype, "cpu"),
        build(SHAPES["tiny"], dtype, "cpu"),
        calls([what], False)[what],
    )
    given = pixels(model, batch)
    small.explain(pixel_values=pixels(small, 1), target=TARGET, backend="compiled")
    return resident_peak(lambda: call(model, given))


def environment(arguments: argparse.Namespace) -> dict[str, Any]:
    def installed(package: str) -> str | None:
        try:
            return version(package)
        except PackageNotFoundError:
            return None

    cuda = arguments.device.startswith("cuda")
    return {
        "date": date.today().isoformat(),
        "device": torch.cuda.get_device_name() if cuda else f"CPU, {platform.machine()}",
        "threads": None if cuda else arguments.threads,
        "cuda": torch.version.cuda if cuda else None,
        "versions": {package: installed(package) for package in ("torch", "triton", "transformers", "numba")},
        "shapes": {name: SHAPES[name] for name in arguments.models},
        "methods": {name: METHODS[name] for name in arguments.methods},
        "timing": "synchronised wall clock, methods in turn after two rounds of warm-up; ms is the median, a ratio the "
        "median of those within a round",
        "memory": "torch.cuda.max_memory_reserved in three calls above what was reserved before, CUDA graphs included"
        if cuda
        else "largest resident memory in one call above that before it, each in a process of its own",
    }


def print_table(rows: list[dict[str, Any]]) -> None:
    print("| model | dtype | pictures | what | ms | ms a picture | x own forward | x network forward | peak memory |")
    print("|---|---|---|---|---|---|---|---|---|")
    for row in rows:
        start = f"| {row['model']} | {row['dtype']} | {row['batch']} | {row['method']} |"
        if row["status"] != "ok":
            print(f"{start} {row['status']} | | | | |")
            continue
        ratios = [f"{row[key]:.2f}" if key in row else "" for key in (f"x {OWN}", f"x {NETWORK}")]
        peak = "" if row["peak_mib"] is None else f"{row['peak_mib']:.0f} MiB"
        print(f"{start} {row['ms']:.2f} | {row['ms_a_picture']:.2f} | {' | '.join(ratios)} | {peak} |")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=SHAPES, default=["vim-ti", "vim-s"])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=DTYPES, help="bfloat16 on a GPU, float32 on the CPU")
    parser.add_argument("--batches", type=int, nargs="+", help="pictures at a time: 1 on the CPU, 1 and 32 on a GPU")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--threads", type=int, default=2, help="of the CPU")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--budget-seconds", type=float, default=float("inf"), help="leave out what would take longer")
    parser.add_argument("--json", type=Path, help="write the numbers of this run here, after each batch")
    arguments = parser.parse_args()
    cuda = arguments.device.startswith("cuda")
    arguments.dtype = arguments.dtype or ("bfloat16" if cuda else "float32")
    arguments.batches = arguments.batches or ([1, 32] if cuda else [1])
    return arguments


def main() -> None:
    arguments = parse()
    torch.set_num_threads(arguments.threads)
    bench = Bench(arguments)
    for name in arguments.models:
        if bench.seconds_left() > 0:
            bench.group(name)
        else:
            bench.left_out += 1
        bench.release()
    bench.write()
    print_table(bench.run["rows"])
    if bench.left_out:
        print(f"{bench.left_out} models left out: the budget of {arguments.budget_seconds:.0f} seconds is used up")
    failed = [check for check in bench.run["checks"] if not check["passed"]]
    sys.exit(f"{len(failed)} checks failed" if failed else 0)


if __name__ == "__main__":
    main()
