"""The files of a run: a manifest, a shard for each finished window of rows, pieces of windows that are not finished.

Every file is written under another name and renamed, so that a process killed at any point leaves whole files only.
One run at a time: its main process holds a lock of the operating system, which ends with it however it ends.
"""

import hashlib
import json
import os
import re
import shutil
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from hf_mambalrp.errors import InputError
from hf_mambalrp.results.parquet import parquet, parquet_file
from hf_mambalrp.results.records import Record, write_records
from hf_mambalrp.runs.rows import Row
from hf_mambalrp.viz.wording import shorten, visible

FORMAT = 2
"""Version of the folder's layout and of its rows."""
SHARDS = "part-*.parquet"
DIGEST = b"rows_sha256"
"""Key of the metadata of a shard or piece: what the rows of its window were made of."""
SHARING_S = 60.0
"""Seconds after which a file of one machine is seen by the others; NFS caches what a folder holds for up to 60."""
VARYING = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|\d+""")
"""In a row's error, what is of this row alone."""
FIRST = 5
"""Ids in a reason."""
SAID = 200
"""Characters of a reason, or of an id in it, that are shown."""
ENDING_S = 5.0
"""Seconds in which a process that was killed gives up its lock."""


@dataclass(frozen=True)
class Begun:
    """How a run finds its folder."""

    name: str
    """Another one each time, by which processes tell that they see the same folder."""
    finished: frozenset[int]
    """Windows that have their shard."""
    rows: int | None
    """Of the dataset, where an earlier call has seen all of it."""
    on_error: str


@dataclass(frozen=True)
class Reason:
    """Why some rows were not explained."""

    error: str
    """Of the first of them: what differs in the others is a number or a name in it."""
    rows: int
    ids: tuple[str, ...]
    """Of the first few."""

    def __str__(self) -> str:
        """Return it as one line."""
        more = ", ..." if self.rows > len(self.ids) else ""
        said = shorten(visible(" ".join(self.error.split())), SAID)
        return f"{self.rows} x {said} (id {', '.join(visible(shorten(name, SAID)) for name in self.ids)}{more})"


class Store:
    """The output folder of a run, which any process may open."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.unfinished = self.folder / "unfinished"
        self.manifest = self.folder / "manifest.json"
        self._running = self.unfinished / "running"
        self._lock = FileLock(self.unfinished / "lock")

    def open(self, settings: Mapping[str, Any], on_error: str | None, default_on_error: str) -> Begun:
        """Begin a run, or go on with one of the same settings; until :meth:`release` no other run may.

        Args:
            settings: what the rows depend on.
            on_error: what to do with bad rows; None is what the run began with.
            default_on_error: what a run begins with.

        Raises:
            InputError: the folder has a run of other settings, or one that is at work, or files of something else.
        """
        earlier = self._earlier(settings)
        self.unfinished.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire(timeout=ENDING_S)
        except Timeout:
            raise InputError(
                f"Another run is at work in {self.folder}. Wait until it ends, or give another output folder."
            ) from None
        for left in (*self.unfinished.glob("process-*"), *self.unfinished.glob("working-*")):
            left.unlink()
        begun = Begun(
            name=uuid.uuid4().hex,
            finished=frozenset(int(path.stem.split("-")[1]) for path in self.folder.glob(SHARDS)),
            rows=earlier.get("rows"),
            on_error=on_error or earlier.get("on_error") or default_on_error,
        )
        new = {"format": FORMAT, "complete": False, "settings": dict(settings)}
        self._write_manifest({**(earlier or new), "on_error": begun.on_error})
        _atomically(self._running, lambda path: path.write_text(begun.name))
        return begun

    def _earlier(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """The manifest of a run to go on with; empty where there is none, or one that kept nothing."""
        if self.manifest.is_file():
            earlier: dict[str, Any] = json.loads(self.manifest.read_text(encoding="utf-8"))
            if not any(self.folder.glob(SHARDS)) and not any(self.unfinished.glob("window-*")):
                return {}
            if earlier.get("format") != FORMAT:
                raise InputError(f"{self.folder} was written in format {earlier.get('format')}; this is {FORMAT}.")
            names = sorted({*settings, *earlier["settings"]})
            differing = [name for name in names if settings.get(name) != earlier["settings"].get(name)]
            if differing:
                said = "; ".join(
                    f"{name} was {earlier['settings'].get(name)!r} and is now {settings.get(name)!r}"
                    for name in differing
                )
                raise InputError(f"{self.folder} holds another run: {said}. Give another output folder.")
            return earlier
        if self.folder.exists() and not self._only_begun():
            raise InputError(f"{self.folder} is not empty and holds no run to go on with. Give another output folder.")
        return {}

    def _only_begun(self) -> bool:
        """Whether the folder holds nothing, or what a run leaves that is killed before it wrote its manifest."""
        if not self.folder.is_dir():
            return False
        left = ("unfinished", "manifest.json.")
        return all(path.name.startswith(left) for path in self.folder.iterdir())

    def join(self, begun: Begun, process: int) -> None:
        """Wait until this process sees the run that the main one has begun, and say that it takes part.

        Raises:
            InputError: it does not, so the folder is not the same one.
        """
        deadline = time.monotonic() + SHARING_S
        while not self._running.is_file() or self._running.read_text() != begun.name:
            if time.monotonic() > deadline:
                raise InputError(
                    f"This process does not see what the main one wrote into {self.folder}. Give an output folder "
                    "that all machines share."
                )
            time.sleep(0.1)
        self._working(process).touch()

    def release(self) -> None:
        """Let other runs use the folder."""
        self._lock.release()

    def close(self, rows: int) -> list[Reason]:
        """Say in the manifest that the run is complete, remove what is no longer needed; returns why rows were skipped.

        Raises:
            InputError: the shards do not hold so many rows.
        """
        contents = json.loads(self.manifest.read_text(encoding="utf-8"))
        shards, skipped, held = [], [], 0
        for path in sorted(self.folder.glob(SHARDS)):
            records = parquet().read_table(path, columns=["index", "id", "error"]).to_pylist()
            shards.append({"file": path.name, "rows": len(records)})
            skipped += [record for record in records if record["error"]]
            held += len(records)
        if held != rows:
            raise InputError(
                f"{self.folder} holds {held} rows of a dataset of {rows}. Give the same dataset on every process, or "
                "another output folder."
            )
        self._write_manifest({**contents, "complete": True, "rows": rows, "skipped": skipped, "shards": shards})
        shutil.rmtree(self.unfinished, ignore_errors=True)
        for left in self.folder.glob("*.part"):  # of a process that was killed
            left.unlink()
        return reasons(skipped)

    def _write_manifest(self, contents: dict[str, Any]) -> None:
        text = json.dumps(contents, indent=1) + "\n"
        _atomically(self.manifest, lambda path: path.write_text(text, encoding="utf-8"))

    def shard(self, window: int) -> Path:
        """Where the rows of a window go."""
        return self.folder / f"part-{window:06d}.parquet"

    def pieces(self, window: int, rows: Sequence[Row]) -> dict[int, Record]:
        """Those of a window's rows that are done already, by their number in the dataset.

        Raises:
            InputError: they were made of other rows than these.
        """
        found: dict[int, Record] = {}
        for path in sorted(self._window(window).glob("piece-*.parquet")):
            self._check(path, rows)
            found.update((record["index"], record) for record in parquet().read_table(path).to_pylist())
        return found

    def add_piece(self, window: int, rows: Sequence[Row], records: Sequence[Record]) -> None:
        """Keep the records of some of a window's rows."""
        folder = self._window(window)
        folder.mkdir(parents=True, exist_ok=True)
        number = len(list(folder.glob("piece-*.parquet")))
        write(folder / f"piece-{number:05d}.parquet", records, {DIGEST: digest(rows)})

    def finish(self, window: int, rows: Sequence[Row], records: Mapping[int, Record]) -> None:
        """Write the shard of a window in the order of the input."""
        write(self.shard(window), [records[row.index] for row in rows], {DIGEST: digest(rows)})
        shutil.rmtree(self._window(window), ignore_errors=True)

    def check(self, window: int, rows: Sequence[Row]) -> None:
        """Raise :class:`InputError` where a finished window was made of other rows than these."""
        self._check(self.shard(window), rows)

    def _check(self, path: Path, rows: Sequence[Row]) -> None:
        with parquet_file(path) as file:
            if (file.schema_arrow.metadata or {}).get(DIGEST) != digest(rows):
                raise InputError(
                    f"Rows {rows[0].index} to {rows[-1].index} of the dataset are not those that {self.folder} was "
                    "made of. Give the same dataset, or another output folder."
                )

    def _window(self, window: int) -> Path:
        return self.unfinished / f"window-{window:06d}"

    def stop(self) -> None:
        """Ask every process to end; by removing a file, which a full disk allows too."""
        self._running.unlink(missing_ok=True)

    def stopped(self) -> bool:
        """Whether a process has asked to end."""
        return not self._running.exists()

    def report(self, process: int, rows: int) -> None:
        """Say how many rows a process is done with."""
        _atomically(self.unfinished / f"process-{process}", lambda path: path.write_text(str(rows)))

    def reported(self) -> int:
        """Rows that all processes are done with."""
        return sum(int(path.read_text()) for path in self.unfinished.glob("process-?*") if path.suffix != ".part")

    def end(self, process: int) -> None:
        """Say that a process has come to its end, with an error or without."""
        self._working(process).unlink(missing_ok=True)

    def working(self) -> bool:
        """Whether a process has not come to its end."""
        return any(self.unfinished.glob("working-*"))

    def _working(self, process: int) -> Path:
        return self.unfinished / f"working-{process}"


def reasons(skipped: Sequence[Record]) -> list[Reason]:
    """Skipped rows put together by their errors, whatever numbers and quoted names are in these; most rows first."""
    found: dict[str, list[Record]] = {}
    for record in skipped:
        found.setdefault(VARYING.sub("", record["error"]), []).append(record)
    ordered = sorted(found.values(), key=len, reverse=True)
    return [Reason(same[0]["error"], len(same), tuple(one["id"] for one in same[:FIRST])) for same in ordered]


def digest(rows: Sequence[Row]) -> bytes:
    """A fingerprint of what is explained in these rows."""
    content = [[row.id, row.text, row.target, row.contrast, row.error, dict(row.kept)] for row in rows]
    return hashlib.sha256(json.dumps(content, default=str).encode("utf-8", "surrogatepass")).hexdigest().encode()


def write(path: Path, records: Sequence[Record], metadata: Mapping[bytes, bytes] | None = None) -> None:
    """Write records as Parquet."""
    _atomically(path, lambda part: write_records(part, records, metadata))


def _atomically(path: Path, write: Callable[[Path], object]) -> None:
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        write(part)
        part.replace(path)
    except BaseException:  # a full disk, say: what was written of it would keep it full
        part.unlink(missing_ok=True)
        raise
