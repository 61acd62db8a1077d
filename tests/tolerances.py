"""Tolerances by dtype, in one place."""

import torch

RELATIVE = {torch.float64: 1e-6, torch.float32: 1e-5, torch.bfloat16: 2e-2}
"""Largest relative L2 error of relevance against the float64 oracle (relevance is returned as float32)."""
