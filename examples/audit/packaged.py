"""The audit that ships with the packaged model: the held-out film snippets of its training data, by their ratings.

python examples/audit/packaged.py --cache-dir CACHE --output out/packaged
"""

import argparse
import json
import sys
from pathlib import Path

from hf_mambalrp import DEMO_MODEL, AutoMambaLRPForSequenceClassification
from hf_mambalrp.audit import HE_SHE, audit

sys.path.insert(0, str(Path(__file__).parent.parent / "training"))

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--cache-dir", type=Path, help="where the snippets are kept, downloaded if absent")
parser.add_argument("--data", type=Path, help="other texts with a column label, in place of the snippets")
parser.add_argument("--output", type=Path, default=Path("out/packaged"))
arguments = parser.parse_args()
arguments.output.mkdir(parents=True, exist_ok=True)

data = arguments.data
if data is None:
    from data import load_snippets

    snippets = [one for one in load_snippets(arguments.cache_dir) if one.source == "film" and one.split == "test"]
    rows = [
        {"text": one.text, "label": ("negative", "positive")[one.label]} for one in snippets if one.label is not None
    ]
    data = arguments.output / "held-out film snippets.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
model = AutoMambaLRPForSequenceClassification.from_pretrained(DEMO_MODEL)
found = audit(model, data, arguments.output / "audit", label="label", swaps={"he/she": HE_SHE}, progress=False)
print(found)
found.save(arguments.output / "audit.json")
found.to_html(arguments.output / "audit.html")
found.plot().savefig(arguments.output / "audit.png", dpi=120)
print(f"written: {arguments.output / 'audit.json'}")
