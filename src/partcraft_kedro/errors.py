"""Errors that a user can mend."""

import errno
import os
from collections.abc import Iterable
from difflib import get_close_matches

_MANY = 20  # names: where one of them is meant, nobody reads the others


class UserError(Exception):
    """A user's mistake, told in one sentence: the file or option, what is wrong with it, what to do."""

    def _render_traceback_(self) -> list[str]:
        """What IPython shows: the sentence, in notebooks too."""
        return [f"Error: {self}"]


class FullDisk(UserError):
    """A file or folder could not be written for want of space."""

    def __init__(self, place: object):
        super().__init__(
            f"The disk is full, {place} cannot be written: make space and run the same command again; finished work is "
            "kept."
        )


class NotWritten(UserError):
    """A file or folder could not be written where it was to be; its cause is the system's word for why."""


def in_one_line(error: BaseException) -> str:
    """What an error says, for a sentence of ours; its kind where it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__


def first_line(error: BaseException) -> str:
    """What an error says first, where the rest is for programmers; its kind where it says nothing."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


_FULL = (*map(os.strerror, (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)), "database or disk is full")


def is_full_disk(error: BaseException) -> bool:
    """Whether an error says that there is no space, by its words: safetensors, SQLite and shutil wrap the system's in
    one of their own that keeps nothing else."""
    return any(words in str(error) for words in _FULL)


def unknown(kind: str, name: str, known: Iterable[str]) -> UserError:
    """Of a name that is none of the known ones of its kind, such as `pipeline`. Many are told where none is close."""
    names = sorted(known)
    if not names:
        return UserError(f"There is no {kind} {name!r}, nor any other yet.")
    close = get_close_matches(name, names, n=1)
    if close and len(names) > _MANY:
        return UserError(f"There is no {kind} {name!r}: did you mean {close[0]!r}?")
    meant = f"did you mean {close[0]!r}? There are" if close else "there are"
    return UserError(f"There is no {kind} {name!r}: {meant} {', '.join(names)}.")
