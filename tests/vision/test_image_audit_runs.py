"""An audit of images that is killed, gone on with, or shared by processes: the file of one undisturbed run."""

import copy
import json
import os
import signal

import datasets
import numpy as np
import pytest
import torch
from parallel_runs import in_a_child, in_two
from PIL import Image
from small_vim import small_vim

from hf_mambalrp import make_explainable
from hf_mambalrp.audit import audit
from hf_mambalrp.audit.images import ImageScores
from hf_mambalrp.datasets.kept import RowsFolder
from hf_mambalrp.datasets.together import launched
from hf_mambalrp.errors import InputError
from hf_mambalrp.evaluation.scenes import load_scenes
from hf_mambalrp.models.vim.processor import image_processor

COUNT = 6


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    """A small model, rows of six scenes, and the file that one run makes of them."""
    scenes = load_scenes(1)
    torch.manual_seed(0)
    names = dict(enumerate([*scenes.classes, "neither", "both", "other"]))
    model = make_explainable(small_vim(image_size=64, patch_size=16, num_labels=len(names), id2label=names))
    garments = [mask[0] for mask in scenes.masks[:COUNT]]
    edge = np.zeros(garments[0].shape, bool)
    edge[:8] = True
    rows = [
        {"image": image, "label": scenes.classes[i % 2], "garment": mask, "edge": edge if i % 2 else None}
        for i, (image, mask) in enumerate(zip(scenes.images[:COUNT], garments, strict=True))
    ]
    out = tmp_path_factory.mktemp("case") / "out"
    saved(model, rows, out)
    return model, rows, out


def saved(model, rows, out, **options):
    """Audit into a folder, and save into it on the main process."""
    options = {"masks": {name: name for name in ("garment", "edge")}, "label": "label", "min_texts": 2, **options}
    found = audit(model, rows, out, processor=image_processor(model.config), progress=False, **options)
    if launched().is_main_process:
        found.save(out / "audit.json")
    return found


def kept(out, name):
    lines = [line for path in (out / name).glob("rows-*.jsonl") for line in path.read_text().splitlines()]
    return [json.loads(line)["key"] for line in lines]


@pytest.mark.parametrize(("records", "explained", "without"), [(3, 3, 0), (COUNT + 2, COUNT, 2)])
def test_a_run_that_is_killed_goes_on_and_ends_in_the_same_bytes(case, tmp_path, records, explained, without):
    model, rows, expected = case
    out = tmp_path / "out"

    def killed_after():
        add, left = RowsFolder.add, [records]

        def adding(self, *record):
            add(self, *record)
            left[0] -= 1
            if not left[0]:
                with self._of(0).open("ab") as file:  # a kill may cut the next line
                    file.write(b'{"key": "cut')
                os.kill(os.getpid(), signal.SIGKILL)

        RowsFolder.add = adding
        saved(model, rows, out)

    assert os.WIFSIGNALED(os.waitpid(in_a_child(killed_after), 0)[1])
    assert len(list((out / "explained").glob("rows-*.jsonl"))) == 1
    saved(model, rows, out)
    assert (out / "audit.json").read_bytes() == (expected / "audit.json").read_bytes()
    assert len(kept(out, "explained")) == len({*kept(out, "explained")}) == COUNT
    first = kept(expected, "explained")
    assert kept(out, "explained") == first
    assert kept(out, "without") == kept(expected, "without")
    assert (explained, without) == (min(records, COUNT), max(0, records - COUNT))


def test_two_processes_give_the_file_of_one(case, tmp_path):
    model, rows, expected = case
    out = tmp_path / "out"
    codes, said = in_two(out, lambda process: saved(model, rows, out))
    assert codes == [0, 0], said
    assert (out / "audit.json").read_bytes() == (expected / "audit.json").read_bytes()
    shares = [len((out / "explained" / f"rows-{process}.jsonl").read_text().splitlines()) for process in (0, 1)]
    assert shares == [COUNT // 2, COUNT // 2]
    again = saved(model, rows, out)
    assert {path.name for path in (out / "explained").iterdir()} == {"manifest.json", "rows-0.jsonl", "rows-1.jsonl"}
    assert again.texts == COUNT


def test_an_image_that_cannot_be_read_ends_both_processes_and_is_named(case, tmp_path):
    model, rows, _ = case
    rows = [*rows[:3], {**rows[3], "image": "missing.png"}, *rows[4:]]  # the second process's
    codes, (first, second) = in_two(tmp_path / "out", lambda process: saved(model, rows, tmp_path / "out"))
    assert codes == [1, 1]
    assert "Image 3 ('missing.png') is not there" in second
    assert "Another process stopped" in first


def test_several_processes_need_a_folder(case, tmp_path):
    model, rows, _ = case
    options = {"masks": {"garment": "garment"}, "processor": image_processor(model.config), "progress": False}
    codes, said = in_two(tmp_path / "out", lambda process: audit(model, rows, **options))
    assert codes == [1, 1]
    assert all("output_dir=None: several processes" in one for one in said)


def test_what_is_kept_is_used_by_calls_that_ask_otherwise(case, tmp_path, monkeypatch):
    """Other statistics ask the model nothing; another replacement only for the images without regions."""
    model, rows, expected = case
    out = tmp_path / "out"
    assert saved(model, rows, out).errors is not None
    asked = []
    scores = ImageScores.__call__
    monkeypatch.setattr(ImageScores, "__call__", lambda self, *one: asked.append(len(one[1])) or scores(self, *one))
    plain = saved(model, rows, out, label=None, confidence=0.9, min_effect=0.5)
    assert plain.errors is None
    assert asked == []
    black = saved(model, rows, out, replacement="black")
    assert len(asked) == COUNT
    assert black.candidates != plain.candidates
    fewer = saved(model, rows[:4], out)
    assert fewer.texts == 4
    assert fewer.candidates == saved(model, rows[:4], tmp_path / "fewer").candidates
    assert saved(model, rows, out).candidates == saved(model, rows, expected).candidates


def test_a_folder_of_another_model_is_refused_unless_restarted(case, tmp_path):
    model, rows, _ = case
    out = tmp_path / "out"
    saved(model, rows, out)
    other = copy.deepcopy(model)
    other.head.bias.data[0] += 1
    with pytest.raises(InputError, match="holds another run: weights was"):
        saved(other, rows, out)
    assert saved(other, rows, out, restart=True).weights != saved(model, rows, tmp_path / "first").weights


def test_a_table_names_its_files_from_where_it_is(case, tmp_path):
    model, rows, _ = case
    for i, row in enumerate(rows):
        Image.fromarray(row["image"]).save(tmp_path / f"{i}.png")
        Image.fromarray(row["garment"]).save(tmp_path / f"{i}-garment.png")
    lines = [f"{i}.png,{row['label']},{f'{i}-garment.png' if i else ''}" for i, row in enumerate(rows)]
    (tmp_path / "rows.csv").write_text("\n".join(["image,label,garment", *lines]) + "\n")
    options = {"masks": {"garment": "garment"}, "min_texts": 2, "label": "label"}
    found = saved(model, tmp_path / "rows.csv", tmp_path / "csv", **options)
    expected = saved(
        model,
        [{**row, "garment": row["garment"] if i else None} for i, row in enumerate(rows)],
        tmp_path / "rows",
        **options,
    )
    assert found == expected
    assert found.candidates[0].found.texts == COUNT - 1
    with pytest.raises(InputError, match=r"No row has a column \['logo'\]; their columns are \['garment', 'image'"):
        saved(model, tmp_path / "rows.csv", tmp_path / "csv", masks={"logo": "logo"})
    edge = {"masks": {"edge": rows[1]["edge"]}, "min_texts": 2}
    expected = saved(model, rows, tmp_path / "arrays", **edge)
    files, held = [str(tmp_path / f"{i}.png") for i in range(COUNT)], [Image.fromarray(row["image"]) for row in rows]
    for name, pictures in (("files", files), ("held", held)):  # datasets writes names of the ones, bytes of the others
        table = datasets.Dataset.from_dict({"image": pictures, "label": [row["label"] for row in rows]})
        table.cast_column("image", datasets.Image()).to_parquet(str(tmp_path / f"{name}.parquet"))
        assert saved(model, tmp_path / f"{name}.parquet", tmp_path / name, **edge) == expected
