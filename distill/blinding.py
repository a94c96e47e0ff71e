"""Take out of a résumé who the person is: what Korean fair-hiring law asks of employers, and blind hiring besides.

Labelled fields (`성명: …`), identifiers that need no label (phone numbers, addresses), and names: one that was found is
removed wherever it stands.  Rules, no model: an unseen phrasing leaks, so read what was removed before relying on it.

Each regular expression takes linear time: quantifiers are bounded or possessive.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Literal, NamedTuple

from distill.sections import (
    HANGUL,
    HAS_WORD,
    LINE,
    MARKS,
    SENTENCE,
    Section,
    kind_of_heading,
    match_end,
    plain_characters,
    split_sections,
)

__all__ = ["PLACEHOLDERS", "Blinded", "Identifier", "Removed", "blind"]

Identifier = Literal[
    "name", "photo", "birth", "age", "gender", "family", "address", "resident_number", "phone", "email", "link", "body",
    "origin", "property", "religion",
]  # fmt: skip
PLACEHOLDERS: dict[Identifier, tuple[str, str]] = {  # in a Korean text, in any other
    "name": ("[이름]", "[NAME]"),
    "photo": ("[사진]", "[PHOTO]"),
    "birth": ("[생년월일]", "[BIRTH DATE]"),
    "age": ("[나이]", "[AGE]"),
    "gender": ("[성별]", "[GENDER]"),
    "family": ("[가족]", "[FAMILY]"),
    "address": ("[주소]", "[ADDRESS]"),
    "resident_number": ("[주민번호]", "[ID NUMBER]"),
    "phone": ("[전화]", "[PHONE NUMBER]"),
    "email": ("[이메일]", "[EMAIL]"),
    "link": ("[링크]", "[LINK]"),
    "body": ("[신체]", "[BODY]"),
    "origin": ("[출신]", "[ORIGIN]"),
    "property": ("[재산]", "[PROPERTY]"),
    "religion": ("[종교]", "[RELIGION]"),
}


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

    Each piece gives way to a neutral token (:data:`PLACEHOLDERS`, Korean where the text has any Hangul) and labels stay:
    all résumés keep the layout they had, and a model cannot tell a blinded one from one whose owner left a line out.
    A name that was found once is removed wherever it stands; parts of it only where they cannot be a common word.
    Employers' addresses go with the others.  Military service stays: it is asked of applicants by law.

    >>> blind("성명: 홍길동 (만 29세)\n경력: 한빛병원 2019.03 ~ 2022.05\n동료들은 홍길동을 믿습니다.").text
    '성명: [이름] ([나이])\n경력: 한빛병원 2019.03 ~ 2022.05\n동료들은 [이름]을 믿습니다.'
    """
    plain = plain_characters(text)
    spans = [*_labelled(plain), *_patterns(plain)]
    personal = [section for section in split_sections(text) if section.kind == "personal"]
    spans += _personal_cells(plain, personal)
    names = [plain[start:end] for start, end, kind in spans if kind == "name"]
    header = list(_header_names(plain, personal))
    spans += header
    names += [plain[start:end] for start, end, _ in header]
    for name in dict.fromkeys(names):
        spans += _occurrences(plain, name)
    removed = [Removed(kind, text[start:end], start, end) for start, end, kind in _merged(plain, spans)]
    token = 0 if HANGUL.search(text) else 1
    pieces, position = [], 0
    for one in removed:
        pieces += [text[position : one.start], PLACEHOLDERS[one.kind][token]]
        position = one.end
    return Blinded("".join([*pieces, text[position:]]), removed)


_Span = tuple[int, int, Identifier]


def _merged(plain: str, spans: Iterable[_Span]) -> Iterator[_Span]:
    """Yield the spans in order, those that overlap as one, of the kind of the first and longest."""
    last: _Span | None = None
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


# --- labelled fields --------------------------------------------------------------------------------------------------

_KOREAN_DATE = (
    r"(?:(?:19|20)?\d\d ?[./년-] ?\d{1,2} ?[./월-] ?\d{1,2}(?: ?일|\.(?!\d))?|(?:19|20)?\d{6}(?!\d)|(?:19|20)?\d\d년(?: ?\d{1,2}월)?|(?:19|20)\d\d|\d{1,2}월 ?\d{1,2}일)"
    r"(?: ?\(?(?:양력|음력|생|출생)\)?)?"
)
_MONTH = r"(?:jan|feb|mar|apr|may|june?|july?|aug|sept?|oct|nov|dec)[a-z]{0,6}\.?"
_ENGLISH_DATE = (
    rf"(?:{_MONTH} \d{{1,2}}(?:st|nd|rd|th)?,? \d{{4}}|\d{{1,2}}(?:st|nd|rd|th)? (?:of )?{_MONTH},? \d{{4}}"
    rf"|\d{{1,2}}[/.-]\d{{1,2}}[/.-]\d{{2,4}}|{_MONTH} \d{{4}})"
)
_AGE = r"(?:만 ?)?\d{1,2}(?: ?세| ?살| years? old| yrs?)?(?![\d.])"
_KOREAN_NAME = r"(?:[가-힣](?: {1,3}[가-힣]){1,3}(?![가-힣])|[가-힣]{2,4}(?=입니다|님|씨|이며|이고)|[가-힣]{2,5}(?: [가-힣](?![가-힣]))?|[가-힣][OX○●*ㅇ]{1,3}[가-힣]?)"
_ENGLISH_WORD = r"[A-Z][^\W\d_]*+(?:[.'-][^\W\d_]++)*+\.?(?! ?:)"
_ENGLISH_NAME = rf"(?-i:(?:(?:Mr|Mrs|Ms|Miss|Dr)\.? )?{_ENGLISH_WORD}(?:,? (?:(?:de|del|della|da|dos|van|von|der|den|la|le|bin|al|ten|y)(?= )|{_ENGLISH_WORD})){{0,5}})"
_NAME = rf"(?:{_KOREAN_NAME}|[一-龥](?: ?[一-龥]){{1,3}}|{_ENGLISH_NAME}|[a-z]{{2,15}} [a-z]{{2,15}})"
_CELL = r"[^\n|\t]{1,100}"
_SHORT_CELL = r"[^\n|\t/,;()]{1,40}"
_HANDLE = r"@?[A-Za-z\d][\w./@:?=&%~#+-]{2,120}(?=[ \t]{0,9}(?:$|[\n|,/)]))"
_RELATIVES = "조부|조모|외조부|외조모|아버지|어머니|부친|모친|남편|아내|배우자|형제|자매|형|누나|오빠|언니|남동생|여동생|동생|장남|장녀|차남|차녀|아들|딸|자녀"


class _Field(NamedTuple):
    """A labelled field: its labels, and the shapes of its value after a colon, a bar or a gap, and after one space."""

    kind: Identifier
    labels: str
    value: str
    loose_value: str | None = None


_FIELDS = (
    _Field("name", "성 {0,8}명|이 {0,8}름|한글 ?(?:성명|이름)|영문 ?(?:성명|이름|명)|한자 ?(?:성명|이름)?|漢字 ?(?:성명|이름)?|지원자 ?(?:명|성명)?|작성자|응시자|신청인|비상 ?연락처|보호자|예금주|(?:full |first |last |given |family )?name|surname|candidate|applicant|emergency contact", _NAME, r"[가-힣](?: {0,3}[가-힣]){1,3}(?=[ \t]{0,9}(?:$|[\n|,/(]))"),
    _Field("birth", r"생 {0,8}년 {0,8}월 {0,8}일|생 {0,8}일|출생(?:일|년도?)?|생년|date of birth|birth ?date|birthday|d\.?o\.?b\.?|born|year of birth", f"(?:{_ENGLISH_DATE}|{_KOREAN_DATE})", f"(?:{_ENGLISH_DATE}|{_KOREAN_DATE})"),
    _Field("age", "나 {0,8}이|연 {0,4}령|만 ?나이|age", _AGE, _AGE),
    _Field("gender", "성 {0,8}별|gender|sex", "(?:(?:[■□☑☐✔✓●○] ?(?:남|여)(?:성|자)? ?[/,]? ?){1,2}|남(?:성|자)?(?: ?/ ?여(?:성|자)?)?|여(?:성|자)?|male|female|non-?binary|man|woman|m|f)(?![가-힣A-Za-z])", "(?:남(?:성|자)?|여(?:성|자)?|male|female)(?![가-힣A-Za-z])(?=[ \t]{0,9}(?:$|[\n|,/)]))"),
    _Field("family", "결혼 ?(?:여부|상태|유무)?|혼인 ?(?:여부|상태|관계)?|배우자 ?(?:유무|여부)|marital status|civil status", _SHORT_CELL),
    _Field("family", f"가족 ?(?:사항|관계)?|부모님?|자녀 ?(?:수|유무|사항)|{_RELATIVES}|부|모|number of children|children|spouse|husband|wife|father(?:'s (?:name|occupation))?|mother(?:'s (?:name|occupation))?|parents|dependents|family", _CELL),
    _Field("address", "(?:현|본|자택|거주지|실거주|우편물)? ?주 {0,8}소|거주지역?|현거주지|사는 ?곳|거주|(?:home |mailing |current |permanent |street )?address|residence", _CELL, r"(?=[가-힣 \d,-]{4,80}\d)" + _CELL),
    _Field("address", "우편 ?번호|zip(?: code)?|post(?:al )?code", r"[A-Z\d][A-Z\d -]{2,9}", r"\d{5}(?!\d)"),
    _Field("resident_number", r"주민(?:등록)? ?번호(?: ?(?:앞|뒷|뒤) ?자리)?|외국인 ?등록 ?번호|여권 ?(?:번호)?|운전면허 ?번호|resident(?: registration)? (?:number|no\.?)|passport(?: (?:number|no\.?))?|alien registration (?:number|no\.?)|ssn|social security(?: (?:number|no\.?))?|national id|driver'?s licen[cs]e (?:number|no\.?)", r"(?=[A-Z*•xX-]{0,6}\d)[A-Z\d*•-]{4,20}(?: ?- ?[\d*]{4,8})?", r"(?=[A-Z*•xX-]{0,6}\d)[A-Z\d*•-]{6,20}"),
    _Field("phone", r"전화(?:번호)?|연 {0,4}락 {0,4}처|휴대 ?(?:폰|전화)(?: ?번호)?|핸드폰(?: ?번호)?|자택 ?(?:전화)?|집 ?전화|contact (?:number|no\.?)|h\.? ?p\.?|tel\.?|telephone|(?:mobile|cell|home|work)(?: ?phone)?(?: number)?|phone(?: number)?|fax|팩스|직장 ?전화", r"\+?\(?\d[\d ().·/-]{5,34}\d", r"\+?\(?\d[\d ().·/-]{6,34}\d"),
    _Field("link", "git ?hub|git ?lab|linked ?in|링크드인|깃허브|블로그|blog|카카오톡?(?: ?id| ?아이디)?|카톡(?: ?id)?|kakao(?:talk)?(?: ?id)?|인스타(?:그램)?|instagram|facebook|페이스북|twitter|velog|behance|비핸스|youtube|유튜브|telegram|텔레그램|skype(?: ?id)?|wechat(?: ?id)?|line id|라인 ?id|sns", _HANDLE),
    _Field("link", "홈페이지|home ?page|web ?site|web|portfolio|포트폴리오|notion|노션|url|개인 ?(?:사이트|페이지)", r"(?=[^\s.@/]{0,60}[.@/])" + _HANDLE),
    _Field("body", "키|신 {0,8}장|체 {0,8}중|몸무게|height|weight|발 ?사이즈", r"(?:약 ?)?\d{1,3}(?:\.\d)?(?:'\d{1,2}\"?| ?ft ?\d{0,2}(?: ?in)?)?(?: ?(?:cm|kg|㎝|㎏|센티|센치|킬로|lbs?|m)(?![a-z]))?(?: ?/ ?\d{2,3}(?: ?kg)?)?(?![\d가-힣])", r"(?:약 ?)?\d{2,3}(?:\.\d)?(?: ?(?:cm|kg|㎝|㎏))?(?![\d가-힣.%])"),
    _Field("body", "혈액 ?형|blood type", "(?:rh ?[+-] ?)?(?:AB|A|B|O)[+-]?(?: ?형)?(?![A-Za-z])", "(?:rh ?[+-] ?)?(?:AB|A|B|O)[+-]?(?: ?형)?(?![A-Za-z])"),
    _Field("body", "시력|용모|외모|체격|신체 ?(?:조건|사항|사이즈)|건강 ?상태|eyesight|appearance", _SHORT_CELL),
    _Field("origin", "본 {0,8}적(?:지)?|출신 ?(?:지역|지|도)|출생지역?|고 {0,4}향|등록 ?기준지|place of birth|birth ?place|home ?town", r"[^\n|\t/;()]{1,40}", r"[가-힣]{2,8}(?=[ \t]{0,9}(?:$|\n))"),
    _Field("property", "재산(?: ?(?:사항|정도|상황))?|자산|동산|부동산|주거 ?(?:형태|상황|구분)|주택 ?소유|assets", _SHORT_CELL),
    _Field("photo", "(?:증명 ?)?사 {0,8}진|photo(?:graph)?|picture|profile (?:photo|image)", _CELL),
    _Field("religion", "종 {0,8}교|religion", _SHORT_CELL),
)  # fmt: skip
_VALUES = tuple(re.compile(field.value, re.IGNORECASE) for field in _FIELDS)
_LOOSE_VALUES = tuple(field.loose_value and re.compile(field.loose_value, re.IGNORECASE) for field in _FIELDS)
_ANY_LABEL = "|".join(f"(?P<f{i}>{field.labels})" for i, field in enumerate(_FIELDS))
# labels that mean one thing only and may stand behind other words; the others start a line or a cell
_PLAIN_LABELS = (
    r"(?=[DGMPSTdgmpst거결몸본사생성신여연외우전종주체출핸현혈혼휴])(?:생년월일|주민|외국인|여권|휴대|핸드폰|연락처|전화번호|혈액|결혼|혼인|성별|연령|우편|date of|d\.?o\.?b|passport|ssn|social|gender|"
    r"marital|현주소|거주지|주거|본적|출신지|신장|체중|몸무게|사진|종교|mobile|tel|phone)"
)
_LABEL = re.compile(
    rf"(?<![가-힣A-Za-z\d])(?=[가-힣A-Za-z漢])(?:(?<![\w.)\"'%] )|(?={_PLAIN_LABELS}))(?:{_ANY_LABEL})(?![가-힣A-Za-z])(?: ?[(/][^()\n:|]{{1,20}}\)?(?= ?[:|\t]))?"
    r"(?P<gap> {0,8}(?:[:|\t=]|- )[ \t|*_]{0,20}| ?\((?=남|여|만|\d)| {2,20}| ?\n {0,8}| )(?=[^\s:])",
    re.IGNORECASE,
)
_IS_PLAIN_LABEL = re.compile(_PLAIN_LABELS, re.IGNORECASE)
_LABEL_ALONE = re.compile(rf"(?:{_ANY_LABEL})(?: ?\([^()]{{1,20}}\))?", re.IGNORECASE)
_CELL_END = re.compile(
    r" / | · | (?=(?:전화|연락처|휴대폰|tel|phone|e-?mail|이메일|메일|생년월일|성별|mobile)\b ?[:|(\d+])", re.IGNORECASE
)


def _labelled(plain: str) -> Iterator[_Span]:
    """Find the values behind labels: on the same line, on the next one, or in a table under them."""
    for match in _LABEL.finditer(plain):
        number = _field_number(match)
        gap = match["gap"]
        cell = _starts_cell(plain, match.start())
        if not cell and (gap == " " or "\n" in gap or not _IS_PLAIN_LABEL.match(plain, match.start())):
            continue
        pattern = _LOOSE_VALUES[number] if gap == " " else _VALUES[number]
        value = pattern.match(plain, match.end()) if pattern else None
        if value is None or _LABEL_ALONE.fullmatch(value[0].strip()):
            continue
        if gap == " " and _FIELDS[number].kind == "name" and not _is_name(value[0]):
            continue
        end = value.end()
        if "\n" in gap and (_FIELDS[number].kind in ("family", "photo") or plain[end : end + 1].strip(" \t\n")):
            continue
        if cut := _CELL_END.search(plain, value.start(), end):
            end = cut.start()
        yield value.start(), end, _FIELDS[number].kind
    yield from _tables(plain)


def _field_number(match: re.Match[str]) -> int:
    return next(i for i in range(len(_FIELDS)) if match[f"f{i}"] is not None)


def _starts_cell(plain: str, start: int) -> bool:
    before = plain[max(0, start - 8) : start]
    bare = before.rstrip(" \t")
    return (
        not bare or bare[-1] in "\n|/,;:([<*#•·-■□◆▶○●◎※)" or len(before) - len(bare) > 1 or "\t" in before[len(bare) :]
    )


def _tables(plain: str) -> Iterator[_Span]:
    """Find the values of tables that have their labels in one row and the values in the next."""
    above: list[Identifier | None] = []
    for line in LINE.finditer(plain):
        if "|" not in line[0] and "\t" not in line[0]:
            above = []
            continue
        if not HAS_WORD.search(line[0]):
            continue  # |---|---|
        cells, position = [], line.start()
        for cell in re.split(r"[|\t]", line[0].rstrip("\n")):
            cells.append((position, cell))
            position += len(cell) + 1
        if len(above) == len(cells):
            yield from ((at, at + len(cell), kind) for (at, cell), kind in zip(cells, above, strict=True) if kind)
        labels = [_LABEL_ALONE.fullmatch(cell.strip()) for _, cell in cells]
        filled = [label for label, (_, cell) in zip(labels, cells, strict=True) if cell.strip()]
        is_header = len(filled) > 1 and sum(label is not None for label in filled) > len(filled) // 2
        above = [label and _FIELDS[_field_number(label)].kind for label in labels] if is_header else []


# --- identifiers that need no label -----------------------------------------------------------------------------------

_PROVINCE = (
    r"(?:서울(?:특별시|시)?|(?:부산|대구|인천|광주|대전|울산)(?:광역시|시)?|세종(?:특별자치시|시)?|경기도?|강원(?:특별자치)?도?|"
    r"(?:충청|전라|경상)[남북]도|충[남북]|전[남북]|경[남북]|전북특별자치도|제주(?:특별자치)?도?)"
)
_DISTRICTS = rf"(?:{_PROVINCE} (?:[가-힣]{{1,5}}[시군구] ){{0,2}}|(?:[가-힣]{{1,5}}[시군구] ){{1,2}})"
_BUILDING = r"(?:,? ?(?:\(?[가-힣A-Za-z\d]{1,15}(?:아파트|빌라|빌딩|오피스텔|타워|맨션|주택|단지)\)?|[A-Z\d]{1,4}동(?![가-힣])|B?\d{1,4}호|\d{1,3}층|\([가-힣\d, ]{2,20}\))){0,5}"
_STREET = "Street|St|Avenue|Ave|Road|Rd|Boulevard|Blvd|Drive|Dr|Lane|Ln|Court|Ct|Terrace|Place|Pl|Way|Square|Sq|Parkway|Pkwy|Crescent|Close|Highway|Hwy|Circle|Trail|Row|Gardens|Mews"
_HOSTS = (
    r"(?:[\w-]{1,40}\.(?:github\.io|tistory\.com|notion\.site|wordpress\.com|blogspot\.com|medium\.com|wixsite\.com|netlify\.app|vercel\.app|carrd\.co|myportfolio\.com)"
    r"|(?:[a-z]{2,3}\.)?(?:github\.com|gitlab\.com|bitbucket\.org|linkedin\.com|velog\.io|brunch\.co\.kr|blog\.naver\.com|m\.blog\.naver\.com|notion\.so|behance\.net|dribbble\.com|"
    r"instagram\.com|facebook\.com|fb\.com|twitter\.com|x\.com|threads\.net|youtube\.com|youtu\.be|tiktok\.com|medium\.com|kaggle\.com|huggingface\.co|stackoverflow\.com|"
    r"t\.me|open\.kakao\.com|pf\.kakao\.com|linktr\.ee|about\.me|orcid\.org|researchgate\.net|scholar\.google\.com|solved\.ac|artstation\.com|pinterest\.com|soundcloud\.com)(?=/))"
)
_PATTERNS: tuple[tuple[Identifier, str, str], ...] = (
    # kind, signs of which the text must hold one (_ for a space), the pattern; a pattern that starts with a class of
    # characters, its look-behind after them, lets the engine skip to the next candidate
    ("email", "@", r"(?<![A-Za-z\d._%+-])[A-Za-z\d._%+-]{1,64}+ ?@ ?[A-Za-z\d-]{1,63}(?:\.[A-Za-z\d-]{1,63}){1,4}"),
    ("email", "at) at] at} @) @] 골뱅이 앳 at_) at_]", r"(?<![A-Za-z\d._%+-])[A-Za-z\d._%+-]{1,64}+ ?[(\[{] ?(?:at|@|골뱅이|앳) ?[)\]}] ?[A-Za-z\d-]{1,63}(?:(?: ?[(\[{] ?(?:dot|점) ?[)\]}] ?|\.)[A-Za-z\d-]{1,63}){1,4}"),
    ("phone", "0", r"(?:(?:\+82(?<![\d.-]\+82)|82(?<![\d.+-]82))[ .)-]{0,2}\(?0?\)?(?:10|11|1[6-9]|2|[3-6]\d|70)[ .)-]{0,3}|(?:\(0|0(?<![\d.(-]0))(?:(?:10|11|1[6-9])\)?[ .)·-]{0,3}|2(?:\) ?| ?- ?)|(?:[3-6][1-5]|70|50\d|80)(?:\) ?| ?[-.] ?)))\d{3,4} ?[ .·-]? ?\d{4}(?!\d)"),
    ("phone", "+", r"\+(?<!\w\+)\d{1,3}[ .()-]{0,3}\d[\d ().-]{5,18}\d(?!\d)"),
    ("phone", "", r"(?:\(\d{3}\) ?|\d{3}(?<![\d.-]\d{3})[-.]|1(?<![\d.-]1)[ .-]\(?\d{3}\)?[-. ])\d{3}[-. ]\d{4}(?!\d|-\d)"),
    ("resident_number", "-", r"\d\d(?<!\d\d\d)(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01]) ?- ?(?:[1-8*xX●○•■][\d*xX●○•■]{6}(?![\d*])|[1-8](?= {0,3}(?:$|[\n|,/)])))"),
    ("resident_number", "-", r"\d{3}(?<![\d-]\d{3})-\d\d-\d{4}(?![\d-])"),
    ("birth", "생", r"\d(?<!\d\d)\d(?:\d\d)?(?:년| ?[년./-] ?\d{1,2} ?[월./-] ?\d{1,2} ?[일.]?) ?(?:출생|생(?=[입이으의,.) \n/|]|$))"),
    ("birth", "born_ Born_ BORN_", rf"(?i:\bborn (?:on |in )?(?:the )?(?:{_ENGLISH_DATE}|\d{{4}}))"),
    ("age", "세 살", r"(?:올해|현재|지금|저는|나는|본인은|지원자는|제 나이는?) ?(?:만 ?)?[1-7]\d ?(?:세|살)(?! ?(?:이상|이하|미만|부터|까지|반))"),
    ("age", "세 살", r"(?<![\d.])(?:만 ?)?[1-7]\d ?(?:세|살)(?=입니다|이며|이고|의 나이)"),
    ("age", "(", r"(?<=\()(?:만 ?)?[1-7]\d ?(?:세|살)(?=[), /])"),
    ("age", "성 자", r"(?<![\d.])(?:만 ?)?[1-7]\d ?(?:세|살)(?=(?:의|인)? ?(?:남성|여성|남자|여자)(?:입니다|으로|이며|이고|이다))"),
    ("age", "살", r"(?<![가-힣])(?:스물|서른|마흔|쉰|예순)(?:한|두|세|네|다섯|여섯|일곱|여덟|아홉)? ?살"),
    ("age", "years_old", r"(?:\bI am|\bI'm|[,(]) ?[1-7]\d years old"),
    ("gender", "저는 나는 본인은 지원자는", r"(?:저는|나는|본인은|지원자는) [^.\n]{0,30}?(남자|여자|남성|여성)(?=입니다|이며|이고|으로|이다)"),
    ("gender", "I_am_a", r"\bI am an? (?:\w{1,12} )?(?:man|woman|male|female)\b"),
    ("family", "남", r"\d남 ?\d녀(?: ?중)?(?: ?(?:장남|장녀|차남|차녀|막내(?:딸|아들)?|외동(?:딸|아들)?|첫째|둘째|셋째|넷째|맏이))?"),
    ("family", "독녀 독자 외동 외아들 장남 차남 장녀 차녀 막내", r"(?<![가-힣])(?:무남독녀|독자|외동딸|외동아들|외아들|장남|차남|장녀|차녀|막내(?:딸|아들)?)(?=로 |으로 |입니다|이며|이고)"),
    ("family", "결혼", r"(?<![가-힣])결혼(?:하여|해서|하고|했|하였)(?:[가-힣]{0,3} [가-힣\d]{1,3} ?(?:아이|자녀|딸|아들|남매|형제))?"),
    ("family", "아이 자녀 남매 딸 아들", r"(?<![가-힣])(?:한|두|세|네|\d) ?(?:아이|자녀|남매|딸|아들)[를을가이] (?:있|키우|둔 (?:엄마|아빠|가장|주부)|두고|키운|기르)"),
    ("family", "혼", r"(?<![가-힣])(?:미혼|기혼)(?:자|남|녀)?(?=입니다|이며|이고|으로 )"),
    ("family", "엄마 아빠 어머니 아버지 부모", r"(?<![가-힣])(?:두|세|네|\d) ?(?:아이|자녀|남매|형제|딸|아들)의 (?:엄마|아빠|어머니|아버지|부모)"),
    ("family", "married single divorced widowed engaged", r"\b(?:I am|I'm) (?:happily |currently )?(?:married|single|divorced|widowed|engaged)(?: (?:with|to|and have) [^.,\n]{1,40}| and (?:have|a (?:mother|father)) [^.,\n]{1,40})?"),
    ("family", "_of_", r"\b(?:a )?(?:single )?(?:mother|father|mom|mum|dad|parent) of (?:two|three|four|five|one|twins|\d)(?: (?:children|kids|boys|girls|sons|daughters))?"),
    ("address", "로 길 동 리 가", rf"(?<![가-힣]){_DISTRICTS}(?:[가-힣]{{1,6}}[읍면] )?(?:[가-힣\d]{{1,12}}?(?:대로|로|길)(?: ?\d{{1,4}}번?[가-다]?길)?|[가-힣\d]{{1,8}}?[동리가](?: ?산)?) ?\d{{1,4}}(?:-\d{{1,4}})?(?:번지)?(?![\d년월%명개건회차층세]){_BUILDING}"),
    ("address", "(0 (1 (2 (3 (4 (5 (6", rf"\(\d{{5}}\)(?= ?{_PROVINCE})"),
    ("address", "거주 살고 삽니다 사는", rf"(?<![가-힣])(?:{_PROVINCE}(?: [가-힣]{{1,5}}[시군구]){{0,2}}|[가-힣]{{1,5}}[시군구](?: [가-힣]{{1,5}}구)?)(?: [가-힣\d]{{1,8}}[읍면동])?(?=에? ?거주|에 ?살고|에 삽니다|에 사는)"),
    ("address", _STREET.replace("|", " "), rf"\d(?<![\d.,$]\d)\d{{0,5}}[A-Za-z]? (?:[NSEW]\.? )?(?:[A-Z][\w.'-]{{0,20}}+ ){{1,4}}(?:{_STREET})\b\.?(?:,? (?:Apt|Unit|Suite|Ste|Flat|#)\.? ?[\w-]{{1,6}})?(?:,? [A-Z][A-Za-z'-]{{1,20}}(?: [A-Z][a-z]{{1,20}}){{0,2}})?(?:,? (?:[A-Z]{{2}}(?: \d{{5}}(?:-\d{{4}})?)?\b|[A-Z]{{1,2}}\d[A-Z\d]? ?\d[A-Z]{{2}}\b))?"),
    ("address", "", r"[A-Z](?<!\w\w)[a-z]{1,20}(?: [A-Z][a-z]{1,20}){0,2},? [A-Z]{2} \d{5}(?:-\d{4})?\b"),
    ("address", "", r"[A-Z](?<!\w\w)[A-Z]?\d[A-Z\d]? \d[A-Z]{2}\b"),
    ("address", "_in_", r"\b(?:I live|I am living|I'm living|residing) in [A-Z][\w.'-]{1,20}(?:,? [A-Z][\w.'-]{1,20}){0,3}"),
    ("link", "com/ .io kr/ me/ be/ co/ so/ .site .app ee/ net/ org/ ac/ tistory.com .wordpress .blogspot .wixsite .medium .myportfolio .carrd", rf"(?<![\w@./-])(?:https?://)?(?:www\.)?{_HOSTS}[^\s)\]>,|\"'가-힣]{{0,200}}"),
    ("origin", "고향", r"고향은 ?[가-힣]{2,8}?(?=입니다|이며|이고|으로|[,. ])"),
    ("origin", "태어", r"(?<![가-힣])[가-힣]{2,10}(?: [가-힣]{1,5}[시군구읍면동리])?에서 ?(?=태어)"),
    ("origin", "출신", rf"(?<![가-힣]){_PROVINCE}(?: [가-힣]{{1,5}})? ?출신(?=[으입이의 ,.]|$)"),
    ("origin", "_in_", r"\b(?:born|raised|grew up|born and raised) in [A-Z][\w.'-]{1,20}(?:,? [A-Z][\w.'-]{1,20}){0,2}"),
    ("body", "키 신장", r"(?<![가-힣])(?:키|신장)(?:는|은|가|이)? ?(?:약 )?1[3-9]\d(?:\.\d)? ?(?:cm|센티미터|센티|㎝)?(?![\d가-힣])"),
    ("body", "체중 몸무게", r"(?<![가-힣])(?:체중|몸무게)(?:는|은|가|이)? ?(?:약 )?\d{2,3}(?:\.\d)? ?(?:kg|킬로|㎏)"),
    ("religion", "교", r"(?:기독교|천주교|불교|원불교|이슬람교)(?: ?신자|인)(?=[입이로 ,.]|$)"),
    ("photo", "사진 hoto <img ![ data:", r"[\[(<] ?(?:증명 ?)?사진(?: ?첨부| ?부착)? ?[\])>]|(?i:\[ ?photo(?:graph)? ?\])|<img[^>\n]{0,300}>|!\[[^\]\n]{0,80}\]\([^)\n]{1,300}\)|data:image/[a-z+]{1,10};base64,[A-Za-z\d+/=]++"),
    ("photo", "사진", r"(?m:^ {0,8}(?:증명 ?)?사진(?: ?첨부| ?부착)? {0,8}$)"),
)  # fmt: skip


def _signs(words: str) -> tuple[str, ...]:
    return tuple(word.replace("_", " ") for word in words.split()) or ("",)


_COMPILED = tuple((kind, _signs(words), re.compile(pattern)) for kind, words, pattern in _PATTERNS)
_RELATIVE_SPEAKS = re.compile(
    r"(?:아버지|어머니|아버님|어머님|부친|모친)(?:께서|은|는|이|가|의|와|과|를|을| 밑| 아래|,)|부모님(?:께서|은|는|이|가|의 (?:직업|사업|가르침|영향)| 밑| 아래)"
    r"|(?:제|저의|저희) (?:부모님|남편|아내|배우자|형|누나|동생|오빠|언니|자녀|아들|딸)(?:[은는이가의과와]|께서)|(?<![가-힣])(?:남편|아내)(?:은|는|이|가|와|과)"
    r"|\b[Mm]y (?:late )?(?:father|mother|parents|husband|wife|spouse|son|daughter|children|brother|sister|dad|mom|mum|kids|fiancée?)\b"
)
_RELATIVE_SIGNS = _signs("아버 어머 부친 모친 부모님 제_ 저의_ 저희_ 남편 아내 my_ My_")
_SENTENCE_END = ".!?\n"
_MAX_SENTENCE = 200


def _patterns(plain: str) -> Iterator[_Span]:
    """Find what shows by its form or its phrase."""
    for kind, signs, pattern in _COMPILED:
        if any(sign in plain for sign in signs):
            yield from ((*match.span(match.lastindex or 0), kind) for match in pattern.finditer(plain))
    position = 0
    speaking = any(sign in plain for sign in _RELATIVE_SIGNS)
    for match in _RELATIVE_SPEAKS.finditer(plain) if speaking else ():  # the whole sentence tells of the family
        if match.start() < position:
            continue
        start, position = match.start(), match.end()
        floor, ceiling = max(0, start - _MAX_SENTENCE), min(len(plain), position + _MAX_SENTENCE)
        while start > floor and plain[start - 1] not in _SENTENCE_END:
            start -= 1
        while position < ceiling and plain[position] not in _SENTENCE_END:
            position += 1
        while plain[start : start + 1].isspace():
            start += 1
        yield start, position, "family"


_CELLS = re.compile(r"[^|/,·;\t()\n]++")
_PERSONAL_CELLS: tuple[tuple[Identifier, re.Pattern[str]], ...] = (
    ("gender", re.compile(r"남(?:성|자)?|여(?:성|자)?|[Mm]ale|[Ff]emale|M|F")),
    ("age", re.compile(r"(?:만 ?)?[1-7]\d ?(?:세|살)|[Aa]ge:? [1-7]\d|[1-7]\d years old")),
    (
        "birth",
        re.compile(
            rf"(?:19|20)\d\d[.-] ?\d{{1,2}}[.-] ?\d{{1,2}}\.?|(?:19[4-9]\d|200\d)(?:년)?|{_ENGLISH_DATE}", re.IGNORECASE
        ),
    ),
    (
        "address",
        re.compile(
            rf"{_PROVINCE}(?: [가-힣\d]{{1,6}}){{0,3}}|(?:[가-힣]{{1,5}}[시군구])(?: [가-힣\d]{{1,6}}[구읍면동리]){{0,2}}"
        ),
    ),
    ("body", re.compile(r"1[3-9]\d(?:\.\d)? ?cm|\d{2,3} ?kg|(?:AB|A|B|O)형")),
    (
        "family",
        re.compile(
            r"미혼|기혼|[Mm]arried|[Ss]ingle|[Dd]ivorced|(?:\d|one|two|three|four) (?:kids?|child|children)|자녀 ?\d명?"
        ),
    ),
    ("phone", re.compile(r"(?:[A-Za-z가-힣]{1,8}[.:]? )?(?:(?!(?:19|20)\d\d-)\d{3,4}-\d{4}|0\d{4} \d{6})")),
    ("link", re.compile(r"@[\w.]{3,30}")),
)
_PERSONAL_ANYWHERE: tuple[tuple[Identifier, re.Pattern[str]], ...] = (
    ("link", re.compile(r"(?<![\w@])(?:https?://|www\.)[^\s|,)가-힣]{3,200}")),
    (
        "photo",
        re.compile(
            r"(?<![\w.-])[\w.-]{1,60}+(?<=\.jpg|\.png|\.gif|\.bmp)|(?<![\w.-])[\w.-]{1,60}+(?<=\.jpeg|\.heic|\.webp)"
        ),
    ),
    ("address", re.compile(r"\b[A-Z][a-z]{1,20}(?: [A-Z][a-z]{1,20}){0,2}, [A-Z]{2}(?= *(?:$|[|\n·]))", re.MULTILINE)),
    ("body", re.compile(r"1[3-9]\d ?cm ?[/,] ?\d{2,3} ?kg")),
    ("link", re.compile(r"(?<![\w@.])@[A-Za-z][\w.]{2,29}(?![\w@])")),
)
_MAX_FORM = 120
_FAMILY_HEADING = re.compile(r"가족|family", re.IGNORECASE)


def _is_form(line: str) -> bool:
    """Tell whether a line is made of entries and is no running text, in which a word like a name or a place means little."""
    line = line.strip()
    return len(line) <= 20 or (len(line) <= _MAX_FORM and not SENTENCE.search(line))


def _personal_cells(plain: str, personal: Sequence[Section]) -> Iterator[_Span]:
    """Find what counts as an identifier only among the personal data: "여", "29세", "서울 강남구"."""
    for section in personal:
        if _FAMILY_HEADING.search(section.heading) and section.text:
            start = plain.find("\n", section.start, section.end) + 1
            if 0 < start < section.end:
                yield (
                    start + len(plain[start : section.end]) - len(plain[start : section.end].lstrip()),
                    section.end,
                    "family",
                )
                continue
        for kind, pattern in _PERSONAL_ANYWHERE:
            yield from (
                (match.start(), match.end(), kind) for match in pattern.finditer(plain, section.start, section.end)
            )
        lines = [line for line in LINE.finditer(plain, section.start, section.end) if _is_form(line[0])]
        for cell in (cell for line in lines for cell in _CELLS.finditer(plain, *line.span())):
            bare = cell[0].strip()
            if not 0 < len(bare) <= 40:
                continue
            start = cell.start() + cell[0].index(bare)
            for kind, pattern in _PERSONAL_CELLS:
                if pattern.fullmatch(bare):
                    yield start, start + len(bare), kind


# --- names ------------------------------------------------------------------------------------------------------------

_SURNAMES = frozenset(
    "김이박최정강조윤장임한오서신권황안송류유전홍고문손양배백허남심노하곽성차주우구민진지엄채원천방공현함변염여추도소석선설마길연위표명기반왕금옥육인맹"
    "제모탁국어하피용옹화온시은편예경봉사부복태목형두감음빈호범좌팽승견당나라노盧봉갈궁단돈동류묵미뢰"
)
_LONG_SURNAMES = frozenset(["남궁", "황보", "제갈", "선우", "독고", "사공", "서문", "동방", "어금", "망절"])
_NO_NAMES = frozenset(
    "어르신 이력서 지원서 연락처 주소지 이메일 경력직 신입 신입직 간호사 조리사 기획자 마케터 강사 상담사 상담원 연구원 연구자 조교 조교사 안내원 선생님 공무원 "
    "회사원 경력자 구직자 지원자 전문가 전공자 전산직 주부 방사선사 변호사 변리사 노무사 감정사 감리원 경비원 경찰관 편집자 서울시 경기도 강원도 제주도 "
    "인천시 안산시 성남시 용인시 남양주 고양시 수원시 부천시 전주시 진주시 천안시 원주시 여수시 구미시 안양시 하남시 구리시 양산시 김해시 김포시 "
    "사회인 현역 현직 책임자 성실함 성실성 이상주 이공계 유치원 어린이 고객님 고등학교 사회복 기술자 기능사 기능공 기관사 기사님 이용사 미용사 "
    "인사팀 영업팀 홍보팀 전기공 전기사 용접사 조경사 요리사 제빵사 영양사 방송인 방송국 신입생 졸업생 대학생 고등학 인턴 사원 주임 대리 과장 차장 부장 "
    "팀장 실장 소장 원장 한국인 한국어 영어 일본어 중국어 이수자 수료자 자격증 경력 학력 병역 기타 사항 성명 이름 성별 연령 나이 주소 전화 사진 국적 본적 "
    "정규직 계약직 현재 안녕 우수 성격 장점 단점 동기 포부 소개 인적 기본 정보 서류 지원 전형 부문 직무 희망 연봉 직원 반장 기장 부기장 조종사 정비사 "
    "설계사 금융인 은행원 교사 교수 교직원 선수 가수 배우 모델 작가 화가 농부 어부 유통업 제조업 서비스 사무직 생산직 기술직 영업직 관리자 관리직 관리인".split()
)
_ROLE_END = r"(?:[가-힣]{1,8}(?:사|자|원|이너|니어|너|트|생|가|인|터|직|장|셰프)|지원자)"
_KOREAN_ROLE_NAME = re.compile(
    rf"(?:{_ROLE_END} )?([가-힣]{{2,4}}|[가-힣](?: {{1,2}}[가-힣]){{1,3}})(?: {_ROLE_END})?(?:의)?(?: ?(?:이력서|입사지원서|지원서|님|포트폴리오|경력기술서|프로필))?(?= {{0,9}}$| {{2}}| [A-Z\[+]| 0\d| 만 ?\d)"
)
_INTRODUCTIONS = tuple(
    (_signs(words), re.compile(pattern))
    for words, pattern in (
        ("저는 이름은 저, 본인 지원자 신청인 작성자 안녕", r"(?<![가-힣])(?:저는|제 이름은|저의 이름은|저,|본인|지원자|신청인|작성자|안녕하(?:세요|십니까)[,.!]?(?: 저는)?) ?([가-힣]{3,4}?)(?=입니다|이라고|라고|이며|이고|이에요|예요|은 |는 |을 |를 |의 | 드림| 올림|,)"),
        ("라고", r"(?m:(?:^|[.!?,]|저는|지원자|자)) ?([가-힣]{2,4}?)(?:이라고|라고) ?(?:합니다|해요)"),
        ("드림 올림 배상 (인) (서명)", r"(?m:(?<![가-힣])([가-힣]{3,4}) ?(?:(?:드림|올림|배상)[. ]{0,3}$|\((?:인|서명)\)))"),
        ("입니다 이라고", rf"(?<![가-힣]){_ROLE_END} ([가-힣]{{3}})(?=입니다|이라고)"),
        ("이름은", r"(?<![가-힣])제? ?이름은 ?([가-힣]{2,4}?)(?=입니다|이고|이며|,)"),
        ("y_name", rf"\b[Mm]y (?:full )?name(?: is|'s) ({_ENGLISH_NAME})"),
        ("I_am_ I'm_ his_is_", rf"\b(?:I am|I'm|[Tt]his is) ({_ENGLISH_WORD}(?: {_ENGLISH_WORD}){{1,3}})(?=[,;!\n]|\.(?:\s|$)| and | from | - |$)"),
        ("incerely egards aithfully ruly espectfully ours SINCERELY REGARDS", rf"\b(?i:sincerely|regards|faithfully|truly|respectfully|yours)(?: yours)?,?\n{{1,3}} {{0,4}}({_ENGLISH_NAME})"),
    )
)  # fmt: skip
_NAME_LINE = re.compile(
    rf"({_ENGLISH_WORD}(?: (?:(?:de|del|della|da|dos|van|von|der|den|la|le|bin|al|ten|y) )?{_ENGLISH_WORD}){{1,4}})(?=$|[ ]?[-–|,/(·~]|  | [가-힣])"
)
_NOT_ENGLISH_NAMES = frozenset(
    "resume cv curriculum vitae engineer developer nurse manager designer teacher senior junior lead staff software data product project "
    "registered certified professional personal contact profile summary experience education skills work street road avenue university college "
    "school hospital company inc ltd llc the and of for analyst accountant consultant director assistant officer specialist technician operator "
    "chef cook driver welder mechanic electrician plumber architect scientist researcher marketing sales finance human resources information "
    "details dear hiring team sir madam letter cover application applicant candidate new york united states kingdom south korea north seoul "
    "english korean professor doctor student graduate intern executive chief head president vice associate coordinator administrator web full stack "
    "front end back frontend backend business google microsoft amazon cloud machine learning artificial intelligence january february march april "
    "june july august september october november december high public health care security network systems system phone email address page".split()
)
_COMMON_WORDS = frozenset(
    "will may mark april june grace hope rich bill young park long best white brown green king price cook baker black gray grey rose lily art "
    "joy faith dean page rice rich hall hill lake field wood woods stone ford banks day love bell case chase chance drew frank jack lane max "
    "miles pat ray rob sue van summer august sky jade ruby pearl angel star mason cooper carter taylor smith hunter fisher farmer miller potter "
    "shepherd carpenter porter parker turner walker weaver archer butler chandler gardener guard marshall major general bishop pope abbot han "
    "kim lee choi jung kang cho yoon jang lim ahn song oh seo shin kwon hwang yang son bae woo min the and java python ruby scala swift go".split()
)
_HONORIFIC = re.compile(r"(?:Mr|Mrs|Ms|Miss|Dr)\.? ", re.IGNORECASE)
_PARTICLE = re.compile(r"님|씨|입니다|이라|에게|(?:은|는|이|가|의|을|를|과|와|도)(?![가-힣])|(?![가-힣])")
_HANJA_NOTE = re.compile(r" ?[(\[/] ?([一-龥](?: ?[一-龥]){1,3})(?![一-龥])")
_ADDRESSED = re.compile(r" ?(?:님|씨(?!앗))")
_TITLED = re.compile(r"\b(?:Mr|Mrs|Ms|Miss|Dr)\.? $")


def _header_names(plain: str, personal: Sequence[Section]) -> Iterator[_Span]:
    """Find names that introduce themselves, and those in the first lines that have no label."""
    for signs, pattern in _INTRODUCTIONS:
        for match in pattern.finditer(plain) if any(sign in plain for sign in signs) else ():
            if _is_name(match[1]):
                yield match.start(1), match.end(1), "name"
    lines = [
        line for section in personal[:2] for line in LINE.finditer(plain, section.start, section.end) if line[0].strip()
    ]
    for number, line in enumerate(lines[:6]):
        if _is_form(line[0]):
            yield from _names_of_line(line, number)


_HEADER_CELLS = re.compile(r"[^|/,·:\t()\n<>\[\]【】*]++")
_CELLS_WITH_A_NAME = 3
_RESUME_OF = re.compile(r"(?:resume|résumé|cv|curriculum vitae)(?: of| for| -)? (?=[A-Z])", re.IGNORECASE)


def _names_of_line(line: re.Match[str], number: int) -> Iterator[_Span]:
    """Find a Korean name that fills a cell of the line, or an English one that starts one of the first two lines."""
    for cell in islice(_HEADER_CELLS.finditer(line[0]), _CELLS_WITH_A_NAME):
        if line[0][cell.end() : cell.end() + 1] == ":":  # a label
            continue
        offset = line.start() + cell.start()
        words = MARKS.match(cell[0])
        at = words.end() if words else 0
        korean = _KOREAN_ROLE_NAME.match(cell[0], at)
        if (
            korean
            and _is_name(korean[1])
            and (len(korean[1].replace(" ", "")) > 2 or (number < 2 and not cell[0][korean.end() :].strip()))
        ):
            yield offset + korean.start(1), offset + korean.end(1), "name"
            at = korean.end() + 1
        elif HANGUL.search(cell[0]) or number > 3:
            continue
        at = match_end(_RESUME_OF, cell[0], at)
        english = _NAME_LINE.match(cell[0].rstrip(), at)
        if (
            english
            and (number < 2 or korean)
            and (cell.start() < 12 or HANGUL.search(line[0]))
            and _is_name(english[1])
        ):
            yield offset + english.start(1), offset + english.end(1), "name"


def _is_name(words: str) -> bool:
    """Tell whether words that stand where a name would are one."""
    if not HANGUL.search(words):
        return not {word.strip(".,").lower() for word in words.split()} & _NOT_ENGLISH_NAMES
    compact = words.replace(" ", "")
    if compact in _NO_NAMES or kind_of_heading(compact):
        return False
    return (compact[:2] in _LONG_SURNAMES and 3 <= len(compact) <= 4) or (
        compact[0] in _SURNAMES and 2 <= len(compact) <= 3
    )


def _occurrences(plain: str, name: str) -> Iterator[_Span]:
    """Find a known name wherever else it stands, and parts of it where they can be nothing else."""
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
    given = compact[2 if compact[:2] in _LONG_SURNAMES else 1 :]
    if len(given) == 2:
        for start, end in _places(plain, given):
            if "一" <= plain[start - 1 : start] <= "龥":  # 盧아름
                yield start - 1, end
            elif not _is_hangul(plain[start - 1 : start]) and _ADDRESSED.match(plain, end):
                yield start, end


def _english_occurrences(plain: str, name: str) -> Iterator[tuple[int, int]]:
    words = [word.strip(",") for word in name.split() if word.strip(",")]
    if len(words) > 1:
        first, last = re.escape(words[0]), re.escape(words[-1])
        whole = r"[ .,_-]{1,2}".join(map(re.escape, words))
        if plain.lower().count(words[-1].lower()) > 1:  # a pattern of its own is dear to compile
            pattern = rf"(?i)(?<![^\W_])(?:{whole}|{last}, ?{first}|{first} (?:\w{{1,12}}\.? )?{last})(?![^\W_])"
            yield from (match.span() for match in re.finditer(pattern, plain))
    for word in words:
        safe = len(word) > 2 and word[0].isupper() and word.lower() not in _COMMON_WORDS | _NOT_ENGLISH_NAMES
        for spelling in {word, word.title(), word.upper()} if len(word) > 1 else ():
            for start, end in _places(plain, spelling):
                titled = _TITLED.search(plain, max(0, start - 6), start)
                if (safe or titled) and not (plain[start - 1 : start].isalnum() or plain[end : end + 1].isalnum()):
                    yield titled.start() if titled else start, end


def _places(plain: str, words: str) -> Iterator[tuple[int, int]]:
    start = plain.find(words)
    while start >= 0:
        yield start, start + len(words)
        start = plain.find(words, start + len(words))


def _is_hangul(character: str) -> bool:
    return "가" <= character <= "힣"
