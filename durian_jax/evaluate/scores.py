"""From predictions to numbers: a case is scored, cases become means with intervals."""

import dataclasses

import numpy as np

from durian_jax.evaluate import baselines
from durian_jax.evaluate.protocol import Bootstrap, Protocol
from durian_jax.metrics import face_motion, face_shape, pixels
from durian_jax.metrics.metric import Metric
from input_pipeline.dataset.cases import Case, Pictures
from input_pipeline.errors import InputError
from input_pipeline.faces import geometry
from input_pipeline.faces.landmarker import FaceLandmarker, Track
from input_pipeline.masks import regions
from input_pipeline.motion.retarget import retarget

_PIXELS = {
    "l1": ("L1", "", "lower", "mean absolute difference, RGB in [0, 1], per frame, then mean"),
    "psnr": ("PSNR", "dB", "higher", "data range 1, per frame, then mean; see psnr_ceiling"),
    "ssim": ("SSIM", "", "higher", "Gaussian 11 x 11, sigma 1.5, data range 1, per frame and "
             "channel, border of 5 px left out, mean of the map"),
}  # fmt: skip
_REGIONS = {
    "": ("", ""),
    "_inside": (" in", "; over the attribute: its true mask, grown by region_growth"),
    "_outside": (" out", "; over the rest of the picture"),
}
METRICS = {
    metric + region: Metric(title + where, unit, better, True, variant + what)
    for metric, (title, unit, better, variant) in _PIXELS.items()
    for region, (where, what) in _REGIONS.items()
} | {
    "iou": Metric(
        "IoU", "", "higher", True,
        "attribute pixels by colour (histograms inside and round the true mask), prediction "
        "against truth, all frames together, mean over the kinds",
    ),
    "keypoints": Metric(
        "keypoints", "eye distances", "lower", False,
        "mean distance of 478 MediaPipe points to those of the truth, or without truth to the "
        "driver's motion on the portrait's face (retarget.retarget); missing_face counts as stated",
    ),
    "pose": Metric(
        "pose", "degrees", "lower", False,
        "mean absolute difference of yaw, pitch and roll (`geometry.head_pose`); missing_face "
        "likewise",
    ),
    "blink": Metric(
        "blink", "eye distances", "lower", False,
        "absolute difference of the eyelid openings, mean of both eyes; missing_face likewise",
    ),
    "mouth": Metric(
        "mouth", "eye distances", "lower", False,
        "absolute difference of the inner lips' opening; missing_face likewise",
    ),
    "no_face": Metric("no face", "share", "lower", False, "frames in which no face is found"),
    "flicker": Metric(
        "flicker", "", "lower", False,
        "warping error, L1, DIS flow of the video itself, occlusions left out; a still video has 0",
    ),
    "leak": Metric(
        "identity leak", "", "lower", False,
        "how far the face's shape (`face_shape`: points that expressions hardly move, no pose, "
        "median over the frames) has gone from the portrait's, 0, to the driver's, 1: the foot on "
        "the line between them, clipped; no face found counts 1",
    ),
    "shape_portrait": Metric(
        "shape to portrait", "eye distances", "lower", False,
        "mean distance of these points to those of the portrait's shape",
    ),
    "shape_driver": Metric(
        "shape to driver", "eye distances", "higher", False,
        "mean distance of these points to those of the driver's shape",
    ),
}  # fmt: skip
_SHAPE = ("leak", "shape_portrait", "shape_driver")  # of protocols without attributes
_ATTRIBUTE = ("iou", *(name for name in METRICS if name.endswith(("_inside", "_outside"))))


def metrics_of(protocol: Protocol) -> dict[str, Metric]:
    """The metrics that say something in a protocol."""
    left_out = _SHAPE if protocol.attributes else _ATTRIBUTE
    return {name: metric for name, metric in METRICS.items() if name not in left_out}


@dataclasses.dataclass(frozen=True)
class Reference:
    """What the predictions for one case are compared with.

    Attributes:
      portrait: float32 [478, 3]. attributes: [478, 3] of each attribute picture.
      motion: float32 [F, 478, 3], the driver's motion on the portrait's face.
      keypoints: float32 [F, 478, 3], those of the truth if there is one, else `motion`.
      usable: bool [F], frames whose keypoints are known.
      driver: float32 [F, 478, 3], the driver's, in his own pictures.
    """

    portrait: np.ndarray
    attributes: list[np.ndarray]
    motion: np.ndarray
    keypoints: np.ndarray
    usable: np.ndarray
    driver: np.ndarray


@dataclasses.dataclass(frozen=True)
class Prediction:
    """A method's frames for a case, float32 [F, S, S, 3] in [0, 1], with all they are compared to.

    track: the face in the frames.
    """

    frames: np.ndarray
    track: Track
    case: Case
    pictures: Pictures
    reference: Reference


def find_reference(case: Case, pictures: Pictures, landmarker: FaceLandmarker) -> Reference:
    """Keypoints of a case's own pictures. Raises InputError: no face in one, or an empty mask."""
    for i, mask in enumerate(pictures.attribute_masks):
        if not mask.any():
            raise InputError(f"case {case.id}: attribute_{i}_mask.png is black")
    stills = []
    for name, image in [("portrait", pictures.portrait)] + [
        (f"attribute_{i}", image) for i, image in enumerate(pictures.attributes)
    ]:
        track = landmarker.track([image])
        if not track.found[0]:
            raise InputError(f"case {case.id}: no face found in {name}.png")
        stills.append(track.keypoints[0])
    driver, usable = geometry.fill_gaps(landmarker.track(pictures.driving))
    if not usable.all():
        raise InputError(f"case {case.id}: no face found in driving.mp4, frame {usable.argmin()}")
    moved = keypoints = retarget(driver, stills[0])
    if pictures.truth is not None:
        keypoints, usable = geometry.fill_gaps(landmarker.track(pictures.truth.video))
    return Reference(stills[0], stills[1:], moved, keypoints, usable, driver)


def baseline_frames(case: Case, pictures: Pictures, reference: Reference) -> dict[str, np.ndarray]:
    """float32 [F, S, S, 3] in [0, 1] of each baseline; the truth itself is one of them, and where
    only the person is in question the driver's own clip."""
    found = {}
    if pictures.truth is not None:
        found["truth"] = pictures.truth.video.astype(np.float32) / 255
    found["copy"] = baselines.copy(pictures)
    found["paste"] = baselines.paste(
        case, pictures, reference.portrait, reference.attributes, reference.motion
    )
    if not case.attributes:
        found["driver"] = pictures.driving.astype(np.float32) / 255
    return found


def find_track(frames: np.ndarray, landmarker: FaceLandmarker) -> Track:
    """The face in float frames [F, S, S, 3] in [0, 1]."""
    return landmarker.track(np.round(frame * 255).astype(np.uint8) for frame in frames)


def score(prediction: Prediction, protocol: Protocol) -> dict[str, float | None]:
    """The metrics of one prediction; None where one cannot be computed for this case.

    That is: metrics of pixels without a truth, of a region that is empty in every frame, of motion
    where the truth shows no face in any frame, flicker of a single frame.
    """
    first, case = prediction.case.scored_from, prediction.case
    track, reference = prediction.track, prediction.reference
    frames = prediction.frames[first:]
    values = face_motion.errors(
        Track(track.keypoints[first:], track.found[first:], track.face_count),
        reference.keypoints[first:],
        reference.usable[first:],
        protocol.missing_face,
    )
    values["flicker"] = pixels.flicker(frames)
    if not protocol.attributes:
        values |= _shape_scores(track.keypoints[first:][track.found[first:]], reference)
    if prediction.pictures.truth is not None:
        truth = prediction.pictures.truth.video[first:].astype(np.float32) / 255
        masks = {kind: prediction.pictures.truth.masks[kind][first:] for kind in case.kinds}
        shown = np.any([np.zeros(frames.shape[:3], bool), *masks.values()], 0)
        values |= _pixel_scores(frames, truth, shown, protocol)
        overlaps = [
            pixels.AttributeColours(
                truth, mask, protocol.colour_band, protocol.colour_bins
            ).overlap(frames)
            for mask in masks.values()
            if mask.any()
        ]
        values["iou"] = float(np.mean(overlaps)) if overlaps else float("nan")
    names = metrics_of(protocol)
    return {name: None if np.isnan(values.get(name, np.nan)) else values[name] for name in names}


def _shape_scores(keypoints: np.ndarray, reference: Reference) -> dict[str, float]:
    """Those of faces [T, 478, 3]; the distances are NaN if there are none."""
    if not len(keypoints):
        return {"leak": 1.0}
    result = face_shape.face_shape(keypoints)
    portrait = face_shape.face_shape(reference.portrait[None])
    driver = face_shape.face_shape(reference.driver)
    return {
        "leak": face_shape.leak(result, portrait, driver),
        "shape_portrait": face_shape.distance(result, portrait),
        "shape_driver": face_shape.distance(result, driver),
    }


def _pixel_scores(frames, truth, shown, protocol: Protocol) -> dict[str, float]:
    radius = protocol.region_growth * frames.shape[1]
    rows = []
    for frame, true, mask in zip(frames, truth, shown):
        inside = regions.grow(mask, radius)
        similarity, row = pixels.ssim_map(frame, true), {}
        for region, where in (("", None), ("_inside", inside), ("_outside", ~inside)):
            row["l1" + region] = pixels.l1(frame, true, where)
            row["psnr" + region] = pixels.psnr(frame, true, where)
            inner = None if where is None else where[pixels.INNER]
            row["ssim" + region] = pixels.mean_over(similarity, inner)
        rows.append(row)
    means = {}
    for name in rows[0]:
        values = np.array([row[name] for row in rows])
        # Frames that do not show the region have nothing to be compared.
        means[name] = float(_mean(name, values[~np.isnan(values)], protocol.psnr_ceiling))
    return means


def _mean(name: str, values: np.ndarray, ceiling: float) -> np.ndarray:
    """Of the last axis; NaN where it is empty."""
    if not values.shape[-1]:
        return np.full(values.shape[:-1], np.nan)
    return pixels.mean_psnr(values, ceiling) if name.startswith("psnr") else values.mean(-1)


def summarise(name: str, values: list[float], protocol: Protocol) -> dict:
    """Mean over cases, its bootstrap interval, and the number of cases.

    Percentile bootstrap (Efron): the cases are drawn again with replacement; the same draws for
    every method that predicted as many cases. One case has no interval.
    """
    values = np.asarray(values, np.float64)
    mean = float(_mean(name, values, protocol.psnr_ceiling))
    if len(values) == 1:
        return {"mean": mean, "low": None, "high": None, "count": 1}
    options: Bootstrap = protocol.bootstrap
    rng = np.random.default_rng(options.seed)
    draws = values[rng.integers(len(values), size=(options.resamples, len(values)))]
    means = _mean(name, draws, protocol.psnr_ceiling)
    tail = (1 - options.confidence) / 2
    # A draw that happened: between inf and a number nothing can be interpolated.
    low, high = np.quantile(means, [tail, 1 - tail], method="nearest")
    return {"mean": mean, "low": float(low), "high": float(high), "count": len(values)}
