"""Small Vision Mambas with weights that matter, for tests."""

import torch

from hf_mambalrp import VimConfig, VimForImageClassification

SIZES = {
    "image_size": 16,
    "patch_size": 4,
    "hidden_size": 12,
    "num_hidden_layers": 2,
    "state_size": 3,
    "num_labels": 5,
}
KINDS = {
    "vim": {},
    "vim, stride 2": {"stride": 2},
    "vim, odd grid": {"image_size": 12},
    "vim, not halved": {"divide_out": False},
    "videomamba": {"class_token": "first", "divide_out": False},
    "other sizes": {"conv_kernel": 3, "expand": 3, "time_step_rank": 2, "num_channels": 1, "layer_norm_epsilon": 1e-5},
    "mamba-r": {"class_token": "spread", "num_class_tokens": 4, "neck_reduction": 2},
    "mamba-r, no neck": {"class_token": "spread", "num_class_tokens": 3},
}
"""Options of :func:`small_vim`: every layout of class tokens, and what changes the forward."""


def small_vim(kind="vim", **options):
    """Its norms, skips, biases and decays are not those of a new model, so that each of them is seen."""
    config = VimConfig(**{**SIZES, **KINDS[kind], **options})
    model = VimForImageClassification(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("norm.weight", "norm_f.weight", "norm_neck.weight", ".D", ".D_b")):
                parameter.uniform_(0.5, 1.5)
            elif name.endswith("_log"):
                parameter.uniform_(-1, 1)
            elif "dt_proj" in name and name.endswith("bias"):
                parameter.uniform_(-2, 1)
            elif name.endswith(("bias", "cls_token", "pos_embed", "pos_embed_cls")):
                parameter.uniform_(-0.5, 0.5)
            else:
                parameter.uniform_(-1, 1).mul_(2 * parameter[0].numel() ** -0.5)
    return model


def pixels_for(model, batch=2, seed=0):
    config = model.config
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, config.num_channels, config.image_size, config.image_size, generator=generator)


def released(model):
    """Its weights under the released names."""
    return {name.removeprefix("vim."): value for name, value in model.state_dict().items()}
