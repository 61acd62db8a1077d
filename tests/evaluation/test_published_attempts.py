"""The attempts at a more faithful method: the README's tables are the committed numbers."""

import json
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "examples" / "evaluation"
ATTEMPTS = {
    name: found["attempts"]
    for name, found in json.loads((FOLDER / "results" / "attempts.json").read_text(encoding="utf-8")).items()
}
LINES = (FOLDER / "README.md").read_text(encoding="utf-8").splitlines()


def rows_below(head):
    start = next(number for number, line in enumerate(LINES) if line.startswith(head)) + 2
    for line in LINES[start:]:
        if not line.startswith("|"):
            return
        yield [cell.strip() for cell in line.strip().strip("|").split("|")]


def over(found, reference, metric, digits):
    """The paired difference to another method, as the README writes it; empty where it was not taken."""
    difference = found.get("over", {}).get(reference, {}).get(metric)
    return "" if difference is None else f"{difference[0]:+.{digits}f} ± {difference[1]:.{digits}f}"


def test_the_attempts_on_snippets_are_those_of_the_results():
    flips = []
    for name, *cells in rows_below("| attempt | ΔA^F"):
        found = ATTEMPTS["sentiment"][name]
        pairs = [(method, metric) for method in ("mambalrp", "smoothgrad") for metric in ("delta_flip", "delta_insert")]
        means = [f"{found[metric]:.3f}" for metric in ("delta_flip", "delta_insert")]
        assert cells == [*means, *(over(found, *pair, 3) for pair in pairs)]
        flips.append(found["delta_flip"])
    assert len(flips) > 20
    assert flips == sorted(flips, reverse=True)


def test_the_attempts_on_other_models_are_those_of_the_results():
    for name, *cells in rows_below("| attempt, over MambaLRP"):
        copying, language = (ATTEMPTS[kind].get(name, {}) for kind in ("copying, Mamba-2", "language model"))
        pictures = ATTEMPTS["pictures, second run"].get(name) or ATTEMPTS["pictures"].get(name, {})
        expected = [over(copying, "mambalrp", metric, 2) for metric in ("delta_flip", "delta_insert")]
        expected.append(f"{copying['hit']:.2f}" if copying else "")
        expected += [over(language, "mambalrp", metric, 2) for metric in ("delta_flip", "delta_insert")]
        assert cells == [*expected, over(pictures, "mambalrp", "delta_flip", 2)], name


def test_no_attempt_is_above_mambalrp_and_smoothgrad_on_every_model():
    """What the section says: of those that were tried on all, none has an interval above zero everywhere."""
    kinds = ("sentiment", "copying, Mamba-2", "language model", "pictures, second run")
    everywhere = set.intersection(*(set(ATTEMPTS[kind]) for kind in kinds))
    assert len(everywhere) > 1
    for name in everywhere - {"MambaLRP"}:
        leads = [
            mean - half
            for found in ATTEMPTS.values()
            for mean, half in found.get(name, {}).get("over", {}).get("mambalrp", {}).values()
        ]
        assert min(leads) < 0, name


def test_the_shares_of_the_greedy_order_are_those_of_the_results():
    found, text = ATTEMPTS["sentiment"], " ".join(" ".join(LINES).split())
    best = found["greedy order for ΔA^F"]["delta_flip"]
    names = [
        "MambaLRP",
        "SmoothGrad, 25 samples",
        "expected MambaLRP, keep 0.5",
        next(n for n in found if "Shapley" in n),
    ]
    own, noise, coalitions, shapley = (f"{100 * found[name]['delta_flip'] / best:.0f} %" for name in names)
    assert f"reaches {best:.3f} on the same snippets: MambaLRP has {own} of it, SmoothGrad {noise}" in text
    assert f"half of the tokens {coalitions}, Shapley values of the replacement game" in text
    assert f"forwards, {shapley}." in text
    best = found["greedy order for ΔA^I"]["delta_insert"]
    own, noise, coalitions = (f"{100 * found[name]['delta_insert'] / best:.0f} %" for name in names[:3])
    shares = f"MambaLRP has {own}, SmoothGrad {noise} and expected MambaLRP {coalitions}"
    assert f"best order found reaches {best:.3f}, of which {shares}" in text
