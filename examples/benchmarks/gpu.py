"""GPU benchmark: explain() beside transformers' own forward and gradient x input, in one run on one GPU.

The weights are random. Correctness first, for every model and dtype: on a small model of the same family the relevance
on the GPU must be that of float64 on the CPU, in padded batches and in chunks too; on the full shape it must sum to the
score, the score must be transformers' own logit, and the relevance of a row of --check-length tokens the same in
chunks, in float32. What fails is not timed, and the exit status is 1.

transformers is fast only with mamba-ssm, causal-conv1d and, for delta nets, flash-linear-attention installed. Without
them its scan is a Python loop, and only explain() is timed, unless --slow-hf says that the loop is wanted.

    python examples/benchmarks/gpu.py --json run.json                        # everything; far more than ten minutes
    python examples/benchmarks/gpu.py --models mamba-130m --dtypes bfloat16 --json run.json --budget-seconds 500
    python examples/benchmarks/gpu.py --models zamba2-1.2b --dtypes bfloat16 --lengths 512 4096 32768 --json run.json
    python examples/benchmarks/gpu.py --models granite-4.0-h-tiny --lengths 131072 --check-length 131072 --json run.json
    python examples/benchmarks/gpu.py --json run.json --resume               # what is not in run.json yet
    python examples/benchmarks/gpu.py --device cpu --slow-hf --models tiny --lengths 16 --dtypes float32
"""

import argparse
import gc
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import date
from functools import cache, partial
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from hybrids import PUBLISHED, configuration, published
from torch import Tensor, nn
from transformers import Mamba2Config, MambaConfig

from hf_mambalrp import AutoMambaLRPForCausalLM, Explanation, Mamba2LRPForCausalLM, MambaLRPForCausalLM
from hf_mambalrp.calls.subject import subject_of

TARGET = 7
GIB = 2**30
OUT_OF_MEMORY = "out of memory"
DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}


def mamba(hidden_size: int, layers: int, **options: Any) -> Callable[[int], nn.Module]:
    """Mamba-1, as a function of the vocabulary."""

    def build(vocabulary: int) -> nn.Module:
        return MambaLRPForCausalLM(MambaConfig(**{**common(hidden_size, layers, vocabulary), **options}))

    return build


def mamba2(
    hidden_size: int, layers: int, head_dim: int = 64, state_size: int = 128, **options: Any
) -> Callable[[int], nn.Module]:
    """Mamba-2 with one group, as the published models have."""
    own = {"num_heads": 2 * hidden_size // head_dim, "head_dim": head_dim, "state_size": state_size, "n_groups": 1}
    own |= options

    def build(vocabulary: int) -> nn.Module:
        return Mamba2LRPForCausalLM(Mamba2Config(**{**common(hidden_size, layers, vocabulary), **own}))

    return build


def hybrid(name: str) -> Callable[[int], nn.Module]:
    """A published hybrid, whatever the vocabulary: it has its own."""
    return lambda _: AutoMambaLRPForCausalLM.from_config(published(name))


def small_hybrid(family: str) -> Callable[[int], nn.Module]:
    """All of its experts see every token: which of two near equals is chosen would be a matter of rounding."""

    def build(vocabulary: int) -> nn.Module:
        config = configuration(family, 64, 4, head_dim=16, state_size=32, vocabulary=vocabulary)
        config.initializer_range = 0.1
        for experts in ("num_local_experts", "num_experts"):
            if getattr(config, experts, 0):
                config.num_experts_per_tok = getattr(config, experts)
        return AutoMambaLRPForCausalLM.from_config(config)

    return build


def common(hidden_size: int, layers: int, vocabulary: int) -> dict[str, Any]:
    return {
        "vocab_size": vocabulary,
        "hidden_size": hidden_size,
        "num_hidden_layers": layers,
        "initializer_range": 0.02,  # transformers' default of 0.1 makes a chaotic network
        "tie_word_embeddings": True,
    }


@dataclass(frozen=True)
class Shape:
    """A model to time, and the small one of its family that is compared with the CPU first."""

    build: Callable[[int], nn.Module]
    small: Callable[[int], nn.Module]
    longest: tuple[int, ...] = ()
    """Lengths that --longest adds."""


# causal-conv1d needs the width of Mamba-2's projection, 2 * (inner size + state size) + heads, to be a multiple of 8.
# Weights of 0.2, so that in so small a model the mixers matter and relevance reaches back.
SMALL = {
    "mamba": mamba(64, 4, initializer_range=0.2),
    "mamba2": mamba2(64, 4, head_dim=16, state_size=32, initializer_range=0.2),
}
SMALL_HYBRIDS = {
    "granite-4.0-h-tiny": small_hybrid("granite, 2 of 8 experts"),
    "nemotron-h-8b": small_hybrid("nemotron_h"),
    "falcon-h1-1.5b": small_hybrid("falcon_h1"),
    "zamba2-1.2b": small_hybrid("zamba2"),
    "qwen3.5-0.8b": small_hybrid("qwen3_5"),
    "qwen3-next-block": small_hybrid("qwen3_next, 2 of 8 experts"),
}
SHAPES = {
    "mamba-130m": Shape(mamba(768, 24), SMALL["mamba"], (2**20,)),
    "mamba2-130m": Shape(mamba2(768, 24), SMALL["mamba2"]),
    "mamba2-2.7b": Shape(mamba2(2560, 64), SMALL["mamba2"]),
    "mamba-1.4b": Shape(mamba(2048, 48), SMALL["mamba"]),
    "mamba-2.8b": Shape(mamba(2560, 64), SMALL["mamba"], (2**18,)),
    **{name: Shape(hybrid(name), small) for name, small in SMALL_HYBRIDS.items()},
    "tiny": Shape(mamba(32, 2), SMALL["mamba"]),
    "tiny2": Shape(mamba2(64, 2, head_dim=16, state_size=16), SMALL["mamba2"]),
    **{f"tiny-{name}": Shape(small, small) for name, small in SMALL_HYBRIDS.items()},
}
MAMBA = [name for name in SHAPES if not name.startswith("tiny") and name not in PUBLISHED]
"""What is timed unless models are named."""


# What is timed --------------------------------------------------------------------------------------------------------


def hf_forward(model: Any, ids: Tensor, **options: Any) -> None:
    """transformers' own forward."""
    with torch.no_grad():
        model(ids, use_cache=False, **options)


def hf_gradient_x_input(model: Any, ids: Tensor) -> Tensor:
    """What a user would write without this package; the last position's logit alone, which is its cheapest form."""
    embeddings = model.get_input_embeddings()(ids).detach().requires_grad_()
    logits = model(inputs_embeds=embeddings, use_cache=False, logits_to_keep=1).logits[:, -1, TARGET]
    relevance: Tensor = (torch.autograd.grad(logits.sum(), embeddings)[0] * embeddings).sum(-1)
    return relevance


METHODS = {
    "HF forward": "transformers' forward under no_grad as a user would call it: logits of all positions",
    "HF forward, last logit": "the same with logits_to_keep=1, which is what an explanation needs",
    "HF gradient x input": "eval mode, inputs_embeds, logits_to_keep=1, one logit of the last position",
    "HF gradient x input, frozen": "the same with requires_grad off for all weights, so that autograd keeps less",
    "explain()": "model.explain(ids, target=7), every option at its default",
}
"""Name and meaning; the option --chunk-sizes adds explain(chunk_size=...)."""


def calls(arguments: argparse.Namespace) -> dict[str, Callable[[Any, Tensor], object]]:
    """The methods asked for, as functions of model and ids."""
    explain = {"target": TARGET, "backend": arguments.backend}

    def ours(model: Any, ids: Tensor, **options: Any) -> object:
        return model.explain(ids, **explain, **options)

    table: dict[str, Callable[[Any, Tensor], object]] = {
        "HF forward": hf_forward,
        "HF forward, last logit": partial(hf_forward, logits_to_keep=1),
        "HF gradient x input": hf_gradient_x_input,
        "HF gradient x input, frozen": hf_gradient_x_input,
        "explain()": ours,
    }
    chosen = {name: table[name] for name in arguments.methods}
    for size in arguments.chunk_sizes:
        chosen[f"explain(chunk_size={size})"] = partial(ours, chunk_size=size)
    return chosen


# The gate -------------------------------------------------------------------------------------------------------------


def check_small(shape: Shape, dtype: torch.dtype, device: str, backend: str) -> dict[str, float]:
    """Relevance on the device against float64 on the CPU with the same (rounded) weights: relative differences.

    Of the whole, and the worst of the first, middle and last third: the last tokens have most of the relevance. A
    third may be five times as far off, since less is summed there and more can cancel. The relevance of a token alone
    is the score, a logit that may be near zero: its difference is relative to the largest logit. In half precision
    relevance may be twice as far off as it is moved, in float64, by rounding every weight once more: what a small model
    makes of a rounding is a matter of its weights, 0.02 here, whatever computes it.
    """
    torch.manual_seed(0)
    model: Any = shape.small(100).eval().to(dtype)
    reference: Any = deepcopy(model).double()
    model.to(device)
    ids = torch.randint(0, 100, (3, 300), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[1, :37] = 0  # padding on the left
    mask[2, 5:] = 0  # and on the right
    found = {"own logit": own_error(model, reference)}

    def call(rows: int, length: int) -> dict[str, Any]:
        return {"input_ids": ids[:rows, :length], "attention_mask": mask[:rows, :length], "target": TARGET}

    @cache
    def exact(rows: int, length: int, draw: int | None = None) -> Tensor:
        """Relevance in float64, or that with weights that are rounded again."""
        # Unchecked, because transformers' own forward cannot run on the CPU where its kernels are installed.
        same = reference if draw is None else rounded_again(reference, draw)
        relevance: Tensor = same.explain(**call(rows, length), backend="reference", check_forward=False).relevance
        return relevance

    for name, rows, length, options in (
        ("one token", 1, 1, {}),
        ("one row", 1, 300, {}),
        ("padded batch", 3, 300, {}),
        ("padded batch in chunks", 3, 300, {"chunk_size": 64}),
    ):
        expected, tolerance = exact(rows, length), 1e-5 if dtype == torch.float32 else 2e-2
        actual = model.explain(**call(rows, length), backend=backend, **options).relevance
        if length == 1:
            logit = model(ids[:rows, :length].to(device)).logits.detach().abs().max()
            found[name] = float((actual - expected).norm() / logit)
            if not found[name] <= tolerance:
                raise AssertionError(f"relevance differs from the CPU's: {found}")
            continue
        if dtype != torch.float32:
            moved = statistics.mean(difference(exact(rows, length, draw), expected) for draw in range(2))
            found[f"{name}, weights rounded again"] = moved
            tolerance = max(tolerance, 2 * moved)
        thirds = zip(actual.tensor_split(3, 1), expected.tensor_split(3, 1), strict=True)
        found[name] = difference(actual, expected)
        found[f"{name}, worst third"] = max(difference(a, e) for a, e in thirds)
        if not (found[name] <= tolerance and found[f"{name}, worst third"] <= 5 * tolerance):
            raise AssertionError(f"relevance differs from the CPU's: {found}")
    return found


def rounded_again(model: Any, draw: int) -> Any:
    """A copy whose weights are off by what rounding to bfloat16 may make: a factor of 1 - 2^-9 to 1 + 2^-9 each."""
    moved, generator = deepcopy(model), torch.Generator().manual_seed(draw)
    with torch.no_grad():
        for weight in moved.parameters():
            weight.mul_(1 + 2**-9 * (2 * torch.rand(weight.shape, generator=generator, dtype=weight.dtype) - 1))
    return moved


def own_error(model: Any, reference: Any) -> float:
    """How far transformers' own logits of four rows are from those of the reference, in float64."""
    ids = torch.randint(0, 100, (4, 300), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        own = model(ids.to(model.device), use_cache=False).logits[:, -1, TARGET].double().cpu()
    exact = reference.explain(input_ids=ids, target=TARGET, backend="reference", check_forward=False).score.double()
    return difference(own, exact)


def difference(actual: Tensor, expected: Tensor) -> float:
    norm = float(expected.norm())
    return float((actual - expected).norm()) / norm if norm else float(actual.norm())


def check_full(model: Any, ids: Tensor, arguments: argparse.Namespace) -> dict[str, float]:
    """Relevance sums to the score, and the score is transformers' own logit.

    Both relative to the largest logit: a score, and with it what relevance sums to, may be near zero.
    """
    backend = arguments.backend
    half = model.dtype != torch.float32
    explanation = model.explain(ids, target=TARGET, backend=backend)
    with torch.no_grad():
        logits = model(ids, use_cache=False, logits_to_keep=1).logits[:, -1].float().cpu()
    scale = logits.abs().amax(-1)
    gap = explanation.conservation.gap.abs()
    found = {
        "sum of relevance": float((gap / scale).max()),
        "logit": float(((explanation.score - logits[:, TARGET]).abs() / scale).max()),
    }
    tolerances = {"sum of relevance": 2e-2 if half else 1e-4, "logit": 5e-2 if half else 1e-3}
    for name, tolerance in tolerances.items():
        if not found[name] <= tolerance:
            raise AssertionError(f"{name}: relative difference {found[name]:.2g}, at most {tolerance} is allowed")
    if "HF gradient x input" not in arguments.methods:
        return found
    # Not a condition, but it shows that transformers' side computes what it should: two gradients of one network, the
    # model's own in its dtype and this package's in float32.
    own = hf_gradient_x_input(model, ids).detach().float().cpu()
    same = model.explain(ids, target=TARGET, backend=backend, method="gradient_x_input").relevance
    return {**found, "HF gradient x input": difference(own, same)}


def check_chunks(model: Any, arguments: argparse.Namespace) -> float:
    """How far the relevance of a row in chunks of at most a quarter is from that of the row at once, if that fits.

    In float32, where the two differ by rounding alone; the weights are the same numbers before and after. A chunk has
    at most 8 193 positions, since four bytes a number leave no room for more beside the largest models.
    """
    length, dtype = min(arguments.check_length, max(arguments.lengths)), model.dtype
    ids = Case("", "", 1, length).ids(model)
    model.float()
    try:
        whole, found = (
            model.explain(ids, target=TARGET, backend=arguments.backend, chunk_size=size).relevance
            for size in ("auto", min(length // 4, 8192) + 1)
        )
    finally:
        model.to(dtype)
    difference_of_chunks = difference(found, whole)
    if not difference_of_chunks <= 1e-4:
        raise AssertionError(f"relevance in chunks: relative difference {difference_of_chunks:.2g}, not 1e-4")
    return difference_of_chunks


def kernels_used(model: Any, ids: Tensor) -> dict[str, int]:
    """How often one forward of transformers calls the kernels of other packages: its scans, and its convolution."""
    counted = {
        "selective_scan_cuda": "fwd",
        "causal_conv1d_cuda": "causal_conv1d_fwd",
        "mamba_ssm.ops.triton.ssd_combined": "_mamba_chunk_scan_combined_fwd",
        "fla.ops.gated_delta_rule.chunk": "chunk_gated_delta_rule_fwd",
    }
    with ExitStack() as stack:
        counters = {}
        for module_name, name in counted.items():
            try:
                module = import_module(module_name)
                counters[f"{module_name}.{name}"] = stack.enter_context(
                    patch.object(module, name, wraps=getattr(module, name))
                )
            except Exception:
                continue
        hf_forward(model, ids)
        return {name: counter.call_count for name, counter in counters.items()}


# Timing ---------------------------------------------------------------------------------------------------------------


class Bench:
    """One run: what is asked for, the time that is left, and the rows so far, which are on disk after each case."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments, self.calls = arguments, calls(arguments)
        self.cuda = arguments.device.startswith("cuda")
        self.began = time.monotonic()
        self.run: dict[str, Any] = {**environment(arguments), "checks": [], "rows": []}
        if (arguments.resume or arguments.go_on) and arguments.json.exists():
            earlier = json.loads(arguments.json.read_text())
            checks = [check for check in earlier["checks"] if check["passed"] or arguments.go_on]
            rows = [row for row in earlier["rows"] if row["status"] != "error" or arguments.go_on]
            self.run |= {"checks": checks, "rows": rows, "first_date": earlier.get("first_date", earlier["date"])}
        self.left_out = 0
        self.weights = 0
        """Bytes allocated when the model was there and nothing else."""

    @property
    def rows(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = self.run["rows"]
        return rows

    def seconds_left(self) -> float:
        budget: float = self.arguments.budget_seconds
        return budget - (time.monotonic() - self.began)

    def write(self) -> None:
        if self.arguments.json:
            half_written = self.arguments.json.with_suffix(".part")
            half_written.write_text(json.dumps(self.run, indent=1) + "\n")
            half_written.replace(self.arguments.json)

    def add(self, case: "Case", name: str, **values: Any) -> None:
        row = {**case.key(name), **values}
        self.rows.append(row)
        shown = f"{row['ms']:.2f} ms" if row["status"] == "ok" else row["status"]
        print(f"{row['model']} {row['dtype']} {row['batch']} x {row['length']} {name}: {shown}", flush=True)

    def recorded(self, case: "Case", name: str) -> bool:
        key = case.key(name)
        return any(all(row[k] == v for k, v in key.items()) for row in self.rows)

    def earlier(self, case: "Case", name: str) -> list[dict[str, Any]]:
        """Rows of the same model, dtype and method with at most as many tokens, the largest last."""
        same = [row for row in self.rows if (row["model"], row["dtype"], row["method"]) == (*case.group, name)]
        return sorted((row for row in same if row["batch"] * row["length"] <= case.tokens), key=tokens_of)

    def synchronize(self) -> None:
        if self.cuda:
            torch.cuda.synchronize()

    def release(self) -> None:
        gc.collect()
        if self.cuda:
            torch.cuda.empty_cache()

    def milliseconds(self, call: Callable[[], object]) -> tuple[float, float | None, object]:
        """Wall-clock milliseconds of one call, the GPU memory above the weights in GiB, and what it returned."""
        self.synchronize()
        if self.cuda:
            torch.cuda.reset_peak_memory_stats()
        start = time.perf_counter()
        found = call()
        self.synchronize()
        elapsed = 1e3 * (time.perf_counter() - start)
        return elapsed, (torch.cuda.max_memory_reserved() - self.weights) / GIB if self.cuda else None, found

    def time_case(self, case: "Case", model: Any) -> None:
        """Time every method of one case in turn, so that a change of the machine's speed meets all."""
        pending = {name: Timed(call) for name, call in self.calls.items() if not self.recorded(case, name)}
        for name in list(pending):
            if name.startswith("HF") and any(row["status"] == OUT_OF_MEMORY for row in self.earlier(case, name)):
                del pending[name]
                self.add(case, name, status=OUT_OF_MEMORY, tried=False)
        if not self.affordable(case, list(pending)):
            self.left_out += len(pending)
            return
        ids = case.ids(model)
        for turn in range(self.arguments.turns):
            for name, timed in list(pending.items()):
                if timed.enough(turn, self.arguments.seconds_per_row):
                    continue
                model.requires_grad_(not name.endswith("frozen"))
                try:
                    timed.turn(partial(timed.call, model, ids), self)
                except Exception as error:
                    del pending[name]
                    self.failed(case, name, error)
                # What explain() holds for the next call of the same shape is its memory, not that of others.
                subject_of(model).network().recordings.clear()
                self.release()
        for name, timed in pending.items():
            self.add(case, name, status="ok", **timed.row(case.tokens))

    def affordable(self, case: "Case", names: list[str]) -> bool:
        """Whether the case ends within the budget, by the times of the next smaller one."""
        expected = 0.0
        for name in names:
            measured = [row for row in self.earlier(case, name) if row["status"] == "ok"]
            if measured:
                call = measured[-1]["ms"] / 1e3 * case.tokens / tokens_of(measured[-1])
                expected += max(3 * call, min(10 * call, self.arguments.seconds_per_row))
        return expected < self.seconds_left()

    def failed(self, case: "Case", name: str, error: Exception) -> None:
        if isinstance(error, torch.OutOfMemoryError) or "out of memory" in str(error):
            self.add(case, name, status=OUT_OF_MEMORY, tried=True)
        else:
            self.add(case, name, status="error", error=f"{type(error).__name__}: {error}"[:500])
            print(f"  {self.rows[-1]['error']}", flush=True)
        error.__traceback__ = None  # its frames hold the tensors
        self.write()
        if not self.device_lives():
            self.start_again()

    def device_lives(self) -> bool:
        """False after an error that spoils every later call, such as an illegal address."""
        try:
            self.synchronize()
        except Exception:
            return False
        return True

    def start_again(self) -> None:
        """Replace this process, whose GPU context is spoiled, by one that goes on behind the row that spoiled it."""
        if not self.arguments.json:
            sys.exit("The GPU context is lost. With --json the run would go on in a new process.")
        print("the GPU context is lost: going on in a new process", flush=True)
        again = [sys.executable, *sys.argv, "--go-on", "--budget-seconds", str(self.seconds_left())]
        os.execv(sys.executable, again)

    def group(self, model_name: str, dtype_name: str) -> None:
        """Check, then time one model in one dtype."""
        cases = [case for case in cases_of(self.arguments, model_name, dtype_name) if self.todo(case)]
        if not cases or self.seconds_left() <= 0:
            self.left_out += len(cases) * len(self.calls)
            return
        shape, dtype, backend = SHAPES[model_name], DTYPES[dtype_name], self.arguments.backend
        check: dict[str, Any] = {"model": model_name, "dtype": dtype_name, "passed": False}
        others = [c for c in self.run["checks"] if (c["model"], c["dtype"]) != (model_name, dtype_name)]
        if len(others) < len(self.run["checks"]) and self.arguments.go_on and not self.passed(model_name, dtype_name):
            return  # it is what spoiled the context
        try:
            check |= {"small": check_small(shape, dtype, self.arguments.device, backend)}
            model = build(shape, dtype, self.arguments)
            self.weights = torch.cuda.memory_allocated() if self.cuda else 0
            ids = Case(model_name, dtype_name, 2, min(256, max(self.arguments.lengths))).ids(model)
            check |= {
                "full": check_full(model, ids, self.arguments),
                "chunks": check_chunks(model, self.arguments),
                "length of chunks": min(self.arguments.check_length, max(self.arguments.lengths)),
                "hf_kernels": self.kernels(model, ids),
                "passed": True,
            }
        except Exception as error:
            check["error"] = f"{type(error).__name__}: {error}"[:500]
        self.run["checks"] = [*others, check]
        print(f"check {json.dumps(check)}", flush=True)
        self.write()
        if not self.device_lives():
            self.start_again()
        self.release()
        if not check["passed"]:
            return
        for case in cases:
            self.time_case(case, model)
            self.write()

    def passed(self, model_name: str, dtype_name: str) -> bool:
        group = [c for c in self.run["checks"] if (c["model"], c["dtype"]) == (model_name, dtype_name)]
        return all(check["passed"] for check in group)

    def kernels(self, model: Any, ids: Tensor) -> dict[str, int] | None:
        """Calls of the compiled kernels by one forward of transformers; there must be some if it is to be timed."""
        if not any(name.startswith("HF") for name in self.calls):
            return None
        used = kernels_used(model, ids)
        scans = [count for name, count in used.items() if "conv1d" not in name]
        if not self.arguments.slow_hf and not any(scans):
            raise AssertionError(f"transformers' scan is its own loop: {used}")
        return used

    def todo(self, case: "Case") -> bool:
        return not all(self.recorded(case, name) for name in self.calls)


@dataclass(frozen=True)
class Case:
    """One size at which every method is timed."""

    model: str
    dtype: str
    batch: int
    length: int

    @property
    def group(self) -> tuple[str, str]:
        return self.model, self.dtype

    @property
    def tokens(self) -> int:
        return self.batch * self.length

    def key(self, method: str) -> dict[str, Any]:
        """What tells its row from all others."""
        sizes = {"batch": self.batch, "length": self.length}
        return {"model": self.model, "dtype": self.dtype, "method": method, **sizes}

    def ids(self, model: Any) -> Tensor:
        """Random ids on the model's device."""
        generator = torch.Generator().manual_seed(self.length)
        size = (self.batch, self.length)
        return torch.randint(0, model.config.vocab_size, size, generator=generator).to(model.device)


@dataclass
class Timed:
    """The measurements of one method at one size."""

    call: Callable[[Any, Tensor], object]
    times: list[float] = field(default_factory=list)
    peaks: list[float | None] = field(default_factory=list)
    last: float = 0.0
    found: object = None
    """What the last call returned."""

    def enough(self, turn: int, seconds: float) -> bool:
        """Two calls are always timed; long ones no more than that."""
        return turn > 0 and len(self.times) > 1 and self.spent() + 3 * self.last / 1e3 > seconds

    def spent(self) -> float:
        return sum(self.times) / 1e3

    def turn(self, call: Callable[[], object], bench: Bench) -> None:
        """Warm-ups, of which the first compiles and fills the allocator's cache, the second is recorded as a CUDA graph
        and the third is as all to come; then up to as many calls as a turn has."""
        for warm_up in range(3):
            self.last, _, self.found = bench.milliseconds(call)
            if warm_up > 0 and self.last > 5e3:
                break
        share = bench.arguments.seconds_per_row / bench.arguments.turns
        affordable = int(share * 1e3 / max(self.last, 1e-3))
        for _ in range(max(1 if self.times else 2, min(affordable, bench.arguments.repeats))):
            elapsed, peak, self.found = bench.milliseconds(call)
            self.times.append(elapsed)
            self.peaks.append(peak)

    def row(self, tokens: int) -> dict[str, Any]:
        median = statistics.median(self.times)
        measured = [peak for peak in self.peaks if peak is not None]
        return {
            "ms": median,
            "ms_min": min(self.times),
            "ms_max": max(self.times),
            "calls": len(self.times),
            "tokens_per_second": tokens / median * 1e3,
            "peak_gib": max(measured) if measured else None,
            **self.explained(),
        }

    def explained(self) -> dict[str, Any]:
        """Of an explanation how far its sum is from the score, and how many positions it took at a time."""
        if not isinstance(self.found, Explanation):
            return {}
        gap = self.found.conservation.gap.abs() / self.found.relevance.abs().sum(-1)
        return {"sum of relevance": float(gap.max()), "chunk_size": self.found.chunk_size}


def tokens_of(row: dict[str, Any]) -> int:
    size: int = row["batch"] * row["length"]
    return size


def cases_of(arguments: argparse.Namespace, model: str, dtype: str) -> Iterator[Case]:
    """Single rows from short to long, then batches."""
    lengths = list(arguments.lengths)
    if arguments.longest:
        lengths += [length for length in SHAPES[model].longest if length > max(lengths)]
    for length in sorted(lengths):
        yield Case(model, dtype, 1, length)
    for batch in arguments.batches:
        for length in arguments.batch_lengths if batch > 1 else []:
            yield Case(model, dtype, batch, length)


def build(shape: Shape, dtype: torch.dtype, arguments: argparse.Namespace) -> nn.Module:
    """Random weights, made on the device; buffers, such as frequencies of RoPE, keep their dtype as when loaded."""
    torch.manual_seed(0)
    with torch.device(arguments.device):
        model = shape.build(arguments.vocabulary)
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
    return model.eval()


def environment(arguments: argparse.Namespace) -> dict[str, Any]:
    def installed(package: str) -> str | None:
        try:
            return version(package)
        except PackageNotFoundError:
            return None

    cuda = arguments.device.startswith("cuda")
    packages = ("torch", "triton", "transformers", "mamba_ssm", "causal_conv1d", "fla-core")
    return {
        "date": date.today().isoformat(),
        "device": torch.cuda.get_device_name() if cuda else "CPU",
        "device_gib": round(torch.cuda.get_device_properties(0).total_memory / GIB, 1) if cuda else None,
        "cuda": torch.version.cuda,
        "versions": {package: installed(package) for package in packages},
        "backend": arguments.backend,
        "methods": {name: METHODS[name] for name in arguments.methods},
        "timing": "synchronised wall clock around each call, median after warm-up, methods in turn; peak_gib is "
        "torch.cuda.max_memory_reserved above the weights, which counts CUDA graphs too",
    }


def slow_hf() -> str | None:
    """Why transformers would run its Python loop, or None."""
    for package in ("mamba_ssm", "causal_conv1d"):
        try:
            import_module(package)
        except Exception as error:
            return f"{package} cannot be imported ({error})"
    return None


def print_table(rows: list[dict[str, Any]]) -> None:
    def size(row: dict[str, Any]) -> tuple[Any, ...]:
        return row["model"], row["dtype"], row["batch"], row["length"]

    forwards = {size(row): row["ms"] for row in rows if row["method"] == "HF forward" and row["status"] == "ok"}
    print("| model | dtype | B x L | what | ms | tokens/s | x HF forward | peak memory above weights |")
    print("|---|---|---|---|---|---|---|---|")
    for row in rows:
        start = f"| {row['model']} | {row['dtype']} | {row['batch']} x {row['length']} | {row['method']} |"
        if row["status"] != "ok":
            print(f"{start} {row['status']} | | | |")
            continue
        ratio = f"{row['ms'] / forwards[size(row)]:.2f}" if size(row) in forwards else ""
        peak = "" if row["peak_gib"] is None else f"{row['peak_gib']:.2f} GiB"
        print(f"{start} {row['ms']:.2f} | {row['tokens_per_second']:.0f} | {ratio} | {peak} |")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=SHAPES, default=MAMBA)
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=list(DTYPES))
    parser.add_argument("--lengths", type=int, nargs="+", default=[512, 2048, 4096, 8192, 32768, 131072])
    parser.add_argument("--longest", action="store_true", help="also 2^20 tokens of mamba-130m and 2^18 of mamba-2.8b")
    parser.add_argument("--check-length", type=int, default=2048, help="of the row that is explained in chunks too")
    parser.add_argument("--batches", type=int, nargs="*", default=[8, 32], help="beside single rows")
    parser.add_argument("--batch-lengths", type=int, nargs="+", default=[512, 2048])
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--chunk-sizes", type=int, nargs="*", default=[], help="explain() with these as well")
    parser.add_argument("--backend", default="auto", help="of explain()")
    parser.add_argument("--vocabulary", type=int, default=50280)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--repeats", type=int, default=7, help="timed calls in a turn, at most")
    parser.add_argument("--turns", type=int, default=2, help="how often the methods take turns")
    parser.add_argument("--seconds-per-row", type=float, default=4.0, help="long calls are repeated less often")
    parser.add_argument("--budget-seconds", type=float, default=float("inf"), help="leave out what would take longer")
    parser.add_argument("--slow-hf", action="store_true", help="time transformers without its kernels too")
    parser.add_argument("--json", type=Path, help="write the numbers of this run here, after each case")
    parser.add_argument("--resume", action="store_true", help="keep the rows that are in --json already, but errors")
    parser.add_argument("--go-on", action="store_true", help=argparse.SUPPRESS)  # after a lost GPU context
    arguments = parser.parse_args()
    if arguments.resume and not arguments.json:
        parser.error("--resume needs --json")
    return arguments


def main() -> None:
    arguments = parse()
    reason = slow_hf()
    if reason and not arguments.slow_hf:
        print(f"transformers is not timed: {reason}", flush=True)
        arguments.methods = [name for name in arguments.methods if not name.startswith("HF")]
    bench = Bench(arguments)
    for model in arguments.models:
        for dtype in arguments.dtypes:
            bench.group(model, dtype)
            bench.release()
    bench.write()
    print_table(bench.rows)
    if bench.left_out:
        print(f"{bench.left_out} rows left out: the budget of {arguments.budget_seconds:.0f} seconds is used up")
    failed = [check for check in bench.run["checks"] if not check["passed"]]
    sys.exit(f"{len(failed)} checks failed" if failed else 0)


if __name__ == "__main__":
    main()
