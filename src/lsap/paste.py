"""`python -m lsap.paste edited=/path/to/edited`: edited faces back in their photographs.

The way back of `lsap.crop`: each edited crop is drawn where it was cut and fades into the photograph at its edges.
"""

from lsap.cli.command import command

main = command("paste", "lsap.pipelines.pasting:paste")

if __name__ == "__main__":
    main()
