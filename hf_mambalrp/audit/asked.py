"""What an audit is asked for, of texts and of images alike; and its result from what was found."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hf_mambalrp.audit.confirming import Tested
from hf_mambalrp.audit.grouping import groups_of
from hf_mambalrp.audit.scores import Named, Scored
from hf_mambalrp.audit.statistics import AUDIT
from hf_mambalrp.calls.origin import versions
from hf_mambalrp.datasets.together import launched
from hf_mambalrp.errors import OptionError
from hf_mambalrp.results.audit import Audit
from hf_mambalrp.results.audit_parts import Group
from hf_mambalrp.runs.checks import check_confidence, whole_number
from hf_mambalrp.runs.scipy_stats import stats


@dataclass(frozen=True)
class Asked:
    """The options that decide what is confirmed; :func:`hf_mambalrp.audit.audit` documents them.

    OptionError: one has a value that is not allowed. MissingExtraError: scipy is not installed.
    """

    label: str | None
    groups: str | None
    min_effect: float
    candidates: int
    ngrams: int
    min_texts: int
    max_texts: int
    confidence: float
    seed: int

    def __post_init__(self) -> None:
        for name in ("candidates", "ngrams", "min_texts", "max_texts"):
            whole_number(name, getattr(self, name), 1)
        whole_number("seed", self.seed, 0)
        check_confidence(self.confidence)
        effect = self.min_effect
        if isinstance(effect, bool) or not isinstance(effect, (int, float)) or not 0 <= effect < math.inf:
            raise OptionError(f"min_effect={effect!r} is not allowed; give a number from 0, such as 0.2.")
        stats(*AUDIT)

    @property
    def columns(self) -> list[str]:
        """Of the data, beside its inputs."""
        return [name for name in dict.fromkeys((self.label, self.groups)) if name is not None]

    def of_texts(self) -> dict[str, Any]:
        """As it stands in the result."""
        return asdict(self)

    def of_images(self, regions: Sequence[str], replacement: str) -> dict[str, Any]:
        """The same of images, which have no runs of words."""
        columns = {"label": self.label, "groups": self.groups}
        asked = {name: value for name, value in asdict(self).items() if name not in (*columns, "ngrams")}
        return {**columns, "regions": list(regions), "replacement": replacement, **asked}

    def result(self, of: Named, inputs: Scored, done: Tested, groups: Sequence[str] | None, **found: Any) -> Audit:
        """The result: classes, errors and groups of the inputs, what was confirmed, and what else was ``found``."""
        labelled = self.label is not None
        split: tuple[Group, ...] = ()
        small: tuple[str, ...] = ()
        if groups is not None:
            split, small = groups_of(of, inputs, groups, labelled, done.relied, self.confidence, self.min_texts)
        names = of.names
        wrong = sum(own != decided for own, decided in zip(inputs.classes, inputs.decisions.tolist(), strict=True))
        return Audit(
            **{
                "versions": versions(),
                "texts": len(inputs.texts),
                "classes": dict(sorted(Counter(names[number] for number in inputs.classes).items())),
                "errors": wrong if labelled else None,
                "candidates": done.candidates,
                "untested": done.untested,
                "groups": split,
                "small_groups": small,
                **found,
            }
        )


@contextmanager
def folder_for(output_dir: str | Path | None) -> Iterator[Path]:
    """Where an audit keeps its work; for None a folder for the time being. OptionError: several processes, and None."""
    if output_dir is not None:
        yield Path(output_dir)
        return
    if launched().num_processes > 1:
        raise OptionError("output_dir=None: several processes write into one folder. Give one that all of them share.")
    with TemporaryDirectory() as folder:
        yield Path(folder)
