"""Reading a saved result without knowing what it is: its file says so."""

from pathlib import Path

from hf_mambalrp.errors import InputError
from hf_mambalrp.results.audit import Audit
from hf_mambalrp.results.comparison import Comparison
from hf_mambalrp.results.explanation import Explanation
from hf_mambalrp.results.generation_explanation import GenerationExplanation
from hf_mambalrp.results.hidden_attention import HiddenAttention
from hf_mambalrp.results.image_explanation import ImageExplanation
from hf_mambalrp.results.parts import PartRelevance
from hf_mambalrp.results.serialization import read

Result = Comparison | Explanation | GenerationExplanation | HiddenAttention | ImageExplanation | PartRelevance
KINDS: dict[str, type[Result]] = {
    "Comparison": Comparison,
    "Explanation": Explanation,
    "GenerationExplanation": GenerationExplanation,
    "HiddenAttention": HiddenAttention,
    "ImageExplanation": ImageExplanation,
    "PartRelevance": PartRelevance,
}


def load(path: str | Path) -> Result | Audit:
    """Read what ``save`` of any result wrote, bit for bit: a directory, of an audit a file.

    A class's own ``load`` reads the same and refuses one of another kind.

    Raises:
        InputError: a missing or damaged directory, one that a newer version wrote, or something else than a result.

    Example:
        >>> from hf_mambalrp import DEMO_MODEL, AutoMambaLRPForSequenceClassification, load
        >>> model = AutoMambaLRPForSequenceClassification.from_pretrained(DEMO_MODEL)
        >>> model.explain("A dull film.").save("out/dull")
        >>> type(load("out/dull")).__name__
        'Explanation'
    """
    if Path(path).is_file():
        return Audit.load(path)
    data, tensors = read(path, "result")
    kind = data.get("class") if isinstance(data, dict) else None
    if kind not in [*KINDS]:
        raise InputError(
            f"{path} holds a saved {kind!r}, and this hf_mambalrp reads {', '.join(KINDS)}. "
            "If a newer one wrote it: pip install --upgrade hf_mambalrp"
        )
    return KINDS[kind]._from_fields(data, tensors)
