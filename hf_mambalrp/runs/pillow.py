"""Pillow, which is optional: what reads and writes pictures asks for it here."""

from typing import Any

from hf_mambalrp.errors import MissingExtraError


def pillow() -> Any:
    """The module ``PIL.Image``. MissingExtraError: Pillow is not installed."""
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingExtraError('Pictures need Pillow: pip install "hf_mambalrp[vision]"') from error
    return Image
