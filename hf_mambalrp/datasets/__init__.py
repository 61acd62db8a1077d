"""Whole datasets: explained by any number of processes, resumed where a run was killed, kept as Parquet."""

from hf_mambalrp.datasets.explaining import explain_dataset
from hf_mambalrp.datasets.reading import SkippedRow, load_explanations
from hf_mambalrp.datasets.runner import DatasetRun
from hf_mambalrp.datasets.sharing import push_explanations
from hf_mambalrp.runs.bad_rows import Reason

__all__ = ["DatasetRun", "Reason", "SkippedRow", "explain_dataset", "load_explanations", "push_explanations"]
