"""What the page says things with: short pieces of HTML, how they look and are read aloud, and lines
without folders of the host."""

import html
import re
import sys
import traceback

from input_pipeline.errors import InputError, in_one_line

CSS = """
.wrong { color: #b00020; font-weight: 600; margin: 4px 0; }
.dark .wrong { color: #ff8a80; }
.block:has(> .html-container > .prose:empty) { display: none !important; }
.now { min-height: 2.5em; }
.now progress { width: 100%; height: 12px; }
.narrow { max-width: 720px; }
.wide { overflow-x: auto !important; }
.wide .image-container, .wide img { min-width: 800px; }
@media (max-width: 500px) { .grid-container { grid-template-columns: repeat(2, 1fr) !important; } }
.caption-label { white-space: normal !important; }
.grid-wrap { max-height: none !important; }
footer { display: none !important; }
:focus-visible { outline: 3px solid #1a5fb4 !important; }
.dark :focus-visible { outline-color: #8ab4ff !important; }
.upload-container:focus-visible { outline-offset: -3px; }
"""
# Gradio's buttons of an upload do not say what they are for, nor what is folded whether it is.
SCRIPT = """() => {
    const name = () => {
        for (const label of document.querySelectorAll("[data-testid=block-label]"))
            Object.assign(
                label.closest(".block"), {role: "group", ariaLabel: label.textContent.trim()});
        for (const fold of document.querySelectorAll("button.label-wrap"))
            fold.ariaExpanded = fold.classList.contains("open");
    };
    new MutationObserver(name).observe(
        document.body, {subtree: true, childList: true, attributeFilter: ["class"]});
}"""


def without_folders(text: str) -> str:
    """The text with `/home/me/x.png` as `x.png`."""
    return re.sub(r"(?<![\w.])/(?:[^\s/:'\"]+/)*(?=[^\s/])", "", text)


def tell(error: Exception) -> str:
    """One line for the page. What no user can correct goes to the terminal, whole."""
    if isinstance(error, InputError):
        return without_folders(in_one_line(error))
    traceback.print_exception(error, file=sys.stderr)
    return "the program failed: the terminal in which durian app runs says how"


def wrong(error: Exception) -> str:
    """What is wrong, for people who see it and for those who hear it."""
    return f'<p class="wrong" role="alert">{html.escape(tell(error))}</p>'


def now(text: str, share: float | None = None) -> str:
    """What is going on. share: 0 to 1, how far."""
    bar = "" if share is None else f'<progress max="1" value="{share:.3f}"></progress>'
    return f'<div class="now" role="status" aria-live="polite">{html.escape(text)}{bar}</div>'
