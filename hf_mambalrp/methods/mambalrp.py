"""MambaLRP."""

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from hf_mambalrp.errors import OptionError
from hf_mambalrp.methods.graphs import propagate
from hf_mambalrp.methods.problem import Problem, Relevance
from hf_mambalrp.rules import ATTENTION_RULES, GAMMA_ON, MAMBALRP, Rules


def mambalrp(
    problem: Problem,
    *,
    gamma: float = 0.0,
    gamma_on: str | Iterable[str] = ("conv1d",),
    attention_rule: str = "cp",
) -> Relevance:
    """MambaLRP (Rezaei Jafari et al. 2024, section 4): every rule of :data:`hf_mambalrp.rules.MAMBALRP`.

    Args:
        problem: what is explained.
        gamma: of LRP-gamma on what ``gamma_on`` names, see :mod:`hf_mambalrp.rules.gamma`; 0 is LRP-0.
        gamma_on: "conv1d", "linear" or both.
        attention_rule: of softmax attention, where the model has it: "cp" with its weights constant, or "attnlrp"; see
            :mod:`hf_mambalrp.rules.attention`.

    Raises:
        OptionError: an option's value is not allowed.
    """
    return propagate(problem, mambalrp_rules(gamma=gamma, gamma_on=gamma_on, attention_rule=attention_rule))


def mambalrp_rules(*, gamma: Any = 0.0, gamma_on: Any = ("conv1d",), attention_rule: str = "cp") -> Rules:
    """The rules under these options; arguments and errors as :func:`mambalrp`."""
    if attention_rule not in ATTENTION_RULES:
        raise OptionError(f"attention_rule={attention_rule!r} is not allowed. Give one of {list(ATTENTION_RULES)}.")
    rules = replace(MAMBALRP, attention=attention_rule)
    if isinstance(gamma, bool) or not isinstance(gamma, int | float) or not 0 <= gamma < math.inf:
        raise OptionError(f"gamma={gamma!r} is not allowed. Give a number from 0 up; 0 is LRP-0.")
    operations = (gamma_on,) if isinstance(gamma_on, str) else gamma_on
    if not isinstance(operations, Iterable) or not set(operations) <= set(GAMMA_ON):
        raise OptionError(f"gamma_on={gamma_on!r} is not allowed. Give some of {list(GAMMA_ON)}.")
    return replace(rules, gamma=float(gamma), gamma_on=frozenset(operations)) if gamma and operations else rules
