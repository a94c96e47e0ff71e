"""Read and check a language model's answers with résumé–JD pairs, write them out as text, and find near duplicates."""

import random
import re
from array import array
from collections.abc import Iterator, Mapping

import numpy as np
from pydantic import ValidationError

from distill.data.splitting import text_key
from distill.endpoints.answers import Answer
from distill.synthesis.prompts import PromptLanguage, ResumeAndJob, ResumeAndJobs

__all__ = ["NearDuplicates", "Unusable", "read_answer", "text_of", "write_out"]

_SHORTEST = {"ko": (120, 60), "en": (240, 120)}  # characters of a résumé and of a job description


class Unusable(Exception):
    """An answer that cannot be stored.

    :param reason: one of a few fixed reasons
    :param detail: further information for readers
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason)
        self.reason, self.detail = reason, detail


def read_answer(answer: Answer, n_jobs: int, language: PromptLanguage) -> ResumeAndJob:
    """Check an answer and return its content. A ``` fence or other text around the JSON object is ignored.

    :raises Unusable: if the answer is refused, cut off, empty, not valid, too short, or in another language
    """
    if answer.refusal or answer.finish_reason == "content_filter":
        raise Unusable("refused", answer.refusal or "content filter")
    if answer.finish_reason == "length":
        raise Unusable("cut off at max_tokens")
    if not answer.text.strip():
        raise Unusable("empty")
    text = answer.text[answer.text.find("{") : answer.text.rfind("}") + 1]
    shape = ResumeAndJob if n_jobs == 1 else ResumeAndJobs
    try:
        content = shape.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        reason = "not JSON" if first["type"] == "json_invalid" else "wrong shape"
        raise Unusable(reason, f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    _check_content(content, language)
    return content


def _check_content(content: ResumeAndJob, language: PromptLanguage) -> None:
    shortest_resume, shortest_job = _SHORTEST[language]
    documents = [("resume", content.resume.model_dump(), shortest_resume)]
    documents += [(f"job_{i}", job.model_dump(), shortest_job) for i, job in enumerate(content.jobs, start=1)]
    for name, sections, shortest in documents:
        if blank := [section for section, text in sections.items() if not text.strip()]:
            raise Unusable("empty section", f"{name}.{blank[0]}")
        text = text_of(sections)
        if len(text) < shortest:
            raise Unusable("too short", f"{name} has {len(text)} characters")
        if not _is_written_in(text, language):
            raise Unusable("wrong language", f"{name} is not {language}")
    if len({text_key(text_of(job.model_dump())) for job in content.jobs}) < len(content.jobs):
        raise Unusable("job descriptions alike")


def _is_written_in(text: str, language: PromptLanguage) -> bool:
    letters = [character for character in text if character.isalpha()]
    n_latin = sum(map(str.isascii, letters))
    n_hangul = sum("가" <= character <= "힣" for character in letters)
    if language == "en":
        return n_latin > 0.9 * len(letters)
    return n_hangul > 0.3 * len(letters) and n_hangul + n_latin > 0.9 * len(letters)


def text_of(sections: Mapping[str, str]) -> str:
    """Return a document's sections as text without headings, for comparison with other documents."""
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
    """Return a document as one text, with headings of one random style.

    A job's title and company are the first line.
    """
    style = rng.choice(HEADING_STYLES)
    lines = [f"{document['title'].strip()} - {document['company'].strip()}"] if "title" in document else []
    for name, heading in HEADINGS[language].items():
        if name in document:
            lines += [style.format(heading), document[name].strip()]
    return "\n".join(lines)


class NearDuplicates:
    """Find texts that share most of their character 5-grams, with MinHash and locality-sensitive hashing (Broder 1997).

    The 5-grams are those of `distill.data.splitting.text_key`. Two texts with Jaccard similarity *s* agree in each of
    125 minima with probability *s*, and in at least one of the 25 bands of 5 minima with probability 1 − (1 − s⁵)²⁵:
    0.99 at 0.7, 0.06 at 0.3, 0.002 at 0.15. Texts that agree in a band are compared by their share of equal minima,
    whose standard error is at most 0.045.

    >>> texts = NearDuplicates(threshold=0.7)
    >>> texts.add("a", "Ten years of work on compilers, and two on linkers.")
    >>> texts.find("Ten years of work on compilers, and  two on linkers!"), texts.find("A nurse of the night shift.")
    ('a', None)
    """

    _N_MINIMA, _ROWS = 125, 5
    _NGRAM = 5

    def __init__(self, threshold: float) -> None:
        self._threshold = threshold
        rng = np.random.default_rng(0)
        self._factors = rng.integers(1, 2**63, self._N_MINIMA, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
        self._powers = np.uint64(0x9E3779B97F4A7C15) ** np.arange(1, self._NGRAM + 1, dtype=np.uint64)
        self._bands: dict[bytes, array[int]] = {}
        self._names: list[str] = []
        self._minima = np.zeros((1024, self._N_MINIMA), dtype=np.uint32)  # one row for each name; grows by doubling

    def find(self, text: str) -> str | None:
        """Return the name of the first added text that is nearly the same; None if there is none."""
        minima = self._signature(text)
        candidates = sorted({row for band in self._split(minima) for row in self._bands.get(band, ())})
        if not candidates:
            return None
        alike = (self._minima[candidates] == minima).mean(axis=1) >= self._threshold
        return self._names[candidates[int(alike.argmax())]] if alike.any() else None

    def add(self, name: str, text: str) -> None:
        """Add a text, for later comparisons."""
        row, minima = len(self._names), self._signature(text)
        if row == len(self._minima):
            self._minima = np.concatenate([self._minima, np.zeros_like(self._minima)])
        self._minima[row] = minima
        self._names.append(name)
        for band in self._split(minima):
            self._bands.setdefault(band, array("L")).append(row)

    def _signature(self, text: str) -> np.ndarray:
        letters = re.sub(r"\W+", "", text_key(text).lower()).ljust(self._NGRAM)
        codes = np.frombuffer(letters.encode("utf-32-le", "surrogatepass"), dtype=np.uint32).astype(np.uint64)
        grams = np.unique(np.lib.stride_tricks.sliding_window_view(codes, self._NGRAM) @ self._powers)
        grams ^= grams >> np.uint64(29)
        hashes = np.outer(self._factors, grams)  # wraps at 2⁶⁴; the upper half of the bits is well mixed
        minima: np.ndarray = (hashes >> np.uint64(32)).min(axis=1).astype(np.uint32)
        return minima

    def _split(self, minima: np.ndarray) -> Iterator[bytes]:
        for start in range(0, self._N_MINIMA, self._ROWS):
            yield start.to_bytes(1, "little") + minima[start : start + self._ROWS].tobytes()
