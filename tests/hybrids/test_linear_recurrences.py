"""Lightning attention and RG-LRU as parts: what they get they pass on; their recurrence by every backend."""

import sys

import pytest
import torch
from small_hybrids import build

from hf_mambalrp import make_explainable
from hf_mambalrp.errors import UnknownArchitectureError
from hf_mambalrp.families import FAMILIES, Network
from hf_mambalrp.families.parts.reading import SLOWEST
from hf_mambalrp.families.parts.rg_lru import recurrence
from hf_mambalrp.rules import MAMBALRP
from hf_mambalrp.rules.biases import BiasLedger

BACKENDS = ["reference", "chunked", "compiled", "triton"]
if sys.platform != "linux":  # where triton has to be installed
    BACKENDS.remove("triton")


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("name", ["minimax", "recurrent_gemma"])
def test_a_part_passes_on_what_it_gets_but_for_its_biases(name):
    """sum x dx + sum b db = sum y dy for any dy: under the rules the part is homogeneous of degree 1."""
    network = Network(build(name), FAMILIES)
    part = next(part for part in network.parts if part.kind == "linear")
    x, ledger = random(2, 11, network.hidden_size).requires_grad_(), BiasLedger(2)
    plain = network.plain_step(torch.ones(2, 11), x)
    step = plain._replace(rules=MAMBALRP, ledger=ledger, dtype=torch.float64)
    y, _ = part(x, part.state(2, x), step)
    dy = random(*y.shape, seed=1)
    dx, *of_biases = torch.autograd.grad(y, [x, *ledger.entries], dy)
    absorbed = ledger.shares(ledger.absorbed(of_biases))[0].sum()
    assert (absorbed != 0) == (name == "recurrent_gemma")
    torch.testing.assert_close((x * dx).sum() + absorbed, (y * dy).sum(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("length", [1, 13, 65])
def test_the_recurrence_is_its_loop_and_its_transpose_that_of_the_loop(backend, length):
    """Of decays from 0 to 1: where nothing decays, dt, by which is divided, is next to 0."""
    x, dt, state = random(2, length, 5), random(2, length, 5, seed=1).exp(), random(2, 5, 1, seed=2)
    dt[..., 0], dt[..., 1] = SLOWEST, 200.0
    dtype = torch.float64 if backend in ("reference", "chunked") else torch.float32
    given = [one.to(dtype).requires_grad_() for one in (x, state)]
    h, last = recurrence(given[0], dt.to(dtype), given[1], backend)
    expected, carried = [], state[..., 0]
    for t in range(length):
        carried = torch.exp(-dt[:, t]) * carried + x[:, t]
        expected.append(carried)
    expected = torch.stack(expected, 1)
    for found, wanted in ((h.detach(), expected), (last[..., 0].detach(), carried)):
        assert float((found - wanted).norm()) <= 1e-5 * float(wanted.norm())
    dh = random(2, length, 5, seed=3)
    of_x, of_state = torch.autograd.grad(h, given, dh.to(dtype))
    assert float((x * of_x).sum() + (state * of_state).sum()) == pytest.approx(float((expected * dh).sum()), rel=1e-4)


def test_lightning_attention_with_another_activation_is_refused():
    model = build("minimax")
    model.model.layers[0].self_attn.act_fn = torch.nn.GELU()
    with pytest.raises(UnknownArchitectureError, match=r"layers\.0\.self_attn uses the activation 'GELU'.*\['silu'\]"):
        make_explainable(model)
