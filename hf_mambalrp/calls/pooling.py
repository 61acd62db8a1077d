"""Which position of every row a classifier reads: the one that its own forward pools, whoever wrote the classifier."""

import torch
from torch import Tensor

from hf_mambalrp.calls.inputs import Batch
from hf_mambalrp.errors import InputError, UnknownArchitectureError
from hf_mambalrp.families import Network
from hf_mambalrp.families.padding import last_attended


def pooled_positions(network: Network, batch: Batch) -> Tensor:
    """Position of each row that the classifier reads. Shape: (B,).

    A classifier of this package says it itself, and goes by the mask; those of transformers go by ids.

    Raises:
        InputError: a batch whose ends the classifier cannot tell, or takes for somewhere in the padding.
        UnknownArchitectureError: a classifier with a forward of its own.
    """
    own = getattr(network.model, "pooled_position", None)
    if own is not None:
        try:
            pooled = own(batch.input_ids, batch.attention_mask if batch.masked else None, len(batch))
        except ValueError as error:
            raise InputError(str(error)) from error
        return pooled if isinstance(pooled, Tensor) else _last_column(batch)
    if type(network.model).forward.__module__.partition(".")[0] != "transformers":
        raise UnknownArchitectureError(
            f"{type(network.model).__name__} has a forward of its own, so the position that it pools is not known. "
            "Load its checkpoint with AutoMambaLRPForSequenceClassification, or give the class a method "
            "pooled_position(input_ids, attention_mask, batch_size), as the classifiers of this package have."
        )
    return _by_pad_token(network, batch)


def _by_pad_token(network: Network, batch: Batch) -> Tensor:
    """The rule of transformers' own classifiers: the last token that is not ``config.pad_token_id``; the mask is not
    read. Without such an id, or of embeddings, the last column.
    """
    name, pad = type(network.model).__name__, network.config.pad_token_id
    told = f"config.pad_token_id, which is {pad}"
    remedy = "Set model.config.pad_token_id = tokenizer.pad_token_id, or explain every row without its padding."
    if pad is None and len(batch) > 1:
        raise InputError(f"{name} tells where rows end by {told}, and this batch has {len(batch)} of them. {remedy}")
    ids = batch.input_ids
    pooled = _last_column(batch) if ids is None or pad is None else last_attended(ids != pad)
    on_padding = (batch.attention_mask.gather(1, pooled[:, None])[:, 0] == 0).nonzero().flatten().tolist()
    if on_padding:
        row = on_padding[0]
        raise InputError(
            f"{name} tells where rows end by {told}{'' if ids is not None else ', and of embeddings not'}: "
            f"of row {row} it reads position {int(pooled[row])}, which is padding by the attention_mask. {remedy}"
        )
    return pooled


def _last_column(batch: Batch) -> Tensor:
    return torch.full((len(batch),), batch.attention_mask.shape[1] - 1)
