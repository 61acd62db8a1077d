"""The papers' tables on stand-ins: local folders with the columns of the public data sets, and tiny models."""

import json
import re
import shutil
import sys
from importlib import import_module
from itertools import pairwise, permutations
from pathlib import Path

import datasets
import pytest
import torch
from PIL import Image
from random_models import random_model
from safetensors.torch import load_file
from small import byte_level_tokenizer
from transformers import AutoModelForCausalLM

from hf_mambalrp import DEMO_VISION_MODEL, AutoMambaLRPForCausalLM, MambaForSequenceClassification
from hf_mambalrp.evaluation.scenes import load_scenes

PAPER = Path(__file__).parents[1] / "examples" / "paper"
ROWS = {
    "sst2": [{"idx": 0, "sentence": "A dull film.", "label": 0}, {"idx": 1, "sentence": "Lovely.", "label": 1}],
    "snli": [
        {"premise": "A dog runs.", "hypothesis": "A cat sleeps.", "label": 2},
        {"premise": "A dog runs.", "hypothesis": "It is fast.", "label": -1},
        {"premise": "A dog runs.", "hypothesis": "It moves.", "label": 0},
    ],
    "emotion": [{"text": "i feel low", "label": 0}, {"text": "i feel awe", "label": 5}],
    "med-bios": [{"text": "She pulls teeth.", "label": 3}, {"text": "He listens.", "label": 0}],
}
TEXTS = {
    "sst2": [("A dull film.", 0), ("Lovely.", 1)],
    "snli": [("A dog runs.\nA cat sleeps.", 2), ("A dog runs.\nIt moves.", 0)],
    "emotion": [("i feel low", 0), ("i feel awe", 5)],
    "med-bios": [("She pulls teeth.", 3), ("He listens.", 0)],
}


@pytest.fixture(scope="module", autouse=True)
def example_modules():
    """The example's files import each other by bare names, as a script's neighbours do."""
    sys.path.insert(0, str(PAPER))
    yield
    sys.path.remove(str(PAPER))
    for path in PAPER.glob("*.py"):
        sys.modules.pop(path.stem, None)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def written(folder, split, rows):
    folder.mkdir(exist_ok=True)
    (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(folder)


@pytest.mark.parametrize("name", ROWS)
def test_rows_of_each_data_set(name, tmp_path, cache):
    import text

    task = text.TASKS[name]
    data = written(tmp_path / name, task.split, ROWS[name])
    found = text.read(task, data, task.split)
    assert list(zip(found["text"], found["label"], strict=True)) == TEXTS[name]


def test_other_columns_and_labels_are_refused(tmp_path, cache):
    import text

    task = text.TASKS["emotion"]
    for folder, rows, said in (
        ("columns", [{"sentence": "i feel low", "label": 0}], "no column"),
        ("labels", [{"text": "i feel low", "label": 6}], "has labels"),
        ("names", [{"text": "i feel low", "label": "joy"}], "has labels"),
    ):
        data = written(tmp_path / folder, "test", rows)
        with pytest.raises(SystemExit, match=said):
            text.read(task, data, "test")


@pytest.fixture
def run(tmp_path, cache, monkeypatch):
    """Run an example of the folder as its command does, in ``tmp_path``."""
    monkeypatch.chdir(tmp_path)

    def command(name, *arguments):
        monkeypatch.setattr(sys, "argv", [name, *arguments])
        import_module(name).main()

    return command


def test_interrupted_training_and_evaluation_go_on(run, tmp_path):
    """A run that was killed while it wrote its last checkpoint ends as the run that was not."""
    tokenizer = byte_level_tokenizer("A dull film. A lovely film.")
    random_model(num_layers=1, vocab_size=len(tokenizer), dtype=torch.float32).save_pretrained(tmp_path / "start")
    tokenizer.save_pretrained(tmp_path / "start")
    rows = [
        {"sentence": f"A {word} film {number}.", "label": label}
        for number in range(6)
        for label, word in enumerate(("dull", "lovely"))
    ]
    for split in ("train", "validation"):
        written(tmp_path / "sst2", split, rows)
    options = "--task sst2 --data sst2 --model start --epochs 2 --batch-size 4 --save-steps 2 --learning-rate 0.01"
    command = ["text", *options.split(), "--samples", "2", "--methods", "mambalrp", "random", "--output", "run"]
    run(*command)
    folder = tmp_path / "run"
    weights, table = load_file(folder / "model" / "model.safetensors"), (folder / "table.json").read_bytes()
    known = json.loads((folder / "training.json").read_text())
    model = MambaForSequenceClassification.from_pretrained(folder / "model")
    ids = [torch.tensor(tokenizer(row["sentence"])["input_ids"]) for row in rows]
    right = [model(each[None]).logits.argmax() == row["label"] for each, row in zip(ids, rows, strict=True)]
    assert known["accuracy"] == pytest.approx(torch.stack(right).double().mean().item())
    assert model.config.id2label == {0: "negative", 1: "positive"}

    shutil.rmtree(folder / "model")
    (folder / "table.json").unlink()
    (folder / "training" / "checkpoint-6" / "trainer_state.json").unlink()
    (folder / "training.json").write_text(json.dumps({"settings": known["settings"]}))
    kept = folder / "training" / "checkpoint-4" / "model.safetensors"
    before = kept.stat().st_mtime_ns
    records = (folder / "faithfulness" / "progress.jsonl").read_bytes()
    (folder / "faithfulness" / "progress.jsonl").write_bytes(records[: records.find(b"\n") + 1])
    run(*command)
    assert kept.stat().st_mtime_ns == before
    found = load_file(folder / "model" / "model.safetensors")
    assert all(torch.equal(found[name], weight) for name, weight in weights.items())
    assert (folder / "table.json").read_bytes() == table

    with pytest.raises(SystemExit, match="a run with another seed"):
        run(*command, "--seed", "1")


def test_masks_and_pictures_of_a_folder(run, tmp_path):
    """The whole picture is seen as a square, and so is its mask: of the packaged scenes, which are squares, all."""
    scenes, folder = load_scenes(1), tmp_path / "segments"
    folder.mkdir()
    lines = []
    for number in range(2):
        Image.fromarray(scenes.images[number]).save(folder / f"{number}.png")
        Image.fromarray(scenes.masks[number, 0]).save(folder / f"{number}_mask.png")
        lines.append({"file_name": f"{number}.png", "mask_file_name": f"{number}_mask.png"})
    (folder / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    options = ["--table", "segmentation", "--data", "segments", "--model", str(DEMO_VISION_MODEL)]
    run("images", *options, "--methods", "raw_attention", "--output", "out")
    results = json.loads((tmp_path / "out" / "pictures" / "results.json").read_text())
    assert [example["evidence"] for example in results["examples"]] == [[scenes.masks[n, 0].mean()] for n in range(2)]
    page = (tmp_path / "out" / "side_by_side.md").read_text()
    assert "| Mamba-Attribution | – | 74.72 | – | 81.70 | – | 54.24 |" in page
    ours = re.search(r"\| Raw Attention \| ([\d.]+) ", page)[1]
    assert float(ours) == pytest.approx(100 * results["methods"]["raw_attention"]["pixel_accuracy"]["mean"], abs=0.06)


def test_every_published_number_says_where_it_is_from():
    import side_by_side

    for name, table in side_by_side.PUBLISHED.items():
        assert "secondary source" in table["source"] or not table["rows"], name
        assert all(set(row) <= set(table["columns"]) for row in table["rows"].values()), name


def test_copying_is_shown_over_the_seeds_of_its_models(run, tmp_path):
    """What tasks.py writes has the lowest and the highest mean of the models; an interval over examples it is not."""
    stat = {"mean": 0.9, "low": 0.85, "high": 0.95, "seeds": [0.85, 0.9, 0.95]}
    of = {"12 tokens": {"latim": {"roc_auc": stat, "average_precision": stat, "recall_at_k": stat, "hit": stat}}}
    written = {"settings": {"sequences": 40}, "tasks": {}, "over seeds": {"copying-mamba": of, "needle-mamba": of}}
    (tmp_path / "tasks.json").write_text(json.dumps(written))
    run("side_by_side", "out", "--tasks", "tasks.json")
    page = (tmp_path / "out" / "side_by_side.md").read_text()
    assert "the mean, with the range over the models of these seeds." in page
    assert "bootstrap" not in page
    assert page.count("## ") == 1  # the needle is in no paper's table
    assert "| LaTIM | 0.900 \\[0.850, 0.950\\] | 0.86 |" in page
    assert re.search(r"Seeds.*3", page)


def test_alignment_error_rate_by_hand(run, tmp_path):
    """Of an untrained model, against a slow reading: a token at a time, words counted in the text up to it."""
    import alignment

    # Och and Ney's formula: A = {(0, 0), (1, 1), (2, 2)}, S = {(0, 0), (1, 2)}, P = S and (1, 1).
    sure, possible = alignment.gold("0-0 1-2 1?1")
    assert (sure, possible) == ({(0, 0), (1, 2)}, {(0, 0), (1, 2), (1, 1)})
    counted = alignment.counts({(0, 0), (1, 1), (2, 2)}, sure, possible)
    assert alignment.error_rate(torch.tensor(counted)).item() == pytest.approx(1 - (1 + 2) / (3 + 2))

    tokenizer = byte_level_tokenizer("ein Hund bellt a dog barks", vocabulary=266)
    random_model(num_layers=1, vocab_size=len(tokenizer), dtype=torch.float32).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    pairs = zip(permutations(["ein", "Hund", "bellt"]), permutations(["a", "dog", "barks"]), strict=True)
    rows = [{"source": " ".join(a), "target": " ".join(b), "alignment": "0-0 1-1 2?2"} for a, b in pairs]
    data = written(tmp_path / "gold", "train", rows)
    options = ["--data", data, "--model", "model", "--prompt", "{source} = ", "--methods", "mambalrp"]
    run("alignment", *options, "--output", "out")
    records = (tmp_path / "out" / "sentences" / "progress.jsonl").read_text().splitlines()

    model = AutoMambaLRPForCausalLM.from_pretrained(tmp_path / "model")
    slow = []
    for row in rows:
        ids, links = tokenizer(f"{row['source']} = {row['target']}")["input_ids"], set()
        until = [tokenizer.decode(ids[: n + 1]) for n in range(len(ids))]
        of_word = [None if text.endswith(" ") else len(text.split()) - 1 for text in until]
        size = len(row["source"].split())
        for number in range(len(row["target"].split())):
            sums = [0.0] * size
            for at in range(len(ids)):
                if of_word[at] == size + 1 + number:
                    explained = model.explain(input_ids=torch.tensor([ids[:at]]), target=ids[at])
                    for word, relevance in zip(of_word, explained.relevance[0].tolist(), strict=False):
                        if word is not None and word < size:
                            sums[word] += relevance
            links.add((sums.index(max(sums)), number))
        slow.append(alignment.counts(links, *alignment.gold(row["alignment"])))
    assert [json.loads(record)["methods"]["mambalrp"] for record in records] == slow
    assert "Alignment of translations" in (tmp_path / "out" / "side_by_side.md").read_text()


ARC = [
    {
        "id": f"Mercury_{number}",
        "question": question,
        "choices": {"text": texts, "label": labels},
        "answerKey": labels[key],
    }
    for number, (question, texts, labels, key) in enumerate(
        [
            ("What do plants need?", ["light", "night", "stone", "glass"], ["A", "B", "C", "D"], 0),
            ("Which is hot?", ["suns", "snow", "rain", "hail"], ["1", "2", "3", "4"], 2),
            ("What falls?", ["snow", "noon", "a moon"], ["A", "B", "C"], 1),
            ("Where is it dark?", ["at night", "at a noon"], ["A", "B"], 1),
            ("Who sleeps in winter?", ["bears", "birds", "bulls"], ["A", "B", "C"], 2),
        ]
    )
]


def test_arc_is_pruned_as_a_slow_reading_does(run, tmp_path):
    """One answer of one question at a time, a token at a time, by the plain model; the run was interrupted."""
    text = " ".join(row["question"] + " ".join(row["choices"]["text"]) for row in ARC)
    tokenizer = byte_level_tokenizer(f"Question: {text} Answer:", vocabulary=320)
    model = random_model(num_layers=1, vocab_size=len(tokenizer), dtype=torch.float32)
    for weight in (model.backbone.layers[0].mixer.out_proj.weight, model.lm_head.weight):
        weight.data.mul_(20)  # so that the answer depends on what is left
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    data = written(tmp_path / "arc", "test", ARC)
    command = ["arc", "--data", data, "--model", "model", "--methods", "mambalrp", "random", "--output", "out"]
    run(*command)
    progress = tmp_path / "out" / "questions" / "progress.jsonl"
    records, table = progress.read_bytes(), (tmp_path / "out" / "table.json").read_bytes()
    progress.write_bytes(records[: records.find(b"\n") + 1])
    (tmp_path / "out" / "table.json").unlink()
    run(*command)
    assert progress.read_bytes() == records
    assert (tmp_path / "out" / "table.json").read_bytes() == table

    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    explained = AutoMambaLRPForCausalLM.from_pretrained(tmp_path / "model")

    def answer_at(prompt, answers):
        """Number of the likeliest answer a character, and of the likeliest."""
        sums = []
        for answer in answers:
            read, logs = list(prompt), 0.0
            for token in tokenizer(f" {answer}")["input_ids"]:
                with torch.no_grad():
                    logs += plain(torch.tensor([read])).logits[0, -1].double().log_softmax(0)[token].item()
                read.append(token)
            sums.append(logs)
        by_length = [each / len(answer) for each, answer in zip(sums, answers, strict=True)]
        return by_length.index(max(by_length)), sums.index(max(sums))

    curves = {name: [] for name in ("acc_norm_most", "acc_norm_least", "acc_most", "acc_least")}
    for row in ARC:
        prompt, answers = f"Question: {row['question']}\nAnswer:", row["choices"]["text"]
        ids = tokenizer(prompt)["input_ids"]
        key = row["choices"]["label"].index(row["answerKey"])
        chosen, _ = answer_at(ids, answers)
        relevance = explained.explain(prompt, target=f" {answers[chosen]}").relevance[0, : len(ids)].tolist()
        for name, sign in (("most", -1), ("least", 1)):
            first = sorted(range(len(ids)), key=lambda place, sign=sign, of=relevance: sign * of[place])
            steps = []
            for tenth in range(11):
                gone = set(first[: int(len(ids) * tenth / 10 + 0.5)])
                left = [token for place, token in enumerate(ids) if place not in gone] or [tokenizer.eos_token_id]
                steps.append([found == key for found in answer_at(left, answers)])
            for measure, right in zip(("acc_norm", "acc"), zip(*steps, strict=True), strict=True):
                curves[f"{measure}_{name}"].append([float(each) for each in right])
    found, columns = json.loads(table), import_module("side_by_side").PUBLISHED["arc-easy"]["columns"]
    for name, of_questions in curves.items():
        means = [sum(step) / len(ARC) for step in zip(*of_questions, strict=True)]
        area = sum((a + b) / 2 for a, b in pairwise(means)) / 10
        assert found["rows"]["mambalrp"][name]["mean"] == pytest.approx(area)
        (steps,) = (of for caption, of in found["steps"].items() if caption.startswith(columns[name]))
        assert [stat["mean"] for stat in steps["mambalrp"].values()] == pytest.approx(means)
        assert list(steps["mambalrp"])[::5] == ["0 %", "50 %", "100 %"]
    assert len({tuple(map(tuple, of_questions)) for of_questions in curves.values()}) > 2  # orders and measures differ
    assert "no published number stands beside it" in (tmp_path / "out" / "side_by_side.md").read_text()
