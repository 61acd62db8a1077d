"""The command ``explain-image``: what it reads, prints and writes, and errors in one line."""

import io
import json
import os
import shutil
import sys
from pathlib import Path

import forks
import numpy as np
import pytest
import torch
from packaged import read_once
from PIL import Image
from small_vim import small_vim

from hf_mambalrp import DEMO_MODEL, DEMO_VISION_MODEL, AutoMambaLRPForImageClassification
from hf_mambalrp.cli.main import main
from hf_mambalrp.models.vim.processor import image_processor
from hf_mambalrp.results.image_explanation import ImageExplanation

PICTURES = Path(DEMO_VISION_MODEL) / "scenes" / "pictures"
BAG, BOTH = PICTURES / "bag.png", PICTURES / "bag_trouser.png"


@pytest.fixture(scope="module")
def demo():
    return AutoMambaLRPForImageClassification.from_pretrained(DEMO_VISION_MODEL)


@pytest.fixture
def here(tmp_path, monkeypatch, capsys, demo):
    """The command in this process and an empty folder: its exit code, standard output and standard error.

    The packaged model is read from its files once, not in every call.
    """
    monkeypatch.chdir(tmp_path)
    read_once(monkeypatch, AutoMambaLRPForImageClassification, DEMO_VISION_MODEL, demo)
    monkeypatch.setenv("COLUMNS", "100")

    def call(*arguments, stdin=None):
        if stdin is not None:
            monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        with pytest.raises(SystemExit) as stopped:
            main(["explain-image", *map(str, arguments)])
        return stopped.value.code, *capsys.readouterr()

    return call


def done(answer):
    code, printed, said = answer
    assert code == 0, said
    return printed


def numbers(answer):
    return json.loads(done(answer))


def test_a_reading_is_printed_and_every_format_written(here, demo, tmp_path):
    options = ["--target", "bag", "--contrast", "trouser", "--html", "a.html", "--json", "a.json", "--png", "a.png"]
    code, printed, said = here(BOTH, *options)
    assert code == 0, said
    assert said.splitlines() == ["written: a.html", "written: a.json", "written: a.png"]
    assert "\x1b" not in printed
    for words in ("What speaks for bag rather than trouser?", "image bag_trouser.png", "patches", "class token", "gap"):
        assert words in printed
    ex = demo.explain(BOTH, target="bag", contrast="trouser")
    assert ImageExplanation.from_dict(json.loads((tmp_path / "a.json").read_text())).relevance.equal(ex.relevance)
    assert "bag_trouser.png" in (tmp_path / "a.html").read_text()
    ex.save_png(tmp_path / "b.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_the_prediction_of_the_packaged_model_is_the_default(here):
    assert "What speaks for bag?" in done(here(BAG))


def test_several_pictures_of_several_kinds(here, tmp_path):
    with Image.open(BAG) as image:
        image.save("bag.jpg", quality=95)
        image.convert("P").save("bag.gif")
    found = numbers(here(BAG, "bag.jpg", "bag.gif", BOTH, "--target", "bag", "--json", "-", "--png", "all.png"))
    assert found["sources"] == ["bag.png", "bag.jpg", "bag.gif", "bag_trouser.png"]
    assert len(found["score"]) == 4
    assert found["score"][1] == pytest.approx(found["score"][0], rel=0.2)
    with Image.open("all.png") as drawn:
        assert drawn.height > 1.9 * drawn.width, "four lines of two panels"


def test_standard_input_is_a_picture(here, demo):
    found = numbers(here("-", "--json", "-", stdin=BAG.read_bytes()))
    assert torch.tensor(found["relevance"]).equal(demo.explain(BAG).relevance)
    code, _, said = here("-", stdin=b"no picture")
    assert code == 1
    assert said.startswith("hf-mambalrp: Standard input is of no format that is read")


def test_the_rule_has_its_gamma(here, demo):
    for options, kinds in (
        (["--gamma", "0"], {"gamma": 0}),
        (["--gamma", "0.5", "--gamma-on", "conv1d,linear"], {"gamma": 0.5, "gamma_on": ("conv1d", "linear")}),
        (["--gamma-on", "linear"], {"gamma_on": "linear"}),
        (["--method", "gradient_x_input"], {"method": "gradient_x_input"}),
        (["--target", "2", "--contrast", "shirt", "--backend", "chunked"], {"target": 2, "contrast": "shirt"}),
    ):
        found = torch.tensor(numbers(here(BOTH, "--json", "-", *options))["relevance"])
        torch.testing.assert_close(found, demo.explain(BOTH, **kinds).relevance, rtol=1e-4, atol=1e-5)


def test_the_strongest_patches_are_named(here, demo):
    printed = done(here(BOTH, BAG, "--top", "3", "--target", "bag"))
    for row, picture in enumerate((BOTH, BAG)):
        lines = printed.split(f"Strongest patches of picture {row + 1}:\n")[1].splitlines()[:3]
        ex = demo.explain(picture, target="bag")
        order = ex.relevance[0].flatten().abs().sort(descending=True).indices[:3].tolist()
        for line, at in zip(lines, order, strict=True):
            assert f"row {at // 8}, column {at % 8} (" in line
            assert float(line.split()[0]) == pytest.approx(ex.relevance[0].flatten()[at].item(), abs=0.0006)


def test_layers_are_in_the_numbers_and_drawn(here, demo, tmp_path):
    assert here(BAG, "--png", "rows.png")[0] == 0
    found = numbers(here(BAG, "--per-layer", "--json", "-", "--png", "layers.png"))
    assert torch.tensor(found["layer_relevance"]).equal(demo.explain(BAG, per_layer=True).layer_relevance)
    assert (tmp_path / "layers.png").read_bytes() != (tmp_path / "rows.png").read_bytes()


def test_another_model_from_a_folder(here, tmp_path):
    model = small_vim()
    model.save_pretrained(tmp_path / "vim")
    image_processor(model.config).save_pretrained(tmp_path / "vim")
    found = numbers(here(BAG, "--model", tmp_path / "vim", "--target", "LABEL_3", "--json", "-"))
    assert found["target"] == [3]
    assert np.array(found["relevance"]).shape == (1, 4, 4)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["Give a PICTURE", "Example: hf-mambalrp explain-image photo.jpg"]),
        (["missing.jpg"], ["Image 0 ('missing.jpg') is not there"]),
        ([BAG, "empty.png"], ["Image 1 ('empty.png') is an empty file"]),
        (["folder"], ["'folder'", "is a folder"]),
        (["bomb.png"], ["'bomb.png'", "more than 64 million pixels"]),
        (["several.gif"], ["several frames"]),
        (["https://example.org/a.png"], ["Download it first"]),
        ([BAG, "--target", "hat"], ["target='hat'", "bag"]),
        ([BAG, "--target", "10"], ["target=10", "0..9"]),
        ([BAG, "--contrast", "hat"], ["contrast='hat'"]),
        ([BAG, "--method", "lime"], ["'lime'", "mambalrp"]),
        ([BAG, "--backend", "fast"], ["'fast'", "reference"]),
        ([BAG, "--gamma", "-1"], ["gamma=-1"]),
        ([BAG, "--gamma-on", "attention"], ["attention", "conv1d"]),
        ([BAG, "--gamma", "0.5", "--method", "random"], ["gamma", "'random'"]),
        ([BAG, "--model", "./missing"], ["./missing", "Hub id"]),
        ([BAG, "--model", DEMO_MODEL], ["reads texts (MambaForSequenceClassification)", "Give an image classifier"]),
        ([BAG, "--html", "missing/a.html"], ["no folder missing"]),
        ([BAG, "--png", "a.svg"], ["--png a.svg", ".png"]),
        ([BAG, "--png", "."], ["."]),
        ([BAG, "--per-layer"], ["--json and --png"]),
        ([BAG, "--per-layer", "--json", "-", "--method", "occlusion"], ["--per-layer", "'occlusion'"]),
        ([BAG, BAG, "--per-layer", "--png", "a.png"], ["one picture, and there are 2"]),
    ],
)
def test_errors_are_one_line(here, tmp_path, arguments, words):
    (tmp_path / "empty.png").touch()
    (tmp_path / "folder").mkdir()
    if "bomb.png" in arguments:
        Image.new("1", (10_000, 10_000)).save("bomb.png")
    Image.new("L", (4, 4)).save("several.gif", save_all=True, append_images=[Image.new("L", (4, 4), 9)])
    code, printed, said = here(*arguments)
    assert code == 1
    assert printed == ""
    assert len(said.splitlines()) == 1, said
    assert said.startswith("hf-mambalrp: ")
    for word in words:
        assert word in said


@pytest.mark.parametrize("options", [["--top", "0"], ["--gamma", "much"], ["--nonsense"]])
def test_wrong_usage(here, options):
    code, _, said = here(BAG, *options)
    assert code == 2
    assert options[0] in said


@pytest.mark.parametrize("arguments", [["missing.png"], [BAG, "--html", "missing/a.html"], [BAG, "--png", "a.svg"]])
def test_what_cannot_be_done_is_said_before_the_model_is_loaded(here, monkeypatch, arguments):
    monkeypatch.setattr("hf_mambalrp.cli.images.load_image_model", lambda model: pytest.fail("the model was loaded"))
    assert here(*arguments)[0] == 1


def test_colour_is_used_where_asked_for_and_the_shares_are_numbers_without():
    def shown(**environment):
        done = forks.run(["-m", "hf_mambalrp.cli", "explain-image", BAG], env={**os.environ, **environment})
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        return done.stdout

    colored, plain = shown(FORCE_COLOR="1"), shown(FORCE_COLOR="1", NO_COLOR="1")
    assert "\x1b[38;2;" in colored
    assert "▀" in colored
    assert "\x1b[38" not in plain
    assert "the share of a patch in all |R|, in percent" in plain


def test_names_of_files_are_not_trusted(here, tmp_path):
    name = "\x1b[31mred\u202e.png"
    shutil.copy(BAG, tmp_path / name)
    printed = done(here(name, "--html", "a.html"))
    assert "\x1b" not in printed
    assert "⟨U+202E⟩" in printed
    assert "\x1b" not in (tmp_path / "a.html").read_text()


def test_help_has_an_example(here):
    printed = done(here("--help"))
    assert "Example: hf-mambalrp explain-image photo.jpg" in " ".join(printed.split())


def test_the_command_for_texts_says_which_one_is_for_pictures(monkeypatch, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["explain", "photo.JPG"])
    assert stopped.value.code == 0
    assert "'photo.JPG' itself is read as the text; of a picture: explain-image photo.JPG" in capsys.readouterr().err
