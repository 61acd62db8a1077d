"""The element-wise parts of a mixer under the rules, each fused into one pass forward and one backward.

| op | forward, brackets constant | rules |
|---|---|---|
| conv_silu | c [sigmoid(c)], c the causal depthwise convolution of x | LRP-0, identity |
| norm | x [rsqrt(mean(x^2) + eps)] w | normaliser constant |
| gated_norm | norm by groups of p = y z [sigmoid(z)] | half, identity, normaliser constant |

The gate of Mamba-1 is part of its scan (:mod:`hf_mambalrp.ops.gated_scan`).

``reference`` holds them in plain torch, with autograd and ``detach``; ``triton``, of the same signatures, is imported
only where it is used, for Triton is an optional package.
"""
