"""Typed errors. Each message says what was given, what is allowed and what to do next.

Every error derives from :class:`MambaLRPError` and from the built-in exception a caller would expect,
so both ``except MambaLRPError`` and ``except ValueError`` work.
"""


class MambaLRPError(Exception):
    """Base class of every error this package raises on purpose.

    Example:
        >>> from hf_mambalrp import MambaLRPError, load
        >>> try:
        ...     load("no/such/folder")
        ... except MambaLRPError as error:
        ...     print(error)
        no/such/folder is no saved result: explanation.json is missing. save() writes both files.
    """


class UnknownArchitectureError(MambaLRPError, TypeError):
    """The model is of a family that no rule table describes; nothing is explained rather than something wrong."""


class InputError(MambaLRPError, ValueError):
    """The input cannot be explained: empty, all padding, of another shape or type, ids out of the vocabulary."""


class TargetError(MambaLRPError, ValueError):
    """The target or contrast names no class or token, names several, or has the wrong length."""


class OptionError(MambaLRPError, ValueError):
    """An option has a value that is not allowed: an unknown method, a chunk size below 1, a misspelt method option."""


class BackendError(MambaLRPError, RuntimeError):
    """The backend that was asked for is unknown or cannot run here; an explicit choice never falls back."""


class MissingHeadError(MambaLRPError, ValueError):
    """The checkpoint has no weights for the head, so an explanation would explain random numbers."""


class UnexpectedWeightsError(MambaLRPError, ValueError):
    """The checkpoint has weights that the class has no place for; dropped, another model would be explained."""


class CheckpointError(MambaLRPError, OSError):
    """The file of weights is missing, damaged, or holds something else than weights, such as code."""


class MissingExtraError(MambaLRPError, ImportError):
    """An optional package is needed; the message carries the install command."""


class MissingReleaseError(MambaLRPError, ImportError):
    """The installed transformers lacks the family; the message names the first release that has it."""


class MissingTokenizerError(MambaLRPError, ValueError):
    """Text was given, or token names are needed, and no tokenizer was passed or found beside the model."""


class ForwardMismatchError(MambaLRPError, RuntimeError):
    """Our forward of the model differs from the model's own, so its relevance would be that of another network."""


class DetachedLayerError(MambaLRPError, RuntimeError):
    """A layer's output does not depend on its input through differentiable operations: relevance would end there."""


class ConservationError(MambaLRPError, ArithmeticError):
    """Relevance was lost under rules that conserve it; the message names the layer. It is raised, never returned."""


class NonFiniteRelevanceError(MambaLRPError, FloatingPointError):
    """A relevance is NaN or infinite; the message names the layer. It is raised, never returned."""


class RowMemoryError(MambaLRPError, MemoryError):
    """A row of a dataset does not fit into memory, even alone; the message names it and its length."""


class WorkerError(MambaLRPError, RuntimeError):
    """A process ended before its work was done: killed, out of memory, or never begun."""


class HubError(MambaLRPError, OSError):
    """The Hub did not do what was asked; nothing was half-written, and the same call may be made again."""


class NotLoggedInError(HubError, PermissionError):
    """The Hub was asked without a token, or with one that it refuses."""


class RepositoryAccessError(HubError, PermissionError):
    """The repository is there, but the token does not allow what was asked."""


class MissingRepositoryError(HubError, FileNotFoundError):
    """There is no such repository, revision or file, or it is private and the token does not reach it."""


class OfflineError(HubError, ConnectionError):
    """``HF_HUB_OFFLINE`` is set, and what was asked is not in the cache."""


class HubConnectionError(HubError, ConnectionError):
    """The connection to the Hub cannot be made, or broke."""


class CardError(MambaLRPError, ValueError):
    """A ``README.md`` that was there cannot be extended: damaged front matter or markers, or not UTF-8."""
