"""Résumé–job-description pairs in Korean and English, made from a seed: data that needs no network.

**What determines the label.**  A résumé belongs to one job family, one specialism of it (a set of must-have skills),
one seniority level and one foreign language; a job description asks for one of each.  The label is 1 exactly when all
four are the same:

* the *family* (nursing, accounting, semiconductor process, ...);
* the *specialism*: then every must-have skill of the job description is among the skills of the résumé, perhaps in its
  other spelling (``쿠버네티스`` for ``Kubernetes``); the résumé has no must-have skill of another specialism;
* the *foreign language*, also a must-have, given by name or by certificate (``일본어`` or ``JLPT``);
* the *seniority level*: the résumé's total years are in the range that the job description states.

The kinds of negative break these rules:

* ``random_negative``: another family; its level and foreign language are drawn freely;
* ``skill_negative``: the same family and level, but another specialism and another foreign language;
* ``seniority_negative``: as in a positive, but for a level two steps away.

Nothing else matters: the rest of a text is drawn independently of the label, and each side draws its own language and
its own spelling of every skill, so that counting common words does not solve the task.  People and companies are
invented: telephone numbers are the unassigned ``010-0000`` and ``+1-555-01``, addresses end in ``example.com``.

A small cross-encoder with mean pooling, trained from random weights on labels alone, stayed at chance for more than a
thousand steps.  It learns if it is first trained as a bi-encoder for some hundred steps (contrastive, against the other
job descriptions of the batch).
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from distill.data.bundled_words import ENGLISH, FAMILIES, FOREIGN_LANGUAGES, KOREAN, LEVELS, Family, Skill
from distill.errors import BadInput

__all__ = ["KINDS", "Kind", "Language", "SyntheticPair", "generate_groups", "generate_pairs"]

_Item = TypeVar("_Item")
Kind = Literal["positive", "random_negative", "seniority_negative", "skill_negative"]
Language = Literal["ko", "en", "mixed"]
KINDS: tuple[Kind, ...] = ("positive", "random_negative", "seniority_negative", "skill_negative")

ENGLISH_SHARE = 0.3  # of the résumés
SWITCH_SHARE = 0.25  # of the job descriptions: written in the other language than the résumé
RESUME_SKILLS = 4  # of the five must-have skills of the specialism
JD_SKILLS = 3  # that a job description requires


@dataclass(frozen=True)
class SyntheticPair:
    """A résumé and a job description, whether they match, and why.

    ``family`` is the résumé's job family, ``kind`` says which rule the pair breaks, and ``language`` is ``mixed`` when
    the two texts are in different languages.
    """

    resume: str
    jd: str
    label: int
    family: str
    kind: Kind
    language: Language


@dataclass(frozen=True)
class _Profile:
    """What a résumé offers or a job description asks for, before it is written as text."""

    family: Family
    specialism: int
    level: int
    language: int
    skills: Sequence[Skill]


@dataclass(frozen=True)
class _Resume:
    """A résumé as text, with the profile it was made from."""

    profile: _Profile
    english: bool
    text: str


def generate_pairs(
    n_pairs: int, *, seed: int, positive_share: float = 0.5, hard_share: float = 0.7
) -> Iterator[SyntheticPair]:
    """Yield ``n_pairs`` pairs; ``hard_share`` of the negatives have the right family but a wrong level or specialism.

    Pair *i* depends only on ``seed``, the shares and *i*, so that a long sequence starts with the shorter one.

    >>> first, second = generate_pairs(2, seed=7)
    >>> first == next(generate_pairs(1, seed=7))
    True
    """
    _check_share("positive_share", positive_share)
    _check_share("hard_share", hard_share)
    for index in range(n_pairs):
        rng = random.Random(f"{seed}/pair/{index}")  # a text seed is hashed with SHA-512: the same in every process
        kind = "positive" if rng.random() < positive_share else _negative_kind(rng, hard_share)
        yield _pair(rng, _draw_resume(rng), kind)


def generate_groups(
    n_groups: int, *, seed: int, n_candidates: int = 8, hard_share: float = 0.7, start: int = 0
) -> Iterator[list[SyntheticPair]]:
    """Yield ``n_groups`` lists of ``n_candidates`` pairs that share one résumé, for ranking.

    Between one and a third of the candidates are positive, in random order.  Group *i* depends only on ``seed``, the
    settings and *i*; the first one has the number ``start``, so that a second call can continue an earlier one.

    >>> group = next(generate_groups(1, seed=7, n_candidates=5))
    >>> len(group), len({pair.resume for pair in group})
    (5, 1)
    """
    _check_share("hard_share", hard_share)
    if n_candidates < 2:
        raise BadInput(f"n_candidates is {n_candidates}; a group needs a positive and a negative, so at least 2")
    for index in range(start, start + n_groups):
        rng = random.Random(f"{seed}/group/{index}")
        resume = _draw_resume(rng)
        n_positive = rng.randint(1, max(1, n_candidates // 3))
        kinds: list[Kind] = ["positive"] * n_positive
        kinds += [_negative_kind(rng, hard_share) for _ in range(n_candidates - n_positive)]
        rng.shuffle(kinds)
        yield [_pair(rng, resume, kind) for kind in kinds]


def _check_share(name: str, share: float) -> None:
    if not 0 <= share <= 1:
        raise BadInput(f"{name} is {share}; a share lies between 0 and 1")


def _negative_kind(rng: random.Random, hard_share: float) -> Kind:
    if rng.random() >= hard_share:
        return "random_negative"
    return "seniority_negative" if rng.random() < 0.55 else "skill_negative"


def _draw_resume(rng: random.Random) -> _Resume:
    profile = _draw_profile(rng, rng.choice(FAMILIES), RESUME_SKILLS)
    english = rng.random() < ENGLISH_SHARE
    return _Resume(profile, english, _Writer(rng, english).resume(profile))


def _draw_profile(rng: random.Random, family: Family, n_skills: int) -> _Profile:
    specialism = rng.randrange(len(family.specialisms))
    level, language = rng.randrange(len(LEVELS)), rng.randrange(len(FOREIGN_LANGUAGES))
    return _Profile(family, specialism, level, language, rng.sample(family.specialisms[specialism], n_skills))


def _pair(rng: random.Random, resume: _Resume, kind: Kind) -> SyntheticPair:
    english = resume.english != (rng.random() < SWITCH_SHARE)
    jd = _Writer(rng, english).jd(_jd_profile(rng, resume.profile, kind))
    language: Language = "mixed" if english != resume.english else "en" if english else "ko"
    return SyntheticPair(resume.text, jd, int(kind == "positive"), resume.profile.family.key, kind, language)


def _jd_profile(rng: random.Random, profile: _Profile, kind: Kind) -> _Profile:
    """Return what a job description must ask for, so that it makes a pair of this kind with the résumé."""
    family, level = profile.family, profile.level
    if kind == "random_negative":
        return _draw_profile(rng, _draw_other(rng, FAMILIES, FAMILIES.index(family)), JD_SKILLS)
    if kind == "skill_negative":
        specialism = _draw_other(rng, range(len(family.specialisms)), profile.specialism)
        language = _draw_other(rng, range(len(FOREIGN_LANGUAGES)), profile.language)
        return _Profile(family, specialism, level, language, rng.sample(family.specialisms[specialism], JD_SKILLS))
    if kind == "seniority_negative":  # two steps around the circle, so that all levels are equally frequent
        level = (level + 2) % len(LEVELS)
    return _Profile(family, profile.specialism, level, profile.language, rng.sample(profile.skills, JD_SKILLS))


def _draw_other(rng: random.Random, items: Sequence[_Item], index: int) -> _Item:
    """Draw any item but the one at ``index``."""
    return items[(index + rng.randrange(1, len(items))) % len(items)]


class _Writer:
    """Writes profiles as texts of one language; no choice made here affects the label."""

    def __init__(self, rng: random.Random, english: bool) -> None:
        self.rng = rng
        self.english = english
        self.words = ENGLISH if english else KOREAN

    def resume(self, profile: _Profile) -> str:
        """Write a résumé, one section per line."""
        pick, words, number = self.pick, self.words, self.rng.randrange(10_000)
        sections = (
            words.contact.format(
                name=pick(words.people), number=number, line=number % 100, sector=self.term(profile.family.sector)
            ),
            self.career(profile),
            pick(words.education).format(major=self.term(profile.family.majors)),
            pick(words.skill_list).format(skills=self.listed([*profile.skills, *profile.family.common[:2]])),
            pick(words.languages).format(languages=self.fluency(profile)),
            pick(words.about).format(trait=pick(words.traits), other=pick(words.traits), extra=pick(words.extras)),
        )
        return "\n".join(sections)

    def career(self, profile: _Profile) -> str:
        """Write the section of a résumé that shows its level."""
        level, words = LEVELS[profile.level], self.words
        years = self.rng.randint(*level.years)
        return self.pick(words.career).format(
            years=words.total_years.format(years=years) if years else words.no_years,
            rank=self.term(level.rank),
            title=self.term(profile.family.titles),
            employer=self.term(profile.family.employers),
            duties=self.listed(profile.skills[:2]),
        )

    def jd(self, profile: _Profile) -> str:
        """Write a job description, one section per line."""
        pick, words = self.pick, self.words
        sections = (
            self.opening(profile),
            pick(words.duties).format(duties=self.listed(profile.skills[:2])),
            pick(words.requirements).format(
                years=words.years_wanted[profile.level],
                skills=self.listed(profile.skills),
                languages=self.fluency(profile),
            ),
            pick(words.preferred).format(trait=pick(words.traits), extra=pick(words.extras), place=pick(words.places)),
        )
        return "\n".join(sections)

    def opening(self, profile: _Profile) -> str:
        """Write the headline of a job description."""
        return self.pick(self.words.opening).format(
            company=self.pick(self.words.companies),
            title=self.term(profile.family.titles),
            grade=self.term(LEVELS[profile.level].grade),
            sector=self.term(profile.family.sector),
        )

    def listed(self, skills: Sequence[Skill]) -> str:
        """Return these skills in random order, each in a random spelling."""
        return ", ".join(self.spell(skill) for skill in self.rng.sample(skills, len(skills)))

    def fluency(self, profile: _Profile) -> str:
        """Return two names for the foreign language: the language itself or a certificate of it."""
        language = FOREIGN_LANGUAGES[profile.language]
        first, second = self.rng.sample(language.en if self.english else language.ko + language.en, 2)
        return f"{first} ({second})"

    def spell(self, skill: Skill) -> str:
        """Return a spelling of a skill; a Korean text also uses English ones."""
        return self.pick(skill.en if self.english or self.rng.random() < 0.5 else skill.ko)

    def term(self, word: Skill) -> str:
        """Return a title, an employer, a major or a rank in the language of the text."""
        return self.pick(word.en if self.english else word.ko)

    def pick(self, options: Sequence[_Item]) -> _Item:
        """Draw one of the options."""
        return options[int(self.rng.random() * len(options))]  # rng.choice takes three times as long
