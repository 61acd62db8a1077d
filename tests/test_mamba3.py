"""Mamba-3, which no release of transformers has and mamba_ssm as a module: in a model of one's own, by a table.

The model's mixers are a stand-in with mamba_ssm's names, with a forward of its own, from that package's step by step
one; relevance is compared with the slow oracle of hybrids, whose Mamba-3 is another one.
"""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mamba_ssm_stand_in import Mamba3 as Mixer
from torch import nn
from transformers.models.mamba.modeling_mamba import MambaRMSNorm

from hf_mambalrp import make_explainable
from hf_mambalrp.errors import UnknownArchitectureError
from hf_mambalrp.families import FAMILIES
from hf_mambalrp.families.base import Family, Head, branch
from hf_mambalrp.families.parts import Mamba3, RMSNorm, Tokens

sys.path.append(str(Path(__file__).parent / "hybrids"))
from oracle_branches import Branch, Scaled
from oracle_families import LAYERS
from oracle_hybrids import explain as oracle
from oracle_mamba3 import Mamba3 as OracleMixer
from oracle_parts import Norm

D, V, LENGTHS = 8, 23, [11, 6]
SETTINGS = [
    {"d_state": 8, "headdim": 4},
    {"d_state": 6, "headdim": 8, "ngroups": 2, "rope_fraction": 1.0, "is_outproj_norm": True},
]


class Layer(nn.Module):
    def __init__(self, settings):
        super().__init__()
        self.norm, self.mixer = MambaRMSNorm(D), Mixer(D, **settings)

    def forward(self, h):
        return h + self.mixer(self.norm(h))


class Model(nn.Module):
    def __init__(self, dtype=torch.float64):
        super().__init__()
        self.config = SimpleNamespace(model_type="of_mamba3", vocab_size=V, _name_or_path="")
        self.model = nn.Module()
        self.model.embed_tokens, self.model.norm = nn.Embedding(V, D), MambaRMSNorm(D)
        self.model.layers = nn.ModuleList(map(Layer, SETTINGS))
        self.lm_head = nn.Linear(D, V, bias=False)
        self.to(dtype)

    def get_input_embeddings(self):
        return self.model.embed_tokens

    def forward(self, input_ids, **_):
        streams = [self.model.embed_tokens(input_ids)]
        for layer in self.model.layers:
            streams.append(layer(streams[-1]))
        streams[-1] = self.model.norm(streams[-1])
        return SimpleNamespace(hidden_states=tuple(streams), logits=self.lm_head(streams[-1]))


TABLE = Family(
    "of_mamba3",
    stem=lambda model: Tokens(model.model.embed_tokens),
    layers=lambda model: [(branch(RMSNorm(b.norm), Mamba3(b.mixer)),) for b in model.model.layers],
    head=lambda model, linear: Head(RMSNorm(model.model.norm), linear),
)


def read_layer(_reader, layer, name, _index):
    return [Branch(Norm(layer.norm), {"mixer": Scaled(OracleMixer(layer.mixer, f"{name}.mixer"))})]


@pytest.fixture
def model(monkeypatch):
    monkeypatch.setitem(FAMILIES, "of_mamba3", TABLE)
    monkeypatch.setitem(LAYERS, "of_mamba3", read_layer)
    torch.manual_seed(0)
    return Model().eval()


def rows():
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(1, V, (length,), generator=generator) for length in LENGTHS]


def padded(side):
    ids, mask = torch.full((2, LENGTHS[0]), 17), torch.zeros(2, LENGTHS[0], dtype=torch.long)
    for number, row in enumerate(rows()):
        at = slice(LENGTHS[0] - len(row), None) if side == "left" else slice(len(row))
        ids[number, at], mask[number, at] = row, 1
    return ids, mask


def same(found, expected, tolerance=1e-6):
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=tolerance * float(expected.abs().max()))


def test_the_oracles_forward_is_the_modules(model):
    with torch.no_grad():
        for row in rows():
            same(oracle(model, row).logits, model(row[None]).logits[0, -1])  # whose norms are float32


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("chunk_size", ["auto", 1, 4])
def test_relevance_is_the_oracles(model, side, chunk_size):
    ids, mask = padded(side)
    found = make_explainable(model).explain(ids, attention_mask=mask, target=3, per_layer=True, chunk_size=chunk_size)
    for number, row in enumerate(rows()):
        wanted, kept = oracle(model, row, weights=torch.eye(V)[3]), mask[number] != 0
        same(found.score[number], wanted.score)
        same(found.relevance[number, kept], wanted.relevance)
        same(found.layer_relevance[:, number, kept], wanted.layer_relevance)
        assert found.relevance[number, ~kept].count_nonzero() == 0
        same(wanted.relevance.sum(), wanted.score, 1e-9)  # no biases: all of it


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)], ids=str)
def test_fewer_bits_and_another_backend(model, dtype, tolerance):
    short = make_explainable(model.to(dtype))
    row = rows()[0]
    expected = oracle(model, row, weights=torch.eye(V)[3])
    for backend in ("auto", "reference"):
        found = short.explain(row[None], target=3, backend=backend, check_forward=dtype == torch.float32)
        same(found.relevance[0], expected.relevance, tolerance)


def test_gradient_x_input_is_that_of_the_modules_own_forward(model):
    row = rows()[0][None]
    found = make_explainable(model).explain(row, target=3, method="gradient_x_input")
    chunked = model.explain(row, target=3, method="gradient_x_input", chunk_size=4)
    seen = []
    hook = model.model.embed_tokens.register_forward_hook(lambda *call: seen.append(call[2]))
    score = model(row).logits[0, -1, 3]
    hook.remove()
    (gradient,) = torch.autograd.grad(score, seen)
    for one in (found, chunked):
        same(one.relevance, (seen[0] * gradient).sum(-1), 1e-5)


@pytest.mark.parametrize("kind", ["raw", "unified"])
def test_hidden_attention_is_the_formula(model, kind):
    ids, mask = padded("left")
    found = make_explainable(model).hidden_attention(ids, attention_mask=mask, kind=kind)
    last = model.hidden_attention(ids, attention_mask=mask, kind=kind, positions=-1)
    for number, row in enumerate(rows()):
        network = [OracleMixer(layer.mixer, "") for layer in model.model.layers]
        h = model.model.embed_tokens(row).detach()
        at = mask[number] != 0
        for k, (layer, mixer) in enumerate(zip(model.model.layers, network, strict=True)):
            h = h + mixer.forward(Norm(layer.norm).forward(h))
            alpha = torch.stack([scan.alpha() for scan in mixer.scans]).repeat_interleave(mixer.P, 0)  # (E, L, L)
            if kind == "unified":
                alpha = mixer.scale.T[..., None] * alpha
            same(found.matrix[k, number][at][:, at], alpha.mean(0).detach(), 1e-6)
            same(last.matrix[k, number, 0, at], alpha.mean(0)[-1].detach(), 1e-6)


def test_several_inputs_and_outputs_are_refused(model):
    for layer in model.model.layers:
        layer.mixer.B_bias = nn.Parameter(layer.mixer.B_bias.expand(-1, 4, -1).clone())
    with pytest.raises(UnknownArchitectureError, match=r"mimo_rank=4, and rules are known of one.*is_mimo=False"):
        make_explainable(model)
