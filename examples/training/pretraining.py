"""Pre-training of the demo model: the next token, and at the end of every word its GloVe vector."""

import random

import torch
from fast_forward import backbone_forward
from model import Settings, embed, pad_batch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedTokenizerFast

from hf_mambalrp.models.classification import MambaForSequenceClassification


def rows_with_words(
    texts: list[str], tokenizer: PreTrainedTokenizerFast, words: list[str]
) -> list[tuple[list[int], list[int]]]:
    """Token ids of each text and, at the last token of each word, the word's number in ``words``; -1 elsewhere."""
    index = {word: number for number, word in enumerate(words)}
    rows = []
    encoded = tokenizer(texts)
    for row, text in enumerate(texts):
        offsets, word_of = encoded[row].offsets, encoded.word_ids(row)
        ends, start = [-1] * len(word_of), 0
        for token, word in enumerate(word_of):
            if token + 1 == len(word_of) or word_of[token + 1] != word:
                ends[token] = index.get(text[offsets[start][0] : offsets[token][1]].lower(), -1)
                start = token + 1
        rows.append((encoded["input_ids"][row], ends))
    return rows


def pretrain(
    model: MambaForSequenceClassification,
    tokenizer: PreTrainedTokenizerFast,
    texts: list[str],
    glove: tuple[list[str], Tensor],
    *,
    settings: Settings,
    device: str,
) -> None:
    """Train the backbone on half a batch of ``texts`` and half a batch of random word lists at a time."""
    words, vectors = glove
    table = F.normalize(vectors - vectors.mean(0), dim=-1).to(device)
    to_vector = nn.Linear(settings.hidden_size, table.shape[1]).to(device)
    rng = random.Random(settings.seed)
    parameters = [*model.parameters(), *to_vector.parameters()]
    optimizer = torch.optim.AdamW(parameters, settings.pretrain_lr, weight_decay=settings.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, settings.pretrain_lr, settings.pretrain_steps)
    half = settings.batch_size // 2
    text_rows = rows_with_words(texts, tokenizer, words)
    word_rows = rows_with_words(words, tokenizer, words)
    model.train()
    for _ in range(settings.pretrain_steps):
        batch = rng.sample(text_rows, min(half, len(text_rows)))
        lists = [rng.sample(word_rows, 10) for _ in range(half)]
        batch += [([i for ids, _ in rows for i in ids], [e for _, ends in rows for e in ends]) for rows in lists]
        ids = pad_batch([ids[:48] for ids, _ in batch], tokenizer.pad_token_id, device)
        target = pad_batch([ends[:48] for _, ends in batch], -1, device)

        hidden = backbone_forward(model.backbone, embed(model, ids, 0.1))
        read = len(batch) - half
        logits = hidden[:read, :-1] @ model.get_input_embeddings().weight.T
        loss = F.cross_entropy(logits.flatten(0, 1), ids[:read, 1:].flatten(), ignore_index=tokenizer.pad_token_id)
        at_end = target >= 0
        loss = loss + 2 * (1 - F.cosine_similarity(to_vector(hidden[at_end]), table[target[at_end]])).mean()
        step(loss, optimizer, schedule, parameters)


def step(
    loss: Tensor,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    parameters: list[nn.Parameter],
) -> None:
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(parameters, 1.0)
    optimizer.step()
    schedule.step()
