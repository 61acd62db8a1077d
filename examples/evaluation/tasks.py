"""Where the evidence is known: does relevance fall on it? Copying, associative recall and a needle in a haystack.

The models are those of examples/training/train_tasks.py, one folder each, named task-family-seed; what is found is also
averaged over the seeds of a task and family.

    python examples/training/train_tasks.py --task copying --family mamba2 --output out/tasks/copying-mamba2-0
    python examples/evaluation/tasks.py --models out/tasks --output out/tasks/results.json --processes 2

ROC AUC, average precision, recall at K and hit of every output token, over all positions that were read before it, with
bootstrap intervals over sequences, by distance from the end, and for the needle in haystacks of growing length.
"""

import argparse
import json
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import torch
from torch import Tensor

from hf_mambalrp import AutoMambaLRPForCausalLM
from hf_mambalrp.evaluation import localise
from hf_mambalrp.evaluation.localisation import METRICS, Localisation
from hf_mambalrp.evaluation.statistics import mean_with_interval
from hf_mambalrp.evaluation.tasks import TaskBatch, associative_recall, copying, needle
from hf_mambalrp.methods import METHODS
from hf_mambalrp.runs.workers import examined

ALSO_ABSOLUTE = ("mambalrp", "gradient_x_input", "attention_rollout")
"""Methods that are ranked by the size of their relevance too: attention has a sign, but no direction."""
SEED = 1_000_000
"""Of the sequences: train_tasks.py counts up from its own seed."""


class Ranking(NamedTuple):
    """What is done at a time: a model's sequences of one size ranked by one method."""

    folder: Path
    what: str
    """How the report calls the size."""
    size: int
    method: str
    absolute: bool

    @property
    def name(self) -> str:
        """How the report calls the method."""
        return f"{self.method}, size" if self.absolute else self.method


@dataclass
class Rankings:
    """The sequences that are held out."""

    sequences: int

    def examine(self, ranking: Ranking) -> dict[str, Any]:
        torch.set_num_threads(1)  # the same numbers on any number of processes
        model = AutoMambaLRPForCausalLM.from_pretrained(ranking.folder)
        batch = drawn(task_of(ranking.folder), self.sequences, ranking.size, model.config.vocab_size)
        return summary(localise(model, batch, method=ranking.method, absolute=ranking.absolute))


def task_of(folder: Path) -> str:
    return folder.name.split("-")[0]


def drawn(task: str, sequences: int, size: int, vocabulary: int) -> TaskBatch:
    """Held-out sequences; the needle is at every depth."""
    draw = {"copying": copying, "recall": associative_recall, "needle": needle}[task]
    return draw(sequences, size, vocabulary, SEED)


def trained_size(folder: Path) -> int:
    size: int = json.loads((folder / "training.json").read_text())["largest size"]
    return size


def sizes(folder: Path, factors: list[int]) -> dict[str, int]:
    """The training size; for the needle also growing lengths."""
    size, task = trained_size(folder), task_of(folder)
    if task == "needle":
        return {f"length {size * factor}": size * factor for factor in factors}
    return {f"{size} {'tokens' if task == 'copying' else 'pairs'}": size}


def interval(values: Tensor) -> dict[str, float | None]:
    """Mean over sequences, each the mean of its output tokens, with its 95 % interval."""
    each = values.nanmean(1)
    return mean_with_interval(each[~each.isnan()].tolist())


def summary(found: Localisation) -> dict[str, Any]:
    metrics = {name: interval(getattr(found, name)) for name in METRICS}
    quarters = found.distance.double().quantile(torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64))
    which = torch.bucketize(found.distance.double(), quarters)
    by_distance = []
    for quarter in range(4):
        chosen = which == quarter
        if bool(chosen.any()):
            values = {name: float(getattr(found, name)[chosen].nanmean()) for name in METRICS}
            near, far = int(found.distance[chosen].min()), int(found.distance[chosen].max())
            by_distance.append({"distance": [near, far], "outputs": int(chosen.sum()), **values})
    return {"accuracy": float(found.correct.double().mean()), **metrics, "by_distance": by_distance}


def over_seeds(tasks: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """By task and family, size and method: the mean of the models of several seeds, and the lowest and the highest."""
    alike: dict[str, list[dict[str, Any]]] = {}
    for name, of_model in tasks.items():
        alike.setdefault("-".join(name.split("-")[:2]), []).append(of_model)
    return {
        name: {
            what: {
                method: {
                    metric: spread([model[what][method][metric]["mean"] for model in models]) for metric in METRICS
                }
                for method in methods
            }
            for what, methods in models[0].items()
        }
        for name, models in alike.items()
    }


def spread(of_seeds: list[float]) -> dict[str, Any]:
    return {"mean": fmean(of_seeds), "low": min(of_seeds), "high": max(of_seeds), "seeds": of_seeds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, required=True, help="folder of folders, named task-family-seed")
    parser.add_argument("--output", type=Path, required=True, help="JSON of all numbers")
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    parser.add_argument("--sequences", type=int, default=100)
    parser.add_argument("--needle-factors", type=int, nargs="+", default=[1, 2, 4, 8], help="of the training length")
    parser.add_argument("--processes", type=int, default=1)
    arguments = parser.parse_args()

    folders = sorted(path for path in arguments.models.iterdir() if (path / "config.json").is_file())
    rankings = [
        Ranking(folder, what, size, method, absolute)
        for folder in folders
        for what, size in sizes(folder, arguments.needle_factors).items()
        for method in arguments.methods
        if method != "occlusion" or size == trained_size(folder)  # which costs a forward a column
        for absolute in ((False, True) if method in ALSO_ABSOLUTE else (False,))
    ]
    tasks: dict[str, dict[str, Any]] = {}
    written: dict[str, Any] = {
        "versions": {name: version(name) for name in ("torch", "transformers")},
        "settings": {"sequences": arguments.sequences, "seed": SEED, "resamples": 2000, "confidence": 0.95},
        "models": {folder.name: json.loads((folder / "training.json").read_text()) for folder in folders},
        "tasks": tasks,
    }
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    with examined(Rankings(arguments.sequences).examine, rankings, arguments.processes) as results:
        for ranking, found in zip(rankings, results, strict=True):
            methods = tasks.setdefault(ranking.folder.name, {}).setdefault(ranking.what, {})
            if not methods:  # what is finished is kept
                arguments.output.write_text(json.dumps(written, indent=1) + "\n")
                print(f"\n{ranking.folder.name}, {ranking.what}: {arguments.sequences} sequences")
                print("| method | ROC AUC | average precision | recall at K | hit |\n|---|---|---|---|---|")
            methods[ranking.name] = found
            cells = ("{mean:.3f} [{low:.3f}, {high:.3f}]".format(**found[metric]) for metric in METRICS)
            print(f"| {ranking.name} | {' | '.join(cells)} |", flush=True)
    arguments.output.write_text(json.dumps({**written, "over seeds": over_seeds(tasks)}, indent=1) + "\n")
    print(f"\nwritten: {arguments.output}")


if __name__ == "__main__":
    main()
