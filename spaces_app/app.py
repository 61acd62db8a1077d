"""Start the Space: ``python app.py``."""

import os
from pathlib import Path

from hf_mambalrp.space.app import launch

if __name__ == "__main__":
    launch(Path(os.environ.get("SPACE_MODELS") or Path(__file__).with_name("models.json")))
