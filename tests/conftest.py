"""Shared test settings: tolerances per dtype in one place, one thread, no network, GPU kernels without a GPU."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"

import pytest
import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # read when triton is imported, which importing transformers does

RELATIVE = {torch.float64: 1e-6, torch.float32: 1e-5, torch.bfloat16: 2e-2}
"""Largest relative L2 error of relevance against the float64 oracle (relevance is returned as float32)."""


@pytest.fixture(autouse=True)
def one_thread():
    """Tiny tensors are many times slower on two threads of a shared machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
