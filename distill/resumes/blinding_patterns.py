"""Blinding: find identifiers without a label, by their form, by their phrase, or only in personal data."""

import re
from collections.abc import Iterator, Sequence

from distill.resumes.blinding_forms import (
    AGE_IN_WORDS,
    CITY,
    COUNTRY,
    DIGIT,
    ENGLISH_AGE,
    ENGLISH_DATE,
    PLACE,
    PROVINCE,
    STATE,
    YEAR_OF_BIRTH,
    Identifier,
    Span,
    is_form,
    signs,
)
from distill.resumes.sections import LINE, ResumeSection

__all__ = ["cells_of", "patterns", "personal_cells"]

_DISTRICTS = rf"(?:{PROVINCE} (?:[가-힣]{{1,5}}[시군구] ){{0,2}}|(?:[가-힣]{{1,5}}[시군구] ){{1,2}})"
_BUILDING = (
    r"(?:,? ?(?:\(?[가-힣A-Za-z\d]{1,15}(?:아파트|빌라|빌딩|오피스텔|타워|맨션|주택|단지|캐슬|자이|힐스테이트|푸르지오)\)?|\d{1,4}-\d{2,4}(?!\d)|[A-Z\d]{1,4}동(?![가-힣])|B?\d{1,4}호|(?:지하 ?)?\d{1,3}층|\([가-힣\d, ]{2,20}\))){0,6}"
    r"(?:(?:,? [가-힣A-Za-z\d]{1,12}){1,3}?,? (?:[A-Z\d]{1,4}동 ?)?B?\d{1,4}호)?"  # a building of any name, where a flat follows
)
_LATIN = "A-Za-z\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u024f\u1e00-\u1eff"  # an address may have letters with marks
_UNIT = r"(?:,? (?:(?:Apt|Apartment|Unit|Suite|Ste|Flat|Lot|Room|Rm|Floor|Fl|Bldg|No)\.? ?|# ?)[\w-]{1,6})"
_ZIP = r"(?:[A-Z]{2} \d{5}(?:-\d{4})?|[A-Z]{1,2}\d[A-Z\d]? ?\d[A-Z]{2}|\d{4,6})"
_STREET = "Street|St|Avenue|Ave|Road|Rd|Boulevard|Blvd|Drive|Dr|Lane|Ln|Court|Ct|Terrace|Place|Pl|Way|Square|Sq|Parkway|Pkwy|Crescent|Close|Highway|Hwy|Circle|Trail|Row|Gardens|Mews"
_HOSTS = (
    r"(?:[\w-]{1,40}\.(?:github\.io|tistory\.com|notion\.site|wordpress\.com|blogspot\.com|medium\.com|wixsite\.com|netlify\.app|vercel\.app|carrd\.co|myportfolio\.com)"
    r"|(?:[a-z]{2,3}\.)?(?:github\.com|gitlab\.com|bitbucket\.org|linkedin\.com|velog\.io|brunch\.co\.kr|blog\.naver\.com|m\.blog\.naver\.com|notion\.so|behance\.net|dribbble\.com|"
    r"instagram\.com|facebook\.com|fb\.com|twitter\.com|x\.com|threads\.net|youtube\.com|youtu\.be|tiktok\.com|medium\.com|kaggle\.com|huggingface\.co|stackoverflow\.com|"
    r"t\.me|open\.kakao\.com|pf\.kakao\.com|linktr\.ee|about\.me|orcid\.org|researchgate\.net|scholar\.google\.com|solved\.ac|artstation\.com|pinterest\.com|soundcloud\.com)(?=/))"
)
_PATTERNS: tuple[tuple[Identifier, str, str], ...] = (
    # (kind, strings of which the text must contain one (_ for a space), pattern). Some patterns start with a class of
    # characters and have their look-behind after it, so that the regex engine can skip to the next candidate.
    (
        "email",
        "@",
        rf"(?:(?<![{_LATIN}\d._%+-])[{_LATIN}\d._%+-]{{1,64}}+ ?@ ?|(?<![가-힣])[가-힣]{{2,10}}+@)(?:(?:[{_LATIN}\d-]{{1,63}}|[가-힣]{{1,20}})\.){{1,4}}(?:[{_LATIN}][{_LATIN}\d-]{{1,62}}|한국)",
    ),
    (
        "email",
        "at) at] at} @) @] 골뱅이 앳 at_) at_]",
        r"(?<![A-Za-z\d._%+-])(?:[A-Za-z\d_%+-]{1,64}+[(\[{] ?(?:dot|점) ?[)\]}]){0,3}[A-Za-z\d._%+-]{1,64}+ ?[(\[{] ?(?:at|@|골뱅이|앳) ?[)\]}] ?[A-Za-z\d-]{1,63}(?:(?: ?[(\[{] ?(?:dot|점) ?[)\]}] ?|\.)[A-Za-z\d-]{1,63}){1,4}",
    ),
    (
        "email",
        "골뱅이 앳 _at_ _AT_",
        r"(?i)(?<![A-Za-z\d._%+-])(?:[A-Za-z\d_%+-]{1,64}+ (?:점|닷|쩜|dot) ){0,3}[A-Za-z\d._%+-]{2,64}+ ?(?:골뱅이|앳|at) ?[A-Za-z\d-]{2,63}(?: ?(?:점|닷|쩜|dot) ?[A-Za-z\d-]{2,20}(?:(?: ?(?:점|닷|쩜|dot) ?|\.)[A-Za-z]{2,10}){0,2}|(?<=[a-z\d])(?<!at [a-z])\.(?:com|net|org|kr|co\.kr|io)\b)",
    ),
    ("email", "%40", r"(?<![\w.%+-])[\w.+-]{1,64}+%40[\w-]{1,63}(?:\.[\w-]{2,63}){1,4}"),
    ("phone", "O", r"01O(?<![A-Za-z\d]01O)[ .-]?\d{3,4}[ .-]?\d{4}(?!\d)"),
    (
        "phone",
        "0",
        r"(?:(?:\(\+82\)|\+82(?<![\d.-]\+82)|82(?<![\d+-]82))[ .)-]{0,2}\(?0?\)?(?:10|11|1[6-9]|2|[3-6]\d|70)[ .)-]{0,3}|(?:\(0|0(?<![\d.(-]0))(?:(?:10|11|1[6-9])(?:\)?[ .)·-]{0,3}|-\n|\n-)|2(?:\) ?| ?- ?)|(?:[3-6][1-5]|70|50\d|80)(?:\) ?| ?[-.] ?)))\d{3,4}(?: ?[ .·-]? ?|-\n|\n-)\d{4}(?!\d)",
    ),
    ("phone", "0", r"0(?<![\d.,$] 0)(?<!\d0)(?: 1 [016-9]| ?1[016-9]) ?- ?\d(?: ?\d){2,3} ?- ?\d(?: ?\d){3}(?! ?\d)"),
    ("phone", "/", r"01[016-9](?<![\d/.]01\d)/\d{3,4}/\d{4}(?![\d/])"),
    ("phone", "+", r"(?:\(\+\d{1,3}\)|\+(?<!\w\+)\d{1,3})[ .()-]{0,3}\d[\d ().-]{5,18}\d(?!\d)"),
    (
        "phone",
        "",
        r"(?:\(\d{3}\) ?|\d{3}(?<![\d.-]\d{3})[-.]|1(?<![\d.-]1)[ .-]\(?\d{3}\)?[-. ])\d{3}[-. ]\d{4}(?!\d|-\d)",
    ),
    ("phone", "공일", rf"공일{DIGIT}(?:에?[ .-]?)(?:(?:{DIGIT}|\d)(?:에? |[.-])?){{6,8}}(?<![ .-])"),
    (
        "phone",
        "call text ring reach phone",
        r"\b(?:call|text|ring|reach)(?: \w{2,8}){0,3}:? (\+?\(?\d[\d ().-]{7,18}\d)(?!\d)",
    ),
    ("phone", "0", r"0(?<![\d.,$]0)(?<!\d-0)\d{1,4}[ *~_·-]{1,2}\d{3,4}[ *~_·-]{1,2}\d{3,4}(?![\d-])"),
    (
        "resident_number",
        "",
        r"\d\d(?<!\d\d\d)(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01]) {0,2}[ -] {0,2}[1-8](?: ?[\d*xX●○•■]){6}(?![\d*])",
    ),
    (
        "resident_number",
        "-",
        r"\d\d(?<!\d\d\d)(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01]) ?- ?(?:[1-8*xX●○•■][\d*xX●○•■]{6}(?![\d*])|[1-8](?= {0,3}(?:$|[\n|,/)])))",
    ),
    (
        "resident_number",
        "",
        r"\d(?<!\d\d)(?<!\d \d)(?: \d){5} {0,2}-? {0,2}[1-8](?: [\d*xX]){6}(?! ?\d)",
    ),
    ("resident_number", "-", r"(?<![\d-])\d\d-\d\d-\d{6}-\d\d(?![\d-])"),
    ("resident_number", "-", r"\d{3}(?<![\d-]\d{3})-\d\d-\d{4}(?![\d-])"),
    (
        "birth",
        "생",
        rf"(?<!\d)(?:{YEAR_OF_BIRTH}|'?\d\d)(?:년| ?[년./-] ?\d{{1,2}} ?[월./-] ?\d{{1,2}} ?[일.]?) ?(?:출생|생(?=[입이으의,.) \n/|]|$))",
    ),
    ("birth", "생", r"(?<!\d)(?:(?:19|20)?\d\d년 ?)?\d{1,2}월 ?(?:\d{1,2}일 ?)?생(?=[입이으의,. )]|$)"),
    ("birth", "생일", r"(?<![가-힣])생일은 (?:(?:음력|양력) ?)?((?:\d{2,4}년 ?)?\d{1,2}월 ?\d{1,2}일)"),
    ("birth", "태어", r"(?<!\d)((?:19|20)\d\d년(?: [가-힣\d]{1,4}){0,2}?)(?=에 태어)"),
    ("birth", "b._", r"(?<![\w.])b\. ?(19\d\d)(?=[,;) \n]|$)"),
    (
        "birth",
        "띠",
        r"(?<!\d)(?:(?:19|20)?\d\d년 ?)?(?<![가-힣])(?:쥐|소|호랑이|범|토끼|용|뱀|말|양|원숭이|닭|개|돼지)띠(?=입니다|이며|이고|이에요|예요|이라|로 |생|,|\.|$)",
    ),
    ("birth", "born_ Born_ BORN_", rf"(?i:\bborn (?:on |in )?(?:the )?(?:{ENGLISH_DATE}|\d{{4}}))"),
    (
        "age",
        "세 살",
        r"(?:올해|현재|지금|저는|나는|본인은|지원자는|제 나이는?) ?(?:만 ?)?[1-7]\d ?(?:세|살)(?! ?(?:이상|이하|미만|부터|까지|반))",
    ),
    ("age", "세 살", r"(?<![\d.])(?:만 ?)?[1-7]\d ?(?:세|살)(?=입니다|이며|이고|의 나이)"),
    (
        "age",
        "세",
        r"(?<![\d.가-힣])만 ?[1-7]\d ?세(?= (?!이상|이하|미만|부터|까지|유아|아동|청소년|어린이|환자|고객|대상)[가-힣]{2,8}(?:입니다|이며|이고|예요|이에요))",
    ),
    ("age", "(", r"(?<=\()(?:만 ?)?[1-7]\d ?(?:세|살)(?=[), /])"),
    (
        "age",
        "성 자",
        r"(?<![\d.])(?:만 ?)?[1-7]\d ?(?:세|살)(?=(?:의|인)? ?(?:남성|여성|남자|여자)(?:입니다|으로|이며|이고|이다))",
    ),
    (
        "age",
        "세 살",
        r"(?<![\d.])(?:만 ?)?[2-7]\d ?(?:세|살)(?:의)? ?(?=(?:남성|여성|남자|여자) (?!환자|고객|회원|이용|어르신|대상|근로|청소년|직원)[가-힣])",
    ),
    ("age", "만", r"(?<=[(,/ ])만 ?[1-7]\d(?=[),/\n]|$)"),
    (
        "age",
        "대",
        r"(?:저는|나는|제가|이제|벌써|어느덧) ([2-7]0대(?: ?(?:초반|중반|후반))?)(?=의|인|입니다|이|지만|로|가)|(?<![\d가-힣])[2-7]0대 ?(?:초반|중반|후반)?(?=(?:의|인)? ?(?:가장|구직자|주부|지원자|신입|입니다))",
    ),
    (
        "age",
        "/남 /여 /M /F ,남 ,여 /_",
        r"(?<![\d.])[2-7]\d(?= ?[/·,] ?(?:남|여|M|F)(?:성|자|ale|emale)?(?:[,/)\s]|$))",
    ),
    ("age", "남, 여, 자, 성,", r"(?<![가-힣])(?:남|여)(?:자|성)?, ?([2-7]\d)(?=[,\s]|$)"),
    (
        "age",
        "ged_ twenties thirties forties fifties sixties",
        r"\b(?i:aged) ([2-7]\d)(?![\d-]| (?:to|and|or)\b)|\bmy (?:early|mid|late)[- ](?:twenties|thirties|forties|fifties|sixties)\b",
    ),
    (
        "age",
        "나이",
        rf"(?<![가-힣])(?:만|세는|한국)? ?나이(?:는|가|로)? ?(?:만 )?(\d\d|{AGE_IN_WORDS})(?=[ ,.세살이입]|$)",
    ),
    ("age", "예순 쉰 마흔 서른 일흔", rf"(?<![가-힣]){AGE_IN_WORDS}(?=을 (?:바라|앞|넘)|이 (?:다 )?(?:되|넘)|에 접어)"),
    ("age", "스물 서른 마흔 쉰 예순 일흔", rf"(?<![가-힣]){AGE_IN_WORDS} ?(?:살|세)(?! ?(?:이상|이하|미만|부터|까지))"),
    (
        "age",
        "십",
        r"(?<![가-힣])(?:올해|이제|저는|현재|벌써|만)(?: 만)? ((?:이|삼|사|오|육|칠)십[일이삼사오육칠팔구]?(?:세| 세| 살)?)(?=입니다|이 |에 |을 |의 |이며|이고|,|\.)",
    ),
    (
        "age",
        "스물 서른 마흔 쉰 예순 일흔",
        rf"(?<![가-힣])(?:올해로?|이제|저는|나이는?|현재|벌써) ?({AGE_IN_WORDS}(?: ?(?:초반|중반|후반))?)(?=[이입인의에,.]|$)",
    ),
    (
        "age",
        "스물 서른 마흔 쉰 예순 일흔",
        rf"(?<![가-힣]){AGE_IN_WORDS}(?=입니다|이에요|예요|이고 |이며 |이 (?:되|넘)|을 넘)",
    ),
    ("age", "years_old year-old year_old years-old", rf"(?:\bI am|\bI'm|[,(]) ?{ENGLISH_AGE}[ -]years?[ -]old"),
    (
        "age",
        "-year-old -years-old",
        rf"\b(?:[Aa]n?|[Aa]s an?) ({ENGLISH_AGE}-years?-old)(?! (?:company|firm|brand|building|bridge|plant|code|system|patient|client|customer|tradition|business|house|bank|church|ship|school|hospital|child|boy|girl|student|record|data|[\w-]{{1,15}} (?:company|system|codebase|patient)))",
    ),
    (
        "age",
        "turn At_ age_of",
        rf"\bI (?:just |recently )?(?:turned|turn) ({ENGLISH_AGE})\b|\bAt (?:the age of )?({ENGLISH_AGE})(?=,? I\b)|\bI am ({ENGLISH_AGE})(?=[,.;]| and\b)",
    ),
    (
        "gender",
        "저는 나는 본인은 지원자는",
        r"(?:저는|나는|본인은|지원자는) [^.\n]{0,30}?(남자|여자|남성|여성)(?=입니다|이며|이고|으로|이다)",
    ),
    (
        "gender",
        "저는 나는 본인은 지원자는",
        r"(?:저는|나는|본인은|지원자는) [^.\n]{0,30}?(남자|여자|남성|여성)(?= [가-힣]{1,8}(?:입니다|이며|이고|으로|이다|예요|이에요))",
    ),
    (
        "gender",
        "세 살",
        r"(?<=[세살] )(?:남성|여성|남자|여자)(?= (?!환자|고객|회원|이용|어르신|대상|근로|청소년|직원)[가-힣]{1,8}(?:입니다|이며|이고|이다))",
    ),
    ("gender", "s_a_woman s_a_man s_a_female s_a_male", r"\b[Aa]s a (woman|man|female|male)\b(?! (?:of|named|and))"),
    ("gender", "he/ they/", r"(?i:\b(?:she|he|they)/(?:her|him|them)(?:/(?:hers|his|theirs))?\b)"),
    ("gender", "I_am_a", r"\bI am an? (?:\w{1,12} )?(?:man|woman|male|female)\b"),
    (
        "family",
        "남",
        r"\d남 ?\d녀(?: ?중)?(?: ?(?:장남|장녀|차남|차녀|막내(?:딸|아들)?|외동(?:딸|아들)?|첫째|둘째|셋째|넷째|맏이))?",
    ),
    (
        "family",
        "독녀 독자 외동 외아들 장남 차남 장녀 차녀 막내",
        r"(?<![가-힣])(?:무남독녀|독자|외동딸|외동아들|외아들|장남|차남|장녀|차녀|막내(?:딸|아들)?)(?=로 |으로 |입니다|이며|이고)",
    ),
    (
        "family",
        "결혼",
        r"(?<![가-힣])결혼(?:하여|해서|하고|했|하였)(?:[가-힣]{0,3} [가-힣\d]{1,3} ?(?:아이|자녀|딸|아들|남매|형제))?",
    ),
    (
        "family",
        "아이 자녀 남매 딸 아들",
        r"(?<![가-힣])(?:한|두|세|네|\d) ?(?:아이|자녀|남매|딸|아들)[를을가이] (?:있|키우|둔(?= (?:남성|여성|남자|여자))|둔 (?:엄마|아빠|가장|주부)|두고|키운|기르)",
    ),
    ("family", "혼", r"(?<![가-힣])(?:미혼|기혼)(?:자|남|녀)?(?=입니다|이며|이고|으로 )"),
    (
        "family",
        "엄마 아빠 어머니 아버지 부모",
        r"(?<![가-힣])(?:두|세|네|\d) ?(?:아이|자녀|남매|형제|딸|아들)의 (?:엄마|아빠|어머니|아버지|부모)",
    ),
    (
        "family",
        "married single divorced widowed engaged",
        r"\b(?:I am|I'm) (?:happily |currently )?(?:married|single|divorced|widowed|engaged)(?: (?:with|to|and have) [^.,\n]{1,40}| and (?:have|a (?:mother|father)) [^.,\n]{1,40})?",
    ),
    (
        "family",
        "남매 형제 자매",
        r"(?<![가-힣])(?:(?:\d|[한두세네오육칠삼])? ?(?:남매|형제(?:자매)?|자매)) 중 (?:첫째|둘째|셋째|넷째|다섯째|막내|맏이|장남|장녀|차남|차녀)",
    ),
    (
        "family",
        "누나 형 오빠 언니 동생 아이 자녀 딸 아들 쌍둥이 손주",
        r"(?<![가-힣])(?:누나|형|오빠|언니|(?:남|여)?동생|아이|자녀|딸|아들|쌍둥이|손주)(?:가|이|는|은|도|만)? ?(?:(?:[한두세네셋넷둘\d]|하나) ?(?:명|살)?(?: 있|인 집)|초등학생|중학생|고등학생|유치원생|어려|어리|돌이)",
    ),
    (
        "family",
        "워킹 싱글 돌싱 맞벌이",
        r"(?<![가-힣])(?:워킹|싱글)(?:맘|대디)|돌싱|맞벌이(?= (?:부부|가정)(?:이|라|입))",
    ),
    (
        "family",
        "I_have_ artner_and",
        r"\bI have (?:an? |one |two |three |four |five |\d )(?:young |small |grown |teenage |little )?(?:wife|husband|partner|sons?|daughters?|child|children|kids?|boys?|girls?|brothers?|sisters?|siblings)\b[^.,;\n]{0,40}|\b[Pp]artner and (?:\w{2,6} )?(?:kids|children|sons|daughters)",
    ),
    (
        "family",
        "divorced widowed married engaged",
        r"\b(?i:recently|newly|happily|just) (?:divorced|widowed|married|engaged)\b",
    ),
    (
        "family",
        "슬하 홀어 편모 편부 밑에서 손에",
        r"(?<![가-힣])(?:(?:홀|편)(?:어머니|아버지|모|부)|조부모님?|할머니|할아버지)(?: ?(?:슬하|밑|손))(?:의|에서|에)?(?: ?(?:자라|자란|자랐))?(?: ?(?:외동딸|외동아들|외아들|장남|장녀))?",
    ),
    (
        "family",
        "부) 모) 父) 母) 자) 내) 편) 형) 나) 빠) 니) 생) wife) WIFE) Wife) husband) mother) father) Husband) Mother) Father)",
        r"(?<=[\d가-힣A-Za-z]) ?\((?:관계 ?: ?)?((?i:부|모|父|母|배우자|아내|남편|형|누나|오빠|언니|동생|wife|husband|mother|father|uncle|aunt|brother|sister|son|daughter|spouse|parent))\)(?=[ \t]{0,9}(?:$|[\n|,/)]))",
    ),
    (
        "family",
        "mom mum mother father dad parent",
        r"\b(?:I am|I'm|[Aa]s) an? ((?:single |working |stay-at-home |proud |full-time )?(?:mother|father|mom|mum|dad|parent))\b",
    ),
    (
        "family",
        "_of_",
        r"\b(?:a )?(?:single )?(?:mother|father|mom|mum|dad|parent) of (?:two|three|four|five|one|twins|\d)(?: (?:children|kids|boys|girls|sons|daughters))?",
    ),
    (
        "address",
        "로 길 동 리 가",
        rf"(?<![가-힣]){_DISTRICTS}(?:[가-힣]{{1,6}}[읍면] )?(?:[가-힣\d]{{1,12}}?(?:대로|로|길)(?: ?\d{{1,4}}번?[가-다]?길)?|[가-힣\d]{{1,8}}?[동리가](?: ?산)?) ?\d{{1,4}}(?:-\d{{1,4}})?(?:번지)?(?![\d년월%명개건회차층세]){_BUILDING}",
    ),
    (
        "address",
        "주소 본가 거주지 사는_곳 사는곳",
        rf"(?<![가-힣])(?:주소지?|집 ?주소|본가|거주지|사는 ?곳)(?:은|는) ((?:{PLACE}|[가-힣]{{2,6}} [가-힣\d]{{1,6}}[읍면동리])(?: [가-힣\d-]{{1,10}}){{0,4}}?)(?=입니다|이고|이며|이에요|예요|이라|,|\.|$)",
    ),
    (
        "address",
        "",
        r"(?<![\w,.-])(?:[A-Z#\d][\w.'/#-]{0,20}(?: [A-Z\d#][\w.'/#-]{0,20}){0,4}, ?){1,5}(?:[A-Z][\w'-]{1,20} ){0,2}(?:[A-Z]{1,2}\d[A-Z\d]? ?\d[A-Z]{2}|[A-Z]\d[A-Z] ?\d[A-Z]\d|(?:Singapore|India) \d{6})\b",
    ),
    (
        "address",
        "호",
        r"(?<![가-힣])[가-힣\d]{2,10}(?:대로|로|길)(?: ?\d{1,4}번?길)? ?\d{1,4}(?:-\d{1,4})?,?(?: [가-힣A-Za-z\d]{1,12}){0,3}? ?B?\d{1,4}호(?![가-힣])",
    ),
    ("address", "역_", r"(?<![가-힣])([가-힣]{2,10}역) (?:근처|인근|앞)(?=에 (?:삽니다|살|거주))"),
    (
        "address",
        "자취 사는 거주 살아 살며 출퇴근 살고",
        rf"(?<![가-힣])(?:{PLACE}|[가-힣]{{2,6}} [가-힣\d]{{1,6}}[읍면동])(?=에서 (?:자취|거주|하숙|출퇴근)|에 (?:거주|살아|살며|살고)|(?: |에 )사는 )",
    ),
    (
        "address",
        "집은 집이 자택은 집도",
        r"(?<![가-힣])(?:저희 |제 )?(?:집[은이도]|자택은) ((?:[가-힣]{2,8} ){0,2}[가-힣\d]{2,8}?)(?=이라서?|라서|입니다|이고|이며|이에요|예요|에서|에 있|근처|쪽)",
    ),
    (
        "address",
        "-gu -dong -ro -gil -daero",
        r"(?<![\w-])(?:\d[\d-]{0,8},? )?(?:[A-Z][\w-]{1,20},? ){0,3}[A-Z][a-z\d]{1,20}-(?:gu|dong|ro|gil|daero|eup|myeon)\b(?:,? (?:[A-Z][\w-]{1,20}|\d[\d-]{0,8})){0,6}",
    ),
    ("address", "(0 (1 (2 (3 (4 (5 (6", rf"\(\d{{5}}\)(?= ?{PROVINCE})"),
    (
        "address",
        "거주 살고 삽니다 사는",
        rf"(?<![가-힣])(?:{PROVINCE}(?: [가-힣]{{1,5}}[시군구]){{0,2}}|[가-힣]{{1,5}}[시군구](?: [가-힣]{{1,5}}구)?)(?: [가-힣\d]{{1,8}}[읍면동])?(?=에? ?거주|에 ?살고|에 삽니다|에 사는)",
    ),
    (
        "address",
        _STREET.replace("|", " "),
        rf"\d(?<![\d.,$]\d)\d{{0,5}}[A-Za-z]? (?:[NSEW]\.? )?(?:(?:[A-Z][\w.'-]{{0,20}}+|\d{{1,3}}(?:st|nd|rd|th)) ){{1,4}}(?:{_STREET})\b\.?{_UNIT}?(?:(?:,? [A-Z][\w.'-]{{0,20}}(?: [A-Z][\w.'-]{{0,20}}){{0,2}}){{0,3}}?,? (?:[A-Z]{{2}} )?(?:{_ZIP}|[A-Z]\d[A-Z] ?\d[A-Z]\d)\b(?:, (?:{COUNTRY}))?|(?:,? [A-Z][A-Za-z'-]{{1,20}}(?: [A-Z][a-z]{{1,20}}){{0,2}})?(?:,? [A-Z]{{2}}\b)?)",
    ),
    (
        "address",
        "Box",
        rf"\bP\.? ?O\.? Box \d{{1,6}}(?:(?:, [A-Z][\w'-]{{1,20}}(?: [A-Z][\w'-]{{1,20}}){{0,2}})?,? {_ZIP}\b)?",
    ),
    ("address", "", r"[A-Z](?<!\w\w)[a-z]{1,20}(?: [A-Z][a-z]{1,20}){0,2},? [A-Z]{2} \d{5}(?:-\d{4})?\b"),
    ("address", "", r"[A-Z](?<!\w\w)[A-Z]?\d[A-Z\d]? \d[A-Z]{2}\b"),
    (
        "address",
        "_in_ of_",
        r"(?:\b(?:I (?:now |currently )?live|I am living|I'm living|[Rr]esiding|[Cc]urrently|[Ll]ives|I am based|I'm based) in|\b[Rr]esident of|(?m:^)[Bb]ased in) [A-Z][\w.'-]{1,20}(?:,? [A-Z][\w.'-]{1,20}){0,3}",
    ),
    (
        "link",
        "com/ .io kr/ me/ be/ co/ so/ .site .app ee/ net/ org/ ac/ tistory.com .wordpress .blogspot .wixsite .medium .myportfolio .carrd",
        rf"(?<![\w@./-])(?:https?://)?(?:www\.)?{_HOSTS}(?:[^\s)\]>,|\"'가-힣]|(?<=/)[가-힣]{{2,6}}){{0,200}}",
    ),
    (
        "link",
        "카톡 카카오 텔레 라인 인스타 위챗 아이디 디스코드 트위터 깃허브 깃헙 블로그",
        r"(?<![가-힣])(?:카카오톡?|카톡|텔레그램|라인|인스타(?:그램)?|위챗|디스코드|트위터|깃허브|깃헙|블로그)(?: ?(?:id|ID|아이디|계정))?(?:은|는|:)? ?((?:(?<=은 )|(?<=는 )|(?<=디 )|(?<=정 )|(?<=: )|(?=@|[A-Za-z.]*[\d_]))@?[A-Za-z][\w.-]{2,30})(?=[ ,.)\n]|입니다|이에요|예요|$)",
    ),
    ("link", "-", r"(?<![\d-])\d{4}-\d{4}-\d{4}-\d{3}[\dX](?![\d-])"),
    ("link", "live:", r"\blive:[\w.-]{3,40}"),
    ("link", "in/", r"(?<![\w/.])in/[A-Za-z][\w-]{3,60}(?![\w/])"),
    ("origin", "고향", r"고향은 ?[가-힣]{2,8}?(?: [가-힣]{1,6})?(?=입니다|이며|이고|으로|[,. ])"),
    ("origin", "고향", rf"(?<![가-힣])(?:{PLACE}|{PROVINCE} [가-힣]{{1,5}}|[가-힣]{{2,4}})(?=[이가] 고향)"),
    ("origin", "토박이 태생 출생", rf"(?<![가-힣])(?:{PROVINCE}|{CITY})(?: [가-힣]{{1,5}})? ?(?:토박이|태생|출생)"),
    (
        "origin",
        "aised_in rew_up_in",
        r"(?:\b[Rr]aised|\b[Gg]rew up) in (?:rural |small-town )?([A-Z][\w.'-]{1,20}(?:,? [A-Z][\w.'-]{1,20}){0,2})",
    ),
    ("origin", "ative_of", r"\b[Nn]ative of ([A-Z][\w.'-]{1,20}(?:,? [A-Z][\w.'-]{1,20}){0,2})"),
    (
        "origin",
        "나고 자랐 자라",
        rf"(?<![가-힣])((?:{PROVINCE}|{CITY})(?: [가-힣]{{1,5}}){{0,2}}|{PLACE})(?=에서 (?:나고|나서|자라|자랐))",
    ),
    ("origin", "태어", r"(?<![가-힣])[가-힣]{2,10}(?: [가-힣]{1,5}[시군구읍면동리])?에서 ?(?=태어)"),
    ("origin", "출신", rf"(?<![가-힣]){PROVINCE}(?: [가-힣]{{1,5}})? ?출신(?=[으입이의 ,.]|$)"),
    (
        "origin",
        "_in_",
        r"\b(?:born|raised|grew up|born and raised) in [A-Z][\w.'-]{1,20}(?:,? [A-Z][\w.'-]{1,20}){0,2}",
    ),
    (
        "body",
        "키 신장",
        r"(?<![가-힣])(?:키|신장)(?:는|은|가|이)? ?(?:약 )?1[3-9]\d(?:\.\d)? ?(?:cm|센티미터|센티|㎝)?+(?!\d|[가-힣](?<![이입인]))(?! ?(?:이상|이하|미만|내외|급|짜리|모델))",
    ),
    (
        "body",
        "체중 몸무게",
        r"(?<![가-힣])(?:체중|몸무게)(?:는|은|가|이)? ?(?:약 )?\d{2,3}(?:\.\d)? ?(?:kg|킬로|㎏|(?=이고|입니다|이며|,))",
    ),
    ("religion", "세례명 법명", r"(?:세례명|법명)(?:은|:)? ?[가-힣]{2,5}?(?=입니다|이고|이며|,|\.|\n|$)"),
    ("religion", "교회 성당 절에", r"(?<![가-힣])(?:교회|성당|절)(?:에|를|을) (?:나가|다니|다녀|섬기)"),
    (
        "religion",
        "종교",
        r"(?<![가-힣])종교(?:는|가) ?(?:없|[가-힣]{2,5})(?=입니다|이고|이며|이에요|예요|습니다|어요|,|\.)",
    ),
    ("religion", "교", r"(?:독실한 )?(?:기독교|천주교|불교|원불교|이슬람교)(?: ?신자|인)(?=[입이로 ,.]|$)"),
    (
        "photo",
        "사진 hoto <img ![ data:",
        r"[\[(<] ?(?:증명 ?)?사진(?: ?첨부| ?부착)? ?[\])>]|(?i:\[ ?photo(?:graph)? ?\])|<img[^>\n]{0,300}>|!\[[^\]\n]{0,80}\]\([^)\n]{1,300}\)|data:image/[a-z+]{1,10};base64,[A-Za-z\d+/=]++",
    ),
    ("photo", "사진", r"(?m:^ {0,8}(?:증명 ?)?사진(?: ?첨부| ?부착)? {0,8}$)"),
)


_COMPILED = tuple((kind, signs(words), re.compile(pattern)) for kind, words, pattern in _PATTERNS)
_RELATIVE_SPEAKS = re.compile(
    r"(?:저희|우리|제) (?:집|집안|가족|가정)(?:은|는|이|에서)|(?:아버지|어머니|아버님|어머님|부친|모친)(?:께서|은|는|이|가|의(?! ?(?:날|교실|학교|마음))|와|과|를|을| 밑| 아래|,)|부모님(?:께서|은|는|이|가|의 (?:직업|사업|가르침|영향)| 밑| 아래)"
    r"|(?:제|저의|저희) (?:부모님|남편|아내|배우자|형|누나|동생|오빠|언니|자녀|아들|딸)(?:[은는이가의과와]|께서)|(?<![가-힣])(?:남편|아내)(?:은|는|이|가|와|과)"
    r"|\b[Mm]y (?:late )?(?:father|mother|parents|husband|wife|spouse|son|daughter|children|brother|sister|dad|mom|mum|kids|fiancée?)\b"
)
_RELATIVE_SIGNS = signs("아버 어머 부친 모친 부모님 제_ 저의_ 저희_ 우리_ 남편 아내 my_ My_")
_SENTENCE_END = ".!?\n"
_MAX_SENTENCE = 200


def patterns(plain: str) -> Iterator[Span]:
    """Yield identifiers that have a typical form or phrase."""
    for kind, words, pattern in _COMPILED:
        if any(sign in plain for sign in words):
            yield from ((*match.span(match.lastindex or 0), kind) for match in pattern.finditer(plain))
    position = 0
    speaking = any(sign in plain for sign in _RELATIVE_SIGNS)
    for match in _RELATIVE_SPEAKS.finditer(plain) if speaking else ():  # the whole sentence is about the family
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


_CELLS = re.compile(r"[^|/,·∙•;\t()\n]++")
_PERSONAL_CELLS: tuple[tuple[Identifier, re.Pattern[str]], ...] = (
    ("gender", re.compile(r"남(?:성|자)?|여(?:성|자)?|[Mm]ale|[Ff]emale|M|F")),
    ("age", re.compile(r"(?:만 ?)?[1-7]\d ?(?:세|살)|[Aa]ge:? [1-7]\d|[1-7]\d years old|만 ?[1-7]\d")),
    (
        "birth",
        re.compile(
            rf"(?:19|20)\d\d[.-] ?\d{{1,2}}[.-] ?\d{{1,2}}\.?|(?:19[4-9]\d|200\d)(?:년)?|{ENGLISH_DATE}", re.IGNORECASE
        ),
    ),
    (
        "address",
        re.compile(
            rf"(?:{PROVINCE}|{CITY})(?: [가-힣]{{2,3}}|(?: [가-힣\d]{{1,6}}[시군구읍면동리가]){{1,3}})?|(?!(?:제품|상품|고객|직업|직무|업종)군)[가-힣]{{2}}[시군구]|[가-힣]{{1,5}}[시군구](?: [가-힣\d]{{1,6}}[구읍면동리가]){{1,2}}|[A-Z][\w'. -]{{1,30}}, ?(?:{STATE}|{COUNTRY})"
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
    (
        "address",
        re.compile(
            rf"\b[A-Z][a-z]{{1,20}}(?: [A-Z][a-z]{{1,20}}){{0,2}}, (?:[A-Z]{{2}}|{STATE}|{COUNTRY})(?= *(?:$|[-|\n·]))",
            re.MULTILINE,
        ),
    ),
    ("phone", re.compile(r"(?<![\d-])\(?\d{3}\)?[ .-]\d{3}[ .-]\d{4}(?![\d-])")),
    ("birth", re.compile(rf"(?<![\d.]){YEAR_OF_BIRTH}[.-] ?\d{{1,2}}[.-] ?\d{{1,2}}(?!\d|[ ]?[-~])")),
    (
        "address",
        re.compile(r"\b(?:Greater )?[A-Z][a-z]{2,20}(?: [A-Z][a-z]{2,20}){0,2} (?:(?:Bay|Metropolitan|Metro) )?Area\b"),
    ),
    ("body", re.compile(r"1[3-9]\d ?cm ?[/,]? ?\d{2,3} ?kg")),
    ("link", re.compile(r"(?<![\w@.])@[A-Za-z][\w.-]{2,29}(?![\w@])")),
)
_MAX_CELL = 40
_DECORATION = re.compile(r"^[^\w@(+]+")
_FAMILY_HEADING = re.compile(r"가족|family", re.IGNORECASE)


def personal_cells(plain: str, personal: Sequence[ResumeSection]) -> Iterator[Span]:
    """Yield texts that are identifiers only in personal data: "여", "29세", "서울 강남구"."""
    for section in personal:
        row = plain[section.start : section.start + len(section.heading) + 3]
        is_table = "|" in row or "\t" in row  # the rows below are of other kinds
        if _FAMILY_HEADING.search(section.heading) and section.text and not is_table:
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
        yield from cells_of(plain, section.start, section.end)


def cells_of(plain: str, start: int, end: int) -> Iterator[Span]:
    """Yield cells that consist of an identifier, in lines that are not running text."""
    lines = [line for line in LINE.finditer(plain, start, end) if is_form(line[0])]
    for cell in (cell for line in lines for cell in _CELLS.finditer(plain, *line.span())):
        bare = _DECORATION.sub("", cell[0]).strip()
        if not 0 < len(bare) <= _MAX_CELL:
            continue
        at = cell.start() + cell[0].index(bare)
        for kind, pattern in _PERSONAL_CELLS:
            if pattern.fullmatch(bare):
                yield at, at + len(bare), kind
