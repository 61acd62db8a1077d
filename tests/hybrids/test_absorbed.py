"""What a softmax absorbs, and the options that made the numbers, in every kind of result and after every journey."""

import json
from dataclasses import replace

import pytest
import torch
from oracle_hybrids import explain as oracle
from results import capital, explanation, generation, image_explanation
from small import word_tokenizer
from small_hybrids import VOCABULARY, available, build, explainable
from test_hybrid_relevance import every_family, padded

from hf_mambalrp import GenerationExplanation, explain_dataset, load_explanations, make_explainable
from hf_mambalrp.errors import OptionError
from hf_mambalrp.evaluation import evaluate_faithfulness
from hf_mambalrp.results.explanation import Conservation, Explanation
from hf_mambalrp.results.records import schema, table_of, to_explanation, to_records, write_table

ATTNLRP = {"attention_rule": "attnlrp"}


def test_it_is_said():
    kept = Conservation(*(torch.tensor([value]) for value in (2.0, 1.5, 0.25, -0.5)))
    assert kept.gap.item() == 0.75
    assert kept.absorbed.item() == -0.25
    assert str(kept) == ("sum of relevance +1.500 + biases +0.250 + softmax -0.500 = 1.250 of score 2.000 (gap 0.750)")
    ex = explanation("one two", relevance=torch.tensor([[1.0, 2.0]]), biases=0.5, method_options=ATTNLRP)
    ex = replace(
        ex,
        score=ex.score + 0.25,
        conservation=Conservation(
            ex.score + 0.25, ex.conservation.relevance, ex.conservation.biases, torch.ones(1) / 4
        ),
    )
    for text in (ex.to_text(), ex.to_html()):
        flat = " ".join(text.split())
        assert "biases +0.500 + softmax +0.250 = 3.750 of score 3.750 (gap 0.000)" in flat
        assert "all of them and the shares of the biases and of the softmax add up to it" in flat
        assert "mambalrp (attention_rule=attnlrp)" in flat


def test_several_tokens_and_a_contrast():
    """A row for each side, of which the second enters with a minus."""
    model, tokenizer = build("bamba-biases"), word_tokenizer()
    prompt, target, contrast = (tokenizer(text)["input_ids"] for text in ("a b c d e", "f g h", "i j"))
    found = make_explainable(model).explain(
        "a b c d e", tokenizer=tokenizer, target=" f g h", contrast=" i j", per_layer=True, **ATTNLRP
    )
    softmax, biases = 0.0, 0.0
    one_hot = torch.eye(VOCABULARY, dtype=torch.float64)
    for side, sign in ((target, 1), (contrast, -1)):
        for number, token in enumerate(side):
            fed = torch.tensor([*prompt, *side[:number]])
            one = oracle(model, fed, weights=one_hot[token], attention="attnlrp")
            softmax, biases = softmax + sign * one.softmax, biases + sign * one.biases
    assert found.conservation.softmax.item() == pytest.approx(softmax.item(), rel=1e-5)
    assert found.conservation.biases.item() == pytest.approx(biases.item(), rel=1e-5)
    assert found.conservation.gap.abs().item() < 1e-5


@every_family
def test_every_generated_token(name):
    model = explainable(name)
    ids, mask = padded("left")
    found = model.explain_generation(
        ids, attention_mask=mask, max_new_tokens=3, eos_token_id=None, gamma=0.5, gamma_on="linear", **ATTNLRP
    )
    assert found.method_options == {"attention_rule": "attnlrp", "gamma": 0.5, "gamma_on": "linear"}
    assert found.conservation.softmax.shape == (3, 3)
    assert found.conservation.gap.abs().max() < 1e-4
    alone = model.explain(
        found.input_ids[:, :-1], attention_mask=found.attention_mask[:, :-1], target=found.input_ids[:, -1],
        gamma=0.5, gamma_on="linear", **ATTNLRP,
    )  # fmt: skip
    last = found.step(-1)
    torch.testing.assert_close(last.relevance, alone.relevance, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(last.conservation.softmax, alone.conservation.softmax, rtol=1e-4, atol=1e-5)
    assert last.method_options == found.method_options
    assert (
        "the shares of the biases and of the softmax add up to its score"
        in found.document().sections[0].one(type(found.document().sections[0].blocks[-1])).reading
    )
    assert GenerationExplanation.from_dict(json.loads(found.to_json())) == found


def test_a_generation_without_the_options_of_another_method():
    model = make_explainable(build("bamba"))
    with pytest.raises(OptionError, match=r"explain_generation\(\) got \['gamma'\]"):
        model.explain_generation([[3, 4]], method="lrp_ln", gamma=0.25)
    with pytest.raises(OptionError, match="attention_rule='eager' is not allowed"):
        model.explain_generation([[3, 4]], attention_rule="eager")


def test_the_options_that_made_it():
    hybrid = make_explainable(build("falcon_h1"))
    assert hybrid.explain([[3, 4]]).method_options == {"attention_rule": "cp"}
    assert hybrid.explain([[3, 4]], method="lrp_ln").method_options == {}
    found = hybrid.explain([[3, 4]], gamma=0.25, gamma_on=("linear", "conv1d"))
    assert found.method_options == {"attention_rule": "cp", "gamma": 0.25, "gamma_on": ["linear", "conv1d"]}
    assert "mambalrp (attention_rule=cp, gamma=0.25, gamma_on=linear and conv1d)" in repr(found)
    given = torch.zeros(1, 2, 16, dtype=torch.float64)
    far = hybrid.explain([[3, 4]], method="integrated_gradients", steps=3, baseline=given)
    assert far.method_options == {"baseline": "tensor of shape (1, 2, 16)", "steps": 3}
    json.dumps(far.to_dict(), allow_nan=False)


@pytest.mark.parametrize("build_one", [capital, generation, image_explanation])
def test_saved_and_loaded(build_one, tmp_path):
    ex = build_one()
    kept = ex.conservation
    ex = replace(
        ex,
        method_options={"attention_rule": "attnlrp", "steps": 3},
        conservation=Conservation(kept.score, kept.relevance, kept.biases - 0.5, torch.full_like(kept.biases, 0.5)),
    )
    ex.save(tmp_path)
    assert type(ex).load(tmp_path) == ex
    assert type(ex).from_dict(json.loads(ex.to_json())) == ex
    assert type(ex).concat([ex, ex])[len(ex)] == ex[0]
    assert ex[0].conservation.softmax[0] == pytest.approx(0.5)


@pytest.mark.parametrize("build_one", [capital, generation, image_explanation])
def test_a_result_of_an_earlier_version(build_one, tmp_path):
    ex = build_one()
    ex.save(tmp_path)
    path = tmp_path / "explanation.json"
    data = json.loads(path.read_text())
    assert data.pop("method_options") == {}
    assert "softmax" not in data["conservation"]
    path.write_text(json.dumps(data))
    assert type(ex).load(tmp_path) == ex


def test_as_rows_of_parquet(tmp_path):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    tokenizer = word_tokenizer()
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    model = make_explainable(build("bamba"))
    texts = ["a b c d", "e f g"]
    explain_dataset(model, texts, tmp_path / "run", tokenizer=tokenizer, progress=False, **ATTNLRP)
    for found, text in zip(load_explanations(tmp_path / "run"), texts, strict=True):
        alone = model.explain(text, tokenizer=tokenizer, **ATTNLRP)
        assert found.method_options == ATTNLRP
        torch.testing.assert_close(found.conservation.softmax, alone.conservation.softmax, rtol=1e-5, atol=1e-6)
        assert found.conservation.gap.abs().item() < 1e-5
    (shard,) = (tmp_path / "run").glob("*.parquet")
    table = pq.read_table(shard)
    numbers = [{k: v for k, v in each.items() if k != "softmax"} for each in table["conservation"].to_pylist()]
    at = table.schema.get_field_index("conservation")
    table = table.set_column(at, "conservation", pa.array(numbers)).drop_columns(["method_options"])
    pq.write_table(table, shard)  # as an earlier version wrote it
    for found in load_explanations(tmp_path / "run"):
        assert found.method_options == {}
        assert found.conservation.softmax is None


def test_records_of_one_row(tmp_path):
    ex = capital()
    record = {"index": 0, "id": "0", "text": ex.texts[0], "columns": None, **to_records(ex)[0]}
    assert record["conservation"]["softmax"] is None
    assert to_explanation(record).conservation == ex.conservation
    assert to_explanation(record).method_options == {}
    assert {*record} <= {*schema().names}
    write_table(tmp_path / "row.parquet", table_of([{**record, "error": None}]))


def test_an_evaluation_counts_it():
    model, tokenizer = make_explainable(build("bamba")), word_tokenizer()
    options = {"mambalrp": ATTNLRP}
    report = evaluate_faithfulness(
        model, ["a b c d e", "f g h i"], tokenizer=tokenizer, methods=("mambalrp", "random"), method_options=options
    )
    kept = report.results["methods"]["mambalrp"]["conservation"]
    for score, relevance, biases, softmax in zip(
        *(kept[n] for n in ("score", "relevance", "biases", "softmax")), strict=True
    ):
        assert abs(softmax) > 1e-4
        assert relevance + biases + softmax == pytest.approx(score, abs=1e-5)
    assert "softmax" not in report.results["methods"]["random"]["conservation"]
    page = report.to_html()
    assert "the sum of the relevance and of what the biases and softmax took, against the score" in page


def test_every_table_of_models_is_covered():
    assert len(available()) >= 6
    assert isinstance(Explanation.concat([capital(), capital()]), Explanation)
