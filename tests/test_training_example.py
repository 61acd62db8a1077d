"""The training example on fabricated rows, and the model that it made and the package ships."""

import json
import random
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from transformers import AutoTokenizer

from hf_mambalrp.models.classification import MambaForSequenceClassification

ROOT = Path(__file__).parents[1]
DEMO = ROOT / "hf_mambalrp" / "demo"
EXAMPLE = ROOT / "examples" / "training"


@pytest.fixture(scope="module", autouse=True)
def example_modules():
    """The example's files import each other by bare names, as a script's neighbours do."""
    names = [path.stem for path in EXAMPLE.glob("*.py")]
    sys.path.insert(0, str(EXAMPLE))
    yield
    sys.path.remove(str(EXAMPLE))
    for name in names:
        sys.modules.pop(name, None)


GOOD = ["lovely", "great", "warm", "funny", "superb"]
KNOWN_SPLITS = {
    "a": "train",
    "b": "train",
    "the rock is destined": "validation",
    "editorial 7": "test",
    "product 4": "test",
    "product 8": "validation",
}
BAD = ["dull", "awful", "cold", "boring", "poor"]


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """A folder in the format of the source distribution: 4 files, documents, duplicates, an HTML entity."""
    import data

    cache = tmp_path_factory.mktemp("cache")
    folder = cache / data.FOLDER
    (folder / data.SNIPPETS).mkdir(parents=True)
    for source, file in data.FILES.items():
        rows = []
        for i in range(120):
            words, rating = (GOOD, 2.5) if i % 2 else (BAD, -2.5)
            id_ = f"{i // 6}_{i % 6}" if source in data.WITH_DOCUMENTS else str(i)
            rows.append(f"{id_}\t{rating}\tthe {source} number {i} is {words[i % 5]} &amp; {words[(i // 5) % 5]}.")
        # The same text with another spelling, once in every file.
        rows.append(f"999{'_1' if source in data.WITH_DOCUMENTS else ''}\t0.2\tA  text seen{'!' * len(source)}")
        (folder / data.SNIPPETS / file).write_bytes("\r\n".join(rows).encode())
    (folder / "vaderSentiment").mkdir()
    lexicon = [f"{w}\t2.0\t0.1\t[2]" for w in GOOD] + [f"{w}\t-2.0\t0.1\t[-2]" for w in BAD] + [":)\t2.0\t0.1\t[2]"]
    (folder / "vaderSentiment" / "vader_lexicon.txt").write_text("\n".join(lexicon), encoding="utf-8")
    return cache


def test_split_is_the_same_every_time_and_has_every_part(cache):
    import data

    first, second = data.load_snippets(cache), data.load_snippets(cache)
    assert first == second
    assert {s.split for s in first} == {"train", "validation", "test"}
    assert {s.source for s in first} == set(data.FILES)


def test_split_of_known_texts_never_changes():
    """Accuracies in the model card are of this split: another hash or salt would put test texts into training."""
    import data

    assert [data.split_of(key) for key in KNOWN_SPLITS] == list(KNOWN_SPLITS.values())


def test_no_text_is_kept_twice_and_no_document_is_in_two_splits(cache):
    import data

    snippets = data.load_snippets(cache)
    texts = [data.normalised(s.text) for s in snippets]
    assert len(texts) == len(set(texts)) == 4 * 120 + 1
    for source in data.WITH_DOCUMENTS:
        splits: dict[str, set[str]] = {}
        for snippet in snippets:
            if snippet.source == source and snippet.id != "999_1":
                splits.setdefault(snippet.id.split("_")[0], set()).add(snippet.split)
        assert len(splits) == 20
        assert all(len(found) == 1 for found in splits.values())


def test_text_is_unescaped_and_neutral_snippets_have_no_label(cache):
    import data

    snippets = data.load_snippets(cache)
    assert not any("&amp;" in s.text or "  " in s.text for s in snippets)
    assert [s.label for s in snippets if s.rating == 0.2] == [None]
    assert {s.label for s in snippets if s.rating == -2.5} == {0}


def test_lexicon_keeps_words_only(cache):
    import data

    assert {word for word, _ in data.load_lexicon(cache)} == {*GOOD, *BAD}


def tiny_settings():
    from model import Settings

    return Settings(
        vocab_size=320,
        hidden_size=16,
        num_hidden_layers=1,
        state_size=4,
        pretrain_steps=3,
        batch_size=16,
        teachers=1,
        teacher_epochs=1,
        student_epochs=1,
        student_pieces=1,
        plain_pieces=1,
        plain_sentences=40,
        plain_epochs=1,
    )


def test_training_runs_and_its_output_loads(cache, tmp_path):
    import data
    import evaluate
    import model as model_file
    import train_sentiment

    snippets = [s for s in data.load_snippets(cache) if s.source in {"film", "tweet"} and s.split != "test"]
    glove, lexicon = ([*GOOD, *BAD], torch.randn(10, 100)), data.load_lexicon(cache)
    model, tokenizer, report = train_sentiment.train(snippets, lexicon, glove, tiny_settings(), device="cpu")
    assert set(report["validation"]) == {"teacher 1", "mean of teachers", "student"}
    before = model.score.weight.detach().clone()
    last = train_sentiment.learn_plain_sentences(
        model, tokenizer, snippets, lexicon, glove, tiny_settings(), device="cpu"
    )
    assert last["plain sentences"] == 40
    assert not torch.equal(model.score.weight, before)

    model_file.save(model, tokenizer, tmp_path)
    loaded = MambaForSequenceClassification.from_pretrained(tmp_path).eval()
    texts = [snippet.text for snippet in snippets[:5]] + ["great"]
    expected = train_sentiment.margins(model, tokenizer, texts, "cpu")
    scores = evaluate.stock_scores(loaded, AutoTokenizer.from_pretrained(tmp_path), texts)
    torch.testing.assert_close(scores, expected, rtol=1e-4, atol=1e-5)
    assert json.loads((tmp_path / "tokenizer_config.json").read_text())["tokenizer_class"] == "PreTrainedTokenizerFast"


def test_plain_sentences_follow_the_lexicon_and_the_negation_rule(cache):
    import augment
    import data
    import sentences

    rng = random.Random(0)
    lexicon = data.load_lexicon(cache)
    found = dict(augment.plain_sentences(lexicon, 500, rng))
    assert len(found) == 500
    assert any(rating == 2 * augment.NEGATION for rating in found.values())
    for text, rating in found.items():
        words = set(data.normalised(text).split())
        assert not words & augment.HELD_OUT
        good, bad = words & set(GOOD), words & set(BAD)
        assert not (good and bad)
        assert rating in ({0} if not good | bad else {2, -1.48} if good else {-2, 1.48})
    checks = {data.normalised(text) for text, _ in sentences.CHECKS}
    assert not checks & {data.normalised(text) for text in found}
    held = augment.plain_sentences(lexicon, 50, rng, held_out=True)
    assert all(set(text.split()) & augment.HELD_OUT for text, _ in held)
    assert augment.plain_sentences([], 10, rng) == []


def test_endings_do_not_depend_on_the_text():
    import augment

    for text in ("Great!!", "Great.", "Great"):
        rng = random.Random(0)
        endings = {augment.any_ending(text, rng) for _ in range(200)}
        assert endings == {"Great", "Great.", "Great!", "Great!!", "Great!!!"}
    assert augment.any_ending("!!", random.Random(0)) == "!!"


@pytest.mark.parametrize("length", [1, 2, 7, 16, 21])
def test_fast_forward_equals_the_stock_model_and_its_gradients(length):
    from fast_forward import backbone_forward
    from transformers import MambaConfig, MambaModel

    torch.manual_seed(0)
    config = MambaConfig(vocab_size=50, hidden_size=16, num_hidden_layers=2, state_size=4)
    model = MambaModel(config).double().eval()
    embeds = torch.randn(3, length, 16, dtype=torch.float64)
    stock, fast = model(inputs_embeds=embeds, use_cache=False).last_hidden_state, backbone_forward(model, embeds)
    torch.testing.assert_close(fast, stock, rtol=1e-5, atol=1e-6)
    weights = list(model.layers.parameters())
    for ours, theirs in zip(
        torch.autograd.grad(fast.sin().sum(), weights), torch.autograd.grad(stock.sin().sum(), weights), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


# --- the model that the package ships ------------------------------------------------------------


@pytest.fixture(scope="module")
def demo():
    model, info = MambaForSequenceClassification.from_pretrained(DEMO, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    return model.eval(), AutoTokenizer.from_pretrained(DEMO)


@pytest.fixture(scope="module")
def reviews():
    return [json.loads(line) for line in (DEMO / "reviews.jsonl").read_text(encoding="utf-8").splitlines()]


def test_demo_file_is_small_float32_and_plain():
    assert (DEMO / "model.safetensors").stat().st_size < 6_000_000
    with safe_open(DEMO / "model.safetensors", "pt") as weights:
        assert {weights.get_tensor(name).dtype for name in weights.keys()} == {torch.float32}  # noqa: SIM118
    config = json.loads((DEMO / "config.json").read_text(encoding="utf-8"))
    assert config["architectures"] == ["MambaForSequenceClassification"]
    assert config["problem_type"] == "single_label_classification"
    assert "auto_map" not in config


def test_demo_labels_and_padding_agree(demo):
    model, tokenizer = demo
    assert model.config.id2label == {0: "negative", 1: "positive"}
    assert model.config.pad_token_id == tokenizer.pad_token_id
    assert len(tokenizer) == model.config.vocab_size
    assert tokenizer.model_input_names == ["input_ids", "attention_mask"]


@pytest.mark.parametrize("text", ["I LOVED this film!!", "don't, “quoted” — café 42 :-)", "naïve 😀 ok"])
def test_demo_tokenizer_round_trip_and_offsets(demo, text):
    _, tokenizer = demo
    encoded = tokenizer(text, return_offsets_mapping=True)
    assert tokenizer.decode(encoded["input_ids"]).strip() == text.lower()
    covered = {i for start, end in encoded["offset_mapping"] for i in range(start, end)}
    assert covered == {i for i, character in enumerate(text) if not character.isspace()}
    for token, (start, end) in zip(encoded.tokens(), encoded["offset_mapping"], strict=True):
        spelt = tokenizer.convert_tokens_to_string([token]).strip()
        if "\ufffd" not in spelt:  # a piece of a character of several bytes has no spelling of its own
            assert spelt == text[start:end].lower()


def test_demo_reviews_are_held_out_and_classified_as_recorded(demo, reviews):
    import data

    model, tokenizer = demo
    assert 30 <= len(reviews) <= 60
    assert {data.split_of(data.normalised(review["text"])) for review in reviews} == {"test"}
    encoded = tokenizer([review["text"] for review in reviews], padding=True, return_tensors="pt")
    with torch.no_grad():
        labels = model(**encoded).logits.argmax(-1).tolist()
    assert [model.config.id2label[label] for label in labels] == [review["predicted"] for review in reviews]
    assert {review["label"] for review in reviews} == {"negative", "positive"}
    for review in reviews:
        assert (review["rating"] > 0) == (review["label"] == "positive")


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("i loved this film", "positive"),
        ("I LOVED THIS FILM!!", "positive"),
        ("A masterpiece.", "positive"),
        ("This film is not good.", "negative"),
        ("A boring, predictable mess", "negative"),
        ("i hated this film", "negative"),
        ("I HATED THIS FILM!!", "negative"),
        ("A wonderful film.", "positive"),
        ("A terrible film!", "negative"),
        ("This is not a good film", "negative"),
        ("This is not a bad film.", "positive"),
        ("Not bad at all.", "positive"),
        ("Not a dull moment.", "positive"),
        ("It never gets boring.", "positive"),
        ("I would not recommend it", "negative"),
        ("I did not like it.", "negative"),
    ],
)
def test_demo_on_sentences_a_person_types(demo, text, label):
    model, tokenizer = demo
    with torch.no_grad():
        logits = model(**tokenizer(text, return_tensors="pt")).logits
    assert model.config.id2label[logits.argmax(-1).item()] == label
