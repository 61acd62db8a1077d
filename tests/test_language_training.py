"""The training of the language model on made-up data: its texts, its forward, its 5-gram, what a run writes."""

import json
import math
import re
import struct
import sys
import zlib
from collections import Counter, defaultdict
from pathlib import Path
from random import Random
from typing import get_args

import numpy as np
import pytest
import torch
from safetensors import safe_open
from transformers import AutoTokenizer, Mamba2ForCausalLM

EXAMPLE = Path(__file__).parents[1] / "examples" / "training" / "language"
CAPITALS = {"France": ("Paris", "Europe"), "Egypt": ("Cairo", "Africa"), "Japan": ("Tokyo", "Asia")}
SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 8, "head_dim": 16, "length": 32, "batch_size": 4}


@pytest.fixture(scope="module", autouse=True)
def example_modules():
    """The example's files import each other by bare names, as a script's neighbours do."""
    names = [path.stem for path in EXAMPLE.glob("*.py")]
    sys.path.insert(0, str(EXAMPLE))
    yield
    sys.path.remove(str(EXAMPLE))
    for name in names:
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """What prepare.py writes, of a few stories."""
    import prepare
    from stories import synthetic

    folder = tmp_path_factory.mktemp("data")
    texts = [synthetic(Random(number), CAPITALS) for number in range(400)]
    tokenizer = prepare.train_tokenizer(texts)
    prepare.save_tokenizer(tokenizer, folder / "tokenizer")
    about = {}
    for split, part in (("train", texts[:300]), ("validation", texts[300:350]), ("test", texts[350:])):
        for kind in ("read", "synthetic"):
            documents = [part[i : i + 2] if kind == "read" else [part[i]] for i in range(0, len(part), 2)]
            about[f"{split}.{kind}"] = prepare.write(folder, f"{split}.{kind}", tokenizer, documents)
    (folder / "texts.json").write_text(json.dumps(about))
    return folder


def small_model(vocabulary=50):
    """Its norms, skips, biases and decays are not those of a new model, so that each of them is seen."""
    from transformers import Mamba2Config

    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 8, "head_dim": 16, "num_heads": 4, "n_groups": 1}
    ids = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 0}
    model = Mamba2ForCausalLM(Mamba2Config(vocab_size=vocabulary, tie_word_embeddings=True, **sizes, **ids))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


# --- the texts ------------------------------------------------------------------------------------


def test_a_copied_name_stands_once_and_two_sentences_before():
    from stories import Names, copy_case, introduction_case

    rng = Random(0)
    for number in range(300):
        for case_of, sentences in ((copy_case, 2), (introduction_case, 4)):
            case = case_of(rng, get_args(Names)[number % 3])
            for name in (case.answer, case.other):
                assert len(re.findall(rf"\b{name}\b", case.text)) == 1
            after = case.text[case.text.index(case.answer) :]
            assert len(re.findall(r"[.?!]\"? ", after)) >= sentences
            assert "{" not in case.text


def test_either_name_is_asked_for_equally_often():
    from stories import copy_case

    rng = Random(1)
    first = sum(
        case.text.index(case.answer) < case.text.index(case.other)
        for case in (copy_case(rng, "listed") for _ in range(2000))
    )
    assert abs(first / 2000 - 0.5) < 0.05


def test_training_has_neither_the_held_out_names_nor_the_texts_of_the_test():
    from stories import WORDS, copy_case, synthetic

    rng = Random(0)
    read = "\n".join(synthetic(rng, CAPITALS) for _ in range(3000))
    held_out = {name for names in WORDS["held_out"].values() for name in names}
    assert not held_out & set(re.findall(r"\w+", read))
    assert not held_out & {*WORDS["women"], *WORDS["men"], *WORDS["pets"]}
    asked = [case.text.rpartition(". ")[0] for case in (copy_case(rng, "listed") for _ in range(300))]
    assert not [text for text in asked if text in read]
    assert {"Paris", "Cairo"} <= set(re.findall(r"\w+", read))


def test_a_story_comes_back_to_its_names():
    from stories import story

    rng = Random(0)
    for _ in range(100):
        names = Counter(re.findall(r"\b[A-Z][a-z]+\b", story(rng)))
        assert names.most_common(1)[0][1] >= 2


def test_a_bible_s_blocks_and_verses_are_read(tmp_path):
    from sources import bible

    folder = tmp_path / "sword-text-web/usr/share/sword/modules/texts/ztext/engWEB2015eb"
    folder.mkdir(parents=True)
    first = b"<w>In the beginning there was a verse of more than thirty letters.</w><note>not this</note>"
    second = "Then came “another” one, of which there is a little less.".encode()
    for testament in ("ot", "nt"):
        packed = zlib.compress(first + second)
        (folder / f"{testament}.bzz").write_bytes(packed)
        (folder / f"{testament}.bzs").write_bytes(struct.pack("<III", 0, len(packed), len(first + second)))
        verses = [(0, 0, 0), (0, 0, len(first)), (0, len(first), len(second))]
        (folder / f"{testament}.bzv").write_bytes(b"".join(struct.pack("<IIH", *verse) for verse in verses))
    expected = (
        "In the beginning there was a verse of more than thirty letters. "
        'Then came "another" one, of which there is a little less.'
    )
    assert list(bible(tmp_path)) == [[expected]] * 2


def test_strings_of_r_are_read(tmp_path):
    from sources import austen

    stored = tmp_path / "r-cran-janeaustenr/usr/lib/R/site-library/janeaustenr/data/Rdata.rdb"
    stored.parent.mkdir(parents=True)
    lines = [
        line
        for number in range(120)
        for line in (f"A paragraph that has _two_ lines, number {number},", "of a novel.", "")
    ]
    strings = b"".join(b"\x00\x04\x00\x09" + struct.pack(">i", len(line)) + line.encode() for line in lines)
    packed = zlib.compress(b"X\n" + strings)
    stored.write_bytes((struct.pack(">i", len(strings)) + packed) * 2)
    found = list(austen(tmp_path))
    assert [len(document) for document in found] == [40] * 6
    assert found[3][1] == "A paragraph that has two lines, number 1, of a novel."


def test_a_sense_is_its_word_its_definition_and_its_examples(tmp_path):
    from sources import wordnet

    folder = tmp_path / "wordnet-base/usr/share/wordnet"
    folder.mkdir(parents=True)
    for part in ("adj", "adv", "noun", "verb"):
        (folder / f"data.{part}").write_text("  1 This software\n", encoding="latin-1")
    (folder / "data.noun").write_text(
        '0001 04 n 01 small_dog 0 000 | a dog that is small; "it was a small dog"; "no!"  \n'
    )
    assert list(wordnet(tmp_path)) == [["small dog: a dog that is small. It was a small dog."]]


# --- the 5-gram and the measures -------------------------------------------------------------------


def kneser_ney(train, context, token, vocabulary):
    """Interpolated Kneser-Ney by dictionaries, from its formula."""
    p = 1 / vocabulary
    order = 5
    windows = {n: [tuple(train[i : i + n]) for i in range(len(train) - n + 1)] for n in range(1, order + 1)}
    counts = {order: Counter(windows[order])}
    for n in range(order - 1, 0, -1):
        counts[n] = Counter(gram[1:] for gram in counts[n + 1])
    for n in range(1, order + 1):
        once, twice = (sum(count == k for count in counts[n].values()) for k in (1, 2))
        discount = once / (once + 2 * twice) if once else 0.5
        after = defaultdict(list)
        for gram, count in counts[n].items():
            after[gram[:-1]].append(count)
        h = tuple(context[len(context) - n + 1 :])
        if h in after:
            count = counts[n][(*h, token)]
            p = (max(count - discount, 0) + discount * len(after[h]) * p) / sum(after[h])
    return p


def test_the_five_gram_is_kneser_and_ney_s():
    from ngram import token_bits

    rng = np.random.default_rng(0)
    train = (rng.integers(0, 4, 300) + rng.integers(0, 2, 300)).astype(np.uint16)
    test = rng.integers(0, 6, 40).astype(np.uint16)  # 5 is in no training text
    expected = [kneser_ney(train, test[i : i + 4], test[i + 4], 8) for i in range(36)]
    assert token_bits(train, test, vocabulary=8) == pytest.approx([-math.log2(p) for p in expected])
    assert sum(kneser_ney(train, test[:4], token, 8) for token in range(8)) == pytest.approx(1)


def test_every_byte_is_counted_once(data):
    """A model that takes every token for equally likely pays log2(vocabulary) for each."""
    import train

    model = small_model(4096)
    with torch.no_grad():
        model.backbone.embeddings.weight.zero_()
    windows = train.Windows(data, "test", "synthetic", "cpu")
    expected = (len(windows.ids) - 1) * 12 / windows.bytes
    for length in (32, 64):
        assert train.bits_per_byte(model, windows, length) == pytest.approx(expected, abs=1e-4)


def test_an_interval_of_wilson():
    from train import wilson

    assert wilson(8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)  # Wilson (1927), as in Brown et al. (2001)
    assert wilson(0, 20)[0] == pytest.approx(0, abs=1e-12)


# --- the model -------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [150, 64, 5])
def test_the_fast_forward_and_its_gradients_are_the_model_s(length):
    from fast_forward import logits

    model, ids = small_model(), torch.randint(50, (2, length))
    fast, own = logits(model, ids), model(ids, use_cache=False).logits
    torch.testing.assert_close(fast, own, rtol=1e-4, atol=1e-5)
    weights = list(model.parameters())
    for ours, theirs in zip(
        torch.autograd.grad(fast.sin().sum(), weights), torch.autograd.grad(own.sin().sum(), weights), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


def test_the_scan_is_the_recurrence():
    from fast_forward import CHUNK, ssd

    length, heads, width, states = 3 * CHUNK, 2, 3, 4
    shapes = [(2, length, heads, width), (2, length, heads), (heads,), (2, length, states), (2, length, states)]
    x, dt, A, B, C = (torch.randn(shape, dtype=torch.float64) for shape in shapes)
    dt, A = dt.abs(), -A.abs()
    h, expected = torch.zeros(2, heads, width, states, dtype=torch.float64), []
    for t in range(length):
        h = (dt[:, t] * A).exp()[..., None, None] * h + (dt[:, t, :, None] * x[:, t])[..., None] * B[:, t, None, None]
        expected.append(torch.einsum("bhpn,bn->bhp", h, C[:, t]))
    torch.testing.assert_close(ssd(x, dt, A, B, C), torch.stack(expected, 1))


def test_a_run_writes_a_small_model_that_loads_in_float32(data, tmp_path, capsys):
    import train

    options = [part for name, value in SMALL.items() for part in (f"--{name.replace('_', '-')}", str(value))]
    train.main(
        ["--data", str(data), "--output", str(tmp_path), "--seconds", "1", "--points", "2", "--cases", "4", *options]
    )
    report = json.loads((tmp_path / "training.json").read_text())
    assert report["tokens"] == report["steps"] * 4 * 32
    assert len(report["validation"]) >= 1
    folder = tmp_path / "model"
    with safe_open(folder / "model.safetensors", "pt") as weights:
        names = set(weights.keys())
        assert {weights.get_tensor(name).dtype for name in names} == {torch.float16}
    assert "lm_head.weight" not in names
    assert "Infinity" not in (folder / "config.json").read_text()
    model, info = Mamba2ForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert sum(parameter.numel() for parameter in model.parameters()) == report["parameters"]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    text = 'Anna, where\'s the "key"? 1945.'
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    windows = train.Windows(data, "test", "read", "cpu")
    assert train.bits_per_byte(model, windows, 32) == pytest.approx(report["test bits per byte"]["read"], abs=1e-3)


def test_some_steps_on_one_batch_learn_it(data):
    import train

    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(data / "tokenizer")
    model = train.build_model(train.Settings(**SMALL), tokenizer)
    batch = train.Windows(data, "train", "synthetic", "cpu").draw(4, 32, torch.Generator().manual_seed(0))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(40):
        optimizer.zero_grad()
        loss = train.loss_of(model, batch, 0.0)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(math.log(len(tokenizer)), abs=0.3)
    assert losses[-1] < 0.5 * losses[0]
