"""Every container of integers is the same input; what stands on padding is never read."""

import array

import numpy as np
import pandas as pd
import pytest
import torch
from random_models import random_model
from small import word_tokenizer

from hf_mambalrp import MambaForSequenceClassification, make_explainable
from hf_mambalrp.calls.inputs import TokenizedBatch, integers, tokenize
from hf_mambalrp.errors import InputError, OptionError, TargetError

IDS = torch.tensor([[2, 3, 4, 5], [6, 7, 8, 9]])
MASK = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
UNSIGNED = ["uint8", "uint16", "uint32", "uint64"]
LARGEST = 2**64 - 1
"""-1 where its bits are read as a signed number."""


@pytest.fixture(scope="module")
def model():
    return make_explainable(random_model(num_layers=2, dtype=torch.float32))


@pytest.fixture(scope="module")
def expected(model):
    return model.explain(IDS, attention_mask=MASK)


def read_only(values):
    values = values.copy()
    values.flags.writeable = False
    return values


def mapped(values, folder, dtype):
    path = folder / f"{len([*folder.iterdir()])}.bin"
    values.astype(dtype).tofile(path)
    return np.memmap(path, dtype=dtype, mode="r", shape=values.shape)


CONTAINERS = {
    **{f"{kind} array": lambda x, _, kind=kind: x.numpy().astype(kind) for kind in [*UNSIGNED, "int8", "int16"]},
    **{f"{kind} tensor": lambda x, _, kind=kind: x.to(getattr(torch, kind)) for kind in [*UNSIGNED, "int16"]},
    **{f"{kind} memory map": lambda x, folder, kind=kind: mapped(x.numpy(), folder, kind) for kind in UNSIGNED},
    "another byte order": lambda x, _: x.numpy().astype(">i4"),
    "unsigned of another byte order": lambda x, _: x.numpy().astype(">u2"),
    "read-only": lambda x, _: read_only(x.numpy()),
    "not contiguous": lambda x, _: np.repeat(x.numpy(), 2, -1)[..., ::2],
    "backwards": lambda x, _: x.numpy()[..., ::-1].copy()[..., ::-1],
    "lists": lambda x, _: x.tolist(),
    "numbers of numpy in lists": lambda x, _: [list(row) if x.ndim > 1 else row for row in x.numpy().astype("uint16")],
    "arrays in a list": lambda x, _: list(x.numpy().astype("uint32")),
    "tensors in a list": lambda x, _: list(x),
    "column of rows": lambda x, _: pd.Series(list(x.numpy())).tolist(),
    "buffers": lambda x, _: (
        [array.array("H", row) for row in x.tolist()] if x.ndim > 1 else array.array("H", x.tolist())
    ),
}


@pytest.mark.parametrize("kind", CONTAINERS)
def test_ids_mask_positions_and_targets_in_every_container(model, expected, tmp_path, kind):
    def of(values):
        return CONTAINERS[kind](values, tmp_path)

    for found in (
        model.explain(of(IDS), attention_mask=of(MASK)),
        model.explain(input_ids=of(IDS), attention_mask=MASK),
    ):
        assert found.input_ids.dtype == torch.int64
        assert torch.equal(found.input_ids, IDS)
        assert torch.equal(found.relevance, expected.relevance)
    encoded = {"input_ids": of(IDS), "attention_mask": of(MASK)}
    assert torch.equal(model.explain(encoded).relevance, expected.relevance)
    position, target = torch.tensor([2, 0]), torch.tensor([5, 18])
    placed = model.explain(IDS, attention_mask=MASK, position=of(position), target=of(target), contrast=of(target - 1))
    assert (placed.position.tolist(), placed.target, placed.contrast) == ([2, 0], [5, 18], [4, 17])
    rows = model.hidden_attention(of(IDS), positions=of(torch.tensor([0, 3])), layers=of(torch.tensor([1])))
    assert torch.equal(rows.matrix, model.hidden_attention(IDS, positions=[0, 3], layers=[1]).matrix)
    written = model.explain_generation(of(IDS), attention_mask=of(MASK), max_new_tokens=of(torch.tensor([2]))[0])
    assert torch.equal(
        written.relevance, model.explain_generation(IDS, attention_mask=MASK, max_new_tokens=2).relevance
    )


@pytest.mark.parametrize(
    "number", [np.uint16(2), np.array(2), np.array(2, dtype=">u4"), torch.tensor(2).to(torch.uint16)]
)
def test_single_numbers_of_every_kind(model, number):
    found = model.explain(IDS, position=number, target=number)
    assert (found.position.tolist(), found.target) == ([2, 2], [2, 2])
    assert torch.equal(
        model.hidden_attention(IDS, positions=number, layers=[-1]).matrix,
        model.hidden_attention(IDS, positions=2, layers=-1).matrix,
    )


def test_one_row_of_numbers_in_a_list(model):
    for row in ([np.uint16(2), np.uint16(3)], [torch.tensor(2), torch.tensor(3)]):
        assert model.explain(row).input_ids.tolist() == [[2, 3]]


@pytest.mark.parametrize("values", [np.array([[1, LARGEST]], dtype=np.uint64), [[1, LARGEST]]])
def test_numbers_beyond_int64_do_not_wrap(model, values):
    with pytest.raises(InputError, match=r"\[0, 1\] is \d+, outside|float64"):  # numpy reads such a list as floats
        model.explain(values)
    for position in (values[0], torch.from_numpy(np.asarray(values[0], dtype=np.uint64))):
        with pytest.raises(InputError, match="position="):
            model.explain(IDS, position=position)
    with pytest.raises(OptionError, match="positions="):
        model.hidden_attention(IDS, positions=values[0])
    with pytest.raises(TargetError, match="target"):
        model.explain(IDS, target=values[0])


@pytest.mark.parametrize("value", [[True, False], [1.0, 2.0], "12", None, [None], [[1], [2, 3]], 1j, [2**70], {"a": 1}])
def test_what_are_no_integers(value):
    assert integers(value) is None


@pytest.mark.parametrize(
    "values", [[[2**70, 1]], [["a", "b"]], pd.Series([1, None], dtype="Int64").to_frame().to_numpy()]
)
def test_ids_that_are_no_numbers(model, values):
    with pytest.raises(InputError, match="input_ids"):
        model.explain(input_ids=values)


class TestPadding:
    @pytest.mark.parametrize("filler", [-100, -1, 19, 10**9, LARGEST])
    @pytest.mark.parametrize("side", ["left", "right"])
    def test_whatever_stands_on_padding_is_not_read(self, model, filler, side):
        real = IDS[1, :2]
        columns = slice(2, 4) if side == "left" else slice(0, 2)
        ids, mask = IDS.numpy().astype(np.uint64 if filler == LARGEST else np.int64), torch.ones_like(IDS)
        mask[1], mask[1, columns], ids[1], ids[1, columns] = 0, 1, filler, real
        options = {"attention_mask": mask, "tokenizer": word_tokenizer()}
        alone = model.explain(real[None])
        found = model.explain(ids, target=alone.target[0], **options)
        assert torch.equal(found.input_ids[1, columns], real)
        assert torch.allclose(found.relevance[1, columns], alone.relevance[0], atol=1e-6)
        assert (found.relevance[1][mask[1] == 0] == 0).all()
        assert found.score[1] == pytest.approx(float(alone.score[0]), abs=1e-5)
        str(found), found.to_html(), found.to_json()
        model.hidden_attention(ids, **options)
        model.explain(ids, method="occlusion", **options)
        written = model.explain_generation(ids, max_new_tokens=2, **options)
        alone = model.explain_generation(real[None], max_new_tokens=2)
        assert written.input_ids[1, written.attention_mask[1] != 0].tolist() == alone.input_ids[0].tolist()

    def test_a_real_id_outside_the_vocabulary_stays_an_error(self, model):
        with pytest.raises(InputError, match=r"\[0, 1\] is -100, outside the vocabulary 0\.\.18"):
            model.explain(torch.tensor([[1, -100, -100]]), attention_mask=torch.tensor([[1, 1, 0]]))
        with pytest.raises(InputError, match="-100"):
            model.explain(torch.tensor([[1, -100]]))

    def test_a_pad_token_that_the_embedding_does_not_have(self, model):
        tokenizer = word_tokenizer(pad_token="[PAD]")  # added, and the model not resized
        assert tokenizer.pad_token_id == 19
        texts = ["a b c d", "e f"]
        found = model.explain(texts, tokenizer=tokenizer, target="g")
        again = model.explain(**tokenizer(texts, padding=True, return_tensors="pt"), tokenizer=tokenizer, target="g")
        assert torch.equal(found.relevance, again.relevance)
        for row, text in enumerate(texts):
            alone = model.explain(text, tokenizer=tokenizer, target="g")
            length = alone.relevance.shape[1]
            assert torch.allclose(found.relevance[row, :length], alone.relevance[0], atol=1e-6)
            assert (found.relevance[row, length:] == 0).all()
        assert model.explain_generation(texts, tokenizer=tokenizer, max_new_tokens=2).score.shape == (2, 2)
        assert model.hidden_attention(texts, tokenizer=tokenizer).matrix.shape == (2, 2, 4, 4)

    def test_of_a_classifier(self):
        config = random_model(num_layers=1).config
        config.num_labels, config.pad_token_id = 2, 0
        model = make_explainable(MambaForSequenceClassification(config))
        tokenizer = word_tokenizer(pad_token="[PAD]")
        found, alone = (model.explain(texts, tokenizer=tokenizer, target=1) for texts in (["a b c d", "e f"], "e f"))
        assert torch.allclose(found.relevance[1, :2], alone.relevance[0], atol=1e-6)

    @pytest.mark.parametrize("filler", [float("nan"), float("inf"), 1e30])
    def test_of_embeddings(self, model, filler):
        embeds = model.get_input_embeddings()(IDS).detach()
        expected = model.explain(inputs_embeds=embeds, attention_mask=MASK)
        embeds[MASK == 0] = filler
        before = embeds.clone()
        found = model.explain(inputs_embeds=embeds, attention_mask=MASK)
        assert torch.equal(found.relevance, expected.relevance)
        assert torch.equal(embeds.nan_to_num(), before.nan_to_num())


def test_texts_that_are_tokenized_already_are_the_texts(model):
    texts, tokenizer = ["good film", "a bad film , not good"], word_tokenizer()
    expected = model.explain(texts, tokenizer=tokenizer)
    found = model.explain(TokenizedBatch(tokenize(texts, tokenizer)), tokenizer=tokenizer)
    assert torch.equal(found.relevance, expected.relevance)
    assert (found.tokens, found.texts, found.offsets) == (expected.tokens, expected.texts, expected.offsets)
