"""Shared test settings: one thread, no network, GPU kernels without a GPU."""

import gc
import os

os.environ["HF_HUB_OFFLINE"] = "1"

import pytest
import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # read when triton is imported, which importing transformers does
gc.disable()  # until all is imported: modules are no garbage, and have half a million objects


def pytest_collection_finish():
    """From here on garbage is looked for among what tests make, which takes no time."""
    gc.freeze()
    gc.enable()


@pytest.fixture(autouse=True)
def one_thread():
    """Tiny tensors are many times slower on two threads of a shared machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def one_seed():
    """The same numbers in every run and order: a bound that holds today holds tomorrow."""
    torch.manual_seed(0)
