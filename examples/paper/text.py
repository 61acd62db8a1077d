"""Faithfulness and conservation of every method on a data set of texts of MambaLRP: fine-tune, evaluate, compare.

    python examples/paper/text.py --task sst2 --output out/paper/sst2
    accelerate launch --multi_gpu --num_processes 4 examples/paper/text.py --task snli --output out/paper/snli
    python examples/paper/text.py --task emotion --checkpoint me/mamba-emotion --output out/paper/emotion

The data set comes from the Hub or from a folder with the same columns (``--data``). Interrupted, the same command goes
on where it was: training at its last checkpoint, the evaluation at its last text.
"""

import argparse
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from datasets import ClassLabel, Dataset, load_dataset
from side_by_side import write_table
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
    set_seed,
)

from hf_mambalrp import AutoMambaLRPForSequenceClassification, evaluate_faithfulness
from hf_mambalrp.evaluation.settings import DEFAULT_METHODS


@dataclass(frozen=True)
class Task:
    """A data set of the paper."""

    data: str
    """On the Hub."""
    config: str | None
    """Of those that it has there."""
    columns: tuple[str, ...]
    """Of the text, whose parts stand one below the other."""
    split: str
    """What is evaluated on; the test split of SST-2 has no labels."""
    classes: tuple[str, ...]


TASKS = {
    "sst2": Task("stanfordnlp/sst2", None, ("sentence",), "validation", ("negative", "positive")),
    "snli": Task(
        "stanfordnlp/snli",
        "plain_text",
        ("premise", "hypothesis"),
        "test",
        ("entailment", "neutral", "contradiction"),
    ),
    "emotion": Task(
        "dair-ai/emotion", "split", ("text",), "test", ("sadness", "joy", "love", "anger", "fear", "surprise")
    ),
    "med-bios": Task(
        "coastalcph/medical-bios",
        "standard",
        ("text",),
        "test",
        ("psychologist", "surgeon", "nurse", "dentist", "physician"),
    ),
}
UNLABELLED = -1
"""What SNLI has where its annotators did not agree."""
LONGEST = 512
"""Tokens of a text in training; what is longer is cut. The evaluation cuts nothing."""


def read(task: Task, data: str, split: str, revision: str | None = None) -> Dataset:
    """The labelled rows of a split, with columns ``text`` and ``label``."""
    found = load_dataset(data, task.config if data == task.data else None, split=split, revision=revision)
    missing = sorted({*task.columns, "label"} - set(found.column_names))
    if missing:
        raise SystemExit(f"{data} has no column {missing}, but {found.column_names}. Name them as {task.data} does.")
    found = found.filter(lambda row: row["label"] != UNLABELLED)
    labels = set(found.unique("label"))
    if not labels <= set(range(len(task.classes))):
        raise SystemExit(f"{data} has labels {sorted(labels)}. Give numbers, from 0 on, of {task.classes}.")
    feature = found.features["label"]
    if isinstance(feature, ClassLabel) and tuple(feature.names) != task.classes:
        raise SystemExit(f"{data} has the classes {feature.names}. Give them in the order of {task.classes}.")
    return found.map(
        lambda row: {"text": "\n".join(row[column] for column in task.columns)},
        remove_columns=[name for name in found.column_names if name != "label"],
    )


def accuracy(prediction: Any) -> dict[str, float]:
    return {"accuracy": float((prediction.predictions.argmax(-1) == prediction.label_ids).mean())}


def last_checkpoint(folder: Path) -> str | None:
    """The newest checkpoint that is whole: its state is written last."""
    whole = [path.parent for path in folder.glob("checkpoint-*/trainer_state.json")]
    newest = max(whole, key=lambda path: int(path.name.removeprefix("checkpoint-")), default=None)
    return None if newest is None else str(newest)


def begun(output: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """What is known of a run in this folder, which is to be a run with these settings."""
    path = output / "training.json"
    if not path.is_file():
        output.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"settings": settings}, indent=1) + "\n")
    known: dict[str, Any] = json.loads(path.read_text())
    if known["settings"] != settings:
        changed = [name for name, value in settings.items() if known["settings"].get(name) != value]
        raise SystemExit(f"{output} is a run with another {', '.join(changed)}. Give another --output.")
    return known


def classifier(arguments: argparse.Namespace, task: Task, training: TrainingArguments) -> None:
    """Fine-tune a model, or take a checkpoint as it is; measure its accuracy, and save it to ``model``."""
    start = arguments.checkpoint or arguments.model
    tokenizer = AutoTokenizer.from_pretrained(start)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    head = {"id2label": dict(enumerate(task.classes)), "label2id": {name: i for i, name in enumerate(task.classes)}}
    set_seed(arguments.seed)  # of the new head's weights
    model = AutoModelForSequenceClassification.from_pretrained(
        start, dtype=torch.float32, **({} if arguments.checkpoint else head)
    )
    if model.config.num_labels != len(task.classes):
        raise SystemExit(f"{start} has {model.config.num_labels} classes, and the task {len(task.classes)}.")

    def tokenized(split: str) -> Dataset:
        with training.main_process_first(local=True):
            rows = read(task, arguments.data, split, arguments.revision)
            return rows.map(lambda row: tokenizer(row["text"], truncation=True, max_length=LONGEST), batched=True)

    trainer = Trainer(
        model=model,
        args=training,
        train_dataset=None if arguments.checkpoint else tokenized("train"),
        eval_dataset=tokenized(task.split),
        data_collator=DataCollatorWithPadding(tokenizer),
        processing_class=tokenizer,
        compute_metrics=accuracy,
    )
    if not arguments.checkpoint:
        trainer.train(resume_from_checkpoint=last_checkpoint(Path(training.output_dir)))
    found = trainer.evaluate()["eval_accuracy"]
    trainer.save_model(str(arguments.output / "model"))
    if training.should_save:
        path = arguments.output / "training.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "accuracy": found}, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", required=True, choices=TASKS)
    parser.add_argument("--output", type=Path, required=True, help="folder of the run")
    parser.add_argument("--data", help="Hub id or folder with train, validation and test files; default: the Hub's")
    parser.add_argument("--revision", help="of the data set on the Hub")
    parser.add_argument("--model", default="state-spaces/mamba-130m-hf", help="to fine-tune: folder or Hub id")
    parser.add_argument("--checkpoint", help="a classifier that is evaluated as it is: folder or Hub id")
    parser.add_argument("--epochs", type=float, default=3)
    parser.add_argument("--learning-rate", type=float, default=5e-5)
    parser.add_argument("--batch-size", type=int, default=32, help="of a step, on all GPUs together")
    parser.add_argument("--save-steps", type=int, default=500, help="steps of training from checkpoint to checkpoint")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--methods", nargs="+", default=list(DEFAULT_METHODS))
    parser.add_argument("--replacement", default="auto", help="of a flipped token: auto, zero, or a token")
    parser.add_argument("--samples", type=int, help="texts that are evaluated, drawn by the seed; default: all")
    parser.add_argument("--processes", type=int, help="of the evaluation; default: one for each GPU")
    arguments = parser.parse_args()
    task, gpus = TASKS[arguments.task], torch.cuda.device_count()
    arguments.data = arguments.data or task.data

    parts = int(os.environ.get("WORLD_SIZE", max(1, gpus)))
    if arguments.batch_size % parts:
        parser.error(f"--batch-size {arguments.batch_size} is not to be divided among {parts} processes or GPUs.")
    training = TrainingArguments(
        output_dir=str(arguments.output / "training"),
        num_train_epochs=arguments.epochs,
        learning_rate=arguments.learning_rate,
        per_device_train_batch_size=arguments.batch_size // parts,
        save_steps=arguments.save_steps,
        save_total_limit=2,
        seed=arguments.seed,
        report_to=[],
        use_cpu=not gpus,
        dataloader_pin_memory=bool(gpus),
    )
    about_training = ("epochs", "learning_rate", "batch_size", "seed")
    names = ("task", "data", "revision", *(("checkpoint",) if arguments.checkpoint else ("model", *about_training)))
    with training.main_process_first(local=False):
        known = begun(arguments.output, {name: getattr(arguments, name) for name in names})
    if "accuracy" not in known:
        classifier(arguments, task, training)
    PartialState().destroy_process_group()
    if not training.should_save:
        return  # the first process evaluates, on all GPUs

    known = json.loads((arguments.output / "training.json").read_text())
    folder = arguments.output / "model"
    model = AutoMambaLRPForSequenceClassification.from_pretrained(folder).to(training.device)
    rows = read(task, arguments.data, task.split, arguments.revision)
    evaluation = evaluate_faithfulness(
        model,
        [{"text": text} for text in rows["text"]],
        methods=arguments.methods,
        replacement=arguments.replacement,
        samples=arguments.samples,
        processes=arguments.processes or max(1, gpus),
        seed=arguments.seed,
        output_dir=arguments.output / "faithfulness",
    )
    results = evaluation.results
    about = {
        "Model": arguments.checkpoint or f"{arguments.model}, fine-tuned",
        "Data": f"{arguments.data}, {len(results['examples'])} texts of {task.split}",
        "Accuracy": f"{known['accuracy']:.1%} of all of {task.split}",
        **{name.capitalize(): results["settings"][name] for name in ("measure", "replacement", "insertion", "step")},
        "Explained": "the predicted class",
        **results["versions"],
    }
    table = {
        method: {**found, "conservation": {"mean": found["conservation"]["median_ratio"]}}
        for method, found in results["methods"].items()
    }
    write_table(arguments.output, arguments.task, about, table)
    print(evaluation)
    print(f"written: {arguments.output}/side_by_side.html")


if __name__ == "__main__":
    main()
