"""The demo classifier: its settings, tokenizer and weights at the start, and how it is written to a folder."""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from torch import Tensor
from torch.nn import functional as F
from transformers import MambaConfig, PreTrainedTokenizerFast

from hf_mambalrp.models.classification import MambaForSequenceClassification

PAD = "<|endoftext|>"


@dataclass(frozen=True)
class Settings:
    """Everything that was tuned. Sizes keep the float32 file under 6 MB."""

    vocab_size: int = 6000
    hidden_size: int = 128
    num_hidden_layers: int = 3
    state_size: int = 8
    use_conv_bias: bool = True
    max_length: int = 96
    batch_size: int = 128
    pretrain_steps: int = 1000
    pretrain_lr: float = 2e-3
    # A rating r becomes the soft label sigmoid(steepness * r): 0.5 for a neutral snippet, 0.88 for a rating of 1.
    steepness: float = 2.0
    lexicon_per_epoch: int = 2000
    teachers: int = 4
    teacher_epochs: int = 8
    teacher_lr: float = 1e-3
    student_pieces: int = 2
    student_epochs: int = 7
    student_lr: float = 1.5e-3
    plain_pieces: int = 2
    plain_sentences: int = 40_000
    plain_share: float = 0.2
    plain_epochs: int = 4
    plain_lr: float = 1e-3
    token_dropout: float = 0.1
    dropout: float = 0.4
    weight_decay: float = 0.05
    ema_decay: float = 0.995
    seed: int = 0


def build_tokenizer(texts: list[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE on lower-cased text: "I LOVED IT" reads as "i loved it". Offsets refer to the original."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace("’", "'"), normalizers.Lowercase()]
    )
    # The leading space makes a word the same token at the start of a text as inside it.
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[PAD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=PAD,
        model_max_length=2048,
        model_input_names=["input_ids", "attention_mask"],
        clean_up_tokenization_spaces=False,
    )


def build_model(settings: Settings, tokenizer: PreTrainedTokenizerFast) -> MambaForSequenceClassification:
    pad = tokenizer.pad_token_id
    return MambaForSequenceClassification(
        MambaConfig(
            vocab_size=len(tokenizer),
            hidden_size=settings.hidden_size,
            num_hidden_layers=settings.num_hidden_layers,
            state_size=settings.state_size,
            use_conv_bias=settings.use_conv_bias,
            pad_token_id=pad,
            bos_token_id=pad,
            eos_token_id=pad,
            num_labels=2,
            id2label={0: "negative", 1: "positive"},
            label2id={"negative": 0, "positive": 1},
            problem_type="single_label_classification",
            use_cache=False,
        )
    )


def init_embeddings(
    model: MambaForSequenceClassification, tokenizer: PreTrainedTokenizerFast, words: list[str], vectors: Tensor
) -> None:
    """Start a token at the mean vector of the words that contain it, the frequent words counting more."""
    weight = model.get_input_embeddings().weight.data
    total, count = torch.zeros(weight.shape[0], vectors.shape[1]), torch.zeros(weight.shape[0], 1)
    for rank, ids in enumerate(tokenizer(words)["input_ids"]):
        total[ids] += vectors[rank] / (rank + 1)
        count[ids] += 1 / (rank + 1)
    known = count[:, 0] > 0
    size = min(weight.shape[1], vectors.shape[1])
    weight[known, :size] = (total / count)[known, :size] * (0.3 / vectors.std())


def pad_batch(rows: list[list[int]], value: int, device: str) -> Tensor:
    length = max(map(len, rows))
    return torch.tensor([row + [value] * (length - len(row)) for row in rows], device=device)


def embed(model: MambaForSequenceClassification, input_ids: Tensor, dropout: float) -> Tensor:
    return F.dropout(model.get_input_embeddings()(input_ids), dropout, model.training)


def save(model: MambaForSequenceClassification, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write the model and its tokenizer so that every transformers from 4.57 on loads them."""
    model.cpu().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    # transformers 5 writes its new name of the class, which 4.57 does not know; both know this one.
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["tokenizer_class"] = "PreTrainedTokenizerFast"
    for key in ("backend", "is_local", "local_files_only"):  # the last two say how the tokenizer was loaded
        config.pop(key, None)
    path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
