"""Occlusion: how far the score falls where tokens are replaced."""

import torch
from torch import Tensor

from hf_mambalrp.methods.copies import copies_together, reference, scores
from hf_mambalrp.methods.problem import Problem, Relevance
from hf_mambalrp.runs.checks import whole_number
from hf_mambalrp.runs.progress import patient_bar


def occlusion(
    problem: Problem,
    *,
    window: int = 1,
    baseline: str | int | Tensor = "zero",
    internal_batch_size: int | None = None,
) -> Relevance:
    """Occlusion (Zeiler and Fergus 2014, section 4.2) of attended tokens, one forward for every window.

    R_i = mean over the windows w that cover token i of score(x) - score(x with the tokens of w replaced); a window is
    ``window`` attended tokens in a row, and the next begins one token later, as captum's ``Occlusion`` with stride 1.
    A row shorter than the window is one window (captum refuses it). At the explained position "zero" always costs the
    whole score, unless a projection has a bias: norm and gate are 0 there, so that nothing passes.

    Args:
        problem: what is explained.
        window: tokens that are replaced together.
        baseline: what replaces them: "zero" for the zero embedding, a token id, or a tensor that broadcasts to
            (B, L, D).
        internal_batch_size: rows that run together, at least the batch; None is what memory allows.

    Raises:
        OptionError: an option's value is not allowed.
    """
    window, x = whole_number("window", window, 1), problem.embeddings
    replacement = reference(problem, baseline)
    attended = problem.mask.cpu() != 0
    place = attended.cumsum(1) - 1
    windows = (attended.sum(1) - window).clamp(min=0) + 1
    logits, (score,) = scores(problem, x[None])
    tokens, covering = (torch.zeros(attended.shape, dtype=torch.float32) for _ in range(2))
    together, total = copies_together(problem, internal_batch_size), int(windows.max())
    for first in patient_bar(range(0, total, together), "explain: occlusion", "batch"):
        start = torch.arange(first, min(first + together, total))[:, None, None]
        covered = attended & (start <= place) & (place < start + window) & (start < windows[:, None])
        _, occluded = scores(problem, torch.where(covered[..., None].to(x.device), replacement, x))
        tokens += ((score - occluded)[:, :, None] * covered).sum(0)
        covering += covered.sum(0)
    return Relevance(
        tokens / covering.clamp(min=1), score.float(), torch.zeros(len(tokens), dtype=torch.float32), None, logits[0]
    )
