"""A person in a photo: cropped, with keypoints, and with a mask if one came along."""

import dataclasses
from pathlib import Path

import cv2
import numpy as np

from input_pipeline.errors import InputError
from input_pipeline.faces import geometry, orientation
from input_pipeline.faces.landmarker import FaceLandmarker
from input_pipeline.masks import presence, segmenters
from input_pipeline.media import files
from input_pipeline.media.mask_pictures import read_mask
from input_pipeline.media.pictures import read_picture, write_picture


@dataclasses.dataclass(frozen=True)
class Subject:
    """A person in a photo: image uint8 [S, S, 3], head and shoulders; keypoints float32 [478, 3]
    in its pixels; height and width of the photo; crop: photo -> image; the number of faces in the
    whole photo, of which this is the largest; close_up: the same crop at `presence.SIZE`; if a mask
    came with the photo, the share of each pixel that it covers, float32 [S, S]; quarter turns that
    set the photo upright, see `orientation.turns`: all else is of the upright photo."""

    path: Path
    image: np.ndarray
    keypoints: np.ndarray
    photo_shape: tuple[int, int]
    crop: geometry.Crop
    face_count: int
    close_up: np.ndarray
    mask: np.ndarray | None = None
    turns: int = 0

    def photo(self) -> np.ndarray:
        """The whole photo, uint8 [H, W, 3], upright; it is read again."""
        return orientation.turn(read_picture(self.path), self.turns)

    def find(self, kinds: frozenset[str], segmenter: segmenters.Segmenter) -> dict:
        """The segmenter's mask of each kind, bool [S, S]."""
        pictures = segmenters.Pictures(
            images=self.image[None],
            keypoints=self.keypoints[None],
            source=Path(self.path.name),
            frames=np.array([0]),
            source_shape=self.photo_shape,
            crop=self.crop,
            turns=self.turns,
        )
        return {kind: masks[0] for kind, masks in segmenter(pictures, kinds).items()}

    def doubt(self, kind: str) -> str:
        """Why an attribute may not be there, see `presence.doubt`; "" where it is to be seen."""
        scale = presence.SIZE / len(self.image)
        return presence.doubt(kind, self.close_up, (self.keypoints + 0.5) * scale - 0.5)

    def read_mask(self, path: str | Path) -> np.ndarray:
        """A mask as large as the photo, see `mask_pictures.read_mask`, cropped like it.

        Returns the white share of each pixel, float32 [S, S]. Raises InputError for another size.
        """
        covered = orientation.turn(read_mask(path), self.turns)
        height, width = self.photo_shape
        if covered.shape != (height, width):
            raise InputError(
                f"{path}: {covered.shape[1]}x{covered.shape[0]} pixels, its photo has "
                f"{width}x{height}: make the mask as large as the photo"
            )
        white = covered.astype(np.uint8) * 255
        return self.crop.apply(white, len(self.image)) / np.float32(255)

    def write_mask(self, path: str | Path, mask: np.ndarray) -> None:
        """A mask of the crop, bool [n, n] of any size, as `read_mask` takes it. InputError: no
        place to write."""
        height, width = self.photo_shape
        white = cv2.warpAffine(
            mask.astype(np.uint8) * 255, self.crop.matrix(len(mask)), (width, height),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        )  # fmt: skip
        upright = np.where(white > 127, 255, 0).astype(np.uint8)
        write_picture(path, orientation.turn(upright, -self.turns))


def read_subject(
    path: str | Path,
    size: int,
    landmarker: FaceLandmarker,
    mask: str | Path | None = None,
    framed: bool = False,
) -> Subject:
    """Turns a photo upright and crops its largest face, and its mask likewise.

    See `inputs.read_scene` for `framed`.

    Raises InputError for a bad photo, one with no face, or a mask that does not fit it.
    """
    image = read_picture(path)
    turns = orientation.turns([image], landmarker)
    image = orientation.turn(image, turns)
    track = landmarker.track([image])
    if not track.found[0]:
        raise InputError(f"{path}: no face found: use a photo with a larger face in full view")
    crop = geometry.steady_crop(path, track.keypoints, *image.shape[:2], framed)
    points = crop.points(track.keypoints[0], size)
    subject = Subject(
        path=files.local(path),
        image=crop.apply(image, size),
        keypoints=points,
        photo_shape=image.shape[:2],
        crop=crop,
        face_count=track.face_count,
        close_up=crop.apply(image, presence.SIZE),
        turns=turns,
    )
    return subject if mask is None else dataclasses.replace(subject, mask=subject.read_mask(mask))
