"""Reports that are wrong."""

from __future__ import annotations

from bad_input.case import Act, BadInput, World


def reports(name: str, content: str | bytes, **changes: str) -> Act:
    """The corpus from a file of this content."""
    return lambda world: world.corpus(path=str(world.file(name, content)), **changes)


def folder_of_folders(world: World) -> list[str]:
    (world.place / "reports" / "a.txt").mkdir(parents=True)
    return world.corpus(path=str(world.place / "reports"))


def tcga(world: World) -> list[str]:
    head = "patient_filename,text,tissue_or_organ_of_origin"
    path = world.file("a.csv", f"{head}\nTCGA-A1-A0SB.1,benign,Lung\n")
    corpus = {"source": "tcga", "path": str(path), "organ": "Breast"}
    return world.train(corpora={"reports": corpus})


CASES = [
    BadInput("no file", lambda w: w.corpus(path=str(w.place / "none.txt")), "none.txt",
             "no such file", "Fix `path`"),
    BadInput("no reports", reports("empty.txt", ""), "empty.txt", "no reports", "Add"),
    BadInput("a blank line", reports("a.txt", "benign\n\n"), "a.txt", "line-0002 is empty",
             "Take it out"),
    BadInput("not UTF-8", reports("latin.txt", "Gr\xf6\xdfe\n".encode("latin-1")), "latin.txt",
             "not UTF-8: byte 0xf6 in line 1", "Save the file as UTF-8"),
    BadInput("another column", reports("a.csv", "id,note\n1,benign\n"), "a.csv", "column", "text"),
    BadInput("an empty report", reports("a.csv", "id,text\n1,benign\n2,\n"), "a.csv",
             "report 2 in row 3 is empty", "Take it out"),
    BadInput("a report without id", reports("a.csv", "id,text\n1,benign\n ,wild\n"), "a.csv",
             "row 3 has no id", "fill it in"),
    BadInput("reports that are none", reports("a.txt", "NaN\n-\nnot available\n"), "a.txt",
             "none of 3 reports says anything: -, NaN, not available", "Bring reports"),
    BadInput("an id twice", reports("a.csv", "id,text\n1,benign\n1,malignant\n"), "a.csv",
             "2 reports have the id 1", "Make the ids unique"),
    BadInput("a folder without texts", lambda w: w.corpus(path=str(w.place)), "bad-place",
             "no reports", "Add"),
    BadInput("an unknown rule of cleaning", reports("a.txt", "benign\n", cleaning=["spelling"]),
             "cleaning", "unknown", "Known: "),
    BadInput("a rank beyond the reports",
             lambda w: w.train(studies={"own": {"settings": ["clip_it/report_rank_9"]}}),
             "pairing", "rank 9 of 6 reports", "Ask for a lower rank"),
    BadInput("a binary file", reports("a.txt", bytes(range(256))), "a.txt", "not UTF-8: byte 0x80",
             "Save the file as UTF-8"),
    BadInput("a file of another program", reports("a.docx", b"PK"), "a.docx",
             "unknown kind of file '.docx'", "Use .txt, .csv or a folder"),
    BadInput("a folder for a report", folder_of_folders, "reports", "no reports", "Add"),
    BadInput("commas that are not quoted", reports("a.csv", "id,text\n1,pale, calm\n2,red, wild\n"),
             "a.csv", "more cells than the header", "Quote"),
    BadInput("quotes that do not end", reports("a.csv", 'id,text\n1,"pale\n'), "a.csv",
             "not a csv", "Save it as"),
    BadInput("no such column", reports("a.csv", "id,text\n1,pale\n", column="diagnosis"), "a.csv",
             "no column diagnosis (found: id, text)", "Set `column`"),
    BadInput("no report of the organ", tcga, "a.csv", "no reports of",
             "Fix cancer_types or organ"),
]  # fmt: skip
