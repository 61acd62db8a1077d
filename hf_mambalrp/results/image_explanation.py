"""The result of ``explain`` for an image classifier: relevance per patch, what the model saw, where the score went."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor

from hf_mambalrp.errors import InputError
from hf_mambalrp.results.explanation import Conservation, given_or_none_given
from hf_mambalrp.results.image_document import grid, image_document, image_summary
from hf_mambalrp.results.image_figures import maps_of_layers, panels_of_rows, png_of_rows
from hf_mambalrp.results.serialization import Column, Rows, row_indices
from hf_mambalrp.results.shown import Shown
from hf_mambalrp.runs.checks import is_whole, one_of, whole_number
from hf_mambalrp.viz.document import Document
from hf_mambalrp.viz.picture import as_texts, from_texts, spread
from hf_mambalrp.viz.picture_places import Patch, strongest_patches

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ROUNDING = 1e-4
"""What float32 and half precision round off a sum, as a share of the sum of sizes."""


@dataclass(eq=False, repr=False)
class ImageExplanation(Shown, Rows):
    """Relevance of every patch of an image, and of the class tokens, for one score per row.

    ``relevance[b].sum() + class_relevance[b].sum() + biases[b] = score[b]`` for a conserving method; see
    :class:`Conservation`, whose ``relevance`` is the sum of the first two.

    Args:
        relevance: (B, rows, columns) float32 of the patches, in units of the score (logits).
        class_relevance: (B, T) float32 of the class tokens, which are in no place of the image; T registers for a model
            that spreads them over the patches.
        images: (B, H, W, 3) uint8, RGB, what the model saw: after the image processor, before normalisation.
        target: per row a class, None for a callable.
        target_text: per row the label's name or the callable's.
        contrast: like ``target``, or None; the score is then logit(target) - logit(contrast).
        contrast_text: like ``target_text``, or None.
        score: (B,) float32, logits.
        probability: (B,) float32, the model's probability of the target; None for a callable.
        method: name of the attribution method.
        conservation: where the score went.
        patch_size: pixels of a patch's side.
        stride: pixels from a patch to the next: cell (r, c) covers the pixels ``r * stride`` to ``r * stride +
            patch_size`` down, and likewise across.
        pixel_relevance: (B, H, W) float32, the relevance passed on through the patch embedding to every pixel; what its
            bias and the positions absorbed is ``relevance.sum() - pixel_relevance.sum()``. None without it.
        layer_relevance: (num_layers + 1, B, rows, columns) float32, after the embedding and after every block.
        layer_class_relevance: (num_layers + 1, B, T) float32; given with ``layer_relevance``.
        gamma: the gamma of the rule; 0 for methods without it.
        gamma_on: the operations that had it.
        sources: per row the name of the file that was explained, or None.
        model_id: repository or folder of the model.
        versions: package name to version.
        method_options: as in :class:`Explanation`, without ``gamma`` and ``gamma_on``, which are fields here.
        convergence_delta: (B,) float32, the sum of relevance less the score's difference from the baseline; None for
            methods without one.
        index: per row its number in the dataset that it comes from; None for a call of ``explain``.
        ids: per row its id there.
        columns: per row other columns of it, by name.

    Raises:
        InputError: fields disagree in shape or in their sum, or the patches do not fit on the image.
        NonFiniteRelevanceError: a number is NaN or infinite.

    Example:
        >>> from hf_mambalrp import DEMO_VISION_MODEL, VimLRPForImageClassification
        >>> model = VimLRPForImageClassification.from_pretrained(DEMO_VISION_MODEL)
        >>> ex = model.explain(f"{DEMO_VISION_MODEL}/scenes/pictures/bag.png")
        >>> ex
        ImageExplanation of 1 row: mambalrp on vision_demo, bag (score 7.649), 8 x 8 patches of 8 x 8 pixels
    """

    relevance: Tensor
    class_relevance: Tensor
    images: Tensor
    target: list[int | None]
    target_text: list[str]
    contrast: list[int | None] | None
    contrast_text: list[str] | None
    score: Tensor
    probability: Tensor | None
    method: str
    conservation: Conservation
    patch_size: int
    stride: int
    pixel_relevance: Tensor | None = None
    layer_relevance: Tensor | None = None
    layer_class_relevance: Tensor | None = None
    gamma: float = 0.0
    gamma_on: tuple[str, ...] = ()
    sources: list[str | None] | None = None
    model_id: str | None = None
    versions: dict[str, str] = field(default_factory=dict)
    method_options: dict[str, Any] = field(default_factory=dict)
    convergence_delta: Tensor | None = None
    index: list[int] | None = None
    ids: list[str] | None = None
    columns: list[dict[str, Any]] | None = None

    position: ClassVar[None] = None
    """A classifier has one prediction, as an :class:`Explanation` of one has it."""
    _columns: ClassVar[dict[str, Column]] = {
        "relevance": Column("BRC", torch.float32),
        "class_relevance": Column("BT", torch.float32),
        "images": Column("BHWK", torch.uint8),
        "target": Column("B"),
        "target_text": Column("B"),
        "contrast": Column("B", optional=True),
        "contrast_text": Column("B", optional=True),
        "score": Column("B", torch.float32),
        "probability": Column("B", torch.float32, optional=True),
        "conservation": Column("B"),
        "pixel_relevance": Column("BHW", torch.float32, optional=True),
        "layer_relevance": Column("NBRC", torch.float32, optional=True),
        "layer_class_relevance": Column("NBT", torch.float32, optional=True),
        "sources": Column("B", optional=True),
        "convergence_delta": Column("B", torch.float32, optional=True),
        "index": Column("B", optional=True),
        "ids": Column("B", optional=True),
        "columns": Column("B", optional=True),
    }
    _parts: ClassVar[dict[str, type[Rows]]] = {"conservation": Conservation}
    _encoders: ClassVar[dict[str, Callable[[Any], Any]]] = {"images": as_texts}
    _decoders: ClassVar[dict[str, Callable[[Any], Any]]] = {
        "images": from_texts,
        "gamma_on": tuple,
        "method_options": given_or_none_given,
    }

    def __post_init__(self) -> None:
        if isinstance(self.images, Tensor) and self.images.dtype != torch.uint8:
            raise InputError(
                f"images is of {self.images.dtype}; it must be uint8, (B, H, W, 3): what the model saw as RGB."
            )
        super().__post_init__()
        if self.images.shape[-1] != 3:
            raise InputError(
                f"images has shape {tuple(self.images.shape)}; its last dimension must be red, green and blue."
            )
        if (self.layer_relevance is None) != (self.layer_class_relevance is None):
            raise InputError(
                "layer_relevance is of patches, layer_class_relevance of class tokens: give both or neither."
            )
        self._check_grid()
        self._check_sum()

    def _check_grid(self) -> None:
        for name in ("patch_size", "stride"):
            if not is_whole(getattr(self, name), 1):
                raise InputError(
                    f"{name}={getattr(self, name)!r} is no number of pixels; give a whole number from 1 up."
                )
        needed = [self.stride * (cells - 1) + self.patch_size for cells in self.relevance.shape[1:]]
        pixels = list(self.images.shape[1:3])
        if needed[0] > pixels[0] or needed[1] > pixels[1]:
            raise InputError(
                f"{grid(self)} need an image of {needed[0]} x {needed[1]}; images are {pixels[0]} x {pixels[1]} pixels."
            )

    def _check_sum(self) -> None:
        parts = (self.relevance.flatten(1), self.class_relevance)
        found = sum(part.double().sum(1) for part in parts) - self.conservation.relevance
        size = sum(part.double().abs().sum(1) for part in parts)
        wrong = (found.abs() > ROUNDING * size).nonzero().flatten().tolist()
        if wrong:
            raise InputError(
                f"conservation.relevance of row {wrong[0]} is {self.conservation.relevance[wrong[0]].item():.6g}; it "
                "must be the sum of relevance and class_relevance there."
            )

    def __repr__(self) -> str:
        return image_summary(self)

    def document(self, *, rows: int | None = None) -> Document:
        """Return what every rendering shows of the first ``rows``, or of all.

        Example:
            >>> from hf_mambalrp import DEMO_VISION_MODEL, VimLRPForImageClassification
            >>> model = VimLRPForImageClassification.from_pretrained(DEMO_VISION_MODEL)
            >>> ex = model.explain(f"{DEMO_VISION_MODEL}/scenes/pictures/bag.png")
            >>> ex.document().sections[0].blocks[0]
            Heading(text='What speaks for bag?')
        """
        return image_document(self, rows)

    def heat(self, row: int = 0, *, size: Literal["pixel", "patch"] = "pixel") -> Tensor:
        """Return the relevance of a row's patches as a map of the image, float32, in units of the score.

        With ``size="pixel"`` it is (H, W): every patch, of p x p pixels and s apart, is spread evenly over its pixels,
        and a pixel has the sum over the patches that cover it:

            heat[y, x] = sum of relevance[r, c] / p²  over r, c with  r·s <= y < r·s + p  and  c·s <= x < c·s + p

        so that the map sums to ``relevance[row].sum()``; pixels that no patch covers have 0. It says no more than the
        patches do: ``pixel_relevance`` tells the pixels of a patch apart. With ``size="patch"`` it is the patches
        themselves, (rows, columns).

        Raises:
            IndexError: no such row.
            OptionError: another size.

        Example:
            >>> from hf_mambalrp import DEMO_VISION_MODEL, VimLRPForImageClassification
            >>> model = VimLRPForImageClassification.from_pretrained(DEMO_VISION_MODEL)
            >>> ex = model.explain(f"{DEMO_VISION_MODEL}/scenes/pictures/bag.png")
            >>> ex.heat().shape, ex.heat(size="patch").shape
            (torch.Size([64, 64]), torch.Size([8, 8]))
        """
        one_of("size", size, ("pixel", "patch"))
        patches = self.relevance[row_indices(row, len(self))[0]]
        if size == "patch":
            return patches
        return spread(patches, self.patch_size, self.stride, self.images.shape[1:3])

    def top(self, k: int = 10, row: int = 0, *, by: Literal["abs", "positive", "negative"] = "abs") -> list[Patch]:
        """Return at most ``k`` patches, strongest first, of either sign or of one. OptionError: k < 1, unknown ``by``.

        Example:
            >>> from hf_mambalrp import DEMO_VISION_MODEL, VimLRPForImageClassification
            >>> model = VimLRPForImageClassification.from_pretrained(DEMO_VISION_MODEL)
            >>> ex = model.explain(f"{DEMO_VISION_MODEL}/scenes/pictures/bag.png")
            >>> [patch.text for patch in ex.top(2)]
            ['row 3, column 4 (centre)', 'row 1, column 4 (top middle)']
        """
        whole_number("k", k, 1)
        signs = {"abs": 0, "positive": 1, "negative": -1}
        one_of("by", by, signs)
        patches = self.heat(row, size="patch")
        return [
            patch
            for patch in strongest_patches(patches, patches.numel())
            if by == "abs" or patch.relevance * signs[by] > 0
        ][:k]

    def plot(self, row: int | slice | list[int] = 0, *, per_layer: bool = False, ax: "Axes | None" = None) -> "Figure":
        """Draw the image, the map over it and the map alone, a line for every row; the colours have one scale a row.

        With ``pixel_relevance`` there is a fourth panel of it. With ``per_layer`` there is a map for the embedding and
        for every block, of one row, on one scale. ``ax`` draws the map over the image of one row into axes of your own.
        The figure belongs to the caller and is not registered with pyplot.

        Raises:
            MissingExtraError: matplotlib is not installed.
            InputError: ``per_layer`` without ``layer_relevance``.
            OptionError: ``ax`` or ``per_layer`` for several rows, or both.
            IndexError: no such row.

        Example:
            >>> from hf_mambalrp import DEMO_VISION_MODEL, VimLRPForImageClassification
            >>> model = VimLRPForImageClassification.from_pretrained(DEMO_VISION_MODEL)
            >>> ex = model.explain([f"{DEMO_VISION_MODEL}/scenes/pictures/{name}.png" for name in ("bag", "trouser")])
            >>> ex.plot([0, 1]).savefig("pictures.pdf")
        """
        return (maps_of_layers if per_layer else panels_of_rows)(self, row_indices(row, len(self)), ax)

    def save_png(self, path: str | Path, row: int | slice | list[int] = 0) -> None:
        """Write the image and the map over it, side by side and a line for every row, without matplotlib.

        Blue speaks for the target and striped red against it, full colour at the largest |relevance| of the row. Small
        images are enlarged by a whole number.

        Raises:
            MissingExtraError: Pillow is not installed.
            IndexError: no such row.

        Example:
            >>> from hf_mambalrp import DEMO_VISION_MODEL, VimLRPForImageClassification
            >>> model = VimLRPForImageClassification.from_pretrained(DEMO_VISION_MODEL)
            >>> ex = model.explain([f"{DEMO_VISION_MODEL}/scenes/pictures/{name}.png" for name in ("bag", "trouser")])
            >>> ex.save_png("picture.png", row=1)
        """
        Path(path).write_bytes(png_of_rows(self, row_indices(row, len(self))))

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool | None = None,
        token: str | bool | None = None,
        revision: str | None = None,
        create_pr: bool = False,
        commit_message: str | None = None,
    ) -> Any:
        """Push the rows as a dataset of Parquet whose images the Hub's viewer shows.

        The relevance of layers and pixels is not among them. They replace the explanations of an earlier push.
        ``load_explanations("user/name")`` reads them back, one row each. Arguments, result and errors are those of
        :func:`hf_mambalrp.push_explanations`.

        Example:
            >>> from hf_mambalrp import DEMO_VISION_MODEL, VimLRPForImageClassification
            >>> model = VimLRPForImageClassification.from_pretrained(DEMO_VISION_MODEL)
            >>> ex = model.explain(f"{DEMO_VISION_MODEL}/scenes/pictures/bag.png")
            >>> ex.push_to_hub("me/its-explanations")  # doctest: +SKIP
        """
        from hf_mambalrp.results.sharing import push_rows

        return push_rows(
            self,
            repo_id,
            private=private,
            token=token,
            revision=revision,
            create_pr=create_pr,
            commit_message=commit_message,
        )
