"""The training script of the synthetic tasks: its forward, what it writes, and that it refuses a bad model."""

import dataclasses
import json
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from hf_mambalrp import Mamba2LRPForCausalLM, MambaLRPForCausalLM
from hf_mambalrp.evaluation.tasks import BOS, KEY, PAD, SEP

EXAMPLE = Path(__file__).parents[1] / "examples" / "training"
CLASSES = {"mamba": MambaLRPForCausalLM, "mamba2": Mamba2LRPForCausalLM}
SMALL = ["--steps", "2", "--batch-size", "4", "--samples", "4", "--hidden-size", "16", "--layers", "1"]


@pytest.fixture(scope="module", autouse=True)
def example_modules():
    """The example's files import each other by bare names, as a script's neighbours do."""
    names = [path.stem for path in EXAMPLE.glob("*.py")]
    sys.path.insert(0, str(EXAMPLE))
    yield
    sys.path.remove(str(EXAMPLE))
    for name in names:
        sys.modules.pop(name, None)


def run(task, family, folder, *more):
    import train_tasks

    return train_tasks.main(["--task", task, "--family", family, "--output", str(folder), *SMALL, *more])


@pytest.mark.parametrize("family", CLASSES)
@pytest.mark.parametrize("length", [1, 3, 70])
def test_fast_logits_and_gradients_are_the_stock_model_s(family, length):
    from task_models import build_model, logits_at

    torch.manual_seed(0)
    model = build_model(family, 12, 16, 2).double().eval()
    ids = torch.randint(12, (3, length))
    positions = torch.randint(length, (3, 2))
    fast = logits_at(model, ids, positions)
    stock = model(ids, use_cache=False).logits.gather(1, positions[..., None].expand(-1, -1, 12))
    torch.testing.assert_close(fast, stock.to(fast.dtype), rtol=1e-4, atol=1e-5)
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    for ours, theirs in zip(
        torch.autograd.grad(fast.sin().sum(), weights), torch.autograd.grad(stock.sin().sum(), weights), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("family", CLASSES)
@pytest.mark.parametrize("task", ["copying", "recall", "needle"])
def test_what_training_writes_loads_and_is_explained(task, family, tmp_path):
    import train_tasks

    assert run(task, family, tmp_path, "--min-accuracy", "0") == 0
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    assert config["architectures"] == [{"mamba": "MambaForCausalLM", "mamba2": "Mamba2ForCausalLM"}[family]]
    assert "auto_map" not in config
    _, info = AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]

    model = CLASSES[family].from_pretrained(tmp_path)
    batch = train_tasks.TASKS[task].draw(2, 5, config["vocab_size"], 0)
    explained = model.explain(input_ids=batch.input_ids, position=batch.positions[:, 0], target=batch.targets[:, 0])
    assert explained.relevance.shape == batch.input_ids.shape
    assert torch.isfinite(explained.relevance).all()
    assert explained.relevance.abs().sum() > 0

    report = json.loads((tmp_path / "training.json").read_text(encoding="utf-8"))
    assert 0 <= report["accuracy"] <= 1
    assert len(report["accuracy by size"]) == 3
    # The card's own example runs.
    card = (tmp_path / "README.md").read_text(encoding="utf-8")
    prompt = card.split('model.explain("')[1].split('")')[0]
    explained = model.explain(prompt)
    assert explained.tokens[0] == prompt.split()
    assert train_tasks.TASKS[task].size_is in card


def test_tokenizer_names_the_ids_of_the_tasks(tmp_path):
    run("needle", "mamba", tmp_path, "--min-accuracy", "0")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert tokenizer("<pad> <bos> <sep> <key> x1 x16")["input_ids"] == [PAD, BOS, SEP, KEY, 4, 19]
    assert len(tokenizer) == 20
    assert (tokenizer.pad_token_id, tokenizer.bos_token_id) == (PAD, BOS)
    assert json.loads((tmp_path / "tokenizer_config.json").read_text())["tokenizer_class"] == "PreTrainedTokenizerFast"


def test_a_bad_model_is_not_saved(tmp_path, capsys):
    folder = tmp_path / "model"
    assert run("copying", "mamba", folder) == 1
    assert not folder.exists()
    message = capsys.readouterr().err
    assert "is below --min-accuracy 0.99" in message
    assert "more --steps" in message


def test_equal_seeds_train_equal_models(tmp_path):
    weights = []
    for name, seed in (("first", "3"), ("again", "3"), ("other", "4")):
        run("copying", "mamba2", tmp_path / name, "--min-accuracy", "0", "--seed", seed)
        weights.append((tmp_path / name / "model.safetensors").read_bytes())
    assert weights[0] == weights[1] != weights[2]


def test_held_out_accuracy_counts_right_tokens_of_each_output(monkeypatch):
    import train_tasks

    task = train_tasks.TASKS["copying"]

    def knows_all_but_the_second(model, input_ids, positions):
        right = input_ids.gather(1, positions + 1)
        right[:, 1] = PAD
        return torch.nn.functional.one_hot(right, task.vocabulary).double()

    monkeypatch.setattr(train_tasks, "logits_at", knows_all_but_the_second)
    assert train_tasks.held_out_accuracy(None, task, 3, "cpu", 250).tolist() == [1, 0, 1]
    report = train_tasks.evaluate(None, task, "cpu", 250)
    assert report["accuracy"] == round(11 / 12, 5)
    assert report["accuracy by size"] == {"6": round(5 / 6, 5), "12": round(11 / 12, 5), "24": round(23 / 24, 5)}


def test_held_out_sequences_are_not_those_of_training(monkeypatch):
    import train_tasks

    seeds = []
    task = train_tasks.TASKS["copying"]

    def recorded(n, size, vocabulary, seed):
        seeds.append(seed)
        return task.draw(n, size, vocabulary, seed)

    spy = dataclasses.replace(task, draw=recorded)
    from task_models import build_model

    model = build_model("mamba", task.vocabulary, 16, 1)
    train_tasks.train(model, spy, steps=3, batch_size=2, lr=1e-3, seed=7, device="cpu")
    drawn_in_training = set(seeds)
    assert len(drawn_in_training) == 3
    seeds.clear()
    train_tasks.evaluate(model, spy, "cpu", 2)
    assert not drawn_in_training & set(seeds)
