"""The paper's tables as experiments: stages that run only what is missing, and claims that are put to the test."""

from lsap.reproduction.claims import CheaperThan, Claim, Finding, Less, Measured, Plateau, Table, chosen, claim_of
from lsap.reproduction.stages import Experiment, Member, read_experiment

__all__ = [
    "CheaperThan",
    "Claim",
    "Experiment",
    "Finding",
    "Less",
    "Measured",
    "Member",
    "Plateau",
    "Table",
    "chosen",
    "claim_of",
    "read_experiment",
]
