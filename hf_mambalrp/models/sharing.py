"""What the card of a model is to say, from what the caller gives; checked before anything is written."""

from collections.abc import Sequence
from typing import Any

from torch import nn

from hf_mambalrp.errors import InputError
from hf_mambalrp.hub.figures import checked_results
from hf_mambalrp.hub.model_card import Contents
from hf_mambalrp.models.card_checks import check_audit, check_evaluation, check_explanations
from hf_mambalrp.results.audit import Audit
from hf_mambalrp.results.card import audit_section, in_card, rows, shown_rows


def card_contents(
    model: nn.Module, stock_name: str, *, explanations: Any, evaluation: Any, audit: Any, tags: Sequence[str]
) -> Contents:
    """What the card says; explanations, an evaluation or an audit that are None stay as an earlier card has them.

    InputError: they are something else, or of another model.
    """
    listed = None if explanations is None else rows(explanations)
    results = None if evaluation is None else checked_results(evaluation)
    if results is not None:
        check_evaluation(results, model)
    if audit is not None and not isinstance(audit, Audit):
        raise InputError(f"audit is a {type(audit).__name__}; give what audit() returned, or Audit.load(path).")
    if audit is not None:
        check_audit(audit, model)
    check_explanations(in_card(listed or []), model)
    shown = None if listed is None else shown_rows(listed)
    return Contents(stock_name, shown, results, tags, None if audit is None else audit_section(audit))
