"""Explain a review with the packaged classifier and write a page that needs nothing else. Runs offline.

python examples/explain_review.py "A lovely, quiet film." --html review.html
"""

import argparse
from pathlib import Path

from hf_mambalrp import DEMO_MODEL, AutoMambaLRPForSequenceClassification

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("text", nargs="?", default="The plot is thin, but the two leads are wonderful.")
parser.add_argument("--html", type=Path, default=Path("review.html"))
arguments = parser.parse_args()

model = AutoMambaLRPForSequenceClassification.from_pretrained(DEMO_MODEL)
explanation = model.explain(arguments.text, target="positive", contrast="negative")
explanation.show()
explanation.to_html(arguments.html)
print(f"written: {arguments.html}")
