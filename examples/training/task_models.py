"""Small Mambas for the synthetic tasks: their sizes, their tokenizer, and a forward that trains fast on a CPU.

Transformers' forward without the CUDA kernels is a Python loop over tokens (Mamba-1), or builds a tensor of size
(B, L, Q, H, N) for chunks of Q tokens (Mamba-2). Here the scans are this package's, which are differentiable in every
argument. The tests compare both forwards and their gradients; the saved weights run in the stock classes.

Symbols as in the papers: B batch, L length, D hidden size, E inner width, N state size, H heads, P head width.
"""

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import (
    Mamba2Config,
    Mamba2ForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from hf_mambalrp.evaluation.tasks import BOS, PAD
from hf_mambalrp.ops.selective_scan import selective_scan
from hf_mambalrp.ops.ssd_scan import ssd_scan

FAMILIES = ("mamba", "mamba2")


def build_tokenizer(vocabulary: int) -> PreTrainedTokenizerFast:
    """Names the ids of the tasks, ``<bos> x1 x2 <sep>``, and reads such text, words between spaces."""
    special = ["<pad>", "<bos>", "<sep>", "<key>"]  # in the order of PAD, BOS, SEP, KEY
    names = special + [f"x{i + 1}" for i in range(vocabulary - len(special))]
    tokenizer = Tokenizer(WordLevel({name: i for i, name in enumerate(names)}))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<bos>",
        model_input_names=["input_ids", "attention_mask"],
        clean_up_tokenization_spaces=False,
    )


def build_model(family: str, vocabulary: int, hidden_size: int, layers: int) -> PreTrainedModel:
    """Return a model with fresh weights from torch's global generator."""
    common = {
        "vocab_size": vocabulary,
        "hidden_size": hidden_size,
        "num_hidden_layers": layers,
        "pad_token_id": PAD,
        "bos_token_id": BOS,
        "eos_token_id": PAD,
        "use_cache": False,
    }
    if family == "mamba":
        return MambaForCausalLM(MambaConfig(state_size=16, **common))
    head_dim = 16
    return Mamba2ForCausalLM(
        Mamba2Config(state_size=32, head_dim=head_dim, num_heads=2 * hidden_size // head_dim, n_groups=1, **common)
    )


def mamba_mixer(mixer: nn.Module, hidden: Tensor) -> Tensor:
    """One ``MambaMixer``. (B, L, D) -> (B, L, D)."""
    x, gate = mixer.in_proj(hidden).chunk(2, -1)
    x = causal_conv(mixer.conv1d, x)
    dt, B, C = mixer.x_proj(x).split([mixer.time_step_rank, mixer.ssm_state_size, mixer.ssm_state_size], -1)
    dt = F.softplus(mixer.dt_proj(dt))
    y, _ = selective_scan(x, dt, -mixer.A_log.exp(), B, C, backend="chunked")
    return mixer.out_proj((y + x * mixer.D) * F.silu(gate))


def mamba2_mixer(mixer: nn.Module, hidden: Tensor) -> Tensor:
    """One ``Mamba2Mixer`` with a single group. (B, L, D) -> (B, L, D)."""
    inner, state = mixer.intermediate_size, mixer.ssm_state_size
    gate, xBC, dt = mixer.in_proj(hidden).split([inner, mixer.conv_dim, mixer.num_heads], -1)
    x, B, C = causal_conv(mixer.conv1d, xBC).split([inner, state, state], -1)
    x = x.unflatten(-1, (mixer.num_heads, mixer.head_dim))  # (B, L, H, P)
    dt = F.softplus(dt + mixer.dt_bias)
    y, _ = ssd_scan(x, dt, -mixer.A_log.exp(), B[:, :, None], C[:, :, None], backend="chunked")
    return mixer.out_proj(mixer.norm((y + x * mixer.D[:, None]).flatten(2), gate))


def causal_conv(conv1d: nn.Module, x: Tensor) -> Tensor:
    """SiLU of the depthwise convolution, which pads by its width: the columns after the last token are cut off."""
    return F.silu(conv1d(x.transpose(1, 2))[..., : x.shape[1]].transpose(1, 2))


def logits_at(model: PreTrainedModel, input_ids: Tensor, positions: Tensor) -> Tensor:
    """Next-token logits at ``positions`` (B, T) of rows without padding. (B, T, V)."""
    mixer = mamba_mixer if model.config.model_type == "mamba" else mamba2_mixer
    hidden = model.get_input_embeddings()(input_ids)
    for block in model.backbone.layers:
        hidden = hidden + mixer(block.mixer, block.norm(hidden))
    rows = torch.arange(len(positions), device=positions.device)[:, None]
    return model.lm_head(model.backbone.norm_f(hidden[rows, positions]))
