"""`python -m lsap`: the commands, a line each."""

from __future__ import annotations

import ast
from pathlib import Path

from lsap.config.compose import config_dir


def commands() -> dict[str, str]:
    """Name → what it does, the first sentence of the command's docstring."""
    found = {}
    for path in sorted(config_dir().glob("*.yaml")):
        source = Path(__file__).with_name(f"{path.stem}.py").read_text(encoding="utf-8")
        first = (ast.get_docstring(ast.parse(source)) or "").split("\n\n")[0].replace("\n", " ")
        found[path.stem] = first.partition("`: ")[2].removesuffix(".")
    return found


def main() -> None:
    """Print the commands."""
    listed = commands()
    width = max(map(len, listed))
    print("python -m lsap.<command> key=value …\n")
    for name, what in listed.items():
        print(f"  {name:{width}}  {what}")
    print("\npython -m lsap.<command> --cfg job prints every setting; docs/ explains the commands")


if __name__ == "__main__":
    main()
