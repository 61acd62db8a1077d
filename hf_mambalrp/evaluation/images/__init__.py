"""Whether explanations of pictures are right: perturbation, masks of objects, two objects in one picture."""

from hf_mambalrp.evaluation.images.evaluate import evaluate_image_explanations
from hf_mambalrp.evaluation.images.result import ImageEvaluation

__all__ = ["ImageEvaluation", "evaluate_image_explanations"]
