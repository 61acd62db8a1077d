"""``explain_generation``: a row of a batch is the row alone, however its end is decided; options work or say why."""

import copy
import io
from contextlib import redirect_stdout

import pytest
import torch
from random_models import random_model
from small import KINDS, byte_level_tokenizer, word_tokenizer
from transformers import (
    EosTokenCriteria,
    GenerationConfig,
    LogitsProcessor,
    MaxLengthCriteria,
    StoppingCriteria,
    StoppingCriteriaList,
    TextStreamer,
)

from hf_mambalrp import make_explainable
from hf_mambalrp.errors import InputError, MissingTokenizerError, OptionError, TargetError

TEXTS = ["a b c d", "e f", "g h i", "k l"]
"""Two of one length, and longer ones."""


@pytest.fixture(scope="module")
def model():
    return make_explainable(random_model(num_layers=2, dtype=torch.float32))


@pytest.fixture(scope="module")
def tokenizer():
    return word_tokenizer()


@pytest.fixture(scope="module")
def end(model, tokenizer):
    """A token at which one row ends third and others do not."""
    free = model.explain_generation(TEXTS, tokenizer=tokenizer, max_new_tokens=8, eos_token_id=None)
    return int(free.input_ids[1, free.prompt_length + 2])


def close(found, expected):
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-5), (found - expected).abs().max()


def assert_rows_are_rows_alone(model, tokenizer, **options):
    """Returns how many tokens each row has."""
    together = model.explain_generation(TEXTS, tokenizer=tokenizer, **options)
    steps = []
    for row, text in enumerate(TEXTS):
        alone = model.explain_generation(text, tokenizer=tokenizer, **options)
        real = together.attention_mask[row] != 0
        assert together.input_ids[row, real].tolist() == alone.input_ids[0].tolist()
        count = alone.score.shape[1]
        assert together.generated(row) == list(range(count))
        close(together.score[row, :count], alone.score[0])
        close(together.probability[row, :count], alone.probability[0])
        close(together.relevance[row, :count][:, real], alone.relevance[0])
        assert together.score[row, count:].eq(0).all()
        assert together.probability[row, count:].eq(0).all()
        assert together.relevance[row, count:].eq(0).all()
        steps.append(count)
    return steps


class LastIs(StoppingCriteria):
    """As many are written: for one row, with a bool for all."""

    def __init__(self, token):
        self.token = token

    def __call__(self, input_ids, scores, **kwargs):
        return bool(input_ids[0, -1] == self.token)


class Unchanged(LogitsProcessor):
    def __call__(self, input_ids, scores):
        return scores


ENDS = {
    "an argument": lambda end: {"eos_token_id": end, "max_new_tokens": 8},
    "several end tokens": lambda end: {"eos_token_id": [end, 3], "max_new_tokens": 8},
    "a configuration": lambda end: {"generation_config": GenerationConfig(eos_token_id=end, max_new_tokens=8)},
    "padded with a token of its own": lambda end: {
        "generation_config": GenerationConfig(eos_token_id=[end, 3], pad_token_id=5, max_new_tokens=8)
    },
    "padded with the end token": lambda end: {"eos_token_id": end, "pad_token_id": end, "max_new_tokens": 8},
    "padded outside the vocabulary": lambda end: {"eos_token_id": end, "pad_token_id": 99, "max_new_tokens": 8},
    "a criterion": lambda end: {"stopping_criteria": [LastIs(end)], "eos_token_id": None, "max_new_tokens": 8},
    "a list of criteria": lambda end: {
        "stopping_criteria": StoppingCriteriaList([LastIs(end)]),
        "eos_token_id": 4,
        "max_new_tokens": 8,
    },
    "an end criterion": lambda end: {
        "stopping_criteria": [EosTokenCriteria(end)],
        "eos_token_id": None,
        "pad_token_id": None,
        "max_new_tokens": 8,
    },
    "a length": lambda _: {"max_length": 7},
    "a criterion of length": lambda _: {"stopping_criteria": [MaxLengthCriteria(7)]},
    "not before": lambda end: {"min_new_tokens": 5, "eos_token_id": end, "max_new_tokens": 8},
    "not before a length": lambda end: {"min_length": 7, "eos_token_id": end, "max_new_tokens": 8},
    "beams": lambda end: {"num_beams": 3, "eos_token_id": end, "max_new_tokens": 5},
    "what reads the prompt": lambda end: {"repetition_penalty": 1.5, "eos_token_id": end, "max_new_tokens": 5},
    "a processor": lambda end: {"logits_processor": [Unchanged()], "eos_token_id": end, "max_new_tokens": 5},
    "scores returned": lambda end: {
        "return_dict_in_generate": True,
        "output_scores": True,
        "eos_token_id": end,
        "max_new_tokens": 5,
    },
    "time": lambda end: {"max_time": 600.0, "eos_token_id": end, "max_new_tokens": 5},
}


@pytest.mark.parametrize("how", ENDS)
def test_a_row_in_a_batch_is_the_row_alone(model, tokenizer, end, how):
    steps = assert_rows_are_rows_alone(model, tokenizer, **ENDS[how](end))
    assert len({*steps}) > 1  # some end before others
    if how in ("a length", "a criterion of length"):
        assert steps == [3, 5, 4, 5]


def test_the_end_of_the_models_own_configuration(tokenizer, end):
    own = make_explainable(random_model(num_layers=2, dtype=torch.float32))
    own.generation_config.eos_token_id = [end, 3]
    own.generation_config.max_new_tokens = 7
    before = own.generation_config.to_dict()
    steps = assert_rows_are_rows_alone(own, tokenizer)
    assert max(steps) == 3
    assert own.explain_generation("a", tokenizer=tokenizer, eos_token_id=None).score.shape == (1, 7)
    assert own.explain_generation("a", tokenizer=tokenizer, eos_token_id=None, max_new_tokens=2).score.shape == (1, 2)
    assert own.generation_config.to_dict() == before


@pytest.mark.parametrize("kind", ["mamba", "mamba2"])
def test_a_padded_row_of_a_model_whose_projections_have_biases(tokenizer, kind):
    """transformers' own forward gives such a row other tokens than the row alone."""
    biased = make_explainable(random_model(num_layers=2, use_bias=True, dtype=torch.float32, **KINDS[kind]))
    assert_rows_are_rows_alone(biased, tokenizer, max_new_tokens=3)


def test_stop_strings_get_the_tokenizer():
    tokenizer = byte_level_tokenizer("The capital of France is Paris.")
    written = make_explainable(random_model(num_layers=1, vocab_size=len(tokenizer), dtype=torch.float32))
    texts = ["The capital of France", "Paris is", "of"]
    free = written.explain_generation(texts, tokenizer=tokenizer, max_new_tokens=6, eos_token_id=None)
    third = int(free.input_ids[1, free.prompt_length + 2])
    stop = tokenizer.decode([third])
    found = written.explain_generation(
        texts, tokenizer=tokenizer, max_new_tokens=6, eos_token_id=None, stop_strings=[stop]
    )
    for row, text in enumerate(texts):
        one = tokenizer(text, return_tensors="pt")
        ids = written.generate(
            **one, max_new_tokens=6, eos_token_id=None, do_sample=False, stop_strings=[stop], tokenizer=tokenizer
        )[0]
        assert found.input_ids[row, found.attention_mask[row] != 0].tolist() == ids.tolist()
    assert len(found.generated(1)) <= 3
    with pytest.raises(MissingTokenizerError, match="stop_strings"):
        written.explain_generation(torch.tensor([[1, 2]]), stop_strings=["x"])


@pytest.mark.parametrize("side", ["left", "right"])
def test_the_side_of_the_padding_does_not_matter(model, tokenizer, end, side):
    encoded = tokenizer(TEXTS, padding=True, padding_side=side, return_tensors="pt")
    options = {"eos_token_id": end, "max_new_tokens": 6}
    found, expected = (
        model.explain_generation(**encoded, **options),
        model.explain_generation(TEXTS, tokenizer=tokenizer, **options),
    )
    assert torch.equal(found.attention_mask, expected.attention_mask)
    real = found.attention_mask != 0
    assert torch.equal(found.input_ids[real], expected.input_ids[real])
    close(found.relevance, expected.relevance)


def test_rows_of_one_length_are_written_in_one_call(model, tokenizer, monkeypatch):
    calls, own = [], type(model).generate

    def counted(self, **options):
        calls.append(tuple(options["input_ids"].shape))
        return own(self, **options)

    monkeypatch.setattr(type(model), "generate", counted)
    model.explain_generation(TEXTS, tokenizer=tokenizer, max_new_tokens=2)
    assert sorted(calls) == [(1, 3), (1, 4), (2, 2)]


class TestTheCallersConfiguration:
    IDS = torch.tensor([[2, 3, 4], [7, 8, 9]])

    def test_wins_over_the_defaults_and_stays_as_it_was(self, model):
        config = GenerationConfig(max_new_tokens=3, do_sample=True, eos_token_id=17)
        before, fields = config.to_dict(), copy.deepcopy(vars(config))
        torch.manual_seed(3)
        own = model.generate(self.IDS, attention_mask=torch.ones_like(self.IDS), generation_config=config)
        torch.manual_seed(3)
        found = model.explain_generation(self.IDS, generation_config=config)
        real = found.attention_mask != 0
        assert found.input_ids.shape == own.shape == (2, 6)
        assert torch.equal(found.input_ids[real], own[real])  # sampled, as generate samples
        greedy = model.explain_generation(self.IDS, max_new_tokens=3, eos_token_id=17)
        assert not torch.equal(greedy.input_ids, found.input_ids)
        assert config.to_dict() == before
        assert vars(config) == fields

    def test_an_argument_wins_over_it(self, model):
        config = GenerationConfig(max_new_tokens=3, eos_token_id=None)
        for argument, length in ((None, 3), (5, 5)):
            found = model.explain_generation(
                self.IDS, generation_config=config, max_new_tokens=argument, eos_token_id=None
            )
            assert found.score.shape == (2, length)
        assert config.max_new_tokens == 3

    def test_twenty_tokens_where_nobody_says_otherwise(self, model):
        for options in ({}, {"generation_config": GenerationConfig(temperature=1.0)}):
            found = model.explain_generation(self.IDS, eos_token_id=None, **options)
            assert found.score.shape == (2, 20)
            assert torch.equal(
                found.input_ids, model.generate(self.IDS, max_new_tokens=20, do_sample=False, eos_token_id=None)
            )


def test_which_tokens_are_allowed_is_asked_by_row(model, tokenizer):
    seen = set()

    def allowed(row, ids):
        seen.add((row, len(ids)))
        return [5 + row]

    found = model.explain_generation(TEXTS, tokenizer=tokenizer, prefix_allowed_tokens_fn=allowed, max_new_tokens=2)
    assert found.input_ids[:, found.prompt_length :].tolist() == [[5, 5], [6, 6], [7, 7], [8, 8]]
    assert seen == {(0, 4), (0, 5), (1, 2), (1, 3), (2, 3), (2, 4), (3, 2), (3, 3)}


def test_a_streamer_prints_row_after_row(model, tokenizer):
    with redirect_stdout(io.StringIO()) as printed:
        found = model.explain_generation(
            TEXTS[:2], tokenizer=tokenizer, streamer=TextStreamer(tokenizer, skip_prompt=True), max_new_tokens=2
        )
    lines = printed.getvalue().strip().splitlines()
    assert lines == [tokenizer.decode(row) for row in found.input_ids[:, found.prompt_length :].tolist()]


class ForFourRows(StoppingCriteria):
    def __call__(self, input_ids, scores, **kwargs):
        return torch.tensor([True, False, False, False])


@pytest.fixture(scope="module")
def plain(model, tokenizer):
    return model.explain_generation(TEXTS, tokenizer=tokenizer, max_new_tokens=3, eos_token_id=None)


class TestContrast:
    """Against the same asked of ``explain``, token by token behind the text before it, and the model's own logits."""

    def same_as_alone(self, model, found, row):
        real = found.attention_mask[row] != 0
        ids, written = found.input_ids[row][real], found.input_ids[row, found.prompt_length :]
        before = len(ids) - len(written)
        logits = model(ids[None]).logits[0]
        for t, (own, other) in enumerate(zip(written.tolist(), found.contrast_ids[row].tolist(), strict=True)):
            here = logits[before + t - 1]
            close(found.score[row, t], here[own] - here[other])
            alone = model.explain(ids[None, : before + t], target=own, contrast=other)
            close(found.relevance[row, t][real][: before + t], alone.relevance[0])
            close(found.step(t).score[row], alone.score[0])

    @pytest.mark.parametrize("contrast", ["b", 5, [3, "e", 2, "g"], torch.tensor([3, 4, 2, 6])])
    def test_one_token(self, model, tokenizer, plain, contrast):
        found = model.explain_generation(
            TEXTS, tokenizer=tokenizer, max_new_tokens=3, eos_token_id=None, contrast=contrast
        )
        assert torch.equal(found.input_ids, plain.input_ids)
        assert torch.equal(found.probability, plain.probability)
        asked = contrast if isinstance(contrast, list | torch.Tensor) else [contrast] * 4
        expected = [tokenizer.convert_tokens_to_ids(one) if isinstance(one, str) else int(one) for one in asked]
        assert found.contrast_ids.tolist() == [[one] * 3 for one in expected]
        assert found.contrast_tokens[0] == [tokenizer.decode([expected[0]])] * 3
        for row in range(2):
            self.same_as_alone(model, found, row)

    def test_the_runner_up(self, model, tokenizer, plain):
        found = model.explain_generation(
            TEXTS, tokenizer=tokenizer, max_new_tokens=3, eos_token_id=None, contrast="runner-up"
        )
        assert found.score.ge(0).all(), "greedy: what was generated had the highest logit"
        for row in range(2):
            self.same_as_alone(model, found, row)
            real = found.attention_mask[row] != 0
            logits = model(found.input_ids[row][real][None]).logits[0, -4:-1]
            assert logits.topk(2).indices[:, 1].tolist() == found.contrast_ids[row].tolist()

    def test_rows_that_end_earlier(self, model, tokenizer, end):
        assert_rows_are_rows_alone(model, tokenizer, eos_token_id=end, max_new_tokens=8, contrast="runner-up")


def test_a_span_is_what_explain_says_of_its_tokens_as_a_target(model, tokenizer):
    found = model.explain_generation(TEXTS, tokenizer=tokenizer, max_new_tokens=4, eos_token_id=None)
    for row in (0, 1):
        written = tokenizer.decode(found.input_ids[row, found.prompt_length :].tolist())
        alone = model.explain(TEXTS[row], tokenizer=tokenizer, target=f" {written}")
        span = found.span()[row]
        assert span.target == alone.target
        real = span.attention_mask[0] != 0
        close(span.relevance[0, real], alone.relevance[0])
        close(span.score, alone.score)
        close(span.conservation.biases, alone.conservation.biases)
        close(span.probability, alone.probability)
        assert span.conservation.gap.abs().max() < 1e-4


REFUSED = {
    "target": ({"target": 3, "per_layer": True}, ["['per_layer', 'target']", "every token that is generated"]),
    "misspelt": ({"max_new_token": 3}, ["['max_new_token']", "Did you mean max_new_tokens?"]),
    "unknown": ({"colour": "red"}, ["['colour']", "neither it nor generate() knows"]),
    "several sequences": ({"num_return_sequences": 2, "do_sample": True}, ["one sequence a row", "several times"]),
    "several sequences of a configuration": (
        {"generation_config": GenerationConfig(num_return_sequences=2, num_beams=2)},
        ["num_return_sequences"],
    ),
    "another prompt": ({"token_healing": True}, ["token_healing"]),
    "lookup": ({"prompt_lookup_num_tokens": 3}, ["['prompt_lookup_num_tokens']", "stateful"]),
    "a length that is reached": ({"max_length": 3}, ["['max_length']", "max_new_tokens"]),
    "temperature": ({"temperature": -1.0, "do_sample": True}, ["temperature", "-1.0"]),
    "beams of another type": ({"num_beams": "3"}, ["['num_beams']"]),
    "configuration of another type": ({"generation_config": {"max_new_tokens": 3}}, ["dict", "GenerationConfig"]),
    "a criterion for four rows": ({"stopping_criteria": [ForFourRows()]}, ["['stopping_criteria']", "one row"]),
    "a repository without code": ({"custom_generate": "missing"}, ["['custom_generate']", "missing"]),
    "another length": (
        {"custom_generate": lambda model, input_ids, **_: input_ids[:, :1]},
        ["(1, 1)", "(1, 4)", "['custom_generate']"],
    ),
    "a text as a number": ({"max_new_tokens": "3"}, ["max_new_tokens='3'", "from 1 up"]),
    "true as a number": ({"max_new_tokens": True}, ["max_new_tokens=True"]),
    "half a token": ({"max_new_tokens": 2.5}, ["max_new_tokens=2.5"]),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_done_is_a_typed_error(model, tokenizer, case):
    options, words = REFUSED[case]
    with pytest.raises(OptionError) as raised:
        model.explain_generation(TEXTS, tokenizer=tokenizer, **options)
    for word in words:
        assert word in str(raised.value), str(raised.value)


@pytest.mark.parametrize(
    ("contrast", "error", "words"),
    [
        ("b c", TargetError, ["2 tokens", "one token", "runner-up"]),
        (99, TargetError, ["contrast=99", "out of range"]),
        ([1, 2], TargetError, ["2 entries", "4 rows"]),
        (lambda logits: logits[:, 0], OptionError, ["is a function", "its id"]),
    ],
)
def test_a_contrast_that_is_not_one_token_is_refused(model, tokenizer, contrast, error, words):
    with pytest.raises(error) as raised:
        model.explain_generation(TEXTS, tokenizer=tokenizer, contrast=contrast)
    assert all(word in str(raised.value) for word in words), str(raised.value)


def test_an_assistant_is_refused_as_generate_refuses_it(model, tokenizer):
    with pytest.raises(OptionError, match=r"\['assistant_model'\].*stateful"):
        model.explain_generation("a b", tokenizer=tokenizer, assistant_model=model)


def test_ids_outside_the_vocabulary_are_an_input_error(model):
    with pytest.raises(InputError, match="99"):
        model.explain_generation(torch.tensor([[1, 99]]))
