"""A teacher that is a Python function: given to the run, checked, called once for each text or pair."""

import numpy as np
import pytest

from distill.errors import BadInput, JobFailed
from distill.recipe.schema import Recipe
from distill.run import Run
from tests.conftest import BACKBONE, make_run, merge, tiny_recipe
from tests.tiny.test_black_boxes import score_of, vector_of

BI = {"kind": "bi_encoder", "backbone": BACKBONE, "layers": None, "max_length": 64, "control": False}
CROSS = {"kind": "cross_encoder", "backbone": BACKBONE, "layers": None, "head": [8]}


def run_of(folder, function, gives="embeddings", /, **changes):
    mine = {"kind": "callable", "gives": gives, "revision": "1"}
    embeddings = {"score_match": None, "embedding_match": {"teacher": "mine"}}
    base = {
        "teachers": {"cross": None, "mine": mine},
        "student": BI if gives == "embeddings" else CROSS,
        "objectives": embeddings if gives == "embeddings" else {"score_match": {"teacher": "mine", "loss": "bce"}},
        "training": {"max_steps": 2},
        "signals": {"allow_unrelated": True},
    }
    recipe = Recipe.model_validate(tiny_recipe(folder / "run", **merge(base, changes)))
    return Run(recipe, callables={} if function is None else {"mine": function})


def stages(run):
    from students import train_student
    from teachers import cache_signals, train_teachers

    for stage in (train_teachers, cache_signals, train_student):
        stage(run)


def test_a_function_of_texts_teaches_and_is_asked_once(tmp_path):
    from distill.runtime import load

    asked = []

    def embed(texts):
        asked.extend(texts)
        return [vector_of(text) for text in texts]

    run = run_of(tmp_path, embed, teachers={"mine": {"prompts": ["query: ", ""]}})
    stages(run)
    train = run.split.train
    looked_at = {"query: " + text for text in train.queries[:2]} | set(train.documents[:2])
    texts = [text for text in asked if text not in looked_at]
    assert len(texts) == len(set(texts))
    assert set(asked) == {"query: " + text for text in train.queries} | set(train.documents)
    assert load(run.student).embedding_width == len(vector_of("a"))
    n_asked = len(asked)
    stages(run_of(tmp_path, None, teachers={"mine": {"prompts": ["query: ", ""]}}))  # finished: needs no function
    assert len(asked) == n_asked


def test_a_function_of_pairs_teaches(tmp_path):
    from distill.evaluation.benchmark import score_row, teacher_row

    def score(queries, documents):
        return np.array([score_of(query, document) for query, document in zip(queries, documents, strict=True)])

    run = run_of(tmp_path, score, "scores")
    stages(run)
    evaluation = run.split.evaluation
    scored = score_row(run, teacher_row(run, "mine"), evaluation)
    np.testing.assert_allclose(scored.unit, score(evaluation.queries, evaluation.documents), atol=1e-6)
    score_row(run_of(tmp_path, None, "scores"), teacher_row(run, "mine"), evaluation)  # its scores are kept


def test_another_revision_is_another_teacher(tmp_path):
    from teachers import train_teachers

    def embed(texts):
        return [vector_of(text) for text in texts]

    train_teachers(run_of(tmp_path, embed))
    with pytest.raises(BadInput, match=r"was made from something else \(teacher.revision: 1 → 2\)"):
        train_teachers(run_of(tmp_path, embed, teachers={"mine": {"revision": "2"}}))


def test_a_recipe_alone_names_no_function(tmp_path):
    from teachers import train_teachers

    with pytest.raises(BadInput) as problem:
        train_teachers(run_of(tmp_path, None))
    message = (
        "teacher mine is of kind callable: its function is given in Python, Run(recipe, callables={'mine': function}); "
    )
    assert str(problem.value) == message + "a recipe file alone names none"
    assert not (tmp_path / "run" / "teachers").exists()


def fails(texts):
    raise KeyError("no such word")


WRONG = {
    "raised KeyError on [0-9] items: 'no such word'": fails,
    r"returned an array of shape \([0-9],\) for [0-9] items; \([0-9], width\) is expected": lambda texts: (
        [1.0] * len(texts)
    ),
    r"returned an array of shape \(1, 3\)": lambda texts: np.ones((1, 3)),
    "returned str; an array of numbers": lambda texts: "vectors",
    "returned NoneType|shape": lambda texts: None,
    "returned list; an array of numbers": lambda texts: [[1.0], [1.0, 2.0]] + [[1.0]] * (len(texts) - 2),
    "NaN, infinity or a vector of zeros for 1 of": lambda texts: np.eye(len(texts))[:, 1:],
    "NaN, infinity or a vector of zeros for [0-9] of": lambda texts: np.full((len(texts), 2), np.nan),
}


@pytest.mark.parametrize("says", WRONG)
def test_what_a_function_returns_is_checked_before_anything_is_trained(tmp_path, says):
    from teachers import train_teachers

    with pytest.raises((BadInput, JobFailed), match=says) as problem:
        train_teachers(run_of(tmp_path, WRONG[says]))
    assert "\n" not in str(problem.value) and str(problem.value).startswith("teacher mine: its function")


def test_functions_are_of_teachers_of_the_recipe(tmp_path):
    recipe = run_of(tmp_path, None).recipe
    with pytest.raises(BadInput, match="no teacher of kind callable is called 'other'; did you mean|known: mine"):
        Run(recipe, callables={"other": len})
    with pytest.raises(BadInput, match="callables: mine is str, no function"):
        Run(recipe, callables={"mine": "module.name"})
    with pytest.raises(BadInput, match="no teacher of kind callable is called 'cross'; known: none"):
        Run(make_run(tmp_path / "other").recipe, callables={"cross": len})
