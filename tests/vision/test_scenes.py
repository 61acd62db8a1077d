"""Scenes of garments: what the generator promises, and the scenes that ship."""

import hashlib

import numpy as np
import pytest
import torch
from mini_fashion import DEBIAN, example_modules, write_mini_fashion
from PIL import Image

from hf_mambalrp.errors import OptionError
from hf_mambalrp.evaluation.scenes import FOLDER, load_scenes

modules = pytest.fixture(scope="module", autouse=True)(example_modules)
SHA256 = {
    "one.png": "6c209ddf9b53e1fe",
    "one_masks.png": "3d89fd9063ce16ce",
    "ankle-boot.png": "a27656ff03377c3c",
    "bag.png": "5f075da7f2defd2b",
    "bag_trouser.png": "35d344a20073231c",
    "coat_ankle-boot.png": "19ba91324c2b5c97",
    "sneaker_ankle-boot.png": "79867b99a00a6bb8",
    "trouser.png": "9f01a88a8a66fdee",
    "two.png": "28b73cdb4ca80d74",
    "two_masks.png": "0e458bde342f376e",
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_mini_fashion(tmp_path_factory.mktemp("mini"))


@pytest.fixture
def scenes():
    import scenes

    return scenes


@pytest.fixture
def garments(scenes, data):
    return scenes.load_garments(data, "train")["train"]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_the_splits_are_parted_by_class_and_specks_belong_to_the_garment(scenes, data):
    parts = scenes.load_garments(data, "train") | scenes.load_garments(data, "test")
    assert {name: part.count.tolist() for name, part in parts.items()} == {
        "train": [22] * 10,
        "validation": [2] * 10,
        "test": [3] * 10,
    }
    for part in parts.values():
        assert part.first.tolist() == [int(part.count[0]) * label for label in range(10)]
    brightness = [part.photos[:, 0].amax((1, 2)).mul(255).round().long() - 100 for part in parts.values()]
    assert brightness[0].tolist() == [*range(22)] * 10
    assert brightness[1].tolist() == [22, 23] * 10
    for label in range(10):
        inside = parts["test"].photos[3 * label, 1]
        box = torch.zeros(28, 28)
        box[13 - label : 15 + label, 2 + label : 26 - label] = 1
        assert torch.equal(inside, box)


def test_equal_seeds_give_equal_scenes(scenes, garments):
    labels = scenes.draw_labels(6, 0.5, seeded())
    first, again, other = (scenes.draw_scenes(garments, labels, seeded(s), variation=0.7) for s in (1, 1, 2))
    assert torch.equal(first.images, again.images)
    assert torch.equal(first.masks, again.masks)
    assert not torch.equal(first.images, other.images)
    assert first.images.dtype == torch.uint8
    assert first.images.shape == (6, 3, 64, 64)


@pytest.mark.parametrize("variation", [0.0, 1.0])
def test_a_mask_is_where_the_garment_was_painted(scenes, garments, variation):
    """The same choices with other photographs change pixels inside the masks and nowhere else."""
    labels = scenes.draw_labels(64, 0.5, seeded())
    darker = garments._replace(photos=garments.photos * torch.tensor([0.5, 1.0])[:, None, None])
    first, other = (scenes.draw_scenes(g, labels, seeded(3), variation=variation) for g in (garments, darker))
    changed = (first.images != other.images).any(1)
    assert torch.equal(first.masks, other.masks)
    assert torch.equal(changed, first.masks.any(1))
    assert not first.masks.all(1).any(), "garments overlap"
    assert torch.equal(first.masks.any((2, 3)), labels >= 0)


def test_a_garment_is_a_little_larger_than_its_photograph_and_lies_on_the_grid_where_asked(scenes, garments):
    full = garments._replace(photos=torch.ones_like(garments.photos))
    labels = scenes.draw_labels(100, 0.5, seeded())
    on_grid = {}
    for aligned in (0.0, 1.0):
        masks = scenes.draw_scenes(full, labels, seeded(), aligned=aligned).masks[labels >= 0]
        height, width = masks.any(2).sum(1), masks.any(1).sum(1)
        missing = height * width - masks.sum((1, 2))
        assert 0 <= missing.min() <= missing.max() <= 4, "no square, give or take its corners"
        assert (height - width).abs().max() <= 1
        assert {27, 28, 29, 30, 31, 32} >= set(height.tolist()) >= {28, 29, 30, 31}
        top, left = masks.any(2).int().argmax(1), masks.any(1).int().argmax(1)
        on_grid[aligned] = ((top % 8 == 0) & (left % 8 == 0)).float().mean()
    assert on_grid[1.0] == 1
    assert on_grid[0.0] < 0.1


def test_clutter_0_leaves_the_ground_alone(scenes, garments):
    labels = scenes.draw_labels(16, 0.0, seeded())
    empty, full = (scenes.draw_scenes(garments, labels, seeded(4), clutter=c) for c in (0.0, 1.0))
    steps = (empty.images[..., 1:].int() - empty.images[..., :-1].int()).abs().amax(1)
    ground = ~empty.masks[:, 0, :, 1:] & ~empty.masks[:, 0, :, :-1]
    assert steps[ground].max() <= 8
    assert torch.equal(empty.masks, full.masks)
    covered = ((empty.images != full.images).any(1) & ~full.masks[:, 0]).float().mean((1, 2))
    assert 0.02 < covered.mean() < 0.35


def test_labels_are_uniform_and_differ_within_a_scene(scenes):
    labels = scenes.draw_labels(20_000, 0.5, seeded())
    two = labels[:, 1] >= 0
    assert abs(two.float().mean() - 0.5) < 0.02
    for place in (labels[:, 0], labels[two, 1]):
        share = torch.bincount(place, minlength=10) / len(place)
        assert (share - 0.1).abs().max() < 0.012
    assert (labels[:, 0] != labels[:, 1]).all()


def test_every_photograph_of_a_class_is_used_and_no_other(scenes, garments):
    """Its brightness tells which photograph was painted."""
    labels = torch.full((400, 2), -1)
    labels[:, 0] = 4
    rooms = scenes.Rooms(400, seeded())
    brightness, masks = scenes._place(rooms, garments, labels, aligned=0.0, variation=0.0)
    seen = (brightness[:, 0] * masks[:, 0]).amax((1, 2)).mul(255).round().long().unique() - 100
    assert seen.tolist() == list(range(22))


@pytest.mark.parametrize("garments", [1, 2])
def test_the_scenes_that_ship_are_whole(garments):
    scenes = load_scenes(garments)
    assert scenes.images.shape == (200, 64, 64, 3)
    assert scenes.images.dtype == np.uint8
    assert scenes.masks.shape == (200, garments, 64, 64)
    assert (scenes.masks.sum((2, 3)) > 100).all()
    assert scenes.masks.sum(1).max() == 1
    assert (np.apply_along_axis(np.bincount, 0, scenes.labels) == 20).all()
    assert (np.sort(scenes.labels[:10, 0]) == np.arange(10)).all()
    if garments == 2:
        assert (scenes.labels[:, 0] != scenes.labels[:, 1]).all()
    assert len(scenes.classes) == 10


def test_the_files_that_ship_are_those_that_were_looked_at():
    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest()[:16] for path in FOLDER.rglob("*.*g")}
    assert found == SHA256


def test_the_single_pictures_are_scenes_that_ship():
    for path in (FOLDER / "pictures").glob("*.png"):
        scenes = load_scenes(1 + path.stem.count("_"))
        picture = np.asarray(Image.open(path))
        same = (scenes.images == picture[::4, ::4]).all((1, 2, 3))
        names = [scenes.classes[label].replace(" ", "-").lower() for label in scenes.labels[same][0]]
        assert "_".join(names) == path.stem


@pytest.mark.skipif(not DEBIAN.exists(), reason="Fashion-MNIST is Debian's package dataset-fashion-mnist")
@pytest.mark.parametrize("garments", [1, 2])
def test_the_scenes_that_ship_follow_from_the_seed(garments):
    import ship_scenes

    made, shipped = ship_scenes.shipped_scenes(DEBIAN, garments), load_scenes(garments)
    assert np.array_equal(made.labels[:, :garments].numpy(), shipped.labels)
    assert (made.masks[:, :garments].numpy() != shipped.masks).mean() < 1e-4
    difference = np.abs(made.images.permute(0, 2, 3, 1).numpy().astype(int) - shipped.images)
    assert (difference > 1).mean() < 1e-4  # another machine may round a colour the other way


def test_another_number_of_garments_is_refused():
    with pytest.raises(OptionError, match=r"garments=3.*Give 1 or 2"):
        load_scenes(3)
