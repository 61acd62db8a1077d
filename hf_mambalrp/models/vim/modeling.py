"""Vision Mamba (Zhu et al. 2024) in the manner of transformers: the mixer of two directions, the model, the classifier.

Parameters are named as in the released checkpoints, behind ``vim.``. Glossary: B images, M patches, L positions in the
sequence (patches and class tokens), D hidden, E inner channels, N state, R step size rank, K conv width.
"""

import math
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPooling, ImageClassifierOutput

from hf_mambalrp.errors import InputError
from hf_mambalrp.models.vim.configuration import VimConfig
from hf_mambalrp.models.vim.positions import among_patches, apart, resized
from hf_mambalrp.ops.selective_scan import selective_scan

STEP_SIZES, SMALLEST_STEP = (1e-3, 0.1), 1e-4
"""Step sizes of a new model lie between the two, evenly in their logarithm, and never below the last."""


class VimRMSNorm(nn.Module):
    """w h / sqrt(mean_d h^2 + eps), in float32 at least, returned in the dtype of ``weight``."""

    def __init__(self, width: int, epsilon: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.variance_epsilon = epsilon

    def forward(self, hidden: Tensor) -> Tensor:
        """(..., width) -> (..., width)."""
        wide = hidden.to(torch.promote_types(hidden.dtype, torch.float32))
        normed = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.variance_epsilon)
        return (self.weight * normed).to(self.weight.dtype)


class VimMixer(nn.Module):
    """out_proj((f(x) + flip(f_b(flip(x)))) silu(z) [/ 2]),  x, z = in_proj(h);  f and f_b are the two directions.

    Each direction is convolution, SiLU and selective scan with weights of its own, those of the backward one with "_b".
    """

    def __init__(self, config: VimConfig) -> None:
        super().__init__()
        D, E, N, R = config.hidden_size, config.intermediate_size, config.state_size, config.time_step_rank
        self.divide_out = config.divide_out
        self.in_proj = nn.Linear(D, 2 * E, bias=False)
        self.out_proj = nn.Linear(E, D, bias=False)
        for direction in ("", "_b"):
            convolution = nn.Conv1d(E, E, config.conv_kernel, groups=E, padding=config.conv_kernel - 1)
            self.add_module(f"conv1d{direction}", convolution)
            self.add_module(f"x_proj{direction}", nn.Linear(E, R + 2 * N, bias=False))
            self.add_module(f"dt_proj{direction}", nn.Linear(R, E))
            self.register_parameter(f"A{direction}_log", nn.Parameter(torch.empty(E, N)))
            self.register_parameter(f"D{direction}", nn.Parameter(torch.empty(E)))

    def forward(self, hidden: Tensor) -> Tensor:
        """(B, L, D) -> (B, L, D)."""
        x, z = self.in_proj(hidden).chunk(2, -1)
        y = self._one_direction(x, "") + self._one_direction(x.flip(1), "_b").flip(1)
        y = y * F.silu(z)
        found: Tensor = self.out_proj(y / 2 if self.divide_out else y)
        return found

    def _one_direction(self, x: Tensor, direction: str) -> Tensor:
        """C_t h_t + D u_t,  h_t = exp(dt_t A) h_{t-1} + dt_t B_t u_t,  u = silu(conv(x)). (B, L, E) -> (B, L, E)."""
        conv1d, x_proj, dt_proj = (getattr(self, name + direction) for name in ("conv1d", "x_proj", "dt_proj"))
        A_log, D = getattr(self, f"A{direction}_log"), getattr(self, f"D{direction}")
        u = F.silu(conv1d(x.transpose(1, 2))[..., : x.shape[1]].transpose(1, 2))
        N = A_log.shape[1]
        delta, B, C = x_proj(u).split([dt_proj.in_features, N, N], -1)
        # The scan itself is in float32 at least, whatever the weights are in, as in the released kernels.
        wide = torch.promote_types(u.dtype, torch.float32)
        dt = F.softplus(dt_proj(delta).to(wide))
        u, B, C, A, D = (value.to(wide) for value in (u, B, C, -torch.exp(A_log.to(wide)), D))
        y, _ = selective_scan(u, dt, A, B, C)
        return torch.addcmul(y, u, D).to(x.dtype)


class VimLayer(GradientCheckpointingLayer):
    """h + mixer(norm(h)); the residual stream h is in float32 at least."""

    def __init__(self, config: VimConfig) -> None:
        super().__init__()
        self.norm = VimRMSNorm(config.hidden_size, config.layer_norm_epsilon)
        self.mixer = VimMixer(config)

    def forward(self, hidden: Tensor) -> Tensor:
        """(B, L, D) -> (B, L, D)."""
        after: Tensor = hidden + self.mixer(self.norm(hidden))
        return after


class VimPatchEmbedding(nn.Module):
    """Patches of an image as vectors, in row-major order."""

    def __init__(self, config: VimConfig) -> None:
        super().__init__()
        self.proj = nn.Conv2d(config.num_channels, config.hidden_size, config.patch_size, config.stride)

    def forward(self, pixel_values: Tensor) -> Tensor:
        """(B, channels, height, width) -> (B, M, D)."""
        patches: Tensor = self.proj(pixel_values).flatten(2).transpose(1, 2)
        return patches


class VimPreTrainedModel(PreTrainedModel):
    """What both models share with every model of transformers: loading, saving, initial weights."""

    config_class = VimConfig
    base_model_prefix = "vim"
    main_input_name = "pixel_values"
    input_modalities = ("image",)
    supports_gradient_checkpointing = True
    _no_split_modules: ClassVar = ["VimLayer"]

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Weights of a new model, as the released code draws them.

        Deviation: it leaves step sizes of the backward direction at softplus(0), where most of a state is gone after
        one position; here both directions begin alike.
        """
        std = self.config.initializer_range
        if isinstance(module, VimMixer):  # after its parts, so this is what they keep
            _init_mixer(module, self.config)
        elif isinstance(module, VimRMSNorm):
            _fill(module.weight, nn.init.ones_)
        elif isinstance(module, (nn.Conv2d, nn.Conv1d)):
            fan_in = module.weight[0].numel()
            if isinstance(module, nn.Conv2d):  # LeCun's, cut at two standard deviations
                _fill(module.weight, nn.init.trunc_normal_, std=fan_in**-0.5 / 0.87962566103423978)
                _fill(module.bias, nn.init.zeros_)
            else:
                _fill(module.weight, nn.init.uniform_, -(fan_in**-0.5), fan_in**-0.5)
                _fill(module.bias, nn.init.uniform_, -(fan_in**-0.5), fan_in**-0.5)
        elif isinstance(module, nn.Linear):
            _fill(module.weight, nn.init.trunc_normal_, std=std)
            _fill(module.bias, nn.init.zeros_)
        elif isinstance(module, VimModel):
            for parameter in (module.cls_token, module.pos_embed, getattr(module, "pos_embed_cls", None)):
                _fill(parameter, nn.init.trunc_normal_, std=std)


def _fill(parameter: Tensor | None, fill: Callable[..., Any], *args: Any, **options: Any) -> None:
    """Fill a parameter that was not loaded."""
    if parameter is not None and not getattr(parameter, "_is_hf_initialized", False):
        fill(parameter, *args, **options)


def _init_mixer(mixer: VimMixer, config: VimConfig) -> None:
    """Linear maps as torch draws them, out_proj smaller by sqrt(layers); A = -1 ... -N; step sizes as said above."""

    def uniform(parameter: Tensor, bound: float) -> None:
        _fill(parameter, nn.init.uniform_, -bound, bound)

    def step_sizes(bias: Tensor) -> None:
        low, high = map(math.log, STEP_SIZES)
        dt = torch.exp(torch.empty_like(bias, dtype=torch.float32).uniform_(low, high)).clamp(min=SMALLEST_STEP)
        bias.copy_(dt + torch.log(-torch.expm1(-dt)))  # softplus of it is dt

    D, E = config.hidden_size, config.intermediate_size
    uniform(mixer.in_proj.weight, D**-0.5)
    uniform(mixer.out_proj.weight, (E * config.num_hidden_layers) ** -0.5)
    for direction in ("", "_b"):
        uniform(mixer.get_parameter(f"x_proj{direction}.weight"), E**-0.5)
        uniform(mixer.get_parameter(f"dt_proj{direction}.weight"), config.time_step_rank**-0.5)
        _fill(mixer.get_parameter(f"dt_proj{direction}.bias"), step_sizes)
        _fill(
            mixer.get_parameter(f"A{direction}_log"),
            lambda A_log: A_log.copy_(torch.arange(1, A_log.shape[1] + 1, device=A_log.device).log()),
        )
        _fill(mixer.get_parameter(f"D{direction}"), nn.init.ones_)


class VimModel(VimPreTrainedModel):
    """Patches and class tokens through blocks of both directions; what a head reads is ``pooler_output``.

    Example:
        >>> import torch
        >>> from hf_mambalrp import VimConfig, VimModel
        >>> model = VimModel(VimConfig(image_size=16, patch_size=8, hidden_size=16, num_hidden_layers=2)).eval()
        >>> outputs = model(torch.zeros(1, 3, 16, 16))
        >>> outputs.last_hidden_state.shape, outputs.pooler_output.shape
        (torch.Size([1, 5, 16]), torch.Size([1, 16]))
    """

    def __init__(self, config: VimConfig) -> None:
        super().__init__(config)
        config.check()
        D, tokens = config.hidden_size, config.num_class_tokens
        spread = config.class_token == "spread"
        self.cls_token = nn.Parameter(torch.empty(1, tokens, D))
        self.pos_embed = nn.Parameter(torch.empty(1, config.num_patches + (0 if spread else 1), D))
        if spread:
            self.pos_embed_cls = nn.Parameter(torch.empty(1, tokens, D))
        self.patch_embed = VimPatchEmbedding(config)
        self.layers = nn.ModuleList([VimLayer(config) for _ in range(config.num_hidden_layers)])
        self.norm_f = VimRMSNorm(D, config.layer_norm_epsilon)
        if config.neck_reduction > 1:
            self.neck = nn.Linear(D, D // config.neck_reduction, bias=False)
            self.norm_neck = VimRMSNorm(config.pooled_size, config.layer_norm_epsilon)
        self.gradient_checkpointing = False
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """Return the patch embedding.

        Example:
            >>> from hf_mambalrp import VimConfig, VimModel
            >>> model = VimModel(VimConfig(hidden_size=16, num_hidden_layers=1))
            >>> model.get_input_embeddings() is model.patch_embed
            True
        """
        return self.patch_embed

    def embed(self, pixel_values: Tensor, interpolate_pos_encoding: bool = False) -> Tensor:
        """Return patches and class tokens with their positions, the input of the first block.

        Args:
            pixel_values: (B, num_channels, S, S).
            interpolate_pos_encoding: allow other heights and widths, for which positions are interpolated (bicubic);
                class tokens keep theirs.

        Returns:
            (B, L, D), in float32 at least.

        Raises:
            InputError: pixels of another shape than the model takes.

        Example:
            >>> import torch
            >>> from hf_mambalrp import VimConfig, VimModel
            >>> model = VimModel(VimConfig(image_size=16, patch_size=8, hidden_size=16, num_hidden_layers=2))
            >>> model.embed(torch.zeros(1, 3, 16, 16)).shape
            torch.Size([1, 5, 16])
            >>> model.embed(torch.zeros(1, 3, 24, 32), interpolate_pos_encoding=True).shape
            torch.Size([1, 13, 16])
        """
        self._check_pixels(pixel_values, interpolate_pos_encoding)
        patches = self.patch_embed(pixel_values.to(self.patch_embed.proj.weight.dtype))
        config, own_grid = self.config, (self.config.grid_size, self.config.grid_size)
        if config.class_token == "spread":
            of_patches, of_tokens = self.pos_embed[:], self.pos_embed_cls[:]
        else:
            of_patches, of_tokens = apart(self.pos_embed, config.class_token_positions)
        of_patches = resized(of_patches, own_grid, config.grid(*pixel_values.shape[-2:]))
        wide = torch.promote_types(patches.dtype, torch.float32)
        patches = patches.to(wide) + of_patches.to(patches.device, wide)
        tokens = (self.cls_token.to(wide) + of_tokens).to(patches).expand(len(patches), -1, -1)
        return among_patches(patches, tokens, config.class_positions(patches.shape[1]))

    def pool(self, last_hidden_state: Tensor) -> Tensor:
        """Return what the head reads: the class token, or spread ones through the neck, side by side.

        Args:
            last_hidden_state: (B, L, D), after the last norm.

        Returns:
            (B, ``config.pooled_size``).

        Example:
            >>> import torch
            >>> from hf_mambalrp import VimConfig, VimModel
            >>> model = VimModel(VimConfig(image_size=16, patch_size=8, hidden_size=16, num_hidden_layers=2))
            >>> states = torch.rand(1, 5, 16)
            >>> bool((model.pool(states) == states[:, 2]).all())
            True
        """
        length, count = last_hidden_state.shape[1], self.config.num_class_tokens
        tokens = last_hidden_state[:, self.config.class_positions(length - count)]
        if self.config.neck_reduction == 1:
            return tokens.flatten(1)
        pooled: Tensor = self.norm_neck(self.neck(tokens).flatten(1))
        return pooled

    def forward(
        self,
        pixel_values: Tensor | None = None,
        interpolate_pos_encoding: bool = False,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> tuple[Tensor, ...] | BaseModelOutputWithPooling:
        """Run the blocks on images.

        Args:
            pixel_values: (B, num_channels, S, S), as an image processor returns them.
            interpolate_pos_encoding: allow other heights and widths; see :meth:`embed`.
            output_hidden_states: also return the residual stream before the first block and after each.
            return_dict: False returns a tuple.

        Returns:
            ``BaseModelOutputWithPooling`` with ``last_hidden_state`` (B, L, D) after the last norm, ``pooler_output``
            (B, ``config.pooled_size``), what the head reads, and ``hidden_states``, num_hidden_layers + 1 times
            (B, L, D) in float32 at least, the last before the norm, as in transformers' vision models.

        Raises:
            InputError: pixels of another shape than the model takes.

        Example:
            >>> import torch
            >>> from hf_mambalrp import VimConfig, VimModel
            >>> model = VimModel(VimConfig(image_size=16, patch_size=8, hidden_size=16, num_hidden_layers=2))
            >>> len(model(torch.zeros(1, 3, 16, 16), output_hidden_states=True).hidden_states)
            3
        """
        if pixel_values is None:
            raise InputError(
                f"{type(self).__name__} was called without pixel_values. Pass what the image processor returns."
            )
        config = self.config
        shown = config.output_hidden_states if output_hidden_states is None else output_hidden_states
        hidden = self.embed(pixel_values, interpolate_pos_encoding)
        states: Any = (hidden,) if shown else None
        for layer in self.layers:
            hidden = layer(hidden)
            states = None if states is None else (*states, hidden)
        last = self.norm_f(hidden)
        outputs = BaseModelOutputWithPooling(
            last_hidden_state=last, pooler_output=self.pool(last), hidden_states=states
        )
        return outputs if _as_dict(return_dict, config) else outputs.to_tuple()

    def _check_pixels(self, pixel_values: Tensor, any_size: bool) -> None:
        config, shape = self.config, tuple(pixel_values.shape)
        size, smallest = config.image_size, config.patch_size
        if len(shape) != 4 or shape[1] != config.num_channels or 0 in shape:
            raise InputError(
                f"pixel_values have shape {shape}, and this model takes (images, {config.num_channels} channels, "
                "height, width). Pass what the image processor returns for a list of images."
            )
        if not any_size and shape[2:] != (size, size):
            raise InputError(
                f"pixel_values are {shape[2]} x {shape[3]} pixels, and this model was made for {size} x {size}. Let "
                "the image processor resize, or pass interpolate_pos_encoding=True."
            )
        if min(shape[2:]) < smallest:
            raise InputError(
                f"pixel_values are {shape[2]} x {shape[3]} pixels, less than a patch of {smallest} x {smallest}. "
                "Enlarge the image."
            )


class VimForImageClassification(VimPreTrainedModel):
    """Vision Mamba with a linear ``head`` on the class token; works with ``Trainer``, ``pipeline`` and AutoModel.

    Checkpoint layout: the released weights behind ``vim.``, and ``head.weight`` (num_labels, ``config.pooled_size``)
    with ``head.bias``.

    Example:
        >>> import torch
        >>> from hf_mambalrp import VimConfig, VimForImageClassification
        >>> config = VimConfig(image_size=16, patch_size=8, hidden_size=16, num_hidden_layers=2, num_labels=3)
        >>> model = VimForImageClassification(config).eval()
        >>> model(torch.zeros(1, 3, 16, 16)).logits.shape
        torch.Size([1, 3])
    """

    # Trainer then scales the loss for gradient accumulation itself, which is right for all three problem types.
    accepts_loss_kwargs = False

    def __init__(self, config: VimConfig) -> None:
        super().__init__(config)
        self.num_labels = config.num_labels
        self.vim = VimModel(config)
        self.head = nn.Linear(config.pooled_size, config.num_labels) if config.num_labels > 0 else nn.Identity()
        self.post_init()

    def forward(
        self,
        pixel_values: Tensor | None = None,
        labels: Tensor | None = None,
        interpolate_pos_encoding: bool = False,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> tuple[Tensor, ...] | ImageClassifierOutput:
        """Classify images.

        Args:
            pixel_values: (B, num_channels, S, S), as an image processor returns them.
            labels: (B,) class ids, (B,) or (B, num_labels) floats for regression, (B, num_labels) floats in [0, 1] for
                several labels an image; ``config.problem_type`` decides, as everywhere in transformers.
            interpolate_pos_encoding: allow other heights and widths; see :meth:`VimModel.embed`.
            output_hidden_states: also return the residual stream; see :meth:`VimModel.forward`.
            return_dict: False returns a tuple.

        Returns:
            ``ImageClassifierOutput`` with ``logits`` (B, num_labels), and ``loss`` where labels were given.

        Raises:
            InputError: pixels of another shape than the model takes.

        Example:
            >>> import torch
            >>> from hf_mambalrp import VimConfig, VimForImageClassification
            >>> config = VimConfig(image_size=16, patch_size=8, hidden_size=16, num_hidden_layers=2, num_labels=3)
            >>> model = VimForImageClassification(config)
            >>> model(torch.zeros(2, 3, 16, 16), labels=torch.tensor([0, 2])).loss.shape
            torch.Size([])
        """
        outputs = self.vim(pixel_values, interpolate_pos_encoding, output_hidden_states, return_dict=True)
        logits = self.head(outputs.pooler_output)
        loss = None if labels is None else self.loss_function(labels, logits, self.config)
        found = ImageClassifierOutput(loss=loss, logits=logits, hidden_states=outputs.hidden_states)
        return found if _as_dict(return_dict, self.config) else found.to_tuple()


def _as_dict(return_dict: bool | None, config: Any) -> bool:
    return bool(getattr(config, "return_dict", True) if return_dict is None else return_dict)
