"""The published run on pictures: the README's numbers are those of the committed results, and so are its claims."""

import json
from pathlib import Path

import pytest

from hf_mambalrp.evaluation import ImageEvaluation

FOLDER = Path(__file__).parents[2] / "examples" / "evaluation"
README = (FOLDER / "README.md").read_text(encoding="utf-8")
TEXT = " ".join(README.replace("**", "").split())
PARTS = {
    name: ImageEvaluation.load(FOLDER / "results" / "vision" / name / "results.json")
    for name in ("one", "two", "contrast")
}
ONE, TWO, CONTRAST = (part.results for part in PARTS.values())
COLUMNS = {
    "ΔA^F ↑": ("one", "delta_flip", 2),
    "positive ↓": ("one", "positive_accuracy", 3),
    "negative ↑": ("one", "negative_accuracy", 3),
    "ROC AUC ↑": ("one", "roc_auc", 3),
    "pointing ↑": ("one", "pointing", 2),
    "R⁺ inside ↑": ("one", "positive_inside", 3),
    "pixel accuracy ↑": ("one", "pixel_accuracy", 3),
    "mAP ↑": ("one", "map", 3),
    "mIoU ↑": ("one", "miou", 3),
}
OF_TWO = {
    "own garment ↑": ("two", "named", 3),
    "with contrast ↑": ("contrast", "named_contrast", 3),
    "ROC AUC ↑": ("two", "roc_auc", 3),
    "R⁺ inside ↑": ("two", "positive_inside", 3),
}
BASELINES = {
    *("lrp_ln", "gradient_x_input", "integrated_gradients", "smoothgrad", "occlusion"),
    *("raw_attention", "attention_rollout", "mamba_attribution"),
}


def stat(found, digits=3):
    """mean [low, high] as the README writes it."""
    return "{mean:.{d}f} [{low:.{d}f}, {high:.{d}f}]".format(d=digits, **found)


def difference(first, second, metric, part="one", digits=3):
    return stat(PARTS[part].compare(first, second)[metric], digits)


def tables():
    """Heads and rows of the tables of pictures; a row's first cell is a name, its budget left out."""
    lines = README[README.index("## Pictures") :].splitlines()
    for start, line in enumerate(lines):
        if line.startswith("| method |"):
            end = next(number for number in range(start, len(lines)) if not lines[number].startswith("|"))
            head, _, *rows = ([cell.strip() for cell in row.strip("|").split("|")] for row in lines[start:end])
            yield head[1:], {row[0].removesuffix(" (20 steps)").removesuffix(" (10 samples)"): row[1:] for row in rows}


def test_the_tables_are_those_of_the_results():
    found = list(tables())
    assert len(found) == 3
    for head, rows in found:
        assert set(rows) == set(ONE["methods"])
        for place, title in enumerate(head):
            part, metric, digits = (OF_TWO if "own garment ↑" in head else COLUMNS)[title]
            results = PARTS[part].results
            for name, cells in rows.items():
                value = results["methods"].get(name, {}).get(metric)
                assert cells[place].replace("**", "") == ("–" if value is None else stat(value, digits))
                assert ("**" in cells[place]) == (results["standings"][metric]["best"] == name)
    assert {title for head, _ in found for title in head} == {*COLUMNS, *OF_TWO}


def test_the_numbers_in_sentences_are_those_of_the_results():
    one, two = ONE["methods"], TWO["methods"]
    share = {name: two[name]["named"] for name in two}
    percent = {
        name: "{:.1f} % [{:.1f}, {:.1f}]".format(*(100 * s[k] for k in ("mean", "low", "high")))
        for name, s in share.items()
    }
    against = {name: f"{100 * found['named_contrast']['mean']:.1f} %" for name, found in CONTRAST["methods"].items()}
    wanted = [
        f"{sum(e['predicted'] in e['targets'] for e in ONE['examples'])} of the {len(ONE['examples'])} with one",
        f"by {difference('mambalrp', 'lrp_ln', 'delta_flip', digits=2)} over LRP with the norm rule alone",
        f"{difference('mambalrp', 'integrated_gradients', 'delta_flip', digits=2)} over integrated gradients",
        f"{difference('mambalrp', 'occlusion', 'delta_flip', digits=2)} over occlusion",
        f"{difference('mambalrp', 'mamba_attribution', 'delta_flip', digits=2)} over Mamba-Attribution",
        f"{difference('mambalrp', 'smoothgrad', 'delta_flip', digits=2)} over SmoothGrad",
        f"{difference('mambalrp', 'gradient_x_input', 'delta_flip', digits=2)} over gradient x input",
        f"Negative: {one['mambalrp']['negative_accuracy']['mean']:.3f} against "
        f"{one['occlusion']['negative_accuracy']['mean']:.3f} for occlusion",
        f"a difference of {difference('mambalrp', 'occlusion', 'positive_accuracy')}",
        f"differs by {difference('gamma 0', 'mambalrp', 'delta_flip', digits=2)} in ΔA^F and "
        f"{difference('gamma 0', 'mambalrp', 'roc_auc')} in ROC AUC",
        f"on the garment, by {difference('occlusion', 'mambalrp', 'positive_inside')}",
        f"in pixel accuracy, {difference('integrated_gradients', 'mambalrp', 'pixel_accuracy')}, and mIoU, "
        f"{difference('integrated_gradients', 'mambalrp', 'miou')}",
        f"than the other in {percent['mambalrp']} of the cases, Mamba-Attribution in {percent['mamba_attribution']}",
        f"With a contrast it is {against['mambalrp']} for MambaLRP and {against['mamba_attribution']} for "
        f"Mamba-Attribution",
        *(
            f"{words} {difference('mamba_attribution', 'attention_rollout', metric)}"
            for metric, words in (
                ("miou", "in mIoU by"),
                ("map", "mAP by"),
                ("pixel_accuracy", "pixel accuracy by"),
                ("negative_accuracy", "negative accuracy by"),
                ("positive_accuracy", "positive accuracy differs by"),
            )
        ),
        f"above rollout in ΔA^F by {difference('raw_attention', 'attention_rollout', 'delta_flip', digits=2)}",
        *(
            f"{words} by {difference('raw_attention', 'attention_rollout', metric)}"
            for metric, words in (
                ("negative_accuracy", "negative accuracy"),
                ("pixel_accuracy", "pixel accuracy"),
                ("map", "mAP"),
                ("miou", "mIoU"),
            )
        ),
        f"Over Mamba-Attribution it has {difference('raw_attention', 'mamba_attribution', 'delta_flip', digits=2)} "
        f"in ΔA^F, {difference('raw_attention', 'mamba_attribution', 'negative_accuracy')} in negative accuracy and "
        f"{difference('raw_attention', 'mamba_attribution', 'roc_auc')} in ROC AUC",
        f"accuracy is lower by {difference('mamba_attribution', 'raw_attention', 'positive_accuracy')}",
        f"it is below by {difference('mamba_attribution', 'raw_attention', 'pixel_accuracy')}",
        f"in mIoU above by {difference('raw_attention', 'mamba_attribution', 'miou')}",
        f"in ΔA^F, {stat(one['mambalrp']['delta_flip'], 2)}, above all eight;",
        f"MambaLRP does, in {100 * share['mambalrp']['mean']:.1f} % of the cases; Mamba-Attribution in "
        f"{100 * share['mamba_attribution']['mean']:.1f} %, where chance is 50",
        f"Integrated gradients ({100 * share['integrated_gradients']['mean']:.1f} %) and occlusion "
        f"({100 * share['occlusion']['mean']:.1f} %) are below MambaLRP",
        f"and {one['mamba_attribution']['negative_accuracy']['mean']:.3f} for Mamba-Attribution. Positive: occlusion "
        f"is lowest, {one['occlusion']['positive_accuracy']['mean']:.3f} against "
        f"{one['mambalrp']['positive_accuracy']['mean']:.3f},",
    ]  # fmt: skip
    assert [words for words in wanted if words not in TEXT] == []


def leads(first, second, metric, part="one"):
    """1 where the first is above the second, -1 below, 0 where the paired interval includes 0."""
    found = PARTS[part].compare(first, second)[metric]
    return (found["low"] > 0) - (found["high"] < 0)


def test_what_is_said_of_who_leads_is_so():
    assert {*ONE["methods"]} - BASELINES == {"mambalrp", "gamma 0", "gamma on linear too", "random"}
    assert len(BASELINES) == 8
    assert {leads("mambalrp", name, "delta_flip") for name in BASELINES} == {1}
    assert ONE["standings"]["positive_accuracy"]["best"] == "occlusion"
    assert leads("occlusion", "mambalrp", "positive_inside") == 1
    assert [leads("integrated_gradients", "mambalrp", metric) for metric in ("pixel_accuracy", "miou")] == [1, 0]
    assert [leads("mambalrp", name, "named", "two") for name in ("integrated_gradients", "occlusion")] == [1, 1]
    assert [leads("mambalrp", name, "named", "two") for name in ("attention_rollout", "mamba_attribution")] == [1, 1]
    improved = ("miou", "map", "pixel_accuracy", "negative_accuracy")
    assert [leads("mamba_attribution", "attention_rollout", metric) for metric in improved] == [1] * 4
    assert leads("mamba_attribution", "attention_rollout", "positive_accuracy") == -1
    ahead = ("delta_flip", "negative_accuracy", "roc_auc")
    assert [leads("raw_attention", name, m) for name in ("attention_rollout", "mamba_attribution") for m in ahead] == (
        [1] * 6
    )
    of_masks = ("pixel_accuracy", "map", "miou")
    assert [leads("raw_attention", "attention_rollout", metric) for metric in of_masks] == [1, 1, 1]
    assert [leads("raw_attention", "mamba_attribution", metric) for metric in of_masks] == [-1, 0, 1]
    assert [leads("raw_attention", "mamba_attribution", metric, "two") for metric in of_masks] == [-1, -1, 0]
    assert leads("raw_attention", "mamba_attribution", "positive_accuracy") == 0
    for name in ("raw_attention", "attention_rollout"):
        assert {TWO["methods"][name]["named"][key] for key in ("mean", "low", "high")} == {0.5}


@pytest.mark.parametrize("name", PARTS)
def test_the_committed_reports_are_those_of_the_committed_results(name):
    folder = FOLDER / "results" / "vision" / name
    assert PARTS[name].to_markdown() == (folder / "report.md").read_text(encoding="utf-8")
    settings = json.loads((folder / "results.json").read_text())["settings"]
    assert settings["samples"] == len(ONE["examples"])
    assert f"vision.py --output out/vision --scenes {settings['samples']} " in README
