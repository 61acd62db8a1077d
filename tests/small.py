"""Small real tokenizers for tests."""

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

WORDS = ["<pad>", "<unk>", "a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n", "o", "p", "<eos>"]
"""As many as the test models have tokens."""


def word_tokenizer(**special):
    """One token a word."""
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    special = {"pad_token": "<pad>", "unk_token": "<unk>", "eos_token": "<eos>", **special}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)


def byte_level_tokenizer(text, vocabulary=300):
    """Byte-level BPE as GPT-2's and GPT-NeoX's, trained on ``text``; the leading space belongs to a token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=["<|endoftext|>", "<|padding|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator([text], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|endoftext|>",
        pad_token="<|padding|>",
        model_input_names=["input_ids", "attention_mask"],
    )


KINDS = {
    "mamba": {},
    "falcon_mamba": {"model_type": "falcon_mamba"},
    "mamba2": {"model_type": "mamba2"},
    "mamba2, two groups": {"model_type": "mamba2", "n_groups": 2, "chunk_size": 256},
    "mamba2, dt limited": {"model_type": "mamba2", "time_step_limit": (0.02, 0.5), "chunk_size": 7},
}
"""Options of ``random_models.random_model``: every family, and what changes a family's forward."""
