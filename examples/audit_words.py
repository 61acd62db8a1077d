"""Which words does the sentiment model rely on? Screen a corpus by relevance, confirm by deletion. Runs offline.

The packaged reviews are 48, so that only words in 5 of them are candidates and small effects stay unseen; give --data
a file with more.

python examples/audit_words.py --html audit.html
"""

import argparse
from pathlib import Path

from hf_mambalrp import DEMO_MODEL, AutoMambaLRPForSequenceClassification
from hf_mambalrp.audit import audit, delete_effect, words_table

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument(
    "--data", type=Path, default=Path(DEMO_MODEL) / "reviews.jsonl", help="rows with 'text' and 'label'"
)
parser.add_argument("--output", type=Path, default=Path("out/audit"), help="folder of the explanations")
parser.add_argument("--min-texts", type=int, default=5)
parser.add_argument("--html", type=Path, default=Path("audit.html"))
arguments = parser.parse_args()

model = AutoMambaLRPForSequenceClassification.from_pretrained(DEMO_MODEL)
found = audit(model, arguments.data, arguments.output, label="label", min_texts=arguments.min_texts)
print(found)
found.to_html(arguments.html)
print(f"written: {arguments.html}")

# The pieces, for a question of one's own: how much relevance a word has, and what the model does without it.
explained = arguments.output / "explained"
movie = next(row for row in words_table(explained, progress=False) if row.pattern == "movie")
print(f"'movie' is in {movie.texts} texts and has {movie.share:.1%} of |relevance|")
texts = ["A dull movie.", "A dull, lifeless movie.", "A lovely movie.", "A lovely, warm movie."]
effect = delete_effect(model, texts, "movie", target="positive", progress=False)
print(f"without it: {effect.effect:+.2f} standard deviations of the score in {effect.texts} texts")
