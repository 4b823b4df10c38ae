"""Phrases of pathology reports that say little or nothing about morphology, and diagnoses."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Phrases:
    """What the reports of one organ are made of, besides findings.

    `{}` stands for a number or a letter. `diagnoses` are by world and class.
    """

    specimens: tuple[str, ...]
    histories: tuple[str, ...]
    gross: tuple[str, ...]
    asides: tuple[str, ...]
    diagnoses: dict[str, dict[str, tuple[str, ...]]]


HEADERS = (
    "SURGICAL PATHOLOGY REPORT. Case {}-{}. Date of procedure: [date].",
    "Final pathology report. Accession S{}-{}. Ordering physician: [name].",
    "Path report, page 1 of {}. Specimen number {}. Age: [age].",
    "SPECIMENS SUBMITTED: part {}. Received [date]. Lab no {}.",
    "Patient: [name]. MRN: [removed]. Report status: final. {} slides, {} blocks.",
    "Pathology consultation, copy no {}. Criteria: [yes] [no]. Initials: [initials]. Form {}.",
)
BLOCKS = (
    "Block key: A1-A{} tumor, B{} adjacent tissue.",
    "Representative sections are submitted in cassettes {} through 1{}.",
    "Sections: B1 margin, B2-B1{} lesion, C{} nodes.",
    "Inked black; sectioned at {} mm intervals; block {} held for study.",
)
CLOSINGS = (
    "Electronically signed by the attending pathologist.",
    "The attending pathologist reviewed all slides and agrees with this report.",
    "Immunostains were performed with appropriate controls.",
    "Results were discussed with the surgeon by telephone.",
    "Intraoperative consultation: see frozen section form.",
    "An addendum will follow.",
)
UNDECIDED = (
    "see microscopic description",
    "see comment",
    "pending further studies",
    "as described",
)

BREAST = Phrases(
    specimens=(
        "left breast, mastectomy",
        "right breast, lumpectomy with needle localization",
        "left breast and axillary contents, modified radical mastectomy",
        "right breast, excisional biopsy",
        "sentinel lymph node and breast, excision",
    ),
    histories=(
        "Clinical history: palpable mass in the upper outer quadrant.",
        "Clinical history: abnormal mammogram with microcalcifications.",
        "Preoperative diagnosis: breast lesion, {} o'clock.",
        "Postmenopausal woman with a lesion of {} mm on ultrasound.",
        "No history of prior biopsy is given.",
    ),
    gross=(
        "Received in formalin is a breast specimen measuring 1{} x 1{} x {} cm.",
        "The specimen weighs {}20 grams and is covered by an unremarkable skin ellipse.",
        "Cut surfaces show a firm gray-white area of 2.{} x 1.{} cm.",
        "The nipple and areola are unremarkable.",
        "The remaining parenchyma is yellow and lobulated.",
        "A biopsy cavity of {} cm is identified.",
    ),
    asides=(
        "Margins of resection are free; the closest is deep at {} mm.",
        "Inked margins cannot be assessed.",
        "Estrogen receptor {}0 percent, progesterone receptor {}0 percent.",
        "HER2 is pending; block A{} is suitable.",
        "{} of 1{} axillary nodes examined.",
        "The skin and nipple are not involved.",
        "Microcalcifications are present.",
        "Pathologic stage: pT2, pNX.",
        "Lymphovascular space invasion is not identified.",
    ),
    diagnoses={
        "pcam": {
            "no_tumor": (
                "lymph node, negative for malignancy",
                "reactive lymph node",
                "benign node",
            ),
            "tumor": (
                "metastatic carcinoma involving a lymph node",
                "lymph node positive for tumor",
                "nodal metastasis of mammary carcinoma",
            ),
        },
        "bach": {
            "Benign": ("fibrocystic change with adenosis", "benign proliferative change"),
            "InSitu": (
                "ductal carcinoma in situ, intermediate nuclear grade",
                "intraductal carcinoma, solid and comedo pattern",
            ),
            "Invasive": (
                "infiltrating ductal carcinoma, moderately differentiated",
                "invasive mammary carcinoma, Nottingham score 7",
            ),
            "Normal": ("no significant pathologic abnormality", "unremarkable breast parenchyma"),
        },
    },
)

COLON = Phrases(
    specimens=(
        "sigmoid colon, segmental resection",
        "right colon, hemicolectomy",
        "rectum, low anterior resection",
        "cecum and terminal ileum, resection",
        "left colon with mesocolon, resection",
    ),
    histories=(
        "Clinical history: change of bowel habit and anemia.",
        "Clinical history: colon mass at {}0 cm on colonoscopy.",
        "Preoperative diagnosis: obstructing lesion.",
        "History of polyps, {} removed earlier.",
        "No clinical information is provided.",
    ),
    gross=(
        "Received fresh is a segment of large bowel measuring 2{} cm in length and {} cm across.",
        "The serosa is smooth and glistening.",
        "Opening reveals an ulcerated lesion of {} x 3.{} cm.",
        "The wall is up to 1.{} cm thick.",
        "The pericolic tissue is dissected for nodes.",
        "The appendix measures {} cm and is unremarkable.",
    ),
    asides=(
        "Proximal and distal margins are negative; the radial margin is {} mm away.",
        "Mesenteric margin not involved.",
        "{} of 1{} regional nodes examined.",
        "Pathologic stage: pT3, pNX, pMX.",
        "Mismatch repair proteins are retained.",
        "Perineural invasion is not identified.",
        "Tumor budding: {} per field.",
        "KRAS testing on block A{} is pending.",
        "The anastomotic rings are free of tumor.",
    ),
    diagnoses={
        "crc": {
            "ADI": ("extension into pericolic fat", "subserosal adipose tissue involved"),
            "BACK": ("scant material, limited evaluation", "insufficient tissue on the slide"),
            "DEB": ("largely necrotic tumor", "ulcer with necrotic debris"),
            "LYM": ("prominent lymphoid reaction", "lymphoid aggregates, Crohn-like reaction"),
            "MUC": ("tumor with mucinous features", "mucinous component with mucin pools"),
            "MUS": ("tumor reaches the muscularis propria", "bowel wall with muscularis propria"),
            "NORM": ("unremarkable colonic mucosa", "colonic mucosa, no dysplasia"),
            "STR": ("prominent desmoplastic reaction", "fibrosis and desmoplastic tumor stroma"),
            "TUM": (
                "invasive adenocarcinoma, moderately differentiated",
                "colonic adenocarcinoma, low grade",
            ),
        }
    },
)
PHRASES = {"breast": BREAST, "colon": COLON}
