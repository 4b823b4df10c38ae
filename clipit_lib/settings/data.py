"""Settings of data sets and report corpora."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from clipit_lib.settings.base import Fraction, Positive, Strict


class ValidationSplit(Strict):
    """How validation samples are taken when the data set brings no such split.

    `stain` holds out whole clusters of stain colour in each class, for data without slide ids.
    """

    by: Literal["official", "stratified", "group", "stain"] = "official"
    fraction: Fraction = 0.1
    seed: int = 0


class PatchData(Strict):
    """What all data sets have in common."""

    @property
    def paper_name(self) -> str | None:
        """The data set of the paper that this is or mirrors: PCAM, BACH, CRC, or None."""
        return None


class PhantomData(PatchData):
    """A procedural data set; `train`, `validation` and `test` count patches."""

    source: Literal["phantom"]
    world: Literal["pcam", "bach", "crc"]
    train: Positive
    validation: Positive
    test: Positive
    side: Positive = 64
    seed: int = 0
    corpus: str
    validation_split: ValidationSplit = ValidationSplit()

    @property
    def paper_name(self) -> str:
        return self.world.upper()


class FolderData(PatchData):
    """Images of the user: a folder of class folders, or a manifest (path, label, split, group)."""

    source: Literal["folder"]
    folder: str
    manifest: str | None = None
    classes: tuple[str, ...] | None = None
    class_texts: tuple[str, ...] | None = None
    licence: str = "not stated"
    side: Positive = 224
    corpus: str
    validation_split: ValidationSplit = ValidationSplit(by="stratified")


class Crc5Data(PatchData):
    """The five-class colorectal patches under `$CLIPIT_DATA/crc5`."""

    source: Literal["crc5"]
    side: Positive = 224
    corpus: str
    validation_split: ValidationSplit = ValidationSplit(by="stain", fraction=0.2)


class OfThePaper(PatchData):
    """Public data in `folder` under `$CLIPIT_DATA`, on which the paper reports."""

    source: str
    corpus: str

    @property
    def paper_name(self) -> str:
        return self.source.upper()


class PcamData(OfThePaper):
    """PatchCamelyon in `folder` under `$CLIPIT_DATA`, as torchvision leaves it in `pcam/`."""

    source: Literal["pcam"]
    folder: str = "pcam"
    side: Positive = 96
    validation_split: ValidationSplit = ValidationSplit()


class BachData(OfThePaper):
    """The photographs of BACH in `folder` under `$CLIPIT_DATA`."""

    source: Literal["bach"]
    folder: str = "bach"
    side: Positive = 224
    validation_split: ValidationSplit = ValidationSplit(by="stratified", fraction=0.1)


class CrcData(OfThePaper):
    """NCT-CRC-HE-100K and CRC-VAL-HE-7K in `folder` under `$CLIPIT_DATA`."""

    source: Literal["crc"]
    folder: str = "crc"
    side: Positive = 224
    validation_split: ValidationSplit = ValidationSplit(by="stratified", fraction=0.1)


PublishedData = PcamData | BachData | CrcData
DataSettings = Annotated[
    PhantomData | FolderData | Crc5Data | PublishedData, Field(discriminator="source")
]


class PhantomCorpus(Strict):
    source: Literal["phantom"]
    organ: Literal["breast", "colon"]
    reports: Positive
    seed: int = 0


class FileCorpus(Strict):
    """Reports from one text file (one a line), a csv, or a folder of text files."""

    source: Literal["file"]
    path: str
    column: str | None = None
    organ: str = "unknown"
    licence: str = "not stated"
    cleaning: tuple[str, ...] = ("control", "hyphenation", "spacing")


class SyntheticCorpus(Strict):
    """Reports written class by class: by a grammar, or by a language model beforehand.

    `classes_of` names the classes that the grammar writes `per_class` reports of, those of a
    phantom world or of crc5. `path` opens a csv of the command `synthesize` instead.
    """

    source: Literal["synthetic"]
    classes_of: Literal["pcam", "bach", "crc", "crc5"] | None = None
    per_class: Positive = 500
    seed: int = 0
    path: str | None = None
    organ: str = "unknown"
    licence: str = "not stated"

    @model_validator(mode="after")
    def _one_origin(self) -> SyntheticCorpus:
        if (self.classes_of is None) == (self.path is None):
            raise ValueError("give either classes_of or path")
        return self


class TcgaCorpus(Strict):
    """TCGA reports of one organ, out of a table of all.

    With `cancer_type_table` (patient_id, cancer_type) the reports of `cancer_types` are taken;
    where tissue_or_organ_of_origin is known instead, in the table or beside the reports, those
    of an origin that contains `organ`. `licence` None: as is known of the kind of table.
    """

    source: Literal["tcga"]
    path: str
    cancer_types: tuple[str, ...] = ()
    cancer_type_table: str | None = None
    organ: str
    licence: str | None = None
    cleaning: tuple[str, ...] = ("control", "hyphenation", "spacing")

    @model_validator(mode="after")
    def _types_are_known(self) -> TcgaCorpus:
        if self.cancer_types and self.cancer_type_table is None:
            raise ValueError("cancer_types needs cancer_type_table")
        return self


CorpusSettings = Annotated[
    PhantomCorpus | FileCorpus | SyntheticCorpus | TcgaCorpus, Field(discriminator="source")
]
