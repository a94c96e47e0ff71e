"""Public names of a package, whose modules are imported only when needed: `from distill.runtime import load`."""

import importlib
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

from distill._moved import MOVED_NAMES

__all__ = ["public"]


def public(package: str, *homes: str) -> Callable[[str], Any]:
    """Return a package's `__getattr__`, which finds public names in its modules and imports a module on first use.

    :param homes: names, within the package, of the modules that define its public names

    >>> get = public("distill.metrics", "measures")
    >>> get("retention").__module__
    'distill.metrics.measures'
    """

    def get(name: str) -> Any:
        # `from package import module` looks the module up here first; a module's name must not import any of the homes
        if not name.startswith("_") and find_spec(f"{package}.{name}") is None:
            for home in homes:
                module = importlib.import_module(f"{package}.{home}")
                if name in module.__all__ or name in MOVED_NAMES.get(module.__name__, {}):
                    return getattr(module, name)
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return get
