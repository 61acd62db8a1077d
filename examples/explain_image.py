"""Explain a picture with the packaged Vision Mamba: what speaks for one garment rather than another? Runs offline.

python examples/explain_image.py photo.png --target bag --contrast trouser --png out/image.png
"""

import argparse
from pathlib import Path

from hf_mambalrp import DEMO_VISION_MODEL, VimLRPForImageClassification

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("image", nargs="?", default=f"{DEMO_VISION_MODEL}/scenes/pictures/bag_trouser.png")
parser.add_argument("--target", default="bag")
parser.add_argument("--contrast", default="trouser")
parser.add_argument("--png", type=Path, default=Path("out/image.png"))
arguments = parser.parse_args()

model = VimLRPForImageClassification.from_pretrained(DEMO_VISION_MODEL)
explanation = model.explain(arguments.image, target=arguments.target, contrast=arguments.contrast)
print(explanation.to_text())
for sign in ("positive", "negative"):
    strongest = explanation.top(3, by=sign)
    print(f"{sign}:", ", ".join(f"row {p.row}, column {p.column} {p.relevance:+.3f}" for p in strongest))

arguments.png.parent.mkdir(parents=True, exist_ok=True)
explanation.save_png(arguments.png)
print(f"written: {arguments.png}")
