"""What ends a command in good order: input the user can correct, or the system's wish to stop."""

import traceback
from pathlib import Path


class InputError(ValueError):
    """Bad input. The message is one line that names the thing, the value, the limit and the remedy.

    The command line prints it without a traceback and exits with code 2.

    Attributes:
      option: the argument that is to blame, by its name in Python: "grow_mask". The message begins
        with it; the command line writes --grow-mask. "" where it is a file, or more than one.
    """

    def __init__(self, message: str, option: str = ""):
        super().__init__(f"{option} {message}" if option else message)
        self.option = option

    @property
    def on_command_line(self) -> str:
        """The message with the option as a flag."""
        text = str(self).removeprefix(self.option)
        return f"--{self.option.replace('_', '-')}{text}" if self.option else text


class WriteError(InputError):
    """The system refuses to write a file: nobody's input is at fault but the place or its room."""


def in_one_line(error: Exception) -> str:
    """What an exception says; with its class and where it was raised if it is no InputError."""
    said = " ".join(str(error).split())
    if isinstance(error, InputError):
        return said
    places = traceback.extract_tb(error.__traceback__)
    place = f" ({Path(places[-1].filename).name}:{places[-1].lineno})" if places else ""
    return f"{type(error).__name__}{': ' if said else ''}{said}{place}"


class Interrupted(BaseException):
    """The system asked the process to end (SIGTERM), and all work up to here is saved.

    The command line prints the message and exits with `code`: EX_TEMPFAIL of sysexits.h, "try
    again", which no other end of a run gives, so that a scheduler can start the command anew. No
    Exception, as KeyboardInterrupt is none: nothing on the way may mistake it for an error.
    """

    code = 75
