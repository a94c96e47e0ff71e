"""What keeps a distillation from working is found on planted faults, and clean data raise no alarm."""

from types import SimpleNamespace

import numpy as np
import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from distill.data.cut_texts import CutTexts
from distill.data.pairs import Pairs
from distill.diagnosis.findings import Finding, ordered
from distill.diagnosis.scores import (
    check_against_labels,
    check_group_temperature,
    check_same_scores,
    check_scale,
    check_temperature,
    check_wrong_labels,
    suspects,
)
from distill.diagnosis.teachers import check_beside_floor, check_cut, check_prompts, check_tokens
from distill.diagnosis.texts import (
    check_contradictions,
    check_copies,
    check_floor,
    check_labels,
    check_scripts,
    check_sides,
)
from distill.metrics.measures import Estimate

RNG = np.random.default_rng(0)
LABELS = np.repeat([0.0, 1.0], 1000)
LOGITS = RNG.normal(0, 1.5, 2000) + 3 * (LABELS - 0.5)  # ROC-AUC about 0.92


def sigmoid(values):
    return 1 / (1 + np.exp(-values))


def alarms(findings):
    return [(finding.level, finding.check) for finding in findings if finding.level != "note"]


# ---------------------------------------------------------------------------------------------------------------------
# Scores
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scores", "kind", "expected"),
    [
        (LOGITS, "cross_encoder", []),
        (np.tanh(LOGITS), "bi_encoder", []),
        (np.clip(np.tanh(LOGITS), 0, 1), "bi_encoder", []),  # cosines may well be positive
        (sigmoid(LOGITS), "cross_encoder", [("problem", "scale")]),
        (sigmoid(sigmoid(LOGITS)), "cross_encoder", [("problem", "sigmoid twice")]),
        (0.1 + LOGITS / 100, "cross_encoder", []),  # hardly trained: logits that are close to each other
        (0.6 + LOGITS / 200, "cross_encoder", []),
        (LOGITS, "bi_encoder", [("problem", "scale")]),
        (np.full(2000, 0.7), "cross_encoder", [("problem", "constant")]),
        (np.where(np.arange(2000) == 7, np.nan, LOGITS), "cross_encoder", [("problem", "finite")]),
    ],
)
def test_a_scale_that_is_another_is_found(scores, kind, expected):
    assert alarms(check_scale("signals of t", scores, kind)) == expected


def test_a_scale_is_said_in_the_numbers_that_the_user_gave():
    given = np.linspace(2.6, 3.6, 100)  # of 0 to 5
    (finding,) = check_scale("t", np.log(given / (5 - given)), "cross_encoder", score_range=(0.0, 5.0))
    assert finding.says.startswith("its scores from 2.6 to 3.6, mapped from score_range [0, 5] to logits from 0.08 to")
    assert finding.advice.startswith("set score_range")


def test_scores_are_held_against_labels():
    def found(scores, labels=LABELS):
        return alarms(check_against_labels("t", scores, labels, where="validation"))

    assert found(LOGITS) == []
    assert found(-LOGITS) == [("problem", "against labels")]
    assert found(RNG.permutation(LOGITS)) == [("problem", "unrelated to labels")]
    few = np.tile([0.0, 1.0], 30)  # too few to tell a weak relation from none
    assert found(np.random.default_rng(3).normal(0, 1, 60) + 0.4 * few, few) in (
        [],
        [("warning", "unrelated to labels")],
    )
    assert found(LOGITS, np.ones(2000)) == [] and found(LOGITS, None) == []
    half = np.where(np.arange(2000) % 2, LABELS, np.nan)  # pairs without a label do not count
    (note,) = check_against_labels("t", LOGITS, half, where="training")
    assert note.numbers["n_pairs"] == 1000 and "1000 training pairs" in note.says


def test_stored_scores_are_held_against_the_teachers_own():
    def found(stored):
        return check_same_scores("signals of t", stored, LOGITS[:32], spread=float(LOGITS.std()))

    assert found(LOGITS[:32]) == [] and found(LOGITS[:32] + 0.01) == []  # another precision
    (shuffled,) = found(LOGITS[32:64])
    assert shuffled.level == "problem" and "do not belong to their pairs" in shuffled.says
    (revision,) = found(LOGITS[:32] + RNG.normal(0, 0.5, 32))
    assert revision.level == "problem" and "another revision" in revision.says


@pytest.mark.parametrize(("temperature", "expected"), [(1, []), (4, []), (0.02, "warning"), (100, "problem")])
def test_a_temperature_that_leaves_nothing_is_found_with_a_better_one(temperature, expected):
    found = check_temperature("score_match of t", sigmoid(LOGITS / temperature), temperature, LOGITS)
    assert [finding.level for finding in found] == ([expected] if expected else [])
    if found:
        better = float(found[0].advice.split("about ")[1].split(",")[0])
        assert check_temperature("", sigmoid(LOGITS / better), better, LOGITS) == []


def test_a_temperature_for_scores_far_from_zero_spreads_them():
    high = 6.0 + 1.5 * LOGITS / LOGITS.std()
    (finding,) = check_temperature("score_match of t", sigmoid(high / 0.1), 0.1, high)
    better = float(finding.advice.split("about ")[1].split(",")[0])
    assert better > 1  # half of the standard deviation leaves all targets at 1
    assert check_temperature("", sigmoid(high / better), better, high) == []


def test_scores_that_no_temperature_spreads_are_to_be_matched_as_logits():
    high = 2.3 + 0.1 * LOGITS / LOGITS.std()  # cosines of .82 ± .02, as E5 gives them
    (finding,) = check_temperature("score_match of t", sigmoid(high), 1, high)
    assert finding.level == "problem" and "set score_match.loss to logit_mse" in finding.advice
    assert "temperature to about" not in finding.advice


@pytest.mark.parametrize(("temperature", "expected"), [(1, []), (0.003, "warning"), (100, "problem")])
def test_a_temperature_over_candidates_is_neither_flat_nor_steep(temperature, expected):
    groups = np.split(RNG.permutation(2000), 250)
    found = check_group_temperature("score_match of t", LOGITS, groups, temperature)
    assert [finding.level for finding in found] == ([expected] if expected else [])


def test_negatives_that_are_positives_are_told_from_classes_that_overlap():
    assert check_wrong_labels("t", LOGITS, LABELS) == []
    weak = RNG.normal(0, 1, 2000) + 0.9 * LABELS  # ROC-AUC about 0.74: overlap is no wrong label
    assert check_wrong_labels("t", weak, LABELS) == []
    flipped = LABELS.copy()
    flipped[1000:1111] = 0.0  # a tenth of the negatives are positives now
    (finding,) = check_wrong_labels("t", LOGITS, flipped)
    assert (finding.level, finding.check) == ("warning", "false negatives")
    assert 0.08 < finding.numbers["share"] < 0.16
    mirrored = LABELS.copy()
    mirrored[:111] = 1.0
    assert alarms(check_wrong_labels("t", LOGITS, mirrored)) == [("warning", "false positives")]
    worst = suspects(LOGITS, flipped, 50)
    assert np.isin(worst, np.arange(1000, 1111)).mean() > 0.6  # 6 % of all pairs are flipped


# ---------------------------------------------------------------------------------------------------------------------
# Pairs
# ---------------------------------------------------------------------------------------------------------------------

QUESTIONS = [f"where can i find a {thing} of size {n}?" for n in range(100) for thing in ("shoe", "bag", "lamp")]
ANSWERS = [
    f"The {thing} number {n} stands in aisle {n % 7}; staff will help."
    for n in range(100)
    for thing in ("shoe", "bag", "lamp")
]
LABEL = np.tile(np.array([0.0, 1.0, 1.0], dtype=np.float32), 100)
TRAIN = Pairs(QUESTIONS[:240], ANSWERS[:240], LABEL[:240])
EVALUATION = Pairs(QUESTIONS[240:], ANSWERS[240:], LABEL[240:])


def test_swapped_columns_are_found_where_sides_differ():
    swapped = Pairs(EVALUATION.documents, EVALUATION.queries, EVALUATION.labels)
    assert alarms(check_sides(TRAIN, {"evaluation pairs": EVALUATION})) == []
    (finding,) = check_sides(TRAIN, {"evaluation pairs": swapped})
    assert (finding.level, finding.check, finding.about) == ("problem", "swapped sides", "evaluation pairs")
    alike = Pairs(QUESTIONS[:240], QUESTIONS[30:270], LABEL[:240])  # the same kind of text on both sides
    assert check_sides(alike, {"evaluation pairs": swapped}) == []
    part = Pairs(
        [*TRAIN.documents[:30], *TRAIN.queries[30:]], [*TRAIN.queries[:30], *TRAIN.documents[30:]], TRAIN.labels
    )
    assert alarms(check_sides(part, {})) == [("warning", "swapped sides")]


def test_labels_against_common_terms_are_found():
    assert alarms(check_floor(Pairs(QUESTIONS, ANSWERS, LABEL), LABEL + RNG.normal(0, 0.3, 300))) == []
    assert alarms(check_floor(Pairs(QUESTIONS, ANSWERS, 1 - LABEL), LABEL + RNG.normal(0, 0.3, 300))) == [
        ("problem", "inverted labels")
    ]


def test_labels_that_are_all_alike_are_found():
    ones = Pairs(QUESTIONS, ANSWERS, np.ones(300, dtype=np.float32))
    assert check_labels(TRAIN, [None]) == [] and alarms(check_labels(ones, ["infonce", "infonce"])) == []
    assert alarms(check_labels(ones, ["infonce", None])) == [("problem", "labels alike")]
    assert alarms(check_labels(ones, [])) == [("warning", "labels alike")]


def test_contradictory_labels_and_equal_texts_without_a_match_are_counted():
    assert check_contradictions(TRAIN) == []
    twice = Pairs(
        [*TRAIN.queries, *TRAIN.queries[:20]],
        [*TRAIN.documents, *TRAIN.documents[:20]],
        np.concatenate([LABEL[:240], 1 - LABEL[:20]]),
    )
    assert alarms(check_contradictions(twice)) == [("warning", "contradictory labels")]
    equal = Pairs(
        [*TRAIN.queries, *QUESTIONS[:20]],
        [*TRAIN.documents, *(f"{text} " for text in QUESTIONS[:20])],
        np.concatenate([LABEL[:240], np.zeros(20)]),
    )
    assert alarms(check_contradictions(equal)) == [("warning", "false negatives")]


def test_near_copies_of_evaluation_pairs_are_found_in_training():
    clean = Pairs(["the cat sat on the mat", "stocks fell sharply"], ["a feline rests", "markets dropped today"])
    held = Pairs(["completely other words here", "nothing alike at all"], ["never seen before", "unique text"])
    assert alarms(check_copies(clean, held)) == []
    copied = Pairs(["The cat sat on the mat!", "stocks fell sharply"], ["A feline rests.", "unique text"])
    (finding,) = check_copies(clean, copied)  # of the second pair one text alone
    assert (finding.level, finding.numbers["pairs"]) == ("warning", 0.5)


def test_words_that_differ_in_vowel_signs_are_no_copies():
    train = Pairs(["मिल", "दिन कि रात"], ["बेल", "सीप की माला"])
    held = Pairs(["मूल", "दान का रात"], ["बाल", "साँप का मेल"])
    assert alarms(check_copies(train, held)) == []
    assert alarms(check_copies(train, Pairs(["मिल!"], ["बेल"]))) == [("warning", "leak")]


def test_a_language_that_training_lacks_is_found():
    korean = Pairs(["안녕하세요 반갑습니다", "오늘 날씨가 좋네요"], ["처음 뵙겠습니다", "비가 옵니다"])
    assert alarms(check_scripts(TRAIN, EVALUATION)) == []
    assert alarms(check_scripts(TRAIN, korean)) == [("warning", "scripts")]


# ---------------------------------------------------------------------------------------------------------------------
# Teachers
# ---------------------------------------------------------------------------------------------------------------------


def word_tokenizer(vocabulary, normalizer=None):
    backend = Tokenizer(models.WordLevel({word: n for n, word in enumerate(["[UNK]", *vocabulary])}, "[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Split("", "isolated") if normalizer else pre_tokenizers.Whitespace()
    if normalizer:
        backend.normalizer = normalizer
    return SimpleNamespace(
        backend_tokenizer=backend, model_input_names=("input_ids",), pad_token_id=0, truncation_side="right"
    )


def test_a_tokenizer_that_does_not_know_a_script_is_found():
    english, korean = ["the lamp stands here"] * 20, ["불이 켜져 있습니다"] * 20
    known = word_tokenizer(["the", "lamp", "stands", "here", "불이", "켜져", "있습니다"])
    assert check_tokens("teacher t", known, [*english, *korean]) == []
    lacking = word_tokenizer(["the", "lamp", "stands", "here"])
    assert alarms(check_tokens("teacher t", lacking, [*english, *korean])) == [("problem", "language")]
    few = [*english, *(f"{english[0]} {english[0]} lamp{number}" for number in range(20))]  # a word of 13
    (found,) = check_tokens("teacher t", known, few)
    assert (found.level, found.check) == ("warning", "language") and 0.02 < found.numbers["unknown"] < 0.2
    assert "what they say is lost" in found.line
    jamo = sorted({letter for text in korean for letter in normalizers.NFD().normalize_str(text)})
    assert alarms(check_tokens("teacher t", word_tokenizer(jamo, normalizers.NFD()), korean)) == [
        ("warning", "language")
    ]


@pytest.mark.parametrize(
    ("backbone", "prompts", "wanted"),
    [
        ("intfloat/multilingual-e5-small", ("", ""), True),
        ("models/e5-base-v2/", ("", ""), True),
        ("intfloat/multilingual-e5-large-instruct", ("", ""), True),
        ("Qwen/Qwen3-Embedding-0.6B", ("", ""), True),
        ("intfloat/multilingual-e5-small", ("query: ", "passage: "), False),
        ("all-MiniLM-L6-v2", ("", ""), False),
        ("BAAI/bge-m3", ("", ""), False),
        ("nlpai-lab/KURE-v1", ("", ""), False),
    ],
)
def test_a_family_that_wants_prompts_and_gets_none_is_named(backbone, prompts, wanted):
    assert alarms(check_prompts("teacher t", backbone, prompts)) == ([("warning", "prompts")] if wanted else [])


def test_cut_texts_and_a_teacher_under_the_floor():
    assert check_cut("t", CutTexts(100, 0, 0, 128)) == []
    assert alarms(check_cut("t", CutTexts(100, 10, 5, 128))) == []
    (few,) = check_cut("t", CutTexts(3000, 1, 5, 128))
    assert few.says.startswith("max_length 128 cuts 1 of 3,000 texts, which lose")
    assert alarms(check_cut("t", CutTexts(100, 60, 80, 128))) == [("warning", "cut texts")]
    assert alarms(check_beside_floor("t", "roc_auc", 0.6, 0.8, Estimate(-0.2, -0.3, -0.1, 300))) == [
        ("problem", "under TF-IDF")
    ]
    assert alarms(check_beside_floor("t", "roc_auc", 0.79, 0.8, Estimate(-0.01, -0.05, 0.03, 300))) == [
        ("warning", "under TF-IDF")
    ]
    assert alarms(check_beside_floor("t", "roc_auc", 0.9, 0.8, Estimate(0.1, 0.05, 0.15, 300))) == []


def test_problems_come_first_and_a_line_says_what_to_do():
    note, problem = Finding("note", "a", "pairs", "seen"), Finding("problem", "b", "pairs", "bad", "mend it")
    assert ordered([note, problem]) == [problem, note]
    assert problem.line == "pairs: bad; mend it" and note.line == "pairs: seen"


def test_a_known_scale_is_not_guessed():
    scores = np.linspace(0, 1, 100)
    assert check_scale("t", scores, "cross_encoder") and not check_scale("t", scores, "cross_encoder", is_known=True)
