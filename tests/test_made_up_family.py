"""An architecture that nobody has, of known parts, against an oracle: names, branches, scales and norms of its own.

A layer is h + 0.7 (0.5 mamba1(2 norm h) + mamba2(norm h)), then h + norm(mamba1(h + W e)), e the embeddings; the second
layer has no Mamba-2, and the third no second branch. The oracle is the architecture's forward in float64, position by
position, with what the rules hold constant detached, written from the formulas.
"""

import copy
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from transformers import Mamba2Config, MambaConfig
from transformers.models.mamba.modeling_mamba import MambaMixer, MambaRMSNorm
from transformers.models.mamba2.modeling_mamba2 import Mamba2Mixer

from hf_mambalrp import make_explainable
from hf_mambalrp.families import FAMILIES
from hf_mambalrp.families.base import Family, Head, Term, branch, part_of
from hf_mambalrp.families.parts import SSD, RMSNorm, Selective, Tokens
from hf_mambalrp.rules.linear import linear

D, V = 8, 23
ONE = MambaConfig(hidden_size=D, state_size=3, time_step_rank=2, num_hidden_layers=1, vocab_size=V)
TWO = Mamba2Config(
    hidden_size=D, state_size=4, num_heads=4, head_dim=4, expand=2, n_groups=2, chunk_size=4, num_hidden_layers=1,
    vocab_size=V,
)  # fmt: skip
IDS = torch.tensor([[3, 5, 2, 11, 17, 4, 9], [7, 22, 1, 6, 0, 0, 0]])
MASK = torch.tensor([[1] * 7, [1] * 4 + [0] * 3])


class Bridged(Selective):
    """A mixer that reads the embeddings too."""

    def __call__(self, x, state, step):
        return super().__call__(x + linear(self.module.bridge, step.embeddings, step.ledger), state, step)


class Layer(nn.Module):
    def __init__(self, number):
        super().__init__()
        self.before, self.behind = MambaRMSNorm(D), MambaRMSNorm(D)
        self.left = MambaMixer(ONE, 0)
        self.right = None if number == 1 else Mamba2Mixer(TWO, 0)
        self.late = None if number == 2 else MambaMixer(ONE, 0)
        if self.late is not None:
            self.late.bridge = nn.Linear(D, D)


class MadeUp(nn.Module):
    """The model, with a forward of its own that calls transformers' mixers."""

    def __init__(self):
        super().__init__()
        self.config = SimpleNamespace(model_type="made_up", vocab_size=V, _name_or_path="")
        self.trunk = nn.Module()
        self.trunk.vectors, self.trunk.last = nn.Embedding(V, D), MambaRMSNorm(D)
        self.trunk.stack = nn.ModuleList(map(Layer, range(3)))
        self.lm_head = nn.Linear(D, V)

    def forward(self, input_ids, attention_mask=None, **_):
        mask = attention_mask
        embedded = h = 3 * self.trunk.vectors(input_ids)
        streams = [h]
        for layer in self.trunk.stack:
            x = layer.before(h)
            mixed = 0.5 * layer.left(2 * x, attention_mask=mask)
            h = h + 0.7 * (mixed if layer.right is None else mixed + layer.right(x, attention_mask=mask))
            if layer.late is not None:
                h = h + layer.behind(layer.late(h + layer.late.bridge(embedded), attention_mask=mask))
            streams.append(h)
        logits = 1.5 * self.lm_head(self.trunk.last(h))
        return SimpleNamespace(hidden_states=(*streams[:-1], self.trunk.last(h)), logits=logits)


TABLE = Family(
    "made_up",
    stem=lambda model: Tokens(model.trunk.vectors, 3.0),
    layers=lambda model: [
        (
            branch(RMSNorm(b.before), Term(Selective(b.left), 2.0, 0.5), part_of(b, "right", SSD), scale=0.7),
            branch(RMSNorm(b.behind), part_of(b, "late", Bridged), post=True),
        )
        for b in model.trunk.stack
    ],
    head=lambda model, linear: Head(RMSNorm(model.trunk.last), linear, 1.5),
)


def norm(module, x):
    r = ((x**2).mean(-1, keepdim=True) + module.variance_epsilon).rsqrt().detach()
    return x * r * module.weight


def convolved(module, x, mask):
    """silu by the identity rule, zero on padding."""
    kernel = module.weight[:, 0].shape[-1]
    padded = torch.cat([x.new_zeros(len(x), kernel - 1, x.shape[2]), x], 1)
    c = sum(padded[:, k : k + x.shape[1]] * module.weight[:, 0, k] for k in range(kernel)) + module.bias
    return c * torch.sigmoid(c).detach() * mask


def half(y, z):
    p = y * z * torch.sigmoid(z).detach()
    return p / 2 + (p / 2).detach()


def mamba1(m, x, mask):
    x, z = m.in_proj(x * mask).chunk(2, -1)
    u = convolved(m.conv1d, x, mask)
    low, B, C = (part.detach() for part in m.x_proj(u).split([2, 3, 3], -1))
    dt, A = F.softplus(m.dt_proj(low)).detach(), -torch.exp(m.A_log)
    h, ys = torch.zeros(len(x), *A.shape, dtype=x.dtype), []
    for t in range(x.shape[1]):
        h = torch.exp(dt[:, t, :, None] * A) * h + (dt * u)[:, t, :, None] * B[:, t, None]
        ys.append((h * C[:, t, None]).sum(-1) + m.D * u[:, t])
    return m.out_proj(half(torch.stack(ys, 1), z))


def mamba2(m, x, mask):
    heads, width, groups, states = 4, 4, 2, 4
    inner, both = heads * width, 2 * groups * states
    z, x, dt = m.in_proj(x * mask).split([inner, inner + both, heads], -1)
    x, B, C = convolved(m.conv1d, x, mask).split([inner, both // 2, both // 2], -1)
    B, C = (v.detach().unflatten(-1, (groups, states)).repeat_interleave(heads // groups, 2) for v in (B, C))
    dt, A = F.softplus(dt + m.dt_bias).detach(), -torch.exp(m.A_log)
    u = x.unflatten(-1, (heads, width))
    S, ys = torch.zeros(len(x), heads, width, states, dtype=x.dtype), []
    for t in range(x.shape[1]):
        S = torch.exp(dt[:, t] * A)[..., None, None] * S + (dt[:, t, :, None] * u[:, t])[..., None] * B[:, t, :, None]
        ys.append((S * C[:, t, :, None]).sum(-1) + m.D[:, None] * u[:, t])
    p = half(torch.stack(ys, 1).flatten(-2), z)
    size = getattr(m.norm, "group_size", None) or inner
    grouped = p.unflatten(-1, (-1, size))
    r = ((grouped**2).mean(-1, keepdim=True) + m.norm.variance_epsilon).rsqrt().detach()
    return m.out_proj((grouped * r).flatten(-2) * m.norm.weight)


def oracle(model, ids, mask, target):
    """Score (B,) of the last real token's logit, and relevance (B, L), in float64."""
    wide = mask[..., None].double()
    embedded = h = (3 * model.trunk.vectors(ids)).detach().requires_grad_()
    for layer in model.trunk.stack:
        x = norm(layer.before, h)
        mixed = 0.5 * mamba1(layer.left, 2 * x, wide)
        h = h + 0.7 * (mixed if layer.right is None else mixed + mamba2(layer.right, x, wide))
        if layer.late is not None:
            h = h + norm(layer.behind, mamba1(layer.late, h + layer.late.bridge(embedded), wide))
    score = 1.5 * model.lm_head(norm(model.trunk.last, h))[range(len(ids)), mask.sum(1) - 1, target]
    (gradient,) = torch.autograd.grad(score.sum(), embedded)
    return score.detach(), (embedded * gradient).sum(-1).detach() * mask


@pytest.fixture(params=[torch.float64, torch.float32], ids=str)
def model(request, monkeypatch):
    torch.manual_seed(5)
    made_up = MadeUp().eval()
    for name, parameter in made_up.named_parameters():
        if "A_log" not in name:
            nn.init.normal_(
                parameter, 1.0 if "norm" in name or name.endswith(("before.weight", "behind.weight")) else 0, 0.3
            )
    monkeypatch.setitem(FAMILIES, "made_up", TABLE)
    return made_up.to(request.param)


@pytest.mark.parametrize("chunk_size", ["auto", 1, 3])
def test_it_is_explained_whole_and_chunked(model, chunk_size):
    score, relevance = oracle(copy.deepcopy(model).double(), IDS, MASK, 4)
    found = make_explainable(model).explain(IDS, attention_mask=MASK, target=4, chunk_size=chunk_size)
    torch.testing.assert_close(found.score, score.float(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.relevance, relevance.float(), rtol=1e-5, atol=1e-5)
    assert found.conservation.gap.abs().max() < 1e-5
    own = model(IDS, attention_mask=MASK).logits[range(2), MASK.sum(1) - 1, 4]
    torch.testing.assert_close(found.score, own.float().detach(), rtol=1e-4, atol=1e-5)
