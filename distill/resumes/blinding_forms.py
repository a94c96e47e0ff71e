"""Patterns that the rules of blinding share (dates, ages, places, relatives), and placeholders for removed text."""

from typing import Literal

from distill.resumes.section_content import SENTENCE

__all__ = [
    "AGE_IN_WORDS",
    "CITY",
    "COUNTRY",
    "DIGIT",
    "ENGLISH_AGE",
    "ENGLISH_DATE",
    "KOREAN_DATE",
    "PLACE",
    "PLACEHOLDERS",
    "PROVINCE",
    "RELATIVES",
    "STATE",
    "UPPER",
    "YEAR_OF_BIRTH",
    "Identifier",
    "Span",
    "is_form",
    "signs",
]

Identifier = Literal[
    "name",
    "photo",
    "birth",
    "age",
    "gender",
    "family",
    "address",
    "resident_number",
    "phone",
    "email",
    "link",
    "body",
    "origin",
    "property",
    "religion",
]
Span = tuple[int, int, Identifier]
PLACEHOLDERS: dict[Identifier, tuple[str, str]] = {  # (in a text with Hangul, in any other text)
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

YEAR_OF_BIRTH = r"(?:19[3-9]\d|20(?:0\d|1[0-2]))"  # plausible for a job applicant
KOREAN_DATE = (
    r"(?:(?:(?:19|20)|')?\d\d ?[./년-] ?\d{1,2} ?[./월-] ?\d{1,2}(?: ?일|\.(?!\d))?|(?:19|20)?\d{6}(?!\d)|(?:19|20)?\d\d년(?: ?\d{1,2}월)?|(?:19|20)\d\d|\d{1,2}월 ?\d{1,2}일)"
    r"(?: ?\(?(?:양력|음력|생|출생)\)?)?"
)
_MONTH = r"(?:jan|feb|mar|apr|may|june?|july?|aug|sept?|oct|nov|dec)[a-z]{0,6}\.?"
ENGLISH_DATE = (
    rf"(?:{_MONTH} \d{{1,2}}(?:st|nd|rd|th)?,? \d{{4}}|\d{{1,2}}(?:st|nd|rd|th)?(?: of)?[ .-]{{1,2}}{_MONTH},?[ .-]{{0,2}}\d{{2,4}}"
    rf"|\d{{1,2}}[/.-]\d{{1,2}}[/.-]\d{{2,4}}|{_MONTH} \d{{4}})"
)
AGE_IN_WORDS = "(?:스물|서른|마흔|쉰|예순|일흔)(?:하나|한|둘|두|셋|세|넷|네|다섯|여섯|일곱|여덟|아홉)?"
_UNITS = "one|two|three|four|five|six|seven|eight|nine"
ENGLISH_AGE = rf"(?:[1-7]\d|(?:eighteen|nineteen|(?:twenty|thirty|forty|fifty|sixty|seventy)(?:[- ](?:{_UNITS}))?))"
PROVINCE = (
    r"(?:서울(?:특별시|시)?|(?:부산|대구|인천|광주|대전|울산)(?:광역시|시)?|세종(?:특별자치시|시)?|경기도?|강원(?:특별자치)?도?|"
    r"(?:충청|전라|경상)[남북]도|충[남북]|전[남북]|경[남북]|전북특별자치도|제주(?:특별자치)?도?)"
)
CITY = (
    "수원|성남|의정부|안양|부천|광명|평택|동두천|안산|고양|과천|구리|남양주|오산|시흥|군포|의왕|하남|용인|파주|이천|안성|김포|화성|양주|포천|여주|춘천|원주|강릉|동해|태백|속초|삼척|청주|충주|제천|천안|공주|보령|"
    "아산|서산|논산|계룡|당진|전주|군산|익산|정읍|남원|김제|목포|여수|순천|나주|광양|포항|경주|김천|안동|구미|영주|영천|상주|문경|경산|창원|진주|통영|사천|김해|밀양|거제|양산|제주|서귀포|마산|진해"
)
STATE = (
    "Alabama|Alaska|Arizona|Arkansas|California|Colorado|Connecticut|Delaware|Florida|Georgia|Hawaii|Idaho|Illinois|Indiana|Iowa|Kansas|Kentucky|Louisiana|Maine|Maryland|Massachusetts|Michigan|Minnesota|"
    "Mississippi|Missouri|Montana|Nebraska|Nevada|New (?:Hampshire|Jersey|Mexico|York)|(?:North|South) (?:Carolina|Dakota)|Ohio|Oklahoma|Oregon|Pennsylvania|Rhode Island|Tennessee|Texas|Utah|Vermont|"
    "(?:West )?Virginia|Washington|Wisconsin|Wyoming"
)
COUNTRY = (
    "United Kingdom|UK|England|Scotland|Wales|USA|U\\.S\\.A\\.|United States|(?:South |Republic of )?Korea|Canada|Australia|New Zealand|Germany|France|Ireland|Italy|Spain|Portugal|Poland|Sweden|Norway|Denmark|Finland|"
    "Netherlands|Belgium|Switzerland|Austria|India|Pakistan|Bangladesh|Nepal|Singapore|Malaysia|Indonesia|Thailand|Japan|China|Taiwan|Vietnam|Philippines|Mongolia|Uzbekistan|Nigeria|Kenya|Ghana|South Africa|Egypt|Mexico|Brazil|Turkey"
)
PLACE = rf"(?:(?:{PROVINCE}|{CITY})(?: [가-힣]{{1,5}}[시군구]|(?: [가-힣]{{2,4}}(?=[에이])))?|[가-힣]{{1,5}}[시군구])(?: [가-힣\d]{{1,6}}[구읍면동리가])?(?: [가-힣\d]{{1,6}}[동리])?"
RELATIVES = "조부|조모|외조부|외조모|아버지|어머니|부친|모친|남편|아내|배우자|형제|자매|형|누나|오빠|언니|남동생|여동생|동생|장남|장녀|차남|차녀|아들|딸|자녀|시부모|장인|장모"
UPPER = "[A-ZÀ-ÖØ-ÞĀ-ſƠƯḀ-ỹ]"  # includes capitals with diacritics; the last ranges also contain small letters
DIGIT = "[공영일이삼사오육륙칠팔구]"  # digits as Korean words

_MAX_FORM = 120


def signs(words: str) -> tuple[str, ...]:
    """Return strings from a list of words. A pattern is only tried on a text that contains one of them.

    :param words: separated by spaces; _ stands for a space, and "" means that the pattern is always tried
    """
    return tuple(word.replace("_", " ") for word in words.split()) or ("",)


def is_form(line: str) -> bool:
    """Return whether a line consists of entries.

    In running text, a word that looks like a name or place says little.
    """
    line = line.strip()
    return len(line) <= 20 or (len(line) <= _MAX_FORM and not SENTENCE.search(line))
