"""Which position reads which? The attention hidden in a Mamba model's mixers, as heat maps and as numbers.

python examples/hidden_attention.py "A dull film, though the actors are wonderful." --html attention.html
"""

import argparse

from hf_mambalrp import DEMO_MODEL, AutoMambaLRPForSequenceClassification

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("text")
parser.add_argument("--html", default="attention.html")
arguments = parser.parse_args()

model = AutoMambaLRPForSequenceClassification.from_pretrained(DEMO_MODEL)

# Every layer, the mean over its channels; kind="unified" includes gate, SiLU and convolution.
attention = model.hidden_attention(arguments.text, kind="unified")
attention.to_html(arguments.html)
print(f"written: {arguments.html}")

# The last token's row alone, without the L x L matrix: of any length that the model itself can read.
row = model.hidden_attention(arguments.text, layers=-1, positions=-1, kind="unified")
values = row.map()[0]
strongest = values.abs().topk(min(5, len(values))).indices.tolist()
print("the last token reads most:", ", ".join(f"{row.tokens[0][j]} {values[j]:+.3f}" for j in strongest))

# Methods of explain() that are made of it.
for method in ("attention_rollout", "mamba_attribution", "latim"):
    top = model.explain(arguments.text, method=method).top(3)
    print(f"{method}:", ", ".join(f"{word.text} {word.relevance:+.3f}" for word in top))
