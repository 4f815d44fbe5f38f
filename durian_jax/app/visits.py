"""What a browser tab keeps: its uploads, once they are checked, and its results; for a while."""

import contextlib
import os
import shutil
import tempfile
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import gradio as gr
import numpy as np

from durian_jax.app import words
from input_pipeline.errors import InputError
from input_pipeline.media import video
from input_pipeline.media.pictures import read_picture, write_picture
from input_pipeline.motion import driver

MOST_MEGABYTES = {"photo": 32, "clip": 256}
MOST_SECONDS, MOST_FRAMES, LONGEST_SIDE = 60, 1800, 4096
KEPT_SECONDS = 3600
_SWEEP_SECONDS = 60
# What files begin with. Others are not even opened: decoders of playlists, PostScript and the like
# read further files, or run programs.
_PICTURES = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"BM", b"II*\0", b"MM\0*")
_CLIPS = (b"\x1aE\xdf\xa3", b"GIF8", b"\x89PNG")
_BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")


def check_photo(path: str) -> None:
    """InputError: too large, or no picture that can be decoded, whatever its name says."""
    head = _head(path, "photo")
    boxes = head[4:8] == b"ftyp" or (head[:4] == b"RIFF" and head[8:12] == b"WEBP")
    if not boxes and not head.startswith(_PICTURES):
        raise InputError(f"{path}: not a photo: give a PNG, JPEG, WebP or HEIC")
    read_picture(path)


def check_driver(path: str) -> None:
    """InputError: neither a photo nor a clip, or too large or too long a one."""
    if driver.is_still(path):
        return check_photo(path)
    head = _head(path, "clip")
    boxes = head[4:8] in _BOXES or (head[:4] == b"RIFF" and head[8:12] in (b"AVI ", b"WEBP"))
    if not boxes and not head.startswith(_CLIPS):
        raise InputError(f"{path}: not a clip: give an MP4, MOV, WebM, GIF or WebP, or a photo")
    info = video.probe(path)
    seconds, side = float(info.frame_count / info.fps), max(info.width, info.height)
    if seconds > MOST_SECONDS or info.frame_count > MOST_FRAMES:
        raise InputError(
            f"{path}: {seconds:.0f} s, {info.frame_count} frames: the page takes {MOST_SECONDS} s "
            f"and {MOST_FRAMES} frames: cut it, or use the command line"
        )
    if side > LONGEST_SIDE:
        raise InputError(f"{path}: {side} pixels: at most {LONGEST_SIDE} a side: scale it down")
    return None


def _head(path: str, kind: str) -> bytes:
    if not os.path.exists(path):
        raise InputError(f"{path}: was uploaded too long ago: upload it again")
    size = os.path.getsize(path) / 2**20
    if size > MOST_MEGABYTES[kind]:
        raise InputError(f"{path}: {size:.0f} MB: a {kind} may have {MOST_MEGABYTES[kind]} MB")
    with open(path, "rb") as file:
        return file.read(12)


class Visit:
    """A tab of the browser.

    Attributes:
      folder: for files of its own.
      uploads: files that it brought.
      masks: files of painted masks, by (number, photo, kind), see `people.masks_of`.
      seen: `people.masks_of` what was last looked at, by the verb of the studio.
      used: when it last asked for something or waited for it, in seconds of `time.time`.
    """

    def __init__(self, root: Path):
        self.folder = root / uuid.uuid4().hex
        self.folder.mkdir()
        self.uploads: set[str] = set()
        self.masks: dict[tuple, Path] = {}
        self.seen: dict[str, dict[int, tuple]] = {}
        self.used = time.time()

    def new_folder(self) -> Path:
        """For the files of a result."""
        return Path(tempfile.mkdtemp(dir=self.folder))

    def filed(self, shown):
        """What components are given, its pictures (arrays) as files of this tab: those that gradio
        makes of arrays are nobody's."""
        if isinstance(shown, np.ndarray):
            path = self.new_folder() / "picture.png"
            write_picture(path, shown)
            return str(path)
        if isinstance(shown, dict):
            return {key: self.filed(one) for key, one in shown.items()}
        if isinstance(shown, list | tuple):
            return type(shown)(map(self.filed, shown))
        return shown


class Visits:
    """All tabs. Everything lies below `root`, uploads too, and goes when its tab closes, or after
    an hour in which it asks for nothing."""

    def __init__(self, root: Path):
        self._root, self._open = root, {}
        threading.Thread(target=self._sweep_forever, daemon=True).start()

    def of(self, request: gr.Request) -> Visit:
        """The tab that a request comes from."""
        if request.session_hash not in self._open:
            self._open[request.session_hash] = Visit(self._root)
        visit = self._open[request.session_hash]
        visit.used = time.time()
        return visit

    def answering(self, handler: Callable, *failed) -> Callable:
        """Gives a line, for what is wrong, and what a handler returns, `Visit.filed`; or `failed`
        in place of that."""

        def run(request: gr.Request, *values):
            try:
                return "", *self.of(request).filed(handler(*values))
            except Exception as error:
                return words.wrong(error), *failed

        return run

    def close(self, request: gr.Request) -> None:
        """The tab is closed: its files go, but uploads that others brought, too."""
        visit = self.of(request)
        del self._open[request.session_hash]
        shutil.rmtree(visit.folder, ignore_errors=True)
        for path in visit.uploads.difference(*(one.uploads for one in self._open.values())):
            Path(path).unlink(missing_ok=True)

    def sweep(self, now: float | None = None) -> None:
        """Removes files that are older than an hour, but for those of tabs in use."""
        limit = (time.time() if now is None else now) - KEPT_SECONDS
        used = [visit for visit in [*self._open.values()] if visit.used >= limit]
        uploads = set().union(*(visit.uploads for visit in used))
        with contextlib.suppress(FileNotFoundError):  # a tab is closed meanwhile: next time
            for path in self._root.rglob("*"):
                kept = str(path) in uploads or any(one.folder in path.parents for one in used)
                if not kept and path.is_file() and path.stat().st_mtime < limit:
                    path.unlink()

    def _sweep_forever(self) -> None:
        while self._root.is_dir():
            time.sleep(_SWEEP_SECONDS)
            self.sweep()
