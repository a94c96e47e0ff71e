"""Have a language model write résumé–job-description pairs: paid once, killed at any time, finished exactly.

    slot ─▶ cell (family × seniority × language) ─▶ prompt ─▶ answer ─▶ checked ─▶ answers.jsonl ─▶ pairs.jsonl
                                                                 └─▶ rejected.jsonl, with the reason

**What is asked.**  One request asks for a résumé and for the job descriptions that are paired with it, so that the same
résumé stands under different labels.  With binary labels that is a match and a near miss (another specialism of the
family, or a level two steps away); for a `random_share` of the requests only the match is asked, and the second pair is
made here from the résumé and the job description of another family, which costs nothing.  With grades it is two grades
of 0–4 that turn so that five requests hold every grade twice.

**Numbers.**  Request number *i* always asks for the same cell.  A request whose answer is unusable `max_tries` times, or
is a near duplicate of an earlier one, is set aside; its substitute is request *i + n_requests*, of the same cell.

**Files** of the output folder, append-only, one JSON object per line; a line that a kill cut off is cut away:

    answers.jsonl   the truth: an answer counts once its line is on disk; résumé and jobs by section
    pairs.jsonl     what `data.train` reads: resume, jd, label, …; written anew from the answers when a run begins and ends
    rejected.jsonl  every unusable answer with its reason
    spending.jsonl  what each request may cost, before it is sent, and what it did cost; what a kill left open counts in full
    settings.json   what the pairs depend on; README.md and card.json: the data card, when all is done
"""

import asyncio
import fcntl
import json
import logging
import os
import random
import re
import statistics
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from distill.artefact import content_hash, write_json
from distill.errors import BadInput, JobFailed
from distill.progress import Progress, progress
from distill.remote import (
    PRICES_AS_OF,
    Answer,
    BadAnswer,
    Budget,
    BudgetSpent,
    Client,
    Endpoint,
    Message,
    Usage,
    estimated_tokens,
    most_tokens,
    run_all,
)
from distill.synthetic_tables import ENGLISH, FAMILIES, FOREIGN_LANGUAGES, KOREAN, LEVELS, Family, Skill

__all__ = ["Estimate", "NearDuplicates", "SynthesisSettings", "estimate", "make_settings", "synthesize"]

log = logging.getLogger(__name__)
Record = dict[str, Any]
Language = Literal["ko", "en"]

_MAX_SUBSTITUTES = 5  # per slot and run: then the model is not up to the task
_SHORTEST = {"ko": (120, 60), "en": (240, 120)}  # characters of a résumé and of a job description
_TYPICAL_TOKENS = {"ko": (900, 450), "en": (650, 300)}  # of a résumé and of a job description, for the estimate
_ESTIMATED_FROM = 200  # prompts


class SynthesisSettings(BaseModel):
    """What to write, with which model, for how much money at most."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, hide_input_in_errors=True)

    n_pairs: int = Field(ge=2)
    endpoint: Endpoint = Endpoint(model="gpt-4o-mini")
    languages: tuple[Language, ...] = Field(default=("ko", "en"), min_length=1)
    labels: Literal["binary", "grades"] = "binary"
    random_share: float = Field(default=0.25, ge=0, le=1)  # of negatives, made here without asking; binary labels only
    near_duplicate: float = Field(
        default=0.7, gt=0, le=1
    )  # share of common character 5-grams from which a text is none
    seed: int = 0
    temperature: float = Field(default=1.0, ge=0, le=2)
    max_tokens: int = Field(default=4096, ge=256)  # of an answer; also what a request is expected to cost at worst
    max_tries: int = Field(default=3, ge=1)  # per request, against unusable answers
    budget_usd: float = Field(default=5.0, gt=0)  # of all runs into the folder together

    @property
    def n_requests(self) -> int:
        """Each request gives two pairs; where their number is odd, the last gives one."""
        return -(-self.n_pairs // 2)

    def content(self) -> Record:
        """Return what the pairs depend on: a run goes on only where all of it is the same."""
        names = {"n_pairs", "languages", "labels", "random_share", "near_duplicate", "seed", "temperature"}
        return self.model_dump(mode="json", include=names) | {
            "model": self.endpoint.model,
            "prompt_hash": prompt_hash(),
        }


def make_settings(**options: Any) -> SynthesisSettings:
    """Build settings from flat options: fields of `SynthesisSettings` and of `Endpoint`; None leaves the default.

    >>> make_settings(n_pairs=10, model="gpt-4o", languages="ko,en", seed=None).languages
    ('ko', 'en')

    :raises BadInput: naming every option that is wrong.
    """
    given: Record = {name: value for name, value in options.items() if value is not None}
    if isinstance(given.get("languages"), str):
        given["languages"] = tuple(given["languages"].replace(" ", "").split(","))
    endpoint = {name: given.pop(name) for name in list(given) if name in Endpoint.model_fields}
    try:
        return SynthesisSettings(endpoint=Endpoint(**{"model": "gpt-4o-mini"} | endpoint), **given)
    except ValidationError as error:
        problems = (f"{'.'.join(map(str, e['loc']))}: {e['msg'].removeprefix('Value error, ')}" for e in error.errors())
        raise BadInput("; ".join(problems)) from None


# ------------------------------------------------------------------------------------------------ what is asked


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
class Cell:
    """What a request is about: the unit of coverage."""

    family: Family
    level: int
    language: Language


def cell_of(slot: int, settings: SynthesisSettings) -> Cell:
    """Return the cell of a slot.

    As many slots as there are families name each once; the combinations of level and language turn below them, so that
    after families × combinations slots every cell came once.
    """
    families = list(FAMILIES)
    combinations = list(product(range(len(LEVELS)), settings.languages))
    rng = random.Random(f"{settings.seed}/cells")
    rng.shuffle(families)
    rng.shuffle(combinations)
    turn, position = divmod(slot, len(families))
    level, language = combinations[(turn + position) % len(combinations)]
    return Cell(families[position], level, language)


def asked_kinds(slot: int, settings: SynthesisSettings) -> tuple[str, ...]:
    """Return the kinds of the pairs that a slot asks for, one or two.

    The last slot of an odd number of pairs asks for one. A slot whose negative is made here asks for the match alone.
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
    """Whether the second pair of a slot is made here, from its résumé and another family's job description."""
    if settings.labels == "grades" or settings.n_requests == 1 or _is_single(slot, settings):
        return False
    # drawn, not every n-th: that would be in step with the cells, and some of them would get no other negative
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


# the bundled wording, "no experience required", would let a senior candidate fit
BEGINNERS_ONLY = {"ko": "신입만 지원 가능 (경력자 제외)", "en": "new graduates only, no earlier jobs"}


def prompt_hash() -> str:
    """Return a hash of all prompts and of the shape of the answer."""
    return content_hash(
        [SYSTEM_PROMPTS, USER_PROMPTS, HISTORY_PROMPTS, JOB_PROMPTS, BEGINNERS_ONLY, ResumeAndJobs.model_json_schema()]
    )


def messages_of(number: int, attempt: int, settings: SynthesisSettings) -> list[Message]:
    """Return the prompt of a request: its cell by the slot, its details by the number, a new number for each attempt."""
    slot = number % settings.n_requests
    cell, kinds = cell_of(slot, settings), asked_kinds(slot, settings)
    details = _details(cell, random.Random(f"{settings.seed}/details/{number}"))
    wishes = JOB_PROMPTS[cell.language]
    jobs = "\n".join(f"job_{i}: {wishes[kind].format(**details)}" for i, kind in enumerate(kinds, start=1))
    request = USER_PROMPTS[cell.language].format(
        number=number, attempt=attempt, n_jobs=len(kinds), jobs=jobs, **details
    )
    return [{"role": "system", "content": SYSTEM_PROMPTS[cell.language]}, {"role": "user", "content": request}]


def _details(cell: Cell, rng: random.Random) -> dict[str, str]:
    """Draw what fills the prompts."""
    words = KOREAN if cell.language == "ko" else ENGLISH

    def term(skill: Skill) -> str:
        return rng.choice(skill.ko if cell.language == "ko" else skill.en)

    def listed(skills: Sequence[Skill]) -> str:
        return ", ".join(f"{s.ko[0]}({s.en[0]})" if cell.language == "ko" else s.en[0] for s in skills)

    own, other = rng.sample(cell.family.specialisms, 2)
    own_skills, other_skills = rng.sample(own, 4), rng.sample(other, 3)
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


def _years_wanted(level: int, language: Language) -> str:
    if LEVELS[level].key == "entry":
        return BEGINNERS_ONLY[language]
    return (KOREAN if language == "ko" else ENGLISH).years_wanted[level]


# ------------------------------------------------------------------------------------------------ what is answered


class _Unusable(Exception):
    """An answer that cannot be stored; `reason` is one of few, `detail` is for the reader."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason)
        self.reason, self.detail = reason, detail


def read_answer(answer: Answer, n_jobs: int, language: Language) -> ResumeAndJob:
    """Check an answer and return what it holds; a ``` fence or a sentence around the object is forgiven."""
    if answer.refusal or answer.finish_reason == "content_filter":
        raise _Unusable("refused", answer.refusal or "content filter")
    if answer.finish_reason == "length":
        raise _Unusable("cut off at max_tokens")
    if not answer.text.strip():
        raise _Unusable("empty")
    text = answer.text[answer.text.find("{") : answer.text.rfind("}") + 1]
    shape = ResumeAndJob if n_jobs == 1 else ResumeAndJobs
    try:
        content = shape.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        reason = "not JSON" if first["type"] == "json_invalid" else "wrong shape"
        raise _Unusable(reason, f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    _check_content(content, language)
    return content


def _check_content(content: ResumeAndJob, language: Language) -> None:
    shortest_resume, shortest_job = _SHORTEST[language]
    documents = [("resume", content.resume.model_dump(), shortest_resume)]
    documents += [(f"job_{i}", job.model_dump(), shortest_job) for i, job in enumerate(content.jobs, start=1)]
    for name, sections, shortest in documents:
        if blank := [section for section, text in sections.items() if not text.strip()]:
            raise _Unusable("empty section", f"{name}.{blank[0]}")
        text = _text_of(sections)
        if len(text) < shortest:
            raise _Unusable("too short", f"{name} has {len(text)} characters")
        if not _is_written_in(text, language):
            raise _Unusable("wrong language", f"{name} is not {language}")
    if len({_text_of(job.model_dump()) for job in content.jobs}) < len(content.jobs):
        raise _Unusable("job descriptions alike")


def _is_written_in(text: str, language: Language) -> bool:
    letters = [character for character in text if character.isalpha()]
    n_latin = sum(map(str.isascii, letters))
    n_hangul = sum("가" <= character <= "힣" for character in letters)
    if language == "en":
        return n_latin > 0.9 * len(letters)
    return n_hangul > 0.3 * len(letters) and n_hangul + n_latin > 0.9 * len(letters)


def _text_of(sections: Mapping[str, str]) -> str:
    return "\n".join(text.strip() for text in sections.values())


HEADINGS = {
    "ko": {
        "summary": "자기소개",
        "experience": "경력사항",
        "education": "학력",
        "skills": "보유기술",
        "languages": "어학",
        "duties": "담당업무",
        "requirements": "자격요건",
        "preferred": "우대사항",
    },
    "en": {
        "summary": "Summary",
        "experience": "Work Experience",
        "education": "Education",
        "skills": "Skills",
        "languages": "Languages",
        "duties": "Responsibilities",
        "requirements": "Requirements",
        "preferred": "Nice to have",
    },
}
HEADING_STYLES = ("[{}]", "■ {}", "## {}", "{}:")


def write_out(document: Mapping[str, str], language: str, rng: random.Random) -> str:
    """Return a document as one text, under headings of one style; the title of a job stands above."""
    style = rng.choice(HEADING_STYLES)
    lines = [f"{document['title'].strip()} - {document['company'].strip()}"] if "title" in document else []
    for name, heading in HEADINGS[language].items():
        if name in document:
            lines += [style.format(heading), document[name].strip()]
    return "\n".join(lines)


class NearDuplicates:
    """Find texts that share most of their character 5-grams, by MinHash and locality-sensitive hashing.

    Two texts with Jaccard similarity *s* agree in each of 64 minima with probability *s*, and meet in one of the 16
    bands of 4 minima with probability 1 − (1 − s⁴)¹⁶: 0.99 at 0.7, 0.12 at 0.3.  Those that meet are compared by the
    share of equal minima, whose standard error is at most 0.06.

    >>> texts = NearDuplicates(threshold=0.7)
    >>> texts.add("a", "Ten years of work on compilers, and two on linkers.")
    >>> texts.find("Ten years of work on compilers, and  two on linkers!"), texts.find("A nurse of the night shift.")
    ('a', None)
    """

    _N_MINIMA, _ROWS = 64, 4
    _NGRAM = 5

    def __init__(self, threshold: float) -> None:
        self._threshold = threshold
        rng = np.random.default_rng(0)
        self._factors = rng.integers(1, 2**63, self._N_MINIMA, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
        self._powers = np.uint64(0x9E3779B97F4A7C15) ** np.arange(1, self._NGRAM + 1, dtype=np.uint64)
        self._bands: dict[bytes, list[str]] = {}
        self._minima: dict[str, np.ndarray] = {}

    def find(self, text: str) -> str | None:
        """Return the name of a text added before that is nearly the same."""
        minima = self._signature(text)
        met = {name for band in self._split(minima) for name in self._bands.get(band, ())}
        for name in sorted(met):
            if np.mean(self._minima[name] == minima) >= self._threshold:
                return name
        return None

    def add(self, name: str, text: str) -> None:
        """Remember a text."""
        self._minima[name] = self._signature(text)
        for band in self._split(self._minima[name]):
            self._bands.setdefault(band, []).append(name)

    def _signature(self, text: str) -> np.ndarray:
        letters = re.sub(r"\W+", "", text.lower()).ljust(self._NGRAM)
        codes = np.frombuffer(letters.encode("utf-32-le", "surrogatepass"), dtype=np.uint32).astype(np.uint64)
        grams = np.lib.stride_tricks.sliding_window_view(codes, self._NGRAM) @ self._powers
        grams ^= grams >> np.uint64(29)
        hashes = np.outer(self._factors, grams)  # wraps at 2⁶⁴; the upper half of each is well mixed
        minima: np.ndarray = (hashes >> np.uint64(32)).min(axis=1).astype(np.uint32)
        return minima

    def _split(self, minima: np.ndarray) -> Iterator[bytes]:
        for start in range(0, self._N_MINIMA, self._ROWS):
            yield start.to_bytes(1, "little") + minima[start : start + self._ROWS].tobytes()


# ------------------------------------------------------------------------------------------------ what is kept


class _JsonLines:
    """An append-only file of JSON objects. What a kill left of a last line is cut off when it is read."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO | None = None
        self.records: list[Record] = []
        content = path.read_bytes() if path.exists() else b""
        whole = content[: content.rfind(b"\n") + 1]
        for number, line in enumerate(whole.splitlines(), start=1):
            try:
                self.records.append(json.loads(line))
            except ValueError:
                raise BadInput(f"{path}: line {number} is not JSON; restore the file or name another folder") from None
        if len(whole) < len(content):
            os.truncate(path, len(whole))

    def append(self, *records: Record, durable: bool = True) -> None:
        """Write records, in one write; with `durable` they are on disk when this returns."""
        if self._file is None:
            self._file = self._path.open("ab")
        text = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
        self._file.write(text.encode("utf-8", "backslashreplace"))
        self._file.flush()
        if durable:
            os.fsync(self._file.fileno())
        self.records += records

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


class _Store:
    """The output folder: what is there, and what is still to be asked."""

    def __init__(self, folder: Path, settings: SynthesisSettings) -> None:
        self.folder, self.settings = folder, settings
        self._answers = _JsonLines(folder / "answers.jsonl")
        self._rejected = _JsonLines(folder / "rejected.jsonl")
        self._spending = _JsonLines(folder / "spending.jsonl")
        self.answers = {record["request"] % settings.n_requests: record for record in self._answers.records}
        self._tries = Counter(record["request"] for record in self.rejected)
        self._duplicates = {record["request"] for record in self.rejected if record["reason"] == "near duplicate"}
        self._resumes, self._jobs = (NearDuplicates(settings.near_duplicate) for _ in range(2))
        for record in self._answers.records:
            self._remember(record)
        self._pairs = self._write_pairs()

    @property
    def rejected(self) -> list[Record]:
        """Every unusable answer, of all runs."""
        return self._rejected.records

    @property
    def n_pairs(self) -> int:
        """How many pairs are stored."""
        return len(self._pairs.records)

    @property
    def is_complete(self) -> bool:
        """Whether every slot has its answer."""
        return len(self.answers) == self.settings.n_requests

    def budget(self) -> Budget:
        """Return the budget with what earlier runs have spent; what a kill left open counts in full."""
        dollars: dict[str, float] = {}
        for change in self._spending.records:
            dollars[change.get("hold") or change["settled"]] = change["dollars"]
        # only a hold must be on disk before the request goes out: a lost settlement errs on the safe side
        return Budget(
            self.settings.budget_usd,
            spent=sum(dollars.values()),
            record=lambda change: self._spending.append(change, durable="hold" in change),
        )

    def open_slots(self) -> list[int]:
        """Return the slots that have no answer yet."""
        return [slot for slot in range(self.settings.n_requests) if slot not in self.answers]

    def next_request(self, slot: int) -> tuple[int, int]:
        """Return the number to ask for in a slot, and which attempt it is."""
        number = slot
        while number in self._duplicates or self._tries[number] >= self.settings.max_tries:
            number += self.settings.n_requests
        return number, self._tries[number] + 1

    def add(self, number: int, content: ResumeAndJob, usage: Usage) -> int:
        """Store an answer and return how many pairs it made.

        :raises _Unusable: where it is a near duplicate.
        """
        slot = number % self.settings.n_requests
        cell = cell_of(slot, self.settings)
        record: Record = {
            "request": number,
            "family": cell.family.key,
            "seniority": LEVELS[cell.level].key,
            "language": cell.language,
            "kinds": list(asked_kinds(slot, self.settings)),
            "resume": content.resume.model_dump(),
            "jobs": [job.model_dump() for job in content.jobs],
            "usage": usage._asdict(),
        }
        self._refuse_duplicate(record)
        self._answers.append(record)
        self._remember(record)
        self.answers[slot] = record
        pairs = self._asked_pairs(record)
        self._pairs.append(*pairs, durable=False)  # it can be made from the answers again
        return len(pairs)

    def reject(self, number: int, unusable: _Unusable, text: str) -> None:
        """Note an unusable answer."""
        self._rejected.append(
            {"request": number, "reason": unusable.reason, "detail": unusable.detail, "text": text[:20_000]}
        )
        self._tries[number] += 1
        if unusable.reason == "near duplicate":
            self._duplicates.add(number)

    def finish(self) -> list[Record]:
        """Write all pairs in the order of the slots, those that are made here among them, and return them."""
        self._pairs.close()
        self._pairs = self._write_pairs()
        return self._pairs.records

    def close(self) -> None:
        """Close all files."""
        for file in (self._answers, self._rejected, self._spending, self._pairs):
            file.close()

    def usage(self) -> Usage:
        """Return the tokens of the stored answers."""
        each = [record["usage"] for record in self._answers.records]
        return Usage(sum(usage["input_tokens"] for usage in each), sum(usage["output_tokens"] for usage in each))

    def _write_pairs(self) -> _JsonLines:
        path = self.folder / "pairs.jsonl"
        temporary = path.with_name(".pairs.jsonl.tmp")
        temporary.unlink(missing_ok=True)
        pairs = _JsonLines(temporary)
        pairs.append(*(pair for slot in sorted(self.answers) for pair in self._pairs_of(slot)))
        temporary.replace(path)
        return pairs

    def _pairs_of(self, slot: int) -> list[Record]:
        """Return the pairs of a slot; the one that is made here only when every partner is known."""
        pairs = self._asked_pairs(self.answers[slot])
        if makes_random_negative(slot, self.settings) and self.is_complete:
            pairs.append(self._random_negative(slot))
        return pairs

    def _asked_pairs(self, record: Record) -> list[Record]:
        return [self._pair(record, job, kind) for job, kind in zip(record["jobs"], record["kinds"], strict=True)]

    def _random_negative(self, slot: int) -> Record:
        """Pair the résumé of a slot with the match of the next slot of another family, in its language where there is one."""
        record, n = self.answers[slot], self.settings.n_requests

        def is_other(other: Record) -> bool:
            return bool(other["family"] != record["family"])

        def others() -> Iterator[Record]:
            return filter(is_other, (self.answers[(slot + step) % n] for step in range(1, n)))

        partner = next((other for other in others() if other["language"] == record["language"]), None) or next(others())
        return self._pair(record, partner["jobs"][0], "random_negative", jd_language=partner["language"])

    def _pair(self, record: Record, job: Mapping[str, str], kind: str, jd_language: str | None = None) -> Record:
        language = record["language"]
        resume_rng = random.Random(f"{self.settings.seed}/resume style/{record['request']}")
        job_rng = random.Random(f"{self.settings.seed}/job style/{content_hash(job)}")
        return {
            "resume": write_out(record["resume"], language, resume_rng),
            "jd": write_out(job, jd_language or language, job_rng),
            "label": label_of(kind),
            "kind": kind,
            "family": record["family"],
            "seniority": record["seniority"],
            "language": language,
            "request": record["request"],
        }

    def _refuse_duplicate(self, record: Record) -> None:
        if earlier := self._resumes.find(_text_of(record["resume"])):
            raise _Unusable("near duplicate", f"of the résumé of request {earlier}")
        for job in record["jobs"]:
            if earlier := self._jobs.find(_text_of(job)):
                raise _Unusable("near duplicate", f"of a job description of request {earlier.partition('/')[0]}")

    def _remember(self, record: Record) -> None:
        self._resumes.add(str(record["request"]), _text_of(record["resume"]))
        for i, job in enumerate(record["jobs"]):
            self._jobs.add(f"{record['request']}/{i}", _text_of(job))


@contextmanager
def _opened(folder: Path, settings: SynthesisSettings) -> Iterator[_Store]:
    """Yield the store of a folder that belongs to these settings and to no other process."""
    if folder.exists() and not folder.is_dir():
        raise BadInput(f"{folder} is a file; name a folder")
    folder.mkdir(parents=True, exist_ok=True)
    _check_settings(folder, settings.content())
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the kernel lets go of it when the process dies
        except OSError:
            raise BadInput(f"another process is writing to {folder}; wait for it or name another folder") from None
        store = _Store(folder, settings)
        try:
            yield store
        finally:
            store.close()


def _check_settings(folder: Path, content: Record) -> None:
    path = folder / "settings.json"
    if not path.is_file():
        if any(not entry.name.startswith(".") for entry in folder.iterdir()):
            raise BadInput(f"{folder} holds other files; name a new folder")
        write_json(path, content)
        return
    begun = json.loads(path.read_text(encoding="utf-8"))
    if changed := [name for name in content if begun.get(name) != content[name]]:
        named = ", ".join(f"{name} was {begun.get(name)!r} and is now {content[name]!r}" for name in changed)
        raise BadInput(f"{folder} was begun with other settings: {named}; set them back or name another folder")


# ------------------------------------------------------------------------------------------------ the run


@dataclass(frozen=True)
class Estimate:
    """What a whole run is expected to take, without retries."""

    n_requests: int
    input_tokens: int
    output_tokens: int
    dollars: float
    worst_dollars: float

    def __str__(self) -> str:
        return (
            f"{self.n_requests} requests, about {self.input_tokens:,} tokens in and {self.output_tokens:,} out: "
            f"about ${self.dollars:.2f}, at most ${self.worst_dollars:.2f}, retries not counted (prices of {PRICES_AS_OF})"
        )


def estimate(settings: SynthesisSettings) -> Estimate:
    """Say what `synthesize` will ask and about what it will cost; nothing is sent.

    :raises BadInput: where the price of the model is unknown.
    """
    n, price = settings.n_requests, settings.endpoint.price
    slots = range(0, n, max(1, n // _ESTIMATED_FROM))
    shape = json.dumps(ResumeAndJobs.model_json_schema())
    typical, longest, written = 0, 0, 0
    for slot in slots:
        prompt = json.dumps(messages_of(slot, 1, settings), ensure_ascii=False) + shape
        typical, longest = typical + estimated_tokens(prompt), longest + most_tokens(prompt)
        of_resume, of_job = _TYPICAL_TOKENS[cell_of(slot, settings).language]
        written += of_resume + of_job * len(asked_kinds(slot, settings))
    scale = n / len(slots)
    expected = Usage(round(typical * scale), round(written * scale))
    worst = Usage(round(longest * scale), settings.max_tokens * n)
    return Estimate(n, *expected, price.of(expected), price.of(worst))


def synthesize(settings: SynthesisSettings, output: Path, *, show_progress: bool = True) -> Path:
    """Write pairs until there are as many as asked for, and the data card; returns the file of the pairs.

    Call it again to go on after a kill, an error or Ctrl-C: what is stored is not asked again.

    :raises BadInput: on settings that the folder was not begun with, a missing key, or a price that nobody knows.
    :raises JobFailed: where the budget is used up, the server stays away or the model's answers stay unusable.
    """
    expected = estimate(settings)
    settings.endpoint.key()
    with _opened(output, settings) as store:
        if (output / "card.json").is_file() and store.is_complete:
            log.info("%s is finished already", output)
            return output / "pairs.jsonl"
        log.info("%s", expected)
        if expected.dollars > settings.budget_usd:
            log.warning("the budget of $%.2f will not suffice; what it pays for is kept", settings.budget_usd)
        budget = store.budget()
        with progress("synthesize", settings.n_pairs, start=store.n_pairs, show=show_progress) as report:
            try:
                faults = asyncio.run(_fill(store, budget, report))
            except BudgetSpent as spent:
                raise JobFailed(
                    f"{spent}; {store.n_pairs} of {settings.n_pairs} pairs are stored in {output}: "
                    "go on with the same settings and a larger budget"
                ) from None
            n_asked = store.n_pairs
            pairs = store.finish()
            if len(pairs) > n_asked:
                report(len(pairs) - n_asked)
        _write_card(store, pairs, budget.spent, faults)
    return output / "pairs.jsonl"


async def _fill(store: _Store, budget: Budget, report: Progress) -> Counter[str]:
    """Ask until every slot has its answer; returns what went wrong with server and network, by cause."""
    slots = iter(store.open_slots())
    async with Client(store.settings.endpoint, budget) as client:

        async def work() -> None:
            for slot in slots:  # shared: each worker takes the next one
                n_new = await _fill_slot(store, client, slot)
                report(n_new, f"${budget.spent:.4f} of ${store.settings.budget_usd:.2f}")

        await run_all(work() for _ in range(store.settings.endpoint.concurrency))
        return client.faults


async def _fill_slot(store: _Store, client: Client, slot: int) -> int:
    """Ask for the answer of one slot until it is usable; returns how many pairs it made."""
    settings = store.settings
    first, _ = store.next_request(slot)
    while True:
        number, attempt = store.next_request(slot)
        if number - first > _MAX_SUBSTITUTES * settings.n_requests:
            raise JobFailed(
                f"no usable answer to request {slot} or its {_MAX_SUBSTITUTES} substitutes (last: "
                f"{store.rejected[-1]['reason']}); look into {store.folder / 'rejected.jsonl'}, or take another model"
            )
        text = ""
        try:
            answer = await _ask(client, number, attempt, settings)
            text = answer.text
            content = read_answer(answer, len(asked_kinds(slot, settings)), cell_of(slot, settings).language)
            return store.add(number, content, answer.usage)
        except BadAnswer as error:
            store.reject(number, _Unusable(str(error)), text)
        except _Unusable as unusable:
            store.reject(number, unusable, text)


async def _ask(client: Client, number: int, attempt: int, settings: SynthesisSettings) -> Answer:
    n_jobs = len(asked_kinds(number % settings.n_requests, settings))
    return await client.chat(
        messages_of(number, attempt, settings),
        ResumeAndJob if n_jobs == 1 else ResumeAndJobs,
        max_tokens=settings.max_tokens,
        temperature=settings.temperature,
    )


# ------------------------------------------------------------------------------------------------ the data card


def _write_card(store: _Store, pairs: Sequence[Record], dollars: float, faults: Counter[str]) -> None:
    settings, reasons = store.settings, Counter(record["reason"] for record in store.rejected)
    card: Record = {
        "n_pairs": len(pairs),
        "n_requests": settings.n_requests,
        "settings": settings.content(),
        "model": settings.endpoint.model,
        "prompt_hash": prompt_hash(),
        "cost_usd": round(dollars, 6),
        "prices_usd_per_million_tokens": settings.endpoint.price._asdict(),
        "tokens_of_stored_answers": store.usage()._asdict(),
        "characters": {name: _lengths([pair[name] for pair in pairs]) for name in ("resume", "jd")},
        **{
            f"pairs_by_{name}": _counted(pairs, name) for name in ("label", "kind", "language", "seniority", "family")
        },
        "near_duplicates_removed": reasons.pop("near duplicate", 0),
        "rejected_by_reason": dict(reasons.most_common()),
        "server_faults_of_last_run": dict(faults.most_common()),
    }  # fmt: skip
    (store.folder / "README.md").write_text(_readme(card), encoding="utf-8")
    write_json(store.folder / "card.json", card)  # last: it says that all is done


def _lengths(texts: Sequence[str]) -> Record:
    lengths = [len(text) for text in texts]
    return {"min": min(lengths), "median": statistics.median(lengths), "max": max(lengths)}


def _counted(pairs: Sequence[Record], name: str) -> dict[str, int]:
    return dict(sorted(Counter(str(pair[name]) for pair in pairs).items()))


def _readme(card: Record) -> str:
    """Return the data card in words, with the header that dataset hubs read."""
    is_graded = card["settings"]["labels"] == "grades"
    languages = "".join(f"\n- {language}" for language in card["settings"]["languages"])
    tables = "\n\n".join(
        f"| {name} | pairs |\n|---|---:|\n" + "\n".join(f"| {key} | {n} |" for key, n in card[f"pairs_by_{name}"].items())
        for name in ("label", "kind", "language", "seniority", "family")
    )  # fmt: skip
    rejected = "\n".join(f"- {reason}: {n}" for reason, n in card["rejected_by_reason"].items()) or "- none"
    lengths = "\n".join(
        f"| {name} | {c['min']} | {c['median']:g} | {c['max']} |" for name, c in card["characters"].items()
    )
    return f"""---
language:{languages}
tags:
- synthetic
---
# {card["n_pairs"]} synthetic résumé–job-description pairs

Written by `{card["model"]}` from the prompts with hash `{card["prompt_hash"]}`; all people and companies are invented.
Cost: ${card["cost_usd"]:.4f}, requests whose fate is unknown counted in full. `settings.json` repeats what was asked.

Train with `data.train: pairs.jsonl`, columns `resume`, `jd`, `label`{", and `data.label_range: [0, 4]`" if is_graded else ""}.
The labels are what the model was asked for, not what a person judged: look through a sample before you rely on them.

{tables}

| characters | min | median | max |
|---|---:|---:|---:|
{lengths}

Near duplicates removed: {card["near_duplicates_removed"]}. Other answers that could not be used:

{rejected}
"""
