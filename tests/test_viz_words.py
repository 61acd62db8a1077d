"""Tokens become words without losing relevance, whatever the tokenizer does with spaces and bytes."""

import math
import time
import unicodedata
from itertools import pairwise

import pytest
import torch
from results import byte_level, explanation
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

from hf_mambalrp.errors import OptionError
from hf_mambalrp.viz.segments import kinds, segments
from hf_mambalrp.viz.wording import label, shorten, signed, visible
from hf_mambalrp.viz.words import layout, merge_words, token_words

CORPUS = "The film is brilliant, moving and it is slow. Don't!"
BYTE_LEVELS = [(trim, prefix) for trim in (None, True, False) for prefix in (True, False)]


def encoded(tokenizer, text):
    """An explanation of one text with relevance 1, 2, 4, 8, ... so that every sum tells which tokens are in it."""
    encoding = tokenizer.encode(text)
    count = len(encoding.ids)
    relevance = (2.0 ** torch.arange(count).double()).float()[None]
    return explanation(
        "x",
        relevance=relevance,
        tokens=[[tokenizer.decode([i], skip_special_tokens=False) for i in encoding.ids]],
        input_ids=torch.tensor([encoding.ids]),
        attention_mask=torch.ones(1, count),
        offsets=[encoding.offsets],
        texts=[text],
    )


def assert_complete(ex):
    words = ex.words()
    used = [i for word in words for i in word.tokens]
    assert used == list(range(ex.relevance.shape[1])), "every token is in exactly one word, in order"
    for word in words:
        assert word.relevance == sum(ex.relevance[0, i].item() for i in word.tokens)
    assert math.fsum(word.relevance for word in words) == ex.relevance[0].double().sum().item()


@pytest.mark.parametrize(("trim", "prefix"), BYTE_LEVELS)
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The film is brilliant, moving.", ["The", "film", "is", "brilliant", ",", "moving", "."]),
        ("Don't! (film)", ["Don't", "!", "(", "film", ")"]),
        ("I 🙂 it 👩‍🚀!", ["I", "🙂", "it", "👩‍🚀", "!"]),
        ("été 日本 naïve", ["été", "日", "本", "naïve"]),
        ("この映画は、とても好きABC。", [*"この映画は、とても好き", "ABC", "。"]),
        ("한국 영화", ["한국", "영화"]),
    ],
)
def test_byte_level_words(trim, prefix, text, expected):
    ex = encoded(byte_level(CORPUS, trim_offsets=trim, add_prefix_space=prefix), text)
    words = ex.words()
    assert [word.text for word in words] == expected
    assert [text[word.start : word.end] for word in words] == expected
    assert_complete(ex)


@pytest.mark.parametrize(("trim", "prefix"), BYTE_LEVELS)
def test_white_space_of_its_own_stays_alone(trim, prefix):
    ex = encoded(byte_level(CORPUS, trim_offsets=trim, add_prefix_space=prefix), "  The film\n\nis  slow ")
    assert [word.text for word in ex.words() if word.text.strip()] == ["The", "film", "is", "slow"]
    blank = [word.text for word in ex.words() if not word.text.strip()]
    assert blank.count("\n") == 2
    assert 4 <= len(blank) <= 6
    assert_complete(ex)


@pytest.mark.parametrize(("trim", "prefix"), BYTE_LEVELS)
def test_special_token_inside_the_text(trim, prefix):
    tokenizer = byte_level(CORPUS, trim_offsets=trim, add_prefix_space=prefix)
    ex = encoded(tokenizer, "film<|endoftext|> slow")
    ex.special_tokens_mask = ex.input_ids == tokenizer.token_to_id("<|endoftext|>")
    assert [word.text for word in ex.words() if word.text.strip()] == ["film", "<|endoftext|>", "slow"]
    assert_complete(ex)


def test_several_tokens_of_one_character():
    tokens, offsets = ["<s>", " �", "�", "�", " ok", "</s>"], [(0, 0), (1, 3), (2, 3), (2, 3), (3, 6), (0, 0)]
    relevance = [0.5, 1.0, 2.0, 4.0, 8.0, 16.0]
    words = merge_words(tokens, relevance, range(6), special=[False] * 6, offsets=offsets, text="I 🙂 ok")
    assert [(word.text, word.relevance, word.tokens) for word in words] == [
        ("<s>", 0.5, (0,)),
        ("🙂", 7.0, (1, 2, 3)),
        ("ok", 8.0, (4,)),
        ("</s>", 16.0, (5,)),
    ]
    assert [(word.start, word.end) for word in words] == [(0, 0), (2, 3), (4, 6), (0, 0)]


@pytest.mark.parametrize("trimmed", [True, False])
def test_a_space_before_a_word_belongs_to_it_and_other_white_space_does_not(trimmed):
    text, tokens = "a (b)  c\nd", ["a", " ", "(b", ")", " ", " c", "\n", "d"]
    offsets = [(0, 1), (1, 2), (2, 4), (4, 5), (5, 6), (6, 8), (8, 9), (9, 10)]
    if trimmed:
        offsets[1], offsets[4], offsets[5] = (2, 2), (6, 6), (7, 8)
    expected = [
        ("a", 1, (0,)),
        ("(b", 6, (1, 2)),
        (")", 8, (3,)),
        (" ", 16, (4,)),
        ("c", 32, (5,)),
        ("\n", 64, (6,)),
        ("d", 128, (7,)),
    ]
    relevance = [1.0, 2, 4, 8, 16, 32, 64, 128]
    for places, source in ((offsets, text), (None, None)):
        words = merge_words(tokens, relevance, range(8), special=[False] * 8, offsets=places, text=source)
        assert [(word.text, word.relevance, word.tokens) for word in words] == expected
        if source:
            assert [text[word.start : word.end] for word in words if word.text.strip()] == ["a", "(b", ")", "c", "d"]


@pytest.mark.parametrize("left", [True, False])
def test_padding_is_in_no_word(left):
    pad = ([(0, 0)], ["<pad>"], [0])
    real = ([(0, 2), (2, 4), (4, 7)], ["fi", "lm", " ok"], [1, 1, 1])
    offsets, tokens, mask = (a + b if left else b + a for a, b in zip(pad, real, strict=True))
    mask = torch.tensor([mask])
    relevance = torch.tensor([[1.0, 2, 4, 8]]) * mask
    ex = explanation(
        "x", relevance=relevance, tokens=[tokens], input_ids=None, attention_mask=mask, offsets=[offsets],
        texts=["film ok"],
    )  # fmt: skip
    assert [word.text for word in ex.words()] == ["film", "ok"]
    assert [word.relevance for word in ex.words()] == ([6.0, 8.0] if left else [3.0, 4.0])
    assert ex.words()[0].tokens == ((1, 2) if left else (0, 1))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A dull film.", "A dull film ."),
        ("“Wow!!! (really?)”, he said…", "“ Wow !!! ( really ? ) ” , he said …"),
        ("wait...what?! film.It -- no—yes", "wait ... what ? ! film . It -- no — yes"),
        ("don't rock'n'roll it’s 'tis dogs' ‘so’", "don't rock'n'roll it’s ' tis dogs ' ‘ so ’"),
        ("well-known -5 pre- non‑stop snake_case __x", "well-known - 5 pre - non‑stop snake_case __ x"),
        ("3.14 1,000,000 10:30 8/10 v1.2 5% $9 2021.", "3.14 1,000,000 10:30 8/10 v1.2 5 % $ 9 2021 ."),
        ("U.S.-based, e.g. a.m. Mr. I. am", "U.S. - based , e.g. a.m. Mr . I . am"),
        ("(http://a.b/c?d=1&e=f), www.x.org. Me@x.co.uk!", "( http://a.b/c?d=1&e=f ) , www.x.org . Me@x.co.uk !"),
        ("#great @you_2 # C# C++ R2-D2", "#great @you_2 # C # C ++ R2-D2"),
        ("👍👍🏽! 👨‍👩‍👧 🇩🇪🇫🇷 1️⃣ ❤️‍🔥", "👍👍🏽 ! 👨‍👩‍👧 🇩🇪 🇫🇷 1️⃣ ❤️‍🔥"),
        ("हिन्दी फ़िल्म। می‌خواهم؟ ไม่", "हिन्दी फ़िल्म । می‌خواهم ؟ ไ ม่"),
        (unicodedata.normalize("NFD", "café, 좋다."), unicodedata.normalize("NFD", "café , 좋다 .")),
    ],
)
def test_segments(text, expected):
    assert [text[start:end] for start, end in segments(kinds(text))] == expected.split(" ")


@pytest.mark.parametrize("part", ["ACGT", "a@", "a.b-", "www.", "b.", "😀\u200d", "e\u0301", "l://"])
def test_a_long_text_without_white_space_takes_no_longer_than_as_much_in_short_ones(part):
    def seconds(text, times):
        began = time.thread_time()
        for _ in range(times):
            assert "".join(text[start:end] for start, end in segments(kinds(text))) == text
        return time.thread_time() - began

    short = seconds(part * 500, times=100)
    assert seconds(part * 50_000, times=1) < 30 * short, "a quadratic search would take a hundred times as long"


def test_a_token_of_a_word_and_punctuation_is_not_split():
    """Of a tokenizer that has "film." and "New York" in its vocabulary."""
    text, offsets = "A film. New York!?", [(0, 1), (1, 7), (7, 16), (16, 17), (17, 18)]
    words = merge_words(["A", " film.", " New York", "!", "?"], [1.0, 2, 4, 8, 16], range(5), special=[False] * 5,
                        offsets=offsets, text=text)  # fmt: skip
    assert [(word.text, word.relevance, word.start, word.end) for word in words] == [
        ("A", 1, 0, 1), ("film.", 2, 2, 7), ("New York", 4, 8, 16), ("!", 8, 16, 17), ("?", 16, 17, 18),
    ]  # fmt: skip


NORMALIZERS = {
    "NFC": normalizers.NFC(),
    "NFD": normalizers.NFD(),
    "NFKC": normalizers.NFKC(),
    "lower case": normalizers.Lowercase(),
    "no accents": normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents()]),
    "BERT": normalizers.BertNormalizer(),
    "no emoji": normalizers.Replace(Regex(r"[\U0001F300-\U0001FAFF\u200d]"), ""),
    "a word less": normalizers.Replace("leads", ""),
}
HARD = [
    "café", "cafe\u0301 noir", unicodedata.normalize("NFD", "좋다, très naïve Việt!"), "ﬁlm ½ Ⅻ ①", "İstanbul ẞ",
    "good🙂film 👩‍🚀, 🇩🇪 1️⃣ end", "two leads are", "a\u0301\u0301\u0301b x\u0000y a\u00adb", "한국 日本。は、 ไม่ดี",
]  # fmt: skip


@pytest.mark.parametrize("name", NORMALIZERS)
@pytest.mark.parametrize("splits", ["bytes", "characters", "words"])
def test_words_cover_every_character(name, splits):
    """Whatever the tokenizer leaves out of its spans, of all between the first character covered and the last."""
    for text in HARD:
        if splits == "bytes":
            tokenizer = byte_level(CORPUS, trim_offsets=False, add_prefix_space=False)
        else:
            tokenizer = Tokenizer(models.WordLevel({"?": 0}, unk_token="?"))
            behavior = "isolated" if splits == "characters" else "removed"
            tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"." if splits == "characters" else r"\s+"), behavior)
        tokenizer.normalizer = NORMALIZERS[name]
        ex = encoded(tokenizer, text)
        assert_complete(ex)
        words = ex.words()
        spans = [(word.start, word.end) for word in words if word.start < word.end]
        assert spans == sorted(spans)
        assert all(end <= start for (_, end), (start, _) in pairwise(spans)), "no character is in two words"
        covered = [place for span in spans for place in range(*span)]
        first = min(start for start, end in ex.offsets[0] if start < end)
        last = max(end for _, end in ex.offsets[0])
        left_out = {*range(first, last)} - {*covered}
        assert "".join(text[i] for i in left_out).strip() == ""
        assert all(text[start:end] == text[start:end].strip() for start, end in spans if text[start:end].strip())


def test_words_keep_accents_that_the_tokenizer_takes_away():
    tokenizer = byte_level(CORPUS, trim_offsets=True, add_prefix_space=False)
    for name in ("NFC", "no accents"):
        tokenizer.normalizer = NORMALIZERS[name]
        for text in ("cafe\u0301", unicodedata.normalize("NFD", "좋다 좋다"), "un cafe\u0301 noir"):
            words = encoded(tokenizer, text).words()
            assert [word.text for word in words] == text.split()
            shown = "".join(before + word for before, word, _ in layout(words, text, "word"))
            assert shown == text


def test_a_word_that_the_tokenizer_leaves_out_has_no_tokens_and_no_relevance():
    text, tokens, offsets = "a good🙂 film 🙂", ["a", "good", "film"], [(0, 1), (2, 6), (8, 12)]
    words = merge_words(tokens, [1.0, 2, 4], range(3), special=[False] * 3, offsets=offsets, text=text)
    assert [(word.text, word.relevance, word.tokens) for word in words] == [
        ("a", 1, (0,)), ("good", 2, (1,)), ("🙂", 0, ()), ("film", 4, (2,)),
    ]  # fmt: skip
    assert "".join(before + word for before, word, _ in layout(words, text, "word")) == "a good🙂 film"
    token_level = token_words(tokens, [1.0, 2, 4], range(3), offsets)
    assert [before + word for before, word, _ in layout(token_level, text, "token")] == ["a", " good", "… film"]


@pytest.mark.parametrize(("length", "merges"), [(1, True), (7, True), (8, False), (300, False)])
def test_letters_of_a_row_without_white_space(length, merges):
    """DNA, a token a letter: one word would have the row's sum and say nothing."""
    text = ("ACGT" * length)[:length]
    ex = explanation(text, pattern=".")
    assert [word.text for word in ex.words()] == ([text] if merges else list(text))
    between = explanation(f"read {text}.", pattern=" ?.")
    assert [word.text for word in between.words()] == ["read", *([text] if length < 40 else list(text)), "."]


def test_parts_of_a_character_stay_together_in_a_row_without_white_space():
    text = "e\u0301🇩🇪👩‍🚀" + "x" * 60
    pieces = merge_words([*text], [1.0] * len(text), range(len(text)), special=[False] * len(text), text=text,
                         offsets=[(i, i + 1) for i in range(len(text))])  # fmt: skip
    assert [word.text for word in pieces] == ["e\u0301", "🇩🇪", "👩‍🚀", *"x" * 60]


def test_a_token_without_a_span_inside_a_word_is_of_it_and_a_special_one_is_not():
    tokens, offsets = ["fi", "", "lm", " x"], [(0, 2), (0, 0), (2, 4), (4, 6)]
    for special, expected in ((False, ["film", "x"]), (True, ["fi", "<s>", "lm", "x"])):
        tokens[1] = "<s>" if special else ""
        words = merge_words(tokens, [1.0, 2, 4, 8], range(4), special=[False, special, False, False], offsets=offsets,
                            text="film x")  # fmt: skip
        assert [word.text for word in words] == expected
        assert [i for word in words for i in word.tokens] == [0, 1, 2, 3]
    spans = [(word.start, word.end) for word in words]
    assert spans == [(0, 2), (0, 0), (2, 4), (5, 6)]


@pytest.mark.parametrize("mark", ["Ġ", "▁", " "])
def test_without_offsets_white_space_of_the_tokens_decides(mark):
    tokens = ["The", f"{mark}fi", "lm,", mark, f"{mark}is", "<end>", "new"]
    special = [False] * 5 + [True, False]
    words = merge_words(tokens, [1.0, 2, 4, 8, 16, 32, 64], range(7), special=special, offsets=None, text=None)
    assert [(word.text, word.relevance) for word in words] == [
        ("The", 1), ("film,", 6), (" ", 8), ("is", 16), ("<end>", 32), ("new", 64),
    ]  # fmt: skip


def test_the_maltese_letter_is_no_space():
    offsets = [(0, 1), (1, 4), (4, 7)]
    words = merge_words(
        ["Ġ", "orġ", " hu"], [1.0, 2, 4], range(3), special=[False] * 3, offsets=offsets, text="Ġorġ hu"
    )
    assert [(word.text, word.start) for word in words] == [("Ġorġ", 0), ("hu", 5)]


def test_without_any_white_space_nothing_merges():
    words = merge_words(["#3", "#14", "#15"], [1.0, 2, 4], range(3), special=[False] * 3, offsets=None, text=None)
    assert [word.text for word in words] == ["#3", "#14", "#15"]


def test_top_orders_by_strength():
    ex = explanation("a b c d", relevance=torch.tensor([[1.0, -3.0, 2.0, 0.0]]))
    assert [word.text for word in ex.top()] == ["b", "c", "a", "d"]
    assert [word.text for word in ex.top(2)] == ["b", "c"]
    assert [word.text for word in ex.top(by="positive")] == ["c", "a"]
    assert [word.text for word in ex.top(by="negative")] == ["b"]
    assert [word.text for word in ex.top(1, level="token")] == [" b"]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda ex: ex.top(0), r"k=0 .* at least 1"),
        (lambda ex: ex.top(by="size"), r"by='size' .* 'abs', 'positive', 'negative'"),
        (lambda ex: ex.words(level="char"), r"level='char' .* 'word', 'token'"),
        (lambda ex: ex.to_html(level="char"), r"level='char'"),
    ],
)
def test_bad_options_are_named(call, message):
    with pytest.raises(OptionError, match=message):
        call(explanation("a b"))


@pytest.mark.parametrize(
    "text", ["The film is  slow.", " a\n\nb", "a\tb\nc", "Don't <b>", "ünï 🙂 x", "one", "a\u00a0b"]
)
@pytest.mark.parametrize("level", ["word", "token"])
def test_layout_reads_like_the_text(text, level):
    ex = explanation(text)
    shown = "".join(before + word for before, word, _ in layout(ex.words(level=level), text, level))
    plain = text.replace("\u00a0", " ")
    shown = shown.replace("⏎", "").replace("␣", "").replace("⇥", " ")
    assert shown.split() == plain.split()
    assert shown.count("\n") == plain.count("\n")


def test_layout_of_words_without_places():
    """A text without offsets, and offsets that reach beyond a text: a dataset keeps only the input of a row."""
    expected = ["The", " film", " is", " slow"]
    tokens, spans = [["The", " fi", "lm", " is", " slow"]], [[(0, 3), (3, 6), (6, 8), (8, 11), (11, 16)]]
    for offsets, text in ((None, "The film is slow"), (spans, "The film")):
        ex = explanation("x", relevance=torch.ones(1, 5), tokens=tokens, input_ids=None, offsets=offsets, texts=[text],
                         attention_mask=torch.ones(1, 5))  # fmt: skip
        assert [before + word for before, word, _ in layout(ex.words(), text, "word")] == expected
        shown = [before + word for before, word, _ in layout(ex.words(level="token"), text, "token")]
        assert shown == ["The", " fi", "lm", " is", " slow"]


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        (["▁The", "▁fi", "lm", ".", "▁(", "x", ")", "</s>"], "The film. (x)</s>"),
        (["A", " ", "film", "\n", "\n", "b"], "A film⏎\n⏎\nb"),
        (["#3", "#14"], "#3 #14"),
    ],
)
def test_layout_of_words_without_places_keeps_the_white_space_of_the_tokens(tokens, expected):
    special = [token == "</s>" for token in tokens]
    words = merge_words(tokens, [1.0] * len(tokens), range(len(tokens)), special=special, offsets=None, text=None)
    assert "".join(before + word for before, word, _ in layout(words, None, "word", tokens)) == expected


def test_layout_of_tokens_that_lost_their_space():
    text, spans = "The film", [[(0, 3), (4, 6), (6, 8)]]
    ex = explanation(text, pattern="The|fi|lm", offsets=spans)
    assert [before + word for before, word, _ in layout(ex.words(level="token"), text, "token")] == ["The", " fi", "lm"]


def test_layout_marks_text_without_tokens():
    ex = explanation("cut off here", offsets=[[(4, 7), (7, 12), (0, 0)]], tokens=[["off", " here", "</s>"]])
    assert [before + word for before, word, _ in layout(ex.words(), ex.texts[0], "word")] == ["… off", " here", "</s>"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain ünï 日本", "plain ünï 日本"),
        ("a\u202eb", "a⟨U+202E⟩b"),
        ("\x1b[31m\x07", "⟨U+001B⟩[31m⟨U+0007⟩"),
        ("a\x9bb\u2066\u200f", "a⟨U+009B⟩b⟨U+2066⟩⟨U+200F⟩"),
        ("\ud800", "⟨U+D800⟩"),
        ("a\u2028b", "a⟨U+2028⟩b"),
        ("a\nb\tc", "a⏎b⇥c"),
        ("  \n", "␣␣⏎"),
        ("👩\u200d🚀", "👩\u200d🚀"),
        ("", "⟨empty⟩"),
    ],
)
def test_visible(text, expected):
    assert visible(text) == expected


def test_numbers_and_labels():
    assert [signed(x) for x in (1.2, -0.05, 0.0, -0.0, 3e-6, -2.5e-12)] == [
        "+1.200", "-0.050", "0.000", "0.000", "+3e-6", "-2e-12",
    ]  # fmt: skip
    assert [label(" Paris"), label("\n"), label(" ")] == ["Paris", "⏎", "␣"]
    assert [shorten("abcdef", 6), shorten("abcdefg", 6)] == ["abcdef", "abcde…"]
