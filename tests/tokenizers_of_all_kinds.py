"""A tokenizer of every kind that puts, keeps, drops or hides a space, over the same few sentences."""

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

CORPUS = [
    "The capital of France is Paris. The capital of England is London. Paris : London, island: isolated land.",
] * 4
SPECIAL = ["<unk>", "<s>", "</s>"]
ENDS = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)])
LLAMA = decoders.Sequence(
    [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
)
BYTES = pre_tokenizers.ByteLevel.alphabet()


def _trained(model, trainer, *, pre, decoder, normalizer=None):
    tokenizer = Tokenizer(model)
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer, tokenizer.decoder = pre, decoder
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def _bpe(pre, decoder, alphabet=()):
    trainer = trainers.BpeTrainer(
        vocab_size=160 + len(alphabet), special_tokens=SPECIAL, initial_alphabet=list(alphabet), show_progress=False
    )
    return _trained(models.BPE(unk_token="<unk>", fuse_unk=True), trainer, pre=pre, decoder=decoder)


def _metaspace(scheme):
    return _bpe(pre_tokenizers.Metaspace(prepend_scheme=scheme), decoders.Metaspace(prepend_scheme=scheme))


def _llama_legacy():
    """No pre-tokenizer: a space in front of the text by its normaliser, words held together by its merges alone."""
    tokenizer = _metaspace("always")
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Sequence([]), LLAMA
    return tokenizer


def _with_ends(tokenizer):
    tokenizer.post_processor = ENDS
    return tokenizer


def _unigram():
    trainer = trainers.UnigramTrainer(vocab_size=60, special_tokens=SPECIAL, unk_token="<unk>", show_progress=False)
    spaces = [normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip()]
    pre, decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    return _trained(models.Unigram(), trainer, pre=pre, decoder=decoder, normalizer=normalizers.Sequence(spaces))


def _wordpiece():
    trainer = trainers.WordPieceTrainer(vocab_size=120, special_tokens=SPECIAL, show_progress=False)
    pre, decoder = pre_tokenizers.BertPreTokenizer(), decoders.WordPiece()
    return _trained(
        models.WordPiece(unk_token="<unk>"), trainer, pre=pre, decoder=decoder, normalizer=normalizers.BertNormalizer()
    )


def _words():
    words = [*SPECIAL, "The", "capital", "of", "France", "England", "is", "Paris", "London", "land"]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return tokenizer


KINDS = {
    "GPT-NeoX": lambda: _bpe(pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel(), BYTES),
    "add_prefix_space": lambda: _bpe(pre_tokenizers.ByteLevel(add_prefix_space=True), decoders.ByteLevel(), BYTES),
    "Llama, legacy": _llama_legacy,
    "Metaspace always": lambda: _metaspace("always"),
    "Metaspace first": lambda: _metaspace("first"),
    "Metaspace never": lambda: _metaspace("never"),
    "with <s> and </s>": lambda: _with_ends(_metaspace("first")),
    "WordPiece with <s> and </s>": lambda: _with_ends(_wordpiece()),
    "WordPiece": _wordpiece,
    "Unigram": _unigram,
    "characters": lambda: _bpe(pre_tokenizers.Split(Regex("."), "isolated"), decoders.Fuse()),
    "words": _words,
}


def tokenizer_of(kind):
    """The tokenizer as transformers loads it."""
    return PreTrainedTokenizerFast(
        tokenizer_object=KINDS[kind](), unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="<unk>"
    )
