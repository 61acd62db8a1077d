"""Share a model with its explanations on the Hub: the model and its card, the numbers as a dataset, a Space to try it.

    hf auth login
    python examples/share_on_the_hub.py me/explained-model --dataset me/its-explanations --space me/why

Without a network, ``--dry-run folder`` writes the model and its card into a folder instead.
"""

import argparse
from pathlib import Path

from hf_mambalrp import DEMO_MODEL, AutoMambaLRPForSequenceClassification, create_space

TEXTS = ["A dull and lifeless film.", "The plot is thin, but the two leads are wonderful."]

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("model", nargs="?", help="repository for the model, user/name")
parser.add_argument("--dataset", help="repository for the numbers")
parser.add_argument("--space", help="repository for the app")
parser.add_argument("--dry-run", type=Path, metavar="FOLDER")
arguments = parser.parse_args()
if (arguments.model is None) == (arguments.dry_run is None):
    parser.error("give a repository or --dry-run FOLDER")

model = AutoMambaLRPForSequenceClassification.from_pretrained(DEMO_MODEL)
explanations = model.explain(TEXTS)

if arguments.dry_run:
    model.save_pretrained(arguments.dry_run, explanations=explanations)
    print(f"written: {arguments.dry_run / 'README.md'}")
else:
    print("model:", model.push_to_hub(arguments.model, explanations=explanations))
    if arguments.dataset:
        print("dataset:", explanations.push_to_hub(arguments.dataset))
    if arguments.space:
        print("space:", create_space(arguments.space, model_id=arguments.model))
