"""A photo and a clip -> the batch of a system that follows pictures of the driver."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from input_pipeline.errors import InputError
from input_pipeline.faces.landmarker import FaceLandmarker
from input_pipeline.inference.inputs import Masking, Scene, notes_on
from input_pipeline.inference.subject import read_subject
from input_pipeline.motion import control_pictures
from input_pipeline.motion.driver import (
    MOTION_OPTIONS,
    TEMPLATE,
    Motion,
    MotionOptions,
    read_motion,
)
from input_pipeline.motion.followed import follow
from input_pipeline.motion.smoothing import smooth


def whole_and_local(frame: np.ndarray, keypoints: np.ndarray) -> dict[str, np.ndarray]:
    """X-Portrait's control pictures, uint8 [S, S, 3] each: the frame, and eyes and mouth."""
    points = control_pictures.landmarks(keypoints)
    return {"control": frame, "local_control": control_pictures.local_picture(frame, points)}


def regions(frame: np.ndarray, keypoints: np.ndarray) -> dict[str, np.ndarray]:
    """What Stable Video-Driven Portraits follows, uint8 [S, S, 3]: eyes, nose and mouth."""
    return {"driving": control_pictures.region_picture(frame, keypoints)}


def read_controlled(
    portrait: str | Path,
    attributes: list[tuple],
    driving: str | Path,
    size: int,
    landmarker: FaceLandmarker,
    masking: Masking,
    *,
    portrait_mask: str | Path | None = None,
    framed: bool = False,
    motion_options: MotionOptions = MOTION_OPTIONS,
    towards: list[tuple] = (),
    references: list[str | Path] = (),
    draw: Callable[[np.ndarray, np.ndarray], dict] = whole_and_local,
) -> Scene:
    """As `read_scene`, for systems that take no attributes and see the driver's pictures.

    The driver's face is laid onto the portrait's, by one move for the whole clip: that of the
    frame which is most like the portrait, or `motion_options.best_frame`, or none.

    Args:
      references: more photos of the person.
      draw: makes the pictures that the portrait follows of a frame of the driver, uint8 [S, S, 3],
        and its keypoints [478, 2].

    Raises:
      InputError: an unusable photo or clip, or what this system cannot do.
    """
    del masking
    if attributes or towards:
        raise InputError("this model takes no attributes, only a portrait: leave them out")
    if portrait_mask is not None:
        raise InputError(f"{portrait_mask}: this model hides nothing of the portrait: leave it out")
    driving = Path(driving)
    if driving.suffix == TEMPLATE:
        raise InputError(
            f"{driving}: this model follows the driver's pictures, a template has none: give the "
            "clip"
        )
    if motion_options.motion == "relative":
        raise InputError(
            "relative: this model follows the driver's pictures as they are: leave it out",
            option="motion",
        )
    if motion_options.frames is not None:
        raise InputError(
            f"{motion_options.frames}: this model follows the driver's pictures, one for each: "
            "leave it out",
            option="frames",
        )
    person = read_subject(portrait, size, landmarker, None, framed)
    others = [read_subject(path, size, landmarker, None, framed) for path in references]
    motion = read_motion(driving, landmarker, framed)
    landmarks = control_pictures.landmarks(person.keypoints)
    keypoints = smooth(motion.keypoints, float(motion.fps), motion_options.smooth)
    keypoints = motion.crop.points(keypoints, size)[..., :2]
    matrix = _alignment(motion, keypoints, landmarks, motion_options)
    batch = {"portrait": person.image, **follow(motion, keypoints, matrix, size, draw)}
    if others:
        batch["references"] = np.stack([other.image for other in others])
    nothing = np.zeros((0, size, size), bool)
    return Scene(
        portrait=person,
        sources=[],
        own=np.zeros((size, size), bool),
        aligned=nothing,
        motion=motion,
        batch=batch,
        notes=notes_on([person, *others], motion),
        landmarker=landmarker,
    )


def _alignment(
    motion: Motion, keypoints: np.ndarray, portrait: np.ndarray, motion_options: MotionOptions
) -> np.ndarray:
    """[2, 3]: lays the driver's keypoints [F, 478, 2] onto the portrait's landmarks [68, 2]."""
    if motion_options.align == "none":
        return np.eye(2, 3)
    points, best = control_pictures.landmarks(keypoints), motion_options.best_frame
    if best is None:
        best = control_pictures.best_frame(points, portrait)
    elif best >= len(points):
        raise InputError(
            f"{best}: {motion.path} has {len(points)} frames: use 0 to {len(points) - 1}",
            option="best_frame",
        )
    return control_pictures.alignment(points[best], portrait)
