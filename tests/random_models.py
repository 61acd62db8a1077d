"""Random models that are built once, and batches of random tokens. Nothing here imports the package."""

from __future__ import annotations

import copy
import io
import math
import pickle
from collections.abc import Callable, Iterable
from functools import cache, wraps
from typing import Any

import torch
from torch import Tensor


class Copies:
    """Copies of a model, read from its pickle: deepcopy looks at each of its thousand parts in Python."""

    def __init__(self, model: torch.nn.Module) -> None:
        self.tensors: dict[int, Tensor] = {}
        file = io.BytesIO()
        pickler = pickle.Pickler(file)
        pickler.persistent_id = self._placed  # type: ignore[method-assign]
        pickler.dump(model)
        self.pickled = file.getvalue()

    def _placed(self, value: object) -> int | None:
        if not isinstance(value, Tensor):
            return None
        self.tensors[id(value)] = value
        return id(value)

    def one(self) -> torch.nn.Module:
        memo: dict[int, object] = {}
        copies = {place: copy.deepcopy(tensor, memo) for place, tensor in self.tensors.items()}
        unpickler = pickle.Unpickler(io.BytesIO(self.pickled))
        unpickler.persistent_load = copies.__getitem__  # type: ignore[method-assign, assignment]
        model: torch.nn.Module = unpickler.load()
        return model


def copied(build: Callable[..., torch.nn.Module]) -> Callable[..., torch.nn.Module]:
    """Copies of what is built once for equal arguments: transformers takes much longer to build a tiny model."""
    once = cache(lambda *args, **options: Copies(build(*args, **options)))
    return wraps(build)(lambda *args, **options: once(*args, **options).one())


@copied
def random_model(
    *,
    model_type: str = "mamba",
    num_layers: int = 2,
    hidden_size: int = 8,
    state_size: int = 4,
    vocab_size: int = 19,
    expand: int = 2,
    conv_kernel: int = 4,
    time_step_rank: int = 2,
    mixer_rms_eps: float = 1e-2,
    head_dim: int = 4,
    n_groups: int = 1,
    chunk_size: int = 4,
    time_step_limit: tuple[float, float] = (0.0, math.inf),
    use_bias: bool = False,
    use_conv_bias: bool = True,
    zero_biases: bool = False,
    tie_word_embeddings: bool = False,
    eps: float = 1e-5,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
) -> torch.nn.Module:
    """A "mamba", "falcon_mamba" or "mamba2" language model whose every parameter is random and large enough to matter.

    Matrices N(0, 1 / fan_in) (0.2 to 0.35 at tiny sizes), embeddings N(0, 1), norms 1 + N(0, 0.3), biases N(0, 0.3),
    D 1 + N(0, 0.5), A_log log(1..N) + N(0, 0.3) (Mamba-2, one per head: log of uniform 1..16 + N(0, 0.3)),
    dt_proj.bias and Mamba-2's dt_bias the inverse softplus of log-uniform 0.001 .. 1. `zero_biases` zeroes the biases
    of the content path. Values depend on the seed, not on the dtype.

    Read by one family only: `mixer_rms_eps` (far above Hugging Face's 1e-6, to be told from `eps`) by Falcon-Mamba;
    `head_dim`, `n_groups`, `chunk_size` and `time_step_limit` by Mamba-2, which has hidden_size * expand / head_dim
    heads; `time_step_rank` by the other two.
    """
    import transformers

    families: dict[str, tuple[str, dict[str, Any]]] = {
        "mamba": ("Mamba", {"time_step_rank": time_step_rank}),
        "falcon_mamba": ("FalconMamba", {"time_step_rank": time_step_rank, "mixer_rms_eps": mixer_rms_eps}),
        "mamba2": (
            "Mamba2",
            {
                "num_heads": hidden_size * expand // head_dim,
                "head_dim": head_dim,
                "n_groups": n_groups,
                "chunk_size": chunk_size,
                "time_step_limit": time_step_limit,
            },
        ),
    }
    family, own = families[model_type]
    config = getattr(transformers, f"{family}Config")(
        vocab_size=vocab_size,
        hidden_size=hidden_size,
        state_size=state_size,
        num_hidden_layers=num_layers,
        expand=expand,
        conv_kernel=conv_kernel,
        use_bias=use_bias,
        use_conv_bias=use_conv_bias,
        layer_norm_epsilon=eps,
        tie_word_embeddings=tie_word_embeddings,
        pad_token_id=0,
        bos_token_id=0,
        eos_token_id=0,
        **own,
    )
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        model = getattr(transformers, f"{family}ForCausalLM")(config)

    def normal(shape: torch.Size, std: float = 1.0) -> Tensor:
        return std * torch.randn(shape, generator=generator, dtype=torch.float64)

    def uniform(shape: torch.Size) -> Tensor:
        return torch.rand(shape, generator=generator, dtype=torch.float64)

    model.to(dtype)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if name.endswith("embeddings.weight"):
                value = normal(p.shape)
            elif name.endswith(("norm.weight", "norm_f.weight")):
                value = 1 + normal(p.shape, 0.3)
            elif name.endswith("A_log"):
                rates = (
                    1 + 15 * uniform(p.shape) if model_type == "mamba2" else torch.arange(1.0, state_size + 1).double()
                )
                value = torch.log(rates) + normal(p.shape, 0.3)
            elif name.endswith("mixer.D"):
                value = 1 + normal(p.shape, 0.5)
            elif name.endswith(("dt_proj.bias", "dt_bias")):
                dt = torch.exp(uniform(p.shape) * math.log(1000.0) - math.log(1000.0))
                value = dt + torch.log(-torch.expm1(-dt))
            elif name.endswith("bias"):
                value = normal(p.shape, 0.0 if zero_biases else 0.3)
            else:
                value = normal(p.shape, p[0].numel() ** -0.5)
            p.copy_(value)
    return model.eval()


def tiny_mamba_weights(**options: Any) -> dict[str, Tensor]:
    """The float64 state dict of `random_model(**options)`."""
    return {name: value.double() for name, value in random_model(**options).state_dict().items()}


def padded_batch(
    lengths: Iterable[int], *, vocab_size: int = 19, side: str = "left", pad_id: int = 0, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Random `input_ids` and `attention_mask` (B, max(lengths)), padded on one side with `pad_id`."""
    lengths = list(lengths)
    generator = torch.Generator().manual_seed(seed)
    ids = torch.full((len(lengths), max(lengths)), pad_id)
    mask = torch.zeros_like(ids)
    for row, length in enumerate(lengths):
        span = slice(max(lengths) - length, None) if side == "left" else slice(0, length)
        ids[row, span] = torch.randint(1, vocab_size, (length,), generator=generator)
        mask[row, span] = 1
    return ids, mask
