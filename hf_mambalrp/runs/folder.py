"""The folder of a run: what it depends on, what of it is finished, and that one run at a time is at work in it.

The manifest is written whole or not at all. The lock is one of the operating system, which ends with its process
however that ends.
"""

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

from filelock import FileLock, Timeout

from hf_mambalrp.errors import InputError
from hf_mambalrp.runs.files import write_text
from hf_mambalrp.runs.text import one_line

FORMAT = 2
"""Version of the folder's layout and of what is in its files."""
BEGUN = ("unfinished", "manifest.json.")
"""What a run leaves that is killed before it wrote its manifest."""
ENDING_S = 5.0
"""Seconds in which a process that was killed gives up its lock."""
SAID = 60
"""Characters of a setting in an error."""


class Folder:
    """The output folder of a run: ``manifest.json``, and ``unfinished``, which goes when the run is complete.

    Args:
        path: of a new folder, or that of a run to go on with.
        on_error: what to do with bad rows; None is what the run began with.
        restart: remove what is finished, and begin again.
    """

    call: ClassVar[str]
    """Name of the call whose run it is."""
    kept: ClassVar[tuple[str, ...]]
    """Patterns of the files and folders that hold finished work; where there is none, the folder binds nobody."""

    def __init__(self, path: str | Path, *, on_error: str | None = None, restart: bool = False) -> None:
        self.path, self.on_error, self._restart = Path(path), on_error, restart
        self.unfinished = self.path / "unfinished"
        self.manifest = self.path / "manifest.json"
        self._lock = FileLock(self.unfinished / "lock")

    def open(self, settings: Mapping[str, Any], default_on_error: str = "raise") -> dict[str, Any]:
        """Begin a run, or go on with one of the same settings; until :meth:`release` no other run may.

        Args:
            settings: what the finished work depends on, as JSON has it.
            default_on_error: what a run begins with.

        Returns:
            The manifest, with what :meth:`complete` was given where the run was complete.

        Raises:
            InputError: the folder has a run of other settings, or one that is at work, or files of something else.
        """
        settings = json.loads(json.dumps(settings))
        manifest = self._earlier(settings)
        self.unfinished.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire(timeout=ENDING_S)
        except Timeout:
            raise InputError(
                f"Another run is at work in {self.path}. Wait until it ends, or give another output folder."
            ) from None
        if self._restart:
            for finished in list(self._finished()):
                shutil.rmtree(finished) if finished.is_dir() else finished.unlink()
        if not manifest:
            manifest = {"call": self.call, "format": FORMAT, "complete": False, "settings": settings}
        manifest["on_error"] = self.on_error = self.on_error or manifest.get("on_error") or default_on_error
        self._write_manifest(manifest)
        return manifest

    def read_manifest(self) -> dict[str, Any]:
        """What stands in the manifest; empty where there is none. InputError: it is damaged."""
        if not self.manifest.is_file():
            return {}
        try:
            found = json.loads(self.manifest.read_text(encoding="utf-8"))
        except ValueError as error:
            raise InputError(f"{self.manifest} is damaged: {error}. Give another output folder.") from error
        return found if isinstance(found, dict) else {}

    def _earlier(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """The manifest of a run to go on with; empty where there is none, or one that kept nothing."""
        if self.path.exists() and not self.path.is_dir():
            raise InputError(f"{self.path} is a file, and a run needs a folder. Give another output folder.")
        earlier = self.read_manifest()
        strange = self.path.is_dir() and not all(path.name.startswith(BEGUN) for path in self.path.iterdir())
        if strange and earlier.get("call") != self.call:
            raise InputError(
                f"{self.path} is not empty and holds no run of {self.call} to go on with. Give another output folder."
            )
        if self._restart or not any(self._finished()):
            return {}
        if earlier["format"] != FORMAT:
            raise InputError(f"{self.path} was written in format {earlier['format']}; this is {FORMAT}.")
        before, now = dict(_flat(earlier["settings"])), dict(_flat(settings))
        differing = [name for name in {**now, **before} if before.get(name) != now.get(name)]
        if differing:
            was, now = ({name: one_line(repr(one.get(name)), SAID) for name in differing} for one in (before, now))
            said = "; ".join(f"{name} was {was[name]} and is now {now[name]}" for name in differing)
            raise InputError(
                f"{self.path} holds another run: {said}. Give another output folder, or restart (restart=True, "
                "--restart) to begin again in this one."
            )
        return earlier

    def _finished(self) -> Iterator[Path]:
        for pattern in self.kept:
            yield from self.path.glob(pattern)

    def release(self) -> None:
        """Let other runs use the folder."""
        self._lock.release()

    def complete(self, **contents: Any) -> None:
        """Say in the manifest that the run is complete, and what came of it; remove what is no longer needed."""
        self._write_manifest({**self.read_manifest(), "complete": True, **contents})
        shutil.rmtree(self.unfinished, ignore_errors=True)
        for left in self.path.glob("*.part"):  # of a process that was killed
            left.unlink()

    def _write_manifest(self, contents: Mapping[str, Any]) -> None:
        write_text(self.manifest, json.dumps(contents, indent=1) + "\n")


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Leaves of nested dictionaries by their dotted names."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _flat(inner, f"{name}.{key}" if name else key)
    else:
        yield name, value
