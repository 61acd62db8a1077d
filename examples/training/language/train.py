"""Train the small Mamba-2 that hf_mambalrp ships: ``python train.py --data DATA --output OUTPUT``.

DATA is what prepare.py wrote. Half of the windows are synthetic, half of books, speeches and definitions. The learning
rate follows the clock: ``--seconds`` are those of training, and compiling and the tests come on top, about two minutes.
Each point of the curve leaves the model as it is in OUTPUT/model, so a run that is cut keeps the last one.

The test reads the weights as they are saved, in float16, and computes in float32.
"""

import argparse
import json
import math
import platform
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from random import Random
from typing import Any, get_args

import numpy as np
import torch
import transformers
from fast_forward import hidden_states, logits
from prepare import load
from stories import CopyCase, Names, copy_case, introduction_case
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoTokenizer, Mamba2Config, Mamba2ForCausalLM, PreTrainedTokenizerBase

KINDS = ("read", "synthetic")


@dataclass(frozen=True)
class Settings:
    """Everything that was tuned. Sizes keep the float16 file and the tokenizer under 8 MB."""

    hidden_size: int = 256
    num_hidden_layers: int = 6
    state_size: int = 64
    head_dim: int = 64
    length: int = 512
    batch_size: int = 64
    synthetic: float = 0.5
    lr: float = 3e-3
    warm_up: float = 0.02
    weight_decay: float = 0.1
    dropout: float = 0.05
    dropout_from: float = 0.0
    """The share of the time after which there is dropout."""
    max_norm: float = 1.0
    seed: int = 0


def build_model(settings: Settings, tokenizer: PreTrainedTokenizerBase) -> Mamba2ForCausalLM:
    return Mamba2ForCausalLM(
        Mamba2Config(
            vocab_size=len(tokenizer),
            hidden_size=settings.hidden_size,
            num_hidden_layers=settings.num_hidden_layers,
            state_size=settings.state_size,
            head_dim=settings.head_dim,
            num_heads=2 * settings.hidden_size // settings.head_dim,
            n_groups=1,
            chunk_size=64,
            initializer_range=0.02,
            residual_in_fp32=True,
            rescale_prenorm_residual=True,
            tie_word_embeddings=True,
            bos_token_id=tokenizer.eos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


class Windows:
    """Token ids of one split and kind, and windows of them that start where a text or paragraph does."""

    def __init__(self, data: Path, split: str, kind: str, device: str) -> None:
        self.ids = torch.from_numpy(load(data / f"{split}.{kind}.ids.xz", np.uint16).astype(np.int32)).to(device)
        starts = load(data / f"{split}.{kind}.starts.xz", np.uint32).astype(np.int64)
        self.starts = torch.from_numpy(starts).to(device)
        self.bytes = json.loads((data / "texts.json").read_text(encoding="utf-8"))[f"{split}.{kind}"]["bytes"]

    def draw(self, number: int, length: int, generator: torch.Generator) -> Tensor:
        """(number, length + 1): inputs and the token after the last."""
        chosen = torch.randint(len(self.starts), (number,), generator=generator, device=self.starts.device)
        start = self.starts[chosen].clamp(max=len(self.ids) - length - 1)
        return self.ids[start[:, None] + torch.arange(length + 1, device=start.device)].long()


def loss_of(model: Mamba2ForCausalLM, batch: Tensor, dropout: float) -> Tensor:
    hidden = hidden_states(model, batch[:, :-1], dropout)
    return F.cross_entropy(model.lm_head(hidden).float().flatten(0, 1), batch[:, 1:].flatten())


@torch.no_grad()
def bits_per_byte(model: Mamba2ForCausalLM, windows: Windows, length: int, *, most: int | None = None) -> float:
    """Over the whole stream: windows overlap by half, and what is counted has half a window or more before it.

    ``most`` bounds the tokens that are read. The stream's first token is not counted, nor its byte.
    """
    ids = windows.ids[:most].long()
    half = length // 2
    total = torch.zeros((), dtype=torch.float64, device=ids.device)
    rows = [ids[start : start + length + 1] for start in range(0, max(1, len(ids) - half - 1), half)]
    for first in range(0, len(rows), 64):
        part = rows[first : first + 64]
        batch = torch.nn.utils.rnn.pad_sequence(part, batch_first=True, padding_value=-100)
        target = batch[:, 1:].clone()
        # The first half of every window but the first was counted before.
        target[1 if first == 0 else 0 :, :half] = -100
        found = logits(model, batch[:, :-1].clamp(min=0)).float()
        total += F.cross_entropy(found.flatten(0, 1), target.flatten(), reduction="sum", ignore_index=-100)
    share = len(ids) / len(windows.ids)
    return round(total.item() / math.log(2) / (windows.bytes * share), 4)


CaseOf = Callable[[Random, Names], CopyCase]


@torch.no_grad()
def copying(
    model: Mamba2ForCausalLM, tokenizer: PreTrainedTokenizerBase, case_of: CaseOf, cases: int, names: Names
) -> dict[str, Any]:
    """How often the name asked for gets more probability than the other of the text, and is what greedy decoding gives.

    With 95 % intervals of Wilson.
    """
    rng = Random(names)
    device = model.device
    chosen, greedy = 0, 0
    for _ in range(cases):
        case = case_of(rng, names)
        prompt = tokenizer(case.text)["input_ids"]
        scores = []
        for name in (case.answer, case.other):
            ids = prompt + tokenizer(f" {name}")["input_ids"]
            found = logits(model, torch.tensor([ids], device=device))[0, len(prompt) - 1 : -1].float().log_softmax(-1)
            target = torch.tensor(ids[len(prompt) :], device=device)
            scores.append(found.gather(1, target[:, None]).sum().item())
            if name == case.answer:
                greedy += bool((found.argmax(-1) == target).all())
        chosen += scores[0] > scores[1]
    return {
        "cases": cases,
        "name rather than the other": [round(x, 4) for x in (chosen / cases, *wilson(chosen, cases))],
        "name by greedy decoding": [round(x, 4) for x in (greedy / cases, *wilson(greedy, cases))],
    }


def wilson(hits: int, number: int, z: float = 1.96) -> tuple[float, float]:
    """The 95 % interval of a share."""
    share, spread = hits / number, z * z / number
    middle = share + spread / 2
    half = z * math.sqrt((share * (1 - share) + spread / 4) / number)
    return (middle - half) / (1 + spread), (middle + half) / (1 + spread)


def compiled(compute: Callable[..., Tensor], *example: Any) -> Callable[..., Tensor]:
    """``compute`` by torch.compile if that works here, else as it is; compiled once before the clock starts."""
    try:
        fast = torch.compile(compute)
        fast(*example).backward()
    except Exception as error:  # whatever a compiler may raise
        print(f"torch.compile does not work here, so every kernel is launched: {str(error)[:500]}", flush=True)
        return compute
    return fast


class Run:
    """A model in training and its curve."""

    def __init__(self, settings: Settings, data: Path, output: Path, device: str) -> None:
        torch.manual_seed(settings.seed)
        self.settings, self.data, self.output, self.device = settings, data, output, device
        self.tokenizer = AutoTokenizer.from_pretrained(data / "tokenizer")
        self.windows = {kind: Windows(data, "train", kind, device) for kind in KINDS}
        self.validation = {kind: Windows(data, "validation", kind, device) for kind in KINDS}
        self.model = build_model(settings, self.tokenizer).to(device).train()
        groups: dict[bool, list[Tensor]] = {True: [], False: []}
        for name, parameter in self.model.named_parameters():
            groups[parameter.dim() == 2 and "embeddings" not in name].append(parameter)
        self.optimizer = torch.optim.AdamW(
            [
                {"params": groups[True], "weight_decay": settings.weight_decay},
                {"params": groups[False], "weight_decay": 0.0},
            ],
            lr=settings.lr,
            betas=(0.9, 0.95),
            fused=device == "cuda",
        )
        self.generator = torch.Generator(device).manual_seed(settings.seed)
        self.steps, self.seconds, self.curve = 0, 0.0, []  # type: ignore[var-annotated]

    def draw(self) -> Tensor:
        """A batch of windows, (batch_size, length + 1)."""
        made = round(self.settings.batch_size * self.settings.synthetic)
        numbers = {"read": self.settings.batch_size - made, "synthetic": made}
        parts = [self.windows[kind].draw(numbers[kind], self.settings.length, self.generator) for kind in KINDS]
        return torch.cat(parts)

    def save(self) -> None:
        """Replace OUTPUT/model by the model as it is, in float16; what reads it is told to compute in float32."""
        part, folder = self.output / "model.part", self.output / "model"
        state = {name: value.half() for name, value in self.model.state_dict().items() if name != "lm_head.weight"}
        self.model.save_pretrained(part, state_dict=state)
        shutil.copytree(self.data / "tokenizer", part, dirs_exist_ok=True)
        config = json.loads((part / "config.json").read_text(encoding="utf-8"))
        # Infinity, the default, is written in ways that not every release reads.
        for name in ("torch_dtype", "time_step_limit"):
            config.pop(name, None)
        config["dtype"] = "float32"
        (part / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        part.rename(folder)

    def validate(self, loss: float) -> None:
        self.model.eval()
        found = {
            f"{kind} bits per byte": bits_per_byte(self.model, self.validation[kind], 512, most=60_000)
            for kind in KINDS
        }
        self.model.train()
        tokens = self.steps * self.settings.batch_size * self.settings.length
        point = {
            "seconds": round(self.seconds, 1),
            "steps": self.steps,
            "tokens": tokens,
            "loss": round(loss, 4),
        } | found
        self.curve.append(point)
        print(json.dumps(point), flush=True)

    def fit(self, seconds: float, points: int) -> None:
        settings, weights = self.settings, list(self.model.parameters())

        def step_with(dropout: float) -> Callable[..., Tensor]:
            def compute(batch: Tensor) -> Tensor:
                with torch.autocast(self.device, torch.bfloat16, enabled=self.device == "cuda", cache_enabled=False):
                    return loss_of(self.model, batch, dropout)

            return compiled(compute, self.draw()) if self.device == "cuda" else compute

        plain, dropping = step_with(0.0), step_with(settings.dropout)
        started, paused, due = time.perf_counter(), 0.0, seconds / points
        while self.seconds < seconds:
            share = self.seconds / seconds
            for group in self.optimizer.param_groups:
                rise = min(1.0, share / settings.warm_up, (self.steps + 1) / 100)
                group["lr"] = settings.lr * rise * max(0.005, 0.5 + 0.5 * math.cos(math.pi * share))
            self.optimizer.zero_grad(set_to_none=True)
            loss = (dropping if share >= settings.dropout_from else plain)(self.draw())
            loss.backward()
            torch.nn.utils.clip_grad_norm_(weights, settings.max_norm)
            self.optimizer.step()
            self.steps += 1
            if self.steps % 20 == 0:  # reading the loss waits for the GPU: the clock is the work's, not the queue's
                value = loss.item()
                if not math.isfinite(value):
                    raise SystemExit(f"the loss is {value} after {self.steps} steps; lower --lr")
            self.seconds = time.perf_counter() - started - paused
            if self.seconds >= min(due, seconds):
                stopped = time.perf_counter()
                due = self.seconds + seconds / points
                self.validate(loss.item())
                self.save()
                paused += time.perf_counter() - stopped


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder that prepare.py wrote")
    parser.add_argument("--output", type=Path, required=True, help="where model/ and training.json go")
    parser.add_argument("--seconds", type=float, default=330, help="of training")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--points", type=int, default=11, help="of the curve")
    parser.add_argument("--cases", type=int, default=1000, help="of each copy test")
    for name, value in asdict(Settings()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value)
    arguments = parser.parse_args(argv)
    device = arguments.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.set_float32_matmul_precision("high")
    settings = Settings(**{name: getattr(arguments, name) for name in asdict(Settings())})
    arguments.output.mkdir(parents=True, exist_ok=True)
    run = Run(settings, arguments.data, arguments.output, device)
    run.fit(arguments.seconds, arguments.points)

    torch.set_float32_matmul_precision("highest")
    model = Mamba2ForCausalLM.from_pretrained(arguments.output / "model", dtype=torch.float32).to(device).eval()
    report = {
        "date": date.today().isoformat(),
        "device": torch.cuda.get_device_name() if device == "cuda" else platform.processor() or "cpu",
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "settings": asdict(settings),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "seconds": round(run.seconds),
        "steps": run.steps,
        "tokens": run.steps * settings.batch_size * settings.length,
        "test bits per byte": {
            kind: bits_per_byte(model, Windows(arguments.data, "test", kind, device), 512) for kind in KINDS
        },
        **{
            kind: {names: copying(model, run.tokenizer, case_of, arguments.cases, names) for names in get_args(Names)}
            for kind, case_of in {"copying": copy_case, "introductions": introduction_case}.items()
        },
        "validation": run.curve,
    }
    text = json.dumps(report, indent=2)
    (arguments.output / "training.json").write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
