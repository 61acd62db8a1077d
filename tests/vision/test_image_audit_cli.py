"""``hf-mambalrp audit`` of images: folders and tables, the same files as the call, and errors in one line."""

import shutil

import numpy as np
import pytest
from packaged import read_once
from PIL import Image

from hf_mambalrp import DEMO_MODEL, DEMO_VISION_MODEL, AutoMambaLRPForImageClassification
from hf_mambalrp.audit import Audit, audit
from hf_mambalrp.calls.image_inputs import WITHOUT_CONTENT
from hf_mambalrp.cli.audits import REPLACEMENTS
from hf_mambalrp.cli.main import main
from hf_mambalrp.evaluation.scenes import load_scenes

COUNT = 4
CLASSES = ["bag", "coat"]


@pytest.fixture(scope="module")
def demo():
    return AutoMambaLRPForImageClassification.from_pretrained(DEMO_VISION_MODEL)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Four scenes in a folder, in folders of two classes, and in a table; masks of garments, and one of the edge."""
    folder, scenes = tmp_path_factory.mktemp("files"), load_scenes(1)
    for name in ("photos", "masks/flat", *(f"{kind}/{one}" for kind in ("classes", "masks/deep") for one in CLASSES)):
        (folder / name).mkdir(parents=True)
    rows = ["image,label,garment"]
    for i in range(COUNT):
        picture, mask, own = Image.fromarray(scenes.images[i]), Image.fromarray(scenes.masks[i][0]), CLASSES[i % 2]
        picture.save(folder / "photos" / f"{i}.png")
        picture.save(folder / "classes" / own / f"{i}.png")
        mask.save(folder / "masks" / "flat" / f"{i}.png")
        mask.save(folder / "masks" / "deep" / own / f"{i}.png")
        rows.append(f"photos/{i}.png,{own},masks/flat/{i}.png")
    edge = np.zeros(scenes.images.shape[1:3], bool)
    edge[:8] = True
    Image.fromarray(edge).save(folder / "edge.png")
    Image.fromarray(edge[:9]).save(folder / "small.png")
    (folder / "rows.csv").write_text("\n".join(rows) + "\n")
    (folder / "empty").mkdir()
    return folder


@pytest.fixture
def run(monkeypatch, capsys, demo, files, tmp_path):
    """The command where the files are, into a folder of its own: exit code, and what it said."""
    monkeypatch.chdir(files)
    read_once(monkeypatch, AutoMambaLRPForImageClassification, DEMO_VISION_MODEL, demo)

    def call(*arguments):
        with pytest.raises(SystemExit) as ended:
            main(["audit", *arguments, "--min-texts", "2", "--output", str(tmp_path / "audit")])
        return ended.value.code, *capsys.readouterr()

    return call


def expected(demo, files, rows, label):
    masks = {"garment": "garment", "edge": files / "edge.png"}
    return audit(demo, rows, masks=masks, label=label, min_texts=2, progress=False)


def test_a_table_a_folder_and_folders_of_classes_give_what_the_call_gives(run, demo, files, tmp_path):
    of_rows = expected(demo, files, files / "rows.csv", "label")
    code, printed, said = run("rows.csv", "--masks", "garment,edge=edge.png", "--label", "label")
    assert code == 0, said
    assert "What does the model rely on?" in printed
    assert f"written: {tmp_path / 'audit' / 'audit.html'}" in said
    saved = tmp_path / "audit" / "audit.json"
    assert Audit.load(saved) == of_rows
    assert (tmp_path / "audit" / "audit.html").read_text() == of_rows.to_html()
    before = saved.read_bytes()
    assert run("rows.csv", "--masks", "garment,edge=edge.png", "--label", "label")[0] == 0
    assert saved.read_bytes() == before
    code, _, said = run("classes", "--masks", "garment=masks/deep,edge=edge.png", "--label", "label")
    assert code == 0, said
    found = Audit.load(saved)
    assert (found.data, found.classes) == ("classes", {"bag": 2, "coat": 2})
    assert {one.found.name: one.found.texts for one in found.candidates} == {"garment": 4, "edge": 4}
    shares = {one.found.name: one.share for one in of_rows.candidates}
    assert {one.found.name: one.share for one in found.candidates} == pytest.approx(shares)
    code, _, said = run("photos", "--masks", "garment=masks/flat", "--replacement", "black")
    assert code == 0, said
    assert Audit.load(saved).settings["replacement"] == "black"


def test_a_picture_without_a_mask_lacks_the_region(run, files, tmp_path):
    shutil.copytree(files / "masks" / "flat", tmp_path / "some")
    (tmp_path / "some" / "0.png").unlink()
    assert run("classes", "--masks", f"edge=edge.png,garment={files / 'masks' / 'deep'}")[0] == 0
    code, _, said = run("photos", "--masks", f"garment={tmp_path / 'some'}")
    assert code == 0, said
    found = Audit.load(tmp_path / "audit" / "audit.json")
    names = [*found.untested, *(one.found.name for one in found.candidates if one.found.texts <= COUNT - 1)]
    assert names == ["garment"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["photos"], "no --masks are given. Give a column of the table, NAME=FILE, or of a folder"),
        (["photos", "--masks", "garment"], "a folder has no columns. Give garment=FOLDER or garment=FILE"),
        (["photos", "--masks", "garment=nowhere"], "'nowhere' is no file and no folder"),
        (["photos", "--masks", "garment=empty"], "no picture has a mask there: of the first it is 'empty/0.png'"),
        (["empty", "--masks", "edge=edge.png"], "'empty' has no pictures"),
        (["rows.csv", "--masks", "logo"], "No row has a column ['logo']; their columns are"),
        (["rows.csv", "--masks", "garment", "--image-column", "photo"], "No row has a column ['photo']"),
        (["rows.csv", "--masks", "edge=masks"], "'masks' is no file"),
        (["none.csv", "--masks", "garment"], "'none.csv' is not a file"),
        (["photos", "--masks", "edge=small.png"], "Image 0, region 'edge' is 64 x 64 pixels and its mask 64 x 9"),
        (["photos", "--masks", "edge=rows.csv"], "region 'edge' has a mask that cannot be read"),
        (["photos", "--masks", "edge=edge.png", "--swaps", "he=she"], "--swaps is for texts"),
        (["photos", "--masks", "edge=edge.png", "--target", "bag"], "--target is for texts"),
        (["photos", "--masks", "edge=edge.png", "--text-column", "a"], "--text-column is for texts"),
        (["photos", "--masks", "edge=edge.png", "--replacement", "hole"], "--replacement='hole'"),
        (["photos", "--masks", "edge=edge.png", "--model", DEMO_MODEL], "reads texts (MambaForSequenceClassification)"),
        (["rows.csv", "--text-column", "label", "--model", "DEMO_VISION_MODEL"], "audit --masks"),
        (["rows.csv", "--masks", "garment", "--label", "image"], "photos/0.png"),
        (["photos", "--masks", "edge=edge.png", "--label", "label"], "Image 0 has no 'label'"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(run, arguments, says):
    code, printed, said = run(*arguments)
    assert (code, printed) == (1, "")
    message = said.strip().splitlines()[-1]  # after the bar, where reading had begun
    assert says in message
    assert message.startswith("hf-mambalrp: ")


def test_the_command_knows_the_names_of_what_replaces_a_patch():
    assert REPLACEMENTS == WITHOUT_CONTENT
