"""What stands for an object of a model's own class where that class is not at hand."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch.utils import _pytree as pytree


class Record(Mapping[str, Any]):
    """An immutable record with the fields of a class that this process does not have.

    ``record.logits``, ``record["logits"]`` and ``record[0]`` are the same; fields that were None
    when the program was compiled are None. It is a mapping of the other fields, and a pytree.

    Args:
        class_name: of the class that it stands for.
        fields: the values, by name.
        absent: the names of the fields that are None.
    """

    __slots__ = ("_absent", "_class_name", "_fields")

    def __init__(
        self, class_name: str, fields: Mapping[str, Any], absent: tuple[str, ...] = ()
    ) -> None:
        self._class_name = class_name
        self._fields = dict(fields)
        self._absent = absent

    def __getitem__(self, key: str | int) -> Any:
        return [*self._fields.values()][key] if isinstance(key, int) else self._fields[key]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if name in self._fields:
            return self._fields[name]
        if name in self._absent:
            return None
        raise AttributeError(f"{self._class_name} has no field {name!r}; it has {[*self._fields]}")

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={value!r}" for name, value in self._fields.items())
        return f"{self._class_name.rpartition('.')[2]}({shown})"

    def __reduce__(self) -> tuple[Any, ...]:
        return Record, (self._class_name, self._fields, self._absent)


def _flatten(record: Record) -> tuple[list[Any], Any]:
    return [*record.values()], [record._class_name, [*record], [*record._absent]]


def _flatten_with_keys(record: Record) -> tuple[list[Any], Any]:
    values, context = _flatten(record)
    keys = [pytree.GetAttrKey(name) for name in record]
    return [*zip(keys, values, strict=True)], context


def _unflatten(values: Any, context: Any) -> Record:
    class_name, names, absent = context
    return Record(class_name, dict(zip(names, values, strict=True)), tuple(absent))


pytree.register_pytree_node(
    Record,
    _flatten,
    _unflatten,
    serialized_type_name="rewright.artifact.records.Record",
    flatten_with_keys_fn=_flatten_with_keys,
)
