"""Requests to a language model for résumé–JD pairs: settings, the cell of each request, and the prompts.

A request number always gives the same cell (family × seniority × language), the same kinds of pairs and the same
prompt. The pairs depend on the prompts, and `prompt_hash` identifies the prompts.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from distill.data.bundled_words import ENGLISH, FAMILIES, FOREIGN_LANGUAGES, KOREAN, LEVELS, Family, Skill
from distill.endpoints.answers import Message
from distill.errors import BadInput
from distill.files.artefact import content_hash
from distill.recipe.endpoint import Endpoint

__all__ = [
    "PromptLanguage",
    "Record",
    "ResumeAndJob",
    "ResumeAndJobs",
    "Stratum",
    "SynthesisSettings",
    "asked_kinds",
    "label_of",
    "make_settings",
    "makes_random_negative",
    "messages_of",
    "option_of",
    "prompt_hash",
    "stratum_of",
]

Record = dict[str, Any]
PromptLanguage = Literal["ko", "en"]


_OPTIONS = {
    **{
        name: "--" + name.replace("_", "-")
        for name in ("model", "base_url", "api_version", "key_variable", "languages")
    },
    **{name: "--" + name.replace("_", "-") for name in ("concurrency", "input_price", "output_price", "seed")},
    "n_pairs": "--pairs",
    "labels": "--grades",
    "budget_usd": "--budget",
    "requests_per_minute": "--rpm",
    "tokens_per_minute": "--tpm",
    "timeout_s": "--timeout",
}


class SynthesisSettings(BaseModel):
    """Settings: the pairs to generate, the model, and the budget."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, hide_input_in_errors=True)

    n_pairs: int = Field(ge=2)
    endpoint: Endpoint = Endpoint(model="gpt-4o-mini")
    languages: tuple[PromptLanguage, ...] = Field(default=("ko", "en"), min_length=1)
    labels: Literal["binary", "grades"] = "binary"
    random_share: float = Field(default=0.25, ge=0, le=1)  # share of negatives without a request; binary labels only
    near_duplicate: float = Field(
        default=0.7, gt=0, le=1
    )  # share of common character 5-grams from which a text is a near duplicate
    seed: int = 0
    temperature: float = Field(default=1.0, ge=0, le=2)
    max_tokens: int = Field(default=4096, ge=256)  # of an answer; also for the worst-case cost of a request
    max_tries: int = Field(default=3, ge=1)  # attempts per request if answers are unusable
    budget_usd: float = Field(default=5.0, gt=0)  # for all runs into the folder together

    @property
    def n_requests(self) -> int:
        """The number of requests. Each gives two pairs; if the number of pairs is odd, the last gives one."""
        return -(-self.n_pairs // 2)

    def content(self) -> Record:
        """Return the settings on which the pairs depend. A run can only be continued if all of them are the same."""
        names = {"n_pairs", "languages", "labels", "random_share", "near_duplicate", "seed", "temperature"}
        return self.model_dump(mode="json", include=names) | {
            "model": self.endpoint.model,
            "prompt_hash": prompt_hash(),
        }


def make_settings(**options: Any) -> SynthesisSettings:
    """Return settings from flat options: fields of `SynthesisSettings` and of `Endpoint`; None keeps the default.

    >>> make_settings(n_pairs=10, model="gpt-4o", languages="ko,en", seed=None).languages
    ('ko', 'en')

    :raises BadInput: with every invalid option.
    """
    fields: Record = {name: value for name, value in options.items() if value is not None}
    if isinstance(fields.get("languages"), str):
        fields["languages"] = tuple(fields["languages"].replace(" ", "").split(","))
    endpoint = {name: fields.pop(name) for name in list(fields) if name in Endpoint.model_fields}
    try:
        return SynthesisSettings(endpoint=Endpoint(**{"model": "gpt-4o-mini"} | endpoint), **fields)
    except ValidationError as error:
        problems = (
            f"{option_of('.'.join(map(str, e['loc'])))}: {e['msg'].removeprefix('Value error, ')}"
            for e in error.errors()
        )
        raise BadInput("; ".join(problems)) from None


def option_of(field: str) -> str:
    """Return the name of a setting for messages: the command-line option, and the field if its name is different.

    >>> option_of("budget_usd"), option_of("model"), option_of("max_tokens"), option_of("languages.0")
    ('--budget (budget_usd)', '--model', 'max_tokens', '--languages')
    """
    name = field.split(".", maxsplit=1)[0]
    option = _OPTIONS.get(name)
    return field if option is None else option if option == "--" + name.replace("_", "-") else f"{option} ({name})"


class ResumeSections(BaseModel):
    """A résumé, section by section."""

    model_config = ConfigDict(extra="forbid", strict=True)

    summary: str
    experience: str
    education: str
    skills: str
    languages: str


class JobSections(BaseModel):
    """A job description, section by section."""

    model_config = ConfigDict(extra="forbid", strict=True)

    title: str
    company: str
    duties: str
    requirements: str
    preferred: str


class ResumeAndJob(BaseModel):
    """The answer to a request for one pair."""

    model_config = ConfigDict(extra="forbid", strict=True)

    resume: ResumeSections
    job_1: JobSections

    @property
    def jobs(self) -> list[JobSections]:
        """All job descriptions of the answer."""
        return [self.job_1]


class ResumeAndJobs(ResumeAndJob):
    """The answer to a request for two pairs."""

    job_2: JobSections

    @property
    def jobs(self) -> list[JobSections]:
        """All job descriptions of the answer."""
        return [self.job_1, self.job_2]


@dataclass(frozen=True)
class Stratum:
    """The cell of a request: occupational family, seniority level and language."""

    family: Family
    level: int
    language: PromptLanguage


def stratum_of(slot: int, settings: SynthesisSettings) -> Stratum:
    """Return the cell of a slot.

    Consecutive slots run through all families. The combinations of level and language are shifted by one in each turn,
    so that after families × combinations slots every cell has occurred once.
    """
    families = list(FAMILIES)
    combinations = list(product(range(len(LEVELS)), settings.languages))
    rng = random.Random(f"{settings.seed}/cells")
    rng.shuffle(families)
    rng.shuffle(combinations)
    turn, position = divmod(slot, len(families))
    level, language = combinations[(turn + position) % len(combinations)]
    return Stratum(families[position], level, language)


def asked_kinds(slot: int, settings: SynthesisSettings) -> tuple[str, ...]:
    """Return the kinds of the one or two pairs that a slot requests from the model.

    If the number of pairs is odd, the last slot requests one. A slot with a random negative requests only the match.
    """
    kinds: tuple[str, ...]
    if settings.labels == "grades":
        kinds = (f"grade_{(slot + 4) % 5}", f"grade_{(slot + 1) % 5}")
    elif makes_random_negative(slot, settings):
        kinds = ("positive",)
    else:
        draw = random.Random(f"{settings.seed}/kind/{slot}").random()
        kinds = ("positive", "skill_negative" if draw < 0.5 else "seniority_negative")
    return kinds[:1] if _is_single(slot, settings) else kinds


def makes_random_negative(slot: int, settings: SynthesisSettings) -> bool:
    """Return whether a slot's second pair is made without a request, from its résumé and a job of another family."""
    if settings.labels == "grades" or settings.n_requests == 1 or _is_single(slot, settings):
        return False
    # random, not every n-th slot: that would be in step with the cells, and some cells would only get random negatives
    return random.Random(f"{settings.seed}/random negative/{slot}").random() < settings.random_share


def _is_single(slot: int, settings: SynthesisSettings) -> bool:
    return 2 * (slot + 1) > settings.n_pairs


def label_of(kind: str) -> int:
    """Return the label of a kind of pair.

    >>> label_of("positive"), label_of("skill_negative"), label_of("grade_3")
    (1, 0, 3)
    """
    return int(kind.removeprefix("grade_")) if kind.startswith("grade_") else int(kind == "positive")


SYSTEM_PROMPTS = {
    "ko": """당신은 채용 데이터를 위해 이력서와 채용공고를 쓰는 전문 작가입니다.
- 실제 현장에서 볼 수 있는 구체적인 내용을 한국어로 씁니다. 기술 이름은 현업에서처럼 한글과 영문을 섞어 씁니다.
- 사람과 회사는 모두 지어냅니다. 실존 인물·기업의 이름, 전화번호, 이메일, 주소, 주민등록번호는 쓰지 않습니다.
- 이력서와 채용공고는 서로를 언급하지 않으며, 서로 얼마나 맞는지도 말하지 않습니다. 문장을 서로 베끼지 않습니다.
- 모든 채용공고는 길이와 문체가 비슷해야 하며, 각 항목은 빈칸 없이 채웁니다.
- 답은 주어진 형식의 JSON 객체 하나입니다.""",
    "en": """You are a professional writer of résumés and job descriptions for recruiting data.
- Write in English, with the concrete detail that real documents have.
- Invent all people and companies. Use no name of a real person or employer, and no phone number, e-mail, address or ID.
- The résumé and the job descriptions do not mention each other or say how well they fit, and copy no sentence from each other.
- All job descriptions have a similar length and style; no section is left empty.
- Answer with one JSON object of the given shape.""",
}
USER_PROMPTS = {
    "ko": """이력서 1편과 채용공고 {n_jobs}편을 써 주세요. (요청 번호 {number}.{attempt})

resume: {title}, {years}, 직급 {rank}, 전공은 {major}.
핵심 기술은 {skills}, 그 밖에 {common}. 외국어는 {foreign}. {trait} 사람.
{history}

{jobs}
각 채용공고는 8~14문장으로 씁니다.""",
    "en": """Write 1 résumé and {n_jobs} job description(s). (Request {number}.{attempt})

resume: {title}, {years}, rank: {rank}. Studied: {major}.
Core skills: {skills}; also {common}. Foreign language: {foreign}. A {trait} person.
{history}

{jobs}
Each job description has 8 to 14 sentences.""",
}
HISTORY_PROMPTS = {
    "ko": {
        "experienced": "experience에는 회사({employer} 등)별 기간, 맡은 업무, 수치로 된 성과를 적고 모두 12~20문장으로 씁니다.",
        "beginner": "정규 경력이 없으므로 experience에는 인턴, 실습, 교육, 개인 프로젝트만 적고 모두 8~15문장으로 씁니다.",
    },
    "en": {
        "experienced": "In experience, give for each employer ({employer} or the like) the period, the duties and results in numbers, 12 to 20 sentences in all.",
        "beginner": "There was no regular job yet: experience holds internships, courses and projects only, 8 to 15 sentences in all.",
    },
}
JOB_PROMPTS = {
    "ko": {
        "positive": "이 이력서의 지원자가 필수 요건을 모두 갖춘 공고. {years_wanted}, 필수 기술 {wanted_skills}, 외국어 {foreign}.",
        "skill_negative": "같은 직군이지만 세부 분야가 다른 공고. {years_wanted}, 필수 기술은 {other_skills}이고 이력서에 있는 핵심 기술은 요구하지 않습니다.",
        "seniority_negative": "같은 직무와 기술({wanted_skills})이지만 경력 요건이 지원자와 맞지 않는 공고. 반드시 {other_years_wanted} 요건을 명시합니다.",
        "grade_4": "지원자가 필수 요건과 우대 사항을 모두 갖춘 공고. {years_wanted}, 필수 기술 {wanted_skills}.",
        "grade_3": "지원자가 필수 요건은 갖추었지만 우대 사항은 갖추지 못한 공고. {years_wanted}, 필수 기술 {wanted_skills}, 우대 기술 {other_skills}.",
        "grade_2": "지원자가 필수 요건의 절반쯤만 갖춘 공고. {years_wanted}, 필수 기술은 {half_skills}와 {other_skills}.",
        "grade_1": "같은 직군이지만 세부 분야도 경력 요건도 다른 공고. {other_years_wanted}, 필수 기술 {other_skills}.",
        "grade_0": "전혀 다른 직군인 {other_title} 공고. {years_wanted}.",
    },
    "en": {
        "positive": "a job whose every requirement this candidate meets. {years_wanted}, must-have skills {wanted_skills}, language {foreign}.",
        "skill_negative": "the same family but another specialism. {years_wanted}, must-have skills {other_skills}; it asks for none of the résumé's core skills.",
        "seniority_negative": "the same work and skills ({wanted_skills}), but for another seniority than the candidate's. It must state: {other_years_wanted}.",
        "grade_4": "a job whose every requirement and preference this candidate meets. {years_wanted}, must-have skills {wanted_skills}.",
        "grade_3": "the candidate meets the requirements but not the preferences. {years_wanted}, must-have skills {wanted_skills}, preferred skills {other_skills}.",
        "grade_2": "the candidate meets about half of the requirements. {years_wanted}, must-have skills {half_skills} and {other_skills}.",
        "grade_1": "the same family, but another specialism and another seniority. {other_years_wanted}, must-have skills {other_skills}.",
        "grade_0": "an altogether different occupation: {other_title}. {years_wanted}.",
    },
}


# with the bundled wording, "no experience required", a senior candidate would be a match
BEGINNERS_ONLY = {"ko": "신입만 지원 가능 (경력자 제외)", "en": "new graduates only, no earlier jobs"}


def prompt_hash() -> str:
    """Return a hash of all prompts and of the JSON schema of the answer."""
    return content_hash(
        [SYSTEM_PROMPTS, USER_PROMPTS, HISTORY_PROMPTS, JOB_PROMPTS, BEGINNERS_ONLY, ResumeAndJobs.model_json_schema()]
    )


def messages_of(number: int, attempt: int, settings: SynthesisSettings) -> list[Message]:
    """Return the messages of a request.

    :param number: the slot (number modulo `n_requests`) decides the cell, and the number itself decides the details
    :param attempt: is part of the prompt, so that each attempt has another prompt
    """
    slot = number % settings.n_requests
    cell, kinds = stratum_of(slot, settings), asked_kinds(slot, settings)
    details = _details(cell, random.Random(f"{settings.seed}/details/{number}"))
    wishes = JOB_PROMPTS[cell.language]
    jobs = "\n".join(f"job_{i}: {wishes[kind].format(**details)}" for i, kind in enumerate(kinds, start=1))
    request = USER_PROMPTS[cell.language].format(
        number=number, attempt=attempt, n_jobs=len(kinds), jobs=jobs, **details
    )
    return [{"role": "system", "content": SYSTEM_PROMPTS[cell.language]}, {"role": "user", "content": request}]


def _details(cell: Stratum, rng: random.Random) -> dict[str, str]:
    """Draw the words that fill the prompts."""
    words = KOREAN if cell.language == "ko" else ENGLISH

    def term(skill: Skill) -> str:
        return rng.choice(skill.ko if cell.language == "ko" else skill.en)

    def listed(skills: Sequence[Skill]) -> str:
        return ", ".join(f"{s.ko[0]}({s.en[0]})" if cell.language == "ko" else s.en[0] for s in skills)

    own_specialism, other_specialism = rng.sample(cell.family.specialisms, 2)
    own_skills, other_skills = rng.sample(own_specialism, 4), rng.sample(other_specialism, 3)
    level = LEVELS[cell.level]
    years = rng.randint(*level.years)
    history = HISTORY_PROMPTS[cell.language]["experienced" if years else "beginner"]
    other_family = rng.choice([family for family in FAMILIES if family.sector != cell.family.sector])
    return {
        "title": term(cell.family.titles),
        "years": words.total_years.format(years=years) if years else words.no_years,
        "rank": term(level.rank),
        "history": history.format(employer=term(cell.family.employers)),
        "major": term(cell.family.majors),
        "skills": listed(own_skills),
        "wanted_skills": listed(own_skills[1:]),
        "half_skills": listed(own_skills[:2]),
        "other_skills": listed(other_skills),
        "common": listed(cell.family.common),
        "foreign": term(rng.choice(FOREIGN_LANGUAGES)),
        "trait": rng.choice(words.traits),
        "years_wanted": _years_wanted(cell.level, cell.language),
        "other_years_wanted": _years_wanted((cell.level + 2) % len(LEVELS), cell.language),
        "other_title": term(other_family.titles),
    }


def _years_wanted(level: int, language: PromptLanguage) -> str:
    if LEVELS[level].key == "entry":
        return BEGINNERS_ONLY[language]
    return (KOREAN if language == "ko" else ENGLISH).years_wanted[level]
