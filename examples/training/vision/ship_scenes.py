"""Write the test scenes that hf_mambalrp ships: ``python ship_scenes.py --data FOLDER --output SCENES``.

200 scenes with one garment and 200 with two, from the test split, by a fixed seed and unselected; and a few of them,
chosen by eye, as single pictures four times as large.
"""

import argparse
import json
from pathlib import Path

import torch
from PIL import Image
from scenes import CLASSES, SIZE, Scenes, draw_scenes, load_garments
from torch import Generator, Tensor

NUMBER, COLUMNS = 200, 20
SEED = 2024
PALETTE = [(0, 0, 0), (230, 80, 60), (70, 130, 230)]
"""Of a sheet of masks: ground, first garment, second garment."""
PICTURES = {"one": [8, 9, 21], "two": [17, 28, 44]}
LARGER = 4


def shipped_labels(garments: int) -> Tensor:
    """Every class equally often in each place, in every ten scenes. (NUMBER, 2)."""
    number = torch.arange(NUMBER)
    classes = len(CLASSES)
    first = number % classes
    second = (first + 1 + (number // classes) % (classes - 1)) % classes
    return torch.stack([first, second if garments == 2 else torch.full_like(first, -1)], 1)


def shipped_scenes(data: Path, garments: int) -> Scenes:
    generator = Generator().manual_seed(SEED + garments)
    return draw_scenes(load_garments(data, "test")["test"], shipped_labels(garments), generator)


def sheet(tiles: Tensor) -> Image.Image:
    """(n, S, S) or (n, S, S, 3) bytes as one picture of COLUMNS columns."""
    rows = tiles.unflatten(0, (-1, COLUMNS)).transpose(1, 2)
    return Image.fromarray(rows.reshape(rows.shape[0] * SIZE, COLUMNS * SIZE, *tiles.shape[3:]).numpy())


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of Fashion-MNIST's four files")
    parser.add_argument("--output", type=Path, required=True, help="folder for the sheets, scenes.json and pictures/")
    arguments = parser.parse_args(argv)
    (arguments.output / "pictures").mkdir(parents=True, exist_ok=True)
    about = {"classes": CLASSES, "size": SIZE, "seed": SEED, "labels": {}}
    for garments, name in ((1, "one"), (2, "two")):
        scenes = shipped_scenes(arguments.data, garments)
        images = scenes.images.permute(0, 2, 3, 1)
        sheet(images).save(arguments.output / f"{name}.png", optimize=True)
        masks = sheet((scenes.masks[:, 0] + 2 * scenes.masks[:, 1]).to(torch.uint8))
        masks.putpalette([channel for colour in PALETTE for channel in colour])
        masks.save(arguments.output / f"{name}_masks.png", optimize=True, bits=2)
        about["labels"][name] = scenes.labels[:, :garments].tolist()
        for index in PICTURES[name]:
            called = "_".join(CLASSES[label].replace(" ", "-") for label in scenes.labels[index, :garments])
            picture = Image.fromarray(images[index].numpy()).resize((LARGER * SIZE,) * 2, Image.Resampling.NEAREST)
            picture.save(arguments.output / "pictures" / f"{called}.png".lower(), optimize=True)
    (arguments.output / "scenes.json").write_text(json.dumps(about) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
