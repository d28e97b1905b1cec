"""Errors a user can cause: one line that names the thing, the rule and the value.

The command line catches `InputError` alone, prints its message and exits with status 2; anything
else is a fault of ours and keeps its traceback.
"""


class InputError(ValueError):
    """Something handed in breaks a rule; the message is one line: what, the rule, the value."""


class DataError(InputError):
    """Market data breaks a rule; the message names the source, column, row or date."""


class SettingError(InputError):
    """A setting is unknown, out of range, or clashes with another; the message names its key."""


class ActionError(InputError):
    """An action is malformed: not finite, of the wrong shape, or off the simplex in strict mode."""
