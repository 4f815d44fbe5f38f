"""What a file holds, told by its first bytes, where its name says otherwise.

Downloads that went wrong leave something else under the right name: a pointer of git-lfs, a page
that asks for a login. And tables are saved as workbooks.
"""

from pathlib import Path

HEAD_BYTES = 512
_MARKS = (
    (b"version https://git-lfs", "a pointer of git-lfs, not the file itself: run git lfs pull"),
    (b"PK\x03\x04", "an archive or workbook (zip)"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Office document"),
    (b"%PDF", "a PDF"),
    (b"PAR1", "a Parquet file"),
    (b"\x1f\x8b", "compressed by gzip: unpack it"),
    (b"7z\xbc\xaf", "a 7z archive: unpack it"),
    (b"Rar!", "a RAR archive: unpack it"),
    (b"\x28\xb5\x2f\xfd", "compressed by zstd: unpack it"),
    (b"\x89HDF", "an HDF5 file"),
    (b"GGUF", "a GGUF file"),
    (b"\x89PNG", "a PNG picture"),
    (b"\xff\xd8\xff", "a JPEG picture"),
)
_TEXT_SHOWN = 40


def describe(head: bytes) -> str:
    """What bytes at the beginning of a file say of it, with what to do, or "" if nothing.

    Web pages, pointers of git-lfs, archives, documents, pictures.
    """
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    lower = text[:HEAD_BYTES].lower()
    if lower.startswith((b"<!doctype html", b"<html")) or b"<html" in lower:
        return "a web page, not the file itself: log in or accept its terms, and download it again"
    if lower.startswith((b"<?xml", b"<error")):
        return f"an XML document ({_quoted(text)}): download it again"
    return next((name for mark, name in _MARKS if text.startswith(mark)), "")


def describe_instead(path: Path, text: bool = True) -> str:
    """`describe` for a file that shall be binary: also empty ones and, if asked, text, quoted."""
    with open(path, "rb") as file:
        head = file.read(HEAD_BYTES)
    if not head:
        return "empty (0 bytes): copy or download it again"
    found = describe(head)
    if not found and text and _is_text(head):
        return f"text ({_quoted(head)}), not the file itself: download it again"
    return found


def _is_text(head: bytes) -> bool:
    try:
        # A character may be cut at the end.
        text = head.decode("utf-8", "strict" if len(head) < HEAD_BYTES else "ignore")
    except UnicodeDecodeError:
        return False
    return all(character.isprintable() or character.isspace() for character in text)


def _quoted(head: bytes) -> str:
    text = " ".join(head.decode("utf-8", "replace").split())
    return repr(text[:_TEXT_SHOWN] + ("..." if len(text) > _TEXT_SHOWN else ""))
