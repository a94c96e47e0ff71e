"""Take out of a résumé who the person is: what Korean fair-hiring law asks of employers, and blind hiring besides.

Labelled fields (`성명: …`), identifiers that need no label (phone numbers, addresses), and names: one that was found is
removed wherever it stands.  Rules, no model: an unseen phrasing leaks, so read what was removed before relying on it.

Each regular expression takes linear time: quantifiers are bounded or possessive.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from distill.resumes.blinding_fields import entries, labelled
from distill.resumes.blinding_forms import PLACEHOLDERS, Identifier, Span
from distill.resumes.blinding_name_words import is_name
from distill.resumes.blinding_names import header_names, names_of_handles, occurrences, other_spelling, romanized_names
from distill.resumes.blinding_patterns import cells_of, patterns, personal_cells
from distill.resumes.plain_text import plain as plain_form
from distill.resumes.section_headings import HANGUL
from distill.resumes.sections import split_sections

__all__ = ["PLACEHOLDERS", "Blinded", "Identifier", "Removed", "blind"]


@dataclass(frozen=True)
class Removed:
    """What was taken out, and where it stood in the whole text."""

    kind: Identifier
    text: str
    start: int
    end: int


@dataclass(frozen=True)
class Blinded:
    """A text without identifiers, and the identifiers in their order."""

    text: str
    removed: list[Removed]


def blind(text: str) -> Blinded:
    r"""Take out what tells who a person is and what an employer must not ask.

    That is the list of article 4-3 of the Korean Fair Hiring Procedure Act (looks, height, weight; origin, marriage,
    property; education, work and property of relatives) and what blind hiring leaves out besides: name, photo, birth
    date, age, gender, religion, address, identity numbers, phone, e-mail, personal pages.

    The rules read the plain form of the text (:mod:`distill.resumes.plain_text`): decomposed Hangul, full-width and zero-width
    characters hide nothing. What is not taken out stays as it is written.

    Each piece gives way to a neutral token (:data:`PLACEHOLDERS`, Korean where the text has any Hangul) and labels stay:
    all résumés keep the layout they had, and a model cannot tell a blinded one from one whose owner left a line out.
    A name that was found once is removed wherever it stands; parts of it only where they cannot be a common word.
    Employers' addresses go with the others.  Military service stays: it is asked of applicants by law.

    >>> blind("성명: 홍길동 (만 29세)\n경력: 한빛병원 2019.03 ~ 2022.05\n동료들은 홍길동을 믿습니다.").text
    '성명: [이름]\n경력: 한빛병원 2019.03 ~ 2022.05\n동료들은 [이름]을 믿습니다.'
    """
    source = plain_form(text)
    plain = source.text
    personal = [section for section in split_sections(plain) if section.kind == "personal"]
    spans = list(labelled(plain, personal))
    fields = {start: kind for start, _, kind in spans}
    spans += [*patterns(plain), *personal_cells(plain, personal)]
    header = list(header_names(plain, personal))
    spans += [*header, *names_of_handles(plain), *romanized_names(plain)]
    for start, end, _ in header:  # what stands beside the name is of the person, whatever the line is taken for
        spans += cells_of(plain, plain.rfind("\n", 0, start) + 1, (plain + "\n").index("\n", end))
    for start, end, kind in [*spans]:
        if kind == "name":
            spans += other_spelling(plain, start, end, labelled=fields.get(start) == "name")
    # a finer rule knows better what an entry is
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
    for one in removed:
        pieces += [text[position : one.start], PLACEHOLDERS[one.kind][token]]
        position = one.end
    return Blinded("".join([*pieces, text[position:]]), removed)


def _names_in(plain: str, whole: Iterable[Span]) -> Iterator[Span]:
    """Yield the names that fill an entry, up to a bracket or a stroke."""
    for start, end, kind in whole:
        name = _UP_TO.match(plain, start, end)
        if kind == "name" and name and is_name(name[0].strip()):
            yield start, start + len(name[0].rstrip()), kind


_UP_TO = re.compile(r"[^(/,|\n]{2,40}")


def _merged(plain: str, spans: Iterable[Span]) -> Iterator[Span]:
    """Yield the spans in order, those that overlap as one, of the kind of the first and longest."""
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
