"""Results on images on a Hub: a model's card with pictures, and rows as a dataset whose images are images."""

import re
from dataclasses import replace
from io import BytesIO

import datasets
import numpy as np
import pytest
import torch
import yaml
from huggingface_hub import snapshot_download
from markdown_it import MarkdownIt
from PIL import Image
from results import HOSTILE, explanation, image_explanation
from transformers import AutoImageProcessor, AutoModelForImageClassification

from hf_mambalrp import ImageExplanation, VimConfig, VimLRPForImageClassification, load_explanations
from hf_mambalrp.errors import InputError, OptionError
from hf_mambalrp.models.card_checks import check_explanations
from hf_mambalrp.models.vim.processor import image_processor
from hf_mambalrp.results.card import explanations_section, rows
from hf_mambalrp.viz.wording import signed

SIZES = {"image_size": 32, "patch_size": 8, "hidden_size": 16, "num_hidden_layers": 2, "state_size": 4}


def vim(seed, **options):
    torch.manual_seed(seed)
    model = VimLRPForImageClassification(
        VimConfig(**SIZES, id2label={0: "boot", 1: "coat", 2: "bag"}, **options)
    ).eval()
    with torch.no_grad():
        model.head.weight.normal_()
    return model


@pytest.fixture(scope="module")
def images():
    return [torch.randint(256, (40, 50, 3), dtype=torch.uint8) for _ in range(4)]


@pytest.fixture(scope="module")
def image_model():
    return vim(1)


@pytest.fixture(scope="module")
def found(image_model, images):
    return image_model.explain(images, target="coat", per_layer=True)


def test_a_pushed_model_has_a_card_with_three_pictures_and_its_image_processor(hub, image_model, found):
    image_model.push_to_hub("me/vim", explanations=found)
    repository = hub.repositories["model", "me/vim"]
    files, text = repository.files(), repository.files()["README.md"].decode()
    assert yaml.safe_load(text.split("---")[1])["pipeline_tag"] == "image-classification"
    shown = re.findall(r"!\[(.+)\]\((.+)\)", text)
    assert [path for _, path in shown] == [f"explanations/explanation-{number}.png" for number in (1, 2, 3)]
    assert sorted(path for path in files if path.startswith("explanations/")) == [path for _, path in shown]
    for row, (says, path) in enumerate(shown):
        assert "What speaks for coat?" in says
        assert "is strongest in the" in says
        picture = np.array(Image.open(BytesIO(files[path])))
        side = 14 * 32
        assert np.array_equal(picture[12 : 12 + side : 14, 12 : 12 + side : 14], found.images[row].numpy())
        for patch in found.top(10, row):
            assert f"| row {patch.row}, column {patch.column} ({patch.place}) | {signed(patch.relevance)} |" in text
    assert text.count("patches ") >= 3
    assert "1 more explanations are not shown here." in text
    assert "data:" not in text
    assert "every patch its share of a prediction" in text
    assert "AutoMambaLRPForImageClassification.from_pretrained('me/vim')" in text
    assert "model.explain('photo.jpg')" in text
    plain = AutoModelForImageClassification.from_pretrained("me/vim")
    assert torch.equal(plain.head.weight, image_model.head.weight)
    assert AutoImageProcessor.from_pretrained("me/vim").crop_size["height"] == 32
    address = image_model.push_to_hub("me/vim", explanations=found)
    assert address == image_model.push_to_hub("me/vim")
    assert len(repository.history()) == 2
    image_model.push_to_hub("me/vim", explanations=found[0])
    assert [path for path in repository.files() if path.startswith("explanations/")] == [shown[0][1]]


def test_the_program_of_the_card_runs(hub, image_model, found, images, tmp_path, monkeypatch, capsys):
    image_model.push_to_hub("me/vim", explanations=found)
    text = hub.repositories["model", "me/vim"].files()["README.md"].decode()
    (program,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    Image.fromarray(images[0].numpy()).save("photo.jpg")
    exec(compile(program, "README.md", "exec"), {})
    assert "ImageExplanation of 1 row" in capsys.readouterr().out
    assert "What speaks for" in (tmp_path / "explanation.html").read_text()


def test_an_image_processor_that_is_there_or_is_given_stays(hub, image_model, found, tmp_path):
    own = image_processor(image_model.config, image_mean=[0.5] * 3)
    image_model.push_to_hub("me/vim", image_processor=own)
    image_model.push_to_hub("me/vim")
    assert list(AutoImageProcessor.from_pretrained("me/vim").image_mean) == [0.5] * 3
    image_model.save_pretrained(tmp_path, explanations=found)
    assert {"README.md", "explanations", "preprocessor_config.json"} <= {path.name for path in tmp_path.iterdir()}


def test_an_image_classifier_takes_no_tokenizer(hub, image_model):
    with pytest.raises(OptionError, match=r"tokenizer=BitImageProcessor.* reads pictures\. Give image_processor="):
        image_model.push_to_hub("me/vim", tokenizer=image_processor(image_model.config))
    assert not hub.repositories


def test_a_card_shows_explanations_of_its_own_model_only(image_model, found, images):
    check_explanations(rows(found), image_model)
    check_explanations(rows(image_model.explain(images, target=0, contrast=1, method="gradient_x_input")), image_model)
    wrong = [
        vim(2).explain(images),
        image_model.explain(images, processor=image_processor(image_model.config, image_mean=[0.1] * 3)),
        replace(found, target=[9] * 4),
        image_explanation(sources=["a.png"]),
        explanation("a b"),
    ]
    for one in wrong:
        with pytest.raises(InputError, match="Row 0 of the explanations has the score"):
            check_explanations(rows(one), image_model)
    pixels = torch.randn(2, 3, 32, 32)
    for unchecked in (image_model.explain(pixel_values=pixels), found[:1], replace(found, target=[None] * 4)):
        check_explanations(rows(unchecked), image_model)


def test_names_act_on_nothing_in_a_card():
    ex = image_explanation(target_text=[HOSTILE], sources=[HOSTILE], method=HOSTILE, versions={HOSTILE: HOSTILE})
    section, pictures = explanations_section([(ex, 0)])
    shown = MarkdownIt("commonmark", {"html": True}).enable("table").render(section)
    assert "<script" not in shown
    assert re.findall(r"<img src=\"([^\"]+)\"", shown) == list(pictures)


def test_an_explanation_pushes_itself_and_is_read_back(hub, found):
    found.push_to_hub("me/images", private=True)
    back = list(load_explanations("me/images"))
    expected = replace(
        found, pixel_relevance=None, layer_relevance=None, layer_class_relevance=None, index=[0, 1, 2, 3], ids=[*"0123"]
    )
    assert back == list(expected)
    assert ImageExplanation.concat(back) == expected
    named = image_explanation(
        torch.randn(2, 3, 3), contrast=[None, 2], contrast_text=["entropy", "coat"], target=[None, 1], stride=2,
        convergence_delta=torch.rand(2), columns=[{"label": 1}, {"label": 2}], index=[3, 5], ids=["a", "b"],
    )  # fmt: skip
    named.push_to_hub("me/images")
    assert ImageExplanation.concat(load_explanations("me/images")) == named
    assert "manifest.json" not in hub.repositories["dataset", "me/images"].files()


def test_the_viewer_shows_images(hub):
    ex = image_explanation(torch.ones(2, 4, 4), sources=["a.png", None])
    ex.push_to_hub("me/images")
    card = hub.repositories["dataset", "me/images"].files()["README.md"].decode()
    assert "Explanations of a Mamba model, patch by patch." in card
    assert "| index, id, image |" in card
    table = datasets.load_dataset(snapshot_download("me/images", repo_type="dataset"), split="train")
    assert isinstance(table.features["image"], datasets.Image)
    assert [image.size for image in table["image"]] == [(16, 16)] * 2
    assert np.array_equal(np.array(table[1]["image"]), ex.images[1].numpy())
    assert table[0]["relevance"] == ex.relevance[0].tolist()
    columns = re.findall(r"^\| ([a-z_, ]+) \| ", card, re.MULTILINE)
    assert set(table.column_names) == {name for names in columns for name in names.split(", ")}
