"""What chunks of positions hand on: the states of all parts forward, and their adjoints backward.

The state of a recurrent part has one size, and every border between chunks has its own. That of attention is what every
position appends to it, keys and values: there is one buffer for the whole text, a chunk reads what stands before it and
writes behind that, and the adjoints of what it reads are added up in a buffer of the same size.
"""

from torch import Tensor

from hf_mambalrp.families import Network
from hf_mambalrp.families.base import State


class States:
    """The states before every chunk of a text that has several."""

    def __init__(self, network: Network, like: Tensor, chunks: list[slice]) -> None:
        self.chunks = chunks
        self.appends = [part.appends for part in network.parts]
        self.borders: list[list[State]] = [network.initial_states(like)]
        """Before each chunk that was reached; of what appends the empty ones, whose numbers stand in :attr:`texts`."""
        self.texts: dict[int, State] = {}
        """By part: what all positions append, (B, L, ...)."""

    def add(self, behind: list[State]) -> None:
        """Take what the parts hand on behind the last chunk that was reached."""
        chunk = self.chunks[len(self.borders) - 1]
        for number, state in self._appended(behind):
            if number not in self.texts:
                self.texts[number] = _buffers(state, self.chunks[-1].stop)
            for buffer, new in zip(self.texts[number], state, strict=True):
                buffer[:, chunk] = new.detach()
        first = self.borders[0]
        both = zip(self.appends, behind, first, strict=True)
        self.borders.append([empty if appends else state for appends, state, empty in both])

    def before(self, index: int) -> list[State]:
        """The states before a chunk, as leaves of a graph."""
        start = self.chunks[index].start
        found = list(self.borders[index])
        for number, text in self.texts.items():
            found[number] = type(text)(*(buffer[:, :start] for buffer in text))
        return [type(state)(*(s.detach().requires_grad_() for s in state)) for state in found]

    def _appended(self, states: list[State]) -> list[tuple[int, State]]:
        return [(number, state) for number, state in enumerate(states) if self.appends[number]]


class Adjoints:
    """The adjoints of what chunks hand on, from the last chunk to the first."""

    def __init__(self, states: States) -> None:
        self.states = states
        self.found: list[State] | None = None
        """Before the chunk that was transposed last: of what appends those of the whole text up to it."""

    def behind(self, index: int) -> list[State] | None:
        """Of what a chunk hands on; None where there is no chunk behind it."""
        if self.found is None:
            return None
        chunk = self.states.chunks[index]
        return [
            type(state)(*(None if one is None else one[:, chunk] for one in state)) if appends else state
            for appends, state in zip(self.states.appends, self.found, strict=True)
        ]

    def take(self, before: list[State]) -> None:
        """Take those of the states before a chunk: the next ones, and of what appends a part of all sums."""
        found = self.found
        for number, appends in enumerate(self.states.appends):
            if appends and found is not None:
                for total, more in zip(found[number], before[number], strict=True):
                    if more is not None:
                        total[:, : more.shape[1]] += more
                before[number] = found[number]
        self.found = before


def _buffers(state: State, length: int) -> State:
    """Room for what all positions append."""
    return type(state)(*(new.new_empty(new.shape[0], length, *new.shape[2:]) for new in state))
