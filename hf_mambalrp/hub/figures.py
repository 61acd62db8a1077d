"""Faithfulness figures in a card: a table of every method, and ``model-index`` results of the first."""

from collections.abc import Mapping
from math import isfinite
from typing import Any

from huggingface_hub import EvalResult
from huggingface_hub.repocard_data import eval_results_to_model_index

from hf_mambalrp.errors import CardError, InputError
from hf_mambalrp.viz.markdown import escaped, table

METRICS = {
    "delta_flip": "ΔA flipping",
    "delta_insert": "ΔA insertion",
    "comprehensiveness": "Comprehensiveness",
    "sufficiency": "Sufficiency",
}
"""Metrics of an evaluation, with what they are called in a card."""
HEADING = "### Faithfulness"
"""A line of its own; explained texts, which are escaped, cannot be one."""


def evaluation_section(results: Mapping[str, Any]) -> str:
    """Markdown of the faithfulness figures of every method."""
    settings = results["settings"]
    lines = []
    for method, found in results["methods"].items():
        numbers = ("{mean:.3f} [{low:.3f}, {high:.3f}]".format(**found[metric]) for metric in METRICS)
        lines.append([escaped(method), *numbers])
    return "\n\n".join(
        [
            HEADING,
            f"Perturbation tests on {len(results['examples'])} texts, taken of the {escaped(settings['measure'])}: "
            "what the model does as tokens go and come in the order of their relevance. Higher is better, for "
            f"sufficiency lower. In brackets the {settings['confidence']:.0%} confidence interval over the texts.",
            table(["Method", *METRICS.values()], lines),
        ]
    )


def model_index(results: Mapping[str, Any], name: str, there: list[Any]) -> list[dict[str, Any]]:
    """The figures of the first method as ``model-index``, in place of earlier ones of ours, beside others' results.

    CardError: ``there`` is no ``model-index``.
    """
    method, figures = next(iter(results["methods"].items()))
    (made,) = eval_results_to_model_index(
        name,
        [
            EvalResult(
                task_type="explanation-faithfulness",
                task_name="Explanation faithfulness",
                dataset_type="custom",
                dataset_name=f"{len(results['examples'])} texts",
                metric_type=metric,
                metric_value=round(figures[metric]["mean"], 6),
                metric_name=f"{title}, {method}",
            )
            for metric, title in METRICS.items()
        ],
    )
    (ours,) = made["results"]
    first: Any
    first, *others = there or [{"name": name}]
    try:
        kept = [one for one in first.get("results") or [] if one.get("task") != ours["task"]]
    except AttributeError as error:
        raise CardError(
            "model-index in the front matter of README.md must be a list of models, each with a list of results."
        ) from error
    return [{**first, "results": [*kept, ours]}, *others]


def checked_results(evaluation: Any) -> Mapping[str, Any]:
    """The results of an evaluation, or of an object that has them. InputError: they lack what a card shows."""
    results = getattr(evaluation, "results", evaluation)
    try:
        for found in results["methods"].values():
            for metric in METRICS:
                if not all(isfinite(found[metric][name]) for name in ("mean", "low", "high")):
                    raise ValueError(f"{metric} is not finite")
        str(results["settings"]["measure"]), float(results["settings"]["confidence"])
        lacking = not results["methods"] or not results["examples"]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"evaluation is not what evaluate_faithfulness returns: {error!r} in it.") from error
    if lacking:
        raise InputError("evaluation is not what evaluate_faithfulness returns: it lacks methods or examples.")
    found_results: Mapping[str, Any] = results
    return found_results
