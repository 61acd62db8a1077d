"""Why this next token, and why each generated token? For any Mamba language model, from the Hub or a folder.

python examples/explain_next_token.py "The capital of France is" " Paris" " London"
"""

import argparse

from hf_mambalrp import DEMO_LANGUAGE_MODEL, AutoMambaLRPForCausalLM

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("prompt")
parser.add_argument("target", help="the token to explain, its leading space included")
parser.add_argument("contrast", help="rather than this one")
parser.add_argument("--model", default=DEMO_LANGUAGE_MODEL, help="folder or Hub id; default: the packaged one")
parser.add_argument("--new-tokens", type=int, default=5)
arguments = parser.parse_args()

model = AutoMambaLRPForCausalLM.from_pretrained(arguments.model)

explanation = model.explain(arguments.prompt, target=arguments.target, contrast=arguments.contrast)
explanation.show()

generation = model.explain_generation(arguments.prompt, max_new_tokens=arguments.new_tokens)
generation.show()
