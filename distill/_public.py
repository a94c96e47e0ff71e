"""Public names of a package that are imported only when used: `from distill.runtime import load`."""

import importlib
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

from distill._moved import MOVED_NAMES

__all__ = ["public"]


def public(package: str, *homes: str) -> Callable[[str], Any]:
    """Return a package's `__getattr__`: it imports a name of its modules' `__all__` at the first use.

    :param homes: names of the modules in the package

    >>> get = public("distill.metrics", "measures")
    >>> get("retention").__module__
    'distill.metrics.measures'
    """

    def get(name: str) -> Any:
        # `from package import module` looks the module up first: it is no public name, and imports none of the modules
        if not name.startswith("_") and find_spec(f"{package}.{name}") is None:
            for home in homes:
                module = importlib.import_module(f"{package}.{home}")
                if name in module.__all__ or name in MOVED_NAMES.get(module.__name__, {}):
                    return getattr(module, name)
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return get
