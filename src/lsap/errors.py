"""The one family of errors that a user can cause.

Every message says what was wrong, which value or file, what is accepted and what to do; the outermost layer of each
command prints it as one line and sets the exit code. Anything else that is raised is a bug of ours and keeps its
traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class LsapError(Exception):
    """Base of every error that the user can mend."""


class BadValue(LsapError, ValueError):
    """A setting, file content or combination that cannot work."""


class MissingFile(LsapError, FileNotFoundError):
    """A file or folder that should be there and is not."""


class StoppedRun(LsapError, RuntimeError):
    """A run that had to end early (a NaN loss, a full disk); what it had finished is kept."""


def nearest(word: str, known: Iterable[str], count: int = 3) -> str:
    """The closest accepted words, for the end of a message: "did you mean 'church'? (accepted: car, church, …)"."""
    accepted = sorted(known)
    close = difflib.get_close_matches(word, accepted, n=count, cutoff=0.5)
    listed = f"accepted: {', '.join(accepted)}"
    return f"did you mean {' or '.join(repr(c) for c in close)}? ({listed})" if close else listed
