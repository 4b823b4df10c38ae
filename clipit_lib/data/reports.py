"""Reports: cleaning, corpora, class prompts, pathology terms, word dropout."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import yaml
from jaxtyping import Float, Float32, Int64

from clipit_lib import paths
from clipit_lib.data.images import image_files, passed_over, visible
from clipit_lib.errors import ClipItError
from clipit_lib.files import digest, header, named_column, read_text_table, tidy
from clipit_lib.pairing import top_k
from clipit_lib.settings import Distinct, Strict, known

# -- Repairs of scanned report text; no rule ever loses a letter or a digit.


LETTER = r"[^\W\d_]"
WORDS = yaml.safe_load(Path(__file__).with_name("words.yaml").read_text(encoding="utf-8"))
ENDINGS, HEADS, TAILS = (frozenset(WORDS[kind].split()) for kind in ("endings", "heads", "tails"))
# "pre- and postoperative": the hyphen waits for a word further on.
SUSPENDING = {"and", "or", "to"}
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
RULES = {rule.__name__: rule for rule in (control, form, hyphenation, spacing)}


def clean(text: str, rules: Sequence[str]) -> str:
    """Apply the named rules, in the order of `RULES` whatever order they are named in.

    Raises:
        ClipItError: there is no such rule.
    """
    for name in rules:
        known(name, RULES, "rule", "cleaning")
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


# -- A corpus of pathology reports, from whatever file holds them.


CLEANING = ("control", "hyphenation", "spacing")  # unless others are asked for


@dataclass(frozen=True)
class ReportCorpus:
    """Reports of one organ: unique ids, cleaned texts of which none is empty, a digest of both, and
    what was left out when they were read, for a reader.
    """

    name: str
    ids: tuple[str, ...]
    texts: tuple[str, ...]
    organ: str
    content_hash: str
    licence: str = "not stated"
    notes: str = ""

    def __len__(self) -> int:
        return len(self.texts)


class Corpus(Strict):
    """How a report corpus is declared; a kind of corpus is a subclass that can open it."""

    def open(self, name: str) -> ReportCorpus:
        """Read, clean and check the reports.

        Raises:
            ClipItError: a file is missing, not UTF-8 or of an unknown kind, a column is missing, a
                cleaning rule is unknown, or the reports are none, see `checked`.
        """
        raise NotImplementedError


# What stands where there is no report, without what is neither letter nor digit.
NOTHING = {
    "", "n a", "na", "nan", "nil", "none", "null", "empty", "missing", "pending", "tbd", "unknown",
    "unavailable", "no report", "no text",
    *(f"not {each}" for each in ("available", "applicable", "known", "provided", "reported")),
}  # fmt: skip


def says_nothing(text: str) -> bool:
    """Whether a report is a placeholder: "N/A", "-", "not available"."""
    return re.sub(r"[\W_]+", " ", text).strip().lower() in NOTHING


def checked(
    name: str, ids: Sequence[str], texts: Sequence[str], organ: str, licence: str, origin: Path,
    notes: str = "", rows: Sequence[int] = (),
) -> ReportCorpus:  # fmt: skip
    """A corpus of cleaned texts out of the file `origin`.

    Args:
        rows: where each stands in a table whose header is row 1.

    Raises:
        ClipItError: no reports, a report that is empty or none that says anything, an id that is
            missing or used twice.
    """
    if not texts:
        raise ClipItError("no reports", origin, "Add at least one report")
    for number, (each, text) in enumerate(zip(ids, texts, strict=True)):
        lacks = "is empty" if not text.strip() else "has no id" if not tidy(each) else ""
        if lacks:
            said = f"report {each}{f' in row {rows[number]}' if rows else ''} {lacks}"
            raise ClipItError(said.replace("  ", " "), origin, "Take it out or fill it in")
    if all(map(says_nothing, texts)):
        what = f"none of {len(texts)} reports says anything: {', '.join(sorted(set(texts))[:5])}"
        raise ClipItError(what, origin, "Bring reports")
    most, times = Counter(map(tidy, ids)).most_common(1)[0]
    if times > 1:
        raise ClipItError(f"{times} reports have the id {most}", origin, "Make the ids unique")
    content_hash = digest(*ids, *texts)
    return ReportCorpus(name, tuple(ids), tuple(texts), organ, content_hash, licence, notes)


# -- Reports of the user.


TEXT_COLUMNS = ("text", "report", "report_text")
ID_COLUMNS = ("id", "case_id", "patient_filename")


class FileCorpus(Corpus):
    """Reports from one text file (one a line), a csv, or a folder of text files."""

    source: Literal["file"]
    path: str
    column: str | None = None
    organ: str = "unknown"
    licence: str = "not stated"
    cleaning: Distinct[str] = CLEANING

    def open(self, name: str) -> ReportCorpus:
        path = paths.in_data(self.path)
        if not path.exists():
            raise ClipItError("no such file", path, "Fix `path` in the profile or CLIPIT_DATA")
        rows: list[int] = []
        if path.is_dir():
            files, others = image_files(path, {".txt"})
            ids = [visible(os.path.splitext(each)[0]) for each in files]
            texts, left = [_decode(path / each) for each in files], "".join(passed_over(others))
        elif path.suffix.lower() == ".txt":
            # Only "\n" ends a line, whatever else a report contains.
            texts, left = _decode(path).removesuffix("\n").split("\n"), ""
            texts = [] if texts == [""] else texts
            ids = [f"line-{number:04d}" for number in range(1, len(texts) + 1)]
        elif path.suffix.lower() == ".csv":
            ids, texts, rows, left = self._table(path)
        else:
            fix = "Use .txt, .csv or a folder of .txt files"
            raise ClipItError(f"unknown kind of file {path.suffix!r}", path, fix)
        if left:
            print(f"{path}: {left}", flush=True)
        cleaned = [clean(text, self.cleaning) for text in texts]
        return checked(name, ids, cleaned, self.organ, self.licence, path, left, rows)

    def _table(self, path: Path) -> tuple[list[str], list[str], list[int], str]:
        """Ids, texts and numbers of the rows of a table, and what was passed over."""
        wanted = (self.column,) if self.column else TEXT_COLUMNS
        table = read_text_table(path, content=_decode(path), blank_lines=True)
        table = table.rename(columns=lambda name: header(name, (*ID_COLUMNS, *wanted)))
        blank = (table.apply(lambda column: column.str.strip()) == "").all(axis=1)
        left = f"{blank.sum()} blank rows passed over" if blank.any() else ""
        table = table[~blank]
        fix = "Set `column` in the profile to the one that holds the reports"
        texts = table[named_column(table, wanted, path, fix)].tolist()
        named = next((each for each in ID_COLUMNS if each in table), None)
        ids = [f"row-{number:04d}" for number in range(1, len(table) + 1)]
        if named is not None:
            ids = table[named_column(table, [named], path, fix)].str.strip().tolist()
        return ids, texts, (table.index + 2).tolist(), left


def _decode(path: Path) -> str:
    data = path.read_bytes()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        byte = error.start - (data.rfind(b"\n", 0, error.start) + 1) + 1
        what = f"not UTF-8: byte 0x{data[error.start]:02x} in line {line}, byte {byte}"
        raise ClipItError(what, path, "Save the file as UTF-8") from error


# -- Class prompts: the templates of CONCH and QuiltNet (appendix E), and scores of an ensemble.


Averaging = Literal["similarities", "embeddings"]
TEMPLATES = {name: tuple(each) for name, each in WORDS["templates"].items()}


def wording(templates: str) -> str:
    """A digest of what named templates say."""
    return digest(*TEMPLATES[templates])


def prompts(class_texts: Sequence[str], templates: Sequence[str]) -> list[list[str]]:
    """Every template filled with every class: [classes][templates], classes in their order."""
    return [[template.replace("{}", text) for template in templates] for text in class_texts]


def ensemble_scores(
    images: Float[np.ndarray, "n d"], texts: Float[np.ndarray, "c templates d"],
    averaging: Averaging,
) -> Float[np.ndarray, "n c"]:  # fmt: skip
    """Scores of a prompt ensemble; the answer is the class of the highest.

    Args:
        averaging: "similarities" (appendix E): mean over templates of the cosine similarities.
            "embeddings" (CONCH's own example): cosine similarity with the mean embedding. The first
            is the second times the length of that mean: it favours classes whose templates agree.
    """
    mean = _unit(texts).mean(axis=1)
    if averaging == "embeddings":
        mean = _unit(mean)
    return _unit(images) @ mean.T


def _unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors scaled to length one; zero stays zero."""
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.maximum(length, np.finfo(vectors.dtype).tiny)


# -- Histology terms as text: an image is described by the terms most similar to it (Table 6).


def own_terms() -> tuple[str, ...]:
    """The terms this project brings.

    The authors' are from Nguyen et al. (MICCAI 2024): a list that is not ours to pass on.
    """
    return tuple(read_text_table(Path(__file__).with_name("terms.csv"))["term"])


def term_texts(
    images: Float32[np.ndarray, "n d"], term_embeddings: Float32[np.ndarray, "m d"],
    terms: Sequence[str], k: int,
) -> tuple[list[str], Int64[np.ndarray, " n"]]:  # fmt: skip
    """Describe each image by its `k` most similar terms, most similar first.

    Returns:
        The different texts ("term, term, term"), in the order in which images first need them,
        and the index [n] of each image's text.

    Raises:
        ClipItError: fewer than k terms, embeddings of different widths or not finite.
    """
    numbers: dict[str, int] = {}
    chosen = top_k(images, term_embeddings, k).reports
    texts = (", ".join(terms[term] for term in row) for row in chosen)
    index = [numbers.setdefault(text, len(numbers)) for text in texts]
    return list(numbers), np.array(index, dtype=np.int64)


# -- What the released code does to its texts; words dropped, to see how much is needed (Figure 5).


CLASS_TEXT = "an H&E image of {}"


def lose_letters(text: str) -> str:
    """Without every i, I, 1 and `|`, as a regular expression of its PCAM loader leaves it."""
    return re.sub(r"[iI1|]", "", text)


def drop_words(text: str, share: float, rng: np.random.Generator) -> str:
    """`text` without a random `share` of its words (rounded; one word always stays)."""
    words = text.split()
    removed = min(round(share * len(words)), len(words) - 1)
    kept = np.sort(rng.permutation(len(words))[removed:])
    return " ".join(words[k] for k in kept)


def drop_from_all(texts: tuple[str, ...], share: float, seed: int, epoch: int) -> list[str]:
    """All texts with words dropped anew for this epoch."""
    rng = np.random.default_rng([seed, 4, epoch])
    return [drop_words(text, share, rng) for text in texts]
