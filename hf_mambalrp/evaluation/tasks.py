"""Synthetic language-model tasks in which the input that determines each output token is known.

Token ids: 0 to 3 are ``PAD``, ``BOS``, ``SEP`` and ``KEY``; the rest of the vocabulary are content tokens. Every
sequence of a batch has the same length, so nothing is padded. Glossary: n sequences, L tokens, T outputs a sequence.

Evidence is the column that the output token is copied from. It is unique: no other column says *which* token comes
next. Columns that say *where* to copy from (the query, the key beside a value, the ``KEY`` marker, what was copied so
far) are not evidence, although a correct model has to read them as well.
"""

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from hf_mambalrp.errors import OptionError

PAD, BOS, SEP, KEY = range(4)
SPECIAL = 4
"""Ids below it are no content tokens."""


@dataclass(frozen=True)
class TaskBatch:
    """Sequences, the output tokens to explain in them, and the columns those tokens are copied from."""

    input_ids: Tensor
    """(n, L) int64."""
    positions: Tensor
    """(n, T) int64: the column whose next token is the output."""
    targets: Tensor
    """(n, T) int64: the correct output token."""
    evidence: Tensor
    """(n, T, L) bool: True at the column that the output token is copied from."""


def copying(n: int, length: int, vocabulary: int, seed: int) -> TaskBatch:
    """Return ``BOS x_1 .. x_k SEP x_1 .. x_k``: after ``SEP`` the source is written again, token by token.

    The k = ``length`` source tokens are drawn without replacement, so each stands in the source once. Output t = 1..k
    is x_t, and its evidence is column t of the source. L = 2k + 2, T = k. The outputs before t are in the input.

    Args:
        n: sequences.
        length: source tokens k, at least 1.
        vocabulary: ids in all, the special ones included; at least k + 4, and well above it if the last tokens of the
            source are not to be guessed by exclusion.
        seed: of the draw; equal arguments give equal sequences.

    Raises:
        OptionError: a size below its minimum.

    Source: Jelassi et al. 2024; as a test of attribution Pitorro and Treviso 2025 (LaTIM).
    """
    _at_least("n", n, 1)
    _at_least("length", length, 1)
    _at_least("vocabulary", vocabulary, SPECIAL + length, f"to draw {length} different source tokens")
    source = SPECIAL + _distinct(n, vocabulary - SPECIAL, length, _generator(seed))
    input_ids = torch.cat([_column(n, BOS), source, _column(n, SEP), source], 1)
    output = torch.arange(length).expand(n, length)
    return _batch(input_ids, positions=length + 1 + output, evidence=1 + output)


def associative_recall(n: int, pairs: int, vocabulary: int, seed: int, *, queries: int = 1) -> TaskBatch:
    """Return ``BOS k_1 v_1 .. k_p v_p SEP k_i v_i k_j v_j ..``: after ``SEP`` each key is followed by its value.

    Keys are drawn from the first half of the content tokens and values from the second half, both without replacement,
    and queries are different pairs in random order. The evidence of an answer v_i is the column of v_i among the pairs.
    L = 1 + 2 ``pairs`` + 1 + 2 ``queries``, T = ``queries``.

    Args:
        n: sequences.
        pairs: p, at least 1.
        vocabulary: ids in all, the special ones included; at least 2p + 4 (and well above it, as in :func:`copying`).
        seed: of the draw; equal arguments give equal sequences.
        queries: 1 to ``pairs``; with several, each answer stands in the sequence before the next query.

    Raises:
        OptionError: a size out of its range.

    Source: Ba et al. 2016; with several queries Arora et al. 2024 (Zoology).
    """
    _at_least("n", n, 1)
    _at_least("pairs", pairs, 1)
    _at_least("vocabulary", vocabulary, SPECIAL + 2 * pairs, f"to draw {pairs} different keys and values")
    if not 1 <= queries <= pairs:
        raise OptionError(f"queries={queries}; allowed are 1 to pairs={pairs}, each pair is asked for at most once.")
    generator, half = _generator(seed), (vocabulary - SPECIAL) // 2
    keys = SPECIAL + _distinct(n, half, pairs, generator)
    values = SPECIAL + half + _distinct(n, half, pairs, generator)
    both = torch.stack([keys, values], 2)  # (n, pairs, 2)
    asked = _distinct(n, pairs, queries, generator)
    answers = both.gather(1, asked[..., None].expand(n, queries, 2))
    input_ids = torch.cat([_column(n, BOS), both.flatten(1), _column(n, SEP), answers.flatten(1)], 1)
    positions = (2 * pairs + 2 + 2 * torch.arange(queries)).expand(n, queries)
    return _batch(input_ids, positions=positions, evidence=2 + 2 * asked)


def needle(n: int, length: int, vocabulary: int, seed: int, *, depth: float | None = None) -> TaskBatch:
    """Return ``BOS noise .. KEY v noise .. SEP v``: after ``SEP`` comes the token that followed ``KEY``.

    Noise and v are drawn with replacement from the same content tokens, so v may also occur as noise: only the token
    after ``KEY`` determines the output, and only its column is evidence. L = ``length`` + 1, T = 1.

    Args:
        n: sequences.
        length: columns read before the output, ``BOS`` and ``SEP`` included; at least 4.
        vocabulary: ids in all, the special ones included; at least 6.
        seed: of the draw; equal arguments give equal sequences.
        depth: where the needle is, from 0 (right after ``BOS``) to 1 (right before ``SEP``); None draws a place for
            each sequence.

    Raises:
        OptionError: a size below its minimum, a depth outside 0 to 1.
    """
    _at_least("n", n, 1)
    _at_least("length", length, 4, "for BOS, KEY, a value and SEP")
    _at_least("vocabulary", vocabulary, SPECIAL + 2, "for a choice between two values")
    if depth is not None and not 0 <= depth <= 1:
        raise OptionError(f"depth={depth}; allowed are 0 (the beginning) to 1 (the end), or None for random places.")
    generator, places = _generator(seed), length - 3
    haystack = torch.randint(SPECIAL, vocabulary, (n, length - 2), generator=generator)
    if depth is None:
        key = torch.randint(places, (n, 1), generator=generator)
    else:
        key = torch.full((n, 1), round(depth * (places - 1)))
    haystack.scatter_(1, key, KEY)
    value = haystack.gather(1, key + 1)
    input_ids = torch.cat([_column(n, BOS), haystack, _column(n, SEP), value], 1)
    return _batch(input_ids, positions=_column(n, length - 1), evidence=key + 2)


def _batch(input_ids: Tensor, *, positions: Tensor, evidence: Tensor) -> TaskBatch:
    """The outputs are the tokens after ``positions`` (n, T); ``evidence`` (n, T) is one column for each."""
    columns = torch.arange(input_ids.shape[1])
    positions = positions.contiguous()
    return TaskBatch(input_ids, positions, input_ids.gather(1, positions + 1), evidence[..., None] == columns)


def _distinct(n: int, symbols: int, draws: int, generator: Generator) -> Tensor:
    """Draw from 0 .. symbols - 1 without replacement in each row. (n, draws)."""
    return torch.rand(n, symbols, generator=generator, dtype=torch.float64).argsort(1)[:, :draws]


def _column(n: int, token: int) -> Tensor:
    return torch.full((n, 1), token)


def _generator(seed: int) -> Generator:
    return Generator().manual_seed(seed)


def _at_least(name: str, value: int, minimum: int, reason: str = "") -> None:
    if value < minimum:
        raise OptionError(f"{name}={value}; it must be at least {minimum}{' ' + reason if reason else ''}.")
