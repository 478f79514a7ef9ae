"""`python -m lsap.evaluate runs=[…]`: one table of several methods, from saved files, under a named protocol.

Numbers of single images are kept chunk by chunk, so an evaluation that was stopped goes on where it was, and one with a
further method measures that method only.
"""

from lsap.cli.command import command

main = command("evaluate", "lsap.pipelines.evaluation.evaluate:evaluate")

if __name__ == "__main__":
    main()
