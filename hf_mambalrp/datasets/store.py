"""The files of a run: a shard for each finished window of rows, pieces of windows that are not finished.

Every file is written whole or not at all. Any process may open the folder; the main one holds its lock.
"""

import shutil
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hf_mambalrp.errors import InputError
from hf_mambalrp.results.records import write_table
from hf_mambalrp.runs.bad_rows import Reason, reasons
from hf_mambalrp.runs.files import atomically, write_text
from hf_mambalrp.runs.folder import Folder
from hf_mambalrp.runs.parquet import parquet, parquet_file
from hf_mambalrp.runs.rows import Row, digest

SHARDS = "part-*.parquet"
DIGEST = b"rows_sha256"
"""Key of the metadata of a shard or piece: what the rows of its window were made of."""
SHARING_S = 60.0
"""Seconds after which a file of one machine is seen by the others; NFS caches what a folder holds for up to 60."""


@dataclass(frozen=True)
class Begun:
    """How a run finds its folder."""

    name: str
    """Another one each time, by which processes tell that they see the same folder."""
    finished: frozenset[int]
    """Windows that have their shard."""
    rows: int | None
    """Number of rows in the dataset, where an earlier call has seen all of it."""
    on_error: str


class Store(Folder):
    """The output folder of ``explain_dataset``."""

    call = "explain_dataset"
    kept = (SHARDS, "unfinished/window-*")

    @property
    def _running(self) -> Path:
        """A file that is there while nobody has asked to end."""
        return self.unfinished / "running"

    def named(self, names: Iterable[str]) -> list[Path]:
        """The files that the manifest of a complete run names. InputError: some are not there."""
        shards = [self.path / name for name in names]
        missing = [shard.name for shard in shards if not shard.is_file()]
        if missing:
            raise InputError(f"{str(self.path)!r} lacks {missing}, which its manifest names.")
        return shards

    def begin(self, settings: Mapping[str, Any], default_on_error: str) -> Begun:
        """Open the folder, and let the other processes :meth:`join`."""
        manifest = self.open(settings, default_on_error)
        for left in (*self.unfinished.glob("process-*"), *self.unfinished.glob("working-*")):
            left.unlink()
        finished = frozenset(int(path.stem.split("-")[1]) for path in self.path.glob(SHARDS))
        begun = Begun(uuid.uuid4().hex, finished, manifest.get("rows"), manifest["on_error"])
        write_text(self._running, begun.name)
        return begun

    def join(self, begun: Begun, process: int) -> None:
        """Wait until this process sees the run that the main one has begun, and say that it takes part.

        Raises:
            InputError: it does not, so the folder is not the same one.
        """
        deadline = time.monotonic() + SHARING_S
        while not self._running.is_file() or self._running.read_text() != begun.name:
            if time.monotonic() > deadline:
                raise InputError(
                    f"This process does not see what the main one wrote into {self.path}. Give an output folder "
                    "that all machines share."
                )
            time.sleep(0.1)
        self.on_error = begun.on_error
        self._working(process).touch()

    def close(self, rows: int) -> tuple[Reason, ...]:
        """End a run that is complete; returns why rows were skipped.

        Raises:
            InputError: the shards do not hold so many rows.
        """
        shards, skipped, held = [], [], 0
        for path in sorted(self.path.glob(SHARDS)):
            records = parquet().read_table(path, columns=["index", "id", "error"]).to_pylist()
            shards.append({"file": path.name, "rows": len(records)})
            skipped += [record for record in records if record["error"]]
            held += len(records)
        if held != rows:
            raise InputError(
                f"{self.path} holds {held} rows of a dataset of {rows}. Give the same dataset on every process, or "
                "another output folder."
            )
        self.complete(rows=rows, skipped=skipped, shards=shards)
        return reasons(skipped)

    def shard(self, window: int) -> Path:
        """Where the rows of a window go."""
        return self.path / f"part-{window:06d}.parquet"

    def pieces(self, window: int, rows: Sequence[Row]) -> list[Any]:
        """Tables of those of a window's rows that are done already.

        Raises:
            InputError: they were made of other rows than these.
        """
        found = sorted(self._window(window).glob("piece-*.parquet"))
        for path in found:
            self._check(path, rows)
        return [parquet().read_table(path) for path in found]

    def add_piece(self, window: int, made_of: bytes, table: Any) -> None:
        """Keep some rows of a window, whose rows have the digest ``made_of``."""
        folder = self._window(window)
        folder.mkdir(parents=True, exist_ok=True)
        number = len(list(folder.glob("piece-*.parquet")))
        write(folder / f"piece-{number:05d}.parquet", table, {DIGEST: made_of})

    def finish(self, window: int, made_of: bytes, tables: Sequence[Any]) -> None:
        """Write the shard of a window in the order of the input."""
        import pyarrow as pa

        rows = pa.concat_tables(tables)
        write(self.shard(window), rows.take(rows["index"].to_numpy().argsort()), {DIGEST: made_of})
        shutil.rmtree(self._window(window), ignore_errors=True)

    def check(self, window: int, rows: Sequence[Row]) -> None:
        """Raise :class:`InputError` where a finished window was made of other rows than these."""
        self._check(self.shard(window), rows)

    def _check(self, path: Path, rows: Sequence[Row]) -> None:
        with parquet_file(path) as file:
            if (file.schema_arrow.metadata or {}).get(DIGEST) != digest(rows):
                raise InputError(
                    f"Rows {rows[0].index} to {rows[-1].index} of the dataset are not those that {self.path} was "
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
        write_text(self.unfinished / f"process-{process}", str(rows))

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


def write(path: Path, table: Any, metadata: Mapping[bytes, bytes] | None = None) -> None:
    """Write a table as Parquet, whole or not at all."""
    atomically(path, lambda part: write_table(part, table, metadata))
