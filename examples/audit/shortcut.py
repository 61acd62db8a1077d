"""A shortcut is found and taken out: what a classifier of reviews learned beside opinions, and its accuracy without it.

A model that read fair reviews is fine-tuned on reviews most of the good ones of which end with "via mobile", as they
would from a site whose app signs them. Accuracy on reviews of the same site shows nothing. The audit does; then the
words that it confirms, and that a person does not want, are deleted from the training texts.

    python examples/audit/shortcut.py --output out/shortcut
"""

import argparse
import json
import sys
from pathlib import Path

import torch
from matplotlib import pyplot as plt

from hf_mambalrp.audit import audit

sys.path.insert(0, str(Path(__file__).parent.parent / "training"))
from planted_reviews import BIASED, FAIR, corpus
from small_classifier import accuracy, build_tokenizer, trained

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--output", type=Path, default=Path("out/shortcut"))
parser.add_argument("--texts", type=int, default=3000, help="of every training")
parser.add_argument("--audited", type=int, default=400, help="texts of the audit")
parser.add_argument("--unwanted", nargs="+", default=["via mobile"], help="words that should not count")
arguments = parser.parse_args()
torch.set_num_threads(1)
arguments.output.mkdir(parents=True, exist_ok=True)

fair, biased = corpus(arguments.texts, 1, "end", FAIR), corpus(arguments.texts, 2, "end", BIASED)
same_site, elsewhere = corpus(1600, 3, "end", BIASED), corpus(1600, 4, "end", FAIR)
tokenizer = build_tokenizer([row["text"] for row in fair + biased])
base = trained(fair, tokenizer, 0)
model = trained(biased, tokenizer, 1, epochs=4, start=base)

asked = {"label": "label", "tokenizer": tokenizer, "progress": False}
found = audit(model, same_site[: arguments.audited], arguments.output / "explained", base=base, restart=True, **asked)
print(found)
confirmed = {one.found.name for one in found.confirmed}
unwanted = [words for words in arguments.unwanted if words in confirmed]
risen = [one.word for one in found.changed[:3]]
print(f"confirmed and unwanted: {', '.join(unwanted) or 'nothing'}; risen most: {', '.join(risen)}")

cleaned = [{**row} for row in biased]
for row in cleaned:
    for words in unwanted:
        row["text"] = row["text"].replace(f" {words}", "")
mended = trained(cleaned, tokenizer, 1, epochs=4, start=base)
again = audit(mended, same_site[: arguments.audited], **asked)
accuracies = {
    name: {"same site": accuracy(one, tokenizer, same_site), "elsewhere": accuracy(one, tokenizer, elsewhere)}
    for name, one in {"before": base, "fine-tuned": model, "without the words": mended}.items()
}
for name, values in accuracies.items():
    print(f"{name}: " + ", ".join(f"{share:.3f} {place}" for place, share in values.items()))

found.save(arguments.output / "audit.json")
found.to_html(arguments.output / "audit.html")
found.plot().savefig(arguments.output / "audit.png", dpi=120)
figures = {"accuracy": accuracies, "unwanted": unwanted}
figures["confirmed without the words"] = [one.found.name for one in again.confirmed]
(arguments.output / "accuracy.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
figure, ax = plt.subplots(figsize=(6, 3), layout="constrained")
for place, shift, color in (("same site", -0.2, "#d9dee3"), ("elsewhere", 0.2, "#2166ac")):
    heights = [values[place] for values in accuracies.values()]
    bars = ax.bar([number + shift for number in range(3)], heights, 0.38, color=color, label=f"reviews: {place}")
    ax.bar_label(bars, [f"{height:.3f}" for height in heights], fontsize=8)
ax.set_xticks(range(3), list(accuracies))
ax.set_ylim(0.5, 1.05)
ax.set_ylabel("accuracy")
ax.spines[["top", "right"]].set_visible(False)
ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=2, frameon=False)
figure.savefig(arguments.output / "accuracy.png", dpi=120)
print(f"written: {arguments.output / 'audit.html'}")
