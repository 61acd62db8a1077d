"""How often does an audit find a shortcut that was planted, and how often does it cry wolf?

Models that learned from reviews in which words say nothing but go with one class, and models that learned from reviews
in which the same words are everywhere, are audited on texts of the first, biased kind. The thresholds were chosen on
the models of --development; the figures are those of others, whose seeds were fixed beforehand.

    python examples/audit/power.py --development --output out/power-development
    python examples/audit/power.py --output out/power --json examples/audit/results/power.json

What is finished is kept in the folder, and the same command goes on. With --kinds several of them share the work.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from scipy.stats import binomtest
from transformers import AutoTokenizer

from hf_mambalrp import DEMO_MODEL, AutoMambaLRPForSequenceClassification, explain_dataset, load_explanations
from hf_mambalrp.audit import audit
from hf_mambalrp.audit.statistics import MAX_Q

sys.path.insert(0, str(Path(__file__).parent.parent / "training"))
from planted_reviews import BAD, BIASED, FAIR, GOOD, PLANTED, corpus
from small_classifier import accuracy, build_tokenizer, trained

TEST, DEVELOPMENT = range(200, 206), range(100, 102)
"""Seeds of the models."""
SIZES = {50: 8, 100: 8, 200: 8, 400: 4}
"""Texts of an audit, and how many audits of other texts of one model."""
POOL, TRAINING = 1600, 3000
THRESHOLDS = (0.0, 0.1, 0.2, 0.3)
"""Of min_effect, which --development compares."""
CHOSEN = 0.2


def audits(model: Any, tokenizer: Any, kind: str, seed: int, pool: int, folder: Path) -> Iterator[dict[str, Any]]:
    """Audits of one model: the largest effect of a candidate with planted words, and what else was confirmed."""
    texts = corpus(pool, 10_000 + seed, kind)
    explain_dataset(model, texts, folder, tokenizer=tokenizer, columns=["label"], progress=False)
    explained = list(load_explanations(folder))
    opinions, planted = {*GOOD, *BAD}, {*PLANTED[kind]}
    for size, count in SIZES.items():
        for number in range(count):
            some = explained[number * size : (number + 1) * size]
            found = audit(model, some, label="label", tokenizer=tokenizer, min_effect=0.0, progress=False)
            sizes = {"planted": 0.0, "other": 0.0}
            names = []
            for one in found.candidates:
                words = {*one.found.name.split()}
                if one.q < MAX_Q and not words & opinions:
                    of = "planted" if words & planted else "other"
                    sizes[of] = max(sizes[of], abs(one.found.effect))
                    names += [one.found.name] if abs(one.found.effect) >= CHOSEN else []
            yield {"texts": size, "number": number, **sizes, "confirmed": names}


def examined(
    kind: str, world: str, seed: int, tokenizer: Any, folder: Path, pool: int, training: int
) -> dict[str, Any]:
    """One model, trained or packaged, with its audits; kept in the folder."""
    kept = folder / f"{kind}-{world}-{seed}.json"
    if kept.is_file():
        return json.loads(kept.read_text())
    start = time.process_time()
    if world == "packaged":
        model = AutoMambaLRPForSequenceClassification.from_pretrained(DEMO_MODEL)
        tokenizer = AutoTokenizer.from_pretrained(DEMO_MODEL)
        right = None
    else:
        rows = corpus(training, 1000 + seed, kind, BIASED if world == "shortcut" else FAIR)
        model = trained(rows, tokenizer, seed)
        right = accuracy(model, tokenizer, corpus(POOL, 20_000 + seed, kind, FAIR))
    done = list(audits(model, tokenizer, kind, seed, pool, folder / kept.stem))
    found = {"kind": kind, "world": world, "seed": seed, "accuracy on fair texts": right, "audits": done}
    kept.write_text(json.dumps({**found, "cpu_seconds": time.process_time() - start}) + "\n")
    print(f"{kept.stem}: {time.process_time() - start:.0f} s", flush=True)
    return json.loads(kept.read_text())


def cells(models: list[dict[str, Any]], threshold: float, of: str) -> list[dict[str, Any]]:
    """For every kind, world and number of texts: in how many audits something ``of`` a sort was confirmed."""
    found = []
    for kind, world in dict.fromkeys((model["kind"], model["world"]) for model in models):
        same = [model for model in models if (model["kind"], model["world"]) == (kind, world)]
        for size, count in SIZES.items():
            by_model = [
                sum(one[of] >= threshold and one[of] > 0 for one in model["audits"] if one["texts"] == size)
                for model in same
            ]
            hits, total = sum(by_model), count * len(same)
            low, high = binomtest(hits, total).proportion_ci(0.95, "exact")
            found.append(
                {"kind": kind, "world": world, "texts": size, "audits": total, "flagged": hits, "share": hits / total}
                | {"low": float(low), "high": float(high), "by_model": by_model}
            )
    return found


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown: a line for every kind and world, a column for every number of texts."""
    lines = ["| shortcut | model | " + " | ".join(f"{size} texts" for size in SIZES) + " |", "|---" * 6 + "|"]
    for kind, world in dict.fromkeys((row["kind"], row["world"]) for row in rows):
        same = [row for row in rows if (row["kind"], row["world"]) == (kind, world)]
        said = " | ".join("{share:.2f} [{low:.2f}, {high:.2f}]".format(**row) for row in same)
        lines.append(f"| {kind} | {world} | {said} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder of what is finished")
    parser.add_argument("--development", action="store_true", help="the models on which the thresholds were chosen")
    parser.add_argument("--kinds", nargs="+", default=list(PLANTED), choices=list(PLANTED))
    parser.add_argument("--models", type=int, help="only so many of each kind")
    parser.add_argument("--quick", action="store_true", help="one small audit of each model: does it run")
    parser.add_argument("--json", type=Path, help="write the figures here")
    arguments = parser.parse_args()
    if arguments.quick:
        SIZES.clear()
        SIZES[50] = 1
    pool, training = (50, 128) if arguments.quick else (POOL, TRAINING)
    torch.set_num_threads(1)
    arguments.output.mkdir(parents=True, exist_ok=True)
    seeds = (DEVELOPMENT if arguments.development else TEST)[: arguments.models]
    tokenizer = build_tokenizer([row["text"] for kind in PLANTED for row in corpus(2000, 0, kind)])
    models = [
        examined(kind, world, seed, tokenizer, arguments.output, pool, training)
        for kind in arguments.kinds
        for world in ("shortcut", "clean", "packaged")
        for seed in (seeds if world != "packaged" else seeds[:1])
    ]
    for threshold in THRESHOLDS if arguments.development else [CHOSEN]:
        print(f"\nA candidate with planted words is confirmed, min_effect={threshold}\n")
        print(table(cells(models, threshold, "planted")))
    print(f"\nAnother word that says nothing is confirmed, min_effect={CHOSEN}\n")
    print(table(cells(models, CHOSEN, "other")))
    if arguments.json:
        run = {
            "date": date.today().isoformat(),
            "versions": {name: version(name) for name in ("torch", "transformers", "scipy")},
            "seeds": list(seeds),
            "cpu_seconds": sum(model["cpu_seconds"] for model in models),
            "accuracy on fair texts": {
                f"{kind}, {world}": [
                    model["accuracy on fair texts"]
                    for model in models
                    if (model["kind"], model["world"]) == (kind, world)
                ]
                for kind in arguments.kinds
                for world in ("shortcut", "clean")
            },
            "planted": {str(threshold): cells(models, threshold, "planted") for threshold in THRESHOLDS},
            "other": cells(models, CHOSEN, "other"),
        }
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(run, indent=1) + "\n", encoding="utf-8")
        print(f"written: {arguments.json}")


if __name__ == "__main__":
    main()
