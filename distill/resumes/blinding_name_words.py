"""Blinding: patterns and lists of names, and of words that occur in the place of a name but are not names."""

from distill.resumes.blinding_forms import UPPER
from distill.resumes.section_headings import HANGUL, kind_of_heading

__all__ = [
    "COMMON_WORDS",
    "ENGLISH_NAME",
    "ENGLISH_WORD",
    "LONG_SURNAMES",
    "NOT_ENGLISH_NAMES",
    "is_name",
    "sounds_alike",
]

_PARTS = "de|del|della|da|dos|du|di|van|von|der|den|la|le|bin|binti|ibn|al|el|ten|y|Mc|Mac"
ENGLISH_WORD = rf"{UPPER}[^\W\d_가-힣一-龥]*+(?:[.'-][^\W\d_가-힣一-龥]++)*+\.?(?! ?:)"
ENGLISH_NAME = (
    rf"(?-i:(?:(?:Mr|Mrs|Ms|Miss|Dr|Prof)\.? )?{ENGLISH_WORD}(?:,? (?:(?:{_PARTS})(?= )|{ENGLISH_WORD})){{0,5}})"
)

_SURNAMES = frozenset(
    "김이박최정강조윤장임한오서신권황안송류유전홍고문손양배백허남심노하곽성차주우구민진지엄채원천방공현함변염여추도소석선설마길연위표명기반왕금옥육인맹"
    "제모탁국어하피용옹화온시은편예경봉사부복태목형두감음빈호범좌팽승견당나라노盧봉갈궁단돈동류묵미뢰"
)
LONG_SURNAMES = frozenset(["남궁", "황보", "제갈", "선우", "독고", "사공", "서문", "동방", "어금", "망절"])
_NO_NAMES = frozenset(
    "어르신 이력서 지원서 연락처 주소지 이메일 경력직 신입 신입직 간호사 조리사 기획자 마케터 강사 상담사 상담원 연구원 연구자 조교 조교사 안내원 선생님 공무원 "
    "회사원 경력자 구직자 지원자 전문가 전공자 전산직 주부 방사선사 변호사 변리사 노무사 감정사 감리원 경비원 경찰관 편집자 서울시 경기도 강원도 제주도 "
    "인천시 안산시 성남시 용인시 남양주 고양시 수원시 부천시 전주시 진주시 천안시 원주시 여수시 구미시 안양시 하남시 구리시 양산시 김해시 김포시 "
    "사회인 현역 현직 책임자 성실함 성실성 이상주 이공계 유치원 어린이 고객님 고등학교 사회복 기술자 기능사 기능공 기관사 기사님 이용사 미용사 "
    "인사팀 영업팀 홍보팀 전기공 전기사 용접사 조경사 요리사 제빵사 영양사 방송인 방송국 신입생 졸업생 대학생 고등학 인턴 사원 주임 대리 과장 차장 부장 "
    "팀장 실장 소장 원장 한국인 한국어 영어 일본어 중국어 이수자 수료자 자격증 경력 학력 병역 기타 사항 성명 이름 성별 연령 나이 주소 전화 사진 국적 본적 "
    "정규직 계약직 현재 안녕 우수 성격 장점 단점 동기 포부 소개 인적 기본 정보 서류 지원 전형 부문 직무 희망 연봉 직원 반장 기장 부기장 조종사 정비사 "
    "설계사 금융인 은행원 교사 교수 교직원 선수 가수 배우 모델 작가 화가 농부 어부 유통업 제조업 서비스 사무직 생산직 기술직 영업직 관리자 관리직 관리인 소방관 정비공 도배사 도장공 배관공 미장공 방수공 사육사 석공 설비사 설계자 성악가 소설가 속기사 수의사 안마사 안무가 안경사 양봉가 역사가 연주자 연출가 염색사 예술가 용접공 운전사 운전자 원예사 음악가 인쇄공 조각가 조련사 조사원 조산사 주방장 지도사 지휘자 진행자 통역사 하역사 한의사 해설사 현장직 채용 모집 공고 제안서 공급망 차단기 사무실 사무소 양력 음력 한글 한자 한문 도로명 지번 신장 체중 고졸 대졸 초졸 중졸 석사 박사 학사 남성 여성 남자 여자 기혼 미혼 군필 미필 면제 남편 모친 부친 현주소 연락망 기간 주요 주임급 상세 최종 현재 이상 이하 공통 전체 사람 자신 오늘 우리 모두 문제 장소 이유 이때 이곳 여기 하나".split()
)
NOT_ENGLISH_NAMES = frozenset(
    "resume cv curriculum vitae engineer developer nurse manager designer teacher senior junior lead staff software data product project "
    "registered certified professional personal contact profile summary experience education skills work street road avenue university college "
    "school hospital company inc ltd llc the and of for analyst accountant consultant director assistant officer specialist technician operator "
    "chef cook driver welder mechanic electrician plumber architect scientist researcher marketing sales finance human resources information "
    "hotel restaurant cafe bank airlines airline institute academy center centre group corporation department ministry church clinic store shop market museum library plaza tower "
    "services solutions technologies partners associates logistics motors foods pharmacy studio agency foundation association society council club line mill mills factory plant garage bakery farm "
    "details dear hiring team sir madam letter cover application applicant candidate new york united states kingdom south korea north seoul "
    "english korean professor doctor student graduate intern executive chief head president vice associate coordinator administrator web full stack "
    "front end back frontend backend business google microsoft amazon cloud machine learning artificial intelligence january february march april "
    "june july august september october november december high public health care security network systems system phone email address page".split()
)
COMMON_WORDS = frozenset(
    "will may mark april june grace hope rich bill young park long best white brown green king price cook baker black gray grey rose lily art "
    "joy faith dean page rice rich hall hill lake field wood woods stone ford banks day love bell case chase chance drew frank jack lane max "
    "miles pat ray rob sue van summer august sky jade ruby pearl angel star mason cooper carter taylor smith hunter fisher farmer miller potter "
    "shepherd carpenter porter parker turner walker weaver archer butler chandler gardener guard marshall major general bishop pope abbot han "
    "kim lee choi jung kang cho yoon jang lim ahn song oh seo shin kwon hwang yang son bae woo min the and java python ruby scala swift go".split()
)


# for each initial consonant of Hangul, the Latin letters with which it may be written in a name
_INITIALS = (
    "gkc",
    "gkc",
    "nlr",
    "dt",
    "dt",
    "rl",
    "mb",
    "bpv",
    "bpv",
    "scz",
    "sc",
    "aeiouywh",
    "jzgc",
    "jzg",
    "ctj",
    "kcgq",
    "tc",
    "pf",
    "hjx",
)


def is_name(words: str) -> bool:
    """Return whether words in the place of a name are a name."""
    if not HANGUL.search(words):
        return not {word.strip(".,").lower() for word in words.split()} & NOT_ENGLISH_NAMES
    compact = words.replace(" ", "")
    if compact in _NO_NAMES or kind_of_heading(compact):
        return False
    return (compact[:2] in LONG_SURNAMES and 3 <= len(compact) <= 4) or (
        compact[0] in _SURNAMES and 2 <= len(compact) <= 3
    )


def sounds_alike(korean: str, latin: str) -> bool:
    """Return whether Korean words may transcribe Latin ones: as many words, and each pair begins with the same sound.

    >>> sounds_alike("칼럼 리드 매켄지", "Callum Reid Mackenzie"), sounds_alike("프로덕트 매니저", "Jane Doe")
    (True, False)
    """
    pairs = list(zip(korean.split(), latin.replace(".", " ").split(), strict=False))
    same_number = len(korean.split()) == len(latin.split())
    return same_number and all(
        "가" <= korean_word[0] <= "힣" and latin_word[0].lower() in _INITIALS[(ord(korean_word[0]) - ord("가")) // 588]
        for korean_word, latin_word in pairs
    )
