"""What one process or each of them does, so that all know the result and none waits for one that failed."""

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object

from hf_mambalrp.runs.shared_folder import SharedFolder

Result = TypeVar("Result")


def launched() -> PartialState:
    """The processes that were launched, and which of them this one is."""
    return PartialState(cpu=not torch.cuda.is_available())


def on_main(state: Any, action: Callable[[], Any]) -> Any:
    """The result of ``action``, done on the main process, on every process; its error too."""
    outcome: list[Any] = [None, None]
    if state.is_main_process:
        try:
            outcome[0] = action()
        except Exception as error:
            outcome[1] = error
    outcome = broadcast_object_list(outcome)
    if outcome[1] is not None:
        raise outcome[1]
    return outcome[0]


def everywhere(action: Callable[[], Result]) -> Result:
    """The result of ``action``. If it fails on any process all raise: their own error, or one that names it."""
    error = None
    try:
        result = action()
    except Exception as raised:
        error = raised
    failed = [problem for problem in gather_object([None if error is None else repr(error)]) if problem]
    if error is not None:
        raise error
    if failed:
        raise RuntimeError(f"Another process stopped: {failed[0]}")
    return result


def taking_part(
    state: Any, folder: SharedFolder, action: Callable[[], Result], waiting: Callable[[], object]
) -> Result:
    """The result of ``action``, when every process has come to its end; if it fails on any all raise."""
    result = everywhere(lambda: folder.work(state.process_index, action, waiting))
    if result is None:
        raise RuntimeError(f"The run was stopped: its files in {folder.unfinished} were removed.")
    return result
