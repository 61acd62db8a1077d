"""Scenes of garments: one or two of Fashion-MNIST's photographs, tinted, on a coloured ground among painted shapes.

A scene is 64 x 64 pixels and comes with the mask of every garment: the pixels that the garment was painted on, no more
and no fewer. Lines, rings, boxes and blobs lie under the garments in the same range of colours, so that colour tells
nothing of a class. Everything is drawn in batches, on the device of the photographs, and follows from a seed.

Symbols: B scenes, G = 2 places for a garment in a scene, S = 64 pixels a side, P = 28 pixels of a photograph's side.
"""

import gzip
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Generator, Tensor
from torch.nn import functional as F

CLASSES = ["T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot"]
SIZE = 64
SIDE = 28
GRID = 8
"""Pixels from one patch to the next where garments are laid on the patch grid."""
FILES = {"train": "train", "test": "t10k"}
INVISIBLE = 8 / 255
"""Photographs have faint specks around a garment; what is darker than this is ground."""


class Garments(NamedTuple):
    """Photographs, class by class."""

    photos: Tensor
    """(n, 2, P, P) in 0 .. 1: the brightness, and 1 where the garment is."""
    first: Tensor
    """(10,) the index of each class's first photograph."""
    count: Tensor
    """(10,) how many each class has."""


class Scenes(NamedTuple):
    """A batch of scenes."""

    images: Tensor
    """(B, 3, S, S) uint8."""
    masks: Tensor
    """(B, G, S, S) bool; empty where a scene has one garment."""
    labels: Tensor
    """(B, G) classes; -1 where there is no second garment."""


def read_idx(path: Path) -> Tensor:
    """An array of unsigned bytes in MNIST's format: 0, 0, 8, the number of dimensions, the sizes, the bytes."""
    content = gzip.decompress(path.read_bytes())
    dimensions = content[3]
    sizes = np.frombuffer(content, ">u4", dimensions, 4).tolist()
    return torch.from_numpy(np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions).reshape(sizes).copy())


def load_garments(folder: Path, split: str, device: str = "cpu") -> dict[str, Garments]:
    """Read a split ("train" or "test"); "train" is parted into "train" and "validation", its last twelfth by class."""
    images = read_idx(folder / f"{FILES[split]}-images-idx3-ubyte.gz")
    labels = read_idx(folder / f"{FILES[split]}-labels-idx1-ubyte.gz").long()
    by_class = [images[labels == label] for label in range(len(CLASSES))]
    if split == "test":
        return {split: _garments(by_class, device)}
    held = [len(photos) // 12 for photos in by_class]
    return {
        "train": _garments([photos[:-n] for photos, n in zip(by_class, held, strict=True)], device),
        "validation": _garments([photos[-n:] for photos, n in zip(by_class, held, strict=True)], device),
    }


def _garments(by_class: list[Tensor], device: str) -> Garments:
    brightness = torch.cat(by_class).to(device).float()[:, None] / 255
    # A morphological closing: dark specks inside a garment belong to it, the hole under a bag's handle does not.
    grown = F.max_pool2d(F.pad((brightness > INVISIBLE).float(), [1] * 4), 3, stride=1)
    inside = 1 - F.max_pool2d(F.pad(1 - grown, [1] * 4), 3, stride=1)
    count = torch.tensor([len(photos) for photos in by_class], device=device)
    return Garments(torch.cat([brightness, inside], 1), count.cumsum(0) - count, count)


def draw_labels(number: int, two: float, generator: Generator) -> Tensor:
    """Classes of ``number`` scenes, uniform; a share ``two`` of the scenes has a second, different one. (B, G)."""
    u = torch.rand(3, number, generator=generator, device=generator.device)
    classes = len(CLASSES)
    first = (u[0] * classes).long()
    second = (first + 1 + (u[1] * (classes - 1)).long()) % classes
    return torch.stack([first, second.where(u[2] < two, -1)], 1)


def draw_scenes(
    garments: Garments,
    labels: Tensor,
    generator: Generator,
    *,
    clutter: float = 1.0,
    aligned: float = 0.0,
    variation: float = 0.0,
) -> Scenes:
    """Paint a scene for every row of ``labels``, each garment a photograph of its class.

    Args:
        garments: the photographs to choose from.
        labels: (B, G) classes, -1 for no second garment.
        generator: the source of every choice, on the device of the photographs.
        clutter: 0 for a bare ground, 1 for four shapes in the mean.
        aligned: the share of scenes whose garments lie on the patch grid.
        variation: 0 for photographs as they are; 1 turns, shrinks and mirrors them and cuts holes, for training.
    """
    rooms = Rooms(len(labels), generator)
    light = rooms.uniform() < 0.5
    hue = rooms.uniform()
    canvas = _ground(rooms, hue, light)
    for shape in (_line, _line, _ring, _ring, _box, _box, _blob, _blob):
        present = rooms.uniform() < 0.5 * clutter
        cover = (0.5 - shape(rooms)).clamp(0, 1) * present[:, None, None]
        canvas = torch.lerp(canvas, _tint(rooms, hue, light)[..., None, None], cover[:, None])
    brightness, masks = _place(rooms, garments, labels, aligned, variation)
    for place in range(labels.shape[1]):
        tint = _tint(rooms, hue, light)[..., None, None]
        painted = tint * (0.35 + 0.65 * brightness[:, place, None])
        canvas = torch.where(masks[:, place, None], painted, canvas)
    return Scenes((canvas * 255).round().to(torch.uint8), masks, labels)


class Rooms:
    """The random numbers and the pixel coordinates of a batch of scenes."""

    def __init__(self, number: int, generator: Generator) -> None:
        self.number, self.generator = number, generator
        at = torch.arange(SIZE, device=generator.device) + 0.5
        self.x, self.y = at[None, None, :], at[None, :, None]

    def uniform(self, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        """(B, *shape) numbers in low .. high."""
        u = torch.rand(self.number, *shape, generator=self.generator, device=self.generator.device)
        return low + (high - low) * u

    def point(self) -> tuple[Tensor, Tensor]:
        """x and y of a point on the canvas, each (B, 1, 1)."""
        return self.uniform(1, 1, high=SIZE), self.uniform(1, 1, high=SIZE)


def _rgb(hue: Tensor, saturation: Tensor, value: Tensor) -> Tensor:
    """HSV in 0 .. 1 to (B, 3)."""
    k = (hue[:, None] * 6 + 5 - 2 * torch.arange(3, device=hue.device)) % 6
    value = value[:, None]
    return value - value * saturation[:, None] * torch.minimum(k, 4 - k).clamp(0, 1)


def _ground(rooms: Rooms, hue: Tensor, light: Tensor) -> Tensor:
    """Two neighbouring colours, both pale or both dark, that flow into each other. (B, 3, S, S)."""

    def colour() -> Tensor:
        saturation = torch.where(light, rooms.uniform(low=0.08, high=0.3), rooms.uniform(low=0.3, high=0.6))
        value = torch.where(light, rooms.uniform(low=0.85, high=0.98), rooms.uniform(low=0.14, high=0.3))
        return _rgb(hue + rooms.uniform(low=-0.08, high=0.08), saturation, value)[..., None, None]

    clouds = F.interpolate(rooms.uniform(1, 4, 4), (SIZE, SIZE), mode="bilinear", align_corners=True)
    return torch.lerp(colour(), colour(), clouds)


def _tint(rooms: Rooms, hue: Tensor, light: Tensor) -> Tensor:
    """A colour that stands off the ground, by its hue and by how bright it is. (B, 3)."""
    value = torch.where(light, rooms.uniform(low=0.5, high=0.85), rooms.uniform(low=0.75, high=1.0))
    return _rgb(hue + rooms.uniform(low=0.17, high=0.83), rooms.uniform(low=0.35, high=0.8), value)


# The shapes: signed distances to their edges in pixels, negative inside. (B, S, S)


def _line(rooms: Rooms) -> Tensor:
    (x0, y0), (x1, y1) = rooms.point(), rooms.point()
    dx, dy = x1 - x0, y1 - y0
    along = (((rooms.x - x0) * dx + (rooms.y - y0) * dy) / (dx * dx + dy * dy + 1)).clamp(0, 1)
    distance = torch.hypot(rooms.x - x0 - along * dx, rooms.y - y0 - along * dy)
    return distance - rooms.uniform(1, 1, low=0.5, high=1.5)


def _ring(rooms: Rooms) -> Tensor:
    x, y = rooms.point()
    off_circle = torch.hypot(rooms.x - x, rooms.y - y) - rooms.uniform(1, 1, low=3, high=9)
    return off_circle.abs() - rooms.uniform(1, 1, low=0.5, high=1.5)


def _box(rooms: Rooms) -> Tensor:
    x, y = rooms.point()
    width, height = rooms.uniform(1, 1, low=2, high=7), rooms.uniform(1, 1, low=2, high=7)
    return torch.maximum((rooms.x - x).abs() - width, (rooms.y - y).abs() - height)


def _blob(rooms: Rooms) -> Tensor:
    x, y = rooms.point()
    width, height = rooms.uniform(1, 1, low=2.5, high=8), rooms.uniform(1, 1, low=2.5, high=8)
    return (torch.hypot((rooms.x - x) / width, (rooms.y - y) / height) - 1) * torch.minimum(width, height)


def _place(rooms: Rooms, garments: Garments, labels: Tensor, aligned: float, variation: float) -> tuple[Tensor, Tensor]:
    """Photographs on the canvas: brightness and mask, each (B, G, S, S). Each stays inside its own square."""
    places = labels.shape[1]
    photo = garments.first[labels] + (rooms.uniform(places) * garments.count[labels]).long()
    side = SIDE * rooms.uniform(places, low=1.0, high=SIZE / 2 / SIDE)
    corner = _corners(rooms, side, labels[:, 1] >= 0)
    on_grid = rooms.uniform(1, 1) < aligned
    corner = torch.where(on_grid, (corner / GRID).round() * GRID, corner)
    x, y = (corner + side[..., None] / 2).unbind(-1)  # centres
    half = side[..., None, None] / 2
    dx = (rooms.x[:, None] - x[..., None, None]) / half
    dy = (rooms.y[:, None] - y[..., None, None]) / half
    square = (dx.abs() <= 1) & (dy.abs() <= 1)

    angle = variation * rooms.uniform(places, 1, 1, low=-0.2, high=0.2)
    shrunk = 1 - variation * rooms.uniform(places, 1, 1, low=0.0, high=0.15)
    mirrored = torch.where(rooms.uniform(places, 1, 1) < 0.5 * variation, -1.0, 1.0)
    across = (dx * angle.cos() + dy * angle.sin()) / shrunk * mirrored
    down = (dy * angle.cos() - dx * angle.sin()) / shrunk
    hole = rooms.uniform(places, 1, 1) < 0.5 * variation
    hole_x, hole_y = (rooms.uniform(places, 1, 1, low=-1.0) for _ in range(2))
    hole_width, hole_height = (rooms.uniform(places, 1, 1, low=0.1, high=0.4) for _ in range(2))
    cut = hole & ((across - hole_x).abs() < hole_width) & ((down - hole_y).abs() < hole_height)

    at = torch.stack(torch.broadcast_tensors(across, down), -1)
    found = F.grid_sample(garments.photos[photo].flatten(0, 1), at.flatten(0, 1), align_corners=False)
    brightness, inside = found.unflatten(0, photo.shape).unbind(2)
    return brightness, (inside > 0.5) & square & ~cut & (labels >= 0)[..., None, None]


def _corners(rooms: Rooms, side: Tensor, two: Tensor) -> Tensor:
    """Upper left corners (B, G, xy): anywhere for one garment; for two, each in its own half of the canvas."""
    anywhere = rooms.uniform(2, 2) * (SIZE - side)[..., None]
    halves = rooms.uniform(2) * (SIZE / 2 - side)
    first_half = (rooms.uniform(1) < 0.5).long()
    which = torch.cat([first_half, 1 - first_half], 1)
    halves = halves + which * (SIZE / 2)
    axis = torch.stack([rooms.uniform() < 0.5] * 2, 1)
    axis = torch.stack([axis, ~axis], -1)
    return torch.where(two[:, None, None] & axis, halves[..., None], anywhere)
