"""`python -m lsap.pretrain target=generator`: make the demo domain's generator and judges.

Killed and started again, a training goes on where it was; finished, it writes `<target>.safetensors` with its card.
"""

from lsap.cli.command import command

main = command("pretrain", "lsap.pipelines.pretraining:pretrain")

if __name__ == "__main__":
    main()
