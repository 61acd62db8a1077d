"""Explain every row of a file, on as many processes as are launched; killed, the same command goes on where it was.

    python examples/distributed/explain_corpus.py reviews.jsonl out/explained
    torchrun --nproc_per_node 2 examples/distributed/explain_corpus.py reviews.jsonl out/explained
    accelerate launch --multi_gpu --num_processes 2 examples/distributed/explain_corpus.py reviews.jsonl out/explained

Without a file: the held-out reviews that come with the packaged model.
"""

import argparse
from pathlib import Path

import torch
from accelerate import PartialState

from hf_mambalrp import (
    DEMO_MODEL,
    AutoMambaLRPForCausalLM,
    AutoMambaLRPForSequenceClassification,
    explain_dataset,
    load_explanations,
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?", default=Path(DEMO_MODEL) / "reviews.jsonl", help="JSONL, CSV, Parquet, text")
    parser.add_argument("output", nargs="?", default="out/explained")
    parser.add_argument("--model", default=DEMO_MODEL, help="folder or Hub id; default: the packaged sentiment model")
    parser.add_argument("--language-model", action="store_true", help="explain the next token instead of the class")
    parser.add_argument("--text-column", default="text")
    parser.add_argument("--batch-tokens", type=int, default=8192)
    parser.add_argument("--window", type=int, default=1024, help="rows a process takes at a time")
    parser.add_argument("--on-error", choices=["raise", "skip"], help="default: raise on one process, skip on several")
    arguments = parser.parse_args()

    state = PartialState(cpu=not torch.cuda.is_available())  # one process, or one of those that were launched
    family = AutoMambaLRPForCausalLM if arguments.language_model else AutoMambaLRPForSequenceClassification
    model = family.from_pretrained(arguments.model).to(state.device)
    run = explain_dataset(
        model,
        arguments.data,
        arguments.output,
        text_column=arguments.text_column,
        batch_tokens=arguments.batch_tokens,
        window=arguments.window,
        on_error=arguments.on_error,
    )
    if state.is_main_process:
        print(
            f"{run.rows} rows on {run.processes} processes: {run.computed} explained now, "
            f"{run.rows - run.skipped - run.computed} before, {run.skipped} skipped; {run.seconds:.1f} s"
        )
        for explanation in load_explanations(run.output_dir):
            explanation.show()
            break
    state.destroy_process_group()


if __name__ == "__main__":
    main()
