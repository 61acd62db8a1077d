"""Where a network keeps what was recorded of it."""

import threading
from collections import OrderedDict
from collections.abc import Hashable
from typing import Any


class Recordings:
    """What :mod:`hf_mambalrp.methods.graphs` has recorded of a network, by shape; the one used longest ago first."""

    def __init__(self, possible: bool) -> None:
        self.lock = threading.Lock()
        self.by_shape: OrderedDict[Hashable, Any] = OrderedDict()
        """None where a shape was seen once."""
        self.possible = possible
        """Whether its layers can be recorded: they are nothing but weights on one device."""

    def clear(self) -> None:
        """Let go of all and of their memory."""
        with self.lock:
            self.by_shape.clear()
