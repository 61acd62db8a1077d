"""Where the evidence is known: does relevance fall on it? Copying, associative recall and a needle in a haystack.

The models are those of examples/training/train_tasks.py, one folder each, named task-family.

    python examples/training/train_tasks.py --task copying --family mamba2 --output out/tasks/copying-mamba2
    python examples/evaluation/tasks.py --models out/tasks --output out/tasks/results.json

ROC AUC, average precision, recall at K and hit of every output token, over all positions that were read before it, with
bootstrap intervals over sequences, by distance from the end, and for the needle in haystacks of growing length.
"""

import argparse
import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hf_mambalrp import AutoMambaLRPForCausalLM
from hf_mambalrp.evaluation import localise
from hf_mambalrp.evaluation.localisation import METRICS, Localisation
from hf_mambalrp.evaluation.settings import DEFAULT_METHODS
from hf_mambalrp.evaluation.statistics import bootstrap
from hf_mambalrp.evaluation.tasks import TaskBatch, associative_recall, copying, needle

ALSO_ABSOLUTE = ("mambalrp", "gradient_x_input", "attention_rollout")
"""Methods that are ranked by the size of their relevance too: attention has a sign, but no direction."""
SEED = 1_000_000
"""Of the sequences: train_tasks.py counts up from its own seed."""


def batches(task: str, size: int, vocabulary: int, arguments: argparse.Namespace) -> dict[str, TaskBatch]:
    """Held-out sequences of the training size; for the needle also of growing length, at every depth."""
    n = arguments.sequences
    if task == "copying":
        return {f"{size} tokens": copying(n, size, vocabulary, SEED)}
    if task == "recall":
        return {f"{size} pairs": associative_recall(n, size, vocabulary, SEED)}
    lengths = [size * factor for factor in arguments.needle_factors]
    return {f"length {length}": needle(n, length, vocabulary, SEED) for length in lengths}


def interval(values: Tensor) -> dict[str, float]:
    """Mean over sequences, each the mean of its output tokens, with its 95 % interval."""
    each = values.nanmean(1)
    each = each[~each.isnan()][:, None]
    low, high = bootstrap(each, 0.95, 2000, seed=0)[1][:, 0].tolist()
    return {"mean": float(each.mean()), "low": low, "high": high}


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, required=True, help="folder of folders, named task-family")
    parser.add_argument("--output", type=Path, required=True, help="JSON of all numbers")
    parser.add_argument("--methods", nargs="+", default=[*DEFAULT_METHODS, "occlusion"])
    parser.add_argument("--sequences", type=int, default=100)
    parser.add_argument("--needle-factors", type=int, nargs="+", default=[1, 2, 4, 8], help="of the training length")
    arguments = parser.parse_args()

    results: dict[str, Any] = {
        "versions": {name: version(name) for name in ("torch", "transformers")},
        "settings": {"sequences": arguments.sequences, "seed": SEED, "resamples": 2000, "confidence": 0.95},
        "tasks": {},
    }
    for folder in sorted(path for path in arguments.models.iterdir() if (path / "config.json").is_file()):
        task = folder.name.split("-")[0]
        size = json.loads((folder / "training.json").read_text())["largest size"]
        model = AutoMambaLRPForCausalLM.from_pretrained(folder)
        for what, batch in batches(task, size, model.config.vocab_size, arguments).items():
            found: dict[str, Any] = {}
            print(f"\n{folder.name}, {what}: {arguments.sequences} sequences, {batch.targets.shape[1]} outputs each")
            print("| method | ROC AUC | average precision | recall at K | hit |\n|---|---|---|---|---|")
            for method in arguments.methods:
                for absolute in (False, True) if method in ALSO_ABSOLUTE else (False,):
                    name = f"{method}, size" if absolute else method
                    found[name] = summary(localise(model, batch, method=method, absolute=absolute))
                    cells = ("{mean:.3f} [{low:.3f}, {high:.3f}]".format(**found[name][metric]) for metric in METRICS)
                    print(f"| {name} | {' | '.join(cells)} |", flush=True)
            results["tasks"].setdefault(folder.name, {})[what] = found
            arguments.output.parent.mkdir(parents=True, exist_ok=True)
            arguments.output.write_text(json.dumps(results, indent=1) + "\n")
    print(f"\nwritten: {arguments.output}")


if __name__ == "__main__":
    main()
