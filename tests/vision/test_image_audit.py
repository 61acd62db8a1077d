"""An audit of images: every number against slow loops, a planted shortcut, and what is refused."""

import math
from statistics import fmean, variance

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats
from small_vim import SIZES, small_vim

from hf_mambalrp import VimConfig, VimForImageClassification, make_explainable
from hf_mambalrp.audit import Audit, audit
from hf_mambalrp.errors import InputError, OptionError, TargetError
from hf_mambalrp.models.vim.processor import image_processor

S, P = SIZES["image_size"], SIZES["patch_size"]
CORNER = np.zeros((S, S), bool)
CORNER[:P, :P] = True
MIDDLE = np.zeros((S, S), bool)
MIDDLE[5:11, 5:11] = True
WHOLE = np.ones((S, S), bool)


def processor(config):
    """Pixels as they are, but for their normalisation."""
    return image_processor(config, do_resize=False, do_center_crop=False)


def noise(count, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, S, S, 3), dtype=np.uint8)


def run(model, data, **options):
    options = {"processor": processor(model.config), "min_texts": 3, "progress": False, **options}
    return audit(model, data, **options)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return make_explainable(small_vim())


@torch.no_grad()
def slow_log_odds(model, pixels):
    logits = model(pixel_values=pixels).logits[0].double()
    return [
        value - math.log(sum(math.exp(other) for j, other in enumerate(logits.tolist()) if j != i))
        for i, value in enumerate(logits.tolist())
    ]


def slow(model, images, masks, classes=None):
    """By region: share, mean relevance, paired differences over the deviation, classes; all by loops."""
    process, n = processor(model.config), len(images)
    found = {name: {"share": 0.0, "relevance": [], "differences": [], "classes": []} for name in masks}
    scores, raw = [], {name: [] for name in masks}
    for i, image in enumerate(images):
        pixels = process(images=[Image.fromarray(image)], return_tensors="pt")["pixel_values"]
        relevance = model.explain(pixel_values=pixels, processor=process).relevance[0].tolist()
        odds = slow_log_odds(model, pixels)
        says = max(range(len(odds)), key=odds.__getitem__)
        scores.append(odds[says])
        total = sum(abs(value) for row in relevance for value in row)
        for name, given in masks.items():
            mask = given if isinstance(given, np.ndarray) else given[i]
            if mask is None or not mask.any():
                continue
            without, one, size = pixels.clone(), 0.0, 0.0
            for r in range(S // P):
                for c in range(S // P):
                    part = mask[r * P : (r + 1) * P, c * P : (c + 1) * P].sum() / P**2
                    one += relevance[r][c] * part
                    size += abs(relevance[r][c]) * part
                    if part:
                        for channel in range(3):
                            patch = without[0, channel, r * P : (r + 1) * P, c * P : (c + 1) * P]
                            patch[:] = pixels[0, channel].mean()
            found[name]["share"] += size / total / n
            found[name]["relevance"].append(one)
            if not mask.all():
                raw[name].append((odds[says] - slow_log_odds(model, without)[says], classes[i] if classes else says))
    deviation = math.sqrt(variance(scores))
    for name, pairs in raw.items():
        found[name]["differences"] = [difference / deviation for difference, _ in pairs]
        found[name]["classes"] = [own for _, own in pairs]
    return found


def slow_test(differences, classes):
    """Mean of the classes' means and Welch's p by scipy: of one class a t test of one sample."""
    by_class = {own: [d for d, c in zip(differences, classes, strict=True) if c == own] for own in {*classes}}
    by_class = {own: values for own, values in by_class.items() if len(values) > 1}
    mean = fmean(map(fmean, by_class.values()))
    if len(by_class) == 1:
        return mean, stats.ttest_1samp(*by_class.values(), 0.0).pvalue
    (one, other) = by_class.values()
    return mean, stats.ttest_ind(one, [-value for value in other], equal_var=False).pvalue


def test_every_number_is_that_of_slow_loops(model):
    images, config = noise(10), model.config
    somewhere = [MIDDLE if i % 3 else None for i in range(10)]
    masks = {"corner": CORNER, "middle": somewhere, "all": WHOLE, "rare": [CORNER, *[None] * 9]}
    rows = [
        {"image": image, "is": config.id2label[i % 2], "where": mask, "side": "left" if i < 6 else "right"}
        for i, (image, mask) in enumerate(zip(images, somewhere, strict=True))
    ]
    found = run(model, rows, masks={**masks, "middle": "where"}, label="is", groups="side")
    expected = slow(model, images, masks, [i % 2 for i in range(10)])
    assert {*found.untested} == {"all", "rare"}
    assert {one.found.name for one in found.candidates} == {"corner", "middle"}
    order = {one.found.name: one.share / math.sqrt(10 if one.found.name == "corner" else 6) for one in found.candidates}
    assert [*order] == sorted(order, key=lambda name: -order[name])
    p_values = []
    for one in found.candidates:
        own = expected[one.found.name]
        effect, p = slow_test(own["differences"], own["classes"])
        assert one.share == pytest.approx(own["share"], rel=1e-4)
        assert one.mean == pytest.approx(fmean(own["relevance"]), rel=1e-3, abs=1e-5)
        assert one.found.effect == pytest.approx(effect, rel=1e-4, abs=1e-6)
        assert one.found.p == pytest.approx(p, rel=1e-3)
        assert one.found.texts == len(own["differences"])
        assert one.found.target == "the predicted class"
        p_values.append(p)
    q_values = stats.false_discovery_control(p_values)
    assert [one.q for one in found.candidates] == pytest.approx(q_values.tolist(), rel=1e-3)
    assert [(group.value, group.texts) for group in found.groups] == [("left", 6), ("right", 4)]
    assert found.classes == {config.id2label[0]: 5, config.id2label[1]: 5}
    assert run(model, rows, masks={**masks, "middle": "where"}, label="is", groups="side") == found


def test_other_replacements_files_and_predicted_classes(model, tmp_path):
    images = noise(4, seed=1)
    paths = [tmp_path / f"{i}.png" for i in range(4)]
    for path, image in zip(paths, images, strict=True):
        Image.fromarray(image).save(path)
    Image.fromarray(CORNER).save(tmp_path / "corner.png")
    by_file = run(model, paths, masks={"corner": tmp_path / "corner.png"})
    assert by_file.candidates == run(model, images, masks={"corner": CORNER}).candidates
    effects = {
        run(model, images, masks={"c": CORNER}, replacement=how).candidates[0].found.effect for how in ("black", "blur")
    }
    assert len({*effects, by_file.candidates[0].found.effect}) == 3
    assert by_file.errors is None


def cornered(count, seed):
    """Noise of two classes, of which one has white corners."""
    images, labels = 96 + noise(count, seed) // 4, np.arange(count) % 2
    images[labels == 1, :P, :P] = 255
    return images, labels


def test_a_planted_shortcut_is_confirmed_shown_and_kept(tmp_path):
    torch.manual_seed(0)
    model = VimForImageClassification(VimConfig(**{**SIZES, "num_labels": 2}))
    optimiser = torch.optim.Adam(model.parameters(), 2e-2)
    for step in range(60):  # never the same noise twice, which could be learned by heart
        images, labels = cornered(32, step)
        pixels = processor(model.config)(images=list(images), return_tensors="pt")["pixel_values"]
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(model(pixel_values=pixels).logits, torch.tensor(labels)).backward()
        optimiser.step()
    rows = [
        {"image": image, "label": int(label), "corner": CORNER if label else None}
        for image, label in zip(*cornered(40, 1000), strict=True)
    ]
    masks = {"corner": "corner", "middle": MIDDLE}
    found = run(make_explainable(model.eval()), rows, masks=masks, label="label")
    (corner,) = found.confirmed
    (middle,) = (one for one in found.candidates if one.found.name == "middle")
    assert (corner.found.name, corner.found.texts, middle.found.texts) == ("corner", 20, 40)
    assert corner.found.effect > 10 * abs(middle.found.effect)
    assert corner.share > middle.share
    assert found.errors == 0
    assert corner.found.changed > 10
    found.save(tmp_path / "audit.json")
    assert Audit.load(tmp_path / "audit.json") == found
    found.to_html(tmp_path / "audit.html")
    page = (tmp_path / "audit.html").read_text()
    assert "40 explained" in page
    assert "only the named regions were tested" in page
    assert "last word" not in page
    assert len(found.to_pandas().region) == 2
    assert len(found.plot().axes) == 1


@pytest.mark.parametrize(
    ("data", "options", "error", "says"),
    [
        (noise(4), {}, InputError, r"masks=\{\"corner\": mask\}"),
        (noise(4), {"masks": [CORNER]}, OptionError, "masks is list"),
        (noise(4), {"masks": {"corner": [CORNER]}}, InputError, "1 entries for 4 images"),
        (noise(4), {"masks": {"corner": CORNER[:3]}}, InputError, "'corner' is 16 x 16 pixels and its mask 16 x 3"),
        ("pictures", {"masks": {"corner": CORNER}}, InputError, "'pictures' is not a file"),
        (noise(4), {"masks": {"corner": CORNER}, "label": "label"}, InputError, "Image 0 has no 'label'"),
        (noise(4), {"masks": {"corner": CORNER}, "replacement": "hole"}, OptionError, "hole"),
        (noise(4), {"masks": {"corner": CORNER}, "target": 1}, OptionError, "target is for texts"),
        ([{"image": noise(1)[0], "label": "cat"}] * 4, {"masks": {"c": CORNER}, "label": "label"}, TargetError, "cat"),
    ],
)  # fmt: skip
def test_what_is_refused(model, data, options, error, says):
    with pytest.raises(error, match=says):
        run(model, data, **options)
