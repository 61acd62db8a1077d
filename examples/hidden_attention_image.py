"""What does the class token of a Vision Mamba read? Its hidden attention, in each direction and in both. Runs offline.

python examples/hidden_attention_image.py photo.png --html out/attention.html
"""

import argparse
from pathlib import Path

from hf_mambalrp import DEMO_VISION_MODEL, VimLRPForImageClassification

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("image", nargs="?", default=f"{DEMO_VISION_MODEL}/scenes/pictures/bag_trouser.png")
parser.add_argument("--html", type=Path, default=Path("out/attention.html"))
arguments = parser.parse_args()

model = VimLRPForImageClassification.from_pretrained(DEMO_VISION_MODEL)

# A scan reads what is before it: forward the patches above, backward those below, both together everything.
for direction in ("forward", "backward", "both"):
    read = model.hidden_attention(arguments.image, layers=-1, kind="unified", direction=direction).class_map()
    columns = read.shape[1]
    strongest = read.abs().flatten().topk(3).indices.tolist()
    places = (f"row {i // columns}, column {i % columns} {read.flatten()[i]:+.3f}" for i in strongest)
    print(f"{direction}, the class token of the last layer reads most:", "; ".join(places))

arguments.html.parent.mkdir(parents=True, exist_ok=True)
model.hidden_attention(arguments.image, kind="unified").to_html(arguments.html)
print(f"written: {arguments.html}")
