"""Names that a package gives without importing what it does not need: `from distill.runtime import load`."""

import importlib
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

from distill._moved import MOVED_NAMES

__all__ = ["public"]


def public(package: str, *homes: str) -> Callable[[str], Any]:
    """Return a package's `__getattr__`: what its homes state in `__all__`, imported when it is first asked for.

    :param homes: modules of the package, by their names in it

    >>> get = public("distill.metrics", "measures")
    >>> get("retention").__module__
    'distill.metrics.measures'
    """

    def get(name: str) -> Any:
        # `from package import module` asks for the module first: it is no public name, and imports none of the homes
        if not name.startswith("_") and find_spec(f"{package}.{name}") is None:
            for home in homes:
                module = importlib.import_module(f"{package}.{home}")
                if name in module.__all__ or name in MOVED_NAMES.get(module.__name__, {}):
                    return getattr(module, name)
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return get
