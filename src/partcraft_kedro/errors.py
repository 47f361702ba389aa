"""The one error that a user can mend."""


class UserError(Exception):
    """A user's mistake, told in one sentence: the file or option, what is wrong with it, what to do."""
