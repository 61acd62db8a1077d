"""Chunks that memory or the caller chooses: what happens where memory runs out, and what a waiting person sees."""

import pytest
import torch
from random_models import padded_batch, random_model
from transformers.utils import logging

from hf_mambalrp import make_explainable
from hf_mambalrp.families import FAMILIES, Network
from hf_mambalrp.families.parts import stems
from hf_mambalrp.methods import engine
from hf_mambalrp.rules import MAMBALRP
from hf_mambalrp.runs import progress

IDS, MASK = padded_batch([13, 6])
ERRORS = {
    "a GPU": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    "torch on the CPU": RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory"),
    "Python": MemoryError(),
}


@pytest.fixture
def model():
    return make_explainable(random_model(num_layers=3, dtype=torch.float32))


@pytest.fixture(params=ERRORS)
def lengths(request, monkeypatch):
    """Lengths that blocks are asked for, with too little memory for more than 5 positions."""
    asked, layer = [], Network.layer

    def limited(self, index, stream, *rest):
        asked.append(stream.h.shape[1])
        if stream.h.shape[1] > 5:
            raise ERRORS[request.param]
        return layer(self, index, stream, *rest)

    monkeypatch.setattr(Network, "layer", limited)
    return asked


def test_where_memory_runs_out_chunks_are_halved_until_they_fit(model, lengths, monkeypatch):
    with pytest.warns(RuntimeWarning, match="Memory ran out with 7 positions at a time, so it is tried with 4"):
        found = model.explain(IDS, attention_mask=MASK, per_layer=True, check_forward=False)
    assert found.chunk_size == 4
    assert [length for length in dict.fromkeys(lengths) if length > 5] == [13, 6]  # of 7 and 6, what is left over first
    assert max(length for length in lengths[2:]) == 4
    with pytest.warns(RuntimeWarning, match="tried with 4"):
        generated = model.explain_generation(IDS, attention_mask=MASK, max_new_tokens=2, check_forward=False)
    monkeypatch.undo()
    whole = model.explain(IDS, attention_mask=MASK, per_layer=True)
    torch.testing.assert_close(found.relevance, whole.relevance, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found.layer_relevance, whole.layer_relevance, rtol=1e-5, atol=1e-6)
    expected = model.explain_generation(IDS, attention_mask=MASK, max_new_tokens=2)
    torch.testing.assert_close(generated.relevance, expected.relevance, rtol=1e-5, atol=1e-6)


def test_a_chunk_size_of_the_caller_is_not_changed(model, lengths):
    with pytest.raises((RuntimeError, MemoryError)):
        model.explain(IDS, attention_mask=MASK, chunk_size=8, check_forward=False)
    assert (set(lengths), lengths[-1]) == ({5, 8}, 8)


def test_where_not_even_one_position_fits_the_error_is_raised(model, monkeypatch):
    def never(*_):
        raise ERRORS["a GPU"]

    monkeypatch.setattr(Network, "layer", never)
    with pytest.warns(RuntimeWarning, match="tried with 1"), pytest.raises(torch.OutOfMemoryError):
        model.explain(IDS, attention_mask=MASK, check_forward=False)


def test_another_error_is_not_taken_for_a_lack_of_memory(model, monkeypatch):
    calls = []

    def broken(*_):
        calls.append(1)
        raise RuntimeError("size mismatch")

    monkeypatch.setattr(Network, "layer", broken)
    with pytest.raises(RuntimeError, match="size mismatch"):
        model.explain(IDS, attention_mask=MASK, check_forward=False)
    assert len(calls) == 1


def test_auto_keeps_to_its_budget_and_short_inputs_whole(model, monkeypatch):
    lengths, layer = [], Network.layer

    def recorded(self, index, stream, *rest):
        lengths.append(stream.h.shape[1])
        return layer(self, index, stream, *rest)

    monkeypatch.setattr(Network, "layer", recorded)
    model.explain(IDS, attention_mask=MASK)
    assert set(lengths) - {stems.TOKENS} == {13}
    lengths.clear()
    # Three tensors of E = 16 numbers for each of 3 layers and 2 rows.
    monkeypatch.setattr(engine, "KEPT_BYTES", 6 * 3 * 16 * 4 * 3 * 2)
    model.explain(IDS, attention_mask=MASK)
    assert max(lengths) == 6


def test_a_bar_shows_where_chunks_take_long_and_only_there(model, monkeypatch, capfd):
    monkeypatch.setattr(progress, "PATIENCE", 0)
    logging.enable_progress_bar()  # the command has disabled it, if its tests ran before
    model.explain(IDS, attention_mask=MASK)
    assert "explain" not in capfd.readouterr().err
    model.explain(IDS, attention_mask=MASK, chunk_size=4)
    shown = capfd.readouterr().err
    assert "explain: forward" in shown
    assert "explain: backward: 100%" in shown
    logging.disable_progress_bar()
    try:
        model.explain(IDS, attention_mask=MASK, chunk_size=4)
    finally:
        logging.enable_progress_bar()
    assert "explain" not in capfd.readouterr().err
    monkeypatch.setattr(progress, "PATIENCE", 1000)
    model.explain(IDS, attention_mask=MASK, chunk_size=4)
    assert "explain" not in capfd.readouterr().err


def test_what_auto_chooses_does_not_follow_the_memory_that_is_free(model, monkeypatch):
    """A GPU's size, weights and input decide, and the result says what was chosen."""
    a_position = len(IDS) * Network(model, FAMILIES).kept_bytes(MAMBALRP, "auto")
    monkeypatch.setattr(engine, "KEPT_BYTES", 7 * a_position)
    found = model.explain(IDS, attention_mask=MASK)
    assert found.chunk_size == 7
    assert model.explain(IDS, attention_mask=MASK) == found
    assert model.explain(IDS, attention_mask=MASK, chunk_size=5).chunk_size == 5
    assert model.explain(IDS, attention_mask=MASK, method="random").chunk_size is None
