"""``MambaForSequenceClassification``: pooling, losses, AutoModel, Trainer, pipeline, checkpointing, resizing."""

import logging

import pytest
import torch
from random_models import random_model
from small import KINDS, word_tokenizer
from transformers import AutoModelForSequenceClassification, MambaConfig, Trainer, TrainingArguments, pipeline

from hf_mambalrp import MambaForSequenceClassification, make_explainable
from hf_mambalrp.models.classification import CLASSIFIERS


def classifier(**options):
    torch.manual_seed(0)
    settings = {"vocab_size": 19, "hidden_size": 16, "num_hidden_layers": 2, "num_labels": 3, "pad_token_id": 0}
    return MambaForSequenceClassification(MambaConfig(**{**settings, **options})).eval()


def pooled_by_hand(model, ids, mask, positions):
    with torch.no_grad():
        hidden = model.backbone(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
        return torch.stack([hidden[row, position] for row, position in enumerate(positions)]) @ model.score.weight.T


@pytest.mark.parametrize(
    ("mask", "positions"),
    [
        ([[1, 1, 1, 1], [1, 1, 0, 0]], [3, 1]),
        ([[1, 1, 1, 1], [0, 0, 1, 1]], [3, 3]),
        ([[0, 1, 1, 0], [1, 0, 1, 0]], [2, 2]),
    ],
)
def test_the_rightmost_attended_token_is_pooled(mask, positions):
    model, mask = classifier(), torch.tensor(mask)
    ids = torch.tensor([[3, 4, 0, 6], [7, 0, 0, 8]])  # the pad id inside the text is a token like any other
    with torch.no_grad():
        logits = model(ids, attention_mask=mask).logits
        embeddings = model.get_input_embeddings()(ids)
        by_embeddings = model(inputs_embeds=embeddings, attention_mask=mask).logits
    torch.testing.assert_close(logits, pooled_by_hand(model, ids, mask, positions))
    torch.testing.assert_close(by_embeddings, logits)


def test_without_a_mask_the_rightmost_token_that_is_not_padding_is_pooled():
    model, ids = classifier(), torch.tensor([[3, 4, 0, 0], [0, 0, 7, 8]])
    with torch.no_grad():
        logits = model(ids).logits
    torch.testing.assert_close(logits, pooled_by_hand(model, ids, None, [1, 3]))


def test_padding_sides_agree():
    model = classifier()
    right, left = torch.tensor([[3, 4, 5, 0, 0]]), torch.tensor([[0, 0, 3, 4, 5]])
    with torch.no_grad():
        alone = model(torch.tensor([[3, 4, 5]])).logits
        torch.testing.assert_close(model(right, attention_mask=(right != 0).long()).logits, alone)
        torch.testing.assert_close(model(left, attention_mask=(left != 0).long()).logits, alone)


def test_a_batch_without_mask_and_pad_id_is_an_error():
    ids = torch.tensor([[3, 4], [5, 6]])
    model = classifier(pad_token_id=None)
    with pytest.raises(ValueError, match=r"2 rows.*pad_token_id is None.*attention_mask"):
        model(ids)
    with pytest.raises(ValueError, match=r"2 rows.*pad_token_id is None"):
        model(inputs_embeds=torch.zeros(2, 3, 16))
    with torch.no_grad():
        torch.testing.assert_close(model(ids[:1]).logits, pooled_by_hand(model, ids[:1], None, [1]))


@pytest.mark.parametrize(
    ("options", "labels", "loss", "problem_type"),
    [
        ({}, torch.tensor([2, 0]), torch.nn.functional.cross_entropy, "single_label_classification"),
        (
            {},
            torch.tensor([[0.0, 1, 1], [1, 0, 0]]),
            torch.nn.functional.binary_cross_entropy_with_logits,
            "multi_label_classification",
        ),
        ({"num_labels": 1}, torch.tensor([0.5, -2.0]), lambda x, y: ((x[:, 0] - y) ** 2).mean(), "regression"),
        ({"problem_type": "regression"}, torch.ones(2, 3), lambda x, y: ((x - y) ** 2).mean(), "regression"),
    ],
)
def test_the_loss_of_every_problem_type(options, labels, loss, problem_type):
    model = classifier(**options)
    output = model(torch.tensor([[3, 4, 0], [5, 6, 7]]), labels=labels)
    torch.testing.assert_close(output.loss, loss(output.logits, labels))
    assert model.config.problem_type == problem_type


def test_tuples_and_hidden_states():
    model, ids = classifier(), torch.tensor([[3, 4, 5]])
    output = model(ids, labels=torch.tensor([1]), output_hidden_states=True)
    loss, logits, hidden = model(ids, labels=torch.tensor([1]), output_hidden_states=True, return_dict=False)
    assert torch.equal(loss, output.loss)
    assert torch.equal(logits, output.logits)
    assert len(hidden) == len(output.hidden_states) == 3
    assert set(output) == {"loss", "logits", "hidden_states"}


def test_embeddings_without_a_mask_are_full_rows(logged):
    """transformers' own classifiers read the last position too, and warn."""
    model, ids = classifier(), torch.tensor([[3, 4, 5], [6, 7, 8]])
    embeddings = model.get_input_embeddings()(ids).detach()
    logging.Logger.warning_once.cache_clear()  # transformers says a thing once a process
    with torch.no_grad():
        logits = model(inputs_embeds=embeddings).logits
    torch.testing.assert_close(logits, pooled_by_hand(model, ids, None, [2, 2]))
    assert "last position of every row" in logged.getvalue()
    explanation = make_explainable(model).explain(inputs_embeds=embeddings, target=[2, 0])
    torch.testing.assert_close(explanation.score, logits[[0, 1], [2, 0]], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["mamba", "falcon_mamba", "mamba2"])
def test_arguments_that_transformers_own_classifiers_take_change_nothing(kind):
    model, ids = of_kind(kind), torch.tensor([[3, 4, 5]])
    extra = {
        "attention_mask": torch.ones_like(ids),
        "position_ids": torch.arange(3)[None],
        "past_key_values": None,
        "cache_params": None,
        "use_cache": False,
        "return_dict": True,
        "output_attentions": True,
        "token_type_ids": torch.zeros_like(ids),
        "cache_position": None,
        "logits_to_keep": 1,
        "num_items_in_batch": 1,
    }
    with torch.no_grad():
        expected = model(ids).logits
        assert torch.equal(model(ids, **extra).logits, expected)
        with_cache = model(ids, use_cache=True)
    assert torch.equal(with_cache.logits, expected)
    assert set(with_cache) == {"logits"}


@pytest.mark.parametrize("kind", ["mamba", "falcon_mamba", "mamba2"])
def test_a_cache_of_what_came_before_is_read(kind):
    model, ids = of_kind(kind), torch.tensor([[3, 4, 5, 6, 7], [8, 9, 3, 2, 4]])
    with torch.no_grad():
        before = model.backbone(ids[:, :4], use_cache=True)
        name = "cache" if "cache" in before else "cache_params"
        after = model(ids[:, 4:], **{name: before[name]}, cache_position=torch.tensor([4]))
        torch.testing.assert_close(after.logits, model(ids).logits)


def of_kind(kind):
    config = random_model(num_layers=2, dtype=torch.float32, **KINDS[kind]).config
    torch.manual_seed(0)
    return next(found for found in CLASSIFIERS if found.config_class is type(config))(config).eval()


def quantisable(module):
    module.qconfig = torch.ao.quantization.default_dynamic_qconfig
    return module


def test_a_quantised_head_casts_by_itself():
    from torch.ao.nn.quantized.dynamic import Linear

    model, ids = classifier(), torch.tensor([[3, 4, 5]])
    model.score.weight.data.fill_(1.0)
    expected = model(ids).logits.detach()
    model.score = Linear.from_float(quantisable(model.score))
    assert callable(model.score.weight)
    torch.testing.assert_close(model(ids).logits, expected, rtol=0.05, atol=0.1)


def test_auto_model_finds_the_class_and_the_labels(tmp_path):
    model = classifier(id2label={0: "bad", 1: "fair", 2: "good"}, label2id={"bad": 0, "fair": 1, "good": 2})
    model.save_pretrained(tmp_path)
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert type(loaded) is MambaForSequenceClassification
    assert loaded.config.id2label == {0: "bad", 1: "fair", 2: "good"}
    ids = torch.tensor([[3, 4, 5]])
    assert torch.equal(loaded.eval()(ids).logits, model(ids).logits)
    word_tokenizer().save_pretrained(tmp_path)
    (answer,) = pipeline("text-classification", model=str(tmp_path), device="cpu")("a b c")
    with torch.no_grad():
        probability = model(torch.tensor([[2, 3, 4]])).logits.softmax(-1)[0]
    assert answer["label"] == model.config.id2label[int(probability.argmax())]
    assert answer["score"] == pytest.approx(float(probability.max()), abs=1e-5)


def test_resizing_the_vocabulary():
    model = classifier()
    ids = torch.tensor([[3, 4, 5]])
    before = model(ids).logits
    model.resize_token_embeddings(25)
    assert model.config.vocab_size == 25
    assert model.get_input_embeddings().weight.shape == (25, 16)
    assert torch.equal(model(ids).logits, before)
    assert model(torch.tensor([[24]])).logits.shape == (1, 3)


def test_gradient_checkpointing_gives_the_same_gradients():
    ids, labels = torch.tensor([[3, 4, 5], [6, 7, 0]]), torch.tensor([1, 2])
    gradients = []
    for checkpointing in (False, True):
        model = classifier().train()
        if checkpointing:
            # transformers 5.23 calls activation_checkpointing_enable what was gradient_checkpointing_enable
            getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)()
            assert model.backbone.gradient_checkpointing
        model(ids, labels=labels).loss.backward()
        gradients.append(model.backbone.embeddings.weight.grad)
    torch.testing.assert_close(gradients[1], gradients[0])


def test_trainer_trains_evaluates_and_predicts(tmp_path):
    """Rows with token 3 are class 1: a rule the model learns, with rows of different lengths in a batch."""
    tokenizer = word_tokenizer()
    generator = torch.Generator().manual_seed(0)
    rows = []
    for index in range(64):
        ids = torch.randint(4, 18, (2 + index % 5,), generator=generator)
        if index % 2:
            ids[int(torch.randint(len(ids), (1,), generator=generator))] = 3
        rows.append({"input_ids": ids.tolist(), "attention_mask": [1] * len(ids), "labels": index % 2})
    arguments = TrainingArguments(
        output_dir=tmp_path,
        num_train_epochs=12,
        per_device_train_batch_size=8,
        gradient_accumulation_steps=2,
        learning_rate=1e-2,
        report_to=[],
        save_strategy="no",
        eval_strategy="epoch",
        use_cpu=True,
        seed=0,
        disable_tqdm=True,
        dataloader_pin_memory=False,
        logging_strategy="no",
    )
    trainer = Trainer(
        model=classifier(num_labels=2),
        args=arguments,
        train_dataset=rows,
        eval_dataset=rows,
        processing_class=tokenizer,
        compute_metrics=lambda prediction: {
            "accuracy": float((prediction.predictions.argmax(-1) == prediction.label_ids).mean())
        },
    )
    before = trainer.evaluate()
    trainer.train()
    after = trainer.evaluate()
    assert after["eval_loss"] < before["eval_loss"] / 2
    assert after["eval_accuracy"] > 0.9
    predicted = trainer.predict(rows)
    assert predicted.predictions.shape == (64, 2)
