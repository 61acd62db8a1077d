"""Sizes of a Vision Mamba, as ``config.json`` holds them."""

import math
from typing import Any

from transformers import PretrainedConfig

from hf_mambalrp.errors import OptionError

CLASS_TOKENS = ("middle", "first", "spread")
"""Where class tokens stand among the patches."""


class VimConfig(PretrainedConfig):
    """Configuration of :class:`VimModel` and :class:`VimForImageClassification`; the defaults are Vim-Tiny's.

    An image of (S, S) pixels becomes M = G^2 patches, G = (S - P) // stride + 1, in row-major order. Glossary: S
    ``image_size``, P ``patch_size``, D ``hidden_size``, N ``state_size``, K ``conv_kernel``, R ``time_step_rank``, E =
    ``expand`` D.

    Args:
        image_size: height and width in pixels.
        patch_size: height and width of a patch in pixels.
        stride: pixels from one patch to the next; None is ``patch_size``, and with less patches overlap.
        num_channels: of the image.
        hidden_size: width of the residual stream.
        num_hidden_layers: how many blocks.
        state_size: of each channel, in each direction.
        conv_kernel: width of the causal convolutions.
        expand: inner channels for each hidden one.
        time_step_rank: of the projection to step sizes; "auto" is ceil(D / 16).
        layer_norm_epsilon: of the RMSNorms.
        class_token: "middle" puts one class token before patch M // 2 (Vim), "first" before all patches (VideoMamba),
            "spread" puts ``num_class_tokens`` of them at even distances, with positions of their own (Mamba-R, which
            calls them registers).
        num_class_tokens: 1, or any number where they are spread.
        neck_reduction: spread class tokens are projected to D / ``neck_reduction`` each before they are read side by
            side; 1 is without this projection.
        divide_out: whether the sum of both directions is halved.
        initializer_range: standard deviation of new class tokens, positions and heads.
        **kwargs: as in every configuration of transformers: ``num_labels``, ``id2label``, ``problem_type`` and others.

    Raises:
        OptionError: a value that describes no model.

    Source: Zhu et al. 2024, Vision Mamba, section 3; Wang et al. 2024, Mamba-R, section 3; Li et al. 2024, VideoMamba.

    Example:
        >>> from hf_mambalrp import VimConfig
        >>> config = VimConfig(image_size=64, patch_size=8, hidden_size=32, num_hidden_layers=2)
        >>> config.num_patches, config.sequence_length, config.class_token_positions
        (64, 65, (32,))
    """

    model_type = "vim"

    def __init__(
        self,
        image_size: int = 224,
        patch_size: int = 16,
        stride: int | None = None,
        num_channels: int = 3,
        hidden_size: int = 192,
        num_hidden_layers: int = 24,
        state_size: int = 16,
        conv_kernel: int = 4,
        expand: int = 2,
        time_step_rank: int | str = "auto",
        layer_norm_epsilon: float = 1e-5,
        class_token: str = "middle",
        num_class_tokens: int = 1,
        neck_reduction: int = 1,
        divide_out: bool = True,
        initializer_range: float = 0.02,
        **kwargs: Any,
    ) -> None:
        self.image_size = image_size
        self.patch_size = patch_size
        self.stride = patch_size if stride is None else stride
        self.num_channels = num_channels
        self.hidden_size = hidden_size
        self.num_hidden_layers = num_hidden_layers
        self.state_size = state_size
        self.conv_kernel = conv_kernel
        self.expand = expand
        self.time_step_rank: Any = time_step_rank
        self.layer_norm_epsilon = layer_norm_epsilon
        self.class_token = class_token
        self.num_class_tokens = num_class_tokens
        self.neck_reduction = neck_reduction
        self.divide_out = divide_out
        self.initializer_range = initializer_range
        if time_step_rank == "auto" and type(hidden_size) is int:
            self.time_step_rank = math.ceil(hidden_size / 16)
        self.check()
        super().__init__(**kwargs)

    @property
    def intermediate_size(self) -> int:
        """E, the inner channels of a mixer."""
        return self.expand * self.hidden_size

    @property
    def grid_size(self) -> int:
        """G, patches in a row and in a column."""
        return self.grid(self.image_size, self.image_size)[0]

    @property
    def num_patches(self) -> int:
        """M = G^2."""
        return self.grid_size**2

    @property
    def sequence_length(self) -> int:
        """Patches and class tokens."""
        return self.num_patches + self.num_class_tokens

    @property
    def class_token_positions(self) -> tuple[int, ...]:
        """Positions of the class tokens in the sequence."""
        return self.class_positions(self.num_patches)

    @property
    def pooled_size(self) -> int:
        """Width of what the head reads."""
        return self.num_class_tokens * self.hidden_size // self.neck_reduction

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Patches in a column and in a row of an image of ``height`` and ``width`` pixels."""
        rows, columns = ((pixels - self.patch_size) // self.stride + 1 for pixels in (height, width))
        return rows, columns

    def class_positions(self, patches: int) -> tuple[int, ...]:
        """Positions of the class tokens among so many patches, in the sequence with them."""
        if self.class_token == "first":
            return (0,)
        if self.class_token == "middle":
            return (patches // 2,)
        between = patches // (self.num_class_tokens + 1)
        return tuple(between * (i + 1) + i for i in range(self.num_class_tokens))

    def check(self) -> None:
        """Raise for the first value that describes no model; values may be set after the configuration was made.

        Raises:
            OptionError: names the value, and what is allowed.

        Example:
            >>> from hf_mambalrp import VimConfig
            >>> VimConfig(hidden_size=32).check()
        """
        counts = "image_size patch_size stride num_channels hidden_size num_hidden_layers state_size conv_kernel "
        counts += "expand time_step_rank num_class_tokens neck_reduction"
        for name in counts.split():
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                auto = ', or "auto"' if name == "time_step_rank" else ""
                raise OptionError(f"VimConfig has {name}={value!r}. Give a whole number from 1 on{auto}.")
        for name in ("layer_norm_epsilon", "initializer_range"):
            value = getattr(self, name)
            if type(value) not in (int, float) or not 0 < value < math.inf:
                raise OptionError(f"VimConfig has {name}={value!r}. Give a number above 0.")
        if type(self.divide_out) is not bool:
            raise OptionError(f"VimConfig has divide_out={self.divide_out!r}. Give True or False.")
        if not self.stride <= self.patch_size <= self.image_size:
            raise OptionError(
                f"VimConfig has stride={self.stride}, patch_size={self.patch_size} and image_size={self.image_size}, "
                "so pixels lie in no patch, or no patch in the image. Give stride <= patch_size <= image_size."
            )
        if self.class_token not in CLASS_TOKENS:
            raise OptionError(f"VimConfig has class_token={self.class_token!r}. Choose one of {list(CLASS_TOKENS)}.")
        if self.class_token != "spread" and (self.num_class_tokens, self.neck_reduction) != (1, 1):
            raise OptionError(
                f"VimConfig has num_class_tokens={self.num_class_tokens} and neck_reduction={self.neck_reduction} with "
                f"class_token={self.class_token!r}, where there is one token and no neck. Give class_token='spread', "
                "or leave both at 1."
            )
        if self.num_class_tokens > self.num_patches:
            raise OptionError(
                f"VimConfig has num_class_tokens={self.num_class_tokens} among {self.num_patches} patches. Give at "
                "most one a patch."
            )
        if self.hidden_size % self.neck_reduction or self.num_class_tokens % self.neck_reduction:
            raise OptionError(
                f"VimConfig has neck_reduction={self.neck_reduction}, which does not divide hidden_size="
                f"{self.hidden_size} and num_class_tokens={self.num_class_tokens}. Give a divisor of both."
            )


CONFIGURATIONS = (VimConfig,)
"""What ``AutoConfig`` finds where transformers has no class of its own."""
