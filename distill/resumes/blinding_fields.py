"""Blinding: find labelled fields: `성명: …`, `Phone …`, and tables with labels in one row and values in the next."""

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

from distill.resumes.blinding_forms import (
    AGE_IN_WORDS,
    DIGIT,
    ENGLISH_AGE,
    ENGLISH_DATE,
    KOREAN_DATE,
    PLACE,
    PLACEHOLDERS,
    RELATIVES,
    Identifier,
    Span,
)
from distill.resumes.blinding_name_words import ENGLISH_NAME, is_name
from distill.resumes.section_content import HAS_WORD
from distill.resumes.section_headings import HANGUL
from distill.resumes.sections import LINE, ResumeSection

__all__ = ["LABEL_ALONE", "entries", "labelled"]

_END = r"(?=[ \t]{0,9}(?:$|[\n|,/)·;]))"
_KOREAN_NAME = r"(?:[가-힣](?: {1,3}[가-힣]){1,3}(?![가-힣])|[가-힣]{2,4}(?=입니다|님|씨|이며|이고)|[가-힣]{2,5}(?: [가-힣](?![가-힣]))?|[가-힣][OX○●*ㅇ]{1,3}[가-힣]?)"
_NAME = rf"(?:{_KOREAN_NAME}|[一-龥](?: ?[一-龥]){{1,3}}|{ENGLISH_NAME}|[a-z]{{2,15}} [a-z]{{2,15}})"
# what stands behind a value in the text of a form, where only spaces divide a line: the next label
_NEXT_LABEL = (
    r" {1,3}(?:생년월일|생일|성별|연령|나이|주소|전화|휴대|핸드폰|연락처|이메일|e-?mail|국적|영문|한자|사진|지원|date of birth|dob\b|age\b|gender\b|"
    r"phone\b|mobile\b|address\b|nationality\b)(?:[가-힣 ]{0,6})[ :\t(]"
)
# or the same name in other letters
_AFTER_NAME = (
    r" {1,3}(?:(?-i:[A-Z][A-Za-z-]{1,20}(?: [A-Z][A-Za-z-]{1,20}){1,2}|[一-龥](?: ?[一-龥]){1,3})[ \t]{0,9}(?:$|[\n|,/(]))"
    rf"|{_NEXT_LABEL}"
)
_DATE = f"(?:{ENGLISH_DATE}|{KOREAN_DATE})"
_AGE = rf"(?:(?:만|한국 ?나이|세는 ?나이|올해|현재) ?)?(?:\d{{1,2}}(?: ?세| ?살| years? old| yrs?)?|{AGE_IN_WORDS}(?: ?살| ?세)?|{ENGLISH_AGE})(?![\d.])"
_CELL = r"[^\n|\t]{1,100}"
_SHORT_CELL = r"[^\n|\t/,;()]{1,40}"
_HANDLE = r"(?!(?:19|20)\d\d(?:\D|$))@?[A-Za-z\d][\w./@:?=&%~#+-]{2,120}(?=[ \t]{0,9}(?:$|[\n|,/)]| ?(?:입니다|이에요|예요|이고|이며|으?로(?![가-힣]))))"
_NUMBER = r"(?-i:(?=[A-Z*•xX -]{0,8}\d)[A-Z\d*•xX-]{1,20}(?: ?- ?[\d*xX]{4,8}| [A-Z\d*•xX-]{1,8}){0,7})"
_SPACED_DIGITS = r"\d(?: {1,2}[\d*xX-]){9,15}(?![\w*])"
_PHONE = rf"(?:\+?\(?\d[\d ().·/*~_-]{{5,34}}\d|{DIGIT}(?:[ .-]?{DIGIT}){{6,12}})"
_SEX = "(?:남(?:성|자)?|여(?:성|자)?|male|female)(?![가-힣A-Za-z])"


class _Field(NamedTuple):
    """A labelled field, with patterns for its labels and values.

    :param value: pattern of the value after a colon, a bar or a gap
    :param loose_value: pattern of the value after a single space; None: such values are not accepted
    :param personal: the label only counts in personal data, because it has another meaning elsewhere
    """

    kind: Identifier
    labels: str
    value: str
    loose_value: str | None = None
    personal: bool = False


_FIELDS = (
    _Field(
        "name",
        "성 {0,8}명|이 {0,8}름|성 {0,2}함|본 ?명|예명|필명|별명|한글 ?(?:성명|이름)|영문 ?(?:성명|이름|명)|한[자문] ?(?:성명|이름)?|漢字 ?(?:성명|이름)?|姓 ?名|지원자 ?(?:명|성명)?|작성자|응시자|신청인|비상 ?연락처|보호자(?: ?(?:성명|이름))?|예금주|(?:full |first |last |given |family |middle |maiden |preferred |nick ?)?names?(?:\\(s\\))?|surname|(?:candidate|applicant|employee|nominee)(?:'s (?:full )?name)?|emergency contact",
        _NAME,
        rf"(?:[가-힣](?: {{0,3}}[가-힣]){{1,3}}(?=[ \t]{{0,9}}(?:$|[\n|,/().])|{_AFTER_NAME})|{ENGLISH_NAME}(?={_NEXT_LABEL}))",
    ),
    _Field(
        "birth",
        r"생 {0,8}년 {0,8}월 {0,8}일|생 {0,8}일|출생(?:일|년도?)?|생년|date of birth|birth ?date|birthday|d\.?o\.?b\.?|born|year of birth",
        _DATE,
        _DATE,
    ),
    _Field("age", "나 {0,8}이|연 {0,4}령|만 ?나이|age", _AGE, _AGE),
    _Field(
        "gender",
        "성 {0,8}별|남 ?/ ?여(?: ?구분)?|남녀 ?구분|gender|sex",
        r"(?:(?:(?:[■□☑☐✔✓●○]|\[[ vVxXoO]?\]) ?(?:남|여)(?:성|자)? ?[/,]? ?){1,2}|(?:남(?:성|자)?(?: ?/ ?여(?:성|자)?)?|여(?:성|자)?|male|female|non-?binary|man|woman|m|f)(?![가-힣A-Za-z]))",
        rf"(?:(?:(?:[■□☑☐✔✓●○]|\[[ vVxXoO]?\]) ?(?:남|여)(?:성|자)? ?[/,]? ?){{1,2}}|(?:{_SEX}|(?-i:[MF]))(?:{_END}|(?={_NEXT_LABEL})))",
    ),
    _Field("gender", "(?:preferred )?pronouns", r"\w{2,5}(?:/\w{2,6}){1,2}", r"\w{2,5}(?:/\w{2,6}){1,2}"),
    _Field(
        "family",
        "결혼 ?(?:여부|상태|유무)?|혼인 ?(?:여부|상태|관계)?|[기미]혼 ?여부|배우자 ?(?:유무|여부)|marital status|civil status",
        _SHORT_CELL,
        f"(?:[기미]혼|[YNO유무]|있음|없음|married|single|divorced){_END}",
    ),
    _Field(
        "family",
        "자녀(?: ?(?:수|유무|사항))?|형제(?: ?관계)?|관계|relationship",
        _CELL,
        r"(?:\d남(?: ?\d녀)?|\d녀|\d명|있음|없음)" + _END,
    ),
    _Field(
        "family",
        f"가족 ?(?:사항|관계)?|부모님?|{RELATIVES}|부|모|number of children|children|spouse|husband|wife|father(?:'s (?:name|occupation))?|mother(?:'s (?:name|occupation))?|parents|dependents|family|next of kin",
        _CELL,
    ),
    _Field(
        "address",
        "(?:현|본|자택|거주지|실거주|우편물)? ?주 {0,8}소|숙소|기숙사|거주지역?|현거주지|사는 ?곳|거주|(?:home |mailing |current |permanent |street |postal )?address(?:\\(es\\))?|residence",
        _CELL,
        rf"(?=[가-힣 \d,-]{{4,80}}\d|{PLACE}{_END})" + _CELL,
    ),
    _Field("address", "우편 ?번호|zip(?: code)?|post(?:al )?code", r"[A-Z\d][A-Z\d -]{2,9}", r"\d{5}(?!\d)"),
    _Field(
        "resident_number",
        r"주민(?:등록)? ?번호(?: ?(?:앞|뒷|뒤) ?자리)?|외국인 ?등록 ?(?:번호|증)|여권 ?(?:번호)?|운전면허 ?번호|선원 ?수첩 ?(?:번호)?|계좌 ?번호|resident(?: registration)? (?:number|no\.?)|passport(?: (?:number|no\.?))?|alien registration (?:number|no\.?)|ssn|social security(?: (?:number|no\.?))?|national id(?:entity)?(?: (?:card|number|no\.?)){0,2}|national insurance(?: (?:number|no\.?))?|ni (?:number|no\.?)|tax (?:id|number|no\.?)|aadhaa?r(?: (?:card|number|no\.?)){0,2}|pan(?: card)? (?:number|no\.?)|nric|id (?:card|number|no\.?)(?: (?:number|no\.?))?|seaman'?s? book(?: (?:number|no\.?))?|cdc (?:number|no\.?)|driv(?:er'?s?|ing) licen[cs]e (?:number|no\.?)",
        f"(?:{_SPACED_DIGITS}|{_NUMBER})",
        rf"(?=(?:[^\n\d]{{0,3}}[\d*]){{6}})(?:{_SPACED_DIGITS}|{_NUMBER})",
    ),
    _Field(
        "phone",
        r"전화(?:번호)?|연 {0,4}락 {0,4}처|비상 ?연락망|휴대 ?(?:폰|전화)(?: ?번호)?|핸드폰(?: ?번호)?|자택 ?(?:전화)?|집 ?전화|contact (?:number|no\.?)|h\.? ?p\.?|c\.? ?p\.?|ph\.?|tel\.?|telephone|(?:mobile|cell|home|work|day|evening|direct)(?: ?(?:phone|line))?(?: (?:number|no\.?))?|mob\.?|phone(?: number)?|fax|팩스|직장 ?전화|whatsapp",
        _PHONE,
        rf"(?=\D{{0,2}}\d[\d ().·/*~_-]{{6}}|{DIGIT}){_PHONE}",
    ),
    _Field(
        "link",
        "git ?hub|git ?lab|linked ?in|링크드인|깃허브|블로그|blog|카카오톡?(?: ?id| ?아이디)?|카톡(?: ?id)?|kakao(?:talk)?(?: ?id)?|인스타(?:그램)?|instagram|facebook|페이스북|twitter|velog|behance|비핸스|youtube|유튜브|telegram|텔레그램|skype(?: ?id)?|wechat(?: ?id)?|line id|라인 ?id|sns",
        _HANDLE,
        r"(?=@|[A-Za-z]{1,20}[._\d])" + _HANDLE,
    ),
    _Field(
        "link", "line|라인|x|discord|디스코드|signal|threads|스레드", r"(?=@|[A-Za-z.]*[\d_])" + _HANDLE, personal=True
    ),
    _Field(
        "link",
        "홈페이지|home ?page|web ?site|web|portfolio|포트폴리오|notion|노션|url|개인 ?(?:사이트|페이지)",
        r"(?=[^\s.@/]{0,60}[.@/])" + _HANDLE,
    ),
    _Field(
        "body",
        "(?:키|신 {0,8}장) ?[/·,] ?(?:체 {0,8}중|몸무게)|키|신 {0,8}장|체 {0,8}중|몸무게|height|weight|발 ?사이즈",
        r"(?:약 ?)?\d{1,3}(?:\.\d)?(?:'\d{1,2}\"?| ?ft ?\d{0,2}(?: ?in)?)?(?: ?(?:cm|kg|㎝|㎏|센티|센치|킬로|lbs?|m)(?![a-z]))?(?: ?/ ?\d{2,3}(?: ?kg)?)?(?![\d가-힣])",
        r"(?:약 ?)?\d{2,3}(?:\.\d)?(?: ?(?:cm|kg|㎝|㎏))?+(?![\d가-힣.%])(?! ?(?:이상|이하|미만|내외))",
    ),
    _Field(
        "body",
        "혈액 ?형|blood (?:type|group)",
        "(?:rh ?[+-] ?)?(?:AB|A|B|O)[+-]?(?: ?형)?(?![A-Za-z])",
        "(?:rh ?[+-] ?)?(?:AB|A|B|O)[+-]?(?: ?형)?(?![A-Za-z])",
    ),
    _Field(
        "body",
        "(?:교정|나안)? ?시력|eyesight",
        r"[^\n|\t,;()]{1,40}",
        r"(?:[좌우] ?)?[0-2]\.\d(?: ?/? ?(?:[좌우] ?)?[0-2]\.\d)?",
    ),
    _Field("body", "용모|외모|체격|신체 ?(?:조건|사항|사이즈)|건강 ?상태|appearance", _SHORT_CELL),
    _Field(
        "origin",
        "본 {0,8}적(?:지)?|국적 ?/ ?출신|출신 ?(?:지역|지|도|국)|출생지역?|고 {0,4}향|등록 ?기준지|place of birth|birth ?place|home ?town|native place",
        r"[^\n|\t/;()]{1,40}",
        r"[가-힣]{2,8}(?=[ \t]{0,9}(?:$|\n))",
    ),
    _Field(
        "property",
        "재산(?: ?(?:사항|정도|상황))?|자산|동산|부동산|주거 ?(?:형태|상황|구분)|주택 ?소유|assets",
        _SHORT_CELL,
    ),
    _Field("photo", "(?:증명 ?)?사 {0,8}진|photo(?:graph)?|picture|profile (?:photo|image)", _CELL),
    _Field("religion", "종 {0,8}교|religion|caste", _SHORT_CELL),
    _Field(
        "address",
        "home|place|(?:current )?location|city|town|지역|도시",
        r"(?-i:(?=[A-Z#\d가-힣]))" + _CELL,
        personal=True,
    ),
)
_VALUES = tuple(re.compile(field.value, re.IGNORECASE) for field in _FIELDS)
_LOOSE_VALUES = tuple(field.loose_value and re.compile(field.loose_value, re.IGNORECASE) for field in _FIELDS)
_ANY_LABEL = "|".join(f"(?P<f{i}>{field.labels})" for i, field in enumerate(_FIELDS))
# unambiguous labels, which may follow other words; all other labels must start a line or a cell
_PLAIN_LABELS = (
    r"(?=[ADGMNPSTWadgmnpstw거결기계교나몸미본사생성신여연외우전종주체출핸현혈혼휴])(?:생년월일|주민|외국인|여권|휴대|핸드폰|연락처|전화번호|계좌번호|혈액|결혼|혼인|[기미]혼 ?여부|성별|연령|우편|date of|d\.?o\.?b|passport|ssn|social|gender|"
    r"marital|aadhaa?r|national i|next of kin|pronouns|whatsapp|현주소|거주지|주거|본적|출신지|신장|체중|몸무게|나안|교정|사진|종교|mobile|tel|phone)"
)
_LABEL = re.compile(
    rf"(?<![가-힣A-Za-z\d])(?=[가-힣A-Za-z漢])(?:(?<![\w.)\"'%] )|(?={_PLAIN_LABELS}|(?:성명|이름|나이|age) [가-힣\d]))(?:{_ANY_LABEL})(?![가-힣A-Za-z])(?: ?[(/][^()\n:|]{{1,20}}\)?(?= ?[:|\t])| ?\((?!남|여|만|\d)[^()\n:|]{{1,12}}\))?"
    r"(?P<gap> {0,8}(?:[:|\t=)]|- )[ \t|*_]{0,20}| ?\((?=남|여|만|\d)| {2,20}| ?\n {0,8}| )(?P<quote>[\"“'「『])?(?=[^\s:])",
    re.IGNORECASE,
)
_IS_PLAIN_LABEL = re.compile(_PLAIN_LABELS, re.IGNORECASE)
LABEL_ALONE = re.compile(rf"(?:{_ANY_LABEL})(?: ?\([^()]{{1,20}}\))?", re.IGNORECASE)
_CELL_END = re.compile(
    r" / | · | (?=(?:전화|연락처|휴대폰|tel|phone|e-?mail|이메일|메일|생년월일|성별|mobile)\b ?[:|(\d+])", re.IGNORECASE
)


def labelled(plain: str, personal: Sequence[ResumeSection]) -> Iterator[Span]:
    """Yield the values of labels: on the same line, on the next line, or below them in a table."""
    value_end: int | None = None  # of the last value; a label right behind it starts a cell, too
    for match in _LABEL.finditer(plain):
        field = _FIELDS[number := _field_number(match)]
        gap = match["gap"]
        cell = _starts_cell(plain, match.start()) or _is_right_behind(plain, value_end, match.start())
        if not cell and (gap == " " or "\n" in gap or not _IS_PLAIN_LABEL.match(plain, match.start())):
            continue
        if field.personal and not (cell and any(span.start <= match.start() < span.end for span in personal)):
            continue
        pattern = _LOOSE_VALUES[number] if gap == " " and not match["quote"] else _VALUES[number]
        value = pattern.match(plain, match.end()) if pattern else None
        if value is None or LABEL_ALONE.fullmatch(value[0].strip()):
            continue
        if gap == " " and field.kind == "name" and not match["quote"] and not is_name(value[0]):
            continue
        end = value.end()
        if "\n" in gap and (field.kind in ("family", "photo") or plain[end : end + 1].strip(" \t\n")):
            continue
        if field.kind != "body" and (cut := _CELL_END.search(plain, value.start(), end)):
            end = cut.start()
        value_end = end
        yield value.start(), end, field.kind
    yield from _tables(plain)


# In personal data, one word of a label is enough, and the rest of the entry is the value: "Name of applicant: …"
_KEYWORDS: tuple[tuple[Identifier, str], ...] = (
    ("email", "메일|e-?mail"),
    ("phone", r"전화|휴대|핸드폰|연락|팩스|\bphone|\btel\b|mobile|\bcell|\bfax\b|\bcontact n"),
    ("birth", r"생년|생일|출생(?!지)|^born$|(?<!place of )birth(?! ?place)|\bd\.?o\.?b"),
    (
        "resident_number",
        r"주민|여권|등록번호|면허번호|운전면허|수첩|passport|social security|\bssn\b|national i|\bid (?:no|number|card)|licen[cs]e n|\bsin\b|driving licen",
    ),
    (
        "family",
        r"결혼|혼인|배우자|가족|자녀|부모|형제|marital|civil status|family status|spouse|husband|\bwife|father|mother|child|dependen|dependant|next of kin|siblings",
    ),
    (
        "name",
        r"성명|성함|이름|본명|국문|영문|한글|한자|한문|姓名|漢字|지원자명|\bname|applicant\b|candidate\b|surname",
    ),
    ("age", r"나이|연령|\bage\b"),
    ("gender", r"성별|남녀|gender|\bsex\b|pronoun"),
    ("origin", r"본적|원적|출신지|고향|출생지|place of birth|birth ?place|home ?town|native place"),
    (
        "address",
        r"주소|거주|사는곳|우편번호|자택|address|residence|\badd\b|\bzip\b|post(?:al )?code",
    ),
    ("religion", "종교|religion|caste"),
    ("body", r"신장|체중|몸무게|혈액형|시력|신체|체격|^키$|height|weight|blood"),
    ("property", "재산|주거형태|주거상황"),
    ("photo", "사진|photo"),
    (
        "link",
        r"블로그|카카오|카톡|홈페이지|인스타|깃허브|깃헙|트위터|git ?hub|linked ?in|blog|instagram|kakao|telegram|skype|zalo|wechat|homepage|website|portfolio",
    ),
)
_KEYWORD_PATTERNS = tuple((kind, re.compile(words, re.IGNORECASE)) for kind, words in _KEYWORDS)
_WORK = re.compile(r"회사|직장|지원|희망|담당|근무|업무|학교|employer|company|school|job|position|work", re.IGNORECASE)
_ENTRY = re.compile(r"[^\w\n|]{0,8}(?P<label>[^:|\t\n]{1,32}?)[ ]{0,8}:[ ]{0,8}(?P<value>[^|\t\n]{1,100})")
_NEXT_ENTRY = re.compile(r"(?<=[,;/· ])([^\W\d][^\s:,;/]{0,11})(?: [^\s:,;/]{1,10}){0,2} ?:(?!//)")
_BLINDED = re.compile("|".join(re.escape(token) for tokens in PLACEHOLDERS.values() for token in tokens))
_TABLE_CELL = re.compile(r"(?:[^|\t\n ]| (?! ))+")
_MAX_LABEL = 20
_DIVIDER = re.compile(r" [/·|;] |; ")
_CLOSED = frozenset[Identifier](["birth", "age", "gender", "phone", "email"])  # kinds whose values hold no ", "
_DIVIDER_OF_CLOSED = re.compile(r" [/·|;] |[,;] ")


def entries(plain: str, personal: Sequence[ResumeSection]) -> Iterator[Span]:
    """Yield the values of entries in personal data whose label names an identifier, whatever form the value has."""
    for section in personal:
        for line in LINE.finditer(plain, section.start, section.end):
            yield from _entries(plain, *line.span())


def _entries(plain: str, start: int, end: int) -> Iterator[Span]:
    """Yield the values in a line of personal data: of "label: value", or cells that follow a cell with a label."""
    above: Identifier | None = None
    for cell in _TABLE_CELL.finditer(plain, start, end):
        if not HAS_WORD.search(cell[0]):
            continue  # a cell without a word, such as a single colon
        if above is not None and not _BLINDED.match(cell[0]) and not _is_known_label(cell[0]):
            yield *cell.span(), above
        above = None
        if ":" not in cell[0]:
            above = _keyword_kind(cell[0]) if _is_known_label(cell[0]) else None
            continue
        cuts = [cell.start(), *_cuts(plain, cell.start() + cell[0].index(":"), cell.end()), cell.end()]
        for first, last in pairwise(cuts):
            entry = _ENTRY.match(plain, first, last)
            kind = _keyword_kind(entry["label"]) if entry else None
            if entry and kind and not _BLINDED.match(entry["value"]):
                yield entry.start("value"), _entry_end(plain, *entry.span("value"), kind), kind


def _entry_end(plain: str, start: int, end: int, kind: Identifier) -> int:
    """Return where the value of an entry ends: behind a value of its kind, at the next divider, else with the entry."""
    for field, pattern in zip(_FIELDS, _VALUES, strict=True):
        value = pattern.match(plain, start, end) if field.kind == kind else None
        dividers = (
            _DIVIDER_OF_CLOSED if kind in _CLOSED or (kind == "name" and HANGUL.search(plain, start, end)) else _DIVIDER
        )
        if value and (divider := dividers.search(plain, value.end(), end)):
            end = divider.start()
            break
    value_text = plain[start:end].rstrip(" ,;/·")
    has_closing_alone = value_text.endswith((")", "]")) and not set("([") & set(value_text)
    return start + len(value_text) - has_closing_alone


def _is_known_label(cell: str) -> bool:
    is_label = len(cell) <= _MAX_LABEL and LABEL_ALONE.fullmatch(cell.strip())
    return bool(is_label and _keyword_kind(cell))


def _cuts(plain: str, start: int, end: int) -> Iterator[int]:
    """Yield where the next entries of a cell start: after a comma or a slash, or with a word that is a label."""
    for match in _NEXT_ENTRY.finditer(plain, start, end):
        before = plain[match.start() - 2 : match.start()].strip()
        if before[-1:] in (",", ";", "/", "·") or _keyword_kind(match[1]):
            yield match.start()


def _keyword_kind(label: str) -> Identifier | None:
    words = re.sub(r"(?<=[가-힣]) +(?=[가-힣])", "", label)
    if _WORK.search(words) and not words.startswith("지원자"):
        return None
    return next((kind for kind, pattern in _KEYWORD_PATTERNS if pattern.search(words)), None)


def _field_number(match: re.Match[str]) -> int:
    return next(i for i in range(len(_FIELDS)) if match[f"f{i}"] is not None)


def _starts_cell(plain: str, start: int) -> bool:
    before = plain[max(0, start - 8) : start]
    bare = before.rstrip(" \t")
    return (
        not bare or bare[-1] in "\n|/,;:([<*#•·-■□◆▶○●◎※)" or len(before) - len(bare) > 1 or "\t" in before[len(bare) :]
    )


def _is_right_behind(plain: str, value_end: int | None, start: int) -> bool:
    """Return whether only spaces stand between the end of a value and a label, as in the text of a PDF's form."""
    return value_end is not None and value_end < start and not plain[value_end:start].strip(" ")


def _tables(plain: str) -> Iterator[Span]:
    """Yield the values of tables that have labels in one row and values in the next."""
    above: list[Identifier | None] = []
    for line in LINE.finditer(plain):
        if "|" not in line[0] and "\t" not in line[0]:
            above = []
            continue
        if not HAS_WORD.search(line[0]):
            continue  # a ruling line: |---|---|
        cells, position = [], line.start()
        for cell in re.split(r"[|\t]", line[0].rstrip("\n")):
            cells.append((position, cell))
            position += len(cell) + 1
        if len(above) == len(cells):
            yield from ((at, at + len(cell), kind) for (at, cell), kind in zip(cells, above, strict=True) if kind)
        labels = [LABEL_ALONE.fullmatch(cell.strip()) for _, cell in cells]
        filled = [label for label, (_, cell) in zip(labels, cells, strict=True) if cell.strip()]
        is_header = len(filled) > 1 and sum(label is not None for label in filled) > len(filled) // 2
        above = [label and _FIELDS[_field_number(label)].kind for label in labels] if is_header else []
