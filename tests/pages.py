"""The pages of the documentation: their blocks, commands and tables."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a language, lines that end in a backslash joined."""
    found = re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return [block.replace("\\\n", " ") for block in found]


def commands() -> list[tuple[str, str, str]]:
    """(page, verb, arguments) of every command line of ours, in blocks and in running text."""
    found = []
    for page in PAGES:
        inline = re.findall(r"(?<!`)`([^`\n]+)`(?!`)", page.read_text(encoding="utf-8"))
        for line in [*inline, *(line for block in blocks(page, "sh") for line in block.splitlines())]:
            called = re.search(r"-m lsap\.([a-z]+)(.*)", line)
            if called:
                found.append((page.name, called[1], " ".join(called[2].split())))
    return found


def table(page: str, first: str) -> list[list[str]]:
    """The cells of the table whose first heading is `first`, its headings first."""
    lines = text(page).splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith(f"| {first} |"))
    rows = []
    for line in lines[start:]:
        if not line.startswith("|"):
            break
        if not set(line) <= set("|- "):
            rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows
