"""``audit``: screen the words of a corpus, or regions of images, by relevance, confirm by deleting them."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hf_mambalrp.audit.asked import Asked
from hf_mambalrp.audit.confirming import tested
from hf_mambalrp.audit.effects import both_sides, deleted, scores_of
from hf_mambalrp.audit.images import audit_images
from hf_mambalrp.audit.reading import called, changed_against, explanations, read
from hf_mambalrp.audit.scores import Scores, scored
from hf_mambalrp.audit.swapping import Having, Swapping
from hf_mambalrp.audit.words import WordTables, whole
from hf_mambalrp.calls.subject import subject_of
from hf_mambalrp.errors import OptionError
from hf_mambalrp.families.parts import Patches
from hf_mambalrp.models.fingerprint import fingerprint
from hf_mambalrp.models.given import make_explainable
from hf_mambalrp.results.audit import Audit
from hf_mambalrp.results.audit_parts import named


def audit(
    model: Any,
    data: Any,
    output_dir: str | Path | None = None,
    *,
    label: str | None = None,
    target: int | str | None = None,
    contrast: int | str | None = None,
    target_column: str | None = None,
    contrast_column: str | None = None,
    base: Any = None,
    swaps: Mapping[str, Sequence[tuple[str, str]]] | None = None,
    groups: str | None = None,
    masks: Mapping[str, Any] | None = None,
    replacement: str = "mean",
    min_effect: float = 0.2,
    candidates: int = 12,
    ngrams: int = 3,
    min_texts: int = 10,
    max_texts: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
    tokenizer: Any = None,
    text_column: str = "text",
    image_column: str = "image",
    processor: Any = None,
    batch_tokens: int | None = None,
    restart: bool = False,
    progress: bool = True,
) -> Audit:
    """Say which words a model relies on over a corpus: screened by relevance, confirmed by the model itself.

    Candidates are the words, runs and pairs with the largest mean share of |relevance| in the texts that have them
    (:func:`words_table`), times the root of the number of these texts, with which a t statistic grows; words that
    hardly occur but in a run go with it, for without one of them the rest is torn. Each candidate is deleted from
    the texts that have it (:func:`delete_effect`); it is confirmed where the t test, corrected for the number of
    candidates by Benjamini and Hochberg (1995), has q < .05 and the effect is at least ``min_effect`` standard
    deviations of the score. A word that should count, such as "dull" of reviews, is confirmed as a shortcut is:
    which of them is one is for people to say, and the result says what was not examined. Equal calls give equal
    results.

    Of an image classifier the candidates are the named regions of ``masks``: their share is that of the patches'
    |relevance|, each patch counting by the part of it that the mask has; they are deleted by replacing every patch that
    the mask touches, and an image of which nothing would be left is not compared. The score is the log-odds of the
    class that the model predicts for the image, since a region may speak for another class in every one.

    Args:
        model: an explainable classifier or language model, or one that ``make_explainable`` knows.
        data: what :func:`hf_mambalrp.explain_dataset` takes, which explains it, on as many processes as were launched,
            which share the scoring too, and goes on where it was; or the folder that it wrote; or explanations by this
            model. Of images a list of what ``explain`` takes as one, an array (n, H, W, 3), or rows, mappings with a
            column of images, or the path of a .jsonl, .csv or .parquet file of rows, whose images are files, from the
            table's folder, or in the table; as many processes share them.
        output_dir: folder of the explanations, in ``explained`` (and ``base``); of images what is found of each, there
            and in ``without``. Killed, the same call goes on where it was. By default nothing is kept, which only one
            process can do. Between launches MKL may round otherwise, unless MKL_CBWR=COMPATIBLE is set.
        label: column of the true class, a name or an id of the model's; classes weigh the same. By default they are the
            predicted ones.
        target, contrast: of a language model the next token, and the one that it is compared with; the score is the
            difference of their logits, and the two are the classes, which ``label`` names "target" or "contrast".
        target_column, contrast_column: or columns that have them.
        base: the model that this one was fine-tuned from, or its explanations of the same data: what rose against it.
        swaps: pairs of words by a name, such as ``{"he/she": HE_SHE}``; each swap is confirmed as candidates are, and
            if its effect is larger than those of 10 swaps of other words of like frequency.
        groups: column of the data: errors, scores and the confirmed candidates' effects for each of its values.
        masks: of images: regions by their names, each a mask for all images, a list with one an image (None where it
            has no such region), or the name of a column; an array or picture of the image's size, not 0 on the region.
        replacement: of a patch: "mean", the image's mean colour, "black" or "blur".
        min_effect: the smallest effect that is confirmed, in standard deviations of the score.
        candidates: how many are tested.
        ngrams: the longest run of words that is a candidate.
        min_texts: a candidate is in at least so many texts, a group has so many.
        max_texts: of more texts with a candidate so many are drawn with ``seed``.
        confidence: of the intervals.
        seed: of the draws.
        tokenizer: by default the one beside the model.
        text_column, image_column: of data.
        processor: the image processor; by default the one that ``explain`` takes.
        batch_tokens: tokens of one forward.
        restart: begin again in the folder of another run, whose explanations, or what it found of images, are removed.
        progress: show bars.

    Raises:
        InputError: data that cannot be read; explanations of another model; a text or image without a label or group; a
            score that does not vary; images without masks, or with masks of another size.
        OptionError: an option with a value that is not allowed, or that the model has no use for.
        TargetError: a label that the model has not; explanations of a language model without a contrast.
        UnknownArchitectureError: a regression.
        MissingExtraError: scipy is not installed; of texts pyarrow, of images Pillow.

    Example:
        >>> from hf_mambalrp import DEMO_MODEL, AutoMambaLRPForSequenceClassification
        >>> from hf_mambalrp.audit import audit
        >>> model = AutoMambaLRPForSequenceClassification.from_pretrained(DEMO_MODEL)
        >>> found = audit(model, f"{DEMO_MODEL}/reviews.jsonl", label="label", min_texts=5, progress=False)
        >>> len(found.candidates) + len(found.untested)
        12
    """
    asked = Asked(
        label=label,
        groups=groups,
        min_effect=min_effect,
        candidates=candidates,
        ngrams=ngrams,
        min_texts=min_texts,
        max_texts=max_texts,
        confidence=confidence,
        seed=seed,
    )
    if swaps is not None and not isinstance(swaps, Mapping):
        raise OptionError(f"swaps={swaps!r} is not allowed; give pairs by a name: {{'he/she': [('he', 'she')]}}.")
    sides = {name: both_sides(pairs) for name, pairs in (swaps or {}).items()}
    sought = {
        "target": target,
        "contrast": contrast,
        "target_column": target_column,
        "contrast_column": contrast_column,
    }
    model = make_explainable(model)
    if isinstance(subject_of(model).network().stem, Patches):
        of_texts = {**sought, "base": base, "swaps": swaps, "tokenizer": tokenizer, "batch_tokens": batch_tokens}
        _check_unused(of_texts, "is for texts; an audit of images takes masks, replacement, label and groups")
        return audit_images(
            model,
            data,
            output_dir,
            asked,
            masks=masks,
            replacement=replacement,
            image_column=image_column,
            processor=processor,
            restart=restart,
            progress=progress,
        )
    _check_unused({"masks": masks, "processor": processor}, "is for image classifiers; this model reads texts")
    scores = Scores("audit", model, tokenizer, batch_tokens, progress)
    explaining = {"tokenizer": tokenizer, "text_column": text_column, "restart": restart, "progress": progress}
    if scores.network.is_language_model:
        explaining |= sought
    elif any(value is not None for value in sought.values()):
        raise OptionError("target and contrast are for language models; of a classifier the score is that of a class.")
    explaining["columns"] = asked.columns
    with explanations(scores.model, data, output_dir, "explained", explaining) as source:
        tables = WordTables((), ngrams, True, min_texts)
        found = read(source, scores, tables, label, groups, progress)
        rows = tables.rows(source, progress)
        rows.sort(key=lambda row: -row.share / math.sqrt(row.texts))  # the share is 0 in the other texts
        changed = None
        if base is not None:
            explaining = {"tokenizer": tokenizer, "restart": restart, "progress": progress}
            changed = changed_against(source, found, base, output_dir, explaining, min_texts)
    texts = scored(scores, found.texts, found.labels, sides=found.sides)
    having = Having(found.texts, max_texts, seed)
    screened = whole(rows)[:candidates]
    changes = [deleted(found.texts, row.pattern, having.words(row)) for row in screened]
    done = tested(scores, texts, screened, changes, scores_of(scores, changes), confidence, min_effect)
    known = {word for row in screened for part in named(row.pattern).split(" + ") for word in part.split()}
    swapping = Swapping(scores, texts, having, rows, known, confidence)
    exchanged, unswapped = swapping.all(sides, min_effect)
    return asked.result(
        scores,
        texts,
        done,
        found.groups,
        model=found.model,
        weights=fingerprint(scores.model),
        method=found.method,
        settings=asked.of_texts(),
        data=called(data),
        skipped=found.skipped,
        positions=found.places.positions(),
        changed=changed,
        swaps=None if swaps is None else exchanged,
        unswapped=unswapped,
    )


def _check_unused(options: Mapping[str, Any], why: str) -> None:
    """Raise :class:`OptionError` for an option that is given."""
    for name, value in options.items():
        if value is not None:
            raise OptionError(f"{name} {why}. Leave it out.")
