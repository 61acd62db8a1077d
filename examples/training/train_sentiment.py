"""Train the small Mamba sentiment classifier that hf_mambalrp ships: ``python train_sentiment.py --cache-dir CACHE``.

1. A byte-level BPE is trained on the training split.
2. Pre-training: predict the next token, and at the end of every word its GloVe vector. The second task teaches the
   model to read words that the rated snippets do not contain.
3. Teachers: several copies are trained on the human ratings with different seeds.
4. Student: one more copy learns the teachers' mean opinion of the snippets and of many pieces of them.
5. Plain sentences: the student goes on with its own opinion of the snippets and pieces, with random final punctuation,
   and with synthetic sentences such as "the plot is not boring" (``augment.py``). ``--start-from`` begins here.

Choices were made on the validation split. The test split is dropped before anything else; ``evaluate.py`` reads it.
"""

import argparse
import json
import multiprocessing
import platform
import random
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
import transformers
from augment import any_ending, drop_ending, plain_sentences
from data import Snippet, load_lexicon, load_snippets, load_word_vectors
from evaluate import accuracies
from fast_forward import backbone_forward
from model import Settings, build_model, build_tokenizer, embed, init_embeddings, pad_batch, save
from pretraining import pretrain, step
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from hf_mambalrp.models.classification import MambaForSequenceClassification

NEGATION_WORD = re.compile(r"\b(not?|never|nothing|nobody|none|neither|nor|without|hardly|cannot)\b|n't\b", re.I)


class Example(NamedTuple):
    """A text and the probability that it is positive."""

    text: str
    positive: float


def batches(
    examples: list[Example],
    tokenizer: PreTrainedTokenizerFast,
    settings: Settings,
    rng: random.Random,
    device: str,
    ending: Callable[[str, random.Random], str],
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """One epoch of (input_ids, index of the last token, positive), rows of similar length together."""
    texts = [ending(example.text, rng) for example in examples]
    rows = []
    for ids, example in zip(tokenizer(texts)["input_ids"], examples, strict=True):
        kept = [token for token in ids[: settings.max_length] if rng.random() >= settings.token_dropout]
        rows.append((kept or ids[:1], example.positive))
    rows.sort(key=lambda row: len(row[0]) + 6 * rng.random())
    chunks = [rows[i : i + settings.batch_size] for i in range(0, len(rows), settings.batch_size)]
    rng.shuffle(chunks)
    for chunk in chunks:
        ids = pad_batch([row[0] for row in chunk], tokenizer.pad_token_id, device)
        last = torch.tensor([len(row[0]) - 1 for row in chunk], device=device)
        yield ids, last, torch.tensor([row[1] for row in chunk], device=device)


def fit(
    model: MambaForSequenceClassification,
    tokenizer: PreTrainedTokenizerFast,
    examples: list[Example],
    extra: list[Example],
    settings: Settings,
    *,
    epochs: int,
    lr: float,
    seed: int,
    device: str,
    extra_per_epoch: int,
    ending: Callable[[str, random.Random], str] = drop_ending,
) -> None:
    """Train on ``examples`` and, every epoch, on a fresh sample of ``extra``; the model ends as its moving average."""
    rng = random.Random(seed)
    torch.manual_seed(seed)
    sample = min(extra_per_epoch, len(extra))
    steps = epochs * -(-(len(examples) + sample) // settings.batch_size)
    parameters = list(model.parameters())
    optimizer = torch.optim.AdamW(parameters, lr, weight_decay=settings.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, steps, pct_start=0.1)
    average = torch.optim.swa_utils.AveragedModel(
        model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(settings.ema_decay)
    )
    model.train()
    for _ in range(epochs):
        epoch = examples + rng.sample(extra, sample)
        for ids, last, target in batches(epoch, tokenizer, settings, rng, device, ending):
            embeds = embed(model, ids, settings.dropout)
            hidden = backbone_forward(model.backbone, embeds)
            pooled = hidden[torch.arange(len(ids), device=device), last]
            logits = model.score(F.dropout(pooled, settings.dropout))
            loss = F.cross_entropy(logits, torch.stack([1 - target, target], -1))
            step(loss, optimizer, schedule, parameters)
            average.update_parameters(model)
    model.load_state_dict(average.module.state_dict())


@torch.no_grad()
def margins(
    model: MambaForSequenceClassification, tokenizer: PreTrainedTokenizerFast, texts: list[str], device: str
) -> Tensor:
    """Logit of positive minus logit of negative for each text. Shape (len(texts),)."""
    model.eval()
    result = torch.empty(len(texts))
    by_length = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    for start in range(0, len(by_length), 512):
        chosen = by_length[start : start + 512]
        rows = [ids or [tokenizer.pad_token_id] for ids in tokenizer([texts[i] for i in chosen])["input_ids"]]
        hidden = backbone_forward(model.backbone, embed(model, pad_batch(rows, tokenizer.pad_token_id, device), 0))
        logits = model.score(hidden[range(len(rows)), [len(row) - 1 for row in rows]])
        result[chosen] = (logits[:, 1] - logits[:, 0]).cpu()
    return result


def pieces(texts: list[str], number: int, rng: random.Random) -> list[str]:
    """Pieces for the teachers to judge: every clause, ``number`` runs of 2 to 15 words a text, and runs joined."""
    found = set()
    runs = []
    for text in texts:
        words = text.split()
        for _ in range(number):
            length = rng.randint(2, 15)
            start = rng.randrange(max(1, len(words) - length + 1))
            runs.append(" ".join(words[start : start + length]))
        found.update(clause.strip() for clause in re.split(r"[,;:.!?]| but | and ", text) if " " in clause.strip())
    found.update(runs)
    found.update(f"{a} {b}" for a, b in zip(runs, rng.sample(runs, len(runs) // 2), strict=False))
    return sorted(found)


def positive(rating: float, settings: Settings) -> float:
    return torch.tensor(settings.steepness * rating).sigmoid().item()


def rated_words(lexicon: list[tuple[str, float]], words: list[str], settings: Settings) -> list[Example]:
    """The rated words that are among ``words``."""
    known = set(words)
    return [Example(word, positive(rating, settings)) for word, rating in lexicon if word in known]


def train_teacher(
    seed: int,
    *,
    start: dict[str, Tensor],
    tokenizer: PreTrainedTokenizerFast,
    examples: list[Example],
    extra: list[Example],
    texts: list[str],
    settings: Settings,
    device: str,
) -> Tensor:
    """Train one teacher from the pre-trained weights and return its margins on ``texts``."""
    torch.set_num_threads(1 if device == "cuda" else torch.get_num_threads())
    model = build_model(settings, tokenizer).to(device)
    model.load_state_dict(start)
    fit(
        model,
        tokenizer,
        examples,
        extra,
        settings,
        epochs=settings.teacher_epochs,
        lr=settings.teacher_lr,
        seed=seed,
        device=device,
        extra_per_epoch=settings.lexicon_per_epoch,
    )
    return margins(model, tokenizer, texts, device)


def train(
    snippets: list[Snippet],
    lexicon: list[tuple[str, float]],
    glove: tuple[list[str], Tensor],
    settings: Settings,
    *,
    device: str,
    jobs: int = 1,
) -> tuple[MambaForSequenceClassification, PreTrainedTokenizerFast, dict[str, Any]]:
    """Return the student, its tokenizer, and a report of the seconds and validation accuracies of each stage."""
    training = [s for s in snippets if s.split == "train"]
    validation = [s for s in snippets if s.split == "validation"]
    texts = [s.text for s in training]
    rng = random.Random(settings.seed)
    torch.manual_seed(settings.seed)

    started = time.perf_counter()
    tokenizer = build_tokenizer(texts, settings.vocab_size)
    model = build_model(settings, tokenizer)
    init_embeddings(model, tokenizer, *glove)
    model.to(device)
    pretrain(model, tokenizer, texts, glove, settings=settings, device=device)
    start = {name: tensor.cpu().clone() for name, tensor in model.state_dict().items()}
    seconds = {"pre-training": round(time.perf_counter() - started)}

    examples = [Example(s.text, positive(s.rating, settings)) for s in training]
    extra = rated_words(lexicon, glove[0], settings)

    started = time.perf_counter()
    unlabelled = pieces(texts, settings.student_pieces, rng)
    judged = [s.text for s in validation] + texts + unlabelled
    teach = partial(
        train_teacher,
        start=start,
        tokenizer=tokenizer,
        examples=examples,
        extra=extra,
        texts=judged,
        settings=settings,
        device=device,
    )
    seeds = range(settings.seed + 1, settings.seed + 1 + settings.teachers)
    if jobs > 1:
        with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
            opinions = torch.stack(list(pool.map(teach, seeds)))
    else:
        opinions = torch.stack([teach(seed) for seed in seeds])
    seconds["teachers"] = round(time.perf_counter() - started)

    started = time.perf_counter()
    mean = opinions.mean(0).sigmoid().tolist()[len(validation) :]
    # People's ratings and the teachers' opinion weigh the same where there are both.
    soft = [Example(e.text, (e.positive + p) / 2) for e, p in zip(examples, mean, strict=False)]
    soft += [Example(text, p) for text, p in zip(unlabelled, mean[len(examples) :], strict=True)]
    fit(
        model,
        tokenizer,
        soft,
        extra,
        settings,
        epochs=settings.student_epochs,
        lr=settings.student_lr,
        seed=settings.seed,
        device=device,
        extra_per_epoch=settings.lexicon_per_epoch,
    )
    seconds["student"] = round(time.perf_counter() - started)

    stages = {f"teacher {seed}": opinions[i, : len(validation)] for i, seed in enumerate(seeds)}
    stages["mean of teachers"] = opinions[:, : len(validation)].mean(0)
    stages["student"] = margins(model, tokenizer, [s.text for s in validation], device)
    reached = {name: accuracies(validation, scores) for name, scores in stages.items()}
    return model, tokenizer, {"student texts": len(soft), "seconds": seconds, "validation": reached}


def learn_plain_sentences(
    model: MambaForSequenceClassification,
    tokenizer: PreTrainedTokenizerFast,
    snippets: list[Snippet],
    lexicon: list[tuple[str, float]],
    glove: tuple[list[str], Tensor],
    settings: Settings,
    *,
    device: str,
) -> dict[str, Any]:
    """Go on training ``model`` with synthetic sentences among the real texts; return a report like ``train``."""
    started = time.perf_counter()
    rng = random.Random(settings.seed)
    training = [s for s in snippets if s.split == "train"]
    validation = [s for s in snippets if s.split == "validation"]
    texts = [s.text for s in training]
    # What the model makes of negation and of exclamation marks is what this stage changes: it is not its own teacher.
    texts += [t for t in pieces(texts, settings.plain_pieces, rng) if not NEGATION_WORD.search(t)]
    opinions = margins(model.to(device), tokenizer, [t.rstrip(" .!") or t for t in texts], device).sigmoid().tolist()
    real = [Example(s.text, (positive(s.rating, settings) + p) / 2) for s, p in zip(training, opinions, strict=False)]
    real += [Example(t, p) for t, p in list(zip(texts, opinions, strict=True))[len(training) :]]
    real += rated_words(lexicon, glove[0], settings)
    share = settings.plain_share
    synthetic = plain_sentences(lexicon, settings.plain_sentences, rng)
    fit(
        model,
        tokenizer,
        real,
        [Example(text, positive(rating, settings)) for text, rating in synthetic],
        settings,
        epochs=settings.plain_epochs,
        lr=settings.plain_lr,
        seed=settings.seed,
        device=device,
        extra_per_epoch=round(len(real) * share / (1 - share)),
        ending=any_ending,
    )
    held = plain_sentences(lexicon, 1000, rng, held_out=True)
    right = [
        (m > 0) == (r > 0)
        for m, (_, r) in zip(margins(model, tokenizer, [t for t, _ in held], device), held, strict=True)
    ]
    return {
        "plain stage texts": len(real),
        "plain sentences": len(synthetic),
        "seconds": {"plain sentences": round(time.perf_counter() - started)},
        "sentences of held-out words": round(sum(map(bool, right)) / max(1, len(right)), 4),
        "validation": {
            "final": accuracies(validation, margins(model, tokenizer, [s.text for s in validation], device))
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache-dir", type=Path, required=True, help="where the data is kept, downloaded if absent")
    parser.add_argument("--output", type=Path, required=True, help="where the model and training.json are written")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--jobs", type=int, default=1, help="teachers trained at the same time")
    parser.add_argument("--start-from", type=Path, help="a trained student; only the last stage is run")
    arguments = parser.parse_args()
    device = arguments.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    settings = Settings()

    snippets = [s for s in load_snippets(arguments.cache_dir) if s.split != "test"]
    lexicon, glove = load_lexicon(arguments.cache_dir), load_word_vectors(arguments.cache_dir)
    if arguments.start_from:
        model = MambaForSequenceClassification.from_pretrained(arguments.start_from)
        tokenizer, report = AutoTokenizer.from_pretrained(arguments.start_from), {"seconds": {}, "validation": {}}
    else:
        model, tokenizer, report = train(snippets, lexicon, glove, settings, device=device, jobs=arguments.jobs)
    last = learn_plain_sentences(model, tokenizer, snippets, lexicon, glove, settings, device=device)
    for part in ("seconds", "validation"):
        last[part] = report[part] | last[part]
    report |= last
    save(model, tokenizer, arguments.output)
    report |= {
        "date": date.today().isoformat(),
        "device": torch.cuda.get_device_name() if device == "cuda" else platform.processor() or "cpu",
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "settings": asdict(settings),
    }
    text = json.dumps(report, indent=2)
    (arguments.output / "training.json").write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
