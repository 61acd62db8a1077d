"""The one owner of what is known of a model: its network, the check of its forward, its tokenizer, its recordings.

It stands in the model itself, so it goes when the model goes, and a copy of the model, or one out of a pickle, begins
with an owner of its own.
"""

import threading
from typing import Any
from weakref import ref

import torch
from torch import nn

from hf_mambalrp.calls.forward_check import compare_forwards, ingredients
from hf_mambalrp.calls.glance import Glance
from hf_mambalrp.calls.inputs import Batch, TokenizerSource, prepare
from hf_mambalrp.calls.tokenizing import Place
from hf_mambalrp.families import FAMILIES, Network
from hf_mambalrp.families.modules import base_model, walk

OWNER = "_hf_mambalrp"
"""Where it stands in ``vars(model)``."""


class Subject:
    """What is explained: a model, seen by every call through this.

    A network is built anew when something that it reads was changed: a module, a hook, a setting, the dtype or device
    of a weight. What holds its numbers alone, such as weights, is read in every call.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model, self._lock = ref(model), threading.Lock()
        self._network: Network | None = None
        self._made_of: list[Any] = []
        self._weights: list[Any] = []
        self._checked: list[Any] = []
        self._glance: Glance | None = None
        self._place: Place | None = None

    @property
    def model(self) -> nn.Module:
        """The model, which the caller holds."""
        model = self._model()
        assert model is not None, "the model of this owner is gone"
        return model

    def is_of(self, model: nn.Module) -> bool:
        """Whether it is this model's own, not one that came along when ``vars(model)`` were copied."""
        return self._model() is model

    def network(self) -> Network:
        """The model through its family's table.

        Raises:
            UnknownArchitectureError: a model without rules.
        """
        with self._lock:
            if self._network is not None and self._glance is not None and self._glance.holds(self.model):
                return self._network
            modules = walk(self.model)
            made_of = ingredients(modules)
            weights = [(id(w), w.dtype, w.device) for m in modules for w in m._parameters.values() if w is not None]
            # Adapters of a parameter are added to it when the network is built, so that has to see their numbers.
            adapted = any(kind.__module__.startswith("peft.") for kind in set(map(type, modules)))
            if self._network is None or adapted or (made_of, weights) != (self._made_of, self._weights):
                self._network = Network(self.model, FAMILIES, weakly=True)
            self._made_of, self._weights = made_of, weights
            self._glance = None if adapted else Glance(self.model, modules, OWNER)
            return self._network

    def check_forward(self, network: Network) -> None:
        """Compare this package's forward with the model's own: once, and again when its forward may have changed.

        Raises:
            ForwardMismatchError: a layer or the logits differ by more than rounding explains.
        """
        made_of = self._made_of
        if self._checked == made_of:
            return
        with torch.no_grad():
            compare_forwards(self.model, network)
        self._checked = made_of

    def place(self) -> Place:
        """Where the model was loaded from. Asked for when it is loaded: a relative path is not the same ever after."""
        config: Any = base_model(self.model).config
        name = str(getattr(config, "_name_or_path", "") or "")
        if self._place is None or self._place.name != name:
            self._place = Place(name, getattr(config, "_commit_hash", None))
        return self._place

    def begin(self, call: str, tokenizer: Any) -> "Call":
        """What the call named ``call`` starts from; its tokenizer may be a source that calls share.

        InputError: a tokenizer that is none.
        """
        source = tokenizer if isinstance(tokenizer, TokenizerSource) else TokenizerSource(tokenizer, self.place())
        return Call(call, self, self.network(), source)

    def __deepcopy__(self, memo: dict[int, Any]) -> None:
        """A copy of the model gets its own."""

    def __reduce__(self) -> tuple[Any, tuple[()]]:
        """So does one out of a pickle: nothing of this is stored."""
        return _nothing, ()


class Call:
    """The prologue that all calls share: network and tokenizer, then the input, then the check of the forward."""

    def __init__(self, name: str, subject: Subject, network: Network, tokenizers: TokenizerSource) -> None:
        self.name, self.subject, self.network, self.tokenizers = name, subject, network, tokenizers

    def read(self, inputs: Any, input_ids: Any, attention_mask: Any, inputs_embeds: Any = None) -> Batch:
        """The input in one form; raises as :func:`prepare`."""
        return prepare(self.name, self.network, inputs, input_ids, attention_mask, inputs_embeds, self.tokenizers)

    def check_forward(self) -> None:
        """As :meth:`Subject.check_forward`."""
        self.subject.check_forward(self.network)


def subject_of(model: nn.Module) -> Subject:
    """The owner that stands in an explainable model, put there when it is first asked for."""
    own = vars(model)
    found: Subject | None = own.get(OWNER)
    if found is None or not found.is_of(model):
        found = own[OWNER] = Subject(model)
    return found


def _nothing() -> None:
    """What an owner is in a pickle."""
