"""Repairs of scanned report text; no rule ever loses a letter or a digit."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from clipit_lib.errors import ClipItError

LETTER = r"[^\W\d_]"


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Endings that are no words of their own: before them a hyphen only marks a broken word.
ENDINGS = _words(
    "al ally ance ary atic ation ations ative cal cular ectomy ed ence ery fied gical ial ic ical "
    "ified ing ings ism ity ities ive lar lial logic logical logy ly ma mas mata ment ments ness "
    "noma nomas omy ory ous phy plasia plastic scopic scopically scopy sia sion sions tatic "
    "tatases tasis tases thelial thelium tic tion tions tomy trophy ular"
)
# Words that are joined to the next, or to the one before, with a hyphen that belongs there.
HEADS = _words(
    "anti black blue brown cross dark extra fifty follow forty full gray green grey half hemi high "
    "inter intra light low lymph mid moderate moderately neo ninety non one para peri pink poorly "
    "post pre red self semi seventy sixty eighty so sub tan thirty twenty well white yellow"
)
TAILS = _words(
    "appearing based brown circumscribed colored differentiated filled forming free grade gray "
    "inked like marked pink producing red shaped sided stained tan thickness up white yellow"
)
# "pre- and postoperative": the hyphen waits for a word further on.
SUSPENDING = _words("and or to")
BREAK = re.compile(r"(?<![A-Za-z])([A-Za-z]+)(\s+-\s*|-\s+)(?=([A-Za-z]+))")
LINE_END = re.compile(r"-[ \t]*\n[ \t]*")


def control(text: str) -> str:
    """Take out control characters, byte order marks, zero-width and replacement characters."""
    text = re.sub(r"\r\n?", "\n", text)
    text = re.sub("[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff]", "", text)
    return re.sub("[\x00-\x08\x0b-\x1f\x7f-\x9f\ufffd]", " ", text)


def form(text: str) -> str:
    """Take out what a form leaves behind: empty boxes and rows of dots or lines."""
    text = re.sub(r"([._=~*-])\1{2,}|[☐□▢◻○◯]", " ", text)
    return _until_stable(lambda part: re.sub(r"\[\s*\]|\(\s*\)", " ", part), text)


def hyphenation(text: str) -> str:
    """Join words broken at a hyphen: "carcino- ma", "tumor -free", "high- grade".

    Where neither word says whether the hyphen joins or is a dash, nothing is changed.
    """
    return _until_stable(lambda part: BREAK.sub(_join, part), text)


def spacing(text: str) -> str:
    """One space between words, none inside brackets or before punctuation."""
    text = re.sub(r"\s+", " ", text).strip()
    text = re.sub(r"(?<=[(\[]) | (?=[)\]])", "", text)
    text = re.sub(rf"(?<=[\w)\]%]) ([,.;:])(?={LETTER})", r"\1 ", text)
    text = re.sub(r"(?<=[\w)\]%]) (?=[,.;:](?!\w))", "", text)
    return re.sub(r"(?<=\d) (?=\.\d+ ?(?:cm|mm|x)\b)", "", text)


# In the order in which they are applied: each leaves nothing for those before it to do.
RULES: dict[str, Callable[[str], str]] = {
    "control": control,
    "form": form,
    "hyphenation": hyphenation,
    "spacing": spacing,
}


def clean(text: str, rules: Sequence[str]) -> str:
    """Apply the named rules, in the order of `RULES` whatever order they are named in.

    Raises:
        ClipItError: there is no such rule.
    """
    for name in rules:
        if name not in RULES:
            raise ClipItError(f"unknown rule {name!r}", "cleaning", f"Known: {', '.join(RULES)}")
    for name, rule in RULES.items():
        text = rule(text) if name in rules else text
    return text


def _join(found: re.Match[str]) -> str:
    left, gap, right = found[1].lower(), found[2], found[3].lower()
    # With spaces on both sides it is a hyphen only inside a phrase: "RESECTION - FREE" is a list.
    dash = gap[0].isspace() and gap[-1].isspace() and not found[3].islower()
    if right in SUSPENDING or len(right) == 1 or dash:
        return found[0]
    if left in HEADS or right in TAILS:
        return f"{found[1]}-"
    # A line that ends in a hyphen breaks a word, unless the words above say otherwise.
    if right in ENDINGS or (LINE_END.fullmatch(gap) and found[3].islower()):
        return found[1]
    return found[0]


def _until_stable(step: Callable[[str], str], text: str) -> str:
    while (changed := step(text)) != text:
        text = changed
    return text
