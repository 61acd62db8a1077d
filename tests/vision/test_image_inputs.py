"""Pictures on their way to the model: the image processor beside it, the caller's, or the one of the evaluation."""

import json

import forks
import numpy as np
import pytest
import torch
from PIL import Image
from small_vim import small_vim

from hf_mambalrp import DEMO_VISION_MODEL, VimLRPForImageClassification, make_explainable
from hf_mambalrp.errors import InputError
from hf_mambalrp.models.vim.processor import MEAN, STANDARD_DEVIATION, image_processor

SIDE = 16


@pytest.fixture
def picture():
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8))


@pytest.fixture
def saved(tmp_path):
    """A model of 16 x 16 pixels beside a processor that leaves them as they are, normalised in a way of its own."""
    model = small_vim()
    model.save_pretrained(tmp_path)
    size = {"size": {"shortest_edge": SIDE}, "image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]}
    image_processor(model.config, **size).save_pretrained(tmp_path)
    return tmp_path


def normalised(picture, mean, deviation):
    values = np.asarray(picture).astype(np.float64) / 255
    return torch.tensor((values - np.array(mean)) / np.array(deviation)).float().permute(2, 0, 1)[None]


def assert_explains(found, expected):
    torch.testing.assert_close(found.score, expected.score, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.relevance, expected.relevance, rtol=1e-4, atol=1e-5)


def test_the_processor_beside_the_model_is_the_one(saved, picture):
    model = VimLRPForImageClassification.from_pretrained(saved)
    found = model.explain(picture)
    assert_explains(found, model.explain(pixel_values=normalised(picture, [0.1, 0.2, 0.3], [0.4, 0.5, 0.6])))
    assert np.array_equal(found.images[0].numpy(), np.asarray(picture)), "as a person sees what the model saw"


def test_the_callers_processor_wins(saved, picture):
    model = VimLRPForImageClassification.from_pretrained(saved)
    own = image_processor(model.config, size={"shortest_edge": SIDE}, image_mean=[0.5] * 3, image_std=[1.0] * 3)
    found = model.explain(picture, processor=own)
    assert_explains(found, model.explain(pixel_values=normalised(picture, [0.5] * 3, [1.0] * 3)))


def test_without_one_it_is_that_of_the_evaluation(picture):
    model = make_explainable(small_vim())
    enlarged = picture.resize((int(SIDE / 0.875), int(SIDE / 0.875)), Image.Resampling.BICUBIC)
    edge = (enlarged.width - SIDE) // 2
    cropped = enlarged.crop((edge, edge, edge + SIDE, edge + SIDE))
    found = model.explain(picture)
    assert_explains(found, model.explain(pixel_values=normalised(cropped, MEAN, STANDARD_DEVIATION)))


def test_settings_of_a_class_that_is_not_there_are_no_reason_for_another(saved, picture):
    settings = json.loads((saved / "preprocessor_config.json").read_text())
    (saved / "preprocessor_config.json").write_text(json.dumps({**settings, "image_processor_type": "Unheard"}))
    model = VimLRPForImageClassification.from_pretrained(saved)
    with pytest.raises(InputError, match=r"is 'Unheard', which transformers .* does not have\. Pass processor="):
        model.explain(picture)


def test_files_of_several_kinds_in_one_call(saved, picture, tmp_path):
    model = VimLRPForImageClassification.from_pretrained(saved)
    picture.save(tmp_path / "a.png")
    picture.convert("RGBA").save(tmp_path / "b.webp", lossless=True)
    given = [tmp_path / "a.png", str(tmp_path / "b.webp"), picture, np.asarray(picture)]
    found = model.explain(given)
    assert found.sources == ["a.png", "b.webp", None, None]
    one = model.explain(picture)
    for row in found:
        assert_explains(row, one)


def test_explaining_a_picture_says_nothing_on_the_side():
    code = (
        "from hf_mambalrp import DEMO_VISION_MODEL, VimLRPForImageClassification\n"
        "from transformers.utils import logging\n"
        "logging.disable_progress_bar()\n"
        "model = VimLRPForImageClassification.from_pretrained(DEMO_VISION_MODEL)\n"
        f"print(model.explain({DEMO_VISION_MODEL + '/scenes/pictures/bag.png'!r}).target_text)\n"
    )
    run = forks.run(["-c", code])
    assert (run.stdout, run.stderr) == ("['bag']\n", "")
