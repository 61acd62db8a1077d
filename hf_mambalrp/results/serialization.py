"""What the result objects share: checked fields, rows, equality, plain dictionaries, files without pickle."""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import Field, fields, replace
from math import isfinite
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from typing_extensions import Self

from hf_mambalrp.errors import InputError, NonFiniteRelevanceError

FORMAT = 2
"""Version of the dictionary and of the saved directory; a larger one is refused."""
TENSORS, FIELDS = "explanation.safetensors", "explanation.json"
LEFT_OUT = {
    *("layer_relevance", "parts", "softmax", "method_options"),
    *("convergence_delta", "chunk_size", "index", "ids", "columns"),
    *("contrast_ids", "contrast_tokens"),
}
"""Fields that may be missing: those that are None, and those that earlier versions did not have."""


class Column(NamedTuple):
    """A per-row field: a letter for each dimension (``B`` the rows, ``*`` may be absent), its dtype if a tensor."""

    dims: str
    dtype: torch.dtype | None = None
    optional: bool = False
    fill: Any = 0
    """What stands on padding."""


class Rows:
    """A dataclass whose fields in ``_columns`` hold one entry a row; the first field of the class is one of them."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]
    _columns: ClassVar[dict[str, Column]]
    _parts: ClassVar[dict[str, type["Rows"]]] = {}
    _encoders: ClassVar[dict[str, Callable[[Any], Any]]] = {}
    """Fields that plain dictionaries hold as something else than lists."""
    _decoders: ClassVar[dict[str, Callable[[Any], Any]]] = {}

    def __post_init__(self) -> None:
        sizes: dict[str, int] = {}
        for name, (dims, dtype, optional, _) in self._columns.items():
            value = getattr(self, name)
            if value is None and optional:
                continue
            if value is None:
                raise InputError(f"{name} is missing; a {type(self).__name__} needs it, with shape {_show(dims)}.")
            if dtype is not None:
                if not isinstance(value, Tensor):
                    raise InputError(f"{name} is a {type(value).__name__}; it must be a tensor of shape {_show(dims)}.")
                value = value.detach().to("cpu", dtype)
                object.__setattr__(self, name, value)
                # The sum of finite numbers is finite, unless it overflows, and many times faster to look at.
                if dtype.is_floating_point and not isfinite(value.sum()) and not value.isfinite().all():
                    where = tuple((~value.isfinite()).nonzero()[0].tolist())
                    raise NonFiniteRelevanceError(f"{name} holds {value[where].item()} at {_show(dims)} = {where}.")
            shape = _shape(value)
            fits = len(shape) in (len(dims), len(dims.rstrip("*")))
            if not fits or any(sizes.setdefault(d, n) != n for d, n in zip(dims, shape, strict=False)):
                first = self._names()[0]
                raise InputError(
                    f"{name} has shape {shape}, but {first} has shape {_shape(getattr(self, first))}: "
                    f"expected {_show(dims)} with {', '.join(f'{d} = {n}' for d, n in sizes.items())}."
                )
        if 0 in sizes.values():
            empty = [name for name, (dims, *_) in self._columns.items() if any(sizes.get(d) == 0 for d in dims)]
            raise InputError(
                f"{empty[0]} has shape {_shape(getattr(self, empty[0]))}; give at least one row, and nothing empty."
            )

    def __len__(self) -> int:
        first = self._names()[0]
        size: int = _shape(getattr(self, first))[self._columns[first].dims.index("B")]
        return size

    def __getitem__(self, index: int | slice | list[int]) -> Self:
        rows = row_indices(index, len(self))
        picked = {
            name: _pick(getattr(self, name), rows, column.dims.index("B")) for name, column in self._columns.items()
        }
        return replace(self, **picked)

    @classmethod
    def concat(cls, parts: Iterable[Self]) -> Self:
        """Join the rows of several into one, in their order; shorter ones are padded on the right.

        Raises:
            InputError: nothing to join, another kind of result, or parts that differ in what is not of a row: method,
                model, versions, a field that some have and others have not, the number of layers.

        Example:
            >>> from hf_mambalrp import DEMO_MODEL, AutoMambaLRPForSequenceClassification, Explanation
            >>> model = AutoMambaLRPForSequenceClassification.from_pretrained(DEMO_MODEL)
            >>> ex = Explanation.concat([model.explain("A dull film."), model.explain("A lovely film, it is.")])
            >>> ex.target_text
            ['negative', 'positive']
        """
        joined = list(parts)
        for part in joined:
            if type(part) is not cls:
                raise InputError(f"concat() got a {type(part).__name__} among its parts; all must be a {cls.__name__}.")
        if not joined:
            raise InputError(f"concat() got nothing to join; give at least one {cls.__name__}.")
        return cls(
            **{
                name: _joined(name, [getattr(part, name) for part in joined], cls._columns.get(name))
                for name in cls._names()
            }
        )

    def __iter__(self) -> Iterator[Self]:
        return (self[row] for row in range(len(self)))

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return all(_same(getattr(self, name), getattr(other, name)) for name in self._names())

    __hash__ = None  # type: ignore[assignment]  # compared by content, which can change

    def to_dict(self) -> dict[str, Any]:
        """Return every field as plain JSON types, with ``format`` and ``class``; of ``LEFT_OUT`` those given.

        Example:
            >>> from hf_mambalrp import DEMO_MODEL, AutoMambaLRPForSequenceClassification
            >>> model = AutoMambaLRPForSequenceClassification.from_pretrained(DEMO_MODEL)
            >>> ex = model.explain("A dull film.")
            >>> ex.to_dict()["target_text"]
            ['negative']
        """
        return {"format": FORMAT, "class": type(self).__name__, **self._contents(tensors=None)}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """Rebuild what :meth:`to_dict` or its JSON gave, exactly. InputError: another kind, newer, or incomplete.

        Example:
            >>> from hf_mambalrp import DEMO_MODEL, AutoMambaLRPForSequenceClassification
            >>> model = AutoMambaLRPForSequenceClassification.from_pretrained(DEMO_MODEL)
            >>> ex = model.explain("A dull film.")
            >>> ex.from_dict(ex.to_dict()) == ex
            True
        """
        return cls._from_fields(data, tensors=None)

    def to_json(self, path: str | Path | None = None, *, indent: int | None = None) -> str:
        """Return :meth:`to_dict` as JSON text in ASCII, and write it to ``path`` if one is given.

        Example:
            >>> from hf_mambalrp import DEMO_MODEL, AutoMambaLRPForSequenceClassification
            >>> model = AutoMambaLRPForSequenceClassification.from_pretrained(DEMO_MODEL)
            >>> ex = model.explain("A dull film.")
            >>> text = ex.to_json("dull.json", indent=1)
        """
        text = json.dumps(self.to_dict(), indent=indent, allow_nan=False)
        if path is not None:
            Path(path).write_text(text, encoding="utf-8")
        return text

    def save(self, path: str | Path) -> None:
        """Write the directory ``path``: tensors to ``explanation.safetensors``, the rest to ``explanation.json``.

        Example:
            >>> from hf_mambalrp import DEMO_MODEL, AutoMambaLRPForSequenceClassification
            >>> model = AutoMambaLRPForSequenceClassification.from_pretrained(DEMO_MODEL)
            >>> ex = model.explain("A dull film.")
            >>> ex.save("out/dull")
            >>> ex.load("out/dull") == ex
            True
        """
        folder = Path(path)
        if folder.is_file():
            raise InputError(f"{folder} is a file; save() writes a directory: give another path.")
        folder.mkdir(parents=True, exist_ok=True)
        # The JSON goes first and comes last: a save that is interrupted leaves nothing that loads.
        (folder / FIELDS).unlink(missing_ok=True)
        tensors: dict[str, Tensor] = {}
        contents = self._contents(tensors)
        save_file(tensors, folder / TENSORS)
        header = {"format": FORMAT, "class": type(self).__name__}
        (folder / FIELDS).write_text(json.dumps({**header, **contents}, indent=1, allow_nan=False), encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what :meth:`save` wrote, bit for bit. InputError: a missing, damaged or too new directory.

        Example:
            >>> from hf_mambalrp import DEMO_MODEL, AutoMambaLRPForSequenceClassification, Explanation
            >>> model = AutoMambaLRPForSequenceClassification.from_pretrained(DEMO_MODEL)
            >>> model.explain("A dull film.").save("out/dull")
            >>> Explanation.load("out/dull").target_text
            ['negative']
        """
        return cls._from_fields(*read(path, cls.__name__))

    @classmethod
    def _names(cls) -> list[str]:
        return [each.name for each in fields(cls)]

    def _contents(self, tensors: dict[str, Tensor] | None, prefix: str = "") -> dict[str, Any]:
        """Collect the fields; tensors go into ``tensors`` under dotted names if it is given, else they become lists."""
        contents: dict[str, Any] = {}
        for name in self._names():
            value = getattr(self, name)
            if isinstance(value, Rows):
                contents[name] = value._contents(tensors, f"{prefix}{name}.")
            elif tensors is not None and isinstance(value, Tensor):
                tensors[prefix + name] = value.clone(memory_format=torch.contiguous_format)
            elif value is not None or name not in LEFT_OUT:
                contents[name] = self._encoders.get(name, _plain)(value)
        return contents

    @classmethod
    def _from_fields(cls, data: Any, tensors: dict[str, Tensor] | None) -> Self:
        if not isinstance(data, dict) or not isinstance(data.get("format"), int):
            raise InputError(f"this is no {cls.__name__} of hf_mambalrp: it has no 'format' number.")
        if data["format"] > FORMAT:
            raise InputError(
                f"written in format {data['format']}; this hf_mambalrp reads formats up to {FORMAT}: "
                "pip install --upgrade hf_mambalrp"
            )
        if data.get("class") != cls.__name__:
            raise InputError(
                f"this is a saved {data.get('class')!r}, not a {cls.__name__}; load it with its own class."
            )
        try:
            return cls._build(data, tensors)
        except (InputError, NonFiniteRelevanceError):
            raise
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise InputError(f"this {cls.__name__} is damaged: {error!r}. Save it again.") from error

    @classmethod
    def _build(cls, data: dict[str, Any], tensors: dict[str, Tensor] | None, prefix: str = "") -> Self:
        values: dict[str, Any] = {}
        for name in cls._names():
            dtype = cls._columns[name].dtype if name in cls._columns else None
            if name in cls._parts:
                part = data.get(name) if name in LEFT_OUT else data[name]
                values[name] = None if part is None else cls._parts[name]._build(part, tensors, f"{prefix}{name}.")
            elif dtype is not None and tensors is not None:
                values[name] = tensors.get(prefix + name)
            elif dtype is not None and name not in cls._decoders:
                values[name] = None if data.get(name) is None else torch.tensor(data[name], dtype=dtype)
            else:
                value = data.get(name) if name in LEFT_OUT else data[name]
                values[name] = cls._decoders.get(name, lambda value: value)(value)
        return cls(**values)


def read(path: str | Path, what: str) -> tuple[Any, dict[str, Tensor]]:
    """Read the fields and the tensors of a saved ``what``. InputError: a missing or damaged directory."""
    folder = Path(path)
    for name in (FIELDS, TENSORS):
        if not (folder / name).is_file():
            raise InputError(f"{folder} is no saved {what}: {name} is missing. save() writes both files.")
    try:
        return json.loads((folder / FIELDS).read_text(encoding="utf-8")), load_file(folder / TENSORS)
    except (ValueError, SafetensorError) as error:
        raise InputError(f"{folder} is damaged and cannot be read: {error}. Save it again.") from error


def row_indices(index: int | slice | list[int], count: int) -> list[int]:
    """Resolve an index over ``count`` rows to row numbers; IndexError if one is out of range."""
    if isinstance(index, slice):
        return list(range(count))[index]
    wanted = index if isinstance(index, list) else [index]
    for row in wanted:
        if not isinstance(row, int) or isinstance(row, bool):
            raise TypeError(f"rows are chosen by int, slice or list of int, not by {row!r}.")
        if not -count <= row < count:
            raise IndexError(f"row {row} is out of range: there are {count} rows, 0 to {count - 1}.")
    return [row % count for row in wanted]


def _joined(name: str, values: list[Any], column: Column | None) -> Any:
    """One field of several results as one."""
    if column is None:
        if any(value != values[0] for value in values):
            if name == "chunk_size":
                return None
            raise InputError(f"concat() got parts of different {name}; join those of one, {values[0]!r} for example.")
        return values[0]
    given = [value for value in values if value is not None]
    if 0 < len(given) < len(values):
        raise InputError(f"concat() got parts with {name} and parts without; join them apart.")
    if not given:
        return None
    if isinstance(given[0], Rows):
        return type(given[0]).concat(given)
    dims = column.dims
    longest = max(_shape(value)[dims.index("L")] for value in given) if "L" in dims else 0
    if not isinstance(given[0], Tensor):
        rows = [row for value in given for row in value]
        return [[*row, *[column.fill] * (longest - len(row))] for row in rows] if longest else rows
    others = {tuple(n for n, letter in zip(v.shape, dims, strict=False) if letter not in "BL") for v in given}
    if len(others) > 1:
        raise InputError(f"concat() got parts whose {name} {_show(dims)} differs in more than rows and tokens.")
    if longest:
        given = [nn.functional.pad(value, (0, longest - value.shape[-1]), value=column.fill) for value in given]
    return torch.cat(given, dims.index("B"))


def _pick(value: Any, rows: list[int], dim: int) -> Any:
    if value is None:
        return None
    if isinstance(value, Tensor):
        return value.index_select(dim, torch.tensor(rows, dtype=torch.long))
    return value[rows] if isinstance(value, Rows) else [value[row] for row in rows]


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    return type(a) is type(b) and bool(a == b)


def _shape(value: Any) -> tuple[Any, ...]:
    """Shape of a tensor, of rows, or of a list of lists (with the set of lengths where they differ)."""
    if isinstance(value, Tensor):
        return tuple(value.shape)
    if isinstance(value, Rows):
        return _shape(getattr(value, value._names()[0]))
    lengths = {len(row) for row in value if isinstance(row, list)}
    return (len(value), *([lengths.pop()] if len(lengths) == 1 else [lengths] if lengths else []))


def _show(dims: str) -> str:
    return f"({', '.join(dims)})"


def _plain(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.tolist()
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return dict(value) if isinstance(value, dict) else value
