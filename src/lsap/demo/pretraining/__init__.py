"""How the demo domain's generator and judges are made: trainings on rendered portraits."""

from lsap.demo.pretraining.adversarial import GeneratorAdversarial
from lsap.demo.pretraining.networks import IdentityPretraining, TrunkPretraining
from lsap.demo.pretraining.projected import ProjectedDiscriminator
from lsap.demo.pretraining.regression import GeneratorPretraining
from lsap.demo.pretraining.steps import Pretraining

__all__ = [
    "GeneratorAdversarial",
    "GeneratorPretraining",
    "IdentityPretraining",
    "Pretraining",
    "ProjectedDiscriminator",
    "TrunkPretraining",
]
