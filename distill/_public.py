"""Names that a package gives without importing what it does not need: `from distill.runtime import load`."""

import importlib
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["public"]


def public(package: str, homes: Mapping[str, str]) -> Callable[[str], Any]:
    """Return a module's `__getattr__` that imports a public name from its home when it is first asked for.

    :param homes: the module of each public name, without the package

    >>> get = public("distill.metrics", {"retention": "measures"})
    >>> get("retention").__module__
    'distill.metrics.measures'
    """

    def get(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"{package}.{homes[name]}"), name)

    return get
