"""What the language model is compared with: an interpolated Kneser-Ney model of five tokens.

``python ngram.py --data DATA`` prints its bits per byte on the test split. It is counted on the training split of the
kind of text that it is tested on, which suits it better than both together.

Kneser and Ney (ICASSP 1995); interpolated as in Chen and Goodman (1999), with one discount an order,
D = n_1 / (n_1 + 2 n_2), n_i the number of grams seen i times; 0.5 where none is seen once.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from prepare import VOCABULARY, load

ORDER = 5
BITS = 12  # of a token: a gram of five fits into 64 bits


def grams(ids: np.ndarray, order: int) -> np.ndarray:
    """The key of each window of ``order`` tokens, the first token in the highest bits."""
    keys = np.zeros(len(ids) - order + 1, np.uint64)
    for i in range(order):
        keys = (keys << np.uint64(BITS)) | ids[i : len(ids) - order + 1 + i].astype(np.uint64)
    return keys


def token_bits(train: np.ndarray, test: np.ndarray, order: int = ORDER, vocabulary: int = VOCABULARY) -> np.ndarray:
    """-log2 p of each token of ``test`` after its first ``order`` - 1.

    p_n(w | h) = max(c(h w) - D, 0) / c(h) + D m(h) / c(h) p_{n-1}(w | h'), with m(h) the number of tokens seen after h
    and h' = h without its first token; below the highest order, c counts the different tokens seen before a gram.
    """
    counted = [np.unique(grams(train, order), return_counts=True)]
    for n in range(order - 1, 0, -1):
        counted.append(np.unique(counted[-1][0] & np.uint64((1 << (BITS * n)) - 1), return_counts=True))
    p = np.full(len(test) - order + 1, 1 / vocabulary)
    wanted = grams(test, order)
    for n, (keys, counts) in zip(range(1, order + 1), reversed(counted), strict=True):
        once, twice = (counts == 1).sum(), (counts == 2).sum()
        discount = once / (once + 2 * twice) if once else 0.5
        contexts, first, kinds = np.unique(keys >> np.uint64(BITS), return_index=True, return_counts=True)
        totals = np.add.reduceat(counts, first)
        key = wanted & np.uint64((1 << (BITS * n)) - 1)
        found, seen = _look_up(keys, key), _look_up(contexts, key >> np.uint64(BITS))
        count = np.where(found >= 0, counts[found], 0)
        total, kind = totals[seen], kinds[seen]
        p = np.where(seen >= 0, (np.maximum(count - discount, 0) + discount * kind * p) / total, p)
    return -np.log2(p)


def _look_up(keys: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Where each wanted key stands in sorted ``keys``; -1 where it does not."""
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[at] == wanted, at, -1)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder that prepare.py wrote")
    arguments = parser.parse_args(argv)
    about = json.loads((arguments.data / "texts.json").read_text(encoding="utf-8"))
    for kind in ("read", "synthetic"):
        train, test = (load(arguments.data / f"{split}.{kind}.ids.xz", np.uint16) for split in ("train", "test"))
        bits = token_bits(train, test)
        # The first four tokens have no context; they get the mean of the others.
        size = about[f"test.{kind}"]["bytes"]
        print(json.dumps({"kind": kind, "bits per byte": round(float(bits.mean() * len(test) / size), 4)}), flush=True)


if __name__ == "__main__":
    main()
