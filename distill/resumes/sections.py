"""Split a résumé into sections, and keep the sections that matter for matching.

    text ─▶ split_sections ─▶ ResumeSection, ResumeSection, …    which cover the text without a gap
         ─▶ keep_sections  ─▶ experience, education and skills alone ("V2" of the published data; the whole text is V1)

Texts may be Korean, English or mixed, with headings of any style or without headings. The method is rules; nothing is
learned. A heading is a *whole* short line, or a label before its text, and all of its words belong to a small grammar
of heading words. A heading word in a running sentence is therefore not a heading. Lines without a heading are
classified by their content.

Each regular expression takes linear time: quantifiers are bounded or possessive, and no unbounded quantifier is next to
another one that accepts the same characters. Rules read the text in its plain form (:mod:`distill.resumes.plain_text`);
offsets refer to the original text.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from distill._moved import moved_names
from distill.errors import BadInput
from distill.resumes.plain_text import Plain, plain, plain_characters
from distill.resumes.section_content import (
    HAS_WORD,
    LANGUAGE,
    PERSONAL_LABEL,
    SENTENCE,
    WEAK_MARKS,
    content_kind,
    is_dated,
    is_titled,
    seems_dated,
    told_outright,
)
from distill.resumes.section_headings import HANGUL, MAX_TITLE, SECTION_KINDS, SectionKind, kind_of_heading

__all__ = [
    "HANGUL",
    "HAS_WORD",
    "LINE",
    "MARKS",
    "SECTION_KINDS",
    "SENTENCE",
    "Kept",
    "ResumeSection",
    "SectionKind",
    "keep_sections",
    "kind_of_heading",
    "match_end",
    "plain_characters",
    "split_sections",
]

__getattr__ = moved_names(__name__)


@dataclass(frozen=True)
class ResumeSection:
    """A section of a résumé.

    :param heading: the heading as written, with its decoration; "" if the section has none
    :param text: the text under the heading
    :param start: offset of the section in the whole text, including heading and blank lines; so is ``end``. The
        sections of a text, joined, are the text.
    """

    kind: SectionKind
    heading: str
    text: str
    start: int
    end: int


@dataclass(frozen=True)
class Kept:
    """The wanted sections as one text, and the other sections.

    :param text: the wanted sections; the whole text if ``found`` is empty
    :param dropped: the other sections; [] if ``found`` is empty
    :param found: the wanted kinds that the text has, in the requested order
    """

    text: str
    dropped: list[ResumeSection]
    found: tuple[SectionKind, ...]


def split_sections(text: str) -> list[ResumeSection]:
    r"""Split a résumé into sections, in their order, that cover it without a gap. The empty text has no section.

    >>> for section in split_sections("홍길동\n\n[경력사항]\n한빛병원 간호사 3년\n\n학력: 가온대학교 간호학과"):
    ...     print(section.kind, repr(section.heading), repr(section.text))
    personal '' '홍길동'
    experience '[경력사항]' '한빛병원 간호사 3년'
    education '학력' '가온대학교 간호학과'
    """
    return _split(plain(text))


def keep_sections(text: str, kinds: Sequence[SectionKind] = ("experience", "education", "skills")) -> Kept:
    r"""Keep the sections of these kinds, headings included, in the order of the text.

    The published V2 "includes only the experience, education, and skill sections". This is taken literally: projects,
    certificates and languages under headings of their own are dropped unless they are requested. A project or a list of
    tools *within* a job is kept with the job.

    >>> kept = keep_sections("Jane Doe\nSkills: Python, SQL\nHobbies: chess")
    >>> kept.text, [section.kind for section in kept.dropped], kept.found
    ('Skills: Python, SQL', ['personal', 'other'], ('skills',))

    :raises BadInput: if a kind does not exist, or no kind is given.
    """
    if unknown := [kind for kind in kinds if kind not in SECTION_KINDS]:
        raise BadInput(f"{unknown[0]!r} is no kind of section; {', '.join(SECTION_KINDS)} are")
    if not kinds:
        raise BadInput(f"no kind of section is to be kept; name some of {', '.join(SECTION_KINDS)}")
    sections = split_sections(text)
    present = {section.kind for section in sections}
    found = tuple(dict.fromkeys(kind for kind in kinds if kind in present))
    if not found:
        return Kept(text, [], ())
    kept = [text[section.start : section.end].rstrip() for section in sections if section.kind in found]
    return Kept("\n\n".join(kept).strip("\r\n"), [section for section in sections if section.kind not in found], found)


# --- headings ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Heading:
    """A line, or the part of it up to its separator, that opens a section."""

    kind: SectionKind
    title_end: int  # offset in the segment at which the heading ends
    body_start: int  # offset in the segment at which the text on the same line starts
    inline: bool  # whether text follows on the same line
    style: str  # the decoration; headings of one style are of the same level
    level: int  # level of a markdown heading; 0 for others
    weak: bool  # starts with a list bullet, as lines within a section do
    indent: int


@dataclass
class _Open:
    """The section being read. Its heading decides which later headings end it and which are within it."""

    kind: SectionKind
    start: int
    heading: _Heading | None
    segment_start: int


_OPEN, _CLOSE = "[【<「『〈《(〔", "]】>」』〉》)〕"
MARKS = re.compile(rf"[^\w|{re.escape(_OPEN)}\"'“]{{0,40}}+")
_NUMBER = re.compile(
    r"(?:[①-⑳❶-❿]|[Ⅰ-Ⅻⅰ-ⅻ]{1,4}|\(\d{1,2}\)|\d{1,2}(?=[.)\]])|[IVX]{1,4}(?=[.)])|[A-H](?=[.)] )|[가나다라마바사](?=[.)]))[.)\]]?[ \t]{0,8}"
)
_BRACKETED = re.compile(
    rf"[{re.escape(_OPEN)}]{{1,2}}([^{re.escape(_OPEN + _CLOSE)}\n]{{1,40}})[{re.escape(_CLOSE)}]{{1,2}}"
)
_SEPARATOR = re.compile(r"[ ]{0,20}+(?:\*\*[ ]?:?|:(?!//)[*_]{0,3}|\||\t|- |→|»|(?<=  )(?=\S))[ \t|]{0,20}+")
_TRAILING = re.compile(r"[^\w)\]】>」』〉》]+$")
_PROGRAMMING = re.compile(
    r"\b(?:java|kotlin|python|golang|go|rust|ruby|scala|swift|php|sql|typescript|javascript|matlab|html|r|c)(?![\w'])|c\+\+|c#|자바|파이썬|코틀린",
    re.IGNORECASE,
)
_ASIDE = re.compile(
    r"[^\w]{0,9}희망|[^\n:|]{1,30}[:|] ?(?:https?:|www\.|[\w-]{1,40}\.(?:com|io|net|me|kr|site)\b)"
)  # such a line is kept in the personal data
_LINE_MARKS = frozenset("#*-=~━─_·•+■□◆◇●○•▶▷►★☆※◎▪▫❖☞◈»>✔✓◦∙ㆍ・‣ \t")
_NOTE = re.compile(r"[ ]?\([^()\n]{0,30}\d[^()\n]{0,30}\)$")  # "경력사항 (총 6년 2개월)"
_MAX_UNKNOWN = 30
_MAX_FIRST = 60
_NOT_A_TITLE = re.compile(r"[\d,;:|@\t]|  |[.!?다요]$")
_CORE = ("experience", "education", "references")  # these never label a line within another section
_AFTER_STUDIES = ("languages", "certificates", "military", "other")  # these never label a line within education
_WITH_TITLES: tuple[SectionKind, ...] = ("experience", "projects", "education")


class _Lead(NamedTuple):
    """The start of a line, before its words."""

    words_start: int
    style: str
    level: int
    weak: bool
    indent: int


def _lead(line: str) -> _Lead:
    """Return indent, bullet, number and markdown level at the start of a line."""
    indent = len(line) - len(line.lstrip(" \t"))
    position = match_end(MARKS, line, 0)
    mark = line[:position].strip()
    if number := _NUMBER.match(line, position):
        return _Lead(match_end(MARKS, line, number.end()), "number", 0, False, indent)
    if mark and not _LINE_MARKS.issuperset(mark):
        return _Lead(position, "emoji", 0, False, indent)
    weak = len(mark) == 1 and mark in WEAK_MARKS and line[indent + 1 : indent + 2] in (" ", "\t")
    level = len(mark) if not mark.strip("#") else 0
    if not mark and _is_capital(line):
        mark = "capitals"
    return _Lead(position, mark.replace(" ", ""), level, weak, indent)


def _is_capital(words: str) -> bool:
    return words.isupper() and words.isascii()


def match_end(pattern: re.Pattern[str], line: str, position: int) -> int:
    """Return the end of a pattern's match at a position; the position itself if it does not match."""
    match = pattern.match(line, position)
    return match.end() if match else position


def _heading(line: str) -> _Heading | None:
    """Return the heading that a line consists of or starts with; None if there is none."""
    head = line[:120]
    lead = _lead(head)
    found = _title(head, lead.words_start, len(line)) if lead.words_start < len(head) else None
    if found is None:
        return None
    kind, title_end, body_start, bracket = found
    inline = bool(HAS_WORD.search(line, body_start))
    if inline and kind == "languages" and _PROGRAMMING.search(line, body_start, body_start + 120):
        kind = "skills"
    if not inline:
        title_end = body_start = len(line)
    style = lead.style or ("capitals" if _is_capital(line[lead.words_start : title_end]) else "")
    return _Heading(kind, title_end, body_start, inline, style + bracket, lead.level, lead.weak, lead.indent)


def _unknown_heading(line: str, current: _Open, blank_before: bool) -> _Heading | None:
    """Return a line as a heading of kind "other" if it has the style of the current heading but is not known."""
    opener = current.heading
    if opener is None or opener.inline or not opener.style or opener.weak or len(line) > _MAX_UNKNOWN:
        return None
    lead = _lead(line)
    title = line[lead.words_start :]
    bracketed = _BRACKETED.fullmatch(title)
    style = lead.style + (title[0] if bracketed else "")
    # jobs and projects within a section have their own titles, often in the same style
    if style != opener.style or lead.level != opener.level or (not blank_before and current.kind in _WITH_TITLES):
        return None
    if _NOT_A_TITLE.search(title) or (
        current.kind in _WITH_TITLES and (bracketed or style == "capitals" or opener.style == "number")
    ):
        return None
    if opener.style == "capitals" and not blank_before:
        return None
    return _Heading("other", len(line), len(line), False, style, lead.level, False, lead.indent)


def _title(head: str, position: int, n_line: int) -> tuple[SectionKind, int, int, str] | None:
    """Return the title at a position: (kind, its end, start of the text after it, opening bracket or ""), or None."""
    if (match := _BRACKETED.match(head, position)) and (kind := kind_of_heading(match[1])):
        after = _SEPARATOR.match(head, match.end())
        return kind, match.end(), after.end() if after else match.end(), match[0][0]
    bare = _NOTE.sub("", _TRAILING.sub("", head[position:]))
    if n_line <= 80 and len(bare) <= MAX_TITLE and (kind := kind_of_heading(bare)):
        return kind, position + len(bare), n_line, ""
    for separator in _SEPARATOR.finditer(head, position + 1, position + MAX_TITLE):
        if kind := kind_of_heading(head[position : separator.start()]):
            return kind, separator.start(), separator.end(), ""
        if separator[0].strip(" \t"):
            break  # a title may contain gaps, but no other separators
    # "학력 가온대학교 졸업": a heading word, a space, and text that fits only this kind of section
    word, gap, rest = head[position:].partition(" ")
    if gap and HANGUL.search(word) and (kind := kind_of_heading(word)) and content_kind(rest.strip()) == kind:
        return kind, position + len(word), position + len(word) + 1, ""
    return None


# --- splitting --------------------------------------------------------------------------------------------------------

LINE = re.compile(r"[^\n]*+\n?")
_HEADING_INSIDE = re.compile(
    r"(?<=[\s/|.;,])(?:\[[^\[\]\n]{1,20}\]|【[^【】\n]{1,20}】|[■◆▶●◈][ ]?[^\s:■◆▶●◈]{1,12}(?=[\s:]))"
)
_LABEL_INSIDE = re.compile(r"(?<=[\s/|.;,])[^\W\d_]{2,14}(?: [^\W\d_]{2,12})?[ ]?:(?=[ ])")
_LONG_LINE = 80


def _segments(words: str) -> Iterator[tuple[int, int]]:
    """Yield the offsets of the lines. A line with several headings is yielded in parts."""
    for match in LINE.finditer(words):
        start, end = match.span()
        if start == end:
            continue
        for cut in _cuts(words, start, end):
            yield start, cut
            start = cut
        yield start, end


def _cuts(words: str, start: int, end: int) -> list[int]:
    line = words[start:end]
    cuts: list[int] = []
    if any(sign in line for sign in "[【■◆▶●◈"):
        cuts = [
            match.start() for match in _HEADING_INSIDE.finditer(line) if kind_of_heading(match[0].strip("[]【】■◆▶●◈ "))
        ]
    if not cuts and end - start > _LONG_LINE and line.count(":") > 1:
        labels = [(match.start(), kind_of_heading(match[0].rstrip(": "))) for match in _LABEL_INSIDE.finditer(line)]
        labels = [(at, kind) for at, kind in labels if kind]
        if len({kind for _, kind in labels} & {"experience", "education", "skills"}) > 1:
            cuts = [at for at, _ in labels]
    return [start + cut for cut in cuts if line[:cut].strip()]


def _split(source: Plain) -> list[ResumeSection]:
    sections: list[ResumeSection] = []
    current: _Open | None = None
    has_heading = False  # after the first heading, content alone rarely starts a section
    blank_before = True
    for start, end in _segments(source.text):
        line = source.text[start:end].rstrip()
        if not HAS_WORD.search(line):
            blank_before = blank_before or not line.strip()
            continue
        heading = _heading(line)
        if heading and current and current.kind == "personal" and heading.inline and _ASIDE.match(line):
            heading = None
        if heading and not _opens(heading, current, has_heading, blank_before):
            heading = None
        elif heading is None and has_heading and current:
            heading = _unknown_heading(line, current, blank_before)
        if heading:
            following = _Open(heading.kind, start, heading, start)
            has_heading = True
        elif (kind := _unheaded(line, current, has_heading, blank_before)) and (
            current is None or kind != current.kind
        ):
            following = _Open(kind, start, None, start)
        else:
            blank_before = False
            continue
        if current:
            sections.append(_closed(source, current, following.start))
        else:
            following.start = 0
        current = following
        blank_before = False
    if current:
        sections.append(_closed(source, current, len(source.text)))
    elif source.original:
        sections.append(ResumeSection("other", "", source.original.strip(), 0, len(source.original)))
    return sections


def _opens(heading: _Heading, current: _Open | None, has_heading: bool, blank_before: bool) -> bool:
    """Return whether a heading starts a new section; if not, it is within the current one."""
    if current is None or current.heading is None or not has_heading:
        return True
    opener = current.heading
    if heading.weak and not opener.weak:
        return False
    if heading.level > opener.level > 0 or (opener.level and not heading.level and heading.inline):
        return False
    same_style = heading.style == opener.style
    if heading.inline and not opener.inline:
        if heading.style or opener.style:
            return same_style or (blank_before and bool(heading.style)) or heading.kind in ("experience", "education")
        core = heading.kind in _CORE and heading.indent <= opener.indent
        if current.kind == "education" and heading.kind in _AFTER_STUDIES and heading.indent <= opener.indent:
            return True
        return core or (blank_before and heading.indent <= opener.indent)
    if heading.inline:
        return heading.indent <= opener.indent or same_style
    inside = current.kind in ("experience", "projects") and heading.kind in ("skills", "projects", "summary", "awards")
    return same_style or blank_before or not (inside and opener.style)


def _unheaded(line: str, current: _Open | None, has_heading: bool, blank_before: bool) -> SectionKind | None:
    """Return the kind of a line without a heading, if it starts another section; else None."""
    if has_heading and current is not None:
        return _within(line, current)
    kind = content_kind(line)
    if current is None and kind in ("experience", "education") and len(line) <= _MAX_FIRST and not is_dated(line):
        return "personal"  # a name with a job title or a degree
    if current is not None and current.kind == "personal" and kind == "education" and is_titled(line):
        return None
    if current is None:
        return kind if kind not in (None, "languages", "certificates", "skills") else "personal"
    if kind == "summary" and current.kind not in ("personal", "summary"):
        return None
    if current.kind == "cover_letter" and kind != "personal":
        return None
    if line.lstrip()[:1] in WEAK_MARKS and current.kind in ("experience", "projects"):
        return None
    if kind is None and seems_dated(line) and HAS_WORD.search(line) and current.kind == "personal":
        return "experience"
    return kind


def _within(line: str, current: _Open) -> SectionKind | None:
    """Return the kind of a line under a heading, if it clearly belongs to another section; else None."""
    outside = current.kind in ("experience", "education", "skills", "certificates", "languages", "other")
    kind = told_outright(line)
    if kind and (outside or current.kind == "cover_letter"):
        return kind
    if outside and line[:1] not in WEAK_MARKS and PERSONAL_LABEL.match(line):
        return "personal"
    if current.kind in ("experience", "education") and LANGUAGE.match(line):
        return "languages"
    return content_kind(line) if current.kind == "personal" and current.heading is None else None


def _closed(source: Plain, section: _Open, end: int) -> ResumeSection:
    """Return the finished section with offsets in the original text; `section` and `end` refer to the plain text."""
    heading, bounds = section.heading, (source.boundary(section.start), source.boundary(end))
    if heading is None:
        return ResumeSection(section.kind, "", source.original[slice(*bounds)].strip(), *bounds)
    at = section.segment_start
    title = source.original[slice(*source.span(at, at + heading.title_end))].strip()
    body = source.original[slice(*source.span(at + heading.body_start, end))].strip()
    first, *rest = _LINE_END.split(body, maxsplit=1)
    if not heading.inline and not HAS_WORD.search(first):  # remove the underline below a heading
        body = "".join(rest).strip()
    return ResumeSection(section.kind, title, body, *bounds)


_LINE_END = re.compile("\r\n?|\n")
