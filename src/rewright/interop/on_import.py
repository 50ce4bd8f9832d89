"""Declares our operators as soon as torch is there, so that ``torch.export.load`` finds them.

``import rewright`` does not import torch, and may come before or after ``import torch``.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType

__all__ = ["declare_with_torch"]


def declare_with_torch() -> None:
    """Declares the operators, now or right after torch has been imported."""
    if "torch" in sys.modules:
        _declare()
    else:
        sys.meta_path.insert(0, _Waiting())


def _declare() -> None:
    from rewright.interop.operators import declare

    declare()


class _Waiting(MetaPathFinder):
    """Waits for the import of torch, and is gone then."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Torch's own spec, whose loader declares our operators in the end."""
        if fullname != "torch":
            return None
        sys.meta_path.remove(self)
        spec = find_spec("torch")
        if spec is not None and spec.loader is not None:
            spec.loader = _Followed(spec.loader)
        return spec


class _Followed(Loader):
    """Loads a module as another loader does, and then declares our operators."""

    def __init__(self, loader: Loader) -> None:
        self.loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """As the other does."""
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """As the other does; from then on the module knows only the other."""
        assert module.__spec__ is not None
        module.__spec__.loader = module.__loader__ = self.loader
        self.loader.exec_module(module)
        _declare()
