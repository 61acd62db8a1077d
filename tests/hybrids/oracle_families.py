"""The oracle's families: from a model of transformers to the oracle's network.

Weights are read off modules by name, settings off the configuration. A part is called like the attribute of the layer
that holds it: "mamba", "self_attn", "feed_forward", "shared_mlp", "block_sparse_moe", "mixer".
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from oracle_branches import Branch, Network, Scaled, SharedBranch
from oracle_delta import DeltaNet, ShortConv
from oracle_linear import RGLRU, Lightning
from oracle_parts import (
    F64,
    MLP,
    Adapted,
    Experts,
    GatedMLP,
    Linear,
    MixtureOfExperts,
    Norm,
    Part,
    WeightedMLP,
    chosen_of_softmax,
    sigmoid_of_groups,
    softmax_of_chosen,
)
from oracle_softmax import Attention, LatentKeys, Narrowed
from oracle_ssm import Mamba1, Mamba2
from torch import Tensor


class Reader:
    """What the families' modules have in common; `rule` is attention's."""

    def __init__(self, model: Any, rule: str):
        self.config, self.rule = model.config, rule
        self.activation = getattr(model.config, "hidden_act", None) or getattr(model.config, "hidden_activation", "")
        rotary = getattr(model.model, "rotary_emb", getattr(model.model, "pos_emb", None))
        if rotary is None:  # or in every module
            found = [module.rotary_emb for module in model.modules() if hasattr(module, "rotary_emb")]
            rotary = found[0] if found else None
        self.frequencies = None if rotary is None else rotary.inv_freq.detach().to(F64)

    def attention(self, module: Any, name: str, *, head_dim: int, scaling: float, **options: Any) -> Attention:
        """Projections that are not among `options` are the module's own."""
        projections = {
            letter: options.pop(letter, None) or Linear.of(getattr(module, f"{letter}_proj"), f"{name}.{letter}_proj")
            for letter in "qkvo"
        }
        return Attention(
            **projections,
            head_dim=head_dim,
            scaling=scaling,
            rule=self.rule,
            frequencies=self.frequencies,
            **options,
        )

    def usual_attention(self, module: Any, name: str, **options: Any) -> Attention:
        """With the scaling 1 / sqrt(head_dim)."""
        config = self.config
        head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        return self.attention(module, name, head_dim=head_dim, scaling=head_dim**-0.5, **options)

    def gated_mlp(self, module: Any, name: str, **multipliers: float) -> GatedMLP:
        """With gate_proj, up_proj and down_proj."""
        gate, up, down = (Linear.of(getattr(module, n), f"{name}.{n}") for n in ("gate_proj", "up_proj", "down_proj"))
        return GatedMLP(gate, up, down, self.activation, **multipliers)

    def gated_expert(self, gate_up: Tensor, down: Tensor, activation: str = "") -> Callable[[int], GatedMLP]:
        """Experts (experts, 2 I, D) and (experts, D, I), the rows of the gate before those of up."""

        def expert(index: int) -> GatedMLP:
            gate, up = gate_up[index].chunk(2)
            return GatedMLP(Linear(gate), Linear(up), Linear(down[index]), activation or self.config.hidden_act)

        return expert


def stacked(experts: Any) -> tuple[Tensor, Tensor]:
    """Gate above up (experts, 2 I, D), and down (experts, D, I); in transformers 4 experts are modules in a list."""
    if hasattr(experts, "gate_up_proj"):
        return experts.gate_up_proj, experts.down_proj
    gate, up, down = ("w1", "w3", "w2") if hasattr(experts[0], "w1") else ("gate_proj", "up_proj", "down_proj")
    gate_up = torch.stack([torch.cat([getattr(e, gate).weight, getattr(e, up).weight]) for e in experts])
    return gate_up, torch.stack([getattr(e, down).weight for e in experts])


def network_of(model: Any, attention: str) -> Network:
    config, base = model.config, model.model
    if config.model_type not in LAYERS:
        raise ValueError(f"no oracle for model_type {config.model_type!r}; there is one for {', '.join(LAYERS)}")
    read_layer = LAYERS[config.model_type]
    reader = Reader(model, attention)
    final = next(
        name for name in ("final_layernorm", "norm", "norm_f", "embedding_norm", "final_norm") if hasattr(base, name)
    )
    factor = getattr(config, "lm_head_multiplier", 1.0) / getattr(config, "logits_scaling", 1.0)
    return Network(
        embedding=model.get_input_embeddings().weight.detach().to(F64),
        embedding_multiplier=float(getattr(base, "normalizer", getattr(config, "embedding_multiplier", 1.0))),
        layers=[read_layer(reader, layer, f"model.layers.{i}", i) for i, layer in enumerate(base.layers)],
        norm=Norm(getattr(base, final)),
        head=Linear.of(model.lm_head, "lm_head"),
        head_multiplier=factor,
        cap=getattr(config, "logits_soft_cap", None),
    )


def _bamba(reader: Reader, layer: Any, name: str, _index: int) -> list[Branch | SharedBranch]:
    mixer: dict[str, Scaled] = {}
    if getattr(layer, "mamba", None) is not None:
        mixer["mamba"] = Scaled(Mamba2(layer.mamba, f"{name}.mamba"))
    else:
        mixer["self_attn"] = Scaled(reader.usual_attention(layer.self_attn, f"{name}.self_attn"))
    mlp = Scaled(reader.gated_mlp(layer.feed_forward, f"{name}.feed_forward"))
    return [Branch(Norm(layer.input_layernorm), mixer), Branch(Norm(layer.pre_ff_layernorm), {"feed_forward": mlp})]


def _granite(reader: Reader, layer: Any, name: str, _index: int) -> list[Branch | SharedBranch]:
    config = reader.config
    mixer: dict[str, Scaled] = {}
    if layer.mamba is not None:
        mixer["mamba"] = Scaled(Mamba2(layer.mamba, f"{name}.mamba"))
    else:
        head_dim = config.hidden_size // config.num_attention_heads
        scaling = config.attention_multiplier
        attention = reader.attention(layer.self_attn, f"{name}.self_attn", head_dim=head_dim, scaling=scaling)
        mixer["self_attn"] = Scaled(attention)
    I = config.shared_intermediate_size  # noqa: E741
    gate, up = (Linear.of(layer.shared_mlp.input_linear, "", rows) for rows in (slice(0, I), slice(I, None)))
    shared = GatedMLP(gate, up, Linear.of(layer.shared_mlp.output_linear, ""), config.hidden_act)
    second = {"shared_mlp": Scaled(shared)}
    if config.num_local_experts:
        moe = layer.block_sparse_moe
        if hasattr(moe, "experts"):
            router, gate_up, down = moe.router.weight, moe.experts.gate_up_proj, moe.experts.down_proj
        else:  # transformers 4
            router, gate_up, down = moe.router.layer.weight, moe.input_linear.weight, moe.output_linear.weight
        route = softmax_of_chosen(config.num_experts_per_tok)
        second["block_sparse_moe"] = Scaled(
            MixtureOfExperts(Experts(router, route, reader.gated_expert(gate_up, down)))
        )
    scale = config.residual_multiplier
    return [
        Branch(Norm(layer.input_layernorm), mixer, scale),
        Branch(Norm(layer.post_attention_layernorm), second, scale),
    ]


def _falcon_h1(reader: Reader, layer: Any, name: str, _index: int) -> list[Branch | SharedBranch]:
    config = reader.config
    mamba = Mamba2(
        layer.mamba,
        f"{name}.mamba",
        norm_first=config.mamba_norm_before_gate,
        in_multiplier=config.ssm_in_multiplier,
        multipliers=config.ssm_multipliers,
    )
    attention = reader.usual_attention(layer.self_attn, f"{name}.self_attn", key_multiplier=config.key_multiplier)
    gate_multiplier, down_multiplier = config.mlp_multipliers
    mlp = reader.gated_mlp(
        layer.feed_forward,
        f"{name}.feed_forward",
        gate_multiplier=gate_multiplier,
        down_multiplier=down_multiplier,
    )
    side_by_side = {
        "mamba": Scaled(mamba, scale_out=config.ssm_out_multiplier),
        "self_attn": Scaled(attention, config.attention_in_multiplier, config.attention_out_multiplier),
    }
    return [
        Branch(Norm(layer.input_layernorm), side_by_side),
        Branch(Norm(layer.pre_ff_layernorm), {"feed_forward": Scaled(mlp)}),
    ]


def _nemotron_h(reader: Reader, layer: Any, name: str, _index: int) -> list[Branch | SharedBranch]:
    mixer, name = layer.mixer, f"{name}.mixer"
    part: Part
    if hasattr(mixer, "A_log"):
        part = Mamba2(mixer, name)
    elif hasattr(mixer, "q_proj"):
        part = reader.usual_attention(mixer, name)
    elif hasattr(mixer, "experts"):
        part = _nemotron_experts(reader.config, mixer, name)
    else:
        part = _relu2_mlp(reader.config, mixer, name)
    return [Branch(Norm(layer.norm), {"mixer": Scaled(part)})]


def _relu2_mlp(config: Any, module: Any, name: str) -> MLP:
    up, down = Linear.of(module.up_proj, f"{name}.up_proj"), Linear.of(module.down_proj, f"{name}.down_proj")
    return MLP(up, down, config.mlp_hidden_act)


def _nemotron_experts(config: Any, moe: Any, name: str) -> MixtureOfExperts:
    route = sigmoid_of_groups(
        config.num_experts_per_tok,
        config.n_group,
        config.topk_group,
        moe.gate.e_score_correction_bias.tolist(),
        config.norm_topk_prob,
        config.routed_scaling_factor,
    )

    def expert(index: int) -> MLP:
        up, down = Linear(moe.experts.up_proj[index]), Linear(moe.experts.down_proj[index])
        return MLP(up, down, config.mlp_hidden_act)

    latent = None
    if config.moe_latent_size is not None:
        latent = (
            Linear.of(moe.fc1_latent_proj, f"{name}.fc1_latent_proj"),
            Linear.of(moe.fc2_latent_proj, f"{name}.fc2_latent_proj"),
        )
    shared = _relu2_mlp(config, moe.shared_experts, f"{name}.shared_experts")
    return MixtureOfExperts(Experts(moe.gate.weight, route, expert), latent, shared)


def _jamba(reader: Reader, layer: Any, name: str, _index: int) -> list[Branch | SharedBranch]:
    mixer: dict[str, Scaled] = {}
    if hasattr(layer, "mamba"):
        mixer["mamba"] = Scaled(Mamba1(layer.mamba, f"{name}.mamba"))
    else:
        mixer["self_attn"] = Scaled(reader.usual_attention(layer.self_attn, f"{name}.self_attn"))
    moe = layer.feed_forward
    second: Part
    if not hasattr(moe, "experts"):
        second = reader.gated_mlp(moe, f"{name}.feed_forward")
    else:
        gate_up, down = stacked(moe.experts)
        route = chosen_of_softmax(reader.config.num_experts_per_tok)
        second = MixtureOfExperts(Experts(moe.router.weight, route, reader.gated_expert(gate_up, down)))
    return [
        Branch(Norm(layer.input_layernorm), mixer),
        Branch(Norm(layer.pre_ff_layernorm), {"feed_forward": Scaled(second)}),
    ]


def _zamba(reader: Reader, layer: Any, name: str, _index: int) -> list[Branch | SharedBranch]:
    if not hasattr(layer, "shared_transf"):
        return [Branch(Norm(layer.input_layernorm), {"mamba": Scaled(Mamba1(layer.mamba, f"{name}.mamba"))})]
    decoder, shared, shared_name = layer.mamba_decoder, layer.shared_transf, f"{name}.shared_transf"
    return [
        SharedBranch(
            norm=Norm(decoder.input_layernorm),
            mamba=Mamba1(decoder.mamba, f"{name}.mamba_decoder.mamba"),
            first_norm=Norm(shared.input_layernorm),
            attention=_zamba_attention(reader, shared.self_attn, f"{shared_name}.self_attn"),
            second_norm=Norm(shared.pre_ff_layernorm),
            mlp=reader.gated_mlp(shared.feed_forward, f"{shared_name}.feed_forward"),
            linear=Linear.of(layer.linear, f"{name}.linear"),
        )
    ]


def _zamba_attention(reader: Reader, module: Any, name: str, **projections: Adapted) -> Attention:
    """Heads of 2 D / H channels, the scaling that of half as many."""
    head_dim = reader.config.attention_head_dim
    return reader.attention(module, name, head_dim=head_dim, scaling=(head_dim / 2) ** -0.5, **projections)


def _zamba2(reader: Reader, layer: Any, name: str, index: int) -> list[Branch | SharedBranch]:
    if not hasattr(layer, "shared_transformer"):
        return [Branch(Norm(layer.input_layernorm), {"mamba": Scaled(Mamba2(layer.mamba, f"{name}.mamba"))})]
    config = reader.config
    call = config.hybrid_layer_ids.index(index)
    decoder, shared, shared_name = layer.mamba_decoder, layer.shared_transformer, f"{name}.shared_transformer"

    projections: dict[str, Adapted] = {}
    if config.use_shared_attention_adapter:
        for letter in "qkv":
            base = Linear.of(getattr(shared.self_attn, f"{letter}_proj"), f"{shared_name}.self_attn.{letter}_proj")
            down, up = getattr(shared.self_attn, f"linear_{letter}_adapter_list")[call]
            projections[letter] = Adapted(base, Linear.of(down, ""), Linear.of(up, ""))

    mlp, I = shared.feed_forward, config.intermediate_size  # noqa: E741
    down, up = mlp.gate_up_proj_adapter_list[call]
    gate, up_proj = (
        Adapted(
            Linear.of(mlp.gate_up_proj, f"{shared_name}.feed_forward.gate_up_proj", rows),
            Linear.of(down, ""),
            Linear.of(up, "", rows),
        )
        for rows in (slice(0, I), slice(I, None))
    )
    down_proj = Linear.of(mlp.down_proj, f"{shared_name}.feed_forward.down_proj")
    return [
        SharedBranch(
            norm=Norm(decoder.input_layernorm),
            mamba=Mamba2(decoder.mamba, f"{name}.mamba_decoder.mamba"),
            first_norm=Norm(shared.input_layernorm),
            attention=_zamba_attention(reader, shared.self_attn, f"{shared_name}.self_attn", **projections),
            second_norm=Norm(shared.pre_ff_layernorm),
            mlp=GatedMLP(gate, up_proj, down_proj, config.hidden_act),
            linear=Linear.of(layer.linear, f"{name}.linear"),
        )
    ]


def _qwen(reader: Reader, layer: Any, name: str, _index: int) -> list[Branch | SharedBranch]:
    config, mixer = reader.config, {}
    if hasattr(layer, "linear_attn"):
        mixer["linear_attn"] = Scaled(DeltaNet(layer.linear_attn, f"{name}.linear_attn"))
    else:
        m, P = layer.self_attn, config.head_dim
        rows = torch.arange(m.q_proj.out_features).unflatten(0, (-1, 2, P))  # of every head those of q, then the gate's
        q, gate = (Linear.of(m.q_proj, f"{name}.self_attn.q_proj", rows[:, which].flatten()) for which in (0, 1))
        norms = (Norm(m.q_norm), Norm(m.k_norm))
        attention = reader.usual_attention(m, f"{name}.self_attn", q=q, gate=gate, norms=norms)
        mixer["self_attn"] = Scaled(attention)
    mlp = layer.mlp
    second: Part
    if hasattr(mlp, "experts"):
        route = chosen_of_softmax(config.num_experts_per_tok, normalise=True)
        experts = Experts(mlp.gate.weight, route, reader.gated_expert(*stacked(mlp.experts)))
        own = reader.gated_mlp(mlp.shared_expert, f"{name}.mlp.shared_expert")
        second = MixtureOfExperts(experts, None, WeightedMLP(own, Linear.of(mlp.shared_expert_gate, "")))
    else:
        second = reader.gated_mlp(mlp, f"{name}.mlp")
    return [
        Branch(Norm(layer.input_layernorm), mixer),
        Branch(Norm(layer.post_attention_layernorm), {"mlp": Scaled(second)}),
    ]


def _olmo_hybrid(reader: Reader, layer: Any, name: str, _index: int) -> list[Branch | SharedBranch]:
    mlp = {"mlp": Scaled(reader.gated_mlp(layer.mlp, f"{name}.mlp"))}
    if hasattr(layer, "linear_attn"):
        delta = Scaled(DeltaNet(layer.linear_attn, f"{name}.linear_attn"))
        return [
            Branch(Norm(layer.input_layernorm), {"linear_attn": delta}),
            Branch(Norm(layer.post_attention_layernorm), mlp),
        ]
    norms = (Norm(layer.self_attn.q_norm), Norm(layer.self_attn.k_norm))
    attention = Scaled(reader.usual_attention(layer.self_attn, f"{name}.self_attn", norms=norms))
    return [
        Branch(Norm(layer.post_attention_layernorm), {"self_attn": attention}, behind=True),
        Branch(Norm(layer.post_feedforward_layernorm), mlp, behind=True),
    ]


def _kimi_linear(reader: Reader, layer: Any, name: str, _index: int) -> list[Branch | SharedBranch]:
    config, mixer, mlp = reader.config, layer.self_attn, layer.mlp
    first = DeltaNet(mixer, f"{name}.self_attn") if hasattr(mixer, "conv1d") else _latent(reader, mixer, name)
    second: Part
    if hasattr(mlp, "experts"):
        correction = mlp.gate.e_score_correction_bias.tolist()
        sizes = (config.num_experts_per_tok, config.n_group, config.topk_group)
        route = sigmoid_of_groups(*sizes, correction, config.norm_topk_prob, config.routed_scaling_factor)
        experts = Experts(mlp.gate.weight, route, reader.gated_expert(mlp.experts.gate_up_proj, mlp.experts.down_proj))
        second = MixtureOfExperts(experts, None, reader.gated_mlp(mlp.shared_experts, f"{name}.mlp.shared_experts"))
    else:
        second = reader.gated_mlp(mlp, f"{name}.mlp")
    return [
        Branch(Norm(layer.input_layernorm), {"self_attn": Scaled(first)}),
        Branch(Norm(layer.post_attention_layernorm), {"mlp": Scaled(second)}),
    ]


def _latent(reader: Reader, module: Any, name: str) -> Attention:
    """Latent attention; of every head the rows of `kv_b_proj` are those of k, then those of v. A gate is of a head."""
    config, name = reader.config, f"{name}.self_attn"
    H, rank, nope, P = module.num_heads, config.kv_lora_rank, config.qk_nope_head_dim, config.v_head_dim
    rows = torch.arange(module.kv_b_proj.out_features).unflatten(0, (H, nope + P))

    def narrowed(of_heads: Tensor) -> Narrowed:
        first = Linear.of(module.kv_a_proj_with_mqa, f"{name}.kv_a_proj_with_mqa", slice(rank))
        return Narrowed(first, Norm(module.kv_a_layernorm), Linear.of(module.kv_b_proj, "", of_heads.flatten()))

    rot = Linear.of(module.kv_a_proj_with_mqa, f"{name}.kv_a_proj_with_mqa", slice(rank, None))
    q: Part
    if config.q_lora_rank is None:
        q = Linear.of(module.q_proj, f"{name}.q_proj")
    else:
        first = Linear.of(module.q_a_proj, f"{name}.q_a_proj")
        q = Narrowed(first, Norm(module.q_a_layernorm), Linear.of(module.q_b_proj, ""))
    head_dim = nope + config.qk_rope_head_dim
    gate = Linear(module.g_proj.weight.repeat_interleave(P, 0)) if hasattr(module, "g_proj") else None
    return reader.attention(
        module,
        name,
        head_dim=head_dim,
        scaling=head_dim**-0.5,
        value_dim=P,
        q=q,
        k=LatentKeys(narrowed(rows[:, :nope]), rot, H),
        v=narrowed(rows[:, nope:]),
        pairs=[(n, n + 1) for n in range(nope, head_dim, 2)],
        gate=gate,
    )


def _minimax(reader: Reader, layer: Any, name: str, _index: int) -> list[Branch | SharedBranch]:
    """The residual stream is normed, too."""
    config, m = reader.config, layer.self_attn
    linear, moe_name = hasattr(m, "qkv_proj"), "mlp" if hasattr(layer, "mlp") else "block_sparse_moe"
    if linear:
        first: Part = Lightning(m, f"{name}.self_attn")
    else:
        first = reader.usual_attention(m, f"{name}.self_attn", window=config.sliding_window)
    kind = "linear" if linear else "full"
    past, scale = (getattr(config, f"{kind}_attn_{which}_factor") for which in ("alpha", "beta"))
    moe, route = getattr(layer, moe_name), chosen_of_softmax(config.num_experts_per_tok, normalise=True)
    experts = Experts(moe.gate.weight, route, reader.gated_expert(*stacked(moe.experts)))
    second = Scaled(MixtureOfExperts(experts))
    return [
        Branch(Norm(layer.input_layernorm), {"self_attn": Scaled(first)}, scale, past=past),
        Branch(
            Norm(layer.post_attention_layernorm),
            {moe_name: second},
            config.mlp_beta_factor,
            past=config.mlp_alpha_factor,
        ),
    ]


def _recurrent_gemma(reader: Reader, layer: Any, name: str, _index: int) -> list[Branch | SharedBranch]:
    m = layer.temporal_block
    if hasattr(m, "rg_lru"):
        first: Part = RGLRU(m, f"{name}.temporal_block", reader.activation)
    else:
        first = reader.usual_attention(m, f"{name}.temporal_block", window=getattr(m, "sliding_window", None))
    second = reader.gated_mlp(layer.mlp_block, f"{name}.mlp_block")
    return [
        Branch(Norm(layer.temporal_pre_norm), {"temporal_block": Scaled(first)}),
        Branch(Norm(layer.channel_pre_norm), {"mlp_block": Scaled(second)}),
    ]


def _lfm2(reader: Reader, layer: Any, name: str, _index: int) -> list[Branch | SharedBranch]:
    config, mixer, m = reader.config, {}, layer.feed_forward
    if hasattr(layer, "conv"):
        mixer["conv"] = Scaled(ShortConv(layer.conv, f"{name}.conv"))
    else:
        attention = layer.self_attn
        norms = (Norm(attention.q_layernorm), Norm(attention.k_layernorm))
        out = Linear.of(attention.out_proj, f"{name}.self_attn.out_proj")
        mixer["self_attn"] = Scaled(reader.usual_attention(attention, f"{name}.self_attn", norms=norms, o=out))
    second: Part
    if hasattr(m, "experts"):
        correction = m.expert_bias.tolist()
        normalise, scaling = config.norm_topk_prob, config.routed_scaling_factor
        route = sigmoid_of_groups(config.num_experts_per_tok, 1, 1, correction, normalise, scaling, added=1e-6)
        expert = reader.gated_expert(m.experts.gate_up_proj, m.experts.down_proj, "silu")
        second = MixtureOfExperts(Experts(m.gate.weight, route, expert))
    else:
        second = GatedMLP(Linear.of(m.w1, ""), Linear.of(m.w3, ""), Linear.of(m.w2, ""), "silu")
    return [
        Branch(Norm(layer.operator_norm), mixer),
        Branch(Norm(layer.ffn_norm), {"feed_forward": Scaled(second)}),
    ]


LAYERS: dict[str, Callable[[Reader, Any, str, int], list[Branch | SharedBranch]]] = {
    "bamba": _bamba,
    "granitemoehybrid": _granite,
    "falcon_h1": _falcon_h1,
    "nemotron_h": _nemotron_h,
    "jamba": _jamba,
    "zamba2": _zamba2,
    "zamba": _zamba,
    "qwen3_next": _qwen,
    "qwen3_5_text": _qwen,
    "qwen3_5_moe_text": _qwen,
    "olmo_hybrid": _olmo_hybrid,
    "kimi_linear": _kimi_linear,
    "bailing_hybrid": _kimi_linear,
    "minimax": _minimax,
    "recurrent_gemma": _recurrent_gemma,
    "lfm2": _lfm2,
    "lfm2_moe": _lfm2,
}
"""From a layer of transformers, its name and its number to its branches."""
