"""Values: frozen dataclasses that are quick to define and make. To define some ninety was a third of an agent's start.

``dataclasses`` writes the source of each method and compiles it, at every start. For a frozen class that is six. Here
it makes ``__init__`` alone, for a class of which many objects are made; until then, and in the place of the others,
there are closures that do the same. That no field is assigned to is checked by mypy, for which this is the decorator of
``dataclasses``. Nothing checks it at run time, so ``__init__`` assigns as it would in a class that is not frozen,
several times as fast. A class that is not frozen, such as a state, is made in the same way, but is no key.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from operator import attrgetter
from typing import TYPE_CHECKING, Any

_MANY = 50
"""Objects of a class. To make one with the closure takes 2 us rather than 0.3, to compile ``__init__`` 150."""

if TYPE_CHECKING:
    from dataclasses import dataclass as dataclass
else:

    def dataclass(cls=None, /, *, frozen=False, slots=False, kw_only=False):
        """The decorator of ``dataclasses``, but for what the module says."""

        def make(cls):
            # Else dataclasses makes one of the signature, which takes longer than all the rest.
            cls.__doc__ = cls.__doc__ or cls.__qualname__
            return _with_methods(
                dataclasses.dataclass(cls, init=False, repr=False, eq=False, slots=slots, kw_only=kw_only), frozen
            )

        return make if cls is None else make(cls)


def _with_methods(cls: Any, frozen: bool) -> Any:
    """A class that takes, compares and shows its fields, all of them; if it is frozen it hashes them, too."""
    fields = dataclasses.fields(cls)
    for field in fields:
        if not (field.init and field.repr and field.compare) or field.hash is not None:
            raise TypeError(f"{cls.__qualname__}.{field.name}: a value takes, shows and compares all of its fields")
    names = [field.name for field in fields]
    values = attrgetter(*names) if names else lambda self: ()

    def __eq__(self: object, other: object) -> bool:
        return values(self) == values(other) if other.__class__ is self.__class__ else NotImplemented

    def __hash__(self: object) -> int:
        return hash(values(self))

    def __repr__(self: object) -> str:
        shown = (f"{name}={getattr(self, name)!r}" for name in names)
        return f"{self.__class__.__qualname__}({', '.join(shown)})"

    cls.__init__ = _first_init(cls)
    cls.__signature__ = _Signature(cls)
    cls.__eq__, cls.__hash__, cls.__repr__ = __eq__, __hash__ if frozen else None, __repr__
    return cls


def _first_init(cls: Any) -> Any:
    """For the first objects of a class. Those after them, and calls that make no sense, are for the compiled one."""
    fields = dataclasses.fields(cls)
    positional = [field.name for field in fields if not field.kw_only]
    defaults = {field.name: default for field in fields if (default := _default_of(field)) is not None}
    names = dict.fromkeys(field.name for field in fields).keys()
    required = names - defaults.keys()
    is_checked = hasattr(cls, "__post_init__")
    left = _MANY

    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        nonlocal left
        left -= 1
        told = dict(zip(positional, args, strict=False), **kwargs)
        makes_sense = len(told) == len(args) + len(kwargs) and required <= told.keys() <= names
        if left < 0 or not makes_sense:
            cls.__init__ = _compiled_init(cls)
            cls.__init__(self, *args, **kwargs)
            return
        for name in names:
            setattr(self, name, told[name] if name in told else defaults[name]())
        if is_checked:
            self.__post_init__()

    return __init__


class _Signature:
    """What ``inspect`` and ``help`` say that a class takes: that of the compiled ``__init__``, made when they ask."""

    def __init__(self, cls: Any) -> None:
        self._cls = cls

    def __get__(self, instance: object, owner: Any) -> Any:
        if owner is not self._cls:
            raise AttributeError("__signature__")  # of a subclass, with an __init__ of its own perhaps
        from inspect import signature

        found = signature(_compiled_init(owner))
        return found.replace(parameters=list(found.parameters.values())[1:])


def _default_of(field: dataclasses.Field[Any]) -> Any:
    """What makes it; None if there is none."""
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory
    return None if field.default is dataclasses.MISSING else partial(_same, field.default)


def _same(value: Any) -> Any:
    return value


def _compiled_init(cls: Any) -> Any:
    """The one of ``dataclasses``, which makes it for a twin with the same fields."""
    fields = [(field.name, field.type, field) for field in dataclasses.fields(cls)]
    namespace = {name: getattr(cls, name) for name in ("__doc__", "__post_init__") if hasattr(cls, name)}
    twin: Any = dataclasses.make_dataclass(
        cls.__qualname__, fields, namespace=namespace, repr=False, eq=False, match_args=False
    )
    return twin.__init__
