"""Write the held-out film snippets of the demo: ``python sample_reviews.py --cache-dir CACHE --model-dir MODEL``.

A seeded sample of the labelled test snippets; the model's opinion plays no part in the choice.
"""

import argparse
import json
import random
import re
from pathlib import Path

from data import load_snippets
from evaluate import stock_scores
from transformers import AutoTokenizer

from hf_mambalrp.models.classification import MambaForSequenceClassification

NUMBER = 48
SEED = 0
OFFENSIVE = re.compile(
    r"\b(ass|shit\w*|fuck\w*|bitch\w*|crap\w*|damn\w*|rape\w*|nazi\w*|porn\w*|whore\w*)\b", re.IGNORECASE
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache-dir", type=Path, required=True, help="where the data is kept, downloaded if absent")
    parser.add_argument("--model-dir", type=Path, required=True, help="the model; reviews.jsonl is written beside it")
    arguments = parser.parse_args()

    held_out = [s for s in load_snippets(arguments.cache_dir) if s.split == "test" and s.source == "film"]
    fit_to_show = [s for s in held_out if s.label is not None and not OFFENSIVE.search(s.text)]
    chosen = random.Random(SEED).sample(fit_to_show, NUMBER)
    model = MambaForSequenceClassification.from_pretrained(arguments.model_dir).eval()
    scores = stock_scores(model, AutoTokenizer.from_pretrained(arguments.model_dir), [s.text for s in chosen])
    lines = [
        json.dumps(
            {
                "id": f"film {s.id}",
                "text": s.text,
                "rating": round(s.rating, 3),
                "label": model.config.id2label[s.label],
                "predicted": model.config.id2label[int(score > 0)],
            },
            ensure_ascii=False,
        )
        for s, score in zip(chosen, scores.tolist(), strict=True)
    ]
    (arguments.model_dir / "reviews.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
