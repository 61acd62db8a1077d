"""The folder of a run that several processes take part in, of one machine or of several.

They tell each other by files what a collective operation, which gives up after some minutes, could not wait for.
"""

import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from hf_mambalrp.errors import InputError
from hf_mambalrp.runs.files import write_text
from hf_mambalrp.runs.folder import Folder

Result = TypeVar("Result")

SHARING_S = 60.0
"""Seconds after which a file of one machine is seen by the others; NFS caches what a folder holds for up to 60."""
POLL_S = 0.1
"""Seconds between looks at whether the other processes have ended."""


class SharedFolder(Folder):
    """The output folder of a run: the main process opens it and holds its lock, and every process joins."""

    @property
    def _running(self) -> Path:
        """A file that is there while nobody has asked to end."""
        return self.unfinished / "running"

    def announce(self) -> str:
        """Let the other processes :meth:`see` the run that this one opened, by a name that is another one each time."""
        for left in (*self.unfinished.glob("process-*"), *self.unfinished.glob("working-*")):
            left.unlink()
        name = uuid.uuid4().hex
        write_text(self._running, name)
        return name

    def see(self, name: str, process: int) -> None:
        """Wait until this process sees the run of that name, and say that it takes part.

        Raises:
            InputError: it does not, so the folder is not the same one.
        """
        deadline = time.monotonic() + SHARING_S
        while not self._running.is_file() or self._running.read_text() != name:
            if time.monotonic() > deadline:
                raise InputError(
                    f"This process does not see what the main one wrote into {self.path}. Give an output folder "
                    "that all machines share."
                )
            time.sleep(POLL_S)
        self._working(process).touch()

    def work(self, process: int, action: Callable[[], Result], waiting: Callable[[], object]) -> Result | None:
        """The result of ``action``, when all processes have come to their end; None where one has asked to end.

        An error of ``action`` asks the other processes to end. ``waiting`` is called now and then while they work.
        """
        try:
            result = action()
            stopped = self.stopped()
        except Exception:
            self.stop()
            raise
        finally:
            self._working(process).unlink(missing_ok=True)
        while any(self.unfinished.glob("working-*")):
            time.sleep(POLL_S)
            waiting()
        return None if stopped else result

    def stop(self) -> None:
        """Ask every process to end; by removing a file, which a full disk allows too."""
        self._running.unlink(missing_ok=True)

    def stopped(self) -> bool:
        """Whether a process has asked to end."""
        return not self._running.exists()

    def report(self, process: int, rows: int) -> None:
        """Say how many rows a process is done with."""
        write_text(self.unfinished / f"process-{process}", str(rows))

    def reported(self) -> int:
        """Rows that all processes are done with."""
        return sum(int(path.read_text()) for path in self.unfinished.glob("process-?*") if path.suffix != ".part")

    def _working(self, process: int) -> Path:
        return self.unfinished / f"working-{process}"


class SharedBar:
    """How far this process is, which the others are told, and on the main one a bar of how far all are."""

    def __init__(self, folder: SharedFolder, process: int, bar: Any) -> None:
        self._folder, self._process, self._bar = folder, process, bar
        self._done = self._shown = 0

    def advance(self, amount: int = 0) -> None:
        """Count rows that this process is done with; of none only look at the others."""
        self._done += amount
        if amount:
            self._folder.report(self._process, self._done)
        if self._process == 0:
            reported = self._folder.reported()
            self._bar.update(reported - self._shown)  # a bar that is switched off counts nothing itself
            self._shown = reported
