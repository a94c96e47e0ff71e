"""The words that :mod:`distill.data.bundled` uses for résumés and job descriptions.

A skill is written ``한글/다른 한글=English/other English``: all these spellings name the same skill.  The skills of one
specialism are separated by ``", "``.  Different specialisms share no complete spelling, so that a must-have skill
belongs to exactly one specialism.
"""

from dataclasses import dataclass

__all__ = ["ENGLISH", "FAMILIES", "FOREIGN_LANGUAGES", "KOREAN", "LEVELS", "Family", "Level", "Skill", "Wording"]


@dataclass(frozen=True)
class Skill:
    """One skill and its spellings in Korean and in English."""

    ko: tuple[str, ...]
    en: tuple[str, ...]


@dataclass(frozen=True)
class Family:
    """One job family: its job titles, its employers, its majors and its skills.

    ``common`` skills are shared by the whole family; each of ``specialisms`` is a tuple of must-have skills.
    """

    key: str
    sector: Skill
    titles: Skill
    employers: Skill
    majors: Skill
    common: tuple[Skill, ...]
    specialisms: tuple[tuple[Skill, ...], ...]


@dataclass(frozen=True)
class Level:
    """One seniority level: the years of experience, the rank on a résumé and the grade in a job description."""

    key: str
    years: tuple[int, int]
    rank: Skill
    grade: Skill


@dataclass(frozen=True)
class Wording:
    """The texts of one language: each field holds the templates or words to choose from."""

    people: tuple[str, ...]
    contact: str
    companies: tuple[str, ...]
    total_years: str
    no_years: str
    years_wanted: tuple[str, ...]  # one per level
    career: tuple[str, ...]
    education: tuple[str, ...]
    skill_list: tuple[str, ...]
    languages: tuple[str, ...]
    about: tuple[str, ...]
    opening: tuple[str, ...]
    duties: tuple[str, ...]
    requirements: tuple[str, ...]
    preferred: tuple[str, ...]
    traits: tuple[str, ...]
    extras: tuple[str, ...]
    places: tuple[str, ...]


def _skill(text: str) -> Skill:
    korean, _, english = text.partition("=")
    return Skill(tuple(korean.split("/")), tuple((english or korean).split("/")))


def _skills(text: str) -> tuple[Skill, ...]:
    return tuple(_skill(item) for item in text.split(", "))


def _family(key: str, sector: str, titles: str, employers: str, majors: str, *skills: str) -> Family:
    """Make a family from lines of words; the first line of skills is common to all, each other line is a specialism."""
    common, *specialisms = skills
    return Family(
        key,
        SECTORS[sector],
        _skill(titles),
        _skill(employers),
        _skill(majors),
        _skills(common),
        tuple(_skills(specialism) for specialism in specialisms),
    )


SECTORS = {
    "it": _skill("정보기술/소프트웨어=information technology/software"),
    "factory": _skill("제조업/생산기술=manufacturing/factories"),
    "site": _skill("건설시설/현장기술=construction and facilities/field work"),
    "transport": _skill("물류유통/공급망=logistics/supply chain"),
    "office": _skill("경영지원/전문사무=corporate services/back office"),
    "brand": _skill("마케팅콘텐츠/커머스=marketing and content/commerce"),
    "health": _skill("의료보건/헬스케어=health care/medicine"),
    "service": _skill("외식서비스/접객업=hospitality/guest services"),
    "people": _skill("교육복지/사회서비스=education and welfare/social services"),
}
FOREIGN_LANGUAGES = (
    _skill("영어/토익=English/TOEIC"),
    _skill("중국어/한어수평고시=Chinese/HSK"),
    _skill("일본어/일본어능력시험=Japanese/JLPT"),
    _skill("독일어/괴테자격증=German/Goethe"),
)
LEVELS = (
    Level("entry", (0, 0), _skill("신입/인턴/수습=trainee/intern/graduate"), _skill("신입/초급=entry-level/entry")),
    Level("junior", (1, 3), _skill("사원/주임/주니어=junior/associate"), _skill("주니어/실무자=junior/early-career")),
    Level("senior", (5, 8), _skill("과장/선임/시니어=senior/specialist"), _skill("시니어/중급=senior/experienced")),
    Level("lead", (10, 16), _skill("팀장/수석/리드=lead/head"), _skill("리드/책임자=lead/principal")),
)

KOREAN = Wording(
    people=("김예시", "이가상", "박견본", "최보기", "정샘플", "강임의", "조표본", "윤모의", "장허구", "임연습"),
    contact="[인적사항] {name} / 010-0000-{number:04d} / user@example.com / 희망업종 {sector}",
    companies=("가상물산", "예시산업", "견본그룹", "샘플파트너스", "모의기업", "보기홀딩스", "표본상사", "연습컴퍼니"),
    total_years="총 경력 {years}년",
    no_years="경력 없음",
    years_wanted=("신입 (경력 무관)", "경력 1~4년", "경력 5~9년", "경력 10년 이상"),
    career=(
        "[경력] {years}. {employer} {title} ({rank}). {duties} 업무 담당",
        "[경력사항] {employer} {title}, {rank}, {years}. 주요 업무: {duties}",
        "[경력] {title} ({rank}) / {employer} / {years} / {duties} 수행",
    ),
    education=(
        "[학력] 가상대학교 {major} 졸업",
        "[학력] 예시대학교 {major} 학사",
        "[학력사항] 견본전문대학 {major} 전공",
    ),
    skill_list=("[기술] {skills}", "[보유기술] {skills}", "[핵심역량] {skills}"),
    languages=("[어학] {languages}", "[외국어] {languages}"),
    about=(
        "[자기소개] {trait} 성격으로 {other} 태도를 갖추었습니다.",
        "[자기소개] {trait} 동료라는 평가를 받으며, {extra} 가능합니다.",
        "[자기소개서] {trait} 자세로 일하고 {extra} 경험이 있습니다.",
    ),
    opening=("[채용] {company} {title} {grade} (업종 {sector})", "[모집부문] {title} {grade} - {company}, {sector}"),
    duties=("[담당업무] {duties} 업무", "[주요업무] {duties} 수행"),
    requirements=(
        "[자격요건] {years}. {skills} 필수, 어학 {languages}",
        "[지원자격] {years}, {skills} 가능자. 외국어 {languages}",
    ),
    preferred=("[우대사항] {extra}, {trait} 분. {place} 근무", "[우대] {trait} 분, {extra}. 근무지 {place}"),
    traits=(
        "꼼꼼한",
        "성실한",
        "적극적인",
        "책임감 있는",
        "소통하는",
        "배려하는",
        "끈기 있는",
        "분석적인",
        "창의적인",
        "침착한",
    ),
    extras=(
        "엑셀 활용",
        "운전면허",
        "문서 작성",
        "발표",
        "주말 근무",
        "교대 근무",
        "협업 도구 활용",
    ),
    places=("서울", "부산", "대전", "광주", "인천", "대구", "판교", "울산", "세종", "제주"),
)
ENGLISH = Wording(
    people=("Sample Kim", "Example Lee", "Mock Park", "Placeholder Choi", "Fictional Jung", "Test Kang", "Dummy Cho"),
    contact="[Personal] {name} / +1-555-01{line:02d} / user@example.com / Field: {sector}",
    companies=(
        "Sample Corp",
        "Example Works",
        "Mock Industries",
        "Placeholder Group",
        "Fictional Partners",
        "Demo Ltd",
    ),
    total_years="{years} years of experience",
    no_years="no experience",
    years_wanted=(
        "no experience required",
        "1-4 years of experience",
        "5-9 years of experience",
        "10+ years of experience",
    ),
    career=(
        "[Experience] {years}. {title} ({rank}), {employer}. Responsible for {duties}",
        "[Work history] {employer}, {title}, {rank}, {years}. Main work: {duties}",
    ),
    education=("[Education] BSc {major}, Sample University", "[Education] {major}, Example College"),
    skill_list=("[Skills] {skills}", "[Technical skills] {skills}", "[Core skills] {skills}"),
    languages=("[Languages] {languages}", "[Foreign languages] {languages}"),
    about=("[Summary] A {trait} and {other} colleague.", "[About me] {trait} by nature, with {extra}."),
    opening=("[Hiring] {title} {grade} at {company}, {sector}", "[Position] {company} ({sector}): {title} {grade}"),
    duties=("[Duties] {duties}", "[Role] Work on {duties}"),
    requirements=(
        "[Requirements] {years}. {skills}. Language: {languages}",
        "[Must have] {years}, {skills}, fluent {languages}",
    ),
    preferred=("[Preferred] {extra}, {trait}. Based in {place}", "[Nice to have] {trait}, {extra}. Location: {place}"),
    traits=("careful", "diligent", "proactive", "responsible", "communicative", "considerate", "persistent", "calm"),
    extras=("Excel", "a driving licence", "report writing", "presentations", "shift work", "teamwork tools"),
    places=("Seoul", "Busan", "Daejeon", "Gwangju", "Incheon", "Daegu", "Pangyo", "Ulsan", "Sejong", "Jeju"),
)

FAMILIES = (
    _family(
        "backend",
        "it",
        "백엔드 개발자/서버 개발자=backend developer/server engineer",
        "핀테크 기업/이커머스 플랫폼=fintech company/e-commerce platform",
        "컴퓨터공학/소프트웨어학=computer science/software engineering",
        "깃=Git, 도커=Docker, 포스트그레스=PostgreSQL/Postgres",
        "자바=Java, 스프링=Spring, 코틀린=Kotlin, 하이버네이트=Hibernate/JPA, 그레이들=Gradle",
        "파이썬=Python, 장고=Django, 플라스크=Flask, 셀러리=Celery, 패스트API=FastAPI",
        "고랭=Golang/Go, 지알피씨=gRPC, 카프카=Kafka, 레디스=Redis, 프로토콜버퍼=Protobuf",
    ),
    _family(
        "client",
        "it",
        "프론트엔드 개발자/앱 개발자=frontend developer/app developer",
        "웹 에이전시/모바일 서비스 기업=web agency/mobile service company",
        "멀티미디어공학/정보통신공학=multimedia engineering/information engineering",
        "피그마 협업=Figma handoff, 지라=Jira, 단위테스트=unit testing",
        "리액트=React, 타입스크립트=TypeScript/TS, 넥스트=Next.js, 웹팩=Webpack, 리덕스=Redux",
        "스위프트=Swift, 아이오에스=iOS, 안드로이드=Android, 플러터=Flutter, 젯팩=Jetpack",
    ),
    _family(
        "data",
        "it",
        "데이터 사이언티스트/데이터 분석가=data scientist/data analyst",
        "데이터 분석 기업/추천 서비스 기업=analytics firm/recommender startup",
        "통계학/산업공학=statistics/industrial engineering",
        "에스큐엘=SQL, 주피터=Jupyter, 판다스=pandas",
        "파이토치=PyTorch, 딥러닝=deep-learning/DL, 트랜스포머=transformers, 자연어처리=NLP, 엠엘옵스=MLOps",
        "태블로=Tableau, 가설검정=split-testing, 대시보드=dashboards, 코호트분석=cohort-analysis, 구글애널리틱스=GA4",
    ),
    _family(
        "infrastructure",
        "it",
        "인프라 엔지니어/시스템 엔지니어=infrastructure engineer/systems engineer",
        "클라우드 운영사/데이터센터=cloud operator/data centre",
        "전산학/정보시스템학=computing/information systems",
        "리눅스=Linux, 셸스크립트=shell/bash, 모니터링=monitoring",
        "쿠버네티스=Kubernetes/k8s, 테라폼=Terraform, 헬름=Helm, 아마존웹서비스=AWS, 아르고=ArgoCD",
        "라우팅=routing/BGP, 스위치=switching, 로드밸런서=load-balancer/L4, 시스코=Cisco, 무선랜=WLAN",
    ),
    _family(
        "security",
        "it",
        "보안 담당자/정보보호 전문가=security specialist/information security analyst",
        "보안 관제사/보안 컨설팅사=security operations centre/security consultancy",
        "정보보호학/사이버보안학=information security/cyber security",
        "와이어샤크=Wireshark, 암호화=encryption, 접근통제=access-control",
        "모의해킹=pentest/penetration-testing, 버프스위트=BurpSuite, 취약점진단=vulnerability-scan, 리버싱=reversing, "
        "퍼징=fuzzing",
        "개인정보영향평가=PIA, 정보보호인증=ISMS, 위험평가=risk-assessment, 보안감사=security-audit, "
        "보안정책=security-policy",
    ),
    _family(
        "semiconductor",
        "factory",
        "반도체 공정 엔지니어/공정기술 담당자=semiconductor process engineer/fab engineer",
        "반도체 제조사/파운드리=chip maker/foundry",
        "신소재공학/화학공학=materials science/chemical engineering",
        "클린룸=cleanroom, 수율개선=yield, 통계적공정관리=SPC",
        "식각=etch/etching, 플라즈마=plasma, 건식식각=RIE, 챔버세정=chamber-clean, 선택비=selectivity",
        "노광=lithography/litho, 포토레지스트=photoresist/PR, 마스크=reticle, 오버레이=overlay, 극자외선=EUV",
        "증착=deposition, 화학기상증착=CVD, 원자층증착=ALD, 스퍼터링=sputtering/PVD, 박막=thin-film",
    ),
    _family(
        "mechanical",
        "factory",
        "기계설계 엔지니어/기구 개발자=mechanical design engineer/mechanical engineer",
        "자동차 부품사/산업기계 제조사=auto parts maker/machinery maker",
        "기계공학/자동차공학=mechanical engineering/automotive engineering",
        "도면해독=drawing-reading, 공차=tolerance/GD&T, 시제품=prototyping",
        "캐티아=CATIA, 솔리드웍스=SolidWorks, 금형설계=mold-design, 사출=injection-molding, 판금=sheet-metal",
        "유한요소해석=FEM/FEA, 앤시스=ANSYS, 열유동해석=CFD, 진동해석=vibration, 피로해석=fatigue-analysis",
    ),
    _family(
        "electronics",
        "factory",
        "전기전자 엔지니어/하드웨어 개발자=electronics engineer/hardware engineer",
        "가전 제조사/전장 부품사=appliance maker/automotive electronics maker",
        "전자공학/전기공학=electronic engineering/electrical engineering",
        "오실로스코프=oscilloscope, 납땜=soldering, 데이터시트=datasheet",
        "회로설계=schematic, 인쇄회로기판=PCB, 아티움=Altium, 전원회로=SMPS, 노이즈대책=EMC",
        "임베디드=embedded, 펌웨어=firmware, 마이크로컨트롤러=MCU, 실시간운영체제=RTOS, 시리얼통신=UART",
    ),
    _family(
        "automation",
        "factory",
        "자동화 설비 엔지니어/설비보전 담당자=automation engineer/maintenance engineer",
        "스마트팩토리 구축사/이차전지 설비사=smart factory integrator/battery equipment maker",
        "제어계측공학/메카트로닉스공학=control engineering/mechatronics",
        "전기배선=wiring, 센서=sensors, 설비점검=equipment-check",
        "피엘씨=PLC, 래더=ladder, 터치패널=HMI, 인버터=inverter, 스카다=SCADA",
        "산업용로봇=robot-arm, 머신비전=machine-vision, 서보모터=servo, 티칭=teaching-pendant, 그리퍼=gripper",
    ),
    _family(
        "quality",
        "factory",
        "품질관리 담당자/품질보증 담당자=quality control officer/quality assurance officer",
        "정밀부품 제조사/화장품 제조사=precision parts maker/cosmetics maker",
        "품질경영학/재료공학=quality management/materials engineering",
        "불량분석=defect-analysis, 시정조치=CAPA, 검사성적서=inspection-report",
        "삼차원측정=CMM, 비파괴검사=NDT, 현미경검사=microscopy, 마이크로미터=micrometer, 경도시험=hardness-test",
        "품질경영시스템=ISO9001, 내부심사=internal-audit, 협력사심사=supplier-audit, 고장형태분석=FMEA, "
        "식스시그마=six-sigma",
    ),
    _family(
        "construction",
        "site",
        "건설 현장 관리자/토목 기술자=construction site manager/civil engineer",
        "종합건설사/토목 시공사=general contractor/civil contractor",
        "토목공학/건축공학=civil engineering/architectural engineering",
        "캐드=AutoCAD/CAD, 공정표=work-schedule, 안전점검=site-safety",
        "철근콘크리트=reinforced-concrete/RC, 거푸집=formwork, 골조=framing, 방수=waterproofing, 미장=plastering",
        "터널=tunnelling, 측량=surveying, 도로포장=paving, 교량=bridges, 굴착=excavation",
        "구조계산=structural-calculation, 내진설계=seismic-design, 마이다스=MIDAS, 철골=steel-frame, "
        "하중분석=load-analysis",
    ),
    _family(
        "facility",
        "site",
        "시설관리 기사/건물 설비 기사=facility technician/building services technician",
        "빌딩 관리사/복합쇼핑몰=building management firm/shopping mall",
        "건축설비학/전기설비학=building services/electrical installation",
        "소방점검=fire-inspection, 민원대응=tenant-requests, 에너지절감=energy-saving",
        "냉동기=chiller, 보일러=boiler, 공조=HVAC, 배관=piping, 냉각탑=cooling-tower",
        "수변전=substation, 차단기=breaker, 비상발전기=generator, 조명제어=lighting-control, 접지=grounding",
    ),
    _family(
        "logistics",
        "transport",
        "물류 담당자/물류 운영 관리자=logistics coordinator/logistics operator",
        "종합물류사/택배사=logistics provider/parcel carrier",
        "물류학/국제통상학=logistics/international trade",
        "엑셀 정산=Excel settlement, 배송추적=shipment-tracking, 운송계약=carrier-contract",
        "창고관리시스템=WMS, 지게차=forklift, 피킹=picking, 재고실사=stocktaking, 입출고=inbound",
        "통관=customs-clearance, 신용장=letter-of-credit/LC, 선하증권=bill-of-lading/BL, 관세환급=duty-drawback, "
        "인코텀즈=Incoterms",
    ),
    _family(
        "procurement",
        "transport",
        "구매 담당자/자재 담당자=procurement officer/buyer",
        "전자제품 제조사/조선사=electronics manufacturer/shipbuilder",
        "경영학/무역학=business administration/trade",
        "에스에이피=SAP, 발주=purchase-orders, 납기관리=delivery-control",
        "견적비교=RFQ, 단가협상=price-negotiation, 전략소싱=strategic-sourcing, 공급사평가=vendor-rating, "
        "외주계약=outsourcing",
        "자재소요계획=MRP, 수요예측=demand-forecast, 안전재고=safety-stock, 생산계획=production-plan, "
        "판매운영계획=S&OP",
    ),
    _family(
        "accounting",
        "office",
        "회계 담당자/재무회계 담당자=accountant/accounting officer",
        "회계법인/중견 제조사=accounting firm/mid-size manufacturer",
        "회계학/세무학=accounting/taxation",
        "더존=Douzone, 엑셀=Excel, 전표처리=journal-entry",
        "부가가치세=VAT, 법인세=corporate-tax, 원천징수=withholding, 세무조정=tax-adjustment, 연말정산=year-end-tax",
        "연결결산=consolidation, 국제회계기준=IFRS, 외부감사=external-audit, 내부회계관리=K-SOX, 공시=disclosure",
        "원가계산=cost-accounting, 표준원가=standard-costing, 손익분석=profit-analysis, 예산편성=budgeting, "
        "관리회계=management-accounting",
    ),
    _family(
        "finance",
        "office",
        "금융 담당자/금융 분석가=finance officer/financial analyst",
        "시중은행/자산운용사=commercial bank/asset manager",
        "경제학/금융공학=economics/financial engineering",
        "블룸버그=Bloomberg, 재무모델=financial-model, 금융규제=regulation",
        "여신심사=loan-review, 신용평가=credit-rating, 담보평가=collateral, 부실채권=NPL, 연체관리=collections",
        "포트폴리오=portfolio, 채권운용=fixed-income, 파생상품=derivatives, 주식리서치=equity-research, "
        "대체투자=alternatives",
    ),
    _family(
        "hr",
        "office",
        "인사 담당자/피플팀 담당자=HR officer/people partner",
        "지주회사/IT 스타트업=holding company/tech startup",
        "심리학/행정학=psychology/public administration",
        "인사시스템=HRIS, 취업규칙=work-rules, 조직문화=culture",
        "채용=recruiting, 면접설계=interview-design, 소싱=talent-sourcing, 채용브랜딩=employer-branding, "
        "온보딩=onboarding",
        "급여=payroll, 사대보험=social-insurance, 평가보상=compensation, 퇴직연금=pension, 노무=labor-relations",
    ),
    _family(
        "legal",
        "office",
        "법무 담당자/사내 법률 담당자=legal counsel/legal officer",
        "법무법인/바이오 기업=law firm/biotech company",
        "법학/지식재산학=law/intellectual property",
        "법령조사=legal-research, 법률의견서=legal-opinion, 판례검색=case-search",
        "계약검토=contract-review, 소송대응=litigation, 공정거래=antitrust, 준법감시=compliance, 인수합병=M&A",
        "특허출원=patent-filing, 상표=trademark, 선행기술조사=prior-art, 라이선스=licensing, 명세서=patent-drafting",
    ),
    _family(
        "marketing",
        "brand",
        "마케터/마케팅 담당자=marketer/marketing manager",
        "패션 브랜드/생활용품 기업=fashion brand/consumer goods company",
        "광고홍보학/신문방송학=advertising/mass communication",
        "시장조사=market-research, 카피라이팅=copywriting, 캠페인=campaigns",
        "퍼포먼스광고=performance-ads, 검색엔진최적화=SEO, 리타겟팅=retargeting, 전환율최적화=CRO, 키워드광고=SEM",
        "브랜드전략=brand-strategy, 언론홍보=PR-media, 인플루언서=influencers, 팝업스토어=pop-up, 협찬=sponsorship",
    ),
    _family(
        "sales",
        "brand",
        "영업 담당자/영업 관리자=sales representative/account manager",
        "의료기기 판매사/식자재 유통사=medical device distributor/food distributor",
        "국제경영학/유통학=international business/distribution",
        "고객관리=CRM, 세일즈포스=Salesforce, 매출목표=sales-target",
        "제안서=proposal, 입찰=tender, 기술영업=technical-sales, 대리점개척=channel-sales, 해외영업=export-sales",
        "매장관리=store-management, 진열=merchandising, 포스=POS, 판촉=promotion, 로스관리=shrinkage",
    ),
    _family(
        "design",
        "brand",
        "디자이너/디자인 담당자=designer/design specialist",
        "디자인 스튜디오/게임사=design studio/game company",
        "시각디자인학/산업디자인학=visual design/industrial design",
        "포토샵=Photoshop, 일러스트레이터=Illustrator, 무드보드=moodboard",
        "피그마=Figma, 사용성평가=usability-test, 와이어프레임=wireframe, 디자인시스템=design-system, "
        "프로토타이핑=interaction-design",
        "패키지디자인=packaging, 편집디자인=InDesign, 타이포그래피=typography, 로고=logo, 인쇄감리=print-proof",
        "블렌더=Blender, 마야=Maya, 모델링=3D-modelling, 리깅=rigging, 텍스처=texturing",
    ),
    _family(
        "media",
        "brand",
        "콘텐츠 제작자/방송 제작자=content producer/media producer",
        "방송 외주사/유튜브 채널 운영사=broadcast production house/video channel operator",
        "방송영상학/문예창작학=film and broadcasting/creative writing",
        "기획안=treatment, 저작권=copyright, 촬영일정=shooting-schedule",
        "프리미어=Premiere, 애프터이펙트=After-Effects, 색보정=color-grading, 자막=subtitles, 촬영=filming",
        "원고작성=scriptwriting, 교열=copy-editing, 취재=reporting, 뉴스레터=newsletter, 인터뷰기사=feature-writing",
    ),
    _family(
        "nursing",
        "health",
        "간호사/병원 간호사=nurse/registered nurse",
        "종합병원/대학병원=general hospital/university hospital",
        "간호학/간호과학=nursing/nursing science",
        "심폐소생술=CPR, 투약=medication, 전자의무기록=EMR",
        "중환자실=ICU, 인공호흡기=ventilator, 심전도=ECG, 중심정맥관=CVC, 투석=CRRT",
        "수술실=OR, 소독간호=scrub, 순환간호=circulating, 마취보조=anaesthesia, 멸균=sterilization",
        "산부인과=obstetrics, 신생아실=NICU, 분만=delivery-room, 모유수유=breastfeeding, 산전교육=prenatal",
    ),
    _family(
        "clinical",
        "health",
        "의약품 개발 담당자/임상 담당자=drug development associate/clinical associate",
        "제약사/임상시험 수탁기관=pharmaceutical company/contract research organisation",
        "약학/생명과학=pharmacy/life science",
        "의학용어=medical-terms, 문헌검색=literature-search, 표준작업지침=SOP",
        "임상모니터링=site-monitoring, 임상시험규정=GCP, 증례기록서=CRF, 피험자모집=enrolment, 임상시험계획=protocol",
        "품목허가=marketing-approval, 기술문서=CTD, 약물감시=pharmacovigilance/PV, 인허가=regulatory/RA, "
        "변경허가=variation",
    ),
    _family(
        "medical_technology",
        "health",
        "의료기사/병원 검사 담당자=medical technologist/hospital technologist",
        "검진센터/재활병원=screening centre/rehabilitation hospital",
        "보건의료학/의생명공학=health science/biomedical engineering",
        "환자응대=patient-care, 감염관리=infection-control, 장비교정=calibration",
        "엑스레이=X-ray, 자기공명영상=MRI, 전산화단층촬영=CT, 방사선안전=radiation-safety, 영상저장=PACS",
        "채혈=phlebotomy, 혈액검사=haematology, 미생물배양=microbiology, 유전자증폭=PCR, 조직검사=histology",
        "도수치료=manual-therapy, 전기치료=electrotherapy, 보행훈련=gait-training, 재활운동=rehab-exercise, "
        "연하치료=dysphagia",
    ),
    _family(
        "food",
        "service",
        "조리사/외식 담당자=cook/food service worker",
        "호텔 레스토랑/프랜차이즈 본사=hotel restaurant/franchise headquarters",
        "조리학/식품영양학=culinary arts/food and nutrition",
        "위생관리=food-hygiene, 해썹=HACCP, 원가율=food-cost",
        "한식=Korean-cuisine, 육수=stock, 칼질=knife-skills, 그릴=grill, 코스요리=course-menu",
        "에스프레소=espresso, 라떼아트=latte-art, 로스팅=roasting, 브루잉=brewing, 커핑=cupping",
        "제빵=baking, 반죽=dough, 발효=fermentation, 케이크=cakes, 초콜릿=chocolate",
    ),
    _family(
        "hospitality",
        "service",
        "호텔 직원/관광 서비스 담당자=hotel staff/tourism agent",
        "특급호텔/여행사=luxury hotel/travel agency",
        "호텔경영학/관광학=hotel management/tourism",
        "서비스매너=service-manners, 고객불만=complaints, 예약관리=reservations",
        "프런트=front-desk, 객실관리=housekeeping, 오페라=OPERA-PMS, 컨시어지=concierge, 연회=banquet",
        "항공발권=ticketing, 여행상품기획=tour-planning, 가이드=guiding, 아마데우스=Amadeus, 비자대행=visa-service",
    ),
    _family(
        "education",
        "people",
        "교사/교육 담당자=teacher/educator",
        "교육 기업/어학원=education company/language academy",
        "교육학/아동학=education/child studies",
        "학부모상담=parent-meeting, 수업계획=lesson-plan, 교재개발=teaching-material",
        "유아교육=early-childhood, 누리과정=Nuri, 놀이수업=play-based, 보육=childcare, 동화구연=storytelling",
        "수학지도=math-tutoring, 입시상담=admissions, 내신대비=exam-prep, 논술=essay-class, 학습코칭=study-coaching",
        "이러닝=e-learning, 교수설계=ADDIE, 학습관리시스템=LMS, 강의촬영=lecture-video, 스토리보드=storyboard",
    ),
    _family(
        "welfare",
        "people",
        "사회복지사/복지 담당자=social worker/welfare officer",
        "종합복지관/지역재단=community centre/local foundation",
        "사회복지학/상담학=social welfare/counselling",
        "사례관리=case-management, 후원관리=donor-relations, 자원봉사=volunteers",
        "요양=elder-care, 치매=dementia, 방문돌봄=home-care, 노인여가=senior-leisure, 장기요양보험=LTC-insurance",
        "장애인활동지원=disability-support, 수어=sign-language, 직업재활=vocational-rehab, 발달장애=autism, "
        "보조기기=assistive-device",
        "청소년상담=youth-counselling, 학교폭력=bullying, 진로지도=career-guidance, 위기개입=crisis, "
        "방과후=afterschool",
    ),
    _family(
        "beauty",
        "service",
        "미용사/뷰티 전문가=beautician/beauty specialist",
        "미용실 체인/에스테틱 체인=salon chain/aesthetic chain",
        "미용학/뷰티케어학=cosmetology/beauty care",
        "고객상담=consultation, 위생소독=sanitation, 제품판매=retail-sales",
        "커트=haircut, 펌=perm, 염색=hair-coloring, 드라이=blow-dry, 두피관리=scalp-care",
        "피부관리=facial, 왁싱=waxing, 마사지=massage, 필링=peeling, 메이크업=makeup",
    ),
    _family(
        "agriculture",
        "site",
        "농장 관리자/영농 담당자=farm manager/agronomist",
        "농업법인/축산법인=agricultural corporation/livestock corporation",
        "농학/동물자원학=agronomy/animal science",
        "농기계=tractor, 영농일지=farm-log, 출하=shipping",
        "스마트팜=smart-farm, 양액재배=hydroponics, 온실=greenhouse, 병해충=pest-control, 관수=irrigation",
        "양돈=pig-farming, 한우=cattle, 사료배합=feed-mix, 방역=biosecurity, 인공수정=insemination",
    ),
    _family(
        "energy",
        "site",
        "에너지 엔지니어/발전 설비 담당자=energy engineer/power plant engineer",
        "발전 공기업/신재생 개발사=power utility/renewables developer",
        "에너지공학/환경공학=energy engineering/environmental engineering",
        "환경영향평가=EIA, 계통연계=grid-connection, 탄소배출=carbon-accounting",
        "태양광=photovoltaic/solar, 풍력=wind-power, 에너지저장장치=ESS, 전력거래=power-trading, 입지분석=siting",
        "가스터빈=gas-turbine, 증기터빈=steam-turbine, 복합화력=combined-cycle, 탈황설비=desulfurization, "
        "급수처리=feedwater",
    ),
    _family(
        "transport",
        "transport",
        "운전원/운송 담당자=driver/transport operator",
        "시내버스 회사/철도 운영사=bus company/rail operator",
        "교통공학/항공운항학=transport engineering/aviation",
        "안전운행=safe-operation, 운행일지=trip-log, 비상대응=emergency-response",
        "대형면허=heavy-licence, 노선버스=route-bus, 화물차=trucking, 친절운전=passenger-service, 차량점검=inspection",
        "전동차=train-driving, 신호시스템=signalling, 관제=dispatch, 선로=track, 철도안전=rail-safety",
    ),
)
