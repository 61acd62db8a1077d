"""Whether an explanation is right: perturbation tests, sanity checks, known evidence, human ratings."""

from hf_mambalrp.evaluation.faithfulness import evaluate_faithfulness
from hf_mambalrp.evaluation.images import ImageEvaluation, evaluate_image_explanations
from hf_mambalrp.evaluation.localisation import Localisation, localise
from hf_mambalrp.evaluation.result import Evaluation
from hf_mambalrp.evaluation.sanity import determinism, input_invariance, randomisation_test

__all__ = [
    "Evaluation",
    "ImageEvaluation",
    "Localisation",
    "determinism",
    "evaluate_faithfulness",
    "evaluate_image_explanations",
    "input_invariance",
    "localise",
    "randomisation_test",
]
