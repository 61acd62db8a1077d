"""``evaluate_faithfulness`` on tiny models: against the model itself row by row, schema, seeds, errors."""

import itertools
import json

import pytest
import torch
from random_models import random_model
from small import KINDS, word_tokenizer
from tokenizers import normalizers
from transformers import MambaConfig

from hf_mambalrp import Evaluation, MambaForSequenceClassification, evaluate_faithfulness, make_explainable
from hf_mambalrp.calls.inputs import TokenizerSource
from hf_mambalrp.calls.subject import Subject
from hf_mambalrp.calls.targets import Outputs
from hf_mambalrp.errors import (
    InputError,
    MissingTokenizerError,
    OptionError,
    RowMemoryError,
    TargetError,
    UnknownArchitectureError,
)
from hf_mambalrp.evaluation.dataset import drawn
from hf_mambalrp.evaluation.dataset import read_examples as read
from hf_mambalrp.evaluation.outputs import ModelOutput
from hf_mambalrp.evaluation.perturbation import ZERO
from hf_mambalrp.families import FAMILIES, Network
from hf_mambalrp.runs.rows import Columns

TEXTS = ["a b c d e", "f g a", "h", "k a a i n o p l c c d"]
METHODS = ["mambalrp", "gradient_x_input", "random"]


def language_model(**options):
    return random_model(**{"num_layers": 1, "dtype": torch.float32, **options})


def classifier(**options):
    torch.manual_seed(0)
    config = {"vocab_size": 19, "hidden_size": 8, "num_hidden_layers": 2, "state_size": 4, "time_step_rank": 2}
    model = MambaForSequenceClassification(MambaConfig(**config, initializer_range=0.5, pad_token_id=0, **options))
    return model.eval()


def evaluate(model, dataset=TEXTS, **options):
    defaults = {"methods": METHODS, "tokenizer": word_tokenizer(), "resamples": 50, "progress": False}
    return evaluate_faithfulness(model, dataset, **{**defaults, **options})


@torch.no_grad()
def own_logits(model, row, replaced=()):
    """The model's own logits of one input alone; ``replaced`` positions have a zero embedding."""
    embeddings = model.get_input_embeddings()(torch.tensor([row]))
    embeddings[0, list(replaced)] = 0
    logits = model(inputs_embeds=embeddings, attention_mask=torch.ones(1, len(row), dtype=torch.long)).logits
    return logits[0, -1] if logits.ndim == 3 else logits[0]


def trapezoid(values):
    return sum((a + b) / 2 for a, b in itertools.pairwise(values)) / (len(values) - 1)


def slow_metrics(model, ids, relevance, target):
    """The definitions with a zero embedding for what is replaced, a forward an input; logits, and probabilities."""
    n = len(ids)
    morf = sorted(range(n), key=lambda i: -relevance[i])
    logit = lambda *args: own_logits(model, *args)[target].item()  # noqa: E731
    probability = lambda *args: own_logits(model, *args).softmax(-1)[target].item()  # noqa: E731

    def insertion(order):
        kept = [sorted(order[:k]) for k in range(1, n + 1)]
        return [logit([0], [0]), *(logit([ids[i] for i in places]) for places in kept)]

    flips = {name: [logit(ids, order[:k]) for k in range(n + 1)] for name, order in (("m", morf), ("l", morf[::-1]))}
    tops = [max(1, -(-n * percent // 100)) for percent in (1, 5, 10, 20, 50)]
    whole = probability(ids)
    return {
        "delta_flip": trapezoid(flips["l"]) - trapezoid(flips["m"]),
        "delta_insert": trapezoid(insertion(morf)) - trapezoid(insertion(morf[::-1])),
        "comprehensiveness": sum(whole - probability(ids, morf[:k]) for k in tops) / 5,
        "sufficiency": sum(whole - probability(ids, morf[k:]) for k in tops) / 5,
    }


@pytest.mark.parametrize("kind", ["mamba", "falcon_mamba", "mamba2", "classifier"])
def test_every_metric_is_the_slow_one_of_the_models_own_forward(kind):
    model = classifier(num_labels=3) if kind == "classifier" else language_model(**KINDS[kind])
    tokenizer = word_tokenizer()
    texts = [TEXTS[1], "h", "k a a i n"]
    results = evaluate(model, texts, replacement="zero").results
    explained = make_explainable(model)
    for row, text in enumerate(texts):
        ids = tokenizer(text)["input_ids"]
        target = int(own_logits(model, ids).argmax())
        assert results["examples"][row]["score"] == pytest.approx(own_logits(model, ids)[target].item(), abs=1e-5)
        for method in ("mambalrp", "gradient_x_input"):
            relevance = explained.explain(text, tokenizer=tokenizer, method=method).relevance[0].tolist()
            for metric, expected in slow_metrics(model, ids, relevance, target).items():
                assert results["methods"][method][metric]["values"][row] == pytest.approx(expected, abs=1e-5), metric


def test_the_results_are_complete_plain_and_stand_for_the_settings():
    results = evaluate(language_model(), TEXTS, seed=4, confidence=0.9, samples=3).results
    assert json.loads(json.dumps(results, allow_nan=False)) == results
    assert results["settings"] == {
        "methods": METHODS,
        "method_options": {},
        "measure": "logit",
        "replacement": "'<unk>' (id 1)",
        "insertion": "remove",
        "step": "auto",
        "target": None,
        "samples": 3,
        "confidence": 0.9,
        "resamples": 50,
        "seed": 4,
        "ceiling": 0,
    }
    assert set(results) == {
        "model",
        "weights",
        "versions",
        "settings",
        "examples",
        "skipped",
        "methods",
        "differences",
        "agreement",
    }
    assert [set(example) for example in results["examples"]] == [{"id", "tokens", "target", "score", "probability"}] * 3
    for name, found in results["methods"].items():
        for metric in ("delta_flip", "delta_insert", "comprehensiveness", "sufficiency"):
            stat = found[metric]
            assert stat["mean"] == pytest.approx(sum(stat["values"]) / 3)
            assert stat["low"] <= stat["mean"] <= stat["high"]
            if name == METHODS[0]:
                continue
            gaps = [
                a - b for a, b in zip(results["methods"]["mambalrp"][metric]["values"], stat["values"], strict=True)
            ]
            difference = results["differences"][metric][name]
            assert difference["mean"] == pytest.approx(sum(gaps) / 3)
            assert min(gaps) - 1e-9 <= difference["low"] <= difference["high"] <= max(gaps) + 1e-9
        curves = found["curves"]
        assert {len(curve) for curve in curves.values()} == {21}
        assert curves["flip_morf"][0] == pytest.approx(sum(e["score"] for e in results["examples"]) / 3)
        assert curves["flip_morf"][0] == curves["insert_lerf"][-1]
        assert curves["flip_morf"][-1] == curves["flip_lerf"][-1]
        assert curves["insert_morf"][0] == curves["insert_lerf"][0]
    assert list(results["differences"]["delta_flip"]) == METHODS[1:]
    assert results["agreement"]["methods"] == METHODS


def test_conservation_is_that_of_the_explanations():
    model, tokenizer = language_model(), word_tokenizer()
    results = evaluate(model).results
    explained = make_explainable(model)
    for row, text in enumerate(TEXTS):
        parts = explained.explain(text, tokenizer=tokenizer).conservation
        found = results["methods"]["mambalrp"]["conservation"]
        assert found["score"][row] == pytest.approx(parts.score.item(), abs=1e-5)
        assert found["relevance"][row] == parts.relevance.item()
        assert found["biases"][row] == parts.biases.item()
    ratios = sorted(r / s for r, s in zip(found["relevance"], found["score"], strict=True))
    assert found["median_ratio"] == pytest.approx((ratios[1] + ratios[2]) / 2)


def test_the_same_seed_gives_the_same_bytes_and_another_seed_another_random_order():
    model = language_model()
    first, again, other = (json.dumps(evaluate(model, seed=seed).results) for seed in (0, 0, 1))
    assert first == again
    values = [json.loads(run)["methods"]["random"]["delta_flip"]["values"] for run in (first, other)]
    assert values[0] != values[1]


def test_batch_tokens_change_nothing_but_rounding():
    model = language_model()
    one, default = (evaluate(model, batch_tokens=tokens).results["methods"] for tokens in (1, None))
    for name in METHODS:
        for metric in ("delta_flip", "delta_insert", "comprehensiveness"):
            assert one[name][metric]["values"] == pytest.approx(default[name][metric]["values"], abs=1e-5)


def test_probability_and_replacement_by_a_token_and_insertion_by_replacement():
    model, tokenizer = classifier(num_labels=2), word_tokenizer()
    found = evaluate(model, measure="probability", insertion="replace", replacement="b", target="LABEL_1").results
    assert found["settings"]["replacement"] == "'b' (id 3)"
    assert {example["target"] for example in found["examples"]} == {"LABEL_1"}
    for row, text in enumerate(TEXTS):
        ids = tokenizer(text)["input_ids"]
        chance = own_logits(model, ids).softmax(-1)[1].item()
        assert found["examples"][row]["probability"] == pytest.approx(chance, abs=1e-6)
    for name in METHODS:
        stats = found["methods"][name]
        assert stats["delta_insert"]["values"] == pytest.approx(stats["delta_flip"]["values"])
        empty = [own_logits(model, [3] * len(text.split())).softmax(-1)[1].item() for text in TEXTS]
        assert stats["curves"]["insert_morf"][0] == pytest.approx(sum(empty) / 4, abs=1e-6)


def test_special_tokens_stay():
    model = language_model()
    found = evaluate(model, ["a b <eos>", "c <eos> d e"]).results
    assert [example["tokens"] for example in found["examples"]] == [2, 3]
    alone = [
        own_logits(model, [18])[int(own_logits(model, ids).argmax())].item() for ids in ([2, 3, 18], [4, 18, 5, 6])
    ]
    assert found["methods"]["mambalrp"]["curves"]["insert_morf"][0] == pytest.approx(sum(alone) / 2, abs=1e-5)


def test_a_target_a_row_goes_with_its_row_also_in_a_sample():
    model = language_model()
    targets = ["c", 5, "e", 7]
    found = evaluate(model, TEXTS, target=targets, samples=2, seed=1).results["examples"]
    names = ["c", "d", "e", "f"]
    assert len(found) == 2
    assert [example["target"] for example in found] == [names[int(example["id"])] for example in found]


def test_outputs_of_many_rows_are_those_of_each_alone_in_the_models_own_precision_and_mode():
    model = language_model().train()
    rows = [(2, 3), (2, 3, 4), (5,), (ZERO, 3, 4), (2, 3), (ZERO,), (6, 7)]
    logits, probabilities = ModelOutput(Subject(model), 4)(rows, 4)
    assert model.training
    for row in rows:
        zeros = [place for place, token in enumerate(row) if token == ZERO]
        expected = own_logits(model.eval(), [max(token, 0) for token in row], zeros)
        assert logits[row] == pytest.approx(expected[4].item(), abs=1e-5)
        assert probabilities[row] == pytest.approx(expected.softmax(-1)[4].item(), abs=1e-6)


def test_independent_labels_have_a_sigmoid():
    model = classifier(num_labels=3, problem_type="multi_label_classification")
    logits, probabilities = ModelOutput(Subject(model), None)([(2, 3)], 1)
    assert probabilities[2, 3] == pytest.approx(torch.tensor(logits[2, 3]).sigmoid().item())


def test_a_gradient_context_of_the_caller_does_not_matter():
    model = language_model()
    with torch.inference_mode():
        inside = evaluate(model).results
    assert inside == evaluate(model).results
    assert all(parameter.grad is None for parameter in model.parameters())


def test_datasets_as_texts_mappings_and_files(tmp_path):
    network = Network(language_model(), FAMILIES)

    def read_examples(dataset):
        return read(dataset, Columns(), None, Outputs(network, TokenizerSource(None, network)))[0]

    rows = [{"id": "x", "text": " a b "}, {"text": "c", "label": 1}]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    (tmp_path / "rows.txt").write_text("a b\n\nc\n")
    named = read_examples(rows)
    assert [(e.index, e.id, e.text) for e in named] == [(0, "x", " a b "), (1, "1", "c")]
    assert read_examples(tmp_path / "rows.jsonl") == named
    lines = read_examples(str(tmp_path / "rows.txt"))
    assert [e.text for e in drawn(lines, 9, 0)] == ["a b", "c"]
    chosen = [[e.index for e in drawn(read_examples(list("abcdefgh")), 3, seed)] for seed in (0, 0, 1)]
    assert chosen[0] == chosen[1] == sorted(chosen[0]) != chosen[2]


@pytest.mark.parametrize(
    ("dataset", "words"),
    [
        ([], ["no rows"]),
        (["a", ""], ["Row 1", "is empty"]),
        (["a", " "], ["Row 1", "no tokens"]),
        ([{"text": "a"}, {"label": 1}], ["Row 1", "text"]),
        ([3], ["Row 0"]),
        ("missing.jsonl", ["missing.jsonl"]),
        (["a", "<eos>"], ["Row 1", "special"]),
        (["a", "\u200b"], ["Row 1"]),
    ],
)
def test_rows_that_cannot_be_explained_are_named(dataset, words):
    tokenizer = word_tokenizer()
    tokenizer.backend_tokenizer.normalizer = normalizers.Replace("\u200b", "")
    with pytest.raises(InputError) as error:
        evaluate(language_model(), dataset, tokenizer=tokenizer)
    for word in words:
        assert word in str(error.value)


def test_skipped_rows_are_recorded_and_the_others_evaluated_as_if_they_were_alone():
    rows = ["a b c", 7, "", "f g a", "<eos>", {"text": "h", "id": "x"}]
    found = evaluate(language_model(), rows, on_error="skip")
    assert [(one["index"], one["id"], one["error"].partition(":")[0]) for one in found.results["skipped"]] == [
        (1, "1", "InputError"), (2, "2", "InputError"), (4, "4", "InputError"),
    ]  # fmt: skip
    assert [example["id"] for example in found.results["examples"]] == ["0", "3", "x"]
    good = evaluate(language_model(), [rows[0], rows[3], rows[5]]).results
    assert good["methods"] == found.results["methods"]
    assert "skipped: 1 x InputError: The text is empty" in repr(found)
    assert {reason.rows for reason in found.reasons} == {1}
    with pytest.raises(InputError, match=r"None of 2 rows .* x InputError"):
        evaluate(language_model(), ["", "<eos>"], on_error="skip")


def test_a_sample_is_drawn_from_rows_that_can_be_read():
    found = evaluate(language_model(), ["", "a b", "", "c"], on_error="skip", samples=2).results
    assert [example["id"] for example in found["examples"]] == ["1", "3"]
    assert [record["index"] for record in found["skipped"]] == [0, 2]


def test_a_row_that_does_not_fit_into_memory_is_a_bad_row(monkeypatch):
    whole = ModelOutput.__call__

    def limited(self, rows, target):
        if max(map(len, rows)) > 5:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return whole(self, rows, target)

    monkeypatch.setattr(ModelOutput, "__call__", limited)
    with pytest.raises(RowMemoryError, match=r"Row 3 \(id '3'\): .*CUDA out of memory"):
        evaluate(language_model())
    (skipped,) = evaluate(language_model(), on_error="skip").results["skipped"]
    assert skipped["error"].startswith("RowMemoryError")


def test_a_line_that_is_no_json_is_named(tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"text": "a"}\n{"text": \n')
    with pytest.raises(InputError, match="Row 1"):
        evaluate(language_model(), tmp_path / "rows.jsonl")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("rows.csv", b"id,review\n1,a b\n", r"has no \['text'\]; its columns are \['id', 'review'\]"),
        ("rows.JSON", b'[{"text": "a"}]', "has the ending '.JSON'"),
        ("rows.txt", b"a\ncaf\xe9\n", r"Row 1 \(id '1'\).* is not UTF-8: byte 5 of the file is 0xe9"),
        ("rows.jsonl", b'{"text": "caf\xe9"}\n', "Row 0 .* is not UTF-8: byte 13"),
    ],
)
def test_files_that_are_not_texts_are_named(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=words):
        evaluate(language_model(), tmp_path / name)


@pytest.mark.parametrize(("name", "line"), [("rows.txt", "a b"), ("rows.jsonl", '{"text": "a b"}')])
def test_a_byte_order_mark_is_no_text(tmp_path, name, line):
    (tmp_path / name).write_text(f"{line}\n", encoding="utf-8-sig")
    network = Network(language_model(), FAMILIES)
    examples, _ = read(tmp_path / name, Columns(), None, Outputs(network, TokenizerSource(None, network)))
    assert [example.text for example in examples] == ["a b"]


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"methods": []}, OptionError, "methods"),
        ({"methods": "mambalrp"}, OptionError, "'mambalrp'"),
        ({"methods": ["mambalrp", "mambalrp"]}, OptionError, "different"),
        ({"methods": ["lime"]}, OptionError, "lime"),
        ({"method_options": {"random": {"sed": 1}}}, OptionError, "sed"),
        ({"method_options": {"smoothgrad": {}}}, OptionError, "smoothgrad"),
        ({"method_options": {"random": {"seed": torch.ones(1)}}}, OptionError, "plain values"),
        ({"measure": "loss"}, OptionError, "'loss'"),
        ({"insertion": "add"}, OptionError, "'add'"),
        ({"step": 0}, OptionError, "step=0"),
        ({"step": 1.5}, OptionError, "step=1.5"),
        ({"step": True}, OptionError, "step=True"),
        ({"confidence": 95}, OptionError, "confidence=95"),
        ({"resamples": 0}, OptionError, "resamples=0"),
        ({"samples": 0}, OptionError, "samples=0"),
        ({"seed": -1}, OptionError, "seed=-1"),
        ({"batch_tokens": 0}, OptionError, "batch_tokens=0"),
        ({"processes": True}, OptionError, "processes=True"),
        ({"on_error": "ignore"}, OptionError, "'ignore'"),
        ({"replacement": "a b"}, OptionError, "2 tokens"),
        ({"replacement": 19}, OptionError, "0..18"),
        ({"replacement": None}, OptionError, "None"),
        ({"target": "a b"}, TargetError, "several tokens"),
        ({"target": [1, 2]}, TargetError, "2 entries"),
        ({"target": torch.argmax}, TargetError, "function"),
        ({"tokenizer": None}, MissingTokenizerError, "tokenizer"),
    ],
)
def test_what_is_not_allowed_is_said(options, error, words):
    with pytest.raises(error) as caught:
        evaluate(language_model(), **options)
    assert words in str(caught.value)


def test_a_regression_model_is_refused():
    with pytest.raises(UnknownArchitectureError, match="regression"):
        evaluate(classifier(num_labels=1))


def test_an_evaluation_prints_saves_and_loads(tmp_path):
    evaluation = evaluate(language_model())
    printed = repr(evaluation)
    for words in (*METHODS, "4 examples", "replacement '<unk>' (id 1)", "95%"):
        assert words in printed
    assert max(map(len, printed.splitlines())) <= 120
    evaluation.save(tmp_path / "results.json")
    assert Evaluation.load(tmp_path / "results.json") == evaluation
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]
    assert evaluation.to_html().startswith("<!DOCTYPE html>")
    assert "mambalrp" in evaluation.to_markdown(tmp_path / "report.md")
    assert (tmp_path / "report.md").read_text() == evaluation.to_markdown()


@pytest.mark.parametrize("content", [None, "{", "[]", "{}"])
def test_loading_something_else_is_an_error(tmp_path, content):
    if content is not None:
        (tmp_path / "results.json").write_text(content)
    with pytest.raises(InputError, match=r"results\.json"):
        Evaluation.load(tmp_path / "results.json")
    with pytest.raises(InputError, match=r"none\.json' cannot be read: No such file or directory\. Give the file of"):
        Evaluation.load(tmp_path / "none.json")
