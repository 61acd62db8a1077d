"""Which explanation does the model's output follow? Compare methods on a few texts. Runs offline.

python examples/evaluate_model.py --samples 8 --html evaluation.html
"""

import argparse
from pathlib import Path

from hf_mambalrp import DEMO_MODEL, AutoMambaLRPForSequenceClassification, evaluate_faithfulness

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--data", type=Path, default=Path(DEMO_MODEL) / "reviews.jsonl", help="rows with a 'text'")
parser.add_argument("--methods", nargs="+", default=["mambalrp", "gradient_x_input", "random"])
parser.add_argument("--samples", type=int, default=8)
parser.add_argument("--html", type=Path, default=Path("evaluation.html"))
arguments = parser.parse_args()

model = AutoMambaLRPForSequenceClassification.from_pretrained(DEMO_MODEL)
evaluation = evaluate_faithfulness(model, arguments.data, methods=arguments.methods, samples=arguments.samples)
print(evaluation)
first, *others = arguments.methods
for name in others:
    gap = evaluation.results["differences"]["delta_flip"][name]
    print(f"{first} - {name}: {gap['mean']:+.3f}, 95% in [{gap['low']:+.3f}, {gap['high']:+.3f}]")
evaluation.to_html(arguments.html)
print(f"written: {arguments.html}")
