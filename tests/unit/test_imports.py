"""Who may import whom: recipes → teachers, students → distill, and no circle between files."""

import ast
import importlib
import os
import subprocess
import sys
from functools import cache
from graphlib import CycleError, TopologicalSorter

import pytest

from tests.conftest import ROOT

PACKAGES = ("distill", "teachers", "students", "recipes")
ALLOWED = {
    "distill": {"distill"},
    "teachers": {"teachers", "distill"},
    "students": {"students", "distill"},
    "recipes": {"recipes", "teachers", "students", "distill"},
}
FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for package in PACKAGES
    for path in sorted((ROOT / package).rglob("*.py"))
}


def type_checking_only(tree):
    """The nodes below `if TYPE_CHECKING:`, which never run."""
    guarded = [node for node in ast.walk(tree) if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)]
    return {id(inner) for node in guarded for inner in ast.walk(node)}


@cache
def tree_of(name):
    return ast.parse(FILES[name].read_text(encoding="utf-8"))


@cache
def imported_by(name, *, running_only=False):
    """The modules of ours that a file imports, at the top or inside a function."""
    tree = tree_of(name)
    skipped = type_checking_only(tree) if running_only else set()
    found = set()
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} imports relatively"
            # `from distill import losses` is an import of distill.training.losses
            below = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= (below & set(FILES)) or {node.module}
    return frozenset(module for module in found if module in FILES)


# from the top; what is in no package stands where it belongs
ROOMS = (
    "students",
    "teachers",
    "students.plan",
    "students.export",
    "students.train",
    "students.build",
    "students.cut",
    "students.vocabulary",
    "distill.ablation",
    "distill.verify",
    "distill.diagnosis",
    "distill.mining",
    "distill.evaluation",
    "distill.report",
    "distill.ray",
    "distill.scorers",
    "distill.training",
    "distill.graphs",
    "distill.runtime",
    "distill.run",
    "distill.signals",
    "distill.models",
    "distill.synthesis",
    "distill.endpoints",
    "distill.data",
    "distill.recipe",
    "distill.resumes",
    "distill.metrics",
    "distill.files",
    "distill.machine",
    "distill.wording",
    "distill.progress",
    "distill.errors",
)


@cache
def room_of(name):
    """`distill.runtime.engines` lies in `distill.runtime`; None for what has no place in the order."""
    return max((room for room in ROOMS if f"{name}.".startswith(f"{room}.")), key=len, default=None)


@pytest.mark.parametrize(
    "name", [name for name in FILES if name.startswith("distill.") and not name.startswith("distill._")]
)
def test_a_room_imports_only_what_lies_below_it(name):
    """Those under TYPE_CHECKING count: a name in a signature is a dependency, too."""
    here = room_of(name)
    assert here is not None, f"{name} has no place in ROOMS"
    above = {
        other
        for other in imported_by(name)
        if (there := room_of(other)) is not None and there != here and ROOMS.index(there) < ROOMS.index(here)
    }
    assert not above


def test_old_names_are_the_modules_at_their_new_place():
    from distill._moved import MOVED

    for old, new in MOVED.items():
        with pytest.warns(DeprecationWarning, match=f"{old} is {new} now"):
            sys.modules.pop(old, None)
            moved = importlib.import_module(old)
        assert moved is importlib.import_module(new) and moved.__spec__.name == new


def test_old_names_of_a_module_are_what_they_were():
    from distill._moved import MOVED_NAMES

    for module, names in MOVED_NAMES.items():
        for old, new in names.items():
            with pytest.warns(DeprecationWarning, match=f"{module}.{old} is {new} now"):
                moved = getattr(importlib.import_module(module), old)
            place, _, name = new.rpartition(".")
            assert moved is getattr(importlib.import_module(place), name)


@pytest.mark.parametrize("name", FILES)
def test_arrows_run_down_only(name):
    assert {module.partition(".")[0] for module in imported_by(name)} <= ALLOWED[name.partition(".")[0]]


def test_no_file_is_in_an_import_circle():
    graph = {name: imported_by(name, running_only=True) - {name} for name in FILES}
    try:
        list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(f"import circle: {' → '.join(error.args[1])}")


def test_the_files_are_found():
    assert {"distill.recipe.schema", "teachers.train", "students.train", "recipes.cli", "distill"} <= set(FILES)
    assert "distill.training.losses" in imported_by("distill.training.terms")


COMMAND_LINE = {
    f"recipes.{name}" for name in ("cli", "commands", "mining", "options", "printing", "ray_jobs", "score_embed")
}
STAGES = [
    name
    for name in FILES
    if name.startswith("recipes.") and not name.startswith("recipes._") and name not in COMMAND_LINE
]


@pytest.mark.parametrize("name", STAGES)
def test_recipes_are_entry_points_without_logic(name):
    """A docstring, imports, a `main` without branches or loops, and the `__main__` line."""
    tree = tree_of(name)
    functions = [
        node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    ]
    assert {function.name for function in functions} <= {"main"}
    logic = (ast.For, ast.While, ast.If, ast.Try, ast.With, ast.comprehension, ast.IfExp, ast.Lambda)
    for function in functions:
        assert not [node for node in ast.walk(function) if isinstance(node, logic)]
    assert len(tree.body) <= 6


def test_command_line_computes_nothing():
    """recipes.cli hands over to distill, teachers and students: no loops, no numbers, no files of its own."""
    tree = ast.parse(FILES["recipes.cli"].read_text(encoding="utf-8"))
    assert not [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.For | ast.While | ast.comprehension | ast.BinOp)
        and not isinstance(getattr(node, "op", None), ast.BitOr)
    ]
    called = {node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    assert "open" not in called


@pytest.mark.parametrize("name", FILES)
def test_exports_are_sorted_and_exist(name):
    tree = tree_of(name)
    assigned = [
        node for node in tree.body if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
    ]
    if not assigned:
        assert name.startswith("recipes") or FILES[name].name == "__init__.py"
        return
    exported = ast.literal_eval(assigned[0].value)
    # constants, classes, functions: as ruff sorts them (RUF022)
    assert exported == sorted(exported, key=lambda item: (not item.isupper(), not item[0].isupper(), item))
    assert len(exported) == len(set(exported))
    module = importlib.import_module(name)
    assert [item for item in exported if not hasattr(module, item)] == []


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        (
            "recipes.cli",
            {"torch", "transformers", "datasets", "pydantic", "sentence_transformers", "pandas", "sklearn"},
        ),
        ("distill.recipe.schema", {"torch", "transformers", "datasets", "sentence_transformers"}),
        # an installation for serving has no pyarrow either
        *(
            (module, {"torch", "transformers", "datasets", "sentence_transformers", "sklearn", "scipy", "pyarrow"})
            for module in ("recipes.commands", "recipes.score_embed")
        ),
        ("distill.data.pairs", {"torch", "transformers", "datasets", "sentence_transformers"}),
    ],
)
def test_imports_stay_light(module, heavy):
    program = f"import sys, {module}; print(*sorted({heavy!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


@pytest.mark.parametrize(
    "words",
    [
        ["run", "quickstart", "data.train=pairs.csv"],
        ["doctor", "quickstart", "data.train=pairs.csv"],
        ["benchmark", "a_model", "--pairs", "pairs.csv"],
    ],
    ids=lambda words: words[0],
)
def test_wrong_pairs_are_refused_before_anything_heavy_is_imported(words, tmp_path):
    (tmp_path / "pairs.csv").write_text("query,document,lable\na,b,1\n")
    model = tmp_path / "a_model"
    model.mkdir()
    (model / "modules.json").write_text("[]")
    program = (
        "import sys; from recipes.cli import main; code = main(sys.argv[1:]); "
        "print(code, *sorted({'torch', 'transformers', 'sklearn'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *words],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["2"]
    assert "error: " in done.stderr and "data: " not in done.stderr
