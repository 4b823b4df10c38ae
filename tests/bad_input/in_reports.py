"""Reports that are wrong."""

from __future__ import annotations

from bad_input.case import Act, BadInput


def reports(name: str, content: str | bytes, **changes: str) -> Act:
    """The corpus from a file of this content."""
    return lambda world: world.corpus(path=str(world.file(name, content)), **changes)


CASES = [
    BadInput("no file", lambda w: w.corpus(path=str(w.place / "none.txt")), "none.txt",
             "no such file", "Mend `path`"),
    BadInput("no reports", reports("empty.txt", ""), "empty.txt", "no reports", "Add"),
    BadInput("a blank line", reports("a.txt", "benign\n\n"), "a.txt", "line-0002 is empty",
             "Take it out"),
    BadInput("not UTF-8", reports("latin.txt", "Gr\xf6\xdfe\n".encode("latin-1")), "latin.txt",
             "not UTF-8: byte 0xf6 in line 1", "Save the file as UTF-8"),
    BadInput("another column", reports("a.csv", "id,note\n1,benign\n"), "a.csv", "column", "text"),
    BadInput("an empty report", reports("a.csv", "id,text\n1,benign\n2,\n"), "a.csv", "2 is empty",
             "Take it out"),
    BadInput("an id twice", reports("a.csv", "id,text\n1,benign\n1,malignant\n"), "a.csv",
             "2 reports have the id 1", "Make the ids unique"),
    BadInput("a folder without texts", lambda w: w.corpus(path=str(w.place)), "bad-place",
             "no reports", "Add"),
    BadInput("an unknown rule of cleaning", reports("a.txt", "benign\n", cleaning=["spelling"]),
             "cleaning", "unknown", "Known: "),
    BadInput("a rank beyond the reports",
             lambda w: w.train(studies={"own": {"settings": ["clip_it/report_rank_9"]}}),
             "pairing", "rank 9 of 6 reports", "Ask for a lower rank"),
]  # fmt: skip
