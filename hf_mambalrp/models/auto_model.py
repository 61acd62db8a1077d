"""The places of this package's models in transformers' Auto classes, which leave them empty.

They are Mamba's classifiers in ``AutoModelForSequenceClassification``, and Vision Mamba in ``AutoConfig``,
``AutoModel`` and ``AutoModelForImageClassification``. Importing the package fills them without loading torch or
transformers: what is entered loads the classes when it is read, and it is entered when transformers' modules of Auto
classes are loaded, before or after this package.
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
PLACES = {
    "transformers.models.auto.configuration_auto": {"CONFIG_MAPPING": ("models.vim.configuration", "CONFIGURATIONS")},
    AUTO_CLASSES: {
        "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING": ("models.classification", "CLASSIFIERS"),
        "MODEL_MAPPING": ("models.vim.modeling", "MODELS"),
        "MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING": ("models.vim.modeling", "CLASSIFIERS"),
    },
}
"""By module of transformers: its mappings, with the module of this package that names the classes for each."""


class _UntilRead(UserDict[Any, Any]):
    """Stands where a mapping of transformers keeps registered classes, and enters ours when it is first read.

    So neither a circular import nor a load that nobody needs can come of filling the place while transformers is being
    imported. A class that transformers has, or that the caller registered, stays.
    """

    def __init__(self, mapping: Any, module: str, name: str) -> None:
        self._mapping, self._registered = mapping, mapping._extra_content
        self._module, self._name = module, name

    @property
    def data(self) -> Any:  # type: ignore[override]
        """The registered classes, ours among them."""
        classes = getattr(import_module(f"hf_mambalrp.{self._module}"), self._name, None)
        if classes is not None:  # otherwise that module is being imported by what reads this
            for found in classes:
                config_class = getattr(found, "config_class", None)  # None of a configuration, which goes by its type
                model_type = (config_class or found).model_type
                if model_type not in _native(self._mapping):
                    self._registered.setdefault(config_class or model_type, found)
            if self._mapping._extra_content is self:
                self._mapping._extra_content = self._registered
        return self._registered


def _native(mapping: Any) -> Any:
    """What transformers itself has, by model type; None where a release keeps it otherwise."""
    return getattr(mapping, "_model_mapping", getattr(mapping, "_mapping", None))


class _Watched(Loader):
    """Loads a module as its own loader does, then fills its places."""

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
    """Finds transformers' modules of Auto classes where the finders behind this one find them."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Spec of such a module; None for every other."""
        if fullname not in PLACES:
            return None
        for finder in sys.meta_path[sys.meta_path.index(self) + 1 :]:
            spec = finder.find_spec(fullname, path, target)
            if spec is not None:
                spec.loader = None if spec.loader is None else _Watched(spec.loader)
                return spec
        return None


_WATCH = _Watch()


def fill_when_loaded() -> None:
    """Fill the places: now where transformers' Auto classes are loaded, else as soon as they are."""
    if _WATCH not in sys.meta_path:
        sys.meta_path.insert(0, _WATCH)
    for module in PLACES:
        if module in sys.modules:
            _fill(import_module(module))  # which waits for another thread that is importing it


def _fill(module: Any) -> None:
    for place, source in PLACES[module.__name__].items():
        mapping: Any = getattr(module, place, None)
        if not hasattr(mapping, "_extra_content") or _native(mapping) is None:
            logger.warning(
                f"{place} of this release of transformers takes no classes of hf_mambalrp. Load them by their own "
                "names, as MambaForSequenceClassification.from_pretrained, VimForImageClassification.from_pretrained "
                "or AutoMambaLRPForSequenceClassification.from_pretrained."
            )
        elif not isinstance(mapping._extra_content, _UntilRead):
            mapping._extra_content = _UntilRead(mapping, *source)
