"""The result objects: their checks, rows, equality, dictionaries, files and tables."""

import copy
import json
import sys

import pandas as pd
import pytest
import torch
from results import capital, conserved, explanation, generation

from hf_mambalrp.errors import InputError, MissingExtraError, NonFiniteRelevanceError, OptionError
from hf_mambalrp.results.explanation import Conservation, Explanation
from hf_mambalrp.results.generation_explanation import GenerationExplanation

TEXTS = ("one two three", "日本 🙂", "x")


def full():
    """Three rows with every field set, numbers that float32 does not hold exactly, and hard text."""
    torch.manual_seed(0)
    mask = torch.tensor([[1, 1, 1], [1, 1, 0], [1, 0, 0]])
    relevance = torch.randn(3, 3) / 3 * mask
    return explanation(
        *TEXTS,
        relevance=relevance,
        target=[1, (3, 4), None],
        target_text=["a\u2028b", "\ud800", "entropy"],
        contrast=[0, 2, (5, 6)],
        contrast_text=["x", "y", "z"],
        probability=torch.rand(3),
        position=torch.tensor([2, 1, 0]),
        layer_relevance=torch.randn(4, 3, 3) * mask,
        special_tokens_mask=mask == 0,
        conservation=Conservation(torch.rand(3), relevance.sum(-1), torch.rand(3)),
    )


BUILDERS = [full, capital, generation, lambda: generation()[1]]


def test_conservation_numbers():
    kept = Conservation(torch.tensor([2.0, -4.0]), torch.tensor([1.5, -4.0]), torch.tensor([0.25, 0.0]))
    assert kept.gap.tolist() == [0.25, 0.0]
    assert kept.ratio.tolist() == [0.75, 1.0]
    assert str(kept) == (
        "sum of relevance +1.500 + biases +0.250 = 1.750 of score 2.000 (gap 0.250)\n"
        "sum of relevance -4.000 + biases 0.000 = -4.000 of score -4.000 (gap 0.000)"
    )
    assert str(kept[1]) == str(kept).splitlines()[1]
    assert kept[-2:] == kept
    assert kept[0] != kept[1]
    tiny = Conservation(torch.tensor([1.0]), torch.tensor([1.0]), torch.tensor([-(2.0**-20)]))
    assert str(tiny).endswith("biases -1e-6 = 1.000 of score 1.000 (gap 1e-6)")


def test_rows():
    ex = full()
    assert len(ex) == 3
    assert [row.texts for row in ex] == [[text] for text in TEXTS]
    assert ex[-1] == ex[2]
    assert ex[1:] == ex[[1, 2]]
    assert ex[[2, 0]].target == [None, 1]
    row = ex[1]
    assert len(row) == 1
    assert row.relevance.tolist() == [ex.relevance[1].tolist()]
    assert row.layer_relevance.shape == (4, 1, 3)
    assert torch.equal(row.layer_relevance[:, 0], ex.layer_relevance[:, 1])
    assert row.conservation.score.tolist() == [ex.conservation.score[1].item()]
    assert (row.tokens, row.target, row.contrast_text) == ([ex.tokens[1]], [(3, 4)], ["y"])
    assert (row.method, row.versions) == (ex.method, ex.versions)


@pytest.mark.parametrize("index", [3, -4, [0, 3]])
def test_rows_out_of_range(index):
    with pytest.raises(IndexError, match="there are 3 rows"):
        full()[index]


@pytest.mark.parametrize("index", ["0", 1.0, True, [True, False, True]])
def test_rows_of_another_type(index):
    with pytest.raises(TypeError, match="int, slice or list of int"):
        full()[index]


def test_no_rows_are_refused():
    with pytest.raises(InputError, match="at least one row"):
        full()[3:]


@pytest.mark.parametrize("row", [3, -4])
def test_words_of_a_missing_row(row):
    with pytest.raises(IndexError, match=f"row {row} is out of range"):
        full().words(row)
    assert full().words(-1) == full().words(2)


def test_equality_sees_every_field():
    for builder in BUILDERS:
        assert builder() == builder()
        for name in builder()._names():
            other = builder()
            value = getattr(other, name)
            if isinstance(value, torch.Tensor):
                value = value.clone().flatten()
                value[-1] = 0 if value[-1] else 1
                object.__setattr__(other, name, value.view_as(getattr(other, name)))
            elif isinstance(value, Conservation):
                other.conservation = Conservation(value.score, value.relevance, value.biases + 1)
            else:
                setattr(other, name, None if value else "something")
            assert other != builder(), name
    assert full() != "text"
    assert full()[0] != generation()
    with pytest.raises(TypeError, match="unhashable"):
        hash(full())


@pytest.mark.parametrize("builder", BUILDERS)
def test_save_and_load_are_exact(builder, tmp_path):
    ex = builder()
    ex.save(tmp_path / "a" / "b")
    assert sorted(path.name for path in (tmp_path / "a" / "b").iterdir()) == [
        "explanation.json", "explanation.safetensors",
    ]  # fmt: skip
    loaded = type(ex).load(str(tmp_path / "a" / "b"))
    assert loaded == ex
    assert repr(loaded) == repr(ex)
    for name in ("relevance", "score", "probability"):
        assert getattr(loaded, name).numpy().tobytes() == getattr(ex, name).numpy().tobytes()
    if isinstance(ex, Explanation):
        assert [type(target) for target in loaded.target] == [type(target) for target in ex.target]
        assert isinstance(loaded.offsets[0][0], tuple)


def test_save_keeps_what_is_not_contiguous_and_what_is_shared(tmp_path):
    base = full()
    shared = explanation("a b", relevance=torch.ones(2, 1).T, layer_relevance=torch.rand(3, 2, 2).mT[:, :1])
    shared.conservation = Conservation(shared.score, shared.score, shared.score)
    shared.save(tmp_path)
    assert Explanation.load(tmp_path) == shared
    base.save(tmp_path)
    assert Explanation.load(tmp_path) == base


def test_no_pickle_is_written(tmp_path):
    full().save(tmp_path)
    for path in tmp_path.iterdir():
        assert not path.read_bytes().startswith((b"\x80", b"PK"))
    json.loads((tmp_path / "explanation.json").read_text())


@pytest.mark.parametrize("builder", BUILDERS)
@pytest.mark.parametrize("indent", [None, 2])
def test_json_round_trip(builder, indent, tmp_path):
    ex = builder()
    text = ex.to_json(tmp_path / "ex.json", indent=indent)
    assert (tmp_path / "ex.json").read_text() == text
    assert json.loads(text) == ex.to_dict()
    assert json.loads(text)["format"] == 2
    assert type(ex).from_dict(json.loads(text)) == ex
    assert type(ex).from_dict(ex.to_dict()) == ex


def test_dictionary_holds_plain_types():
    def check(value):
        assert type(value) in (dict, list, str, int, float, bool, type(None)), value
        for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            check(item)

    check(full().to_dict())
    check(generation().to_dict())
    assert "layer_relevance" in full().to_dict()
    data = capital().to_dict()
    assert "layer_relevance" not in data
    assert data["class"] == "Explanation"
    assert data["relevance"] == [[0.25, 3.0, -0.25, 8.0, 0.5]]
    assert data["conservation"] == {"score": [11.25], "relevance": [11.5], "biases": [-0.25]}
    assert data["offsets"][0] == [[0, 3], [3, 11], [11, 14], [14, 21], [21, 24]]


def damage(folder, name, change):
    path = folder / name
    path.write_bytes(change(path.read_bytes()))


def fields(change):
    def edit(raw):
        data = json.loads(raw)
        change(data)
        return json.dumps(data).encode()

    return edit


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("explanation.json", lambda raw: raw[:40], "is damaged"),
        ("explanation.json", lambda raw: b"\xff" + raw, "is damaged"),
        ("explanation.json", lambda raw: b"[]", "no 'format' number"),
        ("explanation.json", fields(lambda data: data.pop("format")), "no 'format' number"),
        ("explanation.json", fields(lambda data: data.update(format=3)), "format 3.*up to 2.*upgrade"),
        ("explanation.json", fields(lambda data: data.pop("tokens")), "damaged: KeyError..tokens"),
        ("explanation.json", fields(lambda data: data.pop("conservation")), "damaged: KeyError..conservation"),
        ("explanation.json", fields(lambda data: data["tokens"].pop()), r"tokens has shape \(2, 3\).*\(3, 3\)"),
        ("explanation.json", fields(lambda data: data.update(target=7)), "damaged"),
        ("explanation.safetensors", lambda raw: raw[:-5], "is damaged"),
        ("explanation.safetensors", lambda raw: b"garbage", "is damaged"),
    ],
)
def test_damaged_directories(name, change, message, tmp_path):
    full().save(tmp_path)
    damage(tmp_path, name, change)
    with pytest.raises(InputError, match=message):
        Explanation.load(tmp_path)


def test_missing_directories(tmp_path):
    with pytest.raises(InputError, match=r"nowhere is no saved Explanation: explanation\.json is missing"):
        Explanation.load(tmp_path / "nowhere")
    full().save(tmp_path)
    (tmp_path / "explanation.safetensors").unlink()
    with pytest.raises(InputError, match=r"explanation\.safetensors is missing"):
        Explanation.load(tmp_path)
    with pytest.raises(InputError, match="is a file"):
        full().save(tmp_path / "explanation.json")


def test_the_other_kind_is_refused(tmp_path):
    full().save(tmp_path)
    with pytest.raises(InputError, match="a saved 'Explanation', not a GenerationExplanation"):
        GenerationExplanation.load(tmp_path)


def test_an_interrupted_save_does_not_load(tmp_path, monkeypatch):
    full().save(tmp_path)

    def interrupted(tensors, path):
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr("hf_mambalrp.results.serialization.save_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        full().save(tmp_path)
    with pytest.raises(InputError, match=r"explanation\.json is missing"):
        Explanation.load(tmp_path)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"attention_mask": torch.ones(1, 4)}, r"attention_mask has shape \(1, 4\).*relevance has shape \(1, 5\)"),
        ({"tokens": [["a", "b"]]}, r"tokens has shape \(1, 2\), but relevance has shape \(1, 5\): expected \(B, L\)"),
        ({"tokens": [["a"] * 5] * 2}, r"tokens has shape \(2, 5\)"),
        ({"input_ids": torch.ones(5)}, r"input_ids has shape \(5,\)"),
        ({"score": torch.ones(2)}, r"score has shape \(2,\)"),
        ({"score": None}, "score is missing"),
        ({"score": [1.0]}, "score is a list; it must be a tensor"),
        ({"target_text": ["a", "b"]}, r"target_text has shape \(2,\)"),
        ({"layer_relevance": torch.ones(1, 5)}, r"layer_relevance has shape \(1, 5\).*\(N, B, L\)"),
        ({"conservation": conserved(torch.ones(2, 5))}, r"conservation has shape \(2,\)"),
        ({"offsets": [[(0, 1)]]}, r"offsets has shape \(1, 1\)"),
        ({"texts": None}, "offsets are spans in texts"),
        ({"attention_mask": torch.tensor([[1, 1, 1, 1, 0]])}, r"padding has relevance .* = \(0, 4\)"),
    ],
)
def test_fields_that_disagree(wrong, message):
    good = {name: getattr(capital(), name) for name in Explanation._names()}
    with pytest.raises(InputError, match=message):
        Explanation(**{**good, **wrong})


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite(bad):
    good = {name: getattr(capital(), name) for name in Explanation._names()}
    relevance = good["relevance"].clone()
    relevance[0, 3] = bad
    with pytest.raises(NonFiniteRelevanceError, match=rf"relevance holds {bad} at \(B, L\) = \(0, 3\)"):
        Explanation(**{**good, "relevance": relevance})


def test_tensors_are_normalised():
    relevance = torch.tensor([[1.0, 2.0]], dtype=torch.float64, requires_grad=True)
    ex = explanation("a b", relevance=relevance, attention_mask=torch.ones(1, 2, dtype=torch.bool))
    assert ex.relevance.dtype == torch.float32
    assert not ex.relevance.requires_grad
    assert ex.attention_mask.dtype == torch.int64
    assert ex.score.dtype == torch.float32
    copy.deepcopy(ex)


def test_pandas():
    ex = explanation("a b c", "d e", relevance=torch.tensor([[1.0, -2.0, 1.0], [0.0, 0.0, 0.0]]))
    table = ex.to_pandas()
    assert list(table.columns) == [
        "row", "position", "token", "token_id", "start", "end", "relevance", "relevance_share", "target", "score",
        "method",
    ]  # fmt: skip
    assert table["token"].tolist() == ["a", " b", " c", "d", " e"]
    assert table["row"].tolist() == [0, 0, 0, 1, 1]
    assert table["position"].tolist() == [0, 1, 2, 0, 1]
    assert table["token_id"].tolist() == [0, 1, 2, 0, 1]
    assert table[["start", "end"]].values.tolist() == [[0, 1], [1, 3], [3, 5], [0, 1], [1, 3]]
    assert table["relevance_share"].tolist() == [0.25, 0.5, 0.25, 0, 0]
    assert table["target"].unique().tolist() == ["positive"]
    assert table["score"].tolist() == [0.0] * 5
    bare = explanation("a b", input_ids=None, offsets=None, texts=None).to_pandas()
    assert bare[["token_id", "start", "end"]].isna().all(axis=None)
    assert isinstance(bare, pd.DataFrame)


def test_pandas_is_optional(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MissingExtraError, match=r'pip install "hf_mambalrp\[pandas\]"'):
        capital().to_pandas()


def test_repr():
    assert repr(capital()) == (
        "Explanation of 1 row: mambalrp on me/mamba\n"
        "[0] speaks for “Paris” rather than “London”\n"
        "    score (logit of “Paris” minus “London”) 11.250, probability of “Paris” 75.0%, "
        "prediction after position 4\n"
        "    top words: France +8.000, capital +3.000, is +0.500, The +0.250, of -0.250\n"
        "    sum of relevance +11.500 + biases -0.250 = 11.250 of score 11.250 (gap 0.000)"
    )
    many = repr(explanation(*["a b"] * 6))
    assert many.startswith("Explanation of 6 rows")
    assert many.endswith("... and 3 more rows")
    assert "[2]" in many
    assert "[3]" not in many


def test_generation_steps():
    gen = generation()
    assert len(gen) == 2
    first = gen.step(0)
    assert first.relevance.tolist() == [[1.0, 2.0], [0.0, 4.0]]
    assert first.tokens == [["The", " cat"], ["<pad>", "Hi"]]
    assert (first.target, first.target_text) == ([2, 7], [" sat", " there"])
    assert first.position.tolist() == [1, 1]
    assert first.score.tolist() == [3.0, 4.0]
    assert first.conservation.gap.tolist() == [0.0, 0.0]
    assert [word.text for word in first.words(1)] == ["Hi"]
    last = gen.step(-1)
    assert last == gen.step(2)
    assert last.relevance.tolist() == [[0.25] * 4, [0.0] * 4]
    assert gen[1].step(1).relevance.tolist() == [[0.0, 1.0, -2.0]]
    assert [gen.generated(0), gen.generated(1)] == [[0, 1, 2], [0, 1]]
    with pytest.raises(IndexError):
        gen.step(3)
    assert repr(gen) == (
        "GenerationExplanation of 2 rows: mambalrp on me/mamba\n"
        "[0] 3 generated tokens:  sat down. (largest gap 0.000)\n"
        "[1] 2 generated tokens:  there<eos> (largest gap 0.000)"
    )


def test_generation_steps_know_their_text():
    text = "The cat sat down."
    offsets = [[(0, 3), (3, 7), (7, 11), (11, 16), (16, 17)]] * 2
    gen = generation(texts=[text, text], offsets=offsets)
    assert [word.text for word in gen.step(2).words()] == ["The", "cat", "sat", "down"]


def test_a_span_of_a_generation_is_the_sum_of_its_steps():
    gen = generation()
    for t in range(3):
        assert gen.span(t, t + 1) == gen.step(t)
    whole = gen.span()
    assert whole == gen.span(0, 3) == gen.span(-3)
    assert whole.relevance.tolist() == [[1.75, 1.25, 3.25, 0.25], [0.0, 5.0, -2.0, 0.0]]
    assert whole.score.tolist() == whole.conservation.score.tolist() == [6.5, 3.0]
    assert whole.probability.tolist() == [0.5 * 0.25 * 0.125, 0.5 * 0.25], "of the steps that a row took"
    assert whole.target == [(2, 3, 4), (7, 8)]
    assert whole.target_text == [" sat down.", " there<eos>"]
    assert whole.position.tolist() == [1, 1]
    assert whole.attention_mask.tolist() == [[1, 1, 1, 1], [0, 1, 1, 0]], "what a row has before its last token"
    assert [word.text for word in whole.words(1)] == ["Hi", "there"]
    later = gen.span(1)
    assert later.relevance.tolist() == [[0.75, -0.75, 3.25, 0.25], [0.0, 1.0, -2.0, 0.0]]
    assert (later.target, later.position.tolist()) == ([(3, 4), 8], [2, 2])
    assert gen.span(2).score.tolist() == [1.0, 0.0], "the second row had ended"
    for empty in ((2, 2), (3, None), (-1, -2)):
        with pytest.raises(IndexError, match="there are 3"):
            gen.span(*empty)


def test_a_generation_has_the_words_and_tables_of_its_steps():
    gen = generation()
    assert gen.words() == gen.span().words()
    assert [(word.text, word.relevance) for word in gen.top(2)] == [("sat", 3.25), ("The", 1.75)]
    assert [word.text for word in gen.top(2, 1, by="negative")] == ["there"]
    table = gen.to_pandas()
    assert table.columns.tolist()[:4] == ["row", "step", "position", "token"]
    assert table[["row", "step"]].value_counts(sort=False).to_dict() == {
        **{(0, 0): 2, (0, 1): 3, (0, 2): 4},
        **{(1, 0): 1, (1, 1): 2},
    }
    second = table[(table.row == 0) & (table.step == 1)]
    assert second.relevance.tolist() == [0.5, -1.0, 3.0]
    assert second.token.tolist() == ["The", " cat", " sat"]
    assert set(second.target) == {" down"}
    assert gen.to_pandas(level="word")["word"].tolist()[:2] == ["The", "cat"]
    nothing = generation(attention_mask=torch.tensor([[1, 1, 0, 0, 0]] * 2), relevance=torch.zeros(2, 3, 5))
    with pytest.raises(InputError, match="no row generated a token"):
        nothing.to_pandas()


def test_sentences_of_a_generation():
    text = "Hi. A cat sat. It ran. x"
    spans = [(0, 2), (2, 3), (3, 5), (5, 9), (9, 13), (13, 14), (14, 17), (17, 21), (21, 22), (22, 24)]
    tokens = [text[start:end] for start, end in spans]
    zeros = torch.zeros(1, 8, 10)
    placed = {"texts": [text], "offsets": [spans]}
    for fields in (placed, {}):  # by the text, and where tokens have no place in one
        gen = generation(
            relevance=zeros,
            tokens=[tokens],
            input_ids=torch.arange(10)[None],
            attention_mask=torch.ones(1, 10),
            score=zeros[..., 0],
            probability=zeros[..., 0],
            conservation=conserved(zeros),
            **fields,
        )
        assert gen.sentences() == [range(4), range(4, 7), range(7, 8)]
        assert [gen.span(part.start, part.stop).target_text[0].strip() for part in gen.sentences()] == [
            *("A cat sat.", "It ran.", "x"),
        ]


def test_a_contrast_of_a_generation_is_kept_and_shown():
    others = [[" stood", " up", "!"], [" you", "<eos>", ""]]
    gen = generation(contrast_ids=torch.tensor([[20, 21, 22], [23, 24, 0]]), contrast_tokens=others)
    assert GenerationExplanation.from_dict(json.loads(gen.to_json())) == gen
    assert "contrast_ids" not in generation().to_dict()
    first = gen.step(0)
    assert (first.contrast, first.contrast_text) == ([20, 23], [" stood", " you"])
    assert gen.span(0, 2).contrast == [(20, 21), (23, 24)]
    assert gen.span(0, 2).contrast_text == [" stood up", " you<eos>"]
    assert first.document().sections[0].blocks[0].text == "What speaks for “sat” rather than “stood”?"
    assert "sat rather than stood" in gen.to_text(width=120)
    assert "“sat”: rather than stood, score 3.000" in gen.to_html()
    assert "rather than its contrast?" in gen.to_html()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"prompt_length": 3}, "prompt_length=3 and 3 steps need 6 positions"),
        ({"relevance": torch.ones(2, 3, 5)}, r"future token has relevance at .* = \(0, 0, 2\)"),
        ({"attention_mask": torch.zeros(2, 5)}, r"padding .* = \(0, 0, 0\)"),
        ({"score": torch.zeros(2, 2)}, r"score has shape \(2, 2\).*\(B, T\) with"),
        ({"offsets": [[(0, 1)] * 5] * 2}, "texts is None"),
    ],
)
def test_generation_fields_that_disagree(wrong, message):
    with pytest.raises(InputError, match=message):
        generation(**wrong)


def test_explanations_are_joined_and_padded():
    one, two = explanation("a b c d"), explanation("e f", "g h i")
    joined = Explanation.concat(iter([one, two]))
    assert len(joined) == 3
    assert joined.relevance.tolist() == [[-1, 0, 1, 2], [-1, 0, 0, 0], [-1, 0, 1, 0]]
    assert joined.attention_mask.tolist() == [[1, 1, 1, 1], [1, 1, 0, 0], [1, 1, 1, 0]]
    assert joined.tokens[2] == ["g", " h", " i", ""]
    assert joined.offsets[1] == [(0, 1), (1, 3), (0, 0), (0, 0)]
    assert joined.texts == ["a b c d", "e f", "g h i"]
    assert joined.conservation.relevance.tolist() == [2, -1, 0]
    for row, alone in enumerate((one[0], two[0], two[1])):
        assert joined.words(row) == alone.words()
    assert Explanation.concat([one]) == one
    assert Explanation.concat(two) == two, "the rows of one"


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ([], "nothing to join"),
        ([explanation("a"), 3], "got a int among its parts"),
        ([explanation("a"), explanation("b", method="random")], "different method"),
        ([explanation("a"), explanation("b", model_id="other")], "different model_id"),
        ([explanation("a"), explanation("b", probability=None)], "with probability and parts without"),
        ([explanation("a", layer_relevance=torch.zeros(n, 1, 1)) for n in (2, 3)], "layer_relevance"),
    ],
)
def test_what_does_not_belong_together_is_not_joined(parts, words):
    with pytest.raises(InputError, match=words):
        Explanation.concat(parts)


def test_a_table_has_rows_ids_and_words():
    ex = explanation("fine film", "dull", index=[4, 9], ids=["a", "b"], columns=[{"label": 1}, {"label": 0}])
    table = ex.to_pandas(level="word")
    assert list(zip(table["row"], table["id"], table["label"], table["word"], strict=True)) == [
        (4, "a", 1, "fine"), (4, "a", 1, "film"), (9, "b", 0, "dull"),
    ]  # fmt: skip
    assert explanation("a b", "c").to_pandas()["row"].tolist() == [0, 0, 1]
    with pytest.raises(OptionError, match="'letter'"):
        ex.to_pandas(level="letter")
