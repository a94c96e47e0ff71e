"""One thing, one name; and no function that takes a list of arguments instead of a thing with a name."""

import ast
from collections import defaultdict

from tests.unit.test_imports import FILES, tree_of

# What may stand in several modules, and why.
SHARED = {
    "Benchmark": "for now: the section of a recipe, and a checked benchmark.json",
    "T": "a type variable has no meaning outside of its module",
    "log": "each module logs under its own name",
    "main": "each entry point of recipes/ is run as `python -m recipes.<stage>`",
}


def public_names(name):
    """Return the functions, classes and constants that a module defines; what it imports is not its own."""
    for node in tree_of(name).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from (target.id for target in targets if isinstance(target, ast.Name))


def test_a_public_name_is_defined_in_one_module():
    """Commands (recipes.cli) and stages (recipes._stages) are called as the functions that they call: these are one thing."""
    places = defaultdict(set)
    for module in FILES:
        for name in public_names(module):
            if not name.startswith("_") and module not in ("recipes.cli", "recipes._stages"):
                places[name].add(module)
    twice = {name: sorted(modules) for name, modules in places.items() if len(modules) > 1 and name not in SHARED}
    assert twice == {}


def test_what_may_be_shared_is_shared():
    places = defaultdict(set)
    for module in FILES:
        for name in public_names(module):
            places[name].add(module)
    assert [name for name in SHARED if len(places[name]) < 2] == []
