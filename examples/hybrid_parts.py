"""Who did the work, attention or the state space? Of a small hybrid that learns to recall, or of one of yours.

python examples/hybrid_parts.py --png parts.png
python examples/hybrid_parts.py --model ibm-ai-platform/Bamba-9B-v1 --text "The capital of France is" --target " Paris"

Without a model, a Bamba of four layers, the second and the last of them with attention, is trained for two minutes:
it reads who lives where and then a name, and is to say the city.
"""

import argparse

import torch
from matplotlib import pyplot as plt
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, BambaConfig, BambaForCausalLM, PreTrainedTokenizerFast

from hf_mambalrp import make_explainable

NAMES = ["Ada", "Ben", "Cleo", "Dan", "Eve", "Finn", "Gina", "Hugo"]
CITIES = ["Cairo", "Delhi", "Lima", "London", "Oslo", "Paris", "Quito", "Rome"]
PAIRS, BATCH = 4, 64


def recalling(steps):
    """The model and its tokenizer, trained on fresh texts such as "Ada Rome Ben Lima ... Ben", whose answer is Lima."""
    words = ["<pad>", *NAMES, *CITIES]
    backend = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<pad>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    torch.manual_seed(0)
    mixers = {"mamba_n_heads": 4, "mamba_d_state": 4, "attn_layer_indices": [1, 3], "num_attention_heads": 4}
    config = BambaConfig(
        vocab_size=len(words), hidden_size=32, intermediate_size=64, num_hidden_layers=4, num_key_value_heads=4,
        mamba_chunk_size=16, pad_token_id=0, **mixers,
    )  # fmt: skip
    model = BambaForCausalLM(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3, weight_decay=0.0)
    for step in range(1, steps + 1):
        names = torch.rand(BATCH, len(NAMES)).argsort(1)[:, :PAIRS] + 1
        cities = torch.rand(BATCH, len(CITIES)).argsort(1)[:, :PAIRS] + 1 + len(NAMES)
        asked = torch.randint(PAIRS, (BATCH, 1))
        ids = torch.cat([torch.stack([names, cities], 2).flatten(1), names.gather(1, asked)], 1)
        logits = model(input_ids=ids, use_cache=False).logits[:, -1]
        answer = cities.gather(1, asked)[:, 0]
        loss = torch.nn.functional.cross_entropy(logits, answer)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 50 == 0:
            print(f"step {step}: loss {loss:.3f}, right {(logits.argmax(-1) == answer).float().mean():.0%}", flush=True)
    return model.eval(), PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>")


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--model", help="a hybrid from the Hub or a folder; by default one is trained here")
parser.add_argument("--text", default="Ada Rome Dan Paris Cleo Oslo Gina Lima Dan")
parser.add_argument("--target", default=" Paris", help="what the text goes on with")
parser.add_argument("--attention-rule", default="cp", choices=["cp", "attnlrp"])
parser.add_argument("--steps", type=int, default=600, help="of the training")
parser.add_argument("--png", default="parts.png")
arguments = parser.parse_args()

if arguments.model is None:
    model, tokenizer = recalling(arguments.steps)
else:
    model = AutoModelForCausalLM.from_pretrained(arguments.model)
    tokenizer = AutoTokenizer.from_pretrained(arguments.model)

explanation = make_explainable(model).explain(
    arguments.text,
    tokenizer=tokenizer,
    target=arguments.target,
    per_layer=True,
    attention_rule=arguments.attention_rule,
)
explanation.show()

# What each kind of part reads at every token, summed over its layers.
parts = explanation.parts
for kind in parts.kinds:
    if kind != "skip":
        read = parts.by_token(kind)[0].tolist()
        strongest = sorted(zip(explanation.tokens[0], read, strict=True), key=lambda pair: -abs(pair[1]))[:4]
        print(f"{kind} reads most at:", ", ".join(f"{token} {value:+.3f}" for token, value in strongest))

# Which layer, and where in the text.
figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4.4), layout="constrained")
parts.plot(ax=left)
explanation.plot(per_part=True, ax=right)
figure.savefig(arguments.png, dpi=110)
print(f"written: {arguments.png}")
