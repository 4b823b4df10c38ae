"""Cleaning repairs what scanning broke and loses nothing that was written."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipit_lib.data.reports import RULES, clean
from clipit_lib.errors import ClipItError

DEFAULT = ("control", "hyphenation", "spacing")
# Words and marks that the rules look for, so that they meet in every order.
PIECES = st.sampled_from(
    [
        "tumor", "free", "carcino", "ma", "low", "grade", "and", "I", "1", "5", "cm", "TUMOR", "a",
        "\u00e9t\u00e9", " ", "  ", "\n", "\r\n", "\t", "-", " -", "- ", "-\n", ".", ",", ":", ";",
        "(", ")", "[", "]", "%", "_", "...", "----", "\u2610", "|", "/", "\u00ad", "\ufeff",
        "\u200b", "\ufffd", "\x00", "\x0c", "\x85", "\u2028", "\u00a0",
    ]
)  # fmt: skip
texts = st.one_of(st.text(max_size=60), st.lists(PIECES, max_size=14).map("".join))
chosen = st.lists(st.sampled_from(sorted(RULES)), max_size=4)


def written(text: str) -> str:
    """Letters and digits in order."""
    return "".join(character for character in text if character.isalnum())


@given(texts, chosen)
@settings(max_examples=100, deadline=None)
def test_no_letter_or_digit_is_ever_lost(text: str, rules: list[str]) -> None:
    assert written(clean(text, rules)) == written(text)


def test_what_the_released_code_deletes_is_kept() -> None:
    text = "III | 1 invasion in 1 of 11 nodes | i"
    assert clean(text, sorted(RULES)) == text


@given(texts, chosen)
@settings(max_examples=300, deadline=None)
def test_cleaning_twice_changes_nothing(text: str, rules: list[str]) -> None:
    once = clean(text, rules)
    assert clean(once, rules) == once


@pytest.mark.parametrize("rule", sorted(RULES))
@given(text=texts)
@settings(max_examples=100, deadline=None)
def test_each_rule_is_idempotent_by_itself(rule: str, text: str) -> None:
    once = RULES[rule](text)
    assert RULES[rule](once) == once


@pytest.mark.parametrize(
    ("raw", "repaired"),
    [
        ("carcino- ma", "carcinoma"),
        ("CARCINO- MA", "CARCINOMA"),
        ("ident - ified", "identified"),
        ("infil-\ntrating glands", "infiltrating glands"),
        ("tumor -free margins", "tumor-free margins"),
        ("Tumor - free", "Tumor-free"),
        ("low -grade and high- grade", "low-grade and high-grade"),
        ("tan- pink- white", "tan-pink-white"),
        ("non- small cell", "non-small cell"),
        ("Non- lymph node", "Non-lymph node"),
        ("tumor-\nfree", "tumor-free"),
        ("pre- and postoperative", "pre- and postoperative"),
        ("low- to moderate- grade", "low- to moderate-grade"),
        ("LN - lymph node", "LN - lymph node"),
        ("margin of resection - FREE", "margin of resection - FREE"),
        ("Astler - Coller", "Astler - Coller"),
        ("invasion -not identified", "invasion -not identified"),
        ("A4- A7", "A4- A7"),
    ],
)
def test_hyphenation(raw: str, repaired: str) -> None:
    assert RULES["hyphenation"](raw) == repaired


@pytest.mark.parametrize(
    ("raw", "repaired"),
    [
        ("  two   words ", "two words"),
        ("( n = 3 )", "(n = 3)"),
        ("colon ,cecum , ileum .", "colon, cecum, ileum."),
        ("Site :Splenic", "Site: Splenic"),
        ("9.0 x 2 .5cm", "9.0 x 2.5cm"),
        ("a .5 share", "a .5 share"),
        ("pT3, pN0 (0/18)", "pT3, pN0 (0/18)"),
        ("line\nbreak", "line break"),
    ],
)
def test_spacing(raw: str, repaired: str) -> None:
    assert RULES["spacing"](raw) == repaired


def test_control() -> None:
    assert RULES["control"]("\ufeffcar\u00adci\u200bnoma") == "carcinoma"
    assert RULES["control"]("page\x0cbreak\ufffd") == "page break "
    assert RULES["control"]("kept\n\ttoo\r\n") == "kept\n\ttoo\n"


def test_form_drops_what_is_empty_and_keeps_what_is_marked() -> None:
    raw = "\u2610 No \u2612 Yes [ ] Unknown [x] Focal ( ) ...... _____"
    assert clean(raw, ["form", "spacing"]) == "No \u2612 Yes Unknown [x] Focal"


def test_rules_are_applied_in_one_order() -> None:
    raw = "tumor \u2610-free ,\x00 end"
    assert clean(raw, ["spacing", "form", "control", "hyphenation"]) == "tumor-free, end"
    assert clean(raw, []) == raw


def test_an_unknown_rule_lists_the_known() -> None:
    with pytest.raises(ClipItError) as caught:
        clean("text", ["spelling"])
    assert str(caught.value) == (
        "cleaning: unknown rule 'spelling'. Known: control, form, hyphenation, spacing"
    )
