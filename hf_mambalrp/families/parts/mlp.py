"""Feed-forward parts: down(f(gate(x)) up(x)), weighted or not, and down(f(up(x))), position by position."""

from typing import Any

from torch import Tensor, nn

from hf_mambalrp.families.base import State, Step
from hf_mambalrp.families.parts.reading import factor_of, in_turn, reads, scaled
from hf_mambalrp.rules import Rules
from hf_mambalrp.rules.activation import Factor, activation
from hf_mambalrp.rules.adapters import innermost
from hf_mambalrp.rules.gate import gate, sigmoid_gate
from hf_mambalrp.rules.linear import linear, linear_parts


class Positionwise:
    """A part that mixes no positions and so has no state."""

    kind = "mlp"
    backends: tuple[str, ...] = ("auto", "chunked", "compiled", "mamba_ssm", "reference", "triton")
    """All are torch's matrix products."""
    causal = recordable = True
    appends = False

    def state(self, batch: int, like: Tensor) -> State:
        """Nothing."""
        return ()


class GatedMLP(Positionwise):
    """down(f(m_gate gate x) up x) m_down, with the half rule for the product and the identity rule for f.

    Args:
        module: it holds f, ``act_fn`` or ``activation``, and the linear layers; ``gate_multiplier`` and
            ``down_multiplier`` are 1 where it has none.
        gate_up: names of gate and up; or of one layer whose output is gate, then up.
        down: name of down.
        adapter: linear layers, one behind the other, whose output is added to that of the one layer.
        factor: factor(x) of f, where the module does not hold it.
    """

    def __init__(
        self,
        module: Any,
        gate_up: tuple[str, ...] = ("gate_proj", "up_proj"),
        down: str = "down_proj",
        adapter: tuple[nn.Module, ...] = (),
        factor: Factor | None = None,
    ) -> None:
        self.module = m = reads(module, *gate_up, down)
        self.gate_up, self.down = [getattr(m, name) for name in gate_up], getattr(m, down)
        self.factor, self.adapter = factor or factor_of(m), adapter
        self.width: int = innermost(self.down).in_features

    def kept(self, rules: Rules) -> int:
        """Both factors of the product; without the rules more."""
        return (2 if rules.gate and rules.silu else 5) * self.width

    def __call__(self, x: Tensor, state: State, step: Step) -> tuple[Tensor, State]:
        """(B, L, D) -> (B, L, D)."""
        m, ledger, gamma = self.module, step.ledger, step.rules.gamma_of("linear")
        if len(self.gate_up) == 2:
            z, y = (linear(layer, x, ledger, gamma) for layer in self.gate_up)
        else:
            z, y = linear_parts(self.gate_up[0], x, [self.width, self.width], ledger, gamma)
        if self.adapter:
            added = in_turn(self.adapter, x, step)
            z, y = (one + more for one, more in zip((z, y), added.chunk(2, -1), strict=True))
        p = gate(y, scaled(z, getattr(m, "gate_multiplier", 1.0)), step.rules, self.factor)
        return scaled(linear(self.down, p, ledger, gamma), getattr(m, "down_multiplier", 1.0)), ()


class WeightedMLP(GatedMLP):
    """[sigmoid(``weight`` x)] of a gated MLP, the bracket constant: an expert that every token goes through.

    Args:
        module: the MLP.
        weight: linear, D -> 1.
    """

    def __init__(self, module: Any, weight: nn.Module) -> None:
        super().__init__(module)
        self.weight = weight

    def kept(self, rules: Rules) -> int:
        """What the MLP keeps, and the weight."""
        return super().kept(rules) + 1

    def __call__(self, x: Tensor, state: State, step: Step) -> tuple[Tensor, State]:
        """(B, L, D) -> (B, L, D)."""
        y, _ = super().__call__(x, state, step)
        return sigmoid_gate(y, linear(self.weight, x, step.ledger), step.rules), ()


class MLP(Positionwise):
    """``down_proj``(f(``up_proj`` x)), with the identity rule for f."""

    def __init__(self, module: Any) -> None:
        self.module = reads(module, "up_proj", "down_proj")
        self.factor = factor_of(self.module)

    def kept(self, rules: Rules) -> int:
        """The factor f(x) / x; without the rule more."""
        return (1 if rules.silu else 3) * int(innermost(self.module.down_proj).in_features)

    def __call__(self, x: Tensor, state: State, step: Step) -> tuple[Tensor, State]:
        """(B, L, D) -> (B, L, D)."""
        m, ledger, gamma = self.module, step.ledger, step.rules.gamma_of("linear")
        y = activation(linear(m.up_proj, x, ledger, gamma), step.rules, self.factor)
        return linear(m.down_proj, y, ledger, gamma), ()
