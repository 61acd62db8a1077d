"""The element-wise parts of a mixer under the rules, each fused into one pass forward and one backward.

| op | forward, brackets constant | rules |
|---|---|---|
| conv_silu | c [sigmoid(c)], c the causal depthwise convolution of x | LRP-0, identity |
| norm | x [rsqrt(mean(x^2) + eps)] w | normaliser constant |
| add_norm | h = residual + branch, norm(h) | LRP-0, normaliser constant |
| gate | p = y z [sigmoid(z)], half of the relevance to each factor | half, identity |
| gated_norm | norm of gate(y, z), each group of channels by itself | half, identity, normaliser constant |

``reference`` holds them in plain torch, with autograd and ``detach``; ``triton``, of the same signatures, is imported
only where it is used, for Triton is an optional package.
"""
