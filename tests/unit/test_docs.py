"""README and docs: links point to files, generated pages are up to date, commands and recipes in them exist."""

import functools
import importlib.util
import re
import shlex

import pytest
import yaml

from tests.conftest import ROOT

PAGES = [ROOT / "README.md", *sorted(path for path in (ROOT / "docs").rglob("*.md") if not path.is_symlink())]
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
NAMES = [str(path.relative_to(ROOT)) for path in PAGES]


def blocks(path, *languages):
    """The fenced blocks of a page in one of the languages."""
    found = re.findall(r"^```(\w+)\n(.*?)^```", path.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    return [text for language, text in found if language in languages]


def commands(path):
    """The `distill …` commands of a page, as lists of arguments."""
    lines = "".join(blocks(path, "bash")).splitlines()
    return [shlex.split(line, comments=True) for line in lines if re.match(r"(\.venv/bin/)?distill ", line)]


@functools.cache
def generator():
    spec = importlib.util.spec_from_file_location("docs_generate", ROOT / "docs" / "generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", PAGES, ids=NAMES)
def test_every_relative_link_points_to_a_file(path):
    text = re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    targets = [link.split("#")[0] for link in LINK.findall(text) if not re.match(r"https?:|#", link)]
    assert [target for target in targets if not (path.parent / target).exists()] == []


def test_every_page_of_the_docs_is_in_the_navigation():
    nav = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert [name for name in NAMES[1:] if name.removeprefix("docs/") not in nav] == []


@pytest.fixture(scope="module")
def generated():
    return generator().pages()


def test_the_generated_pages_are_up_to_date(generated):
    for path, text in generated.items():
        assert path.read_text(encoding="utf-8") == text, f"{path.name} is old: run python docs/generate.py"


def test_only_values_are_spelled_as_yaml_does():
    text = "None is no limit, True is one. None of them trains."
    assert generator()._in_yaml(text) == "`null` is no limit, `true` is one. None of them trains."


def test_every_recipe_field_and_option_is_explained(generated):
    assert [line for page in generated.values() for line in page.splitlines() if re.match(r"\| `.*\|  \|$", line)] == []


def test_every_command_of_the_pages_has_the_options_that_it_names():
    from recipes.cli import command

    known = command().commands
    seen = 0
    for path in PAGES:
        for _, name, *arguments in commands(path):
            options = {option for one in known[name].params for option in (*one.opts, *one.secondary_opts)}
            used = {argument.split("=")[0] for argument in arguments if argument.startswith("-")}
            assert used <= options, f"{path.name}: distill {name} has no {used - options}"
            seen += 1
    assert seen > 30


def test_the_recipes_of_the_pages_name_only_fields_that_exist():
    from distill.recipe import Recipe

    known = {key: None for key in Recipe.model_fields}
    for path in PAGES:
        for text in blocks(path, "yaml"):
            given = yaml.safe_load(text)
            assert set(given) <= set(known), path.name
            for key, section in given.items():
                check_fields(Recipe.model_fields[key].annotation, section, f"{path.name}: {key}")


def check_fields(annotation, value, where):
    """Compare the keys of a mapping with the fields of the sections that may stand there, one level at a time."""
    sections = list(generator()._models_in(annotation))
    if not sections:
        return
    is_named = str(annotation).startswith("dict[")
    for mapping in value.values() if is_named else [value]:
        if not isinstance(mapping, dict):
            continue
        fields = {(f.alias or n): f for one in sections for n, f in one.model_fields.items()}
        assert set(mapping) <= set(fields), f"{where}: {set(mapping) - set(fields)}"
        for key, inner in mapping.items():
            check_fields(fields[key].annotation, inner, f"{where}.{key}")


def test_the_readme_is_one_page():
    assert len(PAGES[0].read_text(encoding="utf-8").splitlines()) <= 150
