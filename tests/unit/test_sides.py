"""One side of pairs: what the recipe asks for, and how vectors are compared with the teacher's, by hand."""

import numpy as np
import pytest

from distill.errors import BadInput, GateFailed
from distill.recipe.reading import load_recipe
from distill.recipe.schema import Asymmetric
from students.asymmetric import compare_sides
from tests.conftest import BI_TEACHER, write_recipe

OTHER = np.array([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8], [-1.0, 0.0]])
STUDENT = {"kind": "bi_encoder", "asymmetric": {"side": "query"}}


def test_vectors_are_compared_by_direction_and_by_what_they_find():
    teacher = np.array([[2.0, 0.0], [0.0, 1.0]])
    # the first points along the third document instead of the first, the second is the teacher's own
    student = np.array([[3.0, 4.0], [0.0, 5.0]])
    report = compare_sides(student, teacher, OTHER, role=0, top_k=2)
    assert (report.n_own, report.n_other, report.width, report.top_k) == (2, 4, 2, 2)
    assert report.mean_cosine == pytest.approx(0.8) and report.min_cosine == pytest.approx(0.6)
    # teacher's best two of the first: documents 0, 2; student's: 2, 1, of which one is the teacher's; of the second: both
    assert report.recall == pytest.approx(0.75)


def test_documents_are_found_by_the_other_sides_queries():
    teacher = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    student = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]])  # the last two changed places
    queries = np.array([[1.0, 0.1], [-0.1, 1.0]])
    report = compare_sides(student, teacher, queries, role=1, top_k=1)
    assert report.recall == 0.5 and report.n_own == 3 and report.n_other == 2
    assert compare_sides(teacher, teacher, queries, role=1, top_k=10).recall == 1.0


def test_another_width_is_another_space():
    with pytest.raises(GateFailed, match="have 3 numbers, the teacher's 2"):
        compare_sides(np.ones((2, 3)), np.ones((2, 2)), OTHER, role=0, top_k=1)


def test_thresholds():
    report = compare_sides(np.array([[3.0, 4.0]]), np.array([[1.0, 0.0]]), OTHER, role=0, top_k=2)
    assert report.failures(Asymmetric(min_cosine=0.6 - 1e-6, min_recall=0.5)) == []
    assert report.failures(Asymmetric(min_cosine=0.61, min_recall=0.6)) == [
        "mean cosine to the teacher's vectors 0.600, at least 0.61 is asked for (student.asymmetric.min_cosine)",
        "recall of the teacher's 2 best 0.500, at least 0.6 is asked for (student.asymmetric.min_recall)",
    ]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"student": {"asymmetric": {}}}, "student.asymmetric: a cross-encoder reads both sides at once"),
        (
            {"student": STUDENT},
            "student.asymmetric: the student learns to write into a teacher's space; set objectives.embedding_match",
        ),
        (
            {"student": STUDENT, "objectives": {"embedding_match": {"teacher": "bi", "projection": "drop"}}},
            "objectives.embedding_match.projection: an asymmetric student stays in the teacher's space",
        ),
        (
            {
                "student": STUDENT,
                "objectives": {"embedding_match": {"teacher": "bi"}},
                "benchmark": {"baselines": {"parts": {"kind": "paragraphs", "model": "student"}}},
            },
            "benchmark.baselines.parts.model: the student serves one side only",
        ),
        (
            {"student": {**STUDENT, "asymmetric": {"sides": "query"}}},
            "student.asymmetric.sides: unknown key; did you mean 'side'?",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(tmp_path, changes, problem):
    with pytest.raises(BadInput) as error:
        load_recipe(write_recipe(tmp_path, teachers={"bi": BI_TEACHER}, **changes))
    assert problem in str(error.value)
