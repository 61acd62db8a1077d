"""``evaluate_image_explanations``: metrics against slow loops and known answers, the whole against the model itself."""

import itertools
import json
import math
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from small_vim import SIZES, small_vim

from hf_mambalrp import VimForImageClassification, make_explainable
from hf_mambalrp.cli.main import main
from hf_mambalrp.errors import InputError, OptionError, TargetError, UnknownArchitectureError
from hf_mambalrp.evaluation import ImageEvaluation, evaluate_image_explanations
from hf_mambalrp.evaluation.images.cases import Case, read_mask
from hf_mambalrp.evaluation.images.maps import (
    against_mask,
    confusion,
    covered,
    enlarged,
    min_max,
    named,
    positive_inside,
    segmentation,
)
from hf_mambalrp.evaluation.images.perturbation import plan
from hf_mambalrp.evaluation.scenes import load_scenes
from hf_mambalrp.models.vim.processor import image_processor

S, P = SIZES["image_size"], SIZES["patch_size"]
METHODS = ["mambalrp", "gamma 0", "attention_rollout"]
OPTIONS = {"gamma 0": {"method": "mambalrp", "gamma": 0}}


def draw(*shape, seed=0, levels=None):
    """Numbers; of few ``levels``, so that some are equal."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator) if levels is None else torch.randint(levels, shape).float()


def disc(size=S, y=5, x=9, r=3.5):
    rows, columns = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    return (rows - y) ** 2 + (columns - x) ** 2 < r * r


def slow_auc(scores, truth):
    """Share of pairs of an evidence pixel and another one that are in the right order; half for equal ones."""
    inside = [s for s, t in zip(scores, truth, strict=True) if t]
    outside = [s for s, t in zip(scores, truth, strict=True) if not t]
    wins = sum((a > b) + (a == b) / 2 for a in inside for b in outside)
    return wins / (len(inside) * len(outside))


def slow_average_precision(scores, truth):
    """sum over thresholds of (recall - recall before) * precision."""
    positives, before, area = sum(truth), 0.0, 0.0
    for threshold in sorted(set(scores), reverse=True):
        chosen = [t for s, t in zip(scores, truth, strict=True) if s >= threshold]
        recall = sum(chosen) / positives
        area += (recall - before) * sum(chosen) / len(chosen)
        before = recall
    return area


def slow_bilinear(cells, size):
    """Every pixel from the four nearest cell centres; beyond the outermost ones, from those."""
    n = len(cells)
    found = [[0.0] * size for _ in range(size)]
    for y in range(size):
        for x in range(size):
            at = [min(max((v + 0.5) * n / size - 0.5, 0), n - 1) for v in (y, x)]
            low = [min(int(v), n - 2) for v in at]
            b, a = at[0] - low[0], at[1] - low[1]
            r, c = low
            found[y][x] = (
                cells[r][c] * (1 - b) * (1 - a)
                + cells[r][c + 1] * (1 - b) * a
                + cells[r + 1][c] * b * (1 - a)
                + cells[r + 1][c + 1] * b * a
            )
    return found


def test_the_enlarged_map_is_the_bilinear_one():
    cells = draw(4, 4)
    expected = torch.tensor(slow_bilinear(cells.double().tolist(), 16), dtype=torch.float64)
    torch.testing.assert_close(enlarged(cells, 16), expected)


@pytest.mark.parametrize("levels", [None, 4])
def test_auc_precision_and_pointing_are_the_slow_ones(levels):
    pixels, mask = draw(8, 8, levels=levels).double(), disc(8, 3, 3, 2.5)
    flat, truth = pixels.flatten().tolist(), mask.flatten().tolist()
    low, high = min(flat), max(flat)
    scaled = [(value - low) / (high - low) for value in flat]
    both, classes = [1 - value for value in scaled] + scaled, [not t for t in truth] + truth
    top = [t for value, t in zip(flat, truth, strict=True) if value == high]
    assert against_mask(pixels, mask) == {
        "roc_auc": pytest.approx(slow_auc(flat, truth)),
        "pointing": pytest.approx(sum(top) / len(top)),
        "average_precision": pytest.approx(slow_average_precision(both, classes)),
    }


def test_a_perfect_map_its_opposite_and_a_flat_one():
    mask = disc()
    perfect = {"roc_auc": 1, "pointing": 1, "average_precision": 1}
    assert against_mask(mask.double(), mask) == pytest.approx(perfect)
    assert confusion(mask.double(), mask)[1:3] == [0, 0]
    wrong = against_mask(1 - mask.double(), mask)
    assert (wrong["roc_auc"], wrong["pointing"]) == (0, 0)
    flat = against_mask(torch.full((S, S), 2.0).double(), mask)
    assert flat["roc_auc"] == pytest.approx(0.5)
    assert flat["pointing"] == pytest.approx(mask.double().mean().item())
    assert confusion(torch.full((S, S), 2.0), mask) == [0, 0, int(mask.sum()), int((~mask).sum())]
    assert min_max(torch.full((3,), 2.0)).tolist() == [0, 0, 0]


def test_segmentation_by_hand_is_from_totals():
    # 3 of 4 object pixels found, 1 of 12 others wrongly: accuracy 14/16, IoU 3/5 and 11/13. Then nothing found.
    one, two = torch.zeros(4, 4), torch.zeros(4, 4)
    mask = torch.zeros(4, 4, dtype=torch.bool)
    mask[0] = True
    one[0, :3] = one[1, 0] = 1
    counts = torch.tensor([confusion(one, mask), confusion(two, mask)])
    assert counts.tolist() == [[3, 1, 1, 11], [0, 0, 4, 12]]
    found = segmentation(counts[0])
    assert found["pixel_accuracy"].item() == pytest.approx(14 / 16)
    assert found["miou"].item() == pytest.approx((3 / 5 + 11 / 13) / 2)
    total = segmentation(counts.sum(0))
    assert total["pixel_accuracy"].item() == pytest.approx(26 / 32)
    assert total["miou"].item() == pytest.approx((3 / 9 + 23 / 29) / 2)
    torch.testing.assert_close(segmentation(counts.double().mean(0)), total)


@pytest.mark.parametrize("stride", [4, 2])
def test_relevance_inside_is_a_loop_over_the_pixels_of_patches(stride):
    cells, mask = (S - P) // stride + 1, disc()
    relevance = draw(cells, cells)
    inside = total = 0.0
    for r in range(cells):
        for c in range(cells):
            positive = max(relevance[r, c].item(), 0)
            total += positive
            for y in range(r * stride, r * stride + P):
                for x in range(c * stride, c * stride + P):
                    inside += positive / P**2 * bool(mask[y, x])
    assert positive_inside(relevance, covered(mask, P, stride)) == pytest.approx(inside / total)
    assert positive_inside(-relevance.abs(), covered(mask, P, stride)) == 0


def test_the_own_object_is_named_when_it_has_more():
    left, right = torch.zeros(2, 2), torch.zeros(2, 2)
    left[:, 0], right[:, 1] = 1, 1
    relevance = torch.tensor([[3.0, 1.0], [-9.0, 1.0]])  # what is negative on the left does not count
    assert [named(relevance, [left, right], own) for own in (0, 1)] == [1, 0]
    assert [named(torch.ones(2, 2), [left, right], own) for own in (0, 1)] == [0.5, 0.5]
    assert named(relevance, [left, right, torch.tensor([[0, 0], [0, 1.0]])], 0) == 1


def slow_perturbed(relevance, stride, count, lerf=False):
    """Which pixels are gone when so many patches are, most or least relevant first."""
    cells = [(r, c) for r in range(len(relevance)) for c in range(len(relevance[0]))]
    order = sorted(cells, key=lambda cell: -relevance[cell[0]][cell[1]])
    gone = np.zeros((S, S), bool)
    for r, c in (order[::-1] if lerf else order)[:count]:
        for y in range(r * stride, r * stride + P):
            for x in range(c * stride, c * stride + P):
                gone[y, x] = True
    return gone


@pytest.mark.parametrize("stride", [4, 2])
def test_the_plan_takes_patches_and_pixels_in_their_order(stride):
    cells = (S - P) // stride + 1
    relevance = draw(cells, cells)
    pixels = enlarged(relevance, S)
    found = plan(relevance, pixels, patch_size=P, stride=stride, step=3, replacement="blur")
    assert found.counts == (*range(0, cells**2, 3), cells**2)
    for name, lerf in (("flip_morf", False), ("flip_lerf", True)):
        for count, (how, gone) in zip(found.counts, found.rows[name], strict=True):
            assert how == "blur"
            assert gone == slow_perturbed(relevance.tolist(), stride, count, lerf).tobytes()
    values = sorted(pixels.flatten().tolist())
    for percent, (how, most), (_, least) in zip(
        range(10, 100, 10), found.rows["positive"], found.rows["negative"], strict=True
    ):
        count = S * S * percent // 100
        gone = [np.frombuffer(form, bool).reshape(S, S) for form in (most, least)]
        assert how == "black"
        assert [each.sum() for each in gone] == [count, count]
        assert pixels.numpy()[gone[0]].min() == values[-count]
        assert pixels.numpy()[gone[1]].max() == values[count - 1]


# The whole


def pictures(count, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, 20, 24, 3), dtype=np.uint8)


def object_masks(count, objects=1):
    masks = np.zeros((count, objects, 20, 24), bool)
    for number in range(objects):
        masks[:, number, 4 + number : 12 + number, 4 + 9 * number : 11 + 9 * number] = True
    return masks


@pytest.fixture(scope="module")
def model():
    return small_vim()


def evaluate(model, images, **options):
    defaults = {"methods": METHODS, "method_options": OPTIONS, "resamples": 50, "progress": False}
    return evaluate_image_explanations(model, images, **{**defaults, **options})


@pytest.mark.parametrize("options", [{"num_labels": 1}, {"problem_type": "regression"}])
def test_a_regression_model_is_refused(options):
    with pytest.raises(UnknownArchitectureError, match="regression"):
        evaluate(small_vim(**options), pictures(1), labels=[0])


@torch.no_grad()
def own_logits(model, pixels):
    return model(pixel_values=pixels[None]).logits[0].double()


def trapezoid(values):
    return sum((a + b) / 2 for a, b in itertools.pairwise(values)) / (len(values) - 1)


@pytest.mark.parametrize("replacement", ["mean", "black"])
def test_perturbation_is_the_slow_one_of_the_models_own_forward(model, replacement):
    images = pictures(2)
    results = evaluate(model, images, labels=[1, "LABEL_3"], step=1, replacement=replacement).results
    process = image_processor(model.config)
    mean, deviation = (torch.tensor(getattr(process, f"image_{name}"))[:, None, None] for name in ("mean", "std"))
    explained = make_explainable(model)
    for row, (image, target) in enumerate(zip(images, (1, 3), strict=True)):
        pixels = process(image, return_tensors="pt")["pixel_values"][0]
        black = (-mean / deviation).expand_as(pixels)
        blank = black if replacement == "black" else pixels.mean((1, 2), keepdim=True).expand_as(pixels)
        relevance = explained.explain(image, target=target).relevance[0]
        curves = {}
        for lerf in (False, True):
            gone = [torch.tensor(slow_perturbed(relevance.tolist(), P, k, lerf)) for k in range(17)]
            curves[lerf] = [own_logits(model, torch.where(g, blank, pixels))[target].item() for g in gone]
        found = results["methods"]["mambalrp"]
        expected = trapezoid(curves[True]) - trapezoid(curves[False])
        assert found["delta_flip"]["values"][row] == pytest.approx(expected, abs=1e-5)
        order = torch.tensor(slow_bilinear(relevance.double().tolist(), S)).flatten().argsort(descending=True)
        for name, ordered in (("positive_accuracy", order), ("negative_accuracy", order.flip(0))):
            right = []
            for percent in range(10, 100, 10):
                there = torch.ones(S * S, dtype=torch.bool)
                there[ordered[: S * S * percent // 100]] = False
                logits = own_logits(model, torch.where(there.view(S, S), pixels, black))
                right.append(logits.argmax().item() == target)
            assert found[name]["values"][row] == pytest.approx(sum(right) / 9)
        example = results["examples"][row]
        whole = own_logits(model, pixels)
        assert example["targets"] == [f"LABEL_{target}"]
        assert example["predicted"] == f"LABEL_{whole.argmax()}"
        assert example["scores"] == pytest.approx([whole[target].item()], abs=1e-5)
    assert results["methods"]["mambalrp"]["delta_flip"]["mean"] != results["methods"]["gamma 0"]["delta_flip"]["mean"]


def test_two_objects_are_explained_in_turn_and_against_each_other(model):
    images, masks = pictures(3), object_masks(3, 2)
    labels = [[0, 1], [4, 2], [3, 0]]
    found = evaluate(model, images, labels=labels, masks=masks, perturbation=False, contrast=True)
    explained, process = make_explainable(model), image_processor(model.config)
    blind = found.results["methods"]["attention_rollout"]
    assert blind["named"]["values"] == [0.5, 0.5, 0.5]
    assert "named_contrast" not in blind
    inside = found.results["methods"]["mambalrp"]
    for row, image in enumerate(images):
        objects = [read_mask(Case(row, "", image, None, None), mask, (24, 20), process) for mask in masks[row]]
        named_own, named_against, aucs = [], [], []
        for own, (target, other) in enumerate((labels[row], labels[row][::-1])):
            for contrast, into in ((None, named_own), (other, named_against)):
                relevance = explained.explain(image, target=target, contrast=contrast).relevance[0].clamp(min=0)
                sums = [
                    sum(relevance[y // P, x // P].item() / P**2 for y in range(S) for x in range(S) if bool(each[y, x]))
                    for each in objects
                ]
                into.append(sums[own] > sums[1 - own])
            pixels = slow_bilinear(explained.explain(image, target=target).relevance[0].tolist(), S)
            aucs.append(slow_auc([*itertools.chain(*pixels)], objects[own].flatten().tolist()))
        assert inside["named"]["values"][row] == sum(named_own) / 2
        assert inside["named_contrast"]["values"][row] == sum(named_against) / 2
        assert inside["roc_auc"]["values"][row] == pytest.approx(sum(aucs) / 2, abs=1e-6)


def test_intervals_are_of_pictures_and_of_totals(model):
    """A slow bootstrap over the same draws; a picture's targets go together, and mIoU is a ratio of totals."""
    images, masks = pictures(4, seed=3), object_masks(4, 2)
    labels = [[0, 1], [1, 2], [2, 3], [3, 4]]
    found = evaluate(model, images, labels=labels, masks=masks, perturbation=False, resamples=21, seed=5)
    results = found.results
    drawn = torch.randint(4, (21, 4), generator=torch.Generator().manual_seed(5)).tolist()
    explained, process = make_explainable(model), image_processor(model.config)
    counts = {}
    for name, gamma in (("mambalrp", 0.25), ("gamma 0", 0)):
        counts[name] = torch.zeros(4, 4)
        for row in range(4):
            for target, mask in zip(labels[row], masks[row], strict=True):
                seen = read_mask(Case(row, "", None, None, None), mask, (24, 20), process)
                relevance = explained.explain(images[row], target=target, gamma=gamma).relevance[0]
                counts[name][row] += torch.tensor(confusion(enlarged(relevance, S), seen))
    slow = {
        name: [segmentation(sum(each[i] for i in draw))["miou"].item() for draw in drawn]
        for name, each in counts.items()
    }
    for name, each in counts.items():
        stat = results["methods"][name]["miou"]
        assert stat["mean"] == pytest.approx(segmentation(each.sum(0))["miou"].item())
        assert [stat["low"], stat["high"]] == pytest.approx(np.quantile(slow[name], [0.025, 0.975]).tolist())
    gaps = [a - b for a, b in zip(slow["mambalrp"], slow["gamma 0"], strict=True)]
    stat = results["differences"]["miou"]["gamma 0"]
    assert [stat["low"], stat["high"]] == pytest.approx(np.quantile(gaps, [0.025, 0.975]).tolist())
    back = found.compare("gamma 0", "mambalrp")["miou"]
    assert [back["mean"], back["high"], back["low"]] == pytest.approx([-stat["mean"], -stat["low"], -stat["high"]])
    assert found.compare("mambalrp", "gamma 0") == pytest.approx(
        {key: pytest.approx(each["gamma 0"]) for key, each in results["differences"].items()}
    )
    with pytest.raises(OptionError, match="'lime'"):
        found.compare("lime", "mambalrp")


def test_a_mask_goes_where_the_picture_goes():
    """Through the processor's resizing and crop, and it stays a mask."""
    process = image_processor(small_vim().config)
    case = Case(0, "a", None, None, None)
    mask = np.zeros((40, 60), np.uint8)
    mask[10:30, 20:40] = 7
    seen = read_mask(case, mask, (60, 40), process)
    painted = np.where(mask[..., None], 255, 0).astype(np.uint8).repeat(3, -1)
    pixels = process(painted, return_tensors="pt", do_normalize=False)["pixel_values"][0, 0]
    assert seen.shape == (S, S)
    assert (seen != (pixels > 0.5)).double().mean() < 0.1  # bicubic and nearest differ at the rim
    assert torch.equal(read_mask(case, Image.fromarray(mask), (60, 40), process), seen)
    with pytest.raises(InputError, match=r"id 'a'.*60 x 40.*mask 40 x 60"):
        read_mask(case, mask.T, (60, 40), process)
    with pytest.raises(InputError, match="nothing of the object"):
        read_mask(case, np.zeros((40, 60)), (60, 40), process)
    with pytest.raises(InputError, match=r"shape \(2, 40, 60\)"):
        read_mask(case, np.zeros((2, 40, 60)), (60, 40), process)


def test_it_is_the_same_twice_goes_on_where_it_was_and_is_read_back(model, tmp_path):
    images = [tmp_path / f"{name}.png" for name in "ab"]
    for path, pixels in zip(images, pictures(2), strict=True):
        Image.fromarray(pixels).save(path)
    masks = list(object_masks(2)[:, 0])
    given = {"masks": masks, "step": 0.5, "output_dir": tmp_path / "out"}
    found = evaluate(model, images, **given)
    written = {path.name: path.read_bytes() for path in (tmp_path / "out").glob("re*")}
    assert set(written) == {"report.html", "report.md", "results.json"}
    assert ImageEvaluation.load(tmp_path / "out" / "results.json").results == found.results
    assert json.loads(written["results.json"]) == found.results
    assert [example["id"] for example in found.results["examples"]] == ["a.png", "b.png"]
    lines = (tmp_path / "out" / "progress.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "out" / "progress.jsonl").write_text(lines[0])
    evaluate(model, images, **given)
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").glob("re*")} == written
    assert str(tmp_path) not in written["results.json"].decode()
    Image.fromarray(pictures(1, seed=9)[0]).save(images[1])
    with pytest.raises(InputError, match="data was"):
        evaluate(model, images, **given)


def test_the_report_says_what_was_measured(model):
    masks = object_masks(2, 2)
    given = {"labels": [[0, 1], [2, 3]], "masks": masks, "step": 8, "contrast": True}
    found = evaluate(model, pictures(2), **given)
    page, text = found.to_html(), found.to_markdown()
    for title in ("Perturbation", "The object's mask", "Several objects", "Perturbation curves"):
        assert f"## {title}" in text
    assert "gamma 0" in page
    assert page.count("<svg") == 3 + 6 + 2 + 3
    miou = found.results["methods"]["mambalrp"]["miou"]["mean"]
    assert f"{miou:.2f}"[:3] in text
    assert "mIoU ↑" in repr(found)
    assert "–" in repr(found)  # rollout has no contrast
    assert len(found.plot().axes) == 3
    only = evaluate(model, pictures(1), methods=["random"], method_options={}, step=8)
    assert "The object's mask" not in only.to_markdown()
    with pytest.raises(InputError, match="perturbation=True"):
        evaluate(model, pictures(1), masks=masks[:1, 0], perturbation=False).plot()


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"labels": [1]}, TargetError, "1 entries for 2 pictures"),
        ({"labels": [1, "hat"]}, TargetError, r"labels\[1\]='hat'"),
        ({"labels": [[1, 1], 2]}, TargetError, "different ones"),
        ({"labels": "LABEL_1"}, TargetError, "one entry a picture"),
        ({"masks": [np.ones((20, 24))]}, InputError, "1 entries for 2"),
        ({"labels": [[0, 1], 2], "masks": [np.ones((20, 24))] * 2}, InputError, r"masks\[0\] has 1 masks.*2 classes"),
        ({"masks": [np.ones((20, 24))] * 2}, InputError, "covers everything"),
        ({"perturbation": False}, InputError, "nothing to measure"),
        ({"contrast": True, "labels": [0, 1]}, InputError, "two labels"),
        ({"ids": ["a"]}, InputError, "ids has 1"),
        ({"methods": ["lime"], "method_options": {}}, OptionError, "'lime'"),
        ({"methods": ["latim"], "method_options": {}}, OptionError, "both directions"),
        ({"method_options": {"gamma 0": {"method": "mambalrp", "gama": 0}}}, OptionError, "gama"),
        ({"replacement": "noise"}, OptionError, "'noise'"),
        ({"step": 1.5}, OptionError, "patches"),
        ({"batch_size": 0}, OptionError, "batch_size=0"),
    ],
)
def test_what_does_not_fit_is_said(model, options, error, words):
    with pytest.raises(error, match=words):
        evaluate(model, pictures(2), **options)


def test_no_pictures_are_refused(model):
    for images in ([], "folder", None):
        with pytest.raises(InputError, match="at least one picture"):
            evaluate(model, images)


def test_the_scenes_that_ship_have_masks_the_packaged_model_can_be_held_against():
    """A scene of the model's size passes through its processor unchanged, so the mask is seen as it is."""
    from hf_mambalrp import DEMO_VISION_MODEL

    packaged = VimForImageClassification.from_pretrained(DEMO_VISION_MODEL)
    scenes = load_scenes(1)
    found = evaluate(packaged, scenes.images[:2], labels=scenes.labels[:2], masks=scenes.masks[:2], perturbation=False)
    assert [example["evidence"][0] for example in found.results["examples"]] == [
        pytest.approx(mask.mean()) for mask in scenes.masks[:2]
    ]
    assert found.results["methods"]["mambalrp"]["roc_auc"]["mean"] > 0.8
    assert not math.isnan(found.results["methods"]["mambalrp"]["miou"]["mean"])


# The command


@pytest.fixture
def run(tmp_path, model, monkeypatch, capsys):
    """The command beside folders of pictures, in this process: exit code, standard output, standard error."""
    model.save_pretrained(tmp_path / "model")
    for number, pixels in enumerate(pictures(2)):
        for name in (f"plain/{number}.png", f"classes/LABEL_{number}/a.png"):
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
            mask = tmp_path / "masks" / path.relative_to(tmp_path / name.split("/")[0])
            mask.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(object_masks(1)[0, 0]).save(mask)
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["hf-mambalrp", "evaluate-images", *arguments])
        with pytest.raises(SystemExit) as stopped:
            main()
        return stopped.value.code, *capsys.readouterr()

    return call


FEW = ("--model", "model", "--methods", "mambalrp, random", "--resamples", "20", "--step", "8")


@pytest.mark.parametrize("folder", ["plain", "classes"])
def test_the_command_reads_folders_and_writes_the_report(run, tmp_path, folder):
    code, printed, errors = run(folder, "--masks", "masks", "--output", "out", *FEW)
    assert code == 0, errors
    assert "mIoU ↑" in printed
    assert errors.splitlines()[-3:] == [f"written: out/{name}" for name in ("report.html", "report.md", "results.json")]
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    if folder == "classes":
        assert [example["id"] for example in results["examples"]] == ["LABEL_0/a.png", "LABEL_1/a.png"]
        assert [example["targets"] for example in results["examples"]] == [["LABEL_0"], ["LABEL_1"]]
    else:
        assert all(example["targets"] == [example["predicted"]] for example in results["examples"])


def test_the_command_has_the_scenes_that_ship(run, tmp_path):
    options = ("--methods", "gamma 0", "--method-options", json.dumps(OPTIONS), "--samples", "1", "--no-perturbation")
    code, _, errors = run("two", "--output", "out", "--contrast", *options)
    assert code == 0, errors
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert (results["model"], len(results["examples"])) == ("vision_demo", 1)
    assert len(results["examples"][0]["targets"]) == 2
    assert "named_contrast" in results["methods"]["gamma 0"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere"], ["'nowhere'", "one of ['one', 'two']"]),
        (["empty"], ["no pictures"]),
        (["plain", "--masks", "classes"], ["2 of 2", "classes/0.png"]),
        (["one", "--masks", "masks"], ["of their own"]),
        (["plain", "--methods", "lime"], ["'lime'"]),
        (["plain", "--replacement", "noise"], ["'noise'"]),
        (["plain", "--model", "./nowhere"], ["nowhere"]),
    ],
)
def test_errors_of_the_command_are_one_line(run, tmp_path, arguments, words):
    (tmp_path / "empty").mkdir()
    code, _, errors = run(*arguments, "--output", "bad")
    assert code == 1
    assert errors.splitlines()[-1].startswith("hf-mambalrp: ")
    for word in words:
        assert word in errors
    assert not (tmp_path / "bad").exists()
