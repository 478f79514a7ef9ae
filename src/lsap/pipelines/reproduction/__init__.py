"""The paper's tables as experiments: stages that run only what is missing, and claims that are put to the test."""

from lsap.pipelines.reproduction.claims import (
    CheaperThan,
    Claim,
    Finding,
    Less,
    Measured,
    NotMeasured,
    Plateau,
    RanksAcross,
    RanksWithin,
    Table,
    chosen,
    claim_of,
    judged,
)
from lsap.pipelines.reproduction.stages import Experiment, Member, read_experiment

__all__ = [
    "CheaperThan",
    "Claim",
    "Experiment",
    "Finding",
    "Less",
    "Measured",
    "Member",
    "NotMeasured",
    "Plateau",
    "RanksAcross",
    "RanksWithin",
    "Table",
    "chosen",
    "claim_of",
    "judged",
    "read_experiment",
]
