"""The one exception that means: the input is at fault, and the user can mend it."""


class InputError(ValueError):
    """Bad input. The message is one line that names the thing, the value, the limit and the remedy.

    The command line prints it without a traceback and exits with code 2.
    """
