"""Take a résumé apart and keep what a matcher should see.

    text ─▶ split_sections ─▶ Section, Section, …    which cover the text without a gap
         ─▶ keep_sections  ─▶ experience, education and skills alone ("V2" of the published data; the whole text is V1)

Korean and English, mixed, with headings of any style or none.  Nothing is learned: a heading is a *whole* short line, or
a label with its text behind it, whose words all belong to a small grammar of heading words, so that a heading word in a
running sentence is none.  What stands under no heading is judged by its content.

Each regular expression takes linear time: quantifiers are bounded or possessive, and none that is open stands beside
another that accepts the same characters.  Offsets survive because texts are made plain one character by one.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple, get_args

from distill.errors import BadInput

__all__ = [
    "HANGUL",
    "HAS_WORD",
    "KINDS",
    "LINE",
    "MARKS",
    "SENTENCE",
    "Kept",
    "Kind",
    "Section",
    "keep_sections",
    "kind_of_heading",
    "match_end",
    "plain_characters",
    "split_sections",
]

Kind = Literal[
    "personal", "summary", "experience", "education", "skills", "projects", "certificates", "awards", "languages",
    "cover_letter", "military", "references", "other",
]  # fmt: skip
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True)
class Section:
    """A part of a résumé.

    ``heading`` is the heading as written, with its decoration, or "" where the part has none; ``text`` is what stands
    under it.  ``start`` and ``end`` are offsets in the whole text, heading and blank lines included: the sections of a
    text, laid end to end, are the text.
    """

    kind: Kind
    heading: str
    text: str
    start: int
    end: int


@dataclass(frozen=True)
class Kept:
    """The wanted sections as one text, and the others.

    ``found`` names the wanted kinds that the text has, in the order asked for.  Where it is empty, there was nothing to
    cut by: ``text`` is then the whole text and ``dropped`` is empty.
    """

    text: str
    dropped: list[Section]
    found: tuple[Kind, ...]


def split_sections(text: str) -> list[Section]:
    r"""Split a résumé into sections that cover it without a gap, in their order; "" has none.

    >>> for section in split_sections("홍길동\n\n[경력사항]\n한빛병원 간호사 3년\n\n학력: 가온대학교 간호학과"):
    ...     print(section.kind, repr(section.heading), repr(section.text))
    personal '' '홍길동'
    experience '[경력사항]' '한빛병원 간호사 3년'
    education '학력' '가온대학교 간호학과'
    """
    return _split(text, plain_characters(text))


def keep_sections(text: str, kinds: Sequence[Kind] = ("experience", "education", "skills")) -> Kept:
    r"""Keep the sections of these kinds, headings included, in the order of the text.

    The published V2 "includes only the experience, education, and skill sections".  We take it by the letter: projects,
    certificates and languages under headings of their own are dropped unless asked for.  A project or a list of tools
    that stands *inside* a job stays with the job.

    >>> kept = keep_sections("Jane Doe\nSkills: Python, SQL\nHobbies: chess")
    >>> kept.text, [section.kind for section in kept.dropped], kept.found
    ('Skills: Python, SQL', ['personal', 'other'], ('skills',))

    :raises BadInput: on a kind that does not exist, or none at all.
    """
    if unknown := [kind for kind in kinds if kind not in KINDS]:
        raise BadInput(f"{unknown[0]!r} is no kind of section; {', '.join(KINDS)} are")
    if not kinds:
        raise BadInput(f"no kind of section is to be kept; name some of {', '.join(KINDS)}")
    sections = split_sections(text)
    present = {section.kind for section in sections}
    found = tuple(dict.fromkeys(kind for kind in kinds if kind in present))
    if not found:
        return Kept(text, [], ())
    kept = [text[section.start : section.end].rstrip() for section in sections if section.kind in found]
    return Kept("\n\n".join(kept).strip("\r\n"), [section for section in sections if section.kind not in found], found)


# --- plain characters -------------------------------------------------------------------------------------------------

_PLAIN = {chr(0xFF01 + i): chr(0x21 + i) for i in range(94)}  # full-width forms
_PLAIN |= dict.fromkeys("\u00a0\u2002\u2003\u2007\u2009\u202f\u200b\ufeff\u3000", " ")
_PLAIN |= dict.fromkeys("‐‑‒–—―−", "-") | dict.fromkeys("│┃ㅣ∣", "|") | dict.fromkeys("’‘", "'") | {"∶": ":"}
_NOT_PLAIN = re.compile(f"[{''.join(map(re.escape, _PLAIN))}]")


def plain_characters(text: str) -> str:
    """Return a text of the same length with one form of each space, dash, bar and full-width character."""
    return text if text.isascii() else _NOT_PLAIN.sub(lambda match: _PLAIN[match[0]], text)


# --- headings ---------------------------------------------------------------------------------------------------------

# Korean headings are (modifier)* noun (ending)*, written with or without spaces.
_KOREAN_ENDINGS = "사항|내용|내역|정보|이력|현황|명세|목록|요약|소개|상세|경험|실적|능력|활동|관련|기술서|기술|취득|수행|이수|과정|배경|구사|실력|성적|점수|시험|역량|스택|셋"
_KOREAN_MODIFIERS = (
    "주요|세부|상세|최종|보유|핵심|전문|나의|저의|기타|관련|활용|사용|가능한?|대표|개인|팀|참여|수행|진행|총|직무|업무|실무|직장|근무|사회|현장|해외|국내외?|"
    "임상|교육|강의|연구|실험|개발|취득|국가|공인|교내|교외|전공|회사|인턴|프리랜서|간호|영업|디자인|주|직업|전직|이전|간단|한줄|IT|OA|컴퓨터|소프트"
)
_KOREAN_NOUNS: dict[Kind, str] = {
    "awards": "수상(?:경력)?|상훈|상벌|포상|표창|장학금?|입상(?:경력)?",
    "military": "병역(?:의무|관계)?|군복무|군경력|군필여부|군대|복무",
    "cover_letter": "자기소개서?|자소서|자기피알|자기pr|지원동기|입사동기|지원동기및?포부|입사후포부|포부|성장과정|성장배경|성격의?장단점|장단점|성격|지원사유|지원이유|커버레터|하고싶은말|마지막으로|각오|다짐|맺음말|가치관|직업관|인생관|생활신조|학창시절|성장환경",
    "summary": "소개|소개글|요약|개요|한줄소개|커리어요약|하이라이트",
    "certificates": "자격증?|면허증?|자격증?및?면허증?|라이선스|라이센스|이수증|수료증|자격면허|면장",
    "languages": "외국어|어학|언어|어학성적",
    "projects": "프로젝트|포트폴리오|작품|작업물|과제",
    "references": "추천인|참고인|레퍼런스|평판조회|추천서|보증인",
    "other": "취미|특이|비고|자원봉사|가입단체|소속|단체|강연|강의|번역|링크|관심(?:분야|사)?|봉사|대외|동아리|논문|출판물?|저서|학회|학술|특허|희망(?:근무|연봉|직무|근무지|조건|급여|업종)*(?:조건|사항)?|기타|활동|"
    "사회공헌|교육봉사|여행|전시|공연|저술|업적|발표|입사가능일|방송|연구업적|지식재산권?",
    "personal": "인적|기본|개인|신상|지원자|기본인적|개인신상|연락|연락처|프로필|가족|가족관계|신체|개인기본|인적기본|본인|기초|보훈|장애|우대",
    "skills": "기술|스킬|역량|능력|특기|강점|툴|도구|테크|프로그램|장비|기술스택|스택|소프트웨어|할수있는일|할줄아는것|노하우|전문분야|기능|주특기|장기|컴퓨터활용|전산|OA활용|활용|하드스킬|소프트스킬|가능업무|할수있는것|기법|시술",
    "education": "학력|학업|교육|학위|출신학교|학교|학벌|교육및?훈련|교육이수|훈련|연수|학적|출신교|졸업학교|직업훈련",
    "experience": "경력|경험|이력|근무|커리어|인턴십?|직장|일|아르바이트|알바|직업|일했던곳|재직|업무경력|근무처|걸어온길|일경험|일한곳|수행업무|실습|경력기술서",
}
_NEEDS_ENDING = re.compile(
    r"(?:인적|기본|개인|신상|지원자|본인|기초|우대|가족|신체|연락|일|직업|주|학교|훈련|활동|복무|소속|단체|활용|장기|기능명|번역|강의|전산)"
)
_KOREAN_HEADING = re.compile(
    f"(?:{_KOREAN_MODIFIERS}){{0,4}}(?:"
    + "|".join(f"(?P<{kind}>{nouns})" for kind, nouns in _KOREAN_NOUNS.items())
    + f")(?:{_KOREAN_ENDINGS}){{0,3}}"
)
# with any word before it: 비행경력, 조리 경험
_KOREAN_FIELD = re.compile(
    f"[가-힣]{{2,4}}(?:(?P<experience>경력|경험)|(?P<skills>역량|스킬)|(?P<certificates>자격증|면허))(?:{_KOREAN_ENDINGS}){{0,2}}"
)

_ENGLISH_HEADINGS: dict[Kind, str] = {
    "experience": "experience,experiences,work,employment,work history,employment history,career,career history,positions held,"
    "professional background,professional history,job history,internship,internships,employment record,work background,"
    "appointments,positions,jobs,career path,where i have worked,professional career,employment details,practice,placements,placement,engagements,roles,career summary,career details,career highlights,previous employment,where i worked,occupational history,assignments,sea service,career experience",
    "education": "education,academic background,academic history,academic qualifications,educational background,studies,degrees,"
    "schooling,training,study,academics,qualifications,educational qualifications,education history,coursework,courses,school,academic record,academic,diplomas,degree,learning,professional training",
    "skills": "skills,skill,competencies,competences,expertise,areas of expertise,technologies,technology,tech stack,tools,"
    "strengths,proficiencies,abilities,capabilities,skill set,skillset,skillsets,toolbox,toolkit,stack,software,"
    "areas of competence,summary of skills,summary of qualifications,tools of the trade,specialties,what i can do,equipment,techniques,oa,computer literacy,it literacy,competency,core competency,proficiency,programming,know-how,craft",
    "projects": "projects,project,portfolio,project experience,works,selected works,case studies",
    "certificates": "certifications,certification,certificates,certificate,licenses,licences,license,licence,licensure,"
    "credentials,accreditations,registrations,registration,tickets,bar admissions,certs",
    "awards": "awards,award,honors,honours,achievements,accomplishments,scholarships,prizes,distinctions,recognition,honors and awards",
    "languages": "languages,language,language skills,foreign languages,linguistic skills,language proficiency",
    "summary": "summary,profile,objective,about,about me,overview,qualities,personal qualities,highlights,introduction,bio,biography,career objective,"
    "career profile,statement,in brief,who i am,goal,career goal",
    "cover_letter": "cover letter,letter of motivation,motivation,personal statement,motivation letter,covering letter,statement of purpose",
    "references": "references,referees,reference,recommendations",
    "personal": "personal,personal details,personal information,personal data,personal info,contact,contact details,contact info,"
    "contact information,contacts,personal particulars,particulars,biodata,bio data,basic information,details",
    "military": "military,military service,national service,armed forces",
    "other": "interests,hobbies,publications,publication,papers,volunteering,volunteer,activities,memberships,affiliations,patents,"
    "conferences,additional information,miscellaneous,other,others,availability,talks,press,exhibitions,community,pastimes,"
    "community service,outside work,research interests,leadership,presentations,extracurriculars,outreach,etc,teaching,lectures,speaking,"
    "professional development,continuing education,continuing professional development,cpd,associations,clubs,links,grants,research,notes,"
    "salary expectations,notice period,driving",
}
_ENGLISH: dict[str, Kind] = {
    phrase: kind for kind, phrases in _ENGLISH_HEADINGS.items() for phrase in phrases.split(",")
}
# last words that make a heading of any capitalised phrase: "Clinical Experience", "Selected Publications"
_ENGLISH_LAST = {
    phrase: kind
    for phrase, kind in _ENGLISH.items()
    if " " not in phrase
    and phrase
    not in {
        "work",
        "about",
        "career",
        "personal",
        "other",
        "school",
        "stack",
        "software",
        "press",
        "details",
        "etc",
        "learning",
    }
    and phrase
    not in {
        "technology",
        "community",
        "project",
        "equipment",
        "contact",
        "recognition",
        "reference",
        "works",
        "research",
        "notes",
        "links",
        "driving",
        "academic",
        "degree",
        "placement",
    }
} | {"history": "experience", "background": "experience", "service": "other"}
_NO_HEADING_BEFORE = frozenset(
    "of the a an in with for my our user customer employee guest client patient special physical higher continuing adult "
    "online childhood secondary primary elementary developer design life digital".split()
)
# with these before it a last word needs no capital: "Technical skills"
_ENGLISH_MODIFIERS = frozenset(
    "technical core key main professional personal work working soft hard computer digital clinical relevant previous recent other "
    "additional transferable practical selected teaching academic formal further special industry general career employment it".split()
)
_SMALL_WORDS = frozenset("and or of the in for to a an with".split())
_WORD = re.compile(r"[^\W_]+(?:'[a-z]+)?")
_PARTS = re.compile(r"\s*(?:[/|&+,·ㆍ・()]|(?<=\s)and(?=\s)|(?<=\s)및(?=\s))\s*", re.IGNORECASE)
_NOT_LETTER = re.compile(r"[\W_]+")
HANGUL = re.compile(r"[가-힣]")
_MAX_TITLE = 48


@lru_cache(maxsize=8192)
def kind_of_heading(title: str) -> Kind | None:
    """Return what a heading announces, or None where these words are no heading; of "A / B" the first decides."""
    parts = [part for part in _PARTS.split(title.strip()) if part]
    if not parts or len(parts) > 4 or len(title) > _MAX_TITLE:
        return None
    whole = _part_kind(title)
    if whole or len(parts) == 1:
        return whole
    kinds = [_part_kind(part) for part in parts]
    if all(kinds):
        return kinds[0]
    # "Education & Bar Admissions": one unknown part is fine where the line is set like a heading
    if not HANGUL.search(title) and _set_as_title(title) and kinds[-1 if kinds[0] is None else 0]:
        return kinds[0] or kinds[-1]
    if "및" in title or "·" in title:
        return kinds[0]
    return None


def _part_kind(part: str) -> Kind | None:
    if HANGUL.search(part):
        return _korean_kind(_NOT_LETTER.sub("", part))
    words = [word.lower() for word in _WORD.findall(part)]
    if len(words) > 1 and all(len(word) == 1 for word in words):  # "S K I L L S"
        words = ["".join(words)]
    if not 0 < len(words) <= 5:
        return None
    if kind := _ENGLISH.get(" ".join(words)):
        return kind
    if len(words) > 4 or _NO_HEADING_BEFORE & set(words[:-1]):
        return None
    if not _set_as_title(part) and not (part[0].isupper() and _ENGLISH_MODIFIERS.issuperset(words[:-1])):
        return None
    if words[0].startswith("volunteer"):
        return "other"
    if words[0] in ("project", "projects") and words[-1] == "experience":
        return "projects"
    return _ENGLISH_LAST.get(words[-1])


def _korean_kind(compact: str) -> Kind | None:
    if len(compact) > 16 or not (match := _KOREAN_HEADING.fullmatch(compact) or _KOREAN_FIELD.fullmatch(compact)):
        return None
    if _NEEDS_ENDING.fullmatch(compact):
        return None
    return match.lastgroup  # type: ignore[return-value]


def _set_as_title(title: str) -> bool:
    """Tell whether every word that counts has a capital."""
    return all(word[0].isupper() for word in _WORD.findall(title) if word.lower() not in _SMALL_WORDS)


@dataclass(frozen=True)
class _Heading:
    """A line, or the part of it up to its separator, that opens a section."""

    kind: Kind
    title_end: int  # in the segment: the heading as written ends here
    body_start: int  # in the segment: the text on the same line starts here
    inline: bool  # text follows on the same line
    style: str  # the decoration: lines of one style are headings of one level
    level: int  # of a markdown heading
    weak: bool  # led by a list bullet, as the lines of a section are
    indent: int


@dataclass
class _Open:
    """The section being read: how it was opened decides which headings end it and which stand inside it."""

    kind: Kind
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
_WEAK_MARKS = frozenset("-·•*+◦∙ㆍ・‣")
_PROGRAMMING = re.compile(
    r"\b(?:java|kotlin|python|golang|go|rust|ruby|scala|swift|php|sql|typescript|javascript|matlab|html|r|c)(?![\w'])|c\+\+|c#|자바|파이썬|코틀린",
    re.IGNORECASE,
)
HAS_WORD = re.compile(r"[^\W_]")
_ASIDE = re.compile(
    r"[^\w]{0,9}희망|[^\n:|]{1,30}[:|] ?(?:https?:|www\.|[\w-]{1,40}\.(?:com|io|net|me|kr|site)\b)"
)  # stays with the personal data
_LINE_MARKS = frozenset("#*-=~━─_·•+■□◆◇●○•▶▷►★☆※◎▪▫❖☞◈»>✔✓◦∙ㆍ・‣ \t")
_NOTE = re.compile(r"[ ]?\([^()\n]{0,30}\d[^()\n]{0,30}\)$")  # "경력사항 (총 6년 2개월)"
_MAX_UNKNOWN = 30
_NOT_A_TITLE = re.compile(r"[\d,;:|@\t]|  |[.!?다요]$")
_WITH_TITLES: tuple[Kind, ...] = ("experience", "projects", "education")


class _Lead(NamedTuple):
    """What stands before the words of a line."""

    words_start: int
    style: str
    level: int
    weak: bool
    indent: int


def _lead(line: str) -> _Lead:
    """Read indent, bullet, number and markdown level off the start of a line."""
    indent = len(line) - len(line.lstrip(" \t"))
    position = match_end(MARKS, line, 0)
    mark = line[:position].strip()
    if number := _NUMBER.match(line, position):
        return _Lead(match_end(MARKS, line, number.end()), "number", 0, False, indent)
    if mark and not _LINE_MARKS.issuperset(mark):
        return _Lead(position, "emoji", 0, False, indent)
    weak = len(mark) == 1 and mark in _WEAK_MARKS and line[indent + 1 : indent + 2] in (" ", "\t")
    level = len(mark) if not mark.strip("#") else 0
    if not mark and line.isupper() and line.isascii():
        mark = "capitals"
    return _Lead(position, mark.replace(" ", ""), level, weak, indent)


def match_end(pattern: re.Pattern[str], line: str, position: int) -> int:
    """Return where a pattern that matches at a position ends there, or the position itself."""
    match = pattern.match(line, position)
    return match.end() if match else position


def _heading(line: str) -> _Heading | None:
    """Return the heading that a line is or starts with."""
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
    return _Heading(kind, title_end, body_start, inline, lead.style + bracket, lead.level, lead.weak, lead.indent)


def _unknown_heading(line: str, current: _Open, blank_before: bool) -> _Heading | None:
    """Return a line as the heading of another matter where it is set as the last heading, which it is no word of."""
    opener = current.heading
    if opener is None or opener.inline or not opener.style or opener.weak or len(line) > _MAX_UNKNOWN:
        return None
    lead = _lead(line)
    title = line[lead.words_start :]
    bracketed = _BRACKETED.fullmatch(title)
    style = lead.style + (title[0] if bracketed else "")
    # jobs and projects have headings of their own, often set alike
    if style != opener.style or lead.level != opener.level or (not blank_before and current.kind in _WITH_TITLES):
        return None
    if _NOT_A_TITLE.search(title) or (
        current.kind in _WITH_TITLES and (bracketed or style == "capitals" or opener.style == "number")
    ):
        return None
    if opener.style == "capitals" and not blank_before:
        return None
    return _Heading("other", len(line), len(line), False, style, lead.level, False, lead.indent)


def _title(head: str, position: int, n_line: int) -> tuple[Kind, int, int, str] | None:
    """Find the title that starts here: kind, where it ends, where the text behind it starts, its bracket."""
    if (match := _BRACKETED.match(head, position)) and (kind := kind_of_heading(match[1])):
        after = _SEPARATOR.match(head, match.end())
        return kind, match.end(), after.end() if after else match.end(), match[0][0]
    bare = _NOTE.sub("", _TRAILING.sub("", head[position:]))
    if n_line <= 80 and len(bare) <= _MAX_TITLE and (kind := kind_of_heading(bare)):
        return kind, position + len(bare), n_line, ""
    for separator in _SEPARATOR.finditer(head, position + 1, position + _MAX_TITLE):
        if kind := kind_of_heading(head[position : separator.start()]):
            return kind, separator.start(), separator.end(), ""
        if separator[0].strip(" \t"):
            break  # gaps may stand within a title, other separators not
    # "학력 가온대학교 졸업": one word, a space, and text that only this kind of section has
    word, gap, rest = head[position:].partition(" ")
    if gap and HANGUL.search(word) and (kind := kind_of_heading(word)) and _content(rest.strip()) == kind:
        return kind, position + len(word), position + len(word) + 1, ""
    return None


# --- content ----------------------------------------------------------------------------------------------------------

_PERSONAL_LABEL = re.compile(
    r"[^\w]{0,6}(?:성[ ]{0,6}명|이[ ]{0,6}름|영문명|연[ ]?락[ ]?처|전화(?:번호)?|휴대(?:폰|전화)|핸드폰|이메일|e-?mail|메일|주[ ]{0,6}소|현주소|거주지|생년월일|"
    r"나[ ]{0,6}이|연령|성별|지원자|국적|본적|name|full name|phone|mobile|tel|telephone|address|date of birth|d\.?o\.?b|gender|nationality|age|sex|cell|"
    r"marital status|결혼여부|혼인여부|github|linkedin|블로그|사진|photo)(?:[ ]?[(/][^)\n:]{1,20}\)?)?[ ]{0,4}(?:[:|\t]|  |[ ](?=[\d(+@]))",
    re.IGNORECASE,
)
_PERSONAL = re.compile(
    r"@|0\d{1,2}[-. )]{1,3}\d{3,4}[-. ]\d{4}|\(?\d{3}\)?[-. ]\d{3}[-. ]\d{4}|\+\d{1,3}[ .-]\d|555-\d{4}|년생|(?:만 ?)?\d\d세|linkedin\.com/|github\.com/|"
    r"\[(?:이름|생년월일|나이|성별|주소|전화|이메일|링크|NAME|BIRTH DATE|AGE|GENDER|ADDRESS|PHONE NUMBER|EMAIL|LINK)\]"
)
_DATE = re.compile(
    r"(?<!\d)(?:19[5-9]\d|20[0-4]\d)(?!\d)|(?<!\d)'?\d\d\.\d\d ?[-~]|현재|재직|\bpresent\b|\b\d{1,2} ?(?:years?|yrs?)\b|\d년",
    re.IGNORECASE,
)
_SCHOOL = re.compile(
    r"대학교?(?!병원| ?식당)|대학원|고등학교|고교|전문대|폴리텍|학과|학부|전공|학사|석사|박사|졸업|중퇴|수료|재학|교육대|여고|공고|상고|직업학교|"
    r"\b(?:universit\w{1,4}|college|school|institute|academy|polytechnic|bachelor|master|diploma|degree|graduated|major)\b|"
    r"\b(?-i:Ph\.?D|B\.?Sc?|B\.?A|M\.?Sc?|M\.A|MA(?= in)|MBA|B\.?Ed|GED|GCSEs?|A-levels?|GPA)\b",
    re.IGNORECASE,
)
_COMPANY = re.compile(r"\(주\)|㈜|주식회사|\b(?:inc|ltd|llc|gmbh|corp|co|plc|s\.a|llp)\b\.?", re.IGNORECASE)
_JOB = re.compile(
    r"근무|재직|입사|퇴사|경력|사원|주임|대리|과장|차장|부장|팀장|실장|매니저|인턴|담임|교사|강사|간호사|기사|반장|점장|원장|연구원|디자이너|엔지니어|개발자|담당|조리|"
    r"병원|회계법인|센터|학원|건설|은행|전자|물산|상사|호텔|식당|유치원|어린이집|공장|물류|마트|"
    r"\b(?:engineer|developer|manager|nurse|assistant|clerk|officer|director|consultant|analyst|designer|technician|worker|driver|chef|cook|teacher|"
    r"tutor|intern|operator|supervisor|coordinator|translator|editor|accountant|administrator|representative|associate|specialist|lead|head|"
    r"freelance|self-employed|worked|employed|apprentice|foreman|mechanic|electrician|barista|server|waiter|waitress|cashier|carpenter|labou?rer|hospital|"
    r"at [A-Z])",
    re.IGNORECASE,
)
_JOB_TABLE = re.compile(
    r"(?:근무처|근무기간|회사명|직장명|담당업무|기간|직위|직급|업무|부서|company|position|period|employer|duties|dates)\b",
    re.IGNORECASE,
)
_YEARS = re.compile(
    r"(?<!\d)(?:19|20)\d\d[./년 \d월]{0,6}[ ]?[-~][ ]?(?:(?:19|20)\d\d|현재|now|present)?", re.IGNORECASE
)
_LETTER = re.compile(r"(?:dear |to whom|안녕하(?:세요|십니까))", re.IGNORECASE)
SENTENCE = re.compile(r"(?:니다|어요|아요|해요|에요|예요|[가-힣]다)[.!]?$|^[A-Z].{50,}[.!]$")
_MILITARY = re.compile(
    r"(?:육군|해군|공군|해병대?|의경|공익|사회복무요원).{0,20}(?:병장|전역|제대|복무|소집해제)|만기 ?전역|군필"
)
_LANGUAGE_TEST = re.compile(r"toeic|토익|toefl|토플|opic|오픽|jlpt|hsk|teps|텝스|ielts", re.IGNORECASE)
_CERTIFICATE = re.compile(
    r"기능사|산업기사|기능장|자격증|면허|(?:^|[ ,])[가-힣]{2,12}사? ?[123]급|컴퓨터활용능력|\b(?:licen[sc]ed?|certified|certification|certificate)\b",
    re.IGNORECASE,
)
_LIST_BREAK = re.compile(r"\s*[,/·|;]\s*")


def _content(line: str) -> Kind | None:
    """Judge a line by what it says; None where it could stand anywhere."""
    if _PERSONAL_LABEL.match(line) or (len(line) < 200 and _PERSONAL.search(line)):
        return "personal"
    if _LETTER.match(line):
        return "cover_letter"
    line = line[:200]
    dated, school, company = _DATE.search(line), _SCHOOL.search(line), _COMPANY.search(line)
    job = _JOB.search(line)
    if SENTENCE.search(line) and not (dated and (company or school)):
        return "summary"
    if _MILITARY.search(line):
        return "military"
    if school and not company and not (job and dated and not re.search("졸업|학사|석사|박사", line)):
        return "education"
    if company or (job and dated) or len(_JOB_TABLE.findall(line)) > 1:
        return "experience"
    if _LANGUAGE_TEST.search(line):
        return "languages"
    if _is_list(line):
        return "skills"
    if _CERTIFICATE.search(line):
        return "certificates"
    return None


def _is_list(line: str) -> bool:
    """Tell whether a line lists at least three short things."""
    if line[:1] in _WEAK_MARKS:
        return False
    items = _LIST_BREAK.split(line.rstrip("."))
    return (
        len(items) >= 3
        and all(0 < len(item) <= 24 and item.count(" ") <= 2 for item in items)
        and not _DATE.search(line)
    )


# --- splitting --------------------------------------------------------------------------------------------------------

LINE = re.compile(r"[^\n]*+\n?")
_HEADING_INSIDE = re.compile(
    r"(?<=[\s/|.;,])(?:\[[^\[\]\n]{1,20}\]|【[^【】\n]{1,20}】|[■◆▶●◈][ ]?[^\s:■◆▶●◈]{1,12}(?=[\s:]))"
)
_LABEL_INSIDE = re.compile(r"(?<=[\s/|.;,])[^\W\d_]{2,14}(?: [^\W\d_]{2,12})?[ ]?:(?=[ ])")
_LONG_LINE = 80


def _segments(plain: str) -> Iterator[tuple[int, int]]:
    """Yield the lines, and of a line that holds several headings its parts."""
    for match in LINE.finditer(plain):
        start, end = match.span()
        if start == end:
            continue
        for cut in _cuts(plain, start, end):
            yield start, cut
            start = cut
        yield start, end


def _cuts(plain: str, start: int, end: int) -> list[int]:
    line = plain[start:end]
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


def _split(text: str, plain: str) -> list[Section]:
    sections: list[Section] = []
    current: _Open | None = None
    headed = False  # after the first heading, content decides no more
    blank_before = True
    for start, end in _segments(plain):
        line = plain[start:end].rstrip()
        if not HAS_WORD.search(line):
            blank_before = blank_before or not line.strip()
            continue
        heading = _heading(line)
        if heading and current and current.kind == "personal" and heading.inline and _ASIDE.match(line):
            heading = None
        if heading and not _opens(heading, current, headed, blank_before):
            heading = None
        elif heading is None and headed and current:
            heading = _unknown_heading(line, current, blank_before)
        if heading:
            following = _Open(heading.kind, start, heading, start)
            headed = True
        elif (kind := _unheaded(line, current, headed, blank_before)) and (current is None or kind != current.kind):
            following = _Open(kind, start, None, start)
        else:
            blank_before = False
            continue
        if current:
            sections.append(_closed(text, current, following.start))
        else:
            following.start = 0
        current = following
        blank_before = False
    if current:
        sections.append(_closed(text, current, len(text)))
    elif text:
        sections.append(Section("other", "", text.strip(), 0, len(text)))
    return sections


def _opens(heading: _Heading, current: _Open | None, headed: bool, blank_before: bool) -> bool:
    """Tell whether a heading starts a section, or stands inside the one being read."""
    if current is None or current.heading is None or not headed:
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
        core = heading.kind in ("experience", "education") and heading.indent <= opener.indent
        return core or (blank_before and heading.indent <= opener.indent)
    if heading.inline:
        return heading.indent <= opener.indent or same_style
    inside = current.kind in ("experience", "projects") and heading.kind in ("skills", "projects", "summary", "awards")
    return same_style or blank_before or not (inside and opener.style)


def _unheaded(line: str, current: _Open | None, headed: bool, blank_before: bool) -> Kind | None:
    """Return the kind of a line without a heading where it differs from its surroundings, else None."""
    if headed and current is not None:
        outside = current.kind in ("experience", "education", "skills", "certificates", "languages", "other")
        if outside and line[:1] not in _WEAK_MARKS and _PERSONAL_LABEL.match(line):
            return "personal"
        if current.kind == "personal" and current.heading is None:
            return _content(line)
        return None
    kind = _content(line)
    if current is None:
        return kind if kind not in (None, "languages", "certificates", "skills") else "personal"
    if kind == "summary" and current.kind not in ("personal", "summary"):
        return None
    if current.kind == "cover_letter" and kind != "personal":
        return None
    if line.lstrip()[:1] in _WEAK_MARKS and current.kind in ("experience", "projects"):
        return None
    if kind is None and _DATE.search(line) and HAS_WORD.search(line) and current.kind == "personal":
        return "experience" if len(line) > 20 or (_YEARS.search(line) and len(line) > 14) else None
    return kind


def _closed(text: str, opened: _Open, end: int) -> Section:
    heading, start = opened.heading, opened.start
    if heading is None:
        return Section(opened.kind, "", text[start:end].strip(), start, end)
    at = opened.segment_start
    title = text[at : at + heading.title_end].strip()
    body = text[at + heading.body_start : end].strip()
    first, _, rest = body.partition("\n")
    if not heading.inline and not HAS_WORD.search(first):  # the line under an underlined heading
        body = rest.strip()
    return Section(opened.kind, title, body, start, end)
