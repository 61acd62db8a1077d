"""Result objects with known numbers, for the tests of what shows and stores them."""

import re
from itertools import accumulate

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from hf_mambalrp.results.explanation import Conservation, Explanation
from hf_mambalrp.results.generation_explanation import GenerationExplanation
from hf_mambalrp.results.image_explanation import ImageExplanation

REVIEW = (
    "A brilliant, quietly moving film — the script drags in the middle and the score is dull, "
    "but the performances are superb and the ending stays with you."
)
HOSTILE = "</p><script>alert(1)</script><img src=x onerror=alert(1)>\"'&\x1b[31mred\x1b[0m\u202eevil\x07"


def conserved(relevance, biases=0.0):
    """Conservation of a relevance whose row sums and ``biases`` are the whole score."""
    total = relevance.sum(-1)
    return Conservation(total + biases, total, torch.full_like(total, biases))


def explanation(*texts, pattern=r" ?\S+|\s", relevance=None, biases=0.0, **fields):
    """One row per text, a token per match of ``pattern``, right padding; relevance counts up from -1 unless given."""
    spans = [[m.span() for m in re.finditer(pattern, text)] for text in texts]
    length = max(map(len, spans))
    tokens = [[t[a:b] for a, b in s] + ["<pad>"] * (length - len(s)) for t, s in zip(texts, spans, strict=True)]
    mask = torch.tensor([[1] * len(s) + [0] * (length - len(s)) for s in spans])
    if relevance is None:
        relevance = (torch.arange(length).float() - 1).expand(len(texts), -1)
    relevance = relevance * mask
    kept = conserved(relevance, biases)
    defaults = {
        "relevance": relevance,
        "tokens": tokens,
        "input_ids": torch.arange(length).expand(len(texts), -1),
        "attention_mask": mask,
        "target": [1] * len(texts),
        "target_text": ["positive"] * len(texts),
        "contrast": None,
        "contrast_text": None,
        "score": kept.score,
        "probability": torch.full((len(texts),), 0.75),
        "method": "mambalrp",
        "conservation": kept,
        "offsets": [s + [(0, 0)] * (length - len(s)) for s in spans],
        "texts": list(texts),
        "model_id": "me/mamba",
        "versions": {"torch": "2.13.0"},
    }
    return Explanation(**{**defaults, **fields})


def capital():
    """A language model's choice of " Paris" over " London"; the numbers sum to 11.25."""
    relevance = torch.tensor([[0.25, 3.0, -0.25, 8.0, 0.5]])
    return explanation(
        "The capital of France is",
        relevance=relevance,
        biases=-0.25,
        target_text=[" Paris"],
        contrast=[7],
        contrast_text=[" London"],
        position=torch.tensor([4]),
    )


def generation(**fields):
    """Two rows, a prompt of two (the second padded on the left), three steps; the second row ends after two."""
    relevance = torch.tensor(
        [
            [[1.0, 2.0, 0, 0, 0], [0.5, -1.0, 3.0, 0, 0], [0.25, 0.25, 0.25, 0.25, 0]],
            [[0.0, 4.0, 0, 0, 0], [0.0, 1.0, -2.0, 0, 0], [0.0, 0, 0, 0, 0]],
        ]
    )
    score = torch.tensor([[3.0, 2.5, 1.0], [4.0, -1.0, 0.0]])
    defaults = {
        "relevance": relevance,
        "tokens": [["The", " cat", " sat", " down", "."], ["<pad>", "Hi", " there", "<eos>", "<pad>"]],
        "input_ids": torch.arange(10).view(2, 5),
        "attention_mask": torch.tensor([[1, 1, 1, 1, 1], [0, 1, 1, 1, 0]]),
        "prompt_length": 2,
        "score": score,
        "probability": torch.tensor([[0.5, 0.25, 0.125], [0.5, 0.25, 0.0]]),
        "method": "mambalrp",
        "conservation": Conservation(score, relevance.sum(-1), torch.zeros(2, 3)),
        "model_id": "me/mamba",
        "versions": {"torch": "2.13.0"},
    }
    return GenerationExplanation(**{**defaults, **fields})


def long_generation(prompt, steps):
    """A text of so many words, in which every fifth token that was generated ends a sentence; sums are exact."""
    words = [f"word{i % 37}" for i in range(prompt)] + [f"out{t}" + "." * (t % 5 == 4) for t in range(steps)]
    text, length = " ".join(words), prompt + steps
    ends = [*accumulate(len(word) + 1 for word in words)]
    spans = [(max(end - len(word) - 2, 0), end - 1) for word, end in zip(words, ends, strict=True)]
    relevance = (
        torch.randint(-24, 25, (1, steps, length)) / 8 * (torch.arange(length) < prompt + torch.arange(steps)[:, None])
    )
    total = relevance.sum(-1)
    return GenerationExplanation(
        relevance=relevance,
        tokens=[[text[start:end] for start, end in spans]],
        input_ids=torch.arange(length)[None],
        attention_mask=torch.ones(1, length),
        prompt_length=prompt,
        score=total + 0.5,
        probability=torch.rand(1, steps),
        method="mambalrp",
        conservation=Conservation(total + 0.5, total, torch.full_like(total, 0.5)),
        offsets=[spans],
        texts=[text],
    )


def image_explanation(relevance=None, *, class_relevance=None, biases=0.25, patch_size=4, stride=None, **fields):
    """One row per grid of ``relevance`` (B, rows, columns), by default one of 3 x 4 that counts up from -2.

    Images are just large enough and count through all bytes; the class token has 0.5.
    """
    if relevance is None:
        relevance = torch.arange(12.0).view(1, 3, 4) - 2
    stride = stride or patch_size
    rows, down, across = relevance.shape
    if class_relevance is None:
        class_relevance = torch.full((rows, 1), 0.5)
    height, width = (stride * (cells - 1) + patch_size for cells in (down, across))
    kept = conserved(torch.cat([relevance.flatten(1), class_relevance], 1), biases)
    defaults = {
        "relevance": relevance,
        "class_relevance": class_relevance,
        "images": torch.arange(rows * height * width * 3).remainder(256).to(torch.uint8).view(rows, height, width, 3),
        "target": [1] * rows,
        "target_text": ["boot"] * rows,
        "contrast": None,
        "contrast_text": None,
        "score": kept.score,
        "probability": torch.full((rows,), 0.75),
        "method": "mambalrp",
        "conservation": kept,
        "patch_size": patch_size,
        "stride": stride,
        "gamma": 0.25,
        "gamma_on": ("conv1d",),
        "sources": [f"photo {row}.jpg" for row in range(rows)],
        "model_id": "me/vim",
        "versions": {"torch": "2.13.0"},
    }
    return ImageExplanation(**{**defaults, **fields})


def byte_level(corpus, *, trim_offsets, add_prefix_space):
    """A tiny BPE tokenizer of the kind GPT-2 and GPT-NeoX use; ``trim_offsets=None`` has no post-processor."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=290,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([corpus] * 3, trainer)
    if trim_offsets is not None:
        tokenizer.post_processor = processors.ByteLevel(trim_offsets=trim_offsets, add_prefix_space=add_prefix_space)
    return tokenizer
