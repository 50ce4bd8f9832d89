"""Views and mutations made pure while a graph is imported.

Every tensor that torch's graph names is an :class:`Alias`: a chain of views down from a
:class:`Storage`, which holds the storage's current value. A read replays the chain where the
storage has changed since; a write puts the new value of the view back into its base, step by
step, by the inverse of each view (:mod:`rewright.frontends.views`). Nothing is retraced: what a
step gives was recorded by torch.
"""

from __future__ import annotations

import attrs

from rewright.frontends.views import Emit, View, apply_view, write_through
from rewright.ir.graph import Value


@attrs.define(eq=False)
class Storage:
    """Memory that several tensors of torch's graph may share.

    Attributes:
        value: its current value, as the tensor that owns it sees it.
        origin: the input or constant that it belongs to, or None where the graph made it.
        version: grows with every write.
        fakes: which storages torch's fake tensors have for it.
    """

    value: Value
    origin: Value | None = None
    version: int = 0
    fakes: set[int] = attrs.field(factory=set)


@attrs.define(eq=False)
class Alias:
    """A tensor of torch's graph: a storage, or a view of another alias.

    Attributes:
        storage: the memory it looks at.
        parent, view: the alias it was made from, and how; both None for the whole storage.
    """

    storage: Storage
    parent: Alias | None = None
    view: View | None = None
    _value: Value | None = None
    _version: int = -1

    @classmethod
    def fresh(cls, value: Value, origin: Value | None = None) -> Alias:
        """A tensor with memory of its own."""
        return cls(Storage(value, origin))

    def derive(self, view: View, value: Value) -> Alias:
        """The alias that `view` makes of this one, whose present value is `value`."""
        return Alias(self.storage, self, view, value, self.storage.version)

    def read(self, emit: Emit) -> Value:
        """The present value."""
        if self.parent is None or self.view is None:
            return self.storage.value
        if self._version != self.storage.version or self._value is None:
            self._value = apply_view(self.view, self.parent.read(emit), emit)
            self._version = self.storage.version
        return self._value

    def replay(self, emit: Emit) -> Value:
        """The present value, as views of the storage's, even where a write left it at hand."""
        if self.parent is None or self.view is None:
            return self.storage.value
        if self.storage.version:
            self._version = -1
            self.parent.replay(emit)
        return self.read(emit)

    def write(self, value: Value, emit: Emit) -> None:
        """Makes `value` what this alias, and so its storage, holds.

        Raises:
            UnsupportedError: a view on the way has no inverse.
        """
        alias, new = self, value
        while alias.parent is not None and alias.view is not None:
            new = write_through(alias.view, alias.parent.read(emit), new, emit)
            alias = alias.parent
        self.storage.value = new
        self.storage.version += 1
        self._value, self._version = value, self.storage.version

    def steps(self) -> list[View]:
        """The views from the storage to this alias; what only has two names is left out."""
        steps = []
        alias: Alias | None = self
        while alias is not None and alias.view is not None:
            if alias.view.op is not None:
                steps.append(alias.view)
            alias = alias.parent
        return steps[::-1]
