"""Accuracy of a trained model and of the baselines: ``python evaluate.py --cache-dir CACHE --model-dir MODEL``.

This is the only program that reads the test split. It loads the model as any user would.
"""

import argparse
import json
import platform
from datetime import date
from pathlib import Path

import torch
import transformers
from baselines import baseline_scores
from data import FILES, Snippet, load_snippets
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from hf_mambalrp.models.classification import MambaForSequenceClassification


@torch.no_grad()
def stock_scores(model: MambaForSequenceClassification, tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> Tensor:
    """Logit of positive minus logit of negative, through the stock forward. Shape (len(texts),)."""
    scores = torch.empty(len(texts))
    by_length = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    for start in range(0, len(by_length), 64):
        chosen = by_length[start : start + 64]
        encoded = tokenizer([texts[i] for i in chosen], padding=True, return_tensors="pt")
        scores[chosen] = model(**encoded).logits.diff(dim=1)[:, 0]
    return scores


def accuracies(snippets: list[Snippet], scores: Tensor) -> dict[str, float]:
    """Share of labelled snippets whose score has the sign of the rating, by source."""
    hits: dict[str, list[bool]] = {}
    for snippet, score in zip(snippets, scores.tolist(), strict=True):
        if snippet.label is not None:
            hits.setdefault(snippet.source, []).append((score > 0) == bool(snippet.label))
    return {source: round(sum(right) / len(right), 4) for source, right in hits.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache-dir", type=Path, required=True, help="where the data is kept, downloaded if absent")
    parser.add_argument("--model-dir", type=Path, required=True, help="what train_sentiment.py wrote")
    parser.add_argument("--results", type=Path, help="also write the numbers to this file")
    arguments = parser.parse_args()

    snippets = load_snippets(arguments.cache_dir)
    model = MambaForSequenceClassification.from_pretrained(arguments.model_dir).eval()
    tokenizer = AutoTokenizer.from_pretrained(arguments.model_dir)
    results: dict[str, object] = {
        "date": date.today().isoformat(),
        "device": platform.processor() or "cpu",
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
    }
    for split in ("validation", "test"):
        held = [s for s in snippets if s.split == split]
        results[split] = {
            "snippets": {source: sum(s.source == source and s.label is not None for s in held) for source in FILES},
            "model": accuracies(held, stock_scores(model, tokenizer, [s.text for s in held])),
            **{
                name: accuracies(held, scores)
                for name, scores in baseline_scores(arguments.cache_dir, snippets, held).items()
            },
        }
    text = json.dumps(results, indent=2)
    print(text)
    if arguments.results:
        arguments.results.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
