"""The published run: the README's numbers are those of the committed results, and the reports are what these give."""

import json
from pathlib import Path
from statistics import median

import pytest

from hf_mambalrp import Evaluation

FOLDER = Path(__file__).parents[2] / "examples" / "evaluation"
README = (FOLDER / "README.md").read_text(encoding="utf-8")
TEXT = " ".join(README.split())
SENTIMENT, ZERO = (
    json.loads((FOLDER / "results" / name / "results.json").read_text()) for name in ("sentiment", "zero_embedding")
)
RANDOM = json.loads((FOLDER / "results" / "random_weights.json").read_text())
TASKS = json.loads((FOLDER / "results" / "tasks.json").read_text())
OVER_SEEDS = TASKS["over seeds"]
COLUMNS = {
    "copying, Mamba-1": OVER_SEEDS["copying-mamba"]["12 tokens"],
    "copying, Mamba-2": OVER_SEEDS["copying-mamba2"]["12 tokens"],
    "recall, Mamba-1": OVER_SEEDS["recall-mamba"]["8 pairs"],
    "recall, Mamba-2": OVER_SEEDS["recall-mamba2"]["8 pairs"],
    "needle, Mamba-1": OVER_SEEDS["needle-mamba"]["length 96"],
    "needle, Mamba-2": OVER_SEEDS["needle-mamba2"]["length 96"],
}
"""Of three models each, a seed a model: the mean, the lowest and the highest."""
METHODS = [name for name in COLUMNS["copying, Mamba-2"] if not name.endswith(", size")]
NEEDLES = ("needle-mamba", "needle-mamba2")
HEADINGS = {
    "delta_flip": "ΔA^F ↑",
    "delta_insert": "ΔA^I ↑",
    "comprehensiveness": "comprehensiveness ↑",
    "sufficiency": "sufficiency ↓",
}


def table(column, *, emphasis=False, after=""):
    """Cells by method and column of the first table behind a text that has this column."""
    text = README[README.index(after) :]
    lines = (text if emphasis else text.replace("**", "")).splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("| method |") and column in line)
    end = next(number for number in range(start, len(lines)) if not lines[number].startswith("|"))
    head, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines[start:end])
    return {row[0].split(" ")[0]: dict(zip(head[1:], row[1:], strict=True)) for row in rows}


def stat(found, digits=3, turned=False):
    """mean [low, high] as the README writes it; ``turned`` is the other method's lead."""
    values = [found[key] for key in ("mean", "low", "high")]
    mean, low, high = [-values[0], -values[2], -values[1]] if turned else values
    return f"{mean:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def test_the_table_of_faithfulness_is_that_of_the_results():
    found = table("ΔA^F")
    assert set(found) == set(SENTIMENT["methods"])
    for name, cells in found.items():
        assert cells == {title: stat(SENTIMENT["methods"][name][key]) for key, title in HEADINGS.items()}
    means = [SENTIMENT["methods"][name]["delta_flip"]["mean"] for name in found]
    assert means == sorted(means, reverse=True)


def test_the_table_of_random_weights_is_that_of_the_results():
    found = table("another snippet")
    assert set(found) == set(RANDOM["methods"])
    for name, cells in found.items():
        networks = RANDOM["methods"][name]
        correlations = ("same snippet", "another snippet", "given place", "given size")
        assert cells == {
            **{what: stat(networks["all random"][what], 2) for what in correlations},
            "random with place": stat(networks["all random"]["place"], 2),
            "original with place": stat(networks["original"]["place"], 2),
        }


def test_the_table_of_sanity_and_ratings_is_that_of_the_results():
    found, sanity = table("random weights"), SENTIMENT["sanity"]
    assert set(found) == set(SENTIMENT["methods"])
    for name, cells in found.items():
        assert cells == {
            "random weights": stat(sanity["randomisation"][name]["embeddings"], 2),
            "input invariance": stat(sanity["input_invariance"][name]["relative change"], 2),
            "human ratings": stat(SENTIMENT["plausibility"][name]["pooled"]["spearman"], 2),
        }


EVIDENCE = {"roc_auc": ("ROC AUC, mean of three models", 3), "hit": ("How often the evidence is", 2)}


@pytest.mark.parametrize("metric", EVIDENCE)
def test_the_tables_of_known_evidence_are_those_of_the_results(metric):
    after, digits = EVIDENCE[metric]
    found = table("copying, Mamba-1", after=after)
    for name, cells in found.items():
        assert cells == {column: stat(methods[name][metric], digits) for column, methods in COLUMNS.items()}
    assert set(found) == {name for name in COLUMNS["copying, Mamba-2"] if not name.endswith(", size")}


def test_the_numbers_over_seeds_are_of_three_models_each():
    for name, sizes in OVER_SEEDS.items():
        models = [model for model in TASKS["models"] if model.rpartition("-")[0] == name]
        assert len(models) == 3
        for what, methods in sizes.items():
            for method, metrics in methods.items():
                for metric, found in metrics.items():
                    each = [TASKS["tasks"][model][what][method][metric]["mean"] for model in models]
                    assert found["seeds"] == each
                    assert (found["low"], found["high"]) == (min(each), max(each))
                    assert found["mean"] == pytest.approx(sum(each) / 3, abs=1e-6)


def test_what_is_bold_is_the_best():
    found = table("ΔA^F ↑ |", emphasis=True)
    for key, title in HEADINGS.items():
        best = (min if key == "sufficiency" else max)(methods(), key=lambda name, key=key: methods()[name][key]["mean"])
        assert [name for name, cells in found.items() if cells[title].startswith("**")] == [best]
    for metric, (after, _) in EVIDENCE.items():
        found = table("copying, Mamba-1", emphasis=True, after=after)
        for column, of in COLUMNS.items():
            best = max((name for name in of if not name.endswith(", size")), key=lambda n: of[n][metric]["mean"])
            assert [name for name, cells in found.items() if cells[column].startswith("**")] == [best]


SEARCHED = ("mambalrp", "smoothgrad", "occlusion", "expected_mambalrp")
"""Whose share of the ceiling the sentences give."""


def sentiment_claims():
    differences, over = SENTIMENT["differences"], ZERO["differences"]["delta_flip"]
    flip, ratio = differences["delta_flip"], {name: values["delta_flip"]["mean"] for name, values in methods().items()}
    share = (ratio["lrp_ln"] - ratio["gradient_x_input"]) / (ratio["mambalrp"] - ratio["gradient_x_input"])
    kept = {name: values["conservation"] for name, values in methods().items()}
    gaps = {
        name: [abs(s - r - b) for s, r, b in zip(v["score"], v["relevance"], v["biases"], strict=True)]
        for name, v in kept.items()
    }
    assert max(gaps["mambalrp"]) < 1e-5
    others = sorted(median(gap) for name, gap in gaps.items() if name != "mambalrp")
    taken = median(b / s for b, s in zip(kept["mambalrp"]["biases"], kept["mambalrp"]["score"], strict=True))
    shares = {
        metric: [
            "{:.0f} % [{:.0f}, {:.0f}]".format(*(100 * found[metric][end] for end in ("mean", "low", "high")))
            for found in (SENTIMENT["ceiling"]["shares"][name] for name in SEARCHED)
        ]
        for metric in ("delta_flip", "delta_insert")
    }
    agreement = dict(zip(SENTIMENT["agreement"]["methods"], SENTIMENT["agreement"]["spearman"][0], strict=True))
    return [
        f"by {stat(flip['integrated_gradients'])} over integrated gradients",
        f"by {stat(flip['occlusion'], turned=True)} in ΔA^F, where tokens are replaced, and below it by "
        f"{stat(differences['delta_insert']['occlusion'])} in ΔA^I",
        f"is above by {stat(flip['expected_mambalrp'], turned=True)} in ΔA^F and by "
        f"{stat(differences['delta_insert']['expected_mambalrp'], turned=True)} in ΔA^I",
        f"they have {stat(methods()['raw_attention']['delta_flip'])}, "
        f"{stat(methods()['attention_rollout']['delta_flip'])} and "
        f"{stat(methods()['mamba_attribution']['delta_flip'])}",
        f"On the first {SENTIMENT['ceiling']['examples']} of the snippets",
        "reach {delta_flip:.3f} in ΔA^F and {delta_insert:.3f} in ΔA^I".format(**SENTIMENT["ceiling"]["mean"]),
        f"MambaLRP has {shares['delta_flip'][0]}, SmoothGrad {shares['delta_flip'][1]}, occlusion "
        f"{shares['delta_flip'][2]} and expected MambaLRP {shares['delta_flip'][3]}; of the second "
        f"{shares['delta_insert'][0]}, {shares['delta_insert'][1]}, {shares['delta_insert'][2]} and "
        f"{shares['delta_insert'][3]}.",
        f"{stat(flip['latim'])} over LaTIM, {flip['lrp_ln']['mean']:.3f} over LRP with the norm rule alone, "
        f"{flip['gradient_x_input']['mean']:.3f} over gradient x input",
        f"gives {share:.0%}".replace("%", " %"),
        f"by {stat(flip['smoothgrad'], turned=True)} in ΔA^F, "
        f"{stat(differences['delta_insert']['smoothgrad'], turned=True)} in ΔA^I",
        f"also to LaTIM, by {-differences['comprehensiveness']['latim']['mean']:.3f}",
        f"ΔA^F: {stat(ZERO['methods']['mambalrp']['delta_flip'])}, by {stat(over['lrp_ln'])} over LRP with the norm "
        f"rule, {stat(over['expected_mambalrp'])} over expected MambaLRP and {stat(over['smoothgrad'])} over "
        "SmoothGrad",
        f"is above it by {stat(over['occlusion'], turned=True)}. In ΔA^I",
        f"and occlusion is below by {stat(ZERO['differences']['delta_insert']['occlusion'])}",
        f"({ZERO['methods']['smoothgrad']['delta_insert']['mean']:.3f} against "
        f"{ZERO['methods']['mambalrp']['delta_insert']['mean']:.3f})",
        f"(the biases take {100 * taken:.1f} % of the score at the median)",
        f"miss it by {others[0]:.1f} to {others[-1]:.0f} at the median",
        f"with LRP (norm rule) is {agreement['lrp_ln']:.2f}, with SmoothGrad {agreement['smoothgrad']:.2f}, LaTIM "
        f"{agreement['latim']:.2f}, gradient x input {agreement['gradient_x_input']:.2f}, integrated gradients "
        f"{agreement['integrated_gradients']:.2f}",
    ]  # fmt: skip


def methods():
    return SENTIMENT["methods"]


def sanity_claims():
    sanity, ratings = SENTIMENT["sanity"], SENTIMENT["plausibility"]
    left = {name: found["embeddings"] for name, found in sanity["randomisation"].items()}
    moved = {name: found["relative change"]["mean"] for name, found in sanity["input_invariance"].items()}
    changed = {name: f"{100 * value:.0f} %" for name, value in moved.items()}
    words = {
        "integrated_gradients": "integrated gradients",
        "occlusion": "occlusion",
        "raw_attention": "raw attention",
        "attention_rollout": "attention rollout",
        "mamba_attribution": "Mamba-Attribution",
    }
    *first, last = (words[name] for name, value in moved.items() if value < 1e-6)
    deviations = [
        found[key] for found in sanity["determinism"].values() for key in ("alone", "padded_left", "padded_right")
    ]
    assert all(found["repeated"] for found in sanity["determinism"].values())
    assert sanity["draws of weights"] == 3
    rated = {name: found["pooled"] for name, found in ratings.items()}
    return [
        f"({sanity['texts']} snippets, three draws",
        f"MambaLRP keeps {stat(left['mambalrp'], 2)}, LRP with the norm rule alone {stat(left['lrp_ln'], 2)}, and "
        f"random relevance, which should keep nothing, has {stat(left['random'], 2)}",
        f"MambaLRP changes by {changed['mambalrp']}, LRP (norm rule) by {changed['lrp_ln']}, LaTIM by "
        f"{changed['latim']}, gradient x input by {changed['gradient_x_input']}; {', '.join(first)} and {last} not at "
        f"all. SmoothGrad's {changed['smoothgrad']}",
        f"change at most {max(deviations):.1e}",
        f"of {rated['mambalrp']['rated']} words of VADER",
        f"over snippets: SmoothGrad {stat(rated['smoothgrad']['spearman'], 2)}, MambaLRP "
        f"{stat(rated['mambalrp']['spearman'], 2)}.",
    ]


def random_claims():
    of = {name: networks["all random"] for name, networks in RANDOM["methods"].items()}
    ours, equal = of["mambalrp"], RANDOM["methods"]["mambalrp"]["embeddings of one length"]["same snippet"]
    original = {name: networks["original"]["place"] for name, networks in RANDOM["methods"].items()}
    for name in ("mambalrp", "lrp_ln", "gradient_x_input"):  # as with another snippet's; little is left given the place
        assert of[name]["another snippet"]["mean"] > of[name]["same snippet"]["low"]
        assert of[name]["given place"]["mean"] <= 0.06
        assert abs(of[name]["given size"]["mean"] - of[name]["same snippet"]["mean"]) < 0.02
        assert original[name]["high"] < of[name]["place"]["low"]
    assert ours["given place"]["low"] > 0
    assert max(of, key=lambda name: of[name]["same snippet"]["mean"]) == "raw_attention"
    settings = RANDOM["settings"]
    return [
        f"{settings['snippets']} snippets and {['no', 'one', 'two', 'three'][settings['draws']]} draws of all weights",
        f"of another snippet, {stat(ours['another snippet'], 2)}, as with that of its own, "
        f"{stat(ours['same snippet'], 2)}. Given the place {stat(ours['given place'], 2)} remains",
        f"({stat(original['mambalrp'], 2)} against {stat(ours['place'], 2)})",
        f"stays at {stat(ours['given size'], 2)}, and it is {stat(equal, 2)} with",
        f"agrees most, {stat(of['raw_attention']['same snippet'], 2)}, for it hardly is anything but the place "
        f"({stat(original['raw_attention'], 2)})",
        f"Mamba-Attribution keeps {stat(of['mamba_attribution']['given place'], 2)} given the place",
    ]


def task_claims():
    one, two = COLUMNS["copying, Mamba-1"], COLUMNS["copying, Mamba-2"]
    recall = COLUMNS["recall, Mamba-1"]

    def auc(found):
        *first, last = (f"{value:.3f}" for value in found["roc_auc"]["seeds"])
        return f"{', '.join(first)} and {last}"

    def hits(found):
        return ", ".join(f"{100 * value:.0f}" for value in found["hit"]["seeds"]) + " %"

    longer = [[OVER_SEEDS[name][f"length {n}"]["mambalrp"]["roc_auc"] for n in (192, 384)] for name in NEEDLES]
    right = sorted(
        sizes["length 384"]["mambalrp"]["accuracy"] for name, sizes in TASKS["tasks"].items() if name[:6] == "needle"
    )
    sized = sorted(
        value
        for name in NEEDLES
        for found in OVER_SEEDS[name].values()
        for value in found["attention_rollout, size"]["roc_auc"]["seeds"]
    )
    raw = sorted(value for found in COLUMNS.values() for value in found["raw_attention"]["roc_auc"]["seeds"])
    lowest = sorted(
        (min(min(found[name]["roc_auc"]["seeds"]) for found in COLUMNS.values()) for name in METHODS), reverse=True
    )
    least = min(found["mambalrp"]["roc_auc"]["low"] for found in (one, two))
    accuracies = sorted(model["accuracy"] for model in TASKS["models"].values())
    failed = [TASKS["not learned"][f"recall-mamba-{seed}"]["accuracy"] for seed in (1, 3)]
    return [
        f"({100 * accuracies[0]:.1f} to {100 * accuracies[-1]:.0f} % of held-out output tokens), three seeds a task "
        f"and family, {TASKS['settings']['sequences']} held-out",
        f"{stat(one['mambalrp']['roc_auc'])} on Mamba-1, {stat(two['mambalrp']['roc_auc'])} on Mamba-2, and no model "
        f"is below {least:.3f}",
        f"{stat(one['mambalrp']['roc_auc'])} on Mamba-1 and {stat(two['mambalrp']['roc_auc'])} on Mamba-2, of three",
        f"{stat(one['latim']['roc_auc'])} and {stat(two['latim']['roc_auc'])}; what its authors report",
        f"{stat(one['latim']['roc_auc'])} and {stat(two['latim']['roc_auc'])}, ranges of three models",
        f"MambaLRP has {auc(two['mambalrp'])} on the three models, and the evidence is its most relevant token in "
        f"{hits(two['mambalrp'])} of the cases; SmoothGrad has {auc(two['smoothgrad'])}, and {hits(two['smoothgrad'])}",
        f"it is {auc(one['mambalrp'])} against {auc(one['smoothgrad'])}, and LaTIM's are {auc(one['latim'])}",
        f"eighteen models is {lowest[0]:.3f} for",
        f"reached {100 * failed[0]:.0f} and {100 * failed[1]:.0f} %. MambaLRP has "
        f"{auc(recall['mambalrp'])} on the three",
        f"on top in {hits(recall['mambalrp'])} of the cases; LaTIM has {auc(recall['latim'])}",
        f"raw attention has {raw[0]:.2f} to {raw[-1]:.2f}. Ranked by size, rollout has {sized[0]:.2f} to "
        f"{sized[-1]:.2f} on the needle, and {stat(one['attention_rollout, size']['roc_auc'], 2)} on "
        "copying with Mamba-1",
        "At 192 and 384 MambaLRP has {} and {} with Mamba-1, {} and {} with Mamba-2".format(
            *(stat(found) for of in longer for found in of)
        ),
        f"right in {100 * right[0]:.0f} to {100 * right[-1]:.0f} %",
    ]


@pytest.mark.parametrize("claims", [sentiment_claims, sanity_claims, random_claims, task_claims])
def test_the_numbers_in_sentences_are_those_of_the_results(claims):
    plain = TEXT.replace("**", "")
    missing = [claim for claim in claims() if claim not in plain]
    assert missing == []


ALSO_ABOVE = {"delta_flip": ("occlusion", "expected_mambalrp"), "delta_insert": ("expected_mambalrp",)}
"""Above MambaLRP, or not told apart from it."""


def test_where_a_method_is_said_to_be_above_another_the_interval_leaves_zero_out():
    for metric in ("delta_flip", "delta_insert"):
        above = {name for name, found in SENTIMENT["differences"][metric].items() if found["low"] > 0}
        assert above == set(methods()) - {"mambalrp", "smoothgrad", *ALSO_ABOVE[metric]}
        assert SENTIMENT["differences"][metric]["smoothgrad"]["high"] < 0
    zero = ZERO["differences"]["delta_flip"]
    assert {name for name, found in zero.items() if found["low"] > 0} == set(ZERO["methods"]) - {
        "mambalrp",
        "occlusion",
    }
    assert zero["occlusion"]["high"] < 0
    zero = ZERO["differences"]["delta_insert"]
    assert {name for name, found in zero.items() if found["low"] <= 0} == {"smoothgrad", "expected_mambalrp"}
    assert zero["smoothgrad"]["high"] < 0 < zero["expected_mambalrp"]["high"]
    for column, reported in (("copying, Mamba-1", 0.86), ("copying, Mamba-2", 0.98)):
        latim, ours = (COLUMNS[column][name]["roc_auc"] for name in ("latim", "mambalrp"))
        assert latim["low"] <= reported <= latim["high"]
        assert ours["mean"] > latim["mean"]


@pytest.mark.parametrize("name", ["sentiment", "zero_embedding"])
def test_the_committed_reports_are_those_of_the_committed_results(name):
    folder = FOLDER / "results" / name
    assert Evaluation.load(folder / "results.json").to_markdown() == (folder / "report.md").read_text(encoding="utf-8")
