"""Every input form and target form of ``explain``, and what the result says about them."""

import numpy as np
import pytest
import torch
from oracles import HFFloat64, logit_weights, mambalrp_explicit
from random_models import random_model
from small import byte_level_tokenizer, word_tokenizer

from hf_mambalrp import MambaForSequenceClassification, MambaLRPForCausalLM, make_explainable
from hf_mambalrp.errors import MissingTokenizerError, OptionError
from hf_mambalrp.families import FAMILIES, Network
from hf_mambalrp.methods import Problem
from hf_mambalrp.methods.graphs import propagate
from hf_mambalrp.rules import MAMBALRP

SENTENCE = "The capital of France is Paris, and the capital of Germany is Berlin."


def close(found, expected):
    torch.testing.assert_close(found.double(), expected.double(), rtol=1e-5, atol=1e-6)


@pytest.fixture(scope="module")
def model():
    return make_explainable(random_model(num_layers=2, seed=11))


@pytest.fixture(scope="module")
def tokenizer():
    return word_tokenizer()


def oracle(model, ids, position, weights):
    """One row of the oracle: relevance (L,) and score of weighted logits at one position."""
    found = mambalrp_explicit(
        model.state_dict(),
        eps=model.config.layer_norm_epsilon,
        input_ids=ids[None],
        positions=torch.tensor([position]),
        weights=weights,
    )
    return found.relevance[0], found.score[0]


def test_every_input_form_gives_the_same(model, tokenizer):
    texts = ["a b c d", "e f"]
    encoded = tokenizer(texts, padding=True, return_tensors="pt")
    expected = model.explain(texts, tokenizer=tokenizer)
    forms = {
        "mapping": model.explain(encoded, tokenizer=tokenizer),
        "keywords": model.explain(**tokenizer(texts, padding=True, return_tensors="pt", return_offsets_mapping=True)),
        "ids": model.explain(encoded["input_ids"], attention_mask=encoded["attention_mask"]),
        "lists": model.explain(
            input_ids=encoded["input_ids"].tolist(), attention_mask=encoded["attention_mask"].bool()
        ),
        "embeddings": model.explain(
            inputs_embeds=model.get_input_embeddings()(encoded["input_ids"]), attention_mask=encoded["attention_mask"]
        ),
    }
    assert expected.relevance.shape == (2, 4)
    assert expected.relevance.dtype == torch.float32
    for name, found in forms.items():
        close(found.relevance, expected.relevance)
        assert found.target == expected.target, name
    assert forms["embeddings"].input_ids is None
    single = model.explain("e f", tokenizer=tokenizer)
    close(single.relevance[0], expected.relevance[1, :2])


def test_texts_are_named_and_placed(model, tokenizer):
    found = model.explain(["a b  c", "e"], tokenizer=tokenizer, target=[4, "d"])
    assert found.tokens == [["a", "b", "c"], ["e", "<pad>", "<pad>"]]
    assert found.texts == ["a b  c", "e"]
    assert found.offsets == [[(0, 1), (2, 3), (5, 6)], [(0, 1), (0, 0), (0, 0)]]
    assert found.attention_mask.tolist() == [[1, 1, 1], [1, 0, 0]]
    assert found.target == [4, 5]
    assert found.target_text == ["c", "d"]
    assert found.position.tolist() == [2, 0]
    assert set(found.versions) == {"hf_mambalrp", "torch", "transformers"}
    assert found.method == "mambalrp"


def test_ids_without_texts_are_placed_in_what_they_decode_to():
    tokenizer = byte_level_tokenizer(SENTENCE)
    model = make_explainable(random_model(num_layers=1, vocab_size=len(tokenizer)))
    found = model.explain(**tokenizer(SENTENCE, return_tensors="pt"), tokenizer=tokenizer)
    assert found.texts == [SENTENCE]
    assert [word.text for word in found.words()] == SENTENCE.replace(",", " ,").replace(".", " .").split()


def test_the_prediction_is_explained_by_default(model):
    ids = torch.tensor([[3, 4, 5], [6, 7, 8]])
    with torch.no_grad(), HFFloat64():
        logits = model(ids, use_cache=False).logits[:, -1]
    found = model.explain(ids)
    assert found.target == logits.argmax(-1).tolist()
    close(found.score, logits.max(-1).values)
    close(found.probability, logits.softmax(-1).max(-1).values)


@pytest.mark.parametrize(
    "target",
    [
        5,
        "d",
        [5, 5],
        ["d", 5],
        torch.tensor([5, 5]),
        torch.tensor(5),
        np.int64(5),
        [np.int64(5), np.uint8(5)],
        np.array([5, 5]),
        np.array(["d", "d"]),
        lambda logits: logits[:, 5],
    ],
)
def test_every_target_form_names_the_same_logit(model, tokenizer, target):
    ids = torch.tensor([[3, 4, 5], [6, 7, 8]])
    expected = model.explain(ids, target=[5, 5])
    found = model.explain(ids, target=target, tokenizer=tokenizer)
    close(found.relevance, expected.relevance)
    if callable(target):
        assert found.target == [None, None]
        assert found.probability is None
        assert found.target_text == ["<lambda>"] * 2
    else:
        assert found.target == [5, 5]
        assert found.target_text == ["d", "d"]


def test_a_nonlinear_function_is_explained_by_its_own_gradient(model):
    ids = torch.tensor([[3, 4, 5]])
    found = model.explain(ids, target=lambda logits: logits[:, 2] * logits[:, 3])
    first, second = model.explain(ids, target=2), model.explain(ids, target=3)
    close(found.relevance, first.relevance * second.score + second.relevance * first.score)


def test_several_target_tokens_are_fed_back_and_their_logits_summed(model, tokenizer):
    """Row 0: logit(f | a b c) + logit(g | a b c f) + logit(h | a b c f g); row 1 has two target tokens."""
    found = model.explain(["a b c", "d"], target=["f g h", "e f"], tokenizer=tokenizer, per_layer=True)
    assert found.tokens == [["a", "b", "c", "f", "g"], ["d", "e", "<pad>", "<pad>", "<pad>"]]
    assert found.target == [(7, 8, 9), (6, 7)]
    assert found.target_text == ["f g h", "e f"]
    for row, (ids, start, targets) in enumerate([([2, 3, 4, 7, 8], 2, (7, 8, 9)), ([5, 6], 0, (6, 7))]):
        parts = [
            oracle(model, torch.tensor(ids), start + k, logit_weights([token], 19)) for k, token in enumerate(targets)
        ]
        close(found.relevance[row, : len(ids)], sum(relevance for relevance, _ in parts))
        close(found.score[row], sum(score for _, score in parts))
    close(found.conservation.gap, torch.zeros(2))
    assert found.layer_relevance.shape == (3, 2, 5)
    with torch.no_grad(), HFFloat64():
        logp = model(torch.tensor([[2, 3, 4, 7, 8]]), use_cache=False).logits[0].log_softmax(-1)
    close(found.probability[0], (logp[2, 7] + logp[3, 8] + logp[4, 9]).exp())


@pytest.mark.parametrize("padding_side", ["left", "right"])
def test_target_and_contrast_of_several_tokens(model, tokenizer, padding_side):
    """score = [logit(f | x) + logit(g | x f)] - [logit(h | x) + logit(i | x h) + logit(j | x h i)]."""
    encoded = tokenizer(["a b c", "d"], padding=True, padding_side=padding_side, return_tensors="pt")
    found = model.explain(**encoded, target="f g", contrast="h i j", tokenizer=tokenizer)
    prefix = [2, 3, 4]
    plus = [oracle(model, torch.tensor([*prefix, 7]), 2 + k, logit_weights([t], 19)) for k, t in enumerate((7, 8))]
    minus = [
        oracle(model, torch.tensor([*prefix, 9, 10]), 2 + k, logit_weights([t], 19)) for k, t in enumerate((9, 10, 11))
    ]
    relevance_plus, relevance_minus = (sum(relevance for relevance, _ in side) for side in (plus, minus))
    expected = torch.cat([relevance_plus[:3] - relevance_minus[:3], relevance_plus[3:], -relevance_minus[3:]])
    close(found.relevance[0, :6], expected)
    close(found.score[0], sum(s for _, s in plus) - sum(s for _, s in minus))
    assert found.tokens[0][:6] == ["a", "b", "c", "f", "h", "i"]
    alone = model.explain("d", target="f g", contrast="h i j", tokenizer=tokenizer)
    close(found.relevance[1][found.attention_mask[1] == 1], alone.relevance[0])
    close(found.conservation.gap, torch.zeros(2))


def test_a_predicted_target_against_a_contrast_of_several_tokens(model, tokenizer):
    predicted = model.explain("a b c", tokenizer=tokenizer).target[0]
    found = model.explain("a b c", contrast="h i", tokenizer=tokenizer)
    assert found.target == [predicted]
    close(found.relevance, model.explain("a b c", target=predicted, contrast="h i", tokenizer=tokenizer).relevance)


def test_the_tokenizer_is_found_beside_the_model(tmp_path):
    tokenizer = word_tokenizer()
    random_model(num_layers=1, dtype=torch.float32).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    model = MambaLRPForCausalLM.from_pretrained(tmp_path)
    found = model.explain("a b c", target="d")
    assert found.tokens == [["a", "b", "c"]]
    assert found.model_id == tmp_path.name


def test_a_folder_without_a_tokenizer_has_none(tmp_path):
    random_model(num_layers=1, dtype=torch.float32).save_pretrained(tmp_path)
    model = MambaLRPForCausalLM.from_pretrained(tmp_path)
    with pytest.raises(MissingTokenizerError, match="none could be loaded"):
        model.explain("hello world")
    found = model.explain(torch.tensor([[3, 14]]), target=5)
    assert found.tokens == [["#3", "#14"]]
    assert found.target_text == ["#5"]


@pytest.mark.parametrize("one_text", [False, True])
def test_token_ids_in_every_container_are_the_same_input(model, tokenizer, one_text):
    texts = "a b c d" if one_text else ["a b c d", "e f"]
    encoded = tokenizer(texts, padding=True)  # lists; of one text they have one dimension
    ids, mask = torch.tensor([[2, 3, 4, 5], [6, 7, 0, 0]]), torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
    if one_text:
        ids, mask = ids[:1], mask[:1]
    expected = model.explain(ids, attention_mask=mask)
    for found in (
        model.explain(encoded),
        model.explain(dict(encoded)),
        model.explain(**encoded),
        model.explain(ids.tolist(), attention_mask=mask.tolist()),
        model.explain(ids.numpy(), attention_mask=mask.numpy()),
        model.explain(tuple(map(tuple, ids.tolist())), attention_mask=mask),
    ):
        assert torch.equal(found.input_ids, ids)
        assert torch.equal(found.relevance, expected.relevance)


def test_what_a_tokenizer_adds_is_not_read(model, tokenizer):
    encoded = tokenizer(["a b c d", "e f"], padding=True, return_tensors="pt")
    extras = {"token_type_ids": torch.zeros_like(encoded["input_ids"]), "length": [4, 2]}
    for name, options in {"explain": {}, "hidden_attention": {}, "explain_generation": {"max_new_tokens": 2}}.items():
        call = getattr(model, name)
        found, expected = call(**{**encoded, **extras}, **options), call(**encoded, **options)
        value = "matrix" if name == "hidden_attention" else "relevance"
        assert torch.equal(getattr(found, value), getattr(expected, value))
    with pytest.raises(OptionError, match="colour"):
        model.hidden_attention(**encoded, colour=1)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/home/somebody/models/mine", "mine"),
        ("C:\\Users\\somebody\\mine", "mine"),
        ("D:/Users/somebody/mine/", "mine"),
        ("~/models/mine", "mine"),
        ("../models/mine", "mine"),
        ("runs/somebody/mine", "mine"),
        ("somebody/mine", "somebody/mine"),
        ("mamba-130m.v2", "mamba-130m.v2"),
        ("", "MambaForCausalLM"),
    ],
)
def test_a_model_is_called_by_its_repository_and_never_by_a_path_that_is_gone(path, name):
    model = make_explainable(random_model(num_layers=1, dtype=torch.float32))
    model.config._name_or_path = path
    assert model.explain(torch.tensor([[3, 4]])).model_id == name


@pytest.mark.parametrize(
    "context", [torch.no_grad, torch.inference_mode, lambda: torch.autocast("cpu", torch.bfloat16)]
)
def test_the_callers_gradient_mode_and_autocast_do_not_matter(model, context):
    ids = torch.tensor([[3, 4, 5]])
    expected = model.explain(ids)
    with context():
        assert torch.equal(model.explain(ids).relevance, expected.relevance)


def test_a_model_and_embeddings_made_in_inference_mode():
    with torch.inference_mode():
        model = make_explainable(random_model(num_layers=2, seed=11))
        embeddings = model.get_input_embeddings()(torch.tensor([[3, 4, 5]]))
    expected = make_explainable(random_model(num_layers=2, seed=11)).explain(torch.tensor([[3, 4, 5]]))
    assert torch.equal(model.explain(inputs_embeds=embeddings).relevance, expected.relevance)


def test_threads_explain_one_model_at_the_same_time(model):
    from concurrent.futures import ThreadPoolExecutor

    inputs = [torch.randint(1, 18, (1, 5 + i % 7), generator=torch.Generator().manual_seed(i)) for i in range(24)]
    expected = [model.explain(ids).relevance for ids in inputs]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda ids: model.explain(ids).relevance, inputs))
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


class TestClassifier:
    @pytest.fixture(scope="class")
    @classmethod
    def model(cls):
        source = random_model(num_layers=2, seed=12)
        source.config.num_labels = 3
        source.config.pad_token_id = 0
        source.config.id2label = {0: "bad", 1: "fair", 2: "good"}
        source.config.label2id = {"bad": 0, "fair": 1, "good": 2}
        model = MambaForSequenceClassification(source.config).double()
        model.backbone.load_state_dict(source.backbone.state_dict())
        torch.nn.init.normal_(model.score.weight, generator=torch.Generator().manual_seed(0))
        return make_explainable(model.eval())

    def test_relevance_equals_the_oracle(self, model):
        ids = torch.tensor([[0, 3, 4, 5], [6, 7, 0, 0]])
        mask = torch.tensor([[0, 1, 1, 1], [1, 1, 0, 0]])
        found = model.explain(ids, attention_mask=mask, target=["good", "Bad"], contrast=1)
        expected = mambalrp_explicit(
            model.state_dict(),
            eps=model.config.layer_norm_epsilon,
            input_ids=ids,
            attention_mask=mask,
            weights=logit_weights([2, 0], 3, [1, 1]),
        )
        close(found.relevance, expected.relevance)
        close(found.score, expected.score)
        assert found.target_text == ["good", "bad"]
        assert found.contrast_text == ["fair", "fair"]
        assert found.position is None

    def test_without_a_mask_the_rightmost_token_that_is_not_padding_decides(self, model):
        found = model.explain(torch.tensor([[3, 4, 5, 0], [6, 7, 8, 9]]), target=0)
        alone = model.explain(torch.tensor([[3, 4, 5]]), target=0)
        close(found.relevance[0, :3], alone.relevance[0])
        assert found.relevance[0, 3] == 0

    @pytest.mark.parametrize(
        ("problem_type", "expected"),
        [
            ("single_label_classification", lambda logits: logits.softmax(-1)[:, 1]),
            ("multi_label_classification", lambda logits: logits.sigmoid()[:, 1]),
            ("regression", lambda logits: None),
        ],
    )
    def test_probability_follows_the_problem_type(self, model, problem_type, expected):
        ids = torch.tensor([[3, 4, 5]])
        model.config.problem_type = problem_type
        with torch.no_grad(), HFFloat64():
            probability = expected(model(ids, attention_mask=torch.ones_like(ids)).logits)
        found = model.explain(ids, target="fair")
        model.config.problem_type = None
        assert (
            (found.probability is None)
            if probability is None
            else torch.allclose(found.probability.double(), probability)
        )


class TestGeneration:
    def test_every_step_equals_an_explanation_of_its_own(self, model, tokenizer):
        found = model.explain_generation(["a b c d", "e f"], tokenizer=tokenizer, max_new_tokens=4, eos_token_id=[])
        assert found.relevance.shape == (2, 4, 8)
        assert found.prompt_length == 4
        for row, start in enumerate((0, 2)):
            for step in range(4):
                end = 4 + step
                alone = model.explain(found.input_ids[row : row + 1, start:end], target=int(found.input_ids[row, end]))
                close(found.relevance[row, step, start:end], alone.relevance[0])
                assert (found.relevance[row, step, end:] == 0).all()
                assert (found.relevance[row, step, :start] == 0).all()
                close(found.score[row, step], alone.score[0])
                close(found.probability[row, step], alone.probability[0])
                assert alone.target == model.explain(found.input_ids[row : row + 1, start:end]).target  # greedy
                close(found.conservation.gap[row, step], torch.tensor(0.0))

    def test_a_row_ends_at_its_end_token(self, model, tokenizer):
        free = model.explain_generation("a b c d", tokenizer=tokenizer, max_new_tokens=5, eos_token_id=[])
        end = int(free.input_ids[0, 4 + 1])
        texts = ["a b c d", "e f"]
        found = model.explain_generation(texts, tokenizer=tokenizer, max_new_tokens=5, eos_token_id=end, pad_token_id=0)
        first_end = free.input_ids[0, 4:].tolist().index(end)
        alive = found.attention_mask[0, 4:].tolist()
        assert alive == [1] * (first_end + 1) + [0] * (len(alive) - first_end - 1)
        assert (found.relevance[0, first_end + 1 :] == 0).all()
        assert (found.score[0, first_end + 1 :] == 0).all()
        close(found.relevance[0, : first_end + 1], free.relevance[0, : first_end + 1, : found.relevance.shape[-1]])

    @pytest.mark.parametrize("chunk_size", [1, 3])
    def test_chunks_change_nothing(self, model, tokenizer, chunk_size):
        options = {"tokenizer": tokenizer, "max_new_tokens": 3}
        whole = model.explain_generation("a b c d", **options)
        close(model.explain_generation("a b c d", chunk_size=chunk_size, **options).relevance, whole.relevance)

    def test_bad_options_and_classifiers(self, model, tokenizer):
        from hf_mambalrp.errors import OptionError, UnknownArchitectureError

        with pytest.raises(OptionError, match="max_new_tokens=0"):
            model.explain_generation("a", tokenizer=tokenizer, max_new_tokens=0)
        with pytest.raises(OptionError, match="'lime'"):
            model.explain_generation("a", tokenizer=tokenizer, method="lime")
        classifier = make_explainable(MambaForSequenceClassification(model.config))
        with pytest.raises(UnknownArchitectureError, match=r"does not generate.*explain\(\)"):
            classifier.explain_generation("a", tokenizer=tokenizer)


@pytest.mark.parametrize("chunk_size", [8, 3])
def test_what_needs_no_numbers_is_done_before_any_is_waited_for(chunk_size, monkeypatch):
    """On a GPU tokens are named while it computes: all of it is launched by then, and no number was asked for."""
    network, ids, order = Network(random_model(seed=3), FAMILIES), torch.arange(8)[None], []
    monkeypatch.setattr(torch.Tensor, "cpu", lambda value: order.append("number") or value)
    problem = Problem(
        network, network.embed(ids), torch.ones_like(ids), torch.tensor([[7]]), lambda logits: logits[:, 0, 1],
        chunk_size=chunk_size, meanwhile=lambda logits: order.append("names"),
    )  # fmt: skip
    propagate(problem, MAMBALRP)
    assert order[0] == "names"
    assert order.count("names") == 1
    assert order.count("number") > 1
