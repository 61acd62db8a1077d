"""ARC-Easy under pruning: is a question still answered when its tokens are taken away in the order of relevance?

    python examples/paper/arc.py --output out/paper/arc

The Hidden Attention of Mamba Models (Ali, Zimerman and Wolf, ACL 2025) prunes on ARC-Easy. Its protocol is not known to
us, so **this one is our own**, and no number of theirs stands beside ours:

- The model reads ``Question: ... Answer:``, and every answer is scored by its log-likelihood: as it is (``acc``), or
  divided by its number of characters (``acc_norm``), as in lm-evaluation-harness without examples.
- The answer that the model itself chooses by ``acc_norm`` is explained: the sum of the logits of its tokens.
- Of what is read before the answer 0, 10 .. 100 % of the tokens are removed, most or least relevant first. Where none
  is left the model reads the end of a text. Accuracy is that of the key; the area under it is over the share of tokens.

The data come from the Hub or from a folder with the same columns (``--data``). Interrupted, the same command goes on at
the last question.
"""

import argparse
import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import load_dataset
from side_by_side import PUBLISHED, write_table
from transformers import AutoTokenizer

from hf_mambalrp import AutoMambaLRPForCausalLM
from hf_mambalrp.calls.origin import versions
from hf_mambalrp.calls.tokenizing import continuation
from hf_mambalrp.evaluation.dataset import drawn
from hf_mambalrp.evaluation.examiner import Examiner
from hf_mambalrp.evaluation.journal import Journal
from hf_mambalrp.evaluation.outputs import CPU_TOKENS, GPU_TOKENS
from hf_mambalrp.evaluation.perturbation import Ids, Perturbation, area, order_of
from hf_mambalrp.evaluation.settings import DEFAULT_METHODS
from hf_mambalrp.evaluation.statistics import bootstrap, with_ends
from hf_mambalrp.models.fingerprint import fingerprint
from hf_mambalrp.runs.plan import batches

ARC = "allenai/ai2_arc"
COLUMNS = ("id", "question", "choices", "answerKey")
PERCENT = tuple(range(0, 101, 10))
"""Of the tokens that are removed."""
CURVES = PUBLISHED["arc-easy"]["columns"]


class Questions(Journal):
    """The finished questions of a run."""

    call = "arc.py"


class Pruner(Examiner):
    """Answers questions of which more and more is gone."""

    unit = "question"

    def __init__(self, model: Any, tokenizer: Any, methods: Sequence[str]) -> None:
        self.tokenizer, self.methods = tokenizer, methods
        super().__init__(model)

    def examine(self, example: dict[str, Any]) -> dict[str, Any]:
        texts = example["choices"]["text"]
        key = example["choices"]["label"].index(example["answerKey"])
        prompt = f"Question: {example['question']}\nAnswer:"
        ids = tuple(self.tokenizer(prompt)["input_ids"])
        answers = [continuation(self.tokenizer, prompt, f" {text}") for text in texts]
        characters = torch.tensor([len(text) for text in texts])
        chosen = int((self.log_likelihoods([ids], answers)[ids] / characters).argmax())

        pruned: dict[str, dict[str, list[Ids]]] = {}
        for method in self.methods:
            explanation = self.model.explain(prompt, target=f" {texts[chosen]}", method=method)
            places = [place for place in range(len(ids)) if not explanation.special_tokens_mask[0, place]]
            counts = tuple((len(places) * percent + 50) // 100 for percent in PERCENT)
            order = order_of(explanation.relevance[0].tolist(), places)
            each = Perturbation(ids, order, counts, self.tokenizer.eos_token_id, "remove")
            orders = {"most": order, "least": order[::-1]}
            pruned[method] = {name: [each.removed(first[:k]) for k in counts] for name, first in orders.items()}
        found = self.log_likelihoods({row for of in pruned.values() for rows in of.values() for row in rows}, answers)
        scores = {"acc_norm": {row: each / characters for row, each in found.items()}, "acc": found}
        return {
            "id": example["id"],
            "methods": {
                method: {
                    f"{name}_{order}": [int(of[row].argmax() == key) for row in rows]
                    for name, of in scores.items()
                    for order, rows in orders.items()
                }
                for method, orders in pruned.items()
            },
        }

    @torch.no_grad()
    def log_likelihoods(self, prompts: Iterable[Ids], answers: Sequence[Ids]) -> dict[Ids, torch.Tensor]:
        """Of every answer behind every prompt, by the model's own forward. Shape: (answers,) a prompt, float64."""
        found = {prompt: torch.zeros(len(answers), dtype=torch.float64) for prompt in prompts}
        pairs = [(prompt, number) for prompt in found for number in range(len(answers))]
        rows = [(*prompt, *answers[number]) for prompt, number in pairs]
        device = next(self.model.parameters()).device
        tokens = CPU_TOKENS if device.type == "cpu" else GPU_TOKENS
        for numbers in batches([len(row) for row in rows], tokens):
            batch = [torch.tensor(rows[number]) for number in numbers]
            ids = torch.nn.utils.rnn.pad_sequence(batch, batch_first=True).to(device)
            mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in batch], batch_first=True).to(device)
            logits = self.model(input_ids=ids, attention_mask=mask, use_cache=False).logits
            for row, number in enumerate(numbers):
                prompt, answer = pairs[number]
                targets = torch.tensor(answers[answer], device=device)
                read = logits[row, len(prompt) - 1 : len(prompt) - 1 + len(targets)].double().log_softmax(-1)
                found[prompt][answer] = read.gather(1, targets[:, None]).sum()
        return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder of the run")
    parser.add_argument("--data", default=ARC, help="Hub id or folder")
    parser.add_argument("--split", default="test")
    parser.add_argument("--model", default="state-spaces/mamba-130m-hf", help="folder or Hub id of a language model")
    parser.add_argument("--methods", nargs="+", default=list(DEFAULT_METHODS))
    parser.add_argument("--samples", type=int, help="questions, drawn by the seed; default: all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, help="default: one for each GPU")
    arguments = parser.parse_args()
    gpus = torch.cuda.device_count()

    data = load_dataset(arguments.data, "ARC-Easy" if arguments.data == ARC else None, split=arguments.split)
    if missing := set(COLUMNS) - set(data.column_names):
        parser.error(f"{arguments.data} has no column {sorted(missing)}, but {data.column_names}.")
    rows = drawn([{column: row[column] for column in COLUMNS} for row in data], arguments.samples, arguments.seed)
    model = AutoMambaLRPForCausalLM.from_pretrained(arguments.model).to("cuda" if gpus else "cpu")
    tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    pruner = Pruner(model, tokenizer, arguments.methods)
    journal = Questions(arguments.output / "questions")
    content = hashlib.sha256(repr(rows).encode()).hexdigest()
    try:
        about = {"methods": arguments.methods, "weights": fingerprint(model), "data": content, "versions": versions()}
        journal.open(about)
        records = pruner.records(rows, arguments.processes or max(1, gpus), journal, progress=True)
        journal.complete()
    finally:
        journal.release()

    # (questions, methods, curves, 1 + steps): the area, then the accuracy after each step.
    values = torch.tensor(
        [
            [[[area(PERCENT, of[curve]), *of[curve]] for curve in CURVES] for of in record["methods"].values()]
            for record in records
        ],
        dtype=torch.float64,
    )
    stats = iter(with_ends(values.mean(0).flatten(), bootstrap(values.flatten(1), 0.95, 2000, seed=0)[1]))
    found = {
        method: {curve: [next(stats) for _ in range(1 + len(PERCENT))] for curve in CURVES}
        for method in arguments.methods
    }
    table = {method: {curve: numbers[0] for curve, numbers in of.items()} for method, of in found.items()}
    steps = {
        f"{symbol}, by the share of tokens removed": {
            method: {f"{percent} %": stat for percent, stat in zip(PERCENT, of[curve][1:], strict=True)}
            for method, of in found.items()
        }
        for curve, symbol in CURVES.items()
    }
    about = {
        "Model": arguments.model,
        "Data": f"{arguments.data}, {len(rows)} questions of {arguments.split}",
        "Explained": "the answer that the model chooses by acc_norm",
        **versions(),
    }
    write_table(arguments.output, "arc-easy", about, table, steps)
    for method, of in table.items():
        cells = ("{} {mean:.3f} [{low:.3f}, {high:.3f}]".format(curve, **stat) for curve, stat in of.items())
        print(f"{method:24} {', '.join(cells)}")
    print(f"written: {arguments.output}/side_by_side.html")


if __name__ == "__main__":
    main()
