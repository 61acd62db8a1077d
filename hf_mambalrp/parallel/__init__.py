"""Whole datasets: explained by any number of processes, resumed where a run was killed, kept as Parquet."""

from hf_mambalrp.parallel.reading import load_explanations
from hf_mambalrp.parallel.runner import DatasetRun, explain_dataset

__all__ = ["DatasetRun", "explain_dataset", "load_explanations"]
