"""Explain a checkpoint of transformers, store the explanation and read it back. Makes its own tiny model, offline."""

import tempfile
from pathlib import Path

import torch
from transformers import MambaConfig, MambaForCausalLM

from hf_mambalrp import MambaLRPForCausalLM, load

torch.manual_seed(0)
with tempfile.TemporaryDirectory() as folder:
    # Stands for any folder or Hub id with a Mamba checkpoint.
    MambaForCausalLM(MambaConfig(vocab_size=50, hidden_size=32, num_hidden_layers=2)).save_pretrained(folder)

    model = MambaLRPForCausalLM.from_pretrained(folder)
    explanation = model.explain(input_ids=torch.tensor([[3, 14, 15, 9, 26]]), target=5)
    print(explanation)

    explanation.save(Path(folder) / "explanation")
    again = load(Path(folder) / "explanation")
    print("read back exactly:", torch.equal(again.relevance, explanation.relevance))
