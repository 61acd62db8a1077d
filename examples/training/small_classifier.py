"""A small Mamba classifier that learns texts of templates in seconds, for the examples of audits."""

import random
from collections.abc import Sequence
from typing import Any

import torch
from fast_forward import backbone_forward
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from torch.nn import functional as F
from transformers import MambaConfig, PreTrainedTokenizerFast

from hf_mambalrp import MambaForSequenceClassification, make_explainable

PAD, UNKNOWN = "<pad>", "<unk>"
LR = 1e-2


def build_tokenizer(texts: Sequence[str]) -> PreTrainedTokenizerFast:
    """A token a word, of the words of these texts."""
    words = sorted({word for text in texts for word in text.lower().split()})
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate([PAD, UNKNOWN, *words])}, unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=PAD, unk_token=UNKNOWN)


def trained(
    rows: Sequence[dict[str, str]], tokenizer: PreTrainedTokenizerFast, seed: int, *, epochs: int = 6, start: Any = None
) -> Any:
    """Return an explainable classifier of ``label`` by ``text``; of ``start``, a model, it goes on with its weights."""
    torch.manual_seed(seed)
    labels = sorted({row["label"] for row in rows})
    config = MambaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        state_size=2,
        expand=1,
        id2label=dict(enumerate(labels)),
        label2id={label: number for number, label in enumerate(labels)},
        pad_token_id=tokenizer.pad_token_id,
        use_cache=False,
    )
    model = MambaForSequenceClassification(config)
    if start is not None:
        model.load_state_dict(start.state_dict())
    classes = torch.tensor([labels.index(row["label"]) for row in rows])
    ids = tokenizer([row["text"] for row in rows])["input_ids"]
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR, weight_decay=0.05)
    steps = epochs * (len(ids) // 64)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LR, steps)
    draw = random.Random(seed)
    for _ in range(epochs):
        order = draw.sample(range(len(ids)), len(ids))
        for at in range(0, len(ids) - 63, 64):
            some = order[at : at + 64]
            last = torch.tensor([len(ids[row]) - 1 for row in some])
            batch = torch.nn.utils.rnn.pad_sequence([torch.tensor(ids[row]) for row in some], batch_first=True)
            embedded = F.dropout(model.get_input_embeddings()(batch), 0.2)
            hidden = backbone_forward(model.backbone, embedded)[torch.arange(64), last]
            loss = F.cross_entropy(model.score(hidden), classes[some])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return make_explainable(model.eval())


@torch.no_grad()
def accuracy(model: Any, tokenizer: PreTrainedTokenizerFast, rows: Sequence[dict[str, str]]) -> float:
    """Return the share of rows whose label the model predicts."""
    right = 0
    for at in range(0, len(rows), 256):
        some = rows[at : at + 256]
        ids = tokenizer([row["text"] for row in some])["input_ids"]
        last = torch.tensor([len(row) - 1 for row in ids])
        batch = torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in ids], batch_first=True)
        hidden = backbone_forward(model.backbone, model.get_input_embeddings()(batch))
        found = model.score(hidden[torch.arange(len(some)), last]).argmax(1).tolist()
        right += sum(model.config.id2label[one] == row["label"] for one, row in zip(found, some, strict=True))
    return right / len(rows)
