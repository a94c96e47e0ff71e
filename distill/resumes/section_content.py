"""Find the kind of section of a résumé's line from its content, for lines without a heading."""

import re

from distill.resumes.section_headings import SectionKind

__all__ = [
    "HAS_WORD",
    "LANGUAGE",
    "PERSONAL_LABEL",
    "SENTENCE",
    "WEAK_MARKS",
    "content_kind",
    "is_dated",
    "is_titled",
    "seems_dated",
    "told_outright",
]

WEAK_MARKS = frozenset("-·•*+◦∙ㆍ・‣")
HAS_WORD = re.compile(r"[^\W_]")
PERSONAL_LABEL = re.compile(
    r"[^\w]{0,6}(?:(?:present|current|permanent|home|mailing|hand|full|first|last|family|married|date|place|driving|mobile|email|e-mail|seafarer's|candidate's|applicant's)(?: &| and| of)? ){0,3}"
    r"(?:성[ ]{0,6}명|이[ ]{0,6}름|영문명|연[ ]?락[ ]?처|전[ ]{0,6}화(?:번호)?|휴[ ]?대[ ]?(?:폰|전화)|핸드폰|이메일|e-?mail|메일|주[ ]{0,6}소|현[ ]?주[ ]?소|거주지?|생년월일|생[ ]?년|"
    r"나[ ]{0,6}이|연령|성별|지원자|국적|본적|종교|가족(?:사항|관계)?|결혼(?:여부)?|혼인|주민(?:등록)?번호|여권(?:번호)?|passport|seaman'?s? book|next of kin|home|religion|name|phone|mobile|tel|telephone|address|birth|d\.?o\.?b\.?|gender|nationality|age|sex|cell|"
    r"applicant|licen[cs]e|marital status|civil status|결혼여부|혼인여부|github|linkedin|블로그|사진|photo)(?:[ ]?[(/][^)\n:]{1,20}\)?|[ ][A-Za-z][A-Za-z ]{1,20}(?=:| :))?[ ]{0,4}(?:[:|\t]|  |[ ](?=[\d(+@]))",
    re.IGNORECASE,
)
_PERSONAL = re.compile(
    r"@|0\d{1,2}[-. )]{1,3}\d{3,4}[-. ]\d{4}|\(?\d{3}\)?[-. ]\d{3}[-. ]\d{4}|\+\d{1,3}[ .-]\d|555-\d{4}|년생|(?:만 ?)?\d\d세|\(\d{5}\) ?[가-힣]|(?-i:\b[A-Z]\d[A-Z] ?\d[A-Z]\d\b|\b[A-Z]{1,2}\d[A-Z\d]? \d[A-Z]{2}\b|, [A-Z]{2} \d{5}\b)|\d{1,4}호(?![가-힣])|linkedin\.com/|github\.com/|"
    r"\[(?:이름|생년월일|나이|성별|주소|전화|이메일|링크|NAME|BIRTH DATE|AGE|GENDER|ADDRESS|PHONE NUMBER|EMAIL|LINK)\]"
)
_DATE = re.compile(
    r"(?<!\d)(?:19[5-9]\d|20[0-4]\d)(?!\d)|(?<!\d)'?\d\d\.\d\d ?[-~]|[-~–] ?현재|재직|\bpresent\b|\b\d{1,2} ?(?:years?|yrs?)\b|\d년",
    re.IGNORECASE,
)
_SCHOOL = re.compile(
    r"대학교?(?!병원| ?식당)|대학원|고등학교|고교|전문대|폴리텍|학과|학부|전공|학사|석사|박사|졸업|중퇴|수료|재학|교육대|여고|공고|상고|직업학교|"
    r"\b(?:universit\w{1,4}|college|school|institute|academy|polytechnic|bachelor|master|diploma|degree|graduated|major)\b|"
    r"\b(?-i:Ph\.?D|B\.?Sc?|B\.?A|M\.?Sc?|M\.A|MA(?= in)|MBA|B\.?Ed|GED|GCSEs?|A-levels?|GPA)\b(?!-?\d)",
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
_LETTER = re.compile(
    r"(?:dear |to whom|(?:[가-힣]{1,10} ){0,3}[가-힣]{1,8}(?:님|자|장|분들?)께[,.!]?$|안녕하(?:세요|십니까))",
    re.IGNORECASE,
)
SENTENCE = re.compile(r"(?:니다|어요|아요|해요|에요|예요|[가-힣]다)[.!]?$|^[A-Z].{50,}[.!]$")
_REFERENCES = re.compile(r"[^\w]{0,6}references?\b.{0,20}(?:available|upon|on) request", re.IGNORECASE)
_CLOSING = re.compile(
    r"(?:사실과|사실임|틀림|허위).{0,12}(?:없|확인|합니다)|지원자.{0,20}\((?:인|서명)\)|\b(?:hereby|solemnly) (?:declare|certify|affirm)|(?:declare|certify) that",
    re.IGNORECASE,
)
_WORKED = re.compile(
    r"일했|일하였|근무했|근무하였|재직했|다녔|\bworked (?:for|at|as|in|with)\b|\bfreelance", re.IGNORECASE
)
_STUDIED = re.compile(r"졸업|전공했|공부했|수료|\b(?:studied|graduated)\b", re.IGNORECASE)
_USES = re.compile(
    r"다룹니다|다룰 (?:수|줄)|사용합니다|쓸 (?:수|줄)|능숙|\bI (?:work with|use|know)\b|\b(?:fluent|proficient) in\b"
)
_INSTITUTION = re.compile(
    r"대학(?!교수)|학교|학원|폴리텍|\b(?:universit|college|school|institute|academy|polytechnic)", re.IGNORECASE
)
LANGUAGE = re.compile(
    r"[^\w]{0,6}(?:영어|일본어|일어|중국어|독일어|불어|프랑스어|스페인어|english|korean|japanese|chinese|mandarin|german|french|spanish)[ ]{0,3}[:|(]",
    re.IGNORECASE,
)
_MILITARY = re.compile(
    r"(?:육군|해군|공군|해병대?|의경|공익|사회복무요원).{0,20}(?:병장|전역|제대|복무|소집해제)|만기 ?전역|군필"
)
_LANGUAGE_TEST = re.compile(r"toeic|토익|toefl|토플|opic|오픽|jlpt|hsk|teps|텝스|ielts", re.IGNORECASE)
_CERTIFICATE = re.compile(
    r"기능사|산업기사|기능장|자격증|면허|(?:^|[ ,])[가-힣]{2,12}사? ?[123]급|컴퓨터활용능력|\b(?:licen[sc]ed?|certified|certification|certificate)\b",
    re.IGNORECASE,
)
_LIST_BREAK = re.compile(r"\s*[,/·|;]\s*")


def is_dated(line: str) -> bool:
    """Return whether a line contains a year or a duration."""
    return bool(_DATE.search(line))


def is_titled(line: str) -> bool:
    """Return whether a line mentions a degree without an institution or a date, as after a name."""
    return not _DATE.search(line) and not _INSTITUTION.search(line) and bool(_SCHOOL.search(line))


def seems_dated(line: str) -> bool:
    """Return whether a line in personal data looks like the first of the experience: a date and enough other text."""
    return bool(_DATE.search(line)) and (len(line) > 20 or (len(line) > 14 and bool(_YEARS.search(line))))


def _is_prose(line: str) -> bool:
    return len(line) > 40 and bool(SENTENCE.search(line))


def told_outright(line: str) -> SectionKind | None:
    """Return the kind of a line that is clear anywhere: a closing declaration or a note on references; else None."""
    if _REFERENCES.match(line):
        return "references"
    return "personal" if _CLOSING.search(line) else None


def content_kind(line: str) -> SectionKind | None:
    """Return the kind of a line by its content; None if it fits any section."""
    if PERSONAL_LABEL.match(line) or (len(line) < 200 and _PERSONAL.search(line) and not _is_prose(line)):
        return "personal"
    if kind := told_outright(line):
        return kind
    if _LETTER.match(line):
        return "cover_letter"
    line = line[:200]
    dated, school, company = _DATE.search(line), _SCHOOL.search(line), _COMPANY.search(line)
    job = _JOB.search(line)
    if LANGUAGE.match(line):
        return "languages"
    if SENTENCE.search(line) and ((kind := _sentence_kind(line)) != "summary" or not (dated and (company or school))):
        return kind
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


def _sentence_kind(line: str) -> SectionKind:
    """Return the kind of a sentence.

    Experience: a verb of work with a time. Education: a verb of study with a school. Skills: several things that the
    person uses. All other sentences are summary.
    """
    if _WORKED.search(line) and (_DATE.search(line) or re.search(r"\byears?\b", line)):
        return "experience"
    if _STUDIED.search(line) and _SCHOOL.search(line):
        return "education"
    return "skills" if _USES.search(line) and line.count(",") > 1 else "summary"


def _is_list(line: str) -> bool:
    """Return whether a line is a list of at least three short items."""
    if line[:1] in WEAK_MARKS:
        return False
    items = _LIST_BREAK.split(line.rstrip("."))
    return (
        len(items) >= 3
        and all(0 < len(item) <= 24 and item.count(" ") <= 2 for item in items)
        and not _DATE.search(line)
    )
