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
    ValidationSplit,
)
from clipit_lib.settings.method import (
    PROTOCOLS,
    Descent,
    Lora,
    Pairing,
    Probe,
    Protocol,
    TextStage,
    Training,
)
from clipit_lib.settings.pretraining import PhantomPretraining, StandInTraining
from clipit_lib.settings.profile import Profile, known, load_profile, read_profile
from clipit_lib.settings.run import RunSpec

__all__ = [
    "PROTOCOLS",
    "CorpusSettings",
    "Crc5Data",
    "DataSettings",
    "Descent",
    "FileCorpus",
    "FolderData",
    "Lora",
    "Pairing",
    "PhantomCorpus",
    "PhantomData",
    "PhantomPretraining",
    "Probe",
    "Profile",
    "Protocol",
    "RunSpec",
    "StandInTraining",
    "Strict",
    "TextStage",
    "Training",
    "ValidationSplit",
    "known",
    "load_profile",
    "read_profile",
]
