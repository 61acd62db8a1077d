"""The files of a run: a manifest, a shard for each finished window of rows, pieces of windows that are not finished.

Every file is written under another name and renamed, so that a process killed at any point leaves whole files only.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hf_mambalrp.errors import InputError
from hf_mambalrp.parallel.arrow import Record, parquet, schema
from hf_mambalrp.parallel.sources import Row

FORMAT = 1
"""Version of the folder's layout and of its rows."""
SHARDS = "part-*.parquet"
DIGEST = b"rows_sha256"
"""Key of a shard's metadata: what its rows were made of."""


class Store:
    """The output folder of a run, which any process may open."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.unfinished = self.folder / "unfinished"
        self.manifest = self.folder / "manifest.json"
        self._stop = self.unfinished / "stop"

    def open(self, settings: Mapping[str, Any]) -> set[int]:
        """Begin a run, or go on with one of the same settings; returns the windows that have their shard.

        Raises:
            InputError: the folder has a run of other settings, or files of something else.
        """
        if self.manifest.is_file():
            earlier = json.loads(self.manifest.read_text(encoding="utf-8"))
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
        elif self.folder.exists() and (not self.folder.is_dir() or any(self.folder.iterdir())):
            raise InputError(f"{self.folder} is not empty and holds no run to go on with. Give another output folder.")
        self.unfinished.mkdir(parents=True, exist_ok=True)
        self._stop.unlink(missing_ok=True)
        for counter in self.unfinished.glob("process-*"):
            counter.unlink()
        if not self.manifest.is_file():
            self._write_manifest({"format": FORMAT, "complete": False, "settings": dict(settings)})
        return {int(path.stem.split("-")[1]) for path in self.folder.glob(SHARDS)}

    def close(self, rows: int) -> int:
        """Say in the manifest that the run is complete, remove what is no longer needed; returns rows skipped."""
        contents = json.loads(self.manifest.read_text(encoding="utf-8"))
        shards, skipped = [], []
        for path in sorted(self.folder.glob(SHARDS)):
            records = parquet().read_table(path, columns=["index", "id", "error"]).to_pylist()
            shards.append({"file": path.name, "rows": len(records)})
            skipped += [record for record in records if record["error"]]
        self._write_manifest({**contents, "complete": True, "rows": rows, "skipped": skipped, "shards": shards})
        shutil.rmtree(self.unfinished, ignore_errors=True)
        for left in self.folder.glob("*.part"):  # of a process that was killed
            left.unlink()
        return len(skipped)

    def _write_manifest(self, contents: dict[str, Any]) -> None:
        text = json.dumps(contents, indent=1) + "\n"
        _atomically(self.manifest, lambda path: path.write_text(text, encoding="utf-8"))

    def shard(self, window: int) -> Path:
        """Where the rows of a window go."""
        return self.folder / f"part-{window:06d}.parquet"

    def pieces(self, window: int) -> dict[int, Record]:
        """Rows of an unfinished window that are done already, by their number in the dataset."""
        found = [read(path) for path in sorted(self._window(window).glob("piece-*.parquet"))]
        return {record["index"]: record for records in found for record in records}

    def add_piece(self, window: int, records: Sequence[Record]) -> None:
        """Keep some rows of a window."""
        folder = self._window(window)
        folder.mkdir(parents=True, exist_ok=True)
        number = len(list(folder.glob("piece-*.parquet")))
        write(folder / f"piece-{number:05d}.parquet", records)

    def finish(self, window: int, rows: Sequence[Row], records: Mapping[int, Record]) -> None:
        """Write the shard of a window in the order of the input."""
        write(self.shard(window), [records[row.index] for row in rows], {DIGEST: digest(rows)})
        shutil.rmtree(self._window(window), ignore_errors=True)

    def check(self, window: int, rows: Sequence[Row]) -> None:
        """Raise :class:`InputError` where a finished window was made of other rows than these."""
        with parquet().ParquetFile(self.shard(window)) as file:
            if file.schema_arrow.metadata.get(DIGEST) != digest(rows):
                raise InputError(
                    f"Rows {rows[0].index} to {rows[-1].index} of the dataset are not those that {self.folder} was "
                    "made of. Give the same dataset, or another output folder."
                )

    def _window(self, window: int) -> Path:
        return self.unfinished / f"window-{window:06d}"

    def stop(self) -> None:
        """Ask every process to end."""
        self._stop.touch()

    def stopped(self) -> bool:
        """Whether a process has asked to end."""
        return self._stop.exists()

    def report(self, process: int, rows: int) -> int:
        """Say how many rows a process is done with; returns the sum over all."""
        _atomically(self.unfinished / f"process-{process}", lambda path: path.write_text(str(rows)))
        return sum(int(path.read_text()) for path in self.unfinished.glob("process-?*") if path.suffix != ".part")


def digest(rows: Sequence[Row]) -> bytes:
    """A fingerprint of what is explained in these rows."""
    content = [[row.id, row.text, row.target, row.contrast, row.error] for row in rows]
    return hashlib.sha256(json.dumps(content, default=str).encode("utf-8", "surrogatepass")).hexdigest().encode()


def write(path: Path, records: Sequence[Record], metadata: Mapping[bytes, bytes] | None = None) -> None:
    """Write records as Parquet."""
    module, columns = parquet(), schema()
    import pyarrow as pa

    table = pa.Table.from_pylist(list(records), schema=columns.with_metadata(metadata))
    _atomically(path, lambda part: module.write_table(table, part, compression="zstd"))


def read(path: Path) -> list[Record]:
    """Read the records of a Parquet file."""
    records: list[Record] = parquet().read_table(path).to_pylist()
    return records


def _atomically(path: Path, write: Callable[[Path], object]) -> None:
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    write(part)
    part.replace(path)
