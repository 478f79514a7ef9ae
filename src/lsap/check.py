"""`python -m lsap.check domain=church`: look at a data set before days of training depend on it.

Counts against the paper's, sizes, the names of images that cannot be read, a contact sheet. What differs is a warning:
nobody has to use the paper's data sets. A path that cannot be read at all is an error, the same as in training.
"""

from lsap.cli.command import command

main = command("check", "lsap.pipelines.data_check:check")

if __name__ == "__main__":
    main()
