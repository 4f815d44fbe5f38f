"""A media file, opened for reading."""

from pathlib import Path

import av

from input_pipeline.media.files import as_url


def open_media(path: Path) -> av.container.InputContainer:
    """Its streams, whatever its tags are written in: old programs did not use UTF-8.

    Raises av.FFmpegError: no media file, or a damaged one.
    """
    return av.open(as_url(path), metadata_errors="replace")
