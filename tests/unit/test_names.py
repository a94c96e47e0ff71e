"""One thing, one name; and no function that takes a list of arguments instead of a thing with a name."""

import ast
import re
from collections import defaultdict
from functools import cache

from tests.conftest import ROOT
from tests.unit.test_imports import FILES, tree_of

# What may stand in several modules, and why.
SHARED = {
    "T": "a type variable has no meaning outside of its module",
    "log": "each module logs under its own name",
    "main": "each entry point of recipes/ is run as `python -m recipes.<stage>`",
}


@cache
def public_names(name):
    """Return the functions, classes and constants that a module defines; what it imports is not its own."""
    found = []
    for node in tree_of(name).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.append(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found += [target.id for target in targets if isinstance(target, ast.Name)]
    return found


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


MOST_PARAMETERS = 6
PUBLIC = "public: users, the README and the documentation call it with these names"
# What takes more, and why. The commands of recipes.cli are left out: each parameter is an option.
WIDE = {
    "distill.data.pairs.read_pairs": PUBLIC,
    "distill.data.pairs.read_pairs_with_rows": "read_pairs, which also says the rows: the same arguments",
    "distill.metrics.measures.evaluate_scores": PUBLIC,
    "distill.models.modeling.build_model": PUBLIC,
    "distill.runtime.opening.load": PUBLIC,
    "distill.training.losses.lists.lambda_loss": "a loss: its tensors, then the settings of its section in the recipe",
    "students.export.stage.export_model": PUBLIC,
}


def parameters_of(function, *, of_class):
    """Count what a caller may give; `self` and `cls` are not given, `**keywords` are one."""
    arguments = function.args
    names = [argument.arg for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
    rest = [argument for argument in (arguments.vararg, arguments.kwarg) if argument is not None]
    return len(names) + len(rest) - (of_class and names[:1] in (["self"], ["cls"]))


def wide_functions(module):
    nodes = [(module, node, False) for node in ast.iter_child_nodes(tree_of(module))]
    while nodes:
        place, node, of_class = nodes.pop()
        named = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        below = f"{place}.{node.name}" if named else place
        if named and not isinstance(node, ast.ClassDef) and parameters_of(node, of_class=of_class) > MOST_PARAMETERS:
            yield below
        nodes += [(below, child, isinstance(node, ast.ClassDef)) for child in ast.iter_child_nodes(node)]


def test_functions_take_six_arguments_at_most():
    """What belongs together is a dataclass with a name; what nobody varies is no argument."""
    found = {name for module in FILES if module != "recipes.cli" for name in wide_functions(module)}
    assert found - set(WIDE) == set()
    assert set(WIDE) - found == set(), "what is narrow now is no exception any more"


def test_parameters_are_counted():
    tree = ast.parse("class A:\n    def f(self, a, /, b, *c, d=1, **e): ...\ndef g(): ...")
    method, function = tree.body[0].body[0], tree.body[1]
    assert (parameters_of(method, of_class=True), parameters_of(function, of_class=False)) == (5, 0)


def test_what_the_map_names_is_there():
    """docs/reference/house.md: the file and the name of each row of "Where to look"."""
    text = (ROOT / "docs/reference/house.md").read_text(encoding="utf-8")
    rows = re.findall(r"\| `([\w/]+\.py)` \| `(\w+)` \|", text)
    assert len(rows) >= 20
    for file, name in rows:
        assert name in set(public_names(file.removesuffix(".py").replace("/", "."))), f"{file} has no {name}"
