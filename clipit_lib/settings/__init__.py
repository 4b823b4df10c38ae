"""Strict, frozen settings: what a profile asks for and everything that can change a run."""

from clipit_lib.settings.base import Strict
from clipit_lib.settings.data import (
    CorpusSettings,
    Crc5Data,
    DataSettings,
    FileCorpus,
    FolderData,
    PhantomCorpus,
    PhantomData,
    SyntheticCorpus,
    ValidationSplit,
)
from clipit_lib.settings.method import (
    Contrastive,
    Descent,
    Lora,
    Pairing,
    Probe,
    Protocol,
    TextStage,
    Training,
)
from clipit_lib.settings.pretraining import PhantomPretraining, StandInTraining
from clipit_lib.settings.profile import Profile, known, load_profile, read_profile, searched_path
from clipit_lib.settings.protocols import PROTOCOLS, SWITCHES, protocol_named, switched
from clipit_lib.settings.run import RunSpec
from clipit_lib.settings.search import (
    Candidate,
    Chosen,
    FoundWith,
    Search,
    Searched,
    SearchedSetting,
    SearchSpace,
    read_searched,
)
from clipit_lib.settings.study import Study
from clipit_lib.settings.survival import FileSlides, PhantomSlides, SurvivalSettings

__all__ = [
    "PROTOCOLS",
    "SWITCHES",
    "Candidate",
    "Chosen",
    "Contrastive",
    "CorpusSettings",
    "Crc5Data",
    "DataSettings",
    "Descent",
    "FileCorpus",
    "FileSlides",
    "FolderData",
    "FoundWith",
    "Lora",
    "Pairing",
    "PhantomCorpus",
    "PhantomData",
    "PhantomPretraining",
    "PhantomSlides",
    "Probe",
    "Profile",
    "Protocol",
    "RunSpec",
    "Search",
    "SearchSpace",
    "Searched",
    "SearchedSetting",
    "StandInTraining",
    "Strict",
    "Study",
    "SurvivalSettings",
    "SyntheticCorpus",
    "TextStage",
    "Training",
    "ValidationSplit",
    "known",
    "load_profile",
    "protocol_named",
    "read_profile",
    "read_searched",
    "searched_path",
    "switched",
]
