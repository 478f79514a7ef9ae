"""`python -m lsap.edit inversions=… direction=smile strength=-3:3:7`: edits of stored inversions.

The edited codes go through the inversion's own renderer, so it does not matter which method made it. The batches are
those of the stored run, each written whole or not at all, and a run that was stopped goes on.
"""

from lsap.cli.command import command

main = command("edit", "lsap.pipelines.editing.edit:edit")

if __name__ == "__main__":
    main()
