"""The command line: Hydra entry point, messages of errors, sweeps; imports no torch."""

from lsap.cli.command import command

__all__ = ["command"]
