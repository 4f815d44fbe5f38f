"""A field of the page, and the line below it that says what is wrong with it."""

import os

import gradio as gr

from durian_jax.app import words


class Field:
    """A component and its line, which is made here: below it.

    Attributes:
      name: that messages about it begin with.
    """

    def __init__(self, name: str, component: gr.components.Component):
        self.name, self.component = name.replace("_", " "), component
        self.line = gr.HTML()

    def begins(self, message: str, value: object) -> int:
        """How many letters of a message are this field's name, or the path that it holds."""
        names = [self.name]
        if isinstance(value, str) and os.path.isabs(value):
            names.append(value.replace("_", " "))
        message = message.replace("_", " ")
        return max(len(x) if message.startswith((f"{x} ", f"{x}:")) else 0 for x in names)


def blame(fields: list[Field], values: tuple, error: Exception) -> list[str]:
    """Texts for the lines of fields with these values, and one more for what is of none of them."""
    known = [field.begins(str(error), value) for field, value in zip(fields, values)]
    texts = [""] * (len(fields) + 1)
    texts[known.index(max(known)) if any(known) else -1] = words.wrong(error)
    return texts
