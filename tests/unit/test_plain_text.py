"""Résumés in the forms that files have: rules find in each what they find in NFC, and nothing personal stays.

The sets are those of test_sections. A form is told by what each character becomes, so that what is found can be compared
character by character.
"""

import re
import unicodedata
from itertools import cycle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.resumes.blinding import blind
from distill.resumes.plain_text import plain
from distill.resumes.sections import keep_sections, split_sections
from tests.unit import test_sections
from tests.unit.test_sections import IDENTIFIERS, RESUMES, UNCHANGED, unmarked

CONTEXTS = [unmarked(context)[0] for _, context in IDENTIFIERS]
HELD_OUT = [text for text, *_ in (*test_sections.TestHeldOut.CONTEXTS, *test_sections.TestHeldOut.RESUMES)]
TEXTS = [*CONTEXTS, *HELD_OUT, *UNCHANGED, *(text for _, _, text, _ in RESUMES)]
HIDDEN = "\u200b\u200c\u200d\u2060\ufeff\u00ad\u200e"


def nfd(text):
    return [unicodedata.normalize("NFD", character) for character in text]


def zero_width(text):
    hidden = cycle(HIDDEN)
    return [character + next(hidden) for character in text]


def full_width(text):
    return [chr(ord(character) + 0xFEE0) if "!" <= character <= "~" else character for character in text]


def full_width_letters_and_digits(text):
    wide = full_width(text)
    return [w if c.isascii() and c.isalnum() else c for c, w in zip(text, wide, strict=True)]


def windows(text):
    return ["\r\n" if character == "\n" else character for character in text]


def old_mac(text):
    return ["\r" if character == "\n" else character for character in text]


def no_break_spaces(text):
    return ["\u00a0" if character == " " else character for character in text]


def marked(text):
    return ["\ufeff" + text[:1], *text[1:]] if text else []


def all_at_once(text):
    return [unicodedata.normalize("NFD", w) + "\u200b" if w != "\n" else "\r\n" for w in full_width(text)]


FORMS = [
    nfd,
    zero_width,
    full_width,
    full_width_letters_and_digits,
    windows,
    old_mac,
    no_break_spaces,
    marked,
    all_at_once,
]


def places(text, pieces, spans):
    """Return the characters of the text whose forms lie in the spans of the formed text, blanks left out, and their values."""
    of = [i for i, piece in enumerate(pieces) for _ in piece]
    return {i: value for start, end, value in spans for i in of[start:end] if not text[i].isspace()}


def taken(text, pieces):
    return places(text, pieces, [(gone.start, gone.end, gone.kind) for gone in blind("".join(pieces)).removed])


def kinds(text, pieces):
    return places(text, pieces, [(part.start, part.end, part.kind) for part in split_sections("".join(pieces))])


@pytest.fixture(scope="module")
def as_it_is():
    """What is taken and what the sections are in NFC."""
    return {text: (taken(text, list(text)), kinds(text, list(text))) for text in TEXTS}


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
class TestForms:
    @pytest.mark.integration
    def test_blinding_and_sections_are_the_same(self, form, as_it_is):
        for text in TEXTS[FORMS.index(form) % 3 :: 3]:  # each text in a third of the forms
            pieces = form(text)
            if "".join(pieces) != text:
                assert (taken(text, pieces), kinds(text, pieces)) == as_it_is[text], text

    def test_what_is_left_is_written_as_before(self, form):
        for text in CONTEXTS[::5]:
            pieces = "".join(form(text))
            blinded = blind(pieces)
            assert all(pieces[removed.start : removed.end] == removed.text for removed in blinded.removed)

    def test_kept_sections_have_the_same_kinds(self, form):
        for _, _, text, _ in RESUMES[::3]:
            assert keep_sections("".join(form(text))).found == keep_sections(text).found


LABEL = re.compile(r"(?m)(?:^|(?<=[|/,] ))([가-힣]{2,6})(?= ?[:|])")


def test_labels_set_apart_tell_the_same(as_it_is):
    """ "이 름 : 홍길동", "연 락 처 | …": every Hangul label of the sets, its letters set apart by a blank, or two."""
    n_labels = 0
    for _, context in IDENTIFIERS:
        text = unmarked(context)[0]
        for blank in (" ", "  ", "\u3000"):
            pieces = list(text)
            for match in LABEL.finditer(text):
                n_labels += 1
                for i in range(match.start(1), match.end(1) - 1):
                    pieces[i] += blank
            assert set(taken(text, pieces)) >= set(as_it_is[text][0]), text
    assert n_labels > 100


@pytest.mark.parametrize(
    ("text", "blinded"),
    [
        ("이 름 : 홍 길 동", "이 름 : [이름]"),
        ("이  름  :  홍  길  동\n연 락 처 : 010-0000-0000", "이  름  : [이름]\n연 락 처 : [전화]"),
        (
            "생 년 월 일 : 1990. 3. 4.\n주 소 : 서울특별시 강남구 테헤란로 12",
            "생 년 월 일 : [생년월일]\n주 소 : [주소]",
        ),
        ("주 민 등 록 번 호 : 900304-1234567", "주 민 등 록 번 호 : [주민번호]"),
        ("N a m e : Jane Doe", "N a m e : [NAME]"),
        ("Name: 𝐉𝐚𝐧𝐞 𝐃𝐨𝐞", "Name: [NAME]"),
        ("Name: Jane\ufeff Doe, e-mail: ｊａｎｅ＠ｅｘａｍｐｌｅ．ｃｏｍ", "Name: [NAME], e-mail: [EMAIL]"),
    ],
)
def test_by_hand(text, blinded):
    assert blind(text).text == blinded


def test_pathological_marks_take_linear_time():
    for piece in ("\u0301", "\u1161", "\u1100\u1161", "\u200b", "ﾞ", "e\u0301", "가 ", "\r"):
        assert len(plain(piece * 100_000).text) <= 100_000 * len(piece)


@given(
    st.text(st.sampled_from("가나 a\n:|\r\u200b\u1100\u1161\u11a8\u0301ﾎﾞﬁ：Ａ\u3000홍길동0-"), max_size=60)
    | st.text(max_size=60)
)
@settings(max_examples=150, deadline=None)
def test_every_span_leads_back(text):
    found = plain(text)
    assert found.boundary(len(found.text)) == len(text)
    bounds = [found.boundary(i) for i in range(len(found.text) + 1)]
    assert bounds == sorted(bounds)
    for i in range(len(found.text)):
        start, end = found.span(i, i + 1)
        assert 0 <= start < end <= len(text)
    assert "".join(text[section.start : section.end] for section in split_sections(text)) == text


def test_the_sets_are_there():
    assert len(TEXTS) > 700
