"""Recognise headings of a résumé, and their kind of section, with a small grammar of Korean and English.

A Korean heading is (modifier)* noun (ending)*. An English heading is a phrase from a list, or capitalised words that
end in one. All words of a title must fit, so a heading word in a running sentence is not a heading.
"""

import re
from functools import lru_cache
from typing import Literal, get_args

__all__ = ["HANGUL", "MAX_TITLE", "SECTION_KINDS", "SectionKind", "kind_of_heading"]

SectionKind = Literal[
    "personal",
    "summary",
    "experience",
    "education",
    "skills",
    "projects",
    "certificates",
    "awards",
    "languages",
    "cover_letter",
    "military",
    "references",
    "other",
]
SECTION_KINDS: tuple[SectionKind, ...] = get_args(SectionKind)


_KOREAN_ENDINGS = "사항|내용|내역|정보|이력|현황|명세|목록|요약|소개|상세|경험|실적|능력|활동|관련|기술서|기술|취득|수행|이수|과정|배경|구사|실력|성적|점수|시험|역량|스택|셋"
_KOREAN_MODIFIERS = (
    "주요|세부|상세|최종|보유|핵심|전문|나의|저의|기타|관련|활용|사용|가능한?|대표|개인|팀|참여|수행|진행|쓰는|써본|자주|잘하는|하는|다루는|배운|다닌|해본|총|직무|업무|실무|직장|근무|사회|현장|해외|국내외?|"
    "임상|교육|강의|연구|실험|개발|취득|국가|공인|교내|교외|전공|회사|인턴|프리랜서|간호|영업|디자인|주|직업|전직|이전|간단|한줄|IT|OA|컴퓨터|소프트"
)
_KOREAN_NOUNS: dict[SectionKind, str] = {
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
    "skills": "기술|스킬|역량|능력|특기|강점|툴|도구|테크|프로그램|장비|기술스택|스택|소프트웨어|할수있는(?:일|거)|할줄아는(?:것|거)|노하우|전문분야|기능|주특기|장기|컴퓨터활용|전산|OA활용|활용|하드스킬|소프트스킬|가능업무|할수있는것|잘하는것|잘하는일|기법|시술",
    "education": "배움|배운것|학력|학업|교육|학위|출신학교|학교|학벌|교육및?훈련|교육이수|훈련|연수|학적|출신교|졸업학교|직업훈련",
    "experience": "경력|경험|이력|근무|커리어|인턴십?|직장|일|아르바이트|알바|직업|일했던곳|재직|업무경력|근무처|걸어온길|일경험|일한곳|수행업무|실습|경력기술서",
}
_NEEDS_ENDING = re.compile(
    r"(?:인적|기본|개인|신상|지원자|본인|기초|우대|가족|신체|연락|일|직업|주|훈련|활동|복무|소속|단체|활용|장기|기능명|번역|강의|전산)"
)
_KOREAN_HEADING = re.compile(
    f"(?:{_KOREAN_MODIFIERS}){{0,4}}(?:"
    + "|".join(f"(?P<{kind}>{nouns})" for kind, nouns in _KOREAN_NOUNS.items())
    + f")(?:{_KOREAN_ENDINGS}){{0,3}}"
)
# nouns that may follow any word: 비행경력, 조리 경험
_KOREAN_FIELD = re.compile(
    f"[가-힣]{{2,4}}(?:(?P<experience>경력|경험)|(?P<skills>역량|스킬)|(?P<certificates>자격증|면허))(?:{_KOREAN_ENDINGS}){{0,2}}"
)

_ENGLISH_HEADINGS: dict[SectionKind, str] = {
    "experience": "experience,experiences,work,employment,work history,employment history,career,career history,positions held,"
    "professional background,professional history,job history,internship,internships,employment record,work background,"
    "appointments,positions,jobs,career path,where i have worked,professional career,employment details,practice,placements,placement,engagements,roles,career summary,career details,career highlights,previous employment,where i worked,occupational history,assignments,sea service,career experience",
    "education": "education,academic background,academic history,academic qualifications,educational background,studies,degrees,"
    "schooling,institutions attended,schools attended,institutions attended with dates,schools attended with dates,training,study,academics,qualifications,educational qualifications,education history,coursework,courses,school,academic record,academic,diplomas,degree,learning,professional training",
    "skills": "skills,skill,competencies,competences,expertise,areas of expertise,technologies,technology,tech stack,tools,"
    "strengths,proficiencies,abilities,capabilities,skill set,skillset,skillsets,toolbox,toolkit,stack,software,"
    "what i use,what i work with,tools i use,areas of competence,summary of skills,summary of qualifications,tools of the trade,specialties,what i can do,equipment,techniques,oa,computing,computer literacy,it literacy,competency,core competency,proficiency,programming,know-how,craft",
    "projects": "projects,project,portfolio,project experience,works,selected works,case studies",
    "certificates": "certifications,certification,certificates,certificate,licenses,licences,license,licence,licensure,"
    "credentials,accreditations,registrations,registration,tickets,bar admissions,certs",
    "awards": "awards,award,honors,honours,achievements,accomplishments,scholarships,prizes,distinctions,recognition,honors and awards",
    "languages": "languages,language,languages known,languages spoken,language skills,foreign languages,linguistic skills,language proficiency",
    "summary": "summary,profile,objective,about,about me,overview,qualities,personal qualities,highlights,introduction,bio,biography,career objective,"
    "career profile,statement,in brief,who i am,goal,career goal",
    "cover_letter": "cover letter,letter of motivation,motivation,personal statement,motivation letter,covering letter,statement of purpose",
    "references": "references,referees,reference,recommendations",
    "personal": "personal,personal details,personal information,personal data,personal info,contact,contact details,contact info,"
    "contact information,contacts,personal particulars,particulars,biodata,bio data,declaration,basic information,details",
    "military": "military,military service,national service,armed forces",
    "other": "interests,hobbies,publications,publication,papers,volunteering,volunteer,activities,memberships,affiliations,patents,"
    "conferences,additional information,miscellaneous,other,others,availability,talks,press,exhibitions,community,pastimes,"
    "community service,outside work,research interests,leadership,presentations,extracurriculars,outreach,etc,teaching,lectures,speaking,"
    "professional development,continuing education,continuing professional development,cpd,associations,clubs,links,grants,research,notes,"
    "salary expectations,notice period,driving",
}
_ENGLISH: dict[str, SectionKind] = {
    phrase: kind for kind, phrases in _ENGLISH_HEADINGS.items() for phrase in phrases.split(",")
}
# a capitalised phrase that ends in one of these words is a heading: "Clinical Experience", "Selected Publications"
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
# after these words, the last word needs no capital: "Technical skills"
_ENGLISH_MODIFIERS = frozenset(
    "technical core key main professional personal work working soft hard computer digital clinical relevant previous recent other "
    "additional transferable practical selected teaching academic formal further special industry general career employment it".split()
)
_SMALL_WORDS = frozenset("and or of the in for to a an with".split())
_WORD = re.compile(r"[^\W_]+(?:'[a-z]+)?")
_PARTS = re.compile(r"\s*(?:[/|&+,·ㆍ・()]|(?<=\s)and(?=\s)|(?<=\s)및(?=\s))\s*", re.IGNORECASE)
_SCRIPTS = re.compile(r"(?<=[A-Za-z]) +(?=[가-힣])|(?<=[가-힣]) +(?=[A-Za-z])")
_NOT_LETTER = re.compile(r"[\W_]+")
HANGUL = re.compile(r"[가-힣]")
MAX_TITLE = 48


@lru_cache(maxsize=8192)
def kind_of_heading(title: str) -> SectionKind | None:
    """Return the kind of section of a heading; None if the words are not a heading.

    In "A / B" the first part decides.
    """
    parts = [part for part in _PARTS.split(title.strip()) if part]
    if not parts or len(parts) > 4 or len(title) > MAX_TITLE:
        return None
    whole = _part_kind(title)
    if len(parts) == 1 and whole is None:  # "WORK EXPERIENCE 경력"
        parts = _SCRIPTS.split(title.strip())
    if len(parts) == 1:
        return whole
    kinds = [_part_kind(part) for part in parts]
    if all(kinds):
        return _ENGLISH.get(title.strip().lower()) or kinds[0]
    if whole:
        return whole
    # "Education & Bar Admissions": one unknown part is accepted if the line is capitalised like a heading
    if not HANGUL.search(title) and _set_as_title(title) and kinds[-1 if kinds[0] is None else 0]:
        return kinds[0] or kinds[-1]
    if "및" in title or "·" in title:
        return kinds[0]
    return None


def _part_kind(part: str) -> SectionKind | None:
    if HANGUL.search(part):
        return _korean_kind(_NOT_LETTER.sub("", part))
    words = [word.lower() for word in _WORD.findall(part)]
    if len(words) > 1 and all(len(word) == 1 for word in words):  # "S K I L L S"
        words = ["".join(words)]
    if not 0 < len(words) <= 5:
        return None
    phrase = " ".join(words)
    for form in (phrase, phrase + "s", phrase.removesuffix("s")):
        if kind := _ENGLISH.get(form):
            return kind
    if len(words) > 4 or _NO_HEADING_BEFORE & set(words[:-1]):
        return None
    if not _set_as_title(part) and not (part[0].isupper() and _ENGLISH_MODIFIERS.issuperset(_no_acronyms(part)[:-1])):
        return None
    if words[0].startswith("volunteer"):
        return "other"
    if words[0] in ("project", "projects") and words[-1] == "experience":
        return "projects"
    return _ENGLISH_LAST.get(words[-1])


def _no_acronyms(part: str) -> list[str]:
    return [word.lower() for word in _WORD.findall(part) if not word.isupper()]


def _korean_kind(compact: str) -> SectionKind | None:
    if len(compact) > 16 or not (match := _KOREAN_HEADING.fullmatch(compact) or _KOREAN_FIELD.fullmatch(compact)):
        return None
    if _NEEDS_ENDING.fullmatch(compact):
        return None
    return match.lastgroup  # type: ignore[return-value]


def _set_as_title(title: str) -> bool:
    """Return whether all words, except small ones such as "of", are capitalised."""
    return all(word[0].isupper() for word in _WORD.findall(title) if word.lower() not in _SMALL_WORDS)
