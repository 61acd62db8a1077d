"""Train a small Mamba on a synthetic task with known evidence, in minutes on a CPU.

    python examples/training/train_tasks.py --task copying --family mamba2 --output out/copying-mamba2

The tasks are those of ``hf_mambalrp.evaluation.tasks``. Every step draws fresh sequences, short ones first. The folder
receives a plain transformers checkpoint with a tokenizer that names the tokens, README.md and training.json. A model
below ``--min-accuracy`` on held-out sequences is not saved, and the exit status is 1.
"""

import argparse
import json
import random
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from model import save
from task_models import FAMILIES, build_model, build_tokenizer, logits_at
from torch import Tensor
from torch.nn import functional as F
from transformers import PreTrainedModel

from hf_mambalrp.evaluation.tasks import TaskBatch, associative_recall, copying, needle

HELD_OUT_SEED = 2**40
"""Above the seeds of all training batches, for every ``--seed`` below 2**20."""


@dataclass(frozen=True)
class Task:
    """A generator, and the sizes that it is trained on."""

    generator: str
    """Its name in ``hf_mambalrp.evaluation.tasks``."""
    draw: Callable[[int, int, int, int], TaskBatch]
    """(n, size, vocabulary, seed) -> sequences."""
    size_is: str
    smallest: int
    largest: int
    vocabulary: int
    """Large enough for twice the largest size, on which the model is evaluated as well."""
    steps: int
    prompt: str


def recall_every_pair(n: int, pairs: int, vocabulary: int, seed: int) -> TaskBatch:
    """Every pair is asked for, so a sequence teaches ``pairs`` times."""
    return associative_recall(n, pairs, vocabulary, seed, queries=pairs)


TASKS = {
    "copying": Task(
        generator="copying",
        draw=copying,
        size_is="source tokens",
        smallest=1,
        largest=12,
        vocabulary=28,
        steps=1500,
        prompt="<bos> x1 x2 x3 <sep>",
    ),
    "recall": Task(
        generator="associative_recall",
        draw=recall_every_pair,
        size_is="pairs",
        smallest=1,
        largest=8,
        vocabulary=36,
        steps=1500,
        prompt="<bos> x1 x17 x2 x18 <sep> x1",
    ),
    "needle": Task(
        generator="needle",
        draw=needle,
        size_is="columns before the output",
        smallest=4,
        largest=96,
        vocabulary=20,
        steps=600,
        prompt="<bos> x1 x2 <key> x3 x4 <sep>",
    ),
}


def train(
    model: PreTrainedModel, task: Task, *, steps: int, batch_size: int, lr: float, seed: int, device: str
) -> None:
    """Minimise the cross-entropy of the output tokens; the sizes drawn grow over the first 40 % of the steps."""
    sizes = random.Random(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr, betas=(0.9, 0.98), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, steps, pct_start=0.1)
    for step in range(steps):
        reach = min(1.0, 0.1 + step / (0.4 * steps))
        size = sizes.randint(task.smallest, task.smallest + round(reach * (task.largest - task.smallest)))
        batch = task.draw(batch_size, size, task.vocabulary, seed * 2**20 + step)
        logits = logits_at(model, batch.input_ids.to(device), batch.positions.to(device))
        loss = F.cross_entropy(logits.flatten(0, 1), batch.targets.flatten().to(device))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if (step + 1) % 100 == 0:
            print(f"step {step + 1} of {steps}: {size} {task.size_is}, loss {loss.item():.4f}", file=sys.stderr)


@torch.no_grad()
def held_out_accuracy(model: PreTrainedModel, task: Task, size: int, device: str, samples: int) -> Tensor:
    """Share of right tokens among sequences not trained on, for each of the T output tokens. (T,)."""
    batch = task.draw(samples, size, task.vocabulary, HELD_OUT_SEED)
    chosen = [
        logits_at(model, ids.to(device), positions.to(device)).argmax(-1).cpu()
        for ids, positions in zip(batch.input_ids.split(100), batch.positions.split(100), strict=True)
    ]
    return (torch.cat(chosen) == batch.targets).double().mean(0)


def evaluate(model: PreTrainedModel, task: Task, device: str, samples: int) -> dict[str, Any]:
    """Accuracy at the largest trained size, over all outputs and for each, and at half and twice that size."""
    sizes = (task.largest // 2, task.largest, 2 * task.largest)
    by_output = {size: held_out_accuracy(model, task, size, device, samples) for size in sizes}
    return {
        "accuracy": round(by_output[task.largest].mean().item(), 5),
        "accuracy of each output": [round(share, 5) for share in by_output[task.largest].tolist()],
        "accuracy by size": {str(size): round(shares.mean().item(), 5) for size, shares in by_output.items()},
        "largest size": task.largest,
        "size is": task.size_is,
        "held-out sequences": samples,
    }


CARD = """---
library_name: transformers
tags: [{family}, synthetic, hf_mambalrp]
---

# {title}

{parameters} parameters, {layers} layers, hidden size {hidden}. Trained by `examples/training/train_tasks.py` of
hf_mambalrp on the task `{task}` of `hf_mambalrp.evaluation.tasks`, in which the input token that each output is
copied from is known.

Right output tokens on {samples} held-out sequences of {largest} {size_is}, the largest trained: {accuracy:.2%}.

```python
from hf_mambalrp import AutoMambaLRPForCausalLM

model = AutoMambaLRPForCausalLM.from_pretrained("path/of/this/folder")
print(model.explain("{prompt}"))
```
"""


def card(model: PreTrainedModel, name: str, report: dict[str, Any]) -> str:
    """README.md of the checkpoint."""
    task, config = TASKS[name], model.config
    return CARD.format(
        family=config.model_type,
        title=f"A small {config.model_type} for {name}",
        parameters=f"{model.num_parameters():,}".replace(",", " "),
        layers=config.num_hidden_layers,
        hidden=config.hidden_size,
        task=task.generator,
        samples=report["held-out sequences"],
        largest=task.largest,
        size_is=task.size_is,
        accuracy=report["accuracy"],
        prompt=task.prompt,
    )


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=list(TASKS), required=True)
    parser.add_argument("--family", choices=list(FAMILIES), required=True)
    parser.add_argument("--output", type=Path, required=True, help="where the checkpoint is written")
    parser.add_argument("--steps", type=int, help="default: what the task needs")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--lr", type=float, default=6e-3)
    parser.add_argument("--hidden-size", type=int, default=64)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--min-accuracy", type=float, default=0.99, help="below it nothing is saved")
    parser.add_argument("--samples", type=int, default=1000, help="held-out sequences")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--seed", type=int, default=0, help="the same model again, on one machine's CPU")
    options = parser.parse_args(arguments)
    device = options.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    task = TASKS[options.task]

    torch.manual_seed(options.seed)
    model = build_model(options.family, task.vocabulary, options.hidden_size, options.layers).to(device)
    started = time.perf_counter()
    steps = task.steps if options.steps is None else options.steps
    fitted = {"steps": steps, "batch_size": options.batch_size, "lr": options.lr, "seed": options.seed}
    train(model, task, **fitted, device=device)
    seconds = round(time.perf_counter() - started)
    report = {"task": options.task, "family": options.family} | evaluate(model, task, device, options.samples)
    report |= {
        "settings": fitted,
        "seconds of training": seconds,
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
    }
    text = json.dumps(report, indent=2)
    print(text)
    if report["accuracy"] < options.min_accuracy:
        print(
            f"Not saved: held-out accuracy {report['accuracy']:.4f} is below --min-accuracy {options.min_accuracy}. "
            "Train with more --steps, another --lr or another --seed.",
            file=sys.stderr,
        )
        return 1
    save(model, build_tokenizer(task.vocabulary), options.output)
    (options.output / "training.json").write_text(text + "\n", encoding="utf-8")
    (options.output / "README.md").write_text(card(model, options.task, report), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
