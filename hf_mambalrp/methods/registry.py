"""The table of methods. Each is a function of a problem that returns the relevance of every token."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from inspect import signature
from typing import Any

from hf_mambalrp.errors import OptionError
from hf_mambalrp.methods.attention_rollout import attention_rollout
from hf_mambalrp.methods.expected_mambalrp import expected_mambalrp
from hf_mambalrp.methods.graphs import propagate
from hf_mambalrp.methods.integrated_gradients import integrated_gradients
from hf_mambalrp.methods.latim import latim
from hf_mambalrp.methods.mamba_attribution import mamba_attribution
from hf_mambalrp.methods.mambalrp import mambalrp, mambalrp_rules
from hf_mambalrp.methods.occlusion import occlusion
from hf_mambalrp.methods.problem import Problem, Relevance
from hf_mambalrp.methods.random_relevance import random_relevance
from hf_mambalrp.methods.raw_attention import raw_attention
from hf_mambalrp.methods.smoothgrad import smoothgrad
from hf_mambalrp.rules import LRP_LN, NO_RULES, Rules


@dataclass(frozen=True)
class Method:
    """One explanation method."""

    name: str
    source: str
    explain: Callable[..., Relevance]
    """``explain(problem, **options)``; its keyword arguments are the method's options."""
    rules: Callable[..., Rules] | None
    """The rule set under the method's options, for methods that are one modified gradient."""
    has_layers: bool = False
    """Whether it has relevance after every block as well."""
    reads_score: bool = True
    """Whether the relevance depends on the target; otherwise a contrast has no meaning."""
    changes_input: bool = False
    """Whether the score is read at other inputs too, where the model may predict something else."""

    def default(self, option: str) -> Any:
        """What an option is where the call does not give it."""
        return signature(self.explain).parameters[option].default

    @property
    def options(self) -> list[str]:
        """Names of its options."""
        return [name for name in signature(self.explain).parameters if name != "problem"]

    def check_options(self, call: str, options: Mapping[str, Any]) -> None:
        """Raise :class:`OptionError` for an option this method does not have."""
        unknown = sorted(set(options) - set(self.options)) if options else []
        if unknown:
            has = f"Its options are {self.options}" if self.options else "It has no options"
            raise OptionError(f"{call}() got {unknown}, which method {self.name!r} does not know. {has}.")


def _by_rules(name: str, rules: Rules, source: str) -> Method:
    """A method that is one modified gradient under a rule set."""

    def explain(problem: Problem) -> Relevance:
        return propagate(problem, rules)

    return Method(name, source, explain, lambda: rules, has_layers=True)


METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method("mambalrp", "Rezaei Jafari et al. 2024, section 4", mambalrp, mambalrp_rules, has_layers=True),
        Method(
            "expected_mambalrp",
            "this project's own; MambaLRP in the way of Erion et al. 2021",
            expected_mambalrp,
            rules=None,
            changes_input=True,
        ),
        _by_rules("lrp_ln", LRP_LN, "Ali et al. 2022; the LN-rule baseline of Rezaei Jafari et al. 2024"),
        _by_rules("gradient_x_input", NO_RULES, "Shrikumar et al. 2017"),
        Method(
            "integrated_gradients", "Sundararajan et al. 2017", integrated_gradients, rules=None, changes_input=True
        ),
        Method("smoothgrad", "Smilkov et al. 2017", smoothgrad, rules=None, changes_input=True),
        Method("occlusion", "Zeiler and Fergus 2014", occlusion, rules=None, changes_input=True),
        Method("raw_attention", "Ali et al. 2025", raw_attention, rules=None, reads_score=False),
        Method("attention_rollout", "Ali et al. 2025", attention_rollout, rules=None, reads_score=False),
        Method("mamba_attribution", "Ali et al. 2025", mamba_attribution, rules=None),
        Method("latim", "Pitorro and Treviso 2025", latim, rules=None, reads_score=False),
        Method("random", "standard normal numbers", random_relevance, rules=None, reads_score=False),
    )
}


def method_named(name: str) -> Method:
    """Return the method, or raise :class:`OptionError` that lists the names."""
    if name not in METHODS:
        raise OptionError(f"Unknown method {name!r}. Known methods: {sorted(METHODS)}.")
    return METHODS[name]
