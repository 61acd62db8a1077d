"""``audit``: screen the words of a corpus by relevance, confirm by deleting them."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch
from accelerate import PartialState

from hf_mambalrp.audit.corpus import Source, explained_texts
from hf_mambalrp.audit.effects import both_sides, check_confidence, deleted, swapped
from hf_mambalrp.audit.positions import Places
from hf_mambalrp.audit.result import Audit, Candidate, Swap
from hf_mambalrp.audit.scores import Scored, Scores, scored
from hf_mambalrp.audit.statistics import false_discovery_rates, stats
from hf_mambalrp.audit.wording import named, places
from hf_mambalrp.audit.words import Change, WordRow, compare, words_table
from hf_mambalrp.calls.explain import model_id, versions
from hf_mambalrp.calls.labels import read_label
from hf_mambalrp.datasets.explaining import explain_dataset
from hf_mambalrp.datasets.reading import SkippedRow, load_explanations
from hf_mambalrp.errors import InputError, OptionError
from hf_mambalrp.evaluation.dataset import drawn
from hf_mambalrp.results.explanation import Explanation
from hf_mambalrp.runs.checks import whole_number
from hf_mambalrp.runs.progress import progress_bar

MAX_Q = 0.05
CONTROLS = 10
"""Swaps of other words beside each swap."""
RISEN = 12
"""Words that are shown of those that changed."""


def audit(
    model: Any,
    data: Any,
    output_dir: str | Path | None = None,
    *,
    label: str | None = None,
    base: Any = None,
    swaps: Mapping[str, Sequence[tuple[str, str]]] | None = None,
    min_effect: float = 0.2,
    candidates: int = 12,
    ngrams: int = 3,
    min_texts: int = 10,
    max_texts: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
    tokenizer: Any = None,
    text_column: str = "text",
    batch_tokens: int | None = None,
    restart: bool = False,
    progress: bool = True,
) -> Audit:
    """Say which words a classifier relies on over a corpus: screened by relevance, confirmed by the model itself.

    Candidates are the words, runs and pairs with the largest mean share of |relevance| in the texts that have them
    (:func:`words_table`), times the root of the number of these texts, with which a t statistic grows. Each is deleted
    from the texts that have it (:func:`delete_effect`); it is confirmed where the t test, corrected for the number of
    candidates by Benjamini and Hochberg (1995), has q < .05 and the effect is at least ``min_effect`` standard
    deviations of the score. A word that should count, such as "dull" of reviews, is confirmed as a shortcut is: which
    of them is one is for people to say, and the result says what was not examined. Equal calls give equal results.

    Args:
        model: an explainable classifier, or one that ``make_explainable`` knows.
        data: what :func:`hf_mambalrp.explain_dataset` takes, which explains it, on as many processes as were launched,
            and goes on where it was; or the folder that it wrote; or a list of explanations by this model.
        output_dir: folder of the explanations, in ``explained`` (and ``base``); by default they are not kept, which
            only one process can do.
        label: column of the true class, which the classes weigh the same by; by default they are the predicted ones.
        base: the model that this one was fine-tuned from, or its explanations of the same data: what rose against it.
        swaps: pairs of words by a name, such as ``{"he/she": HE_SHE}``; each swap is confirmed as candidates are, and
            if its effect is larger than those of 10 swaps of other words of like frequency.
        min_effect: the smallest effect that is confirmed, in standard deviations of the score.
        candidates: how many are tested.
        ngrams: the longest run of words that is a candidate.
        min_texts: a candidate is in at least so many texts.
        max_texts: of more texts with a candidate so many are drawn with ``seed``.
        confidence: of the intervals.
        seed: of the draws.
        tokenizer: by default the one beside the model.
        text_column: of data.
        batch_tokens: tokens of one forward.
        restart: begin again in the folder of another run, whose explanations are removed.
        progress: show bars.

    Raises:
        InputError: data that cannot be read; explanations of another model; a text without a label; a score that
            does not vary.
        OptionError: an option with a value that is not allowed.
        TargetError: a label that the model has not.
        UnknownArchitectureError: a language model, or a regression.
        MissingExtraError: scipy or pyarrow is not installed.

    Example:
        >>> from hf_mambalrp import DEMO_MODEL, AutoMambaLRPForSequenceClassification
        >>> from hf_mambalrp.audit import audit
        >>> model = AutoMambaLRPForSequenceClassification.from_pretrained(DEMO_MODEL)
        >>> found = audit(model, f"{DEMO_MODEL}/reviews.jsonl", label="label", min_texts=5, progress=False)
        >>> len(found.candidates) + len(found.untested)
        12
    """
    sizes = {"candidates": candidates, "ngrams": ngrams, "min_texts": min_texts, "max_texts": max_texts}
    for name, value in sizes.items():
        whole_number(name, value, 1)
    whole_number("seed", seed, 0)
    check_confidence(confidence)
    if isinstance(min_effect, bool) or not isinstance(min_effect, (int, float)) or not 0 <= min_effect < math.inf:
        raise OptionError(f"min_effect={min_effect!r} is not allowed; give a number from 0, such as 0.2.")
    if swaps is not None and not isinstance(swaps, Mapping):
        raise OptionError(f"swaps={swaps!r} is not allowed; give pairs by a name: {{'he/she': [('he', 'she')]}}.")
    sides = {name: both_sides(pairs) for name, pairs in (swaps or {}).items()}
    stats()
    scores = Scores("audit", model, tokenizer, batch_tokens, progress)
    explaining = {"tokenizer": tokenizer, "text_column": text_column, "restart": restart, "progress": progress}
    if label is not None:
        explaining["columns"] = (label,)
    with _explanations(scores.model, data, output_dir, "explained", explaining) as source:
        read = _read(source, scores, label, progress)
        rows = words_table(source, ngrams=ngrams, pairs=True, min_texts=min_texts, progress=progress)
        rows.sort(key=lambda row: -row.share / math.sqrt(row.texts))  # the share is 0 in the other texts
        changed = None
        if base is not None:
            explaining = {"tokenizer": tokenizer, "restart": restart, "progress": progress}
            changed = _changed(source, base, output_dir, explaining, min_texts)
    texts = scored(scores, read.texts, read.labels)
    having = _Having(read.texts, max_texts, seed)
    tested: list[tuple[WordRow, Any]] = []
    untested = []
    scores = scores.quiet()  # one bar for all candidates
    for row in progress_bar(rows[:candidates], shown=progress, desc="candidates", unit="candidate"):
        found = deleted(scores, texts, row.pattern, None, confidence, having.words(row))
        if found is None:
            untested.append(named(row.pattern))
        else:
            tested.append((row, found))
    q_values = false_discovery_rates([found.p for _, found in tested])
    results = tuple(
        Candidate(row.share, row.mean, found, q, q < MAX_Q and abs(found.effect) >= min_effect)
        for (row, found), q in zip(tested, q_values, strict=True)
    )
    known = {word for row in rows[:candidates] for part in named(row.pattern).split(" + ") for word in part.split()}
    swapping = _Swapping(scores, texts, having, rows, known, confidence)
    done, unswapped = swapping.all(sides, min_effect)
    names = [scores.label(number) for number in texts.classes]
    return Audit(
        model=read.model,
        versions=versions(),
        method=read.method,
        settings={
            "label": label,
            "min_effect": min_effect,
            **sizes,
            "confidence": confidence,
            "seed": seed,
        },
        texts=len(read.texts),
        skipped=read.skipped,
        classes=dict(sorted(Counter(names).items())),
        errors=None
        if label is None
        else int(sum(a != b for a, b in zip(texts.classes, texts.decisions.tolist(), strict=True))),
        candidates=results,
        untested=tuple(untested),
        positions=read.places.positions(),
        changed=changed,
        swaps=None if swaps is None else done,
        unswapped=unswapped,
    )


class _Read(NamedTuple):
    """What one reading of the explanations gives."""

    texts: list[str]
    labels: list[Any] | None
    skipped: int
    model: str | None
    method: str
    places: Places


@contextmanager
def _explanations(
    model: Any, data: Any, output_dir: str | Path | None, name: str, explaining: Mapping[str, Any]
) -> Iterator[Source]:
    """The explanations that data is, or those that are made of it. OptionError: several processes, and no folder."""
    is_folder = isinstance(data, (str, Path)) and Path(data).is_dir()
    if is_folder or isinstance(data, Explanation):
        yield data
        return
    if isinstance(data, (list, tuple)) and data and isinstance(data[0], Explanation):
        yield data
        return
    if output_dir is None and PartialState(cpu=not torch.cuda.is_available()).num_processes > 1:
        raise OptionError("output_dir=None: several processes write into one folder. Give one that all of them share.")
    with TemporaryDirectory() if output_dir is None else nullcontext(output_dir) as folder:
        path = Path(folder) / name
        explain_dataset(model, data, path, on_error="skip", **explaining)
        yield path


def _read(source: Source, scores: Scores, label: str | None, progress: bool) -> _Read:
    """Texts and labels. InputError: of another model or of no predicted class, or a text without a label."""
    skipped = 0
    if isinstance(source, (str, Path)):
        skipped = sum(isinstance(row, SkippedRow) for row in load_explanations(source, skipped=True))
    texts, labels, places = [], [], Places()
    own = model_id(scores.network)
    model, method = own, ""
    for text in explained_texts(source, progress, "texts"):
        ex = text.explanation
        if ex.model_id != own:
            raise InputError(
                f"The explanations are of the model {ex.model_id!r}, and the model given is {own!r}. Give that "
                "model, or explain the data by this one."
            )
        if label is not None:
            columns = {} if ex.columns is None else ex.columns[0]
            if columns.get(label) is None:
                raise InputError(
                    f"The text {text.text[:40]!r} has no {label!r}; its columns are {sorted(columns)}. Give "
                    f"explain_dataset(columns=[{label!r}]), and a label in every row."
                )
            labels.append(read_label(columns[label], scores.outputs))
        texts.append(text.text)
        method = ex.method
        places.add(ex)
    return _Read(texts, None if label is None else labels, skipped, model, method, places)


def _changed(
    source: Source, base: Any, output_dir: str | Path | None, explaining: Mapping[str, Any], min_texts: int
) -> tuple[Change, ...]:
    """The words whose share rose most against another model, or its explanations."""
    is_model = not isinstance(base, (str, Path, list, tuple, Explanation))
    data = [text.text for text in explained_texts(source, False, "")] if is_model else base
    with _explanations(base, data, output_dir, "base", explaining) as theirs:
        return tuple(compare(source, theirs, min_texts=min_texts, progress=explaining["progress"])[:RISEN])


class _Having:
    """Which texts have a word, drawn where they are many."""

    def __init__(self, texts: Sequence[str], max_texts: int, seed: int) -> None:
        self._words = [{place.word for place in places(text)} for text in texts]
        self._max_texts, self._seed = max_texts, seed

    def words(self, row: WordRow) -> list[int]:
        """Return texts that have all words of a row."""
        parts = [row.pattern] if isinstance(row.pattern, str) else row.pattern
        wanted = {word for part in parts for word in part.split(" ")}
        return self._drawn([i for i, words in enumerate(self._words) if wanted <= words])

    def one_side(self, forth: Mapping[str, str], back: Mapping[str, str]) -> list[int]:
        """Return texts that have words of one side of a swap."""
        return self._drawn(
            [i for i, words in enumerate(self._words) if words.isdisjoint(forth) != words.isdisjoint(back)]
        )

    def _drawn(self, found: list[int]) -> list[int]:
        return drawn(found, self._max_texts, self._seed)


class _Swapping:
    """Swaps, and the control swaps beside them: of words that are neither candidates nor of a swap."""

    def __init__(
        self,
        scores: Scores,
        texts: Scored,
        having: _Having,
        rows: Sequence[WordRow],
        known: set[str],
        confidence: float,
    ) -> None:
        self._run = lambda sides: swapped(scores, texts, sides, None, confidence, having.one_side(*sides))
        self._words = {
            row.pattern: row.texts
            for row in rows
            if isinstance(row.pattern, str) and row.pattern.isalpha() and row.pattern not in known
        }

    def all(self, sides: Mapping[str, Any], min_effect: float) -> tuple[tuple[Swap, ...], tuple[str, ...]]:
        """Return the swaps that were done, and the names of those that too few texts have the words of."""
        found = {name: self._run(pair) for name, pair in sides.items()}
        done = {name: effect for name, effect in found.items() if effect is not None}
        q_values = false_discovery_rates([effect.p for effect in done.values()])
        swaps = []
        for effect, q in zip(done.values(), q_values, strict=True):
            taken = {word for forth, back in sides.values() for word in (*forth, *back)}
            controls = self._controls(effect.texts / 2, taken)
            largest = max((abs(value) for _, value in controls), default=0.0)
            passes = q < MAX_Q and abs(effect.effect) >= min_effect and bool(controls) and abs(effect.effect) > largest
            swaps.append(Swap(effect, q, controls, passes))
        return tuple(swaps), tuple(name for name in sides if name not in done)

    def _controls(self, wanted: float, taken: set[str]) -> tuple[tuple[str, float], ...]:
        """Swaps of words each of which about ``wanted`` texts have, nearest first."""
        free = [word for word in self._words if word not in taken]
        free.sort(key=lambda word: (abs(math.log(self._words[word] / wanted)), word))
        found = []
        for one, other in zip(free[: 2 * CONTROLS : 2], free[1 : 2 * CONTROLS : 2], strict=False):
            effect = self._run(both_sides([(one, other)]))
            if effect is not None:
                found.append((effect.name, effect.effect))
        return tuple(found)
