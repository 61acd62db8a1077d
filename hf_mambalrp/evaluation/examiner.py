"""What an evaluation needs of one model to work on one example after another, in this process or in several."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import nn

from hf_mambalrp.calls.origin import model_id, versions
from hf_mambalrp.calls.subject import Subject
from hf_mambalrp.evaluation.journal import Journal
from hf_mambalrp.runs.progress import progress_bar
from hf_mambalrp.runs.workers import examined


class Examiner(ABC):
    """One model and its settings; it is copied to every process by pickle, which looks at the model itself."""

    unit: ClassVar[str]
    """What an example is called."""
    settings: Any
    weights: str
    """The model's fingerprint."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.look()

    def look(self) -> None:
        """Look at the model."""
        self.subject = Subject(self.model)

    @abstractmethod
    def examine(self, example: Any) -> dict[str, Any]:
        """Explain one example by every method, and measure; plain JSON types."""

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in ("subject", "output")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self.look()

    def about(self) -> dict[str, Any]:
        """What was evaluated, as it stands in the results."""
        return {
            "model": model_id(self.subject.network()),
            "weights": self.weights,
            "versions": versions(),
            "settings": self.settings.to_dict(),
        }

    def records(
        self, examples: Sequence[Any], processes: int, journal: Journal | None, *, progress: bool
    ) -> list[dict[str, Any]]:
        """The records of all examples: those that the journal has, and the others, which it is given as they come."""
        records = [] if journal is None else journal.records()
        done, total = len(records), len(examples)
        with examined(self.examine, examples[done:], processes, self._gpus()) as found:
            for record in progress_bar(
                found, shown=progress, desc="evaluate", unit=self.unit, initial=done, total=total
            ):
                records.append(record)
                if journal is not None:
                    journal.append(record)
        return records

    def _gpus(self) -> list[int]:
        """All of the machine from the model's own on; none where the model is elsewhere, or spread over several."""
        devices = {parameter.device for parameter in self.model.parameters()}
        placed = any(hasattr(module, "_hf_hook") for module in self.model.modules())
        if placed or {device.type for device in devices} != {"cuda"} or len(devices) > 1:
            return []
        own, count = devices.pop().index, torch.cuda.device_count()
        return [(own + number) % count for number in range(count)]
