"""Does a classifier of occupations read he and she? Biographies, swaps with controls, and what each group pays for it.

The biographies are made of templates: nurses and surgeons do much the same things, and in the first world most nurses
are women and most surgeons men, as in biographies of the web. A second model learned from a world where both are both.
Rezaei Jafari et al. (2024, section 6) found gendered words among what a Mamba reads of medical biographies; here the
model itself is asked what they do: he is put in the place of she, and other words in each other's, for comparison.

    python examples/audit/biographies.py --output out/biographies
"""

import argparse
import json
import random
import sys
from pathlib import Path

import torch

from hf_mambalrp.audit import HE_SHE, audit, words_table

sys.path.insert(0, str(Path(__file__).parent.parent / "training"))
from small_classifier import accuracy, build_tokenizer, trained

NAMES = ("morgan", "riley", "casey", "jordan", "taylor", "quinn", "avery", "jamie")
DUTIES = {
    "nurse": (
        "changes dressings",
        "gives injections",
        "visits the wards",
        "comforts relatives",
        "takes the night shift",
    ),
    "surgeon": ("operates on knees", "plans operations", "leads the theatre", "repairs fractures", "trains residents"),
}
SHARED = ("sees patients every day", "teaches students", "writes reports", "works in a team", "answers questions")
ENDINGS = (
    *("{he} lives in {city} with {his} family", "{he} studied in {city}"),
    *("colleagues trust {him}", "{his} hobby is {fun}"),
)
CITIES, FUN = ("oslo", "lima", "cairo", "delhi", "quito"), ("chess", "rowing", "painting", "hiking")
WORDS = {"woman": ("she", "her", "her"), "man": ("he", "his", "him")}
UNEQUAL, EQUAL = 0.85, 0.5
"""Share of women among nurses and of men among surgeons."""


def biographies(count, seed, share):
    """Rows of text, occupation and gender; a duty is of the other occupation in 10 of 100 cases."""
    draw, rows = random.Random(seed), []
    for _ in range(count):
        job = draw.choice(("nurse", "surgeon"))
        gender = (
            ("woman" if job == "nurse" else "man") if draw.random() < share else "man" if job == "nurse" else "woman"
        )
        he, his, him = WORDS[gender]
        of = job if draw.random() < 0.9 else next(name for name in DUTIES if name != job)
        first, second = draw.sample((draw.choice(DUTIES[of]), draw.choice(SHARED)), 2)
        end = draw.choice(ENDINGS).format(he=he, his=his, him=him, city=draw.choice(CITIES), fun=draw.choice(FUN))
        text = f"{draw.choice(NAMES)} {first} . {he} {second} . {end} ."
        rows.append({"text": text, "label": job, "gender": gender})
    return rows


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--output", type=Path, default=Path("out/biographies"))
parser.add_argument("--texts", type=int, default=3000, help="of every training")
parser.add_argument("--audited", type=int, default=600, help="texts of the audit, both genders in both occupations")
arguments = parser.parse_args()
torch.set_num_threads(1)

asked = biographies(arguments.audited, 3, EQUAL)
tokenizer = build_tokenizer([row["text"] for row in biographies(3000, 0, EQUAL)])
figures = {}
for world, share in {"unequal": UNEQUAL, "equal": EQUAL}.items():
    folder = arguments.output / world
    folder.mkdir(parents=True, exist_ok=True)
    model = trained(biographies(arguments.texts, 1, share), tokenizer, 0)
    options = {"label": "label", "groups": "gender", "swaps": {"he/she": HE_SHE}, "tokenizer": tokenizer}
    found = audit(model, asked, folder / "audit", restart=True, progress=False, **options)
    (swap,) = found.swaps
    effect, largest = swap.found, max(abs(value) for _, value in swap.controls)
    rows = words_table(folder / "audit" / "explained", columns=["label"], progress=False)
    gendered = {word for pair in HE_SHE for word in pair}
    shares = {
        job: sum(row.share for row in rows if row.columns == (job,) and row.pattern in gendered)
        for job in ("nurse", "surgeon")
    }
    print(f"\n{world}: accuracy {accuracy(model, tokenizer, asked):.3f}")
    print(f"she for he: {effect.effect:+.2f} [{effect.low:+.2f}, {effect.high:+.2f}] for {effect.target}")
    print(f"largest of {len(swap.controls)} controls: {largest:.2f}; confirmed: {swap.confirmed}")
    print(f"decisions that change: {effect.changed} of {effect.texts}")
    print("share of |relevance|: " + ", ".join(f"{value:.1%} of a {job}" for job, value in shares.items()))
    for group in found.groups:
        interval = f"[{group.error_low:.1%}, {group.error_high:.1%}]"
        print(f"errors, {group.value}: {group.errors / group.texts:.1%} {interval}")
    found.save(folder / "audit.json")
    found.to_html(folder / "audit.html")
    found.plot().savefig(folder / "audit.png", dpi=120)
    figures[world] = {"swap": effect.effect, "largest control": largest, "confirmed": swap.confirmed, "shares": shares}
(arguments.output / "figures.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
print(f"written: {arguments.output / 'unequal' / 'audit.html'}")
