"""A made-up data set in the format of Fashion-MNIST's four files: each class is a rectangle of its own shape."""

import gzip
import sys
from pathlib import Path

import numpy as np

EXAMPLE = Path(__file__).parents[2] / "examples" / "training" / "vision"
DEBIAN = Path("/usr/share/datasets/fashion-mnist")
PER_CLASS = {"train": 24, "t10k": 3}


def write_idx(path, array):
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    path.write_bytes(gzip.compress(header + array.astype(np.uint8).tobytes()))


def write_mini_fashion(folder):
    """Photograph i of a class has brightness 100 + i, and one dark speck inside."""
    for name, number in PER_CLASS.items():
        labels = np.arange(10 * number) % 10
        photos = np.zeros((len(labels), 28, 28))
        for index, label in enumerate(labels):
            photos[index, 13 - label : 15 + label, 2 + label : 26 - label] = 100 + index // 10
            photos[index, 13, 13] = 3
        write_idx(folder / f"{name}-images-idx3-ubyte.gz", photos)
        write_idx(folder / f"{name}-labels-idx1-ubyte.gz", labels)
    return folder


def example_modules():
    """The example's files import each other by bare names, as a script's neighbours do."""
    names = [path.stem for path in EXAMPLE.glob("*.py")]
    sys.path.insert(0, str(EXAMPLE))
    yield
    sys.path.remove(str(EXAMPLE))
    for name in names:
        sys.modules.pop(name, None)
