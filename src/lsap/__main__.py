"""`python -m lsap`: the commands, a line each."""

from __future__ import annotations

import sys

from lsap.cli.help import answered


def main() -> None:
    """Print the commands, or the version."""
    answered(sys.argv[1:], None)


if __name__ == "__main__":
    main()
