"""One entry for softmax attention."""

from typing import NamedTuple

from torch import Tensor

from hf_mambalrp.ops.backend import Backend, chosen
from hf_mambalrp.rules import Rules
from hf_mambalrp.rules.attention import attend
from hf_mambalrp.rules.biases import BiasLedger

BACKENDS = {
    "reference": Backend("hf_mambalrp.ops.attention.reference", "attention_reference"),
    **dict.fromkeys(
        ("auto", "chunked", "compiled", "triton", "mamba_ssm"),
        Backend("hf_mambalrp.ops.attention.sdpa", "attention_sdpa"),
    ),
}
"""Names are those of the scans, so that one name chooses every op of a part; torch has kernels for every device."""


class Scores(NamedTuple):
    """What becomes of q k^T before the softmax."""

    scale: float
    """s, which it is multiplied with."""
    window: int | None = None
    """How many positions a query reads, itself the last of them; None is all up to itself."""
    softcap: float | None = None
    """c: scores x become c tanh(x / c)."""
    mask: Tensor | None = None
    """(B, Lk) of all keys, 0 where a key is not read; None where all are."""


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    past: tuple[Tensor, Tensor] | None,
    scores: Scores,
    *,
    rules: Rules,
    ledger: BiasLedger,
    backend: str = "auto",
) -> Tensor:
    """o_i = sum_j A_ij v_j, A_i the softmax over j <= i of the scores s q_i . k_j, under the rules of
    :mod:`hf_mambalrp.rules.attention`.

    Memory is linear in the length but for "reference": what is L x L is computed a block of queries at a time, in the
    backward again.

    Args:
        q: (B, L, H, P) queries.
        k: (B, L, K, P) keys; K divides H, and H / K consecutive heads share one.
        v: (B, L, K, P) values.
        past: keys and values (B, T, K, P) of the positions before these; None where there are none.
        scores: scale, window, softcap, mask of the T + L keys.
        rules: the rules that apply; of a softcap the identity rule, x [c tanh(x / c) / x].
        ledger: where what a softmax absorbs is recorded.
        backend: "reference" (the whole matrix); all others are torch's ``scaled_dot_product_attention``.

    Returns:
        (B, L, H, P) in the dtype of ``v``.

    Raises:
        BackendError: an unknown backend.
    """
    mixed = chosen(BACKENDS, backend, ())
    return attend(
        lambda *arguments: mixed(*arguments, scores=scores, rules=rules), (q, k, v, *(past or ())), rules, ledger
    )
