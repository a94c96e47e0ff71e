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
    "is_name_beside_role",
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
_PLAIN_SURNAMES = frozenset("김박최황허곽")  # few other words of two letters begin with these
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
# words of titles that begin with a syllable which is also a family name: "서버 개발자", "신사업 담당자"
_TITLE_WORDS = frozenset(
    "감리 감사 감정 강의 강판 견적 견인 경락 경력 경리 경비 경영 경제 경호 계량 계약 계장 고객 고객사 고급 고용 고전 고압 공간 공급 공무 공무직 공법 공사 공연 공예 공용 공익 공장 공정 공조 공증 공통 공공 "
    "구급 구내 구매 구조 구축 국가 국내 국방 국비 국어 국제 국악 금속 금융 금융권 금융업 금형 기계 기계식 기관 기구 기능 기록 기록물 기반 기상 기술 기숙사 기업 기업용 기초 기타 기판 기획 길거리 김치 나노 나무 남성복 내과 "
    "노동 노무 노인 단기 단순 단조 단체 단말 도금 도기 도로 도매 도면 도서 도서관 도시 도자기 도장 도축 독서 동물 동시 동영상 두피 라디오 라인 라이브 류마티스 마감 마사지 마술 마을 마취 마취과 마케팅 마트 맹학교 "
    "명품 명상 모바일 모션 모델 모델링 모집 모터 목공 목재 문구 문서 문제 문헌 문화 문화재 문학 물류 미디어 미술 미술관 미용 미용실 미화 미생물 민간 민사 민원 민원실 박람회 박물관 박막 박사 반도체 반려 반려견 반려동물 "
    "방문 방범 방사 방사선 방송 방송국 방수 방역 방재 방제 방화 방위 방산 방과후 배관 배달 배송 배수 배전 배터리 배포 배합 백신 백엔드 백오피스 백화점 범용 변압기 변호 변리 변전 변환 복지 복합 복사 봉사 봉제 부동산 부서 부식 부품 "
    "빈티지 사고 사내 사립 사무 사법 사서 사업 사업부 사외 사용자 사이버 사진 사출 사회 사회적 사방 상담 서버 서비스 서빙 석면 석사 석유 석재 선물 선박 선박용 선별 선임 선행 선원 선로 설계 설비 설치 설교 성과 성능 성악 성우 성인 성형 소년 "
    "소도구 소매 소방 소방서 소비 소비자 소셜 소송 소아 소아과 소음 소자 소재 소통 소프트 소화기 손상 손해 송금 송무 송배전 송신 송전 송출 수질 승강기 승마 승무 승용차 시각 시간 시간제 시공 시내 시내버스 시니어 시설 시설물 시스템 시약 시장 시험 시외 "
    "신경 신경과 신규 신문 신뢰성 신사업 신선 신소재 신약 신용 신입 신재생 신제품 신호 신탁 심리 심사 심층 안내 안과 안마 안보 안전 안정 안테나 양계 양돈 양산 양식 양육 양자 양조 어린이 어학 어업 여객 여객기 여신 여행 여행사 여성복 여론 "
    "연구 연구용 연구소 연극 연금 연기 연료 연마 연수 연예 연출 연합 연회 연회장 염색 영상 영업 영어 영화 예능 예방 예비 예산 예술 예식 예식장 예약 오디오 오라클 오락 오페라 오프라인 오픈 오픈소스 오피스 온라인 옥내 옥외 온실 옹기 "
    "왕진 용달 용역 용접 용품 우대 우편 우편물 우주 원가 원격 원단 원무 원무과 원예 원유 원자력 원천 위기 위생 위성 위탁 위험 위험물 유니티 유니폼 유료 유리 유물 유선 유전 유전자 유치원 유통 유튜브 유아 육가공 육군 육상 육아 육종 윤리 윤활 "
    "음료 음식 음악 음향 음성 이공계 이동 이러닝 이미지 이미용 이벤트 이비인후과 이사 이식 이온 이유식 이차전지 이커머스 인공 인력 인문 인사 인쇄 인증 인터넷 인터랙션 인테리어 인프라 인허가 임금 임대 임도 임상 임상병리 임업 임원 임베디드 "
    "장례 장비 장애 장애인 장치 장기 장난감 장판 전기 전기차 전동 전력 전력망 전략 전문 전산 전산망 전시 전시장 전임 전자 전장 전화 전파 전투 전통 전환 정류 정밀 정보 정보계 정보화 정부 정비 정산 정신 정신과 정원 정유 정육 정책 정치 정형 정화 정수기 "
    "제강 제과 제관 제도 제련 제분 제빵 제약 제어 제작 제조 제지 제철 제품 제화 조경 조달 조례 조리 조립 조명 조사 조선 조선소 조세 조향 조직 조류 주거 주니어 주류 주문 주방 주얼리 주유 주임 주조 주차 주차장 주택 주행 지게차 지구 지능 지도 "
    "지리 지방 지상 지식 지역 지열 지원 지자체 지점 지질 지표 지하 지하철 지휘 진공 진단 진동 진로 진료 진행 차량 차량용 차세대 차체 차트 차음 채권 채널 채용 채혈 채굴 천문 천연 천연물 천장 최고 최신 최적 최적화 추출 추적 추천 "
    "탁송 탁구 태권도 태양광 태양열 팽이 편성 편의점 편집 편직 편물 평가 평생 평생교육 표면 표준 표준화 피복 피부 피부과 피아노 피트니스 하드 하드웨어 하수 하수도 하역 하천 하이브리드 하자 하우스 한국 한국사 한국어 한글 한문 한방 한복 한식 한지 "
    "함정 함대 허가 허브 현금 현대 현미 현장 현상 현악 현지 형사 형틀 호스 호스피스 호텔 호흡 호흡기 홍보 홍보물 홍차 황동 황산".split()
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
    if compact in _NO_NAMES or compact in _TITLE_WORDS or kind_of_heading(compact):
        return False
    return (compact[:2] in LONG_SURNAMES and 3 <= len(compact) <= 4) or (
        compact[0] in _SURNAMES and 2 <= len(compact) <= 3
    )


def is_name_beside_role(words: str) -> bool:
    """Return whether words beside a role are a name: of three letters, or of two with a family name of few other words.

    >>> [is_name_beside_role(words) for words in ("김서연", "김훈", "서버", "모듈")]
    [True, True, False, False]
    """
    return is_name(words) and (len(words.replace(" ", "")) > 2 or words[0] in _PLAIN_SURNAMES)


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
