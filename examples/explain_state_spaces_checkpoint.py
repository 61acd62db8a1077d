"""Explain a checkpoint in mamba_ssm's own format, as the original state-spaces models on the Hub have it.

    python examples/explain_state_spaces_checkpoint.py state-spaces/mamba2-130m --tokenizer EleutherAI/gpt-neox-20b
    python examples/explain_state_spaces_checkpoint.py my/folder --tokenizer my/folder --save converted

The weights are converted in memory; --save writes them in transformers' format.
"""

import argparse

import torch
from transformers import AutoTokenizer

from hf_mambalrp import AutoMambaLRPForCausalLM

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("checkpoint", help="folder or Hub id with config.json and pytorch_model.bin")
parser.add_argument("--tokenizer", default="EleutherAI/gpt-neox-20b", help="these checkpoints carry none")
parser.add_argument("--text", default="The capital of France is")
parser.add_argument("--save", help="write the model here, for stock transformers")
arguments = parser.parse_args()

model = AutoMambaLRPForCausalLM.from_pretrained(arguments.checkpoint, dtype=torch.float32)
tokenizer = AutoTokenizer.from_pretrained(arguments.tokenizer)
explanation = model.explain(arguments.text, tokenizer=tokenizer)
print(explanation.to_text())
if arguments.save:
    model.save_pretrained(arguments.save)
    tokenizer.save_pretrained(arguments.save)
    print(f"written: {arguments.save}, a {type(model).__name__.replace('LRP', '')} for transformers")
