"""The one error that a user can mend."""

from collections.abc import Iterable
from difflib import get_close_matches


class UserError(Exception):
    """A user's mistake, told in one sentence: the file or option, what is wrong with it, what to do."""


def unknown(kind: str, name: str, known: Iterable[str]) -> UserError:
    """Of a name that is none of the known ones of its kind, such as `pipeline`."""
    names = sorted(known)
    close = get_close_matches(name, names, n=1)
    meant = f"did you mean {close[0]!r}? There are" if close else "there are"
    return UserError(f"There is no {kind} {name!r}: {meant} {', '.join(names)}.")
