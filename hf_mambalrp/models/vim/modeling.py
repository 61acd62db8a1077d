"""Vision Mamba (Zhu et al. 2024) in the manner of transformers: the model and the image classifier.

Parameters are named as in the released checkpoints, behind ``vim.``. Glossary: B images, M patches, L positions in the
sequence (patches and class tokens), D hidden.
"""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling, ImageClassifierOutput

from hf_mambalrp.errors import InputError
from hf_mambalrp.models.vim.configuration import VimConfig
from hf_mambalrp.models.vim.initial import fill, init_part
from hf_mambalrp.models.vim.parts import VimLayer, VimPatchEmbedding, VimRMSNorm
from hf_mambalrp.models.vim.positions import among_patches, apart, resized
from hf_mambalrp.models.vim.released import load


class VimPreTrainedModel(PreTrainedModel):
    """What both models share with every model of transformers: loading, saving, initial weights."""

    config_class = VimConfig
    base_model_prefix = "vim"
    main_input_name = "pixel_values"
    input_modalities = ("image",)
    supports_gradient_checkpointing = True
    _no_split_modules: ClassVar = ["VimLayer"]

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """Load as every transformers model does; released checkpoints of Vim, Mamba-R and VideoMamba load as well.

        These are a ``.pth`` file, a folder with one, or a file of a repository, written owner/name/file.pth. What such
        a file does not say is taken from settings of :class:`VimConfig` that are passed: ``stride``, ``class_token``,
        ``divide_out``. With another ``image_size`` than the trained one, positions are interpolated.
        ``weights="model_ema"`` takes the moving average of the weights, which Vim's files also have.

        Raises:
            UnknownArchitectureError: a released checkpoint of another network; says what does not fit.
            OptionError: a setting that the released checkpoint lacks, or contradicts.
            CheckpointError: no such file, a damaged one, or one that holds more than weights and settings.

        Example:
            >>> from hf_mambalrp import VimConfig, VimForImageClassification
            >>> config = VimConfig(image_size=16, patch_size=8, hidden_size=16, num_hidden_layers=2)
            >>> VimForImageClassification(config).save_pretrained("tiny-vim")
            >>> VimForImageClassification.from_pretrained("tiny-vim").config.num_patches
            4
        """
        asked = kwargs.pop("output_loading_info", False)
        found = load(super().from_pretrained, cls, pretrained_model_name_or_path, *args, **kwargs)
        if found is None:
            return super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs, output_loading_info=asked)
        return found if asked else found[0]

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Weights of a new model; see :func:`init_part`."""
        if isinstance(module, VimModel):
            for parameter in (module.cls_token, module.pos_embed, getattr(module, "pos_embed_cls", None)):
                fill(parameter, nn.init.trunc_normal_, std=self.config.initializer_range)
        else:
            init_part(module, self.config)


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


MODELS = (VimModel,)
"""What ``AutoModel`` finds where transformers has no class of its own."""
CLASSIFIERS = (VimForImageClassification,)
"""Likewise, ``AutoModelForImageClassification``."""
