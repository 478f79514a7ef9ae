"""`python -m lsap.discover method=slope`: directions of a generator, found on its own samples, looked at and kept.

Where a domain has a network that reads attributes, that labels the samples. Elsewhere `draw=500` makes samples to be
labelled by hand or by any other tool, and `labels=` goes on from there.
"""

from lsap.cli.command import command

main = command("discover", "lsap.pipelines.editing.discovery:discover")

if __name__ == "__main__":
    main()
