"""The place of Mamba classifiers in ``AutoModelForSequenceClassification``, which transformers leaves empty.

Importing the package fills it without loading torch or transformers: what is entered loads the classifiers when it is
read, and it is entered when transformers' module of Auto classes is loaded, before or after this package.
"""

import logging
import sys
from collections import UserDict
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

logger = logging.getLogger(__name__)

AUTO_CLASSES = "transformers.models.auto.modeling_auto"


class _UntilRead(UserDict[Any, Any]):
    """Stands where a mapping of transformers keeps registered classes, and enters ours when it is first read.

    So neither a circular import nor a load that nobody needs can come of filling the place while transformers is being
    imported. A class that transformers has, or that the caller registered, stays.
    """

    def __init__(self, mapping: Any) -> None:
        self._mapping, self._registered = mapping, mapping._extra_content

    @property
    def data(self) -> Any:  # type: ignore[override]
        """The registered classes, ours among them."""
        classes = getattr(import_module("hf_mambalrp.models.classification"), "CLASSIFIERS", None)
        if classes is not None:  # otherwise that module is being imported by what reads this
            for model_class in classes:
                if model_class.config_class.model_type not in self._mapping._model_mapping:
                    self._registered.setdefault(model_class.config_class, model_class)
            if self._mapping._extra_content is self:
                self._mapping._extra_content = self._registered
        return self._registered


class _Watched(Loader):
    """Loads a module as its own loader does, then fills the place."""

    def __init__(self, own: Any) -> None:
        self._own = own

    def create_module(self, spec: ModuleSpec) -> Any:
        """As the module's own loader."""
        return self._own.create_module(spec)

    def exec_module(self, module: Any) -> None:
        """As the module's own loader, which is all that the module keeps."""
        module.__spec__.loader = module.__loader__ = self._own
        self._own.exec_module(module)
        _fill(module)


class _Watch(MetaPathFinder):
    """Finds transformers' module of Auto classes where the finders behind this one find it."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Spec of that one module; None for every other."""
        if fullname != AUTO_CLASSES:
            return None
        for finder in sys.meta_path[sys.meta_path.index(self) + 1 :]:
            spec = finder.find_spec(fullname, path, target)
            if spec is not None:
                spec.loader = None if spec.loader is None else _Watched(spec.loader)
                return spec
        return None


_WATCH = _Watch()


def fill_when_loaded() -> None:
    """Fill the place: now where transformers' Auto classes are loaded, else as soon as they are."""
    if _WATCH not in sys.meta_path:
        sys.meta_path.insert(0, _WATCH)
    if AUTO_CLASSES in sys.modules:
        _fill(import_module(AUTO_CLASSES))  # which waits for another thread that is importing it


def _fill(module: Any) -> None:
    mapping: Any = getattr(module, "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING", None)
    if not hasattr(mapping, "_extra_content") or not hasattr(mapping, "_model_mapping"):
        logger.warning(
            "AutoModelForSequenceClassification of this release of transformers takes no Mamba classifiers; load them "
            "with MambaForSequenceClassification.from_pretrained, or with AutoMambaLRPForSequenceClassification."
        )
    elif not isinstance(mapping._extra_content, _UntilRead):
        mapping._extra_content = _UntilRead(mapping)
