"""What an image classifier gets from this package, its class or a loaded one, and the explainable classes."""

from typing import TYPE_CHECKING, Any

from torch import Tensor

from hf_mambalrp.attention import Direction, Kind, Reduce
from hf_mambalrp.calls.attend_image import attend_images
from hf_mambalrp.calls.explain import Options
from hf_mambalrp.calls.explain_image import GAMMA, GAMMA_ON, explain_images
from hf_mambalrp.calls.hidden_attention import Positions
from hf_mambalrp.calls.subject import subject_of
from hf_mambalrp.models.checkpoints import warn_of_random_weights
from hf_mambalrp.models.stock import StockMixin, module_of
from hf_mambalrp.models.vim.modeling import VimForImageClassification
from hf_mambalrp.models.vim.processor import image_processor
from hf_mambalrp.results.hidden_attention import HiddenAttention
from hf_mambalrp.results.image_explanation import ImageExplanation

if TYPE_CHECKING:
    from collections.abc import Iterable


class VisionLRPMixin(StockMixin):
    """Adds explanations to an image classifier's class; no ``__init__``, no weights of its own.

    List it before the model class, as :class:`MambaLRPMixin`.

    Example:
        >>> import torch
        >>> from hf_mambalrp import VimConfig, VimForImageClassification, VisionLRPMixin
        >>> class MyVim(VisionLRPMixin, VimForImageClassification): pass
        >>> model = MyVim(VimConfig(image_size=32, patch_size=8, hidden_size=16, num_hidden_layers=2))
        >>> model.explain(pixel_values=torch.rand(1, 3, 32, 32)).relevance.shape
        torch.Size([1, 4, 4])
    """

    def explain(
        self,
        images: Any = None,
        *,
        pixel_values: "Tensor | None" = None,
        processor: Any = None,
        target: Any = None,
        contrast: Any = None,
        method: str = "mambalrp",
        gamma: float = GAMMA,
        gamma_on: "str | Iterable[str]" = GAMMA_ON,
        per_layer: bool = False,
        backend: str = "auto",
        check_forward: bool = True,
        **method_options: Any,
    ) -> ImageExplanation:
        """Explain a prediction: which patches of a picture speak for the target, and which against it.

        Relevance of a patch is sum_d e_id * d(score)/d(e_id) over the hidden units d of what the first block reads of
        it, where the derivative is the modified gradient of the method's rules. Under MambaLRP (Rezaei Jafari et al.
        2024, section 4) the relevance of patches and class tokens and what additive biases absorb sum to the score;
        ``ImageExplanation.conservation`` shows it. Through the patch embedding, a linear map, it goes on to the pixels:
        the relevance of a pixel is the sum over its channels of value * modified gradient, of values as the model reads
        them, so that the mean colour of the image processor has none.

        The call is a pure function of model and arguments, as for texts.

        Args:
            images: a picture (of PIL, a path, an array, a tensor) or a list of them; see
                :func:`hf_mambalrp.calls.pictures.read_pictures`.
            pixel_values: (B, C, S, S) floats instead of pictures, as an image processor returns them.
            processor: the image processor; by default the one in the model's own repository or folder, else the one of
                the released evaluation.
            target: what is explained: None, the predicted class; an id; a label's name; a list or (B,) tensor with one
                a picture; a function of the logits (B, V) -> (B,).
            contrast: same forms; the score is then logit(target) - logit(contrast).
            method: as for texts; "latim" is not for models that read in both directions.
            gamma: of LRP-gamma for the methods with rules that take it, "mambalrp" and "expected_mambalrp", see
                :mod:`hf_mambalrp.rules.gamma`; 0 is LRP-0.
            gamma_on: "conv1d", "linear" or both.
            per_layer: also return relevance at the embedding and after every block.
            backend: as for texts.
            check_forward: before a model's first explanation, compare this package's forward with the model's own.
            **method_options: options of the method, which its function in :mod:`hf_mambalrp.methods` documents; the
                ``baseline`` of the methods that have one is "mean" (each picture's mean colour, the default),
                "black" or "blur".

        Returns:
            An :class:`ImageExplanation`: ``relevance`` (B, rows, columns) float32 on the CPU.

        Raises:
            InputError: no picture, or one that cannot be read; pixel values of another shape than the model takes.
            TargetError: a target out of range, unknown, ambiguous, or not one a picture.
            OptionError: an unknown method or method option, a gamma for a method without it; ``per_layer`` or a
                contrast for a method that has none.
            BackendError: a backend that is unknown or cannot run here.
            MissingExtraError: pictures without Pillow.
            ForwardMismatchError, ConservationError, NonFiniteRelevanceError: as for texts.

        Example:
            >>> import torch
            >>> from hf_mambalrp import VimConfig, VimLRPForImageClassification
            >>> sizes = dict(image_size=32, patch_size=8, hidden_size=16, num_hidden_layers=2)
            >>> model = VimLRPForImageClassification(VimConfig(**sizes))
            >>> ex = model.explain(pixel_values=torch.rand(1, 3, 32, 32))
            >>> ex.conservation.gap.abs().item() < 1e-5
            True
        """
        model: Any = self
        warn_of_random_weights(model)
        options = Options(method, per_layer, "auto", backend, method_options, check_forward)
        return explain_images(
            subject_of(module_of(self)),
            images,
            pixel_values=pixel_values,
            processor=processor,
            default_processor=lambda: image_processor(model.config),
            target=target,
            contrast=contrast,
            gamma=gamma,
            gamma_on=gamma_on,
            options=options,
        )

    def hidden_attention(
        self,
        images: Any = None,
        *,
        pixel_values: "Tensor | None" = None,
        processor: Any = None,
        layers: int | list[int] | None = None,
        reduce: Reduce = "mean",
        kind: Kind = "raw",
        direction: Direction = "both",
        positions: Positions = None,
        check_forward: bool = True,
        **extras: Any,
    ) -> HiddenAttention:
        """Return the hidden attention of the mixers: how much every position reads of every other one.

        Forward, alpha_ij = C_i (prod_{k=j+1..i} exp(dt_k A)) dt_j B_j per channel for j <= i (Ali, Zimerman and Wolf
        2025); backward the same of the positions in reverse order, for j >= i. Both are added up, halved
        where the mixer halves their sum, so that the matrix is that of the mixer as it is.

        Args:
            images, pixel_values, processor: as for :meth:`explain`.
            layers: numbers of layers, negative ones from the last; None for all.
            reduce: "mean" over channels, "none", or a function of a block of rows (B, E, R, L) -> (B, R, L), which is
                applied to each direction.
            kind: "raw", or "unified" with gate, SiLU and convolution (Zimerman, Ali and Wolf 2025).
            direction: "both", "forward" or "backward".
            positions: queries, in the sequence of patches and class tokens; None for all.
            check_forward: as for :meth:`explain`.
            **extras: none is known.

        Returns:
            A :class:`HiddenAttention`; its ``class_map`` is what the class token reads of every patch.

        Raises:
            InputError, MissingExtraError: as for :meth:`explain`.
            OptionError: layers, positions, a direction or a kind that there is not.

        Example:
            >>> import torch
            >>> from hf_mambalrp import VimConfig, VimLRPForImageClassification
            >>> sizes = dict(image_size=32, patch_size=8, hidden_size=16, num_hidden_layers=2)
            >>> model = VimLRPForImageClassification(VimConfig(**sizes))
            >>> attention = model.hidden_attention(pixel_values=torch.rand(1, 3, 32, 32))
            >>> attention.matrix.shape, attention.class_map().shape
            (torch.Size([2, 1, 17, 17]), torch.Size([4, 4]))
        """
        model: Any = self
        return attend_images(
            subject_of(module_of(self)),
            images,
            pixel_values=pixel_values,
            processor=processor,
            default_processor=lambda: image_processor(model.config),
            layers=layers,
            reduce=reduce,
            kind=kind,
            direction=direction,
            positions=positions,
            check_forward=check_forward,
            extras=extras,
        )


class VimLRPForImageClassification(VisionLRPMixin, VimForImageClassification):
    """``VimForImageClassification`` with ``explain``; loads and saves the same checkpoints.

    Example:
        >>> import torch
        >>> from hf_mambalrp import VimConfig, VimLRPForImageClassification
        >>> sizes = dict(image_size=32, patch_size=8, hidden_size=16, num_hidden_layers=2)
        >>> model = VimLRPForImageClassification(VimConfig(**sizes))
        >>> model.explain(pixel_values=torch.rand(1, 3, 32, 32)).relevance.shape
        torch.Size([1, 4, 4])
    """
