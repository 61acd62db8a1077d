"""Which experts a token goes to, by the model's own router; every layout that transformers has had."""

from typing import Any

import torch
from torch import Tensor, nn

from hf_mambalrp.rules.twin import in_evaluation


def routed(module: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    """Weights (T, k) and numbers (T, k) of the experts of T tokens (T, D).

    - a router that returns logits, weights and numbers, in this order or the other one (transformers 5), of LFM2 with
      the block's ``expert_bias``, which only chooses;
    - a linear ``router`` beside ``route_tokens_to_experts`` (Jamba in the first releases of 5), or alone: softmax over
      all experts, of which the ``top_k`` are taken (Jamba in 4), over their sum if ``norm_topk_prob`` (Qwen in 4) or
      beside ``jitter_noise`` (MiniMax in 4), which is of training;
    - ``router.layer``: a softmax over the ``top_k`` (Granite in 4).
    """
    router: Any = in_evaluation(getattr(module, "router", None) or module.gate)
    x = x.to(next(router.parameters()).dtype)
    if hasattr(router, "layer"):
        logits, numbers = router.layer(x).float().topk(router.top_k, -1)
        return logits.softmax(-1), numbers
    bias = getattr(module, "expert_bias", None)
    found = router(x) if bias is None or isinstance(router, nn.Linear) else router(x, bias)
    if not isinstance(found, Tensor):
        first, weights, last = found
        return weights, last if first.is_floating_point() else first
    if hasattr(module, "route_tokens_to_experts"):
        numbers, weights = module.route_tokens_to_experts(x, found)
        return weights, numbers
    weights, numbers = found.softmax(-1, dtype=torch.float32).topk(module.top_k, -1)
    if getattr(module, "norm_topk_prob", hasattr(module, "jitter_noise")):
        weights = weights / weights.sum(-1, keepdim=True)
    return weights, numbers


def experts_of_a_token(module: Any) -> int:
    """k."""
    found: int = module.top_k if hasattr(module, "top_k") else (getattr(module, "router", None) or module.gate).top_k
    return found
