"""What the card of a model is to say, from what the caller gives; checked before anything is written."""

from collections.abc import Sequence
from typing import Any

from torch import nn

from hf_mambalrp.hub.figures import checked_results
from hf_mambalrp.hub.model_card import Contents
from hf_mambalrp.models.card_checks import check_evaluation, check_explanations
from hf_mambalrp.results.card import in_card, rows, shown_rows


def card_contents(
    model: nn.Module, stock_name: str, *, explanations: Any, evaluation: Any, tags: Sequence[str]
) -> Contents:
    """What the card says; explanations or an evaluation that are None stay as an earlier card has them.

    InputError: they are something else, or of another model.
    """
    listed = None if explanations is None else rows(explanations)
    results = None if evaluation is None else checked_results(evaluation)
    if results is not None:
        check_evaluation(results, model)
    check_explanations(in_card(listed or []), model)
    return Contents(stock_name, None if listed is None else shown_rows(listed), results, tags)
