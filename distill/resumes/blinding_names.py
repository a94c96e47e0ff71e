"""Blinding: find names in introductions and in the first lines, and all other occurrences of known names."""

import re
from collections.abc import Iterator, Sequence
from itertools import chain, islice

from distill.resumes.blinding_fields import LABEL_ALONE
from distill.resumes.blinding_forms import Span, is_form, signs
from distill.resumes.blinding_name_words import (
    COMMON_WORDS,
    ENGLISH_NAME,
    ENGLISH_WORD,
    LONG_SURNAMES,
    NOT_ENGLISH_NAMES,
    is_name,
    is_name_beside_role,
    sounds_alike,
)
from distill.resumes.section_headings import HANGUL
from distill.resumes.sections import LINE, MARKS, ResumeSection, match_end

__all__ = ["header_names", "names_of_handles", "occurrences", "other_spelling", "romanized_names"]

_ROLE_END = r"(?:[가-힣]{1,8}(?:사|자|원|이너|니어|너|트|생|가|인|터|직|장|셰프)|지원자)"
_BIRTH_DATE = r"(?:19[5-9]\d|200\d)(?: ?[.년월/-] ?\d{1,2}){2}(?: ?일)?+(?!\d| ?[~–-])"  # not the beginning of a period
_BIRTH_BESIDE = re.compile(f" ({_BIRTH_DATE})")
_KOREAN_ROLE_NAME = re.compile(
    rf"(?P<before>{_ROLE_END} )?(?P<name>[가-힣]{{2,4}}|[가-힣](?: {{1,2}}[가-힣]){{1,3}})(?P<role> {_ROLE_END})?(?:의)?(?: ?(?:이력서|입사지원서|지원서|님|포트폴리오|경력기술서|프로필))?(?= {{0,9}}$| {{2}}| [A-Z\[+]| 0\d| 만 ?\d| {_BIRTH_DATE})"
)
_ROLE = (
    r"[가-힣]{0,6}(?:개발자|엔지니어|디자이너|담당자|관리자|기획자|매니저|마케터|분석가|컨설턴트|프로듀서|연구원|상담사|상담원|간호사|조무사|복지사|치료사|미용사|조리사|영양사|요리사|셰프|"
    r"교사|강사|회계사|세무사|변호사|노무사|설계사|정비사|용접사|기사|기술자|전문가|운전원|승무원|배달원|안내원|경비원|미화원|감독|작가|작곡가|연주자|관리사|지도사|에디터|기자|성우|배우|지원자|구직자)"
)
_NAME_BEHIND_ROLE = re.compile(
    rf"(?:[가-힣A-Za-z\d+#.]{{1,12}} ){{0,2}}{_ROLE} (?P<name>[가-힣]{{3}})(?= {{0,9}}$| {{2}})"
)
_JOB_LABEL = re.compile(  # a label whose value is a job or an employer, and no name
    r"(?:^|[|/,·;(\t])[^\w|]*(?:(?:희망|지원|현재|담당|주요) ?)?(?:직[무종군책위업급]|분야|부문|포지션|업무|부서|소속|회사|position|(?:job )?title|role|job) ?[:|\t][ *_]*$",
    re.IGNORECASE,
)
_INTRODUCTIONS = tuple(
    (signs(words), re.compile(pattern))
    for words, pattern in (
        (
            "저는 이름은 저, 본인 지원자 신청인 작성자 안녕",
            r"(?<![가-힣])(?:저는|제 이름은|저의 이름은|저,|본인|지원자|신청인|작성자|안녕하(?:세요|십니까)[,.!~]{0,3}(?: 저는)?) ?['\"‘“]?([가-힣]{3,4}?)(?=['\"’”]?(?:입니다|이라고|라고|이며|이고|이에요|예요|은 |는 |을 |를 |의 | 드림| 올림|,))",
        ),
        ("저_", r"(?<![가-힣])저 ([가-힣]{3})(?=[은는의],? )"),
        (
            "라고",
            r"(?m:(?:^|[.!?,]|저는|지원자|자)) ?([가-힣]{2,4}?)(?:이라고|라고) ?(?:합니다|해요|불립니다|부릅니다)",
        ),
        ("라고", r"(?<=[가-힣 ])(?:된|는|던|인|한|할) ([가-힣]{3})(?:이라고|라고) ?(?:합니다|해요|하고|합니당)"),
        (
            "입니다 에요 예요",
            r"(?<=[가-힣])(?:하는|하는|한|된|인|온|의) ([가-힣]{2}[^사자원직인장가생공관수\W])(?=입니다|이에요|예요)",
        ),
        (
            "지원자 작성자 신청인 응시자",
            r"(?<![가-힣])(?:지원자|작성자|신청인|응시자|제출자) ?:? ?([가-힣]{3})(?![가-힣])",
        ),
        ("라고", rf"({ENGLISH_WORD}(?: {ENGLISH_WORD}){{1,3}})(?=이?라고 (?:합|해|하|불|씁|쓰|적))"),
        ("née nee_", rf"\b(?:née|nee) ({ENGLISH_WORD})"),
        ("belongs_to", rf"\b(?:CV|[Rr]esume|[Rr]ésumé|[Pp]rofile) belongs to ({ENGLISH_NAME})"),
        ("_here", rf"\b(?:Hi|Hello|Hey)[,!]? ({ENGLISH_WORD}(?: {ENGLISH_WORD}){{0,2}}) here\b"),
        ("입니다", r"(?:\A\s{0,9}|안녕하(?:세요|십니까)[.!,~]{0,3}\s{1,3})([가-힣]{3})입니다"),
        (
            "드림 올림 배상 (인) (서명)",
            r"(?m:(?<![가-힣])([가-힣]{3,4}|[가-힣](?: {1,2}[가-힣]){1,3}) ?(?:(?:드림|올림|배상)[. ]{0,3}$|\((?:인|서명)\)))",
        ),
        ("입니다 이라고", rf"(?<![가-힣]){_ROLE_END} ([가-힣]{{3}})(?=입니다|이라고)"),
        (
            "이름 본명 성함",
            r"(?<![가-힣])(?:이름|본명|성함)[은는]? ?['\"‘“]?([가-힣]{2,4}?)(?=['\"’”]?(?:입니다|이고|이며|이에요|예요|,|\. |\.?$))",
        ),
        ("name", rf"\b[Mm]y (?:full )?name(?: is|'s) ({ENGLISH_NAME})"),
        (
            "I_am_ I'm_ his_is_",
            rf"\b(?:I am|I'm|[Tt]his is) ({ENGLISH_WORD}(?: {ENGLISH_WORD}){{1,3}})(?=[,;!\n]|\.(?:\s|$)| and | from | - |$)",
        ),
        ("I'm_ I_am_", rf"\bI(?:'m| am) ({ENGLISH_WORD})(?=, an? )"),
        (
            "call_me goes_by go_by known_as friends nick",
            rf"\b(?:call me|goes by|go by|(?:also )?known as|nick ?name(?: is)?:?) [\"'“‘]?({ENGLISH_WORD})(?=[\"'”’,.;!)\n -]|$)",
        ),
        (
            "by_",
            rf"\b(?:[Pp]repared|[Ss]ubmitted|[Ss]igned|[Cc]ompiled) by:? ({ENGLISH_WORD}(?: {ENGLISH_WORD}){{1,3}})",
        ),
        (
            "incerely egards aithfully ruly espectfully ours est_ est, hanks heers armly SINCERELY REGARDS",
            rf"\b(?i:sincerely|regards|faithfully|truly|respectfully(?: submitted)?|yours|best wishes|best|many thanks|thanks|cheers|warmly)(?: yours)?,?\n{{1,3}} {{0,4}}({ENGLISH_NAME})",
        ),
    )
)
_NAME_LINE = re.compile(
    rf"((?:(?:Mr|Mrs|Ms|Dr|Prof)\. )?{ENGLISH_WORD}(?: (?:(?:de|del|della|da|dos|van|von|der|den|la|le|bin|al|ten|y) )?{ENGLISH_WORD}){{1,4}})(?=$|[ ]?[-–|,/(·~]|  | [가-힣])"
)
_HONORIFIC = re.compile(r"(?:Mr|Mrs|Ms|Miss|Dr|Prof)\.? ", re.IGNORECASE)
_PARTICLE = re.compile(r"님|씨|입니다|이라|에게|(?:은|는|이|가|의|을|를|과|와|도)(?![가-힣])|(?![가-힣])")
_HANJA_NOTE = re.compile(r" ?[(\[/] ?([一-龥](?: ?[一-龥]){1,3})(?![一-龥])")
_ADDRESSED = re.compile(r" ?(?:님|씨(?!앗))")
_TITLED = re.compile(r"\b(?:Mr|Mrs|Ms|Miss|Dr|Prof)\.? $")
_INITIALS_BEFORE = re.compile(r"(?<![A-Za-z])(?:[A-Z]\.[ -]?){1,3}$")
_INITIALS_AFTER = re.compile(r",? ?(?:[A-Z]\.?-?){1,3}(?![A-Za-z])")


_ROMAN_SURNAMES = "Kim|Lee|Yi|Park|Choi|Jung|Jeong|Kang|Cho|Yoon|Jang|Lim|Im|Ahn|Song|Oh|Seo|Shin|Kwon|Hwang|Yang|Son|Bae|Woo|Min|Han|Hong|Ko|Moon|Noh|Ha|Nam|Heo|Yoo|Ryu|Baek"
_SURNAME_FIRST = re.compile(
    rf"\s{{0,9}}((?:{_ROMAN_SURNAMES}), {ENGLISH_WORD}(?: {ENGLISH_WORD})?)(?= {{0,9}}(?:$|[\n|/(]))"
)


_OWN_LABEL = re.compile(
    r"(?:\A|[\n|/,·;(\t])[ *#>•–-]{0,9}(?:한글 ?)?(?:성 {0,8}명|이 {0,8}름|성 {0,2}함|본 ?명)[^가-힣A-Za-z\n]{0,9}$"
)


def is_own_name(plain: str, start: int) -> bool:
    """Return whether the name that begins here is labelled as the applicant's, not as that of a guardian or a contact."""
    return plain.count("\n", 0, start) < _PERSONAL_LINES and bool(_OWN_LABEL.search(plain, max(0, start - 40), start))


def header_names(plain: str, personal: Sequence[ResumeSection], *, known: bool = False) -> Iterator[Span]:
    """Yield names in introductions ("My name is …"), and names without a label in the first lines.

    A birth date beside such a name is yielded, too. Beside a role ("간호사 정민수") a name is only guessed if no other
    Korean name is known: titles hold many words that might be one.

    :param known: whether the applicant's Korean name is known already
    """
    for words, pattern in _INTRODUCTIONS:
        for match in pattern.finditer(plain) if any(sign in plain for sign in words) else ():
            if is_name(match[1]):
                known = known or bool(HANGUL.search(match[1]))
                yield match.start(1), match.end(1), "name"
    if (surname_first := _SURNAME_FIRST.match(plain)) and is_name(surname_first[1]):
        yield *surname_first.span(1), "name"
    of_text = islice(_lines(plain, 0, len(plain)), _FIRST_LINES)
    of_sections = chain.from_iterable(_lines(plain, section.start, section.end) for section in personal[:2])
    lines = {line.start(): line for line in chain(of_text, islice(of_sections, _PERSONAL_LINES))}
    for beside_role in (False, True):
        if beside_role and known:
            return
        for number, start in enumerate(sorted(lines)):
            for span in _names_of_line(lines[start], number, beside_role) if is_form(lines[start][0]) else ():
                before = plain[start : span[0]]
                if HANGUL.search(plain, *span[:2]) and (":" not in before or is_own_name(plain, span[0])):
                    known = True  # what stands behind another label is the name of a contact
                yield span


_FIRST_LINES, _PERSONAL_LINES = 3, 6


def _lines(plain: str, start: int, end: int) -> Iterator[re.Match[str]]:
    return (line for line in LINE.finditer(plain, start, end) if line[0].strip())


_HEADER_CELLS = re.compile(r"(?:[^|/,·∙•:\t()\n<>\[\]【】*-]|(?<=\S)-(?=\S))++")
_CELLS_WITH_A_NAME = 3
_RESUME_OF = re.compile(r"(?:resume|résumé|cv|curriculum vitae)(?: of| for| -)? (?=[A-Z])", re.IGNORECASE)


def _names_of_line(line: re.Match[str], number: int, beside_role: bool) -> Iterator[Span]:
    """Yield Korean names that fill a cell of the line, and English names at the start of one of the first two lines.

    :param beside_role: whether Korean names beside a role are yielded, or those that stand alone
    """
    for cell in islice(_HEADER_CELLS.finditer(line[0]), _CELLS_WITH_A_NAME):
        if line[0][cell.end() : cell.end() + 1] == ":" or _is_of_a_label(line[0], cell):
            continue
        offset = line.start() + cell.start()
        words = MARKS.match(cell[0])
        at = words.end() if words else 0
        korean = _korean_name(cell[0], at, number, beside_role)
        if korean:
            yield offset + korean.start("name"), offset + korean.end("name"), "name"
            if birth := _BIRTH_BESIDE.match(cell[0], korean.end()):
                yield offset + birth.start(1), offset + birth.end(1), "birth"
            at = korean.end() + 1
        elif HANGUL.search(cell[0]) or number > 3:
            continue
        at = match_end(_RESUME_OF, cell[0], at)
        english = _NAME_LINE.match(cell[0].rstrip(), at)
        if english and (number < 2 or korean) and (cell.start() < 12 or HANGUL.search(line[0])) and is_name(english[1]):
            yield offset + english.start(1), offset + english.end(1), "name"


def _korean_name(cell: str, at: int, number: int, beside_role: bool) -> re.Match[str] | None:
    """Return the match of a Korean name in a cell, of those beside a role or of the others."""
    match = _KOREAN_ROLE_NAME.match(cell, at)
    if match and not match["before"] and not match["role"]:
        short = len(match["name"].replace(" ", "")) <= 2
        named = is_name(match["name"]) and not (short and (number > 1 or cell[match.end() :].strip()))
        return match if named and not beside_role else None
    if not beside_role:
        return None
    for found in (match, _NAME_BEHIND_ROLE.match(cell, at)):
        if found and is_name_beside_role(found["name"]) and (len(found["name"]) > 2 or number < 2):
            return found
    return None


def _is_of_a_label(line: str, cell: re.Match[str]) -> bool:
    """Return whether a cell is a label, the note after a label (주소(도로명)), or the value of a job's label."""
    before = line[: cell.start()]
    if _JOB_LABEL.search(before):
        return True
    in_brackets = before.endswith("(") and LABEL_ALONE.fullmatch(before[:-1].rpartition("/")[2].strip())
    label = LABEL_ALONE.match(cell[0].lstrip())
    return bool(in_brackets or (label and not cell[0].lstrip()[label.end() : label.end() + 1].isalpha()))


_SPELLING = rf"(?:((?:前 ?)?[가-힣]{{1,6}}(?: [가-힣]{{1,6}}){{0,3}})|([一-龥](?: ?[一-龥]){{1,3}})|({ENGLISH_NAME}))(?= ?(?:[)\]|,/\n·∙•-]|$| {{2}}))"
_OTHER_SPELLING = re.compile(rf" {{0,2}}[(\[/,|·∙•-] ?{_SPELLING}")
_SPACED_SPELLING = re.compile(rf" {{1,3}}{_SPELLING}")


def other_spelling(plain: str, start: int, end: int, *, labelled: bool) -> Iterator[Span]:
    """Yield the same name in another script, next to a name: 심하늘 / Ha-neul Shim, YOO DONG HYUK (유동혁).

    :param labelled: whether the name is the value of a labelled field
    """
    name = plain[start:end]
    is_korean = bool(HANGUL.search(name))
    match = _OTHER_SPELLING.match(plain, end)
    if match is None and labelled and (spaced := _SPACED_SPELLING.match(plain, end)) is not None:
        match = spaced if spaced[2] or (spaced[3] and is_korean and _is_romanized(name, spaced[3])) else None
    if match is None:
        return
    korean, hanja, english = match.groups()
    if hanja and is_korean:
        yield *match.span(2), "name"
    elif korean and not is_korean and (is_name(korean) or sounds_alike(korean, name)):
        yield *match.span(1), "name"
    elif english and is_korean and is_name(english) and (labelled or len(english.split()) > 1):
        yield *match.span(3), "name"


_ROMANIZED = re.compile(rf"(?<![가-힣])([가-힣]{{2,4}}) ?[(/] ?({ENGLISH_WORD}(?: {ENGLISH_WORD}){{1,2}}) ?[)/\n]")


def romanized_names(plain: str) -> Iterator[Span]:
    """Yield Korean names next to their romanisation, and the romanisation: 채서윤 (Chae Seoyoon)."""
    for match in _ROMANIZED.finditer(plain):
        if is_name(match[1]) and _is_romanized(match[1], match[2]):
            yield *match.span(1), "name"
            yield *match.span(2), "name"


def _is_romanized(korean: str, latin: str) -> bool:
    """Return whether Latin words may transcribe a Korean name; its surname is the first of them or the last."""
    letters, words = korean.replace(" ", ""), latin.split()
    pairs = ((words[0], words[-1]), (words[-1], words[0]))
    return len(words) > 1 and any(sounds_alike(f"{letters[0]} {letters[1]}", f"{a} {b}") for a, b in pairs)


_HANDLES = re.compile(
    r"([A-Za-z][\w.+-]{2,40})@|(?:linkedin\.com/in|github\.com|behance\.net|gitlab\.com|medium\.com)/@?([A-Za-z][\w.-]{2,60})"
)
_TWO_WORDS = re.compile(rf"(?<![^\W_])({ENGLISH_WORD})(?: [A-Z]\.?)?(?= ({ENGLISH_WORD})(?![^\W_]))")


def names_of_handles(plain: str) -> Iterator[Span]:
    """Yield pairs of capitalised words that an e-mail address or a profile spells: priya.raman@… is Priya Raman."""
    handles = {re.sub(r"[^a-z]", "", (match[1] or match[2]).lower()) for match in _HANDLES.finditer(plain)}
    for match in _TWO_WORDS.finditer(plain) if handles else ():
        first, last = (re.sub(r"[\W_]", "", word.lower()) for word in match.groups())
        whole, short = {first + last, last + first}, {first[:1] + last, first + last[:1]}
        if any(handle in short or any(len(name) > 5 and name in handle for name in whole) for handle in handles):
            yield match.start(1), match.end(2), "name"


def occurrences(plain: str, name: str) -> Iterator[Span]:
    """Yield all occurrences of a known name, and of its parts if they cannot be anything else."""
    name = _HONORIFIC.sub("", name).strip()
    find = _korean_occurrences if HANGUL.search(name) else _english_occurrences
    yield from ((start, end, "name") for start, end in find(plain, name))


def _korean_occurrences(plain: str, name: str) -> Iterator[tuple[int, int]]:
    compact = name.replace(" ", "")
    for spelling in {compact, " ".join(compact), name}:
        for start, end in _places(plain, spelling):
            if not _is_hangul(plain[start - 1 : start]) and (len(compact) > 2 or _PARTICLE.match(plain, end)):
                yield start, end
                if hanja := _HANJA_NOTE.match(plain, end):
                    yield hanja.span(1)
    given_name = compact[2 if compact[:2] in LONG_SURNAMES else 1 :]
    if len(given_name) == 2:
        for start, end in _places(plain, given_name):
            if "一" <= plain[start - 1 : start] <= "龥":  # 盧아름
                yield start - 1, end
            elif not _is_hangul(plain[start - 1 : start]) and _ADDRESSED.match(plain, end):
                yield start, end


def _english_occurrences(plain: str, name: str) -> Iterator[tuple[int, int]]:
    words = [word.strip(",") for word in name.split() if word.strip(",")]
    if len(words) > 1:
        first, last = re.escape(words[0]), re.escape(words[-1])
        whole = r"[ .,_-]{1,2}".join(map(re.escape, words))
        if plain.lower().count(words[-1].lower()) > 1:  # only then compile a pattern, which is slow
            pattern = rf"(?i)(?<![^\W_])(?:{whole}|{last}, ?{first}|{first} (?:\w{{1,12}}\.? )?{last})(?![^\W_])"
            yield from (match.span() for match in re.finditer(pattern, plain))
    initials = {part[0] for word in words for part in word.split("-") if part}
    for word in words:
        safe = len(word) > 2 and word[0].isupper() and word.lower() not in COMMON_WORDS | NOT_ENGLISH_NAMES
        for spelling in {word, word.title(), word.upper()} if len(word) > 1 else ():
            for start, end in _places(plain, spelling):
                titled = _TITLED.search(plain, max(0, start - 6), start)
                if (safe or titled) and not (plain[start - 1 : start].isalnum() or plain[end : end + 1].isalnum()):
                    yield _with_initials(plain, titled.start() if titled else start, end, initials)


def _with_initials(plain: str, start: int, end: int, initials: set[str]) -> tuple[int, int]:
    """Return the span of a name, extended by the initials of its other parts: S. V. Babu, Bang, S.-Y."""
    before = _INITIALS_BEFORE.search(plain, max(0, start - 10), start)
    after = _INITIALS_AFTER.match(plain, end)
    if before and set(re.findall("[A-Z]", before[0])) <= initials:
        start = before.start()
    if after and set(re.findall("[A-Z]", after[0])) <= initials:
        end = after.end()
    return start, end


def _places(plain: str, words: str) -> Iterator[tuple[int, int]]:
    start = plain.find(words)
    while start >= 0:
        yield start, start + len(words)
        start = plain.find(words, start + len(words))


def _is_hangul(character: str) -> bool:
    return "가" <= character <= "힣"
