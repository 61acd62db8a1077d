"""Where does the packaged Vision Mamba look: at the garment, at what is around it, at the border of the picture?

python examples/audit/regions.py --output out/regions
"""

import argparse
from pathlib import Path

import numpy as np

from hf_mambalrp import DEMO_VISION_MODEL, VimLRPForImageClassification
from hf_mambalrp.audit import audit
from hf_mambalrp.evaluation.scenes import load_scenes

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--images", type=int, default=200, help="of the 200 scenes of one garment")
parser.add_argument("--output", type=Path, default=Path("out/regions"))
arguments = parser.parse_args()
arguments.output.mkdir(parents=True, exist_ok=True)

scenes = load_scenes(1)
model = VimLRPForImageClassification.from_pretrained(DEMO_VISION_MODEL)
size = model.config.patch_size


def in_whole_patches(mask: np.ndarray) -> np.ndarray:
    """Every patch that the mask touches, so that what is not in it shares no patch with it."""
    rows, columns = (side // size for side in mask.shape)
    touched = mask.reshape(rows, size, columns, size).any((1, 3))
    return touched.repeat(size, 0).repeat(size, 1)


edge = np.ones(scenes.images.shape[1:3], bool)
edge[size:-size, size:-size] = False
rows = []
for image, label, mask in zip(scenes.images[: arguments.images], scenes.labels, scenes.masks, strict=False):
    garment = in_whole_patches(mask[0])
    regions = {"garment": garment, "border": edge & ~garment, "background": ~edge & ~garment}
    rows.append({"image": image, "label": scenes.classes[label[0]], **regions})
masks = {name: name for name in ("garment", "border", "background")}
found = audit(model, rows, label="label", masks=masks, progress=False)
print(found)
found.save(arguments.output / "audit.json")
found.to_html(arguments.output / "audit.html")
found.plot().savefig(arguments.output / "audit.png", dpi=120)
print(f"written: {arguments.output / 'audit.html'}")
