"""The models in the package by the names of their constants, which a shell and a JSON file can write."""

from hf_mambalrp import DEMO_LANGUAGE_MODEL, DEMO_MODEL, DEMO_VISION_MODEL

PACKAGED = {
    "DEMO_MODEL": DEMO_MODEL,
    "DEMO_LANGUAGE_MODEL": DEMO_LANGUAGE_MODEL,
    "DEMO_VISION_MODEL": DEMO_VISION_MODEL,
}


def folder_of(model: str) -> str:
    """The folder of a packaged model that is named by its constant; any other folder or Hub id as it is."""
    return PACKAGED.get(model, model)
