"""Values: frozen dataclasses that are quick to define and make. To define some ninety was a third of an agent's start.

``dataclasses`` writes the source of each method and compiles it, at every start. For a frozen class that is six; here
it makes ``__init__`` alone, and the others are closures that do the same. That no field is assigned to is checked by
mypy, for which this is the decorator of ``dataclasses``. Nothing checks it at run time, so ``__init__`` assigns as it
would in a class that is not frozen, several times as fast.
"""

from __future__ import annotations

import dataclasses
from operator import attrgetter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dataclasses import dataclass as dataclass
else:

    def dataclass(cls=None, /, *, frozen=False, slots=False, kw_only=False):
        """The decorator of ``dataclasses``, but for what the module says. One that is not frozen is its own."""

        def make(cls):
            if not frozen:
                return dataclasses.dataclass(cls, slots=slots, kw_only=kw_only)
            return _with_methods(dataclasses.dataclass(cls, repr=False, eq=False, slots=slots, kw_only=kw_only))

        return make if cls is None else make(cls)


def _with_methods(cls: Any) -> Any:
    """A class that compares, hashes and shows its fields, all of them."""
    fields = dataclasses.fields(cls)
    for field in fields:
        if not (field.repr and field.compare) or field.hash is not None:
            raise TypeError(f"{cls.__qualname__}.{field.name}: a value shows and compares every field of its own")
    names = [field.name for field in fields]
    values = attrgetter(*names) if names else lambda self: ()

    def __eq__(self: object, other: object) -> bool:
        return values(self) == values(other) if other.__class__ is self.__class__ else NotImplemented

    def __hash__(self: object) -> int:
        return hash(values(self))

    def __repr__(self: object) -> str:
        shown = (f"{name}={getattr(self, name)!r}" for name in names)
        return f"{self.__class__.__qualname__}({', '.join(shown)})"

    cls.__eq__, cls.__hash__, cls.__repr__ = __eq__, __hash__, __repr__
    return cls
