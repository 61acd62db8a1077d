"""The hybrid oracle's relevance is that of autograd through transformers' own model, rewritten from outside.

`Rewritten` replaces single functions of torch while transformers computes (softmax, silu, rsqrt, products, ...) by ones
with the same value whose backward is the rule. It shares no code and no formula with the oracle, whose backward is
written out by hand over the architecture.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from oracle_hybrids import explain
from small_hybrids import available, build, shared
from test_oracle_forward import MODELS_AND_RULES, Float64, ids, own_logits, same
from torch import Tensor

PRODUCTS = (torch.mul, Tensor.mul, Tensor.__mul__, Tensor.__rmul__)
PARTS = ("mamba", "self_attn", "feed_forward", "shared_mlp", "block_sparse_moe", "mixer", "linear_attn", "conv", "mlp")
PARTS += ("temporal_block", "mlp_block")
CAPS = (torch.tanh, Tensor.tanh, F.tanh)
SIGMOIDS = (torch.sigmoid, Tensor.sigmoid, F.sigmoid)


def half(product: Tensor) -> Tensor:
    return product / 2 + (product / 2).detach()


class Rewritten(Float64):
    """Context in which the backward of transformers' functions follows MambaLRP and a rule for attention."""

    def __init__(self, attention: str, delta: bool):
        super().__init__()
        self.attention, self.delta = attention, delta

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = super().__torch_function__(func, types, args, kwargs)
        router_or_constant = func is F.softmax and (self.attention == "cp" or output.dim() != 4)  # attention: 4
        if router_or_constant or func in (torch.rsqrt, F.softplus, torch.softmax, torch.log, *SIGMOIDS):
            # norms, dt and decays, routers and gates
            output = output.detach()
        elif func is torch.matmul and self.attention == "attnlrp" and args[0].dim() == 4:
            # q k^T and A v; Zamba's scan multiplies by vectors, and lightning attention has q and k constant.
            if args[1].shape[-1] > 1 and args[0].requires_grad and args[1].requires_grad:
                output = half(output)
        elif func in (F.silu, F.gelu, *CAPS):
            x = args[0]
            output = x * (output / x).detach()
            output.activated = func not in CAPS
        elif func is torch.square:  # of a relu
            output = args[0] * args[0].detach()
        elif func in PRODUCTS and any(getattr(factor, "activated", False) for factor in args):
            if args[0].shape == args[1].shape:  # two signals; D is smaller
                output = half(output)
        elif func is torch.split and self.delta:
            if len(output) == 3:
                q, k, v = output
                output = (q.detach(), k.detach(), v)
        elif func is Tensor.chunk and len(output) == 3:  # B, C, x of a short convolution
            for part in output:
                part.activated = True
        elif func is torch.split:  # x, B, C of Mamba-2, or dt, B, C of Mamba-1
            first, B, C = output
            output = (first, B.detach(), C.detach())
        return output


def rewritten(model: Any, attention: str) -> Rewritten:
    """Of delta nets what is split in three is q, k and v."""
    return Rewritten(attention, model.config.model_type in ("qwen3_next", "qwen3_5_text", "qwen3_5_moe_text", *KIN))


KIN = ("olmo_hybrid", "kimi_linear", "bailing_hybrid", "minimax")


@dataclass(frozen=True)
class Relevance:
    tokens: Tensor  # (L,)
    layers: Tensor  # (layers, L) residual stream after every layer
    around: Tensor  # (layers, L)
    parts: dict[tuple[int, str], Tensor]  # (layer, part) -> (L,)
    biases: dict[str, Tensor]  # the name that transformers has for the parameter -> ()


def by_autograd(model: Any, row: Tensor, position: int, token: int, attention: str) -> Relevance:
    embeddings: list[Tensor] = []
    streams: list[Tensor] = []
    inputs: dict[tuple[int, str], Tensor] = {}
    callers: dict[Any, list[tuple[int, str]]] = defaultdict(list)  # in some releases layers share a module
    layers = model.model.layers

    def keep(tensor: Tensor) -> Tensor:
        copy = tensor.clone()
        copy.retain_grad()
        return copy

    def keep_input(module: Any, args: Any, kwargs: Any) -> Any:
        key = callers[module].pop(0)
        inputs[key] = keep(args[0] if args else kwargs["hidden_states"])
        return ((inputs[key], *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": inputs[key]})

    def keep_output(kept: list[Tensor]) -> Any:
        def hook(_module: Any, _args: Any, output: Any) -> Any:
            kept.append(keep(output[0] if isinstance(output, tuple) else output))
            return (kept[-1], *output[1:]) if isinstance(output, tuple) else kept[-1]

        return hook

    hooks = [model.get_input_embeddings().register_forward_hook(keep_output(embeddings))]
    for i, layer in enumerate(layers):
        hooks.append(layer.register_forward_hook(keep_output(streams)))
        modules = {name: module for name, module in layer.named_children() if name in PARTS}
        shared = getattr(layer, "shared_transformer", getattr(layer, "shared_transf", None))
        if shared is not None:
            modules = {"mamba_decoder": layer.mamba_decoder.input_layernorm, "shared": shared.input_layernorm}
        for name, module in modules.items():
            callers[module].append((i, name))
    hooks += [module.register_forward_pre_hook(keep_input, with_kwargs=True) for module in callers]
    model.zero_grad()
    try:
        with rewritten(model, attention):
            logits = model(input_ids=row[None], use_cache=False).logits
        logits[0, position, token].backward()
    finally:
        for hook in hooks:
            hook.remove()

    around = torch.zeros(len(layers), len(row), dtype=torch.float64)
    parts = {}
    for (i, name), value in inputs.items():
        R = value * value.grad
        if name == "shared":
            from_stream, from_embeddings = R.chunk(2, -1)
            parts[i, "shared_transformer"], around[i] = from_stream[0].sum(-1), from_embeddings[0].sum(-1)
        elif name == "mamba_decoder":  # at the sum of stream and transformer: the stream's own share of it
            parts[i, name] = (streams[i - 1] * value.grad)[0].sum(-1)
        else:
            parts[i, name] = R[0].sum(-1)
    biases = {n: (p * p.grad).sum() for n, p in model.named_parameters() if n.endswith("bias") and p.grad is not None}
    return Relevance(
        tokens=(embeddings[0] * embeddings[0].grad)[0].sum(-1).detach(),
        layers=torch.stack([(stream * stream.grad)[0].sum(-1) for stream in streams]).detach(),
        around=around,
        parts={key: value.detach() for key, value in parts.items()},
        biases={key: value.detach() for key, value in biases.items()},
    )


@pytest.mark.parametrize(("attention", "name"), MODELS_AND_RULES)
def test_relevance_is_that_of_transformers_rewritten_model(attention, name):
    model, row, position = build(name, seed=3), ids(4), 8
    oracle = explain(model, row, position=position, attention=attention)
    found = by_autograd(model, row, position, int(oracle.logits.argmax()), attention)
    same(oracle.relevance, found.tokens)
    same(oracle.layer_relevance[1:], found.layers)
    same(oracle.around, found.around)
    assert oracle.relevance[position + 1 :].abs().max() == 0
    assert oracle.relevance[: position + 1].abs().min() > 1e-5

    parts = {(i, part): R for (i, _, part), R in oracle.branch_relevance.items() if part != "skip"}
    assert parts.keys() == found.parts.keys()
    for key, R in parts.items():
        same(R, found.parts[key])
        assert R.abs().sum() > 1e-4 * oracle.score.abs()  # every part matters
    for i in range(len(model.model.layers)):
        paths = torch.stack(
            [R for (layer, branch, _), R in oracle.branch_relevance.items() if (layer, branch) == (i, 0)]
        )
        same(paths.sum(0), oracle.layer_relevance[i])

    names = {id(parameter): n for n, parameter in model.named_parameters()}  # shared ones once
    biases: dict[str, Tensor] = defaultdict(lambda: torch.zeros((), dtype=torch.float64))
    for n, value in oracle.biases_by_name.items():
        biases[names[id(model.get_parameter(n))]] += value
    for n in biases.keys() | found.biases.keys():
        same(biases[n], found.biases.get(n, torch.zeros((), dtype=torch.float64)))


@pytest.mark.parametrize("name", available())
def test_the_rewritten_model_has_transformers_own_logits(name):
    model, row = shared(name), ids()
    with torch.no_grad(), rewritten(model, "attnlrp"):
        logits = model(input_ids=row[None], use_cache=False).logits[0]
    same(logits, own_logits(model, row)[0])


@pytest.mark.parametrize("name", ["bamba", "jamba-moe", "zamba"])
def test_the_rules_for_attention_differ(name):
    model, row = shared(name), ids()
    cp, attnlrp = (explain(model, row, attention=rule).relevance for rule in ("cp", "attnlrp"))
    assert (cp - attnlrp).norm() > 0.01 * cp.norm()
    with pytest.raises(ValueError, match="gradient"):
        explain(model, row, attention="gradient")
