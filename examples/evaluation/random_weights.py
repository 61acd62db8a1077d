"""What is left of an explanation under random weights, and why: the weights, the size of the input, or the place?

An explanation of a network with random weights that still agrees with the original's knows something else than the
weights. Two things it may know are measured on held-out film snippets and the packaged sentiment model: how large a
token's embedding is, and where the token stands.

    python examples/evaluation/random_weights.py --output out/random_weights.json --processes 2

Every figure is a rank correlation over the tokens of a snippet, of |R| under the original weights with |R| under random
ones, or of one of the two with a size or a place; a mean over draws and snippets, with a 95 % bootstrap interval over
snippets. ``another snippet`` compares with the explanation of the next snippet under random weights, last token beside
last token: what remains of the agreement then is none of the text. ``given ...`` is the partial correlation.
"""

import argparse
import copy
import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from sentiment import OPTIONS, film_snippets, over_draws, read_texts
from torch import Tensor

from hf_mambalrp import DEMO_MODEL, MambaLRPForSequenceClassification
from hf_mambalrp.evaluation.sanity import randomised
from hf_mambalrp.evaluation.statistics import rank_correlation
from hf_mambalrp.methods import METHODS
from hf_mambalrp.runs.workers import examined

Rows = list[Tensor]
"""A number a token, for every snippet."""
Found = dict[str, dict[str, list[float | None]]]
"""By the network and by what is correlated, a number a snippet."""


@dataclass
class Draws:
    """Texts to explain under random weights, one method and one draw of the weights at a time."""

    texts: list[str]

    def examine(self, example: tuple[str, int]) -> dict[str, Any]:
        torch.set_num_threads(1)  # the same numbers on any number of processes
        method, seed = example
        model = MambaLRPForSequenceClassification.from_pretrained(DEMO_MODEL)
        first = model.explain(self.texts, method=method, **OPTIONS.get(method, {}))
        attended = [mask != 0 for mask in first.attention_mask]
        ids = [row[here] for row, here in zip(first.input_ids, attended, strict=True)]
        places = [torch.arange(len(row)) for row in ids]

        def sizes(network: Any) -> Rows:
            weight = network.get_input_embeddings().weight.detach()
            return [weight[row].norm(dim=1) for row in ids]

        def of(relevance: Tensor) -> Rows:
            return [row[here].abs() for row, here in zip(relevance, attended, strict=True)]

        original, own_sizes = of(first.relevance), sizes(model)
        found: Found = {
            "original": {"place": correlations(original, places), "size": correlations(original, own_sizes)}
        }
        for name, network in networks(model, seed):
            again = network.explain(self.texts, target=first.target, method=method, **OPTIONS.get(method, {}))
            altered = of(again.relevance)
            found[name] = {
                "same snippet": correlations(original, altered),
                "another snippet": correlations(*at_the_end(original, altered[1:] + altered[:1])),
                "given place": correlations(original, altered, places),
                "given size": correlations(original, altered, own_sizes),
                "place": correlations(altered, places),
                "size": correlations(altered, sizes(network)),
            }
        return found


def networks(model: Any, seed: int) -> list[tuple[str, Any]]:
    """The model with random weights: all, all but the embeddings, and these, but of one length."""
    kept = everything = None
    for depth, altered in randomised(model, seed):
        if depth == "layer 0":
            kept = copy.deepcopy(altered)
        everything = altered
    equal = copy.deepcopy(kept)
    weight = equal.get_input_embeddings().weight.data
    lengths = weight.norm(dim=1, keepdim=True)
    weight.mul_(lengths.mean() / lengths)
    return [("all random", everything), ("embeddings kept", kept), ("embeddings of one length", equal)]


def correlations(one: Rows, other: Rows, given: Rows | None = None) -> list[float | None]:
    known = [()] * len(one) if given is None else [(row,) for row in given]
    return [rank_correlation(a, b, z) for a, b, z in zip(one, other, known, strict=True)]


def at_the_end(one: Rows, other: Rows) -> tuple[Rows, Rows]:
    """As many tokens of both as the shorter has, the last ones."""
    lengths = [min(len(a), len(b)) for a, b in zip(one, other, strict=True)]
    return tuple([row[-n:] for row, n in zip(rows, lengths, strict=True)] for rows in (one, other))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="JSON of all numbers")
    parser.add_argument("--data", type=Path, help="JSONL with a column text; default: the held-out film snippets")
    parser.add_argument("--cache-dir", type=Path, default=Path("out/cache"))
    parser.add_argument("--samples", type=int, default=100)
    parser.add_argument("--draws", type=int, default=3, help="of random weights")
    parser.add_argument("--methods", nargs="+", default=[name for name in METHODS if name != "random"])
    parser.add_argument("--processes", type=int, default=1)
    arguments = parser.parse_args()

    rows = read_texts(arguments.data) if arguments.data else film_snippets(arguments.cache_dir)
    texts = [row["text"] for row in random.Random(0).sample(rows, min(arguments.samples, len(rows)))]
    checks = [(method, seed) for method in arguments.methods for seed in range(arguments.draws)]
    with examined(Draws(texts).examine, checks, arguments.processes) as results:
        found = dict(zip(checks, results, strict=True))
    written: dict[str, Any] = {"settings": {"snippets": len(texts), "draws": arguments.draws}, "methods": {}}
    for method in arguments.methods:
        draws = [found[method, seed] for seed in range(arguments.draws)]
        written["methods"][method] = {name: over_draws([draw[name] for draw in draws]) for name in draws[0]}
        print(f"\n{method}")
        for network, figures in written["methods"][method].items():
            cells = (f"{what} {shown(stat)}" for what, stat in figures.items())
            print(f"  {network}: {', '.join(cells)}")
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(written, indent=1) + "\n")
    print(f"\nwritten: {arguments.output}")


def shown(stat: dict[str, float | None]) -> str:
    return "–" if stat["mean"] is None else "{mean:.2f} [{low:.2f}, {high:.2f}]".format(**stat)


if __name__ == "__main__":
    main()
