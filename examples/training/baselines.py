"""What the small Mamba has to beat: the majority class, VADER's rules, and a logistic regression on words."""

import importlib.util
import re
from collections import Counter
from itertools import pairwise
from pathlib import Path

import torch
from data import Snippet, fetch
from torch import Tensor
from torch.nn import functional as F


def majority(snippets: list[Snippet], held: list[Snippet]) -> Tensor:
    """The majority class of the source's training snippets, for each held-out snippet."""
    balance = Counter()
    for snippet in snippets:
        if snippet.split == "train" and snippet.label is not None:
            balance[snippet.source] += 1 if snippet.label else -1
    return torch.tensor([float(balance[s.source]) for s in held])


def vader(cache_dir: Path, held: list[Snippet]) -> Tensor:
    """VADER's compound score. Its authors collected these ratings too, and drew its rules from tweets."""
    path = fetch(cache_dir) / "vaderSentiment" / "vaderSentiment.py"
    spec = importlib.util.spec_from_file_location("vader_sentiment", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    analyzer = module.SentimentIntensityAnalyzer()
    return torch.tensor([analyzer.polarity_scores(s.text)["compound"] for s in held])


def bag_of_words(
    snippets: list[Snippet], held: list[Snippet], penalties: tuple[float, ...] = (3e-5, 1e-4, 3e-4)
) -> Tensor:
    """Logistic regression on words and word pairs; the penalty is chosen on the validation film snippets."""

    def terms(text: str) -> set[str]:
        words = re.findall(r"[a-z']+|[!?]|[:;]-?[()]", text.lower())
        return {*words, *(f"{a} {b}" for a, b in pairwise(words))}

    counts = Counter(term for s in snippets if s.split == "train" for term in sorted(terms(s.text)))
    index = {term: column for column, term in enumerate(t for t, n in counts.items() if n >= 2)}

    def features(chosen: list[Snippet]) -> tuple[Tensor, Tensor]:
        rows = [sorted(index[t] for t in terms(s.text) if t in index) for s in chosen]
        starts = torch.tensor([0, *map(len, rows)])[:-1].cumsum(0)
        return torch.tensor([column for row in rows for column in row]), starts

    labelled = [s for s in snippets if s.split == "train" and s.label is not None]
    validation = [s for s in snippets if s.split == "validation" and s.source == "film" and s.label is not None]
    x, x_validation, x_held = features(labelled), features(validation), features(held)
    y = torch.tensor([float(s.label or 0) for s in labelled])
    truth = torch.tensor([bool(s.label) for s in validation])
    best = (-1.0, torch.empty(0))
    for penalty in penalties:
        weight = torch.zeros(len(index), 1, requires_grad=True)
        optimizer = torch.optim.LBFGS([weight], max_iter=40, line_search_fn="strong_wolfe")

        def closure(weight=weight, optimizer=optimizer, penalty=penalty) -> Tensor:
            optimizer.zero_grad()
            scores = F.embedding_bag(x[0], weight, x[1], mode="sum")[:, 0]
            loss = F.binary_cross_entropy_with_logits(scores, y) + penalty * weight.square().sum()
            loss.backward()
            return loss

        optimizer.step(closure)
        with torch.no_grad():
            guess = F.embedding_bag(x_validation[0], weight, x_validation[1], mode="sum")[:, 0] > 0
            accuracy = (guess == truth).float().mean().item()
            if accuracy > best[0]:
                best = (accuracy, F.embedding_bag(x_held[0], weight, x_held[1], mode="sum")[:, 0])
    return best[1]


def baseline_scores(cache_dir: Path, snippets: list[Snippet], held: list[Snippet]) -> dict[str, Tensor]:
    """Scores of the snippets in ``held``, in their order, whose sign is the guess; 0 counts as negative."""
    return {
        "majority class": majority(snippets, held),
        "VADER": vader(cache_dir, held),
        "bag of words": bag_of_words(snippets, held),
    }
