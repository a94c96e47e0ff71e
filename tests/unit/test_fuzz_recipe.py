"""Recipes mutated at random are valid, or refused in words: never another exception, never for long.

MATCHDISTILL_FUZZ_RUNS=5000 runs more of them.
"""

import copy
import os
import time
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from distill.errors import BadInput
from distill.recipe.reading import load_recipe, read_raw, validated
from distill.recipe.schema import HiddenMatch, Recipe
from tests.conftest import ROOT

RUNS = int(os.environ.get("MATCHDISTILL_FUZZ_RUNS", "0"))
SECONDS = 20
RECIPES = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in sorted((ROOT / "recipes").glob("*.yaml"))]
RECIPES = [raw for raw in RECIPES if "data" in raw and "train" in raw["data"]]
fuzzed = settings(max_examples=RUNS or 60, deadline=None, database=None, suppress_health_check=list(HealthCheck))

odd = st.one_of(
    st.sampled_from(
        [
            None,
            True,
            False,
            -1,
            0,
            1,
            2**31,
            2**63,
            10**23,
            -(10**23),
            1e308,
            -1e308,
            float("nan"),
            float("inf"),
            1e-320,
            "",
            " ",
            "..",
            "../..",
            "/",
            "/dev/null",
            "a/b",
            "x" * 300,
            "\0",
            "\ud800",
            "null",
            "bundled",
            "all-linear",
            "cross",
            [],
            {},
            [[]],
            [{}],
            {"": 1},
            {1: 2},
            {None: None},
            {"kind": "remote"},
            [0, 0],
            [3, 1],
            {"teacher": "x"},
            {"importance": 3},
            b"x",
        ]
    ),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.lists(st.integers(-3, 3), max_size=4),
)


_DEEPEST = 20


def places(value, path=()):
    """All places in nested mappings and lists, but those in what is nested hundreds deep on purpose."""
    yield path
    if len(path) > _DEEPEST:
        return
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places(inner, (*path, key))


def at(value, path):
    for key in path:
        value = value[key]
    return value


@st.composite
def mutated(draw):
    """A recipe with one to four places replaced, removed, added to or moved."""
    raw = copy.deepcopy(draw(st.sampled_from(RECIPES)))
    for _ in range(draw(st.integers(1, 4))):
        *parents, last = draw(st.sampled_from([path for path in places(raw) if path]))
        node = at(raw, parents)
        how = draw(st.sampled_from(["replace", "replace", "remove", "add", "graft"]))
        if how == "remove":
            del node[last]
        elif how == "add" and isinstance(node, dict):
            node[draw(st.text(max_size=6)) or "x"] = draw(odd)
        elif how == "graft":
            node[last] = copy.deepcopy(at(raw, draw(st.sampled_from(list(places(raw))))))
        else:
            node[last] = draw(odd)
        if not isinstance(raw, dict) or not raw:
            break
    return raw


def outcome(work):
    """Run; what is refused is one message of lines that are not endless."""
    start = time.perf_counter()
    try:
        result = work()
    except BadInput as refused:
        assert str(refused).strip() and max(map(len, str(refused).splitlines())) < 2000
        result = None
    assert time.perf_counter() - start < SECONDS
    return result


@seed(1)
@fuzzed
@given(mutated())
def test_a_mutated_recipe_is_valid_or_refused(raw):
    recipe = outcome(lambda: validated(Recipe, read_raw(raw), "recipe"))
    assert recipe is None or isinstance(recipe, Recipe)


@seed(2)
@fuzzed
@given(st.sampled_from(sorted((ROOT / "recipes").glob("*.yaml"))), st.data())
def test_a_file_with_other_bytes_is_read_or_refused(tmp_path_factory, path, data):
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 6))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place : place + data.draw(st.integers(0, 3))] = data.draw(
            st.one_of(
                st.binary(max_size=3),
                st.sampled_from([b"\t", b": ", b"&a ", b"*a ", b"[", b"{", b"!!python/name:os.system ", b"- ", b"\n"]),
            )
        )
    changed = tmp_path_factory.getbasetemp() / "fuzzed.yaml"
    changed.write_bytes(content)
    outcome(lambda: load_recipe(changed))


BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{n}: &{n} [{', '.join([f'*{p}'] * 9)}]\n" for p, n in zip("abcdefgh", "bcdefghi", strict=True)
)
WRONG = {
    "a bomb of aliases": (BOMB, "more than 200,000 values"),
    "nested a thousand deep": ("a: " + "[" * 1000 + "]" * 1000, "nested deeper than"),
    "nested ten thousand deep": ("a: " + "{a: " * 10_000 + "1" + "}" * 10_000, "nested deeper than"),
    "an alias of itself": ("a: &a [*a]", "holds itself"),
    "a key twice": ("name: x\nname: y\n", "'name' stands there twice"),
    "a key twice below": ("training: {epochs: 1, epochs: 2}\n", "'epochs' stands there twice"),
    "a list": ("- name: x\n", "a recipe is a mapping of sections, this is a list"),
    "a text": ("name\n", "this is one text"),
    "nothing": ("", "this is empty"),
    "a comment alone": ("# nothing\n", "this is empty"),
    "tabs": ("data:\n\ttrain: x\n", "not valid YAML"),
    "two documents": ("name: x\n---\nname: y\n", "not valid YAML"),
    "a number as a key": ("1: x\n", "1: unknown key"),
    "a number as a key twice": ("'1': x\n1: x\n", "'1' stands there twice"),
    "a fraction as a key": ("1.5: x\n", "has the key '1.5' \\(float\\)"),
    "a date": ("name: 2026-01-01\n", "is a date in YAML"),
    "a day that is none": ("name: 2026-99-99\n", "not valid YAML"),
    "a class of Python": ("name: !!python/object/apply:os.system [ls]\n", "not valid YAML"),
    "a number of 5,000 digits": ("seed: " + "9" * 5000 + "\n", "not valid YAML|digits"),
    "a number of 5,000 digits of base 16": ("seed: 0x" + "f" * 5000 + "\n", "number of 20000 bits"),
    "NUL": ('name: "a\\0b"\n', "NUL"),
    "half a pair": ('name: "\\ud800"\n', "surrogate"),
    "a set": ("name: !!set {a, b}\n", "is a set in YAML"),
}


@pytest.mark.parametrize("title", WRONG)
def test_a_wrong_file_is_refused_by_name(tmp_path, title):
    text, message = WRONG[title]
    path = tmp_path / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(BadInput, match=message) as refused:
        load_recipe(path)
    assert "recipe.yaml" in str(refused.value)


def test_a_file_in_another_encoding_is_refused_by_name(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_bytes("name: 이력서\n".encode("cp949"))
    with pytest.raises(BadInput, match="byte 7 is not UTF-8; save it as UTF-8"):
        load_recipe(path)


def test_what_yaml_offers_still_works(tmp_path):
    path = Path(tmp_path / "recipe.yaml")
    path.write_bytes("\ufeffbase: &base {epochs: 1, seed: 3}\nother: {<<: *base, epochs: 2}\n".encode())
    assert read_raw(path, ["other.deep.value=[1, 2]"]) == {
        "base": {"epochs": 1, "seed": 3},
        "other": {"epochs": 2, "seed": 3, "deep": {"value": [1, 2]}},
    }


def test_a_mapping_that_was_merged_can_be_merged_again(tmp_path):
    path = Path(tmp_path / "recipe.yaml")
    path.write_text("a: &a {key: 1}\nb: {c: &c {<<: *a, key: 2}}\nd: {<<: *c}\n", encoding="utf-8")
    assert read_raw(path) == {"a": {"key": 1}, "b": {"c": {"key": 2}}, "d": {"key": 2}}


def test_layers_are_named_by_whole_numbers_as_the_documentation_writes_them(tmp_path):
    path = Path(tmp_path / "recipe.yaml")
    path.write_text("match: {layers: {0: 0, 1: 4, -1: -1}}\n", encoding="utf-8")
    match = read_raw(path, ["match.teacher=deep"])["match"]
    assert HiddenMatch(**match).layers == {0: 0, 1: 4, -1: -1}


@pytest.mark.parametrize(
    "override",
    [
        "seed=-1",
        "seed=100000000000000000000000",
        "training.epochs=1e308",
        "training.epochs=1.0e+308",
        "benchmark.seconds=.inf",
        "benchmark.seconds=.nan",
        "name=" + "x" * 300,
        "name=a/b",
        "name=..",
        "data.max_pairs=10000000000000",
    ],
)
def test_a_value_out_of_bounds_is_refused_with_its_place(override):
    with pytest.raises(BadInput, match=override.partition("=")[0]):
        load_recipe(ROOT / "recipes" / "quickstart.yaml", [override])
