"""The result on images: its checks, rows, equality, dictionaries and files; maps, strongest patches, sums in words."""

import copy
import json
import sys

import pytest
import torch
from results import conserved, image_explanation

from hf_mambalrp import load
from hf_mambalrp.errors import InputError, MissingExtraError, NonFiniteRelevanceError, OptionError
from hf_mambalrp.results.explanation import Conservation
from hf_mambalrp.results.image_explanation import ImageExplanation


def full():
    """Three rows with every field set, numbers that float32 does not hold exactly, two class tokens and overlap."""
    torch.manual_seed(0)
    relevance, tokens = torch.randn(3, 3, 2) / 3, torch.randn(3, 2) / 3
    kept = conserved(torch.cat([relevance.flatten(1), tokens], 1), 0.1)
    return image_explanation(
        relevance,
        class_relevance=tokens,
        patch_size=4,
        stride=2,
        target=[1, 2, None],
        target_text=["a\u2028b", "\ud800", "entropy"],
        contrast=[0, 2, None],
        contrast_text=["x", "y", "z"],
        conservation=kept,
        score=kept.score,
        probability=torch.rand(3),
        images=torch.randint(256, (3, 8, 7, 3), dtype=torch.uint8),
        pixel_relevance=torch.randn(3, 8, 7),
        layer_relevance=torch.randn(5, 3, 3, 2),
        layer_class_relevance=torch.randn(5, 3, 2),
        sources=["a.png", None, "日本.jpg"],
        convergence_delta=torch.rand(3),
        index=[4, 5, 7],
        ids=["a", "b", "c"],
        columns=[{"label": 1}, {"label": 2}, {"label": 3}],
    )


BUILDERS = [image_explanation, full, lambda: full()[1]]


def spread(patches, side, stride, height, width):
    """The formula of ``heat``, pixel by pixel."""
    found = torch.zeros(height, width, dtype=torch.float64)
    for y in range(height):
        for x in range(width):
            for r, line in enumerate(patches.tolist()):
                for c, value in enumerate(line):
                    if r * stride <= y < r * stride + side and c * stride <= x < c * stride + side:
                        found[y, x] += value / side**2
    return found


@pytest.mark.parametrize(("side", "stride"), [(4, 4), (4, 2), (5, 3), (1, 1), (2, 3)])
def test_a_map_spreads_every_patch_over_its_pixels(side, stride):
    torch.manual_seed(side)
    relevance = torch.randn(2, 3, 4)
    height, width = stride * 2 + side + 1, stride * 3 + side + 2  # pixels that no patch covers, as a remainder leaves
    ex = image_explanation(
        relevance, patch_size=side, stride=stride, images=torch.zeros(2, height, width, 3, dtype=torch.uint8)
    )
    for row in (0, 1, -1):
        heat = ex.heat(row)
        assert heat.dtype == torch.float32
        torch.testing.assert_close(
            heat.double(), spread(relevance[row], side, stride, height, width), atol=1e-7, rtol=0
        )
        torch.testing.assert_close(heat.sum(), relevance[row].sum(), atol=1e-5, rtol=0)
        assert torch.equal(ex.heat(row, size="patch"), relevance[row])
        assert not heat[-1].any()
        assert not heat[:, -2:].any()


def test_a_map_of_another_size_or_row_is_refused():
    with pytest.raises(OptionError, match="size='word'"):
        full().heat(size="word")
    with pytest.raises(IndexError, match="row 3 is out of range"):
        full().heat(3)


def test_strongest_patches():
    relevance = torch.tensor([[[1.0, -5.0, 0.0], [2.0, 2.0, -0.5]]])
    ex = image_explanation(relevance)
    assert [(patch.row, patch.column, patch.relevance) for patch in ex.top(3)] == [(0, 1, -5), (1, 0, 2), (1, 1, 2)]
    assert [patch.relevance for patch in ex.top(9, by="positive")] == [2, 2, 1]
    assert [patch.relevance for patch in ex.top(9, by="negative")] == [-5, -0.5]
    assert len(ex.top()) == 6
    assert ex.top(1)[0].text == "row 0, column 1 (top middle)"
    for wrong, says in (({"k": 0}, "k=0"), ({"by": "size"}, "by='size'")):
        with pytest.raises(OptionError, match=says):
            ex.top(**wrong)
    with pytest.raises(IndexError, match="row 1 is out of range"):
        ex.top(row=1)


def test_rows():
    ex = full()
    assert len(ex) == 3
    assert [row.sources for row in ex] == [["a.png"], [None], ["日本.jpg"]]
    assert ex[1].layer_relevance.shape == (5, 1, 3, 2)
    assert torch.equal(ex[1:].images, ex.images[1:])
    assert ex[[2, 0]].ids == ["c", "a"]
    assert ImageExplanation.concat([ex[:1], ex[1:]]) == ex
    with pytest.raises(InputError, match=r"relevance .* differs in more than rows"):
        ImageExplanation.concat([image_explanation(), image_explanation(torch.ones(1, 2, 2))])
    with pytest.raises(InputError, match="different gamma"):
        ImageExplanation.concat([image_explanation(), image_explanation(gamma=0.0)])


def test_equality_sees_every_field():
    for builder in BUILDERS:
        assert builder() == builder()
        for name in builder()._names():
            other = builder()
            value = getattr(other, name)
            if isinstance(value, torch.Tensor):
                value = value.clone()
                value.view(-1)[-1] += 1
                object.__setattr__(other, name, value)
            elif isinstance(value, Conservation):
                other.conservation = Conservation(value.score, value.relevance, value.biases + 1)
            else:
                setattr(other, name, None if value else "something")
            assert other != builder(), name
    assert full() != "text"
    with pytest.raises(TypeError, match="unhashable"):
        hash(full())
    assert copy.deepcopy(full()) == full()


@pytest.mark.parametrize("builder", BUILDERS)
def test_files_and_dictionaries_are_exact(builder, tmp_path):
    ex = builder()
    ex.save(tmp_path / "ex")
    assert sorted(path.name for path in (tmp_path / "ex").iterdir()) == ["explanation.json", "explanation.safetensors"]
    for found in (load(tmp_path / "ex"), ImageExplanation.load(tmp_path / "ex"),
                  ImageExplanation.from_dict(json.loads(ex.to_json()))):  # fmt: skip
        assert type(found) is ImageExplanation
        assert found == ex
        assert repr(found) == repr(ex)
        assert isinstance(found.gamma_on, tuple)
        assert found.images.dtype == torch.uint8


def test_images_are_stored_compactly(tmp_path):
    torch.manual_seed(0)
    images = torch.randint(256, (2, 64, 64, 3), dtype=torch.uint8)  # which nothing can compress
    ex = image_explanation(torch.randn(2, 8, 8), patch_size=8, images=images)
    assert len(ex.to_json()) < 1.5 * images.numel()
    ex.save(tmp_path)
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 1.2 * images.numel()


def test_damaged_dictionaries_are_refused():
    data = full().to_dict()
    for images in (["no base 64!"], ["aGFsbG8="], [3], None, data["images"][:2], [data["images"][0][:80]] * 3):
        with pytest.raises(InputError):
            ImageExplanation.from_dict({**data, "images": images})


def wrong(**fields):
    return lambda: image_explanation(**fields)


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (wrong(images=torch.zeros(1, 12, 16, 3)), "images is of torch.float32; it must be uint8"),
        (wrong(images=torch.zeros(1, 12, 16, 1, dtype=torch.uint8)), "red, green and blue"),
        (wrong(images=torch.zeros(1, 3, 12, 16, dtype=torch.uint8)), "red, green and blue"),
        (wrong(images=torch.zeros(2, 12, 16, 3, dtype=torch.uint8)), "images has shape"),
        (wrong(images=torch.zeros(1, 11, 16, 3, dtype=torch.uint8)), "need an image of 12 x 16; images are 11 x 16"),
        (wrong(images=None), "images is missing"),
        (wrong(images="x.png"), "images is a str"),
        (wrong(stride=5, images=torch.zeros(1, 12, 16, 3, dtype=torch.uint8)), "need an image of 14 x 19"),
        (lambda: setattr(ex := image_explanation(), "patch_size", 0) or ex.__post_init__(), "patch_size=0"),
        (lambda: setattr(ex := image_explanation(), "stride", 2.0) or ex.__post_init__(), "stride=2.0"),
        (wrong(pixel_relevance=torch.zeros(1, 12, 12)), "pixel_relevance has shape"),
        (wrong(layer_relevance=torch.zeros(3, 1, 3, 4)), "give both or neither"),
        (wrong(layer_class_relevance=torch.zeros(3, 1, 1)), "give both or neither"),
        (wrong(layer_relevance=torch.zeros(3, 1, 3, 4), layer_class_relevance=torch.zeros(2, 1, 1)), "N = 3"),
        (wrong(layer_relevance=torch.zeros(3, 1, 3, 4), layer_class_relevance=torch.zeros(3, 1, 2)), "T = 1"),
        (wrong(sources=["a", "b"]), "sources has shape"),
        (wrong(class_relevance=torch.zeros(1, 0)), "class_relevance has shape \\(1, 0\\); give at least one row"),
        (wrong(conservation=Conservation(*torch.tensor([[50.0], [49.0], [1.0]]))), "is 49; it must be the sum"),
    ],
)  # fmt: skip
def test_wrong_fields_are_refused(build, says):
    with pytest.raises(InputError, match=says):
        build()


@pytest.mark.parametrize("name", ["relevance", "class_relevance", "pixel_relevance", "score"])
def test_numbers_that_are_none_are_refused(name):
    value = getattr(full(), name).clone()
    value.view(-1)[1] = float("nan")
    ex = full()
    object.__setattr__(ex, name, value)
    with pytest.raises(NonFiniteRelevanceError, match=f"{name} holds nan"):
        ex.__post_init__()


def test_a_sum_that_rounding_explains_is_none_of_another_result():
    relevance = torch.tensor([[[1000.0, -1000.0], [0.5, 0.0]]])
    total = torch.tensor([1.02])  # half precision of numbers of this size
    assert image_explanation(relevance, conservation=Conservation(total, total, torch.zeros(1))).relevance.numel() == 4


def test_one_line():
    assert repr(image_explanation()) == (
        "ImageExplanation of 1 row: mambalrp on me/vim, boot (score 42.750), 3 x 4 patches of 4 x 4 pixels"
    )
    many = image_explanation(torch.ones(5, 2, 2), target_text=[*"abcde"], contrast=[0] * 5, contrast_text=["z"] * 5)
    assert str(many) == (
        "ImageExplanation of 5 rows: mambalrp on me/vim, a rather than z (score 4.750), b rather than z (score 4.750), "
        "c rather than z (score 4.750) and 2 more, 2 x 2 patches of 4 x 4 pixels"
    )
    assert "\n" not in repr(full())
    assert "8 x 8 pixels, 2 apart" in repr(image_explanation(patch_size=8, stride=2))


def test_pillow_is_optional(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "PIL", None)
    ex = image_explanation()
    for ask in (ex.to_dict, ex.to_html, lambda: ex.save_png(tmp_path / "x.png")):
        with pytest.raises(MissingExtraError, match=r'pip install "hf_mambalrp\[vision\]"'):
            ask()
    ex.save(tmp_path / "ex")
    assert load(tmp_path / "ex") == ex
    assert "What speaks for boot?" in ex.to_text(color=True)
