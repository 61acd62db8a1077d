"""Why did it write that? A page on which every generated token lights up what spoke for it. Runs offline.

python examples/explain_generation.py "Anna had a dog called Rex. One day the dog ran away." --html generated.html
"""

import argparse
from pathlib import Path

from hf_mambalrp import DEMO_LANGUAGE_MODEL, AutoMambaLRPForCausalLM

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("prompt", nargs="?", default="Anna had a dog called Rex. One day the dog ran away.")
parser.add_argument("--model", default=DEMO_LANGUAGE_MODEL, help="folder or Hub id; default: the packaged one")
parser.add_argument("--new-tokens", type=int, default=40)
parser.add_argument("--html", type=Path, default=Path("generated.html"))
arguments = parser.parse_args()

model = AutoMambaLRPForCausalLM.from_pretrained(arguments.model)
generated = model.explain_generation(arguments.prompt, max_new_tokens=arguments.new_tokens)
generated.to_html(arguments.html)
print(f"written: {arguments.html}")

for steps in generated.sentences():
    why = generated.span(steps.start, steps.stop)
    words = ", ".join(f"{word.text} {word.relevance:+.2f}" for word in why.top(3))
    print(f"Why {why.target_text[0].strip()!r}? {words}")

choices = model.explain_generation(arguments.prompt, max_new_tokens=arguments.new_tokens, contrast="runner-up")
closest = int(choices.score[0].argmin())
print("The closest choice:")
choices.step(closest).show()
