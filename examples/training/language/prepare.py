"""Make the language model's data: ``python prepare.py --cache-dir CACHE --output DATA``.

DATA gets the tokenizer, and for each split and kind of text one file of token ids with the places where a window may
start: the paragraphs of books, speeches and definitions (``read``), and the synthetic texts (``synthetic``). Documents
are split by a hash of their first paragraph; synthetic texts by their seed. ``texts.json`` counts bytes and tokens.
"""

import argparse
import hashlib
import json
import lzma
from collections.abc import Iterable
from pathlib import Path
from random import Random

import numpy as np
from sources import SOURCES, capitals, fetch
from stories import synthetic
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

END = "<|endoftext|>"
PAD = "<|padding|>"
VOCABULARY = 4096
SPLITS = ("train", "validation", "test")


def split_of(text: str) -> str:
    """2 % for validation and 3 % for the test, by a hash: the same on every machine."""
    percent = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") % 100
    return "test" if percent < 3 else "validation" if percent < 5 else "train"


def train_tokenizer(texts: Iterable[str]) -> Tokenizer:
    """Byte-level BPE; digits stand alone."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[END, PAD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def encode(tokenizer: Tokenizer, documents: list[list[str]]) -> tuple[np.ndarray, np.ndarray]:
    """Token ids, a line a paragraph and END after a document, and where the paragraphs start."""
    end = np.array([tokenizer.token_to_id(END)], np.uint16)
    ids, starts, size = [], [], 0
    for first in range(0, len(documents), 5000):  # an encoding holds much more than its ids
        part = documents[first : first + 5000]
        lines = [line + "\n" * (i + 1 < len(document)) for document in part for i, line in enumerate(document)]
        last = set(np.cumsum([len(document) for document in part]) - 1)
        for i, encoding in enumerate(tokenizer.encode_batch_fast(lines, add_special_tokens=False)):
            ids.append(np.array(encoding.ids, np.uint16))
            starts.append(size)
            size += len(encoding.ids)
            if i in last:
                ids.append(end)
                size += 1
    return np.concatenate(ids), np.array(starts, np.uint32)


def save_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    described = {
        "tokenizer_class": "PreTrainedTokenizerFast",  # a name that every supported release knows
        "eos_token": END,
        "pad_token": PAD,
        "model_input_names": ["input_ids", "attention_mask"],
        "clean_up_tokenization_spaces": False,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")


def write(folder: Path, name: str, tokenizer: Tokenizer, documents: list[list[str]]) -> dict[str, int]:
    """Write token ids and starts; return how many bytes, tokens and documents there are."""
    ids, starts = encode(tokenizer, documents)
    for part, array in (("ids", ids), ("starts", starts)):
        (folder / f"{name}.{part}.xz").write_bytes(lzma.compress(array.tobytes(), preset=6))
    size = sum(len(text.encode()) + 1 for document in documents for text in document)
    return {"bytes": size, "tokens": len(ids), "documents": len(documents)}


def load(path: Path, dtype: type) -> np.ndarray:
    return np.frombuffer(lzma.decompress(path.read_bytes()), dtype)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache-dir", type=Path, required=True, help="where downloaded packages are kept")
    parser.add_argument("--output", type=Path, required=True, help="folder for the tokenizer and the token ids")
    parser.add_argument("--synthetic", type=int, default=300_000, help="synthetic texts to train on")
    arguments = parser.parse_args(argv)
    fetch(arguments.cache_dir)
    about: dict[str, dict] = {"sources": {}}
    read: dict[str, list[list[str]]] = {split: [] for split in SPLITS}
    for name, source in SOURCES.items():
        sizes = dict.fromkeys(SPLITS, 0)
        for document in source(arguments.cache_dir):
            split = split_of(document[0])
            read[split].append(document)
            sizes[split] += sum(len(text.encode()) + 1 for text in document)
        about["sources"][name] = sizes
    facts = capitals(arguments.cache_dir)
    numbers = {"train": arguments.synthetic, "validation": 500, "test": 1500}
    made = {}
    for seed, split in enumerate(SPLITS):
        rng = Random(seed)
        made[split] = [[synthetic(rng, facts)] for _ in range(numbers[split])]

    sample = [text for document in read["train"] for text in document]
    sample += [text for (text,) in made["train"][: arguments.synthetic // 5]]
    tokenizer = train_tokenizer(sample)
    arguments.output.mkdir(parents=True, exist_ok=True)
    save_tokenizer(tokenizer, arguments.output / "tokenizer")
    for kind, documents in (("read", read), ("synthetic", made)):
        for split in SPLITS:
            name = f"{split}.{kind}"
            about[name] = write(arguments.output, name, tokenizer, documents[split])
    text = json.dumps(about, indent=2)
    (arguments.output / "texts.json").write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
