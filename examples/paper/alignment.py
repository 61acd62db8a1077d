"""Which source word does a translated word come from? The alignment error rate of every method, as LaTIM asks for it.

    python examples/paper/alignment.py --data out/gold --model me/mamba-translates --output out/paper/alignment

The model is a language model that was trained to translate; ``--prompt`` is what it reads, up to the translation. The
data have the columns source and target, words between spaces, and alignment, such as ``0-0 2-1 3?1``: source word 0
belongs to target word 0 for sure, and 3 possibly to 1. Interrupted, the same command goes on at the last sentence.
"""

import argparse
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import load_dataset
from side_by_side import write_table
from torch import Tensor
from transformers import AutoTokenizer

from hf_mambalrp import AutoMambaLRPForCausalLM
from hf_mambalrp.calls.origin import versions
from hf_mambalrp.evaluation.examiner import Examiner
from hf_mambalrp.evaluation.journal import Journal
from hf_mambalrp.evaluation.settings import DEFAULT_METHODS
from hf_mambalrp.evaluation.statistics import bootstrap, interval, with_ends
from hf_mambalrp.models.fingerprint import fingerprint

COLUMNS = ("source", "target", "alignment")
Pair = tuple[int, int]
"""Numbers of a source and of a target word."""


class Sentences(Journal):
    """The finished sentences of a run."""

    call = "alignment.py"


def gold(alignment: str) -> tuple[set[Pair], set[Pair]]:
    """The sure links, and the possible ones, of which the sure ones are part."""
    sure, possible = set(), set()
    for link in alignment.split():
        source, target = map(int, link.replace("?", "-").split("-"))
        possible.add((source, target))
        if "?" not in link:
            sure.add((source, target))
    return sure, possible


def counts(links: set[Pair], sure: set[Pair], possible: set[Pair]) -> list[int]:
    """What the error rate is of: |A and S|, |A and P|, |A|, |S|."""
    return [len(links & sure), len(links & possible), len(links), len(sure)]


def error_rate(counted: Tensor) -> Tensor:
    """1 - (|A and S| + |A and P|) / (|A| + |S|) (Och and Ney 2003). Shape: (..., 4) -> (...)."""
    return 1 - (counted[..., 0] + counted[..., 1]) / (counted[..., 2] + counted[..., 3])


def word_of_token(offsets: Sequence[Pair], words: Sequence[str], start: int) -> list[int | None]:
    """The number of the word that each token has characters of; the words begin at ``start``, a space between them."""
    found: list[int | None] = [None] * len(offsets)
    for number, word in enumerate(words):
        end = start + len(word)
        for token, (first, last) in enumerate(offsets):
            if max(first, start) < min(last, end):
                found[token] = number
        start = end + 1
    return found


class Aligner(Examiner):
    """Links every target word to the source word that is most relevant for its tokens, the sum over both words'."""

    unit = "sentence"

    def __init__(self, model: Any, tokenizer: Any, prompt: str, methods: Sequence[str]) -> None:
        self.tokenizer, self.methods = tokenizer, methods
        self.before, self.after = prompt.split("{source}")
        super().__init__(model)

    def examine(self, example: dict[str, str]) -> dict[str, Any]:
        source, target = example["source"].split(), example["target"].split()
        prompt = self.before + " ".join(source) + self.after
        encoded = self.tokenizer(prompt + " ".join(target), return_offsets_mapping=True)
        ids, offsets = torch.tensor(encoded["input_ids"]), encoded["offset_mapping"]
        reads = word_of_token(offsets, source, len(self.before))
        written = word_of_token(offsets, target, len(prompt))
        outputs = [token for token, word in enumerate(written) if word is not None]
        positions = torch.tensor(outputs) - 1
        until = torch.arange(len(ids)) <= positions[:, None]
        of_source = torch.tensor([[word == number for number in range(len(source))] for word in reads])
        of_target = torch.tensor([[written[token] == number for token in outputs] for number in range(len(target))])
        sure, possible = gold(example["alignment"])
        found = {}
        for method in self.methods:
            explanation = self.model.explain(
                input_ids=ids.expand(len(outputs), -1),
                attention_mask=until.long(),
                position=positions,
                target=ids[outputs],
                method=method,
            )
            words = of_target.double() @ explanation.relevance.double().cpu() @ of_source.double()
            found[method] = counts(set(zip(words.argmax(1).tolist(), range(len(target)), strict=True)), sure, possible)
        return {"methods": found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder or Hub id")
    parser.add_argument("--split", default="train", help="what a folder without splits is")
    parser.add_argument("--model", required=True, help="folder or Hub id of a language model that translates")
    parser.add_argument("--prompt", default="{source}\n", help="what it reads before the translation")
    parser.add_argument("--output", type=Path, required=True, help="folder of the run")
    parser.add_argument("--methods", nargs="+", default=list(DEFAULT_METHODS))
    parser.add_argument("--processes", type=int, help="default: one for each GPU")
    arguments = parser.parse_args()
    gpus = torch.cuda.device_count()
    if arguments.prompt.count("{source}") != 1:
        parser.error(f"--prompt {arguments.prompt!r} is to have {{source}} in it, once.")

    data = load_dataset(arguments.data, split=arguments.split)
    if missing := set(COLUMNS) - set(data.column_names):
        parser.error(f"{arguments.data} has no column {sorted(missing)}, but {data.column_names}.")
    rows = [{column: row[column] for column in COLUMNS} for row in data]
    model = AutoMambaLRPForCausalLM.from_pretrained(arguments.model).to("cuda" if gpus else "cpu")
    tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    aligner = Aligner(model, tokenizer, arguments.prompt, arguments.methods)
    journal = Sentences(arguments.output / "sentences")
    used = {name: getattr(arguments, name) for name in ("prompt", "methods")}
    content = hashlib.sha256(repr(rows).encode()).hexdigest()
    try:
        journal.open({**used, "weights": fingerprint(model), "data": content, "versions": versions()})
        records = aligner.records(rows, arguments.processes or max(1, gpus), journal, progress=True)
        journal.complete()
    finally:
        journal.release()

    values = torch.tensor([[record["methods"][method] for method in arguments.methods] for record in records])
    means, _ = bootstrap(values.flatten(1).double(), 0.95, 2000, seed=0)
    ends = interval(error_rate(means.unflatten(1, values.shape[1:])), 0.95)
    stats = with_ends(error_rate(values.double().mean(0)), ends)
    table = {method: {"error_rate": stat} for method, stat in zip(arguments.methods, stats, strict=True)}
    about = {"Model": arguments.model, "Data": f"{arguments.data}, {len(rows)} sentences of {arguments.split}"}
    write_table(arguments.output, "alignment", {**about, "Prompt": repr(arguments.prompt), **versions()}, table)
    for method, stat in zip(arguments.methods, stats, strict=True):
        print("{:24} AER {mean:.3f} [{low:.3f}, {high:.3f}]".format(method, **stat))
    print(f"written: {arguments.output}/side_by_side.html")


if __name__ == "__main__":
    main()
