"""Tables of words against sums that are done by hand, from explanations whose relevance is given."""

from dataclasses import replace

import pytest
import torch

from hf_mambalrp import Explanation, load_explanations
from hf_mambalrp.audit import WordRow, compare, words_table
from hf_mambalrp.audit.words import whole
from hf_mambalrp.errors import InputError, OptionError
from hf_mambalrp.results.explanation import Conservation


def explained(*rows):
    """Explanations of (text, relevance of its words), the words being what white space separates."""
    found = []
    for text, relevance in rows:
        tokens, offsets, start = text.split(" "), [], 0
        for token in tokens:
            offsets.append((start, start + len(token)))
            start += len(token) + 1
        values = torch.tensor([relevance], dtype=torch.float32)
        found.append(
            Explanation(
                relevance=values,
                tokens=[tokens],
                input_ids=None,
                attention_mask=torch.ones(1, len(tokens), dtype=torch.int64),
                target=[1],
                target_text=["positive"],
                contrast=None,
                contrast_text=None,
                score=values.sum(1),
                probability=None,
                method="mambalrp",
                conservation=Conservation(values.sum(1), values.sum(1), torch.zeros(1)),
                offsets=[offsets],
                texts=[text],
            )
        )
    return found


ROWS = [
    ("Via mobile good end", [1.0, 1.0, 2.0, -4.0]),
    ("film via Mobile", [2.0, 1.0, 1.0]),
    ("good film good", [1.0, -2.0, 1.0]),
    ("end", [-5.0]),
]


def test_every_word_with_its_texts_mean_sum_and_share():
    found = {row.pattern: row[1:5] for row in words_table(explained(*ROWS), progress=False)}
    assert found["good"] == (2, 2.0, 4.0, pytest.approx((2 / 8 + 2 / 4) / 4))
    assert found["film"] == (2, 0.0, 0.0, pytest.approx((2 / 4 + 2 / 4) / 4))
    assert found["end"] == (2, -4.5, -9.0, pytest.approx((4 / 8 + 5 / 5) / 4))
    assert found["via"] == found["mobile"] == (2, 1.0, 2.0, pytest.approx((1 / 8 + 1 / 4) / 4))
    assert sum(row[-1] for row in found.values()) == pytest.approx(1.0)


def test_columns_tell_texts_apart():
    rows = [
        replace(one, columns=[{"label": label, "of": [1]}])
        for one, label in zip(explained(*ROWS), ["a", "b", "a", "a"], strict=True)
    ]
    found = words_table(rows, columns=["label"], ngrams=2, pairs=True, progress=False)
    alone = words_table([rows[0], rows[2], rows[3]], ngrams=2, pairs=True, progress=False)
    assert [row._replace(columns=()) for row in found if row.columns == ("a",)] == alone
    assert {row.pattern for row in found if row.columns == ("b",)} >= {"film", "via", "mobile", "film via"}
    both = words_table(rows, columns=["of", "label"], progress=False)
    assert {tuple(map(str, row.columns)) for row in both} == {("[1]", "a"), ("[1]", "b")}
    with pytest.raises(OptionError, match="columns='label'"):
        words_table(rows, columns="label", progress=False)
    with pytest.raises(InputError, match="has no 'stars'"):
        words_table(rows, columns=["stars"], progress=False)


def test_the_largest_share_comes_first_and_rare_words_are_left_out():
    rows = words_table(explained(*ROWS), progress=False)
    assert [row.share for row in rows] == sorted((row.share for row in rows), reverse=True)
    assert words_table(explained(*ROWS), min_texts=3, progress=False) == []


def test_runs_and_pairs_are_those_that_occur_together():
    rows = {row.pattern: row for row in words_table(explained(*ROWS), ngrams=3, pairs=True, progress=False)}
    assert rows["via mobile"][1:5] == (2, 2.0, 4.0, pytest.approx((2 / 8 + 2 / 4) / 4))
    assert ("mobile", "via") not in rows  # which is the run
    assert [pattern for pattern in rows if isinstance(pattern, tuple)] == []  # others meet by chance at most
    apart = explained(("via x mobile", [1.0, 0.0, 1.0]), ("mobile y via", [1.0, 0.0, 1.0]), ("x y", [1.0, 1.0]))
    pairs = {row.pattern: row for row in words_table(apart, pairs=True, min_texts=2, progress=False)}
    assert pairs[("mobile", "via")][1:5] == (2, 2.0, 4.0, pytest.approx(2 / 3))
    assert len(pairs) == 5  # and the four words; x and y meet once


def test_a_generator_and_one_explanation_of_several_rows_give_the_same():
    listed = explained(*ROWS)
    expected = words_table(listed, ngrams=2, progress=False)
    assert words_table(iter(listed), ngrams=2, progress=False) == expected


def test_compare_ranks_by_the_change_of_the_share():
    before = [(text, [1.0] * len(values)) for text, values in ROWS]
    found = compare(explained(*ROWS), explained(*before), progress=False)
    assert found[0].word == "film"
    assert found[0][1:] == (2, pytest.approx(0.25), pytest.approx(1 / 6), pytest.approx(1 / 12))
    assert [change.change for change in found] == sorted((change.change for change in found), reverse=True)
    assert sum(change.change for change in found) == pytest.approx(0.0)


def test_other_texts_are_not_compared():
    with pytest.raises(InputError, match="differ at number 1"):
        compare(explained(*ROWS), explained(ROWS[0], ROWS[2]), progress=False)
    with pytest.raises(InputError, match="differ at number 3"):
        compare(explained(*ROWS), explained(*ROWS[:3]), progress=False)


def test_what_holds_no_explanations_is_refused(tmp_path):
    with pytest.raises(InputError, match="no explanations"):
        words_table([], progress=False)
    with pytest.raises(InputError, match="A str without a text"):
        words_table(["a text"], progress=False)
    with pytest.raises(InputError, match="A int holds no explanations"):
        words_table(3, progress=False)
    with pytest.raises(InputError, match="holds no explanations"):
        words_table(tmp_path, progress=False)
    with pytest.raises(OptionError, match="ngrams=0"):
        words_table(explained(*ROWS), ngrams=0, progress=False)
    with pytest.raises(OptionError, match="min_texts='3'"):
        compare(explained(*ROWS), explained(*ROWS), min_texts="3", progress=False)


def test_a_folder_gives_what_its_explanations_give(tmp_path):
    from planted import counting_model, tokenizer

    from hf_mambalrp import explain_dataset

    texts = ["the film is good .", "the cast is bad .", "the end"]
    explain_dataset(counting_model(), texts, tmp_path / "out", tokenizer=tokenizer(), progress=False)
    listed = list(load_explanations(tmp_path / "out"))
    found = words_table(tmp_path / "out", ngrams=2, progress=False)
    assert found == words_table(listed, ngrams=2, progress=False)
    good = next(row for row in found if row.pattern == "good")
    assert good.total == pytest.approx(listed[0].relevance[0, 3].item())


def test_parts_of_a_run_that_stand_alone_too_stay():
    counts = {"via": 10, "mobile": 12, "via mobile": 10, "seen via mobile": 8, "seen": 9, ("seen", "mobile"): 8}
    rows = [WordRow(pattern, texts, 0.0, 0.0, 0.0) for pattern, texts in counts.items()]
    assert [row.pattern for row in whole(rows)] == [
        *("mobile", "via mobile", "seen via mobile", "seen"),
        ("seen", "mobile"),
    ]
