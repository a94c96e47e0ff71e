"""Remove personal identifiers from a résumé, as Korean fair-hiring law and blind hiring require.

Removed are labelled fields (`성명: …`), identifiers without a label (phone numbers, addresses), and names. A name that
was found once is removed at all its occurrences. The method is a set of rules and no model. It misses unusual
phrasings, so check the removed pieces before you rely on it.

Each regular expression takes linear time: quantifiers are bounded or possessive.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from distill.resumes.blinding_fields import entries, labelled
from distill.resumes.blinding_forms import PLACEHOLDERS, Identifier, Span
from distill.resumes.blinding_name_words import is_name
from distill.resumes.blinding_names import (
    header_names,
    is_own_name,
    names_of_handles,
    occurrences,
    other_spelling,
    romanized_names,
)
from distill.resumes.blinding_patterns import cells_of, patterns, personal_cells
from distill.resumes.plain_text import plain as plain_form
from distill.resumes.section_headings import HANGUL
from distill.resumes.sections import split_sections

__all__ = ["PLACEHOLDERS", "Blinded", "Identifier", "Removed", "blind"]


@dataclass(frozen=True)
class Removed:
    """A removed piece of text, with its kind and its offsets in the original text."""

    kind: Identifier
    text: str
    start: int
    end: int


@dataclass(frozen=True)
class Blinded:
    """A text without identifiers, and the removed identifiers in the order of the text."""

    text: str
    removed: list[Removed]


def blind(text: str) -> Blinded:
    r"""Remove the data that identify a person, and the data that an employer must not request.

    The latter are listed in article 4-3 of the Korean Fair Hiring Procedure Act: looks, height, weight; origin,
    marriage, property; education, work and property of relatives. Blind hiring also leaves out name, photo, birth date,
    age, gender, religion, address, identity numbers, phone, e-mail and personal pages.

    The rules read the plain form of the text (:mod:`distill.resumes.plain_text`), so decomposed Hangul, full-width and
    zero-width characters hide nothing. Text that is not removed is unchanged.

    Each removed piece is replaced by a neutral token (:data:`PLACEHOLDERS`, in Korean if the text has any Hangul).
    Labels are kept, so that all résumés keep their layout. A name that was found once is removed at all its
    occurrences; parts of a name are only removed if they cannot be a common word. Employers' addresses are removed like
    other addresses. Military service is kept, because the law requires it of applicants.

    >>> blind("성명: 홍길동 (만 29세)\n경력: 한빛병원 2019.03 ~ 2022.05\n동료들은 홍길동을 믿습니다.").text
    '성명: [이름]\n경력: 한빛병원 2019.03 ~ 2022.05\n동료들은 [이름]을 믿습니다.'
    """
    source = plain_form(text)
    plain = source.text
    personal = [section for section in split_sections(plain) if section.kind == "personal"]
    spans = list(labelled(plain, personal))
    fields = {start: kind for start, _, kind in spans}
    spans += [*patterns(plain), *personal_cells(plain, personal)]
    known = any(
        kind == "name" and HANGUL.search(plain, start, end) and is_own_name(plain, start) for start, end, kind in spans
    )
    header = list(header_names(plain, personal, known=known))
    spans += [*header, *names_of_handles(plain), *romanized_names(plain)]
    for start, end, _ in header:  # cells beside the name are personal data, whatever section the line belongs to
        spans += cells_of(plain, plain.rfind("\n", 0, start) + 1, (plain + "\n").index("\n", end))
    for start, end, kind in [*spans]:
        if kind == "name":
            spans += other_spelling(plain, start, end, labelled=fields.get(start) == "name")
    # if a labelled field starts at the same place, its kind is more precise than that of the entry
    whole = [(start, end, fields.get(start, kind)) for start, end, kind in entries(plain, personal)]
    for name in dict.fromkeys(
        plain[start:end] for start, end, kind in [*spans, *_names_in(plain, whole)] if kind == "name"
    ):
        spans += occurrences(plain, name)
    spans += whole
    found = ((kind, *source.span(start, end)) for start, end, kind in _merged(plain, spans))
    removed = [Removed(kind, text[start:end], start, end) for kind, start, end in found]
    token = 0 if HANGUL.search(plain) else 1
    pieces, position = [], 0
    for part in removed:
        pieces += [text[position : part.start], PLACEHOLDERS[part.kind][token]]
        position = part.end
    return Blinded("".join([*pieces, text[position:]]), removed)


def _names_in(plain: str, whole: Iterable[Span]) -> Iterator[Span]:
    """Yield the names in entries: the text up to the first bracket, slash, comma or bar, if it is a name."""
    for start, end, kind in whole:
        name = _UP_TO.match(plain, start, end)
        if kind == "name" and name and is_name(name[0].strip()):
            yield start, start + len(name[0].rstrip()), kind


_UP_TO = re.compile(r"[^(/,|\n]{2,40}")


def _merged(plain: str, spans: Iterable[Span]) -> Iterator[Span]:
    """Yield the spans in order.

    Overlapping spans are merged, with the kind of the first; of those that start together, the longest.
    """
    last: Span | None = None
    for start, end, kind in sorted(spans, key=lambda span: (span[0], -span[1])):
        while start < end and plain[end - 1] in " \t\r\n":
            end -= 1
        if start == end:
            continue
        if last and start < last[1]:
            last = (last[0], max(last[1], end), last[2])
            continue
        if last:
            yield last
        last = (start, end, kind)
    if last:
        yield last
