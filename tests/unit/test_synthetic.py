import re
from collections import Counter
from itertools import islice

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.metrics import roc_auc_score

from distill.data.bundled import KINDS, SyntheticPair, generate_groups, generate_pairs
from distill.data.bundled_words import FAMILIES, FOREIGN_LANGUAGES, LEVELS, Skill
from distill.errors import BadInput

BY_KEY = {family.key: family for family in FAMILIES}


@pytest.fixture(scope="module")
def pairs() -> list[SyntheticPair]:
    return list(generate_pairs(5000, seed=3))


def forms(skill: Skill) -> set[str]:
    return {*skill.ko, *skill.en}


def listed_skills(text: str) -> set[str]:
    lines = text.split("\n")
    section = next(
        line for line in lines if line.startswith(("[기술]", "[보유기술]", "[핵심역량]")) or "kills] " in line
    )
    return set(section.partition("] ")[2].split(", "))


def tfidf_auc(pairs: list[SyntheticPair], **settings: object) -> float:
    resumes, jds = [pair.resume for pair in pairs], [pair.jd for pair in pairs]
    vectorizer = TfidfVectorizer(**settings).fit(resumes + jds)
    cosine = np.asarray(vectorizer.transform(resumes).multiply(vectorizer.transform(jds)).sum(axis=1)).ravel()
    return float(roc_auc_score([pair.label for pair in pairs], cosine))


def test_the_same_seed_gives_the_same_pairs_and_another_seed_others(pairs):
    assert list(generate_pairs(50, seed=3)) == pairs[:50]
    assert list(generate_pairs(50, seed=4)) != pairs[:50]


def test_the_text_of_a_seed_is_the_same_in_every_process():
    pair = next(generate_pairs(1, seed=0))
    assert (pair.family, pair.kind, pair.language) == ("procurement", "positive", "ko")


def test_a_short_run_is_the_start_of_a_long_one(pairs):
    assert list(islice(generate_pairs(10**12, seed=3), 20)) == pairs[:20]
    long = list(generate_groups(6, seed=3))
    assert list(generate_groups(2, seed=3)) == long[:2]


def test_many_families_of_several_specialisms(pairs):
    assert len(FAMILIES) >= 25
    assert {pair.family for pair in pairs} == set(BY_KEY)
    assert all(len(family.specialisms) in (2, 3) for family in FAMILIES)


def test_no_skill_name_belongs_to_two_specialisms():
    groups = [group for family in FAMILIES for group in (*family.specialisms, family.common)]
    names = Counter(name for group in groups for name in set().union(*map(forms, group)))
    assert [name for name, times in names.items() if times > 1] == []


def test_texts_have_their_sections(pairs):
    for pair in pairs[:500]:
        resume = [line.split("]")[0] for line in pair.resume.split("\n")]
        assert resume[0] in ("[인적사항", "[Personal")
        assert len(resume) == 6
        assert resume[1] in ("[경력", "[경력사항", "[Experience", "[Work history")
        assert resume[2] in ("[학력", "[학력사항", "[Education")
        assert resume[5] in ("[자기소개", "[자기소개서", "[Summary", "[About me")
        assert pair.jd.count("\n") == 3
        assert all(line.startswith("[") for line in pair.jd.split("\n"))


def test_people_are_fictitious(pairs):
    assert all("/ 010-0000-" in pair.resume or "/ +1-555-01" in pair.resume for pair in pairs)
    assert all("@example.com" in pair.resume for pair in pairs)


def test_labels_are_balanced_and_every_kind_occurs(pairs):
    kinds = Counter(pair.kind for pair in pairs)
    assert abs(kinds["positive"] / len(pairs) - 0.5) < 0.03
    assert min(kinds[kind] for kind in KINDS) > 0.1 * len(pairs)
    assert all(pair.label == (pair.kind == "positive") for pair in pairs)


def test_shares_are_settable():
    only = {pair.kind for pair in generate_pairs(200, seed=1, positive_share=0.0, hard_share=0.0)}
    assert only == {"random_negative"}
    assert {pair.label for pair in generate_pairs(50, seed=1, positive_share=1.0)} == {1}


def wanted(pair: SyntheticPair) -> tuple[str, int]:
    """The family and specialism whose must-haves the job description names."""
    must = next(
        line for line in pair.jd.split("\n") if line.startswith(("[자격", "[지원자격", "[Requirements", "[Must"))
    )
    words = set(must.replace(",", " ").replace(".", " ").split())
    counted = {
        (family.key, number): sum(bool(forms(skill) & words) for skill in specialism)
        for family in FAMILIES
        for number, specialism in enumerate(family.specialisms)
    }
    return max(counted, key=lambda key: counted[key])


def test_hard_negatives_ask_for_the_family_of_the_resume_and_random_ones_do_not(pairs):
    for pair in pairs[:600]:
        assert (wanted(pair)[0] == pair.family) == (pair.kind != "random_negative"), pair


def test_skills_are_covered_unless_the_negative_is_about_skills(pairs):
    for pair in pairs[:600]:
        family, number = wanted(pair)
        has = listed_skills(pair.resume)
        covered = sum(bool(forms(skill) & has) for skill in BY_KEY[family].specialisms[number])
        assert covered == (4 if pair.kind in ("positive", "seniority_negative") else 0), pair


def level_of_resume(pair: SyntheticPair) -> int:
    stated = re.search(r"(\d+)(년| years)", pair.resume)
    years = int(stated[1]) if stated else 0
    return next(number for number, level in enumerate(LEVELS) if level.years[0] <= years <= level.years[1])


def level_of_jd(pair: SyntheticPair) -> int:
    marks = (("경력 무관", "no experience"), ("1~4년", "1-4 years"), ("5~9년", "5-9 years"), ("10년", "10+"))
    return next(level for level, mark in enumerate(marks) if any(text in pair.jd for text in mark))


def test_seniority_is_right_in_positives_and_wrong_in_seniority_negatives(pairs):
    for pair in pairs[:600]:
        gap = abs(level_of_resume(pair) - level_of_jd(pair))
        if pair.kind != "random_negative":
            assert gap == (2 if pair.kind == "seniority_negative" else 0), pair


def test_both_spellings_of_a_skill_occur_and_differ_within_pairs(pairs):
    assert len({pair.language for pair in pairs}) == 3
    korean = [pair for pair in pairs if pair.language == "ko" and pair.label]
    assert any("파이썬" in pair.resume for pair in korean)
    assert any("Python" in pair.resume for pair in korean)
    assert any("쿠버네티스" in pair.resume and "쿠버네티스" not in pair.jd and "k8s" in pair.jd for pair in korean)


def test_no_pair_is_made_twice(pairs):
    assert len({(pair.resume, pair.jd) for pair in pairs}) == len(pairs)


def test_the_level_and_language_asked_for_say_nothing_on_their_own(pairs):
    positive = np.array([pair.label for pair in pairs], dtype=bool)
    levels = np.array([level_of_jd(pair) for pair in pairs])
    for level in range(len(LEVELS)):
        assert abs(positive[levels == level].mean() - 0.5) < 0.05
    for language in FOREIGN_LANGUAGES:
        asked = np.array([any(form in pair.jd for form in forms(language)) for pair in pairs])
        assert abs(positive[asked].mean() - 0.5) < 0.05


@pytest.mark.parametrize(
    "settings", [{}, pytest.param({"analyzer": "char_wb", "ngram_range": (2, 4)}, marks=pytest.mark.slow)]
)
def test_common_words_do_not_solve_the_task(pairs, settings):
    assert 0.65 < tfidf_auc(pairs[:1000], **settings) < 0.80


def test_neither_side_alone_tells_the_label(pairs):
    for side in ("resume", "jd"):
        features = TfidfVectorizer().fit_transform(getattr(pair, side) for pair in pairs)
        label = np.array([pair.label for pair in pairs])
        direction = features[:3000][label[:3000] == 1].mean(axis=0) - features[:3000][label[:3000] == 0].mean(axis=0)
        assert roc_auc_score(label[3000:], np.asarray(features[3000:] @ direction.T).ravel()) < 0.56


def test_groups_share_a_resume_and_hold_both_labels():
    for group in generate_groups(50, seed=5, n_candidates=9):
        assert len(group) == 9
        assert len({pair.resume for pair in group}) == 1
        assert 1 <= sum(pair.label for pair in group) <= 3


def test_bad_settings_are_refused():
    with pytest.raises(BadInput, match="positive_share is"):
        next(generate_pairs(1, seed=0, positive_share=1.5))
    with pytest.raises(BadInput, match="n_candidates is 1"):
        next(generate_groups(1, seed=0, n_candidates=1))
