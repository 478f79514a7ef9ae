"""`python -m lsap.reproduce experiment=table4_lambda`: a table or figure of the paper, from trainings to claims tested.

Every command of an experiment is one that could be typed; what was finished before is found, not done again. A command
that fails is named, and the others go on.
"""

from lsap.cli.command import command

main = command("reproduce", "lsap.pipelines.reproduction.reproduce:reproduce")

if __name__ == "__main__":
    main()
