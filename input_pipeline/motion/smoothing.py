"""Keypoints of a clip without the landmarker's jitter, with no lag."""

import numpy as np

from input_pipeline.faces import geometry

# At strength 1, standard deviations of the window: seconds for pose and expression.
_POSE, _EXPRESSION = 0.06, 0.04
# Eye distances (`geometry.head_pose`) by which a point must move in the window to be left alone.
_JITTER = 0.015
# Frames that are worked on at a time: the double precision of a whole film would fill the memory.
_PIECE = 500


def smooth(keypoints: np.ndarray, fps: float, strength: float) -> np.ndarray:
    """Pose and expression filtered apart, forwards and backwards in time alike.

    The head's pose is averaged with Gaussian weights. So is the pose-free face, point by point,
    but frames in which the point is elsewhere count less (bilateral filter, Tomasi and Manduchi
    1998): jitter is averaged away, a blink or a closing mouth moves too far to be taken for it.
    Constant and uniform motion stay as they are.

    Args:
      keypoints: [T, 478, 3] pixels, without NaN.
      fps: frames per second.
      strength: width of the windows; 1 is made for 25 fps video of a face, 0 changes nothing.

    Returns:
      float32 [T, 478, 3].
    """
    if strength == 0 or len(keypoints) < 2:
        return np.asarray(keypoints, np.float32)
    # No window reaches further.
    reach = int(np.ceil(3 * _POSE * strength * float(fps)))
    result = np.empty(np.shape(keypoints), np.float32)
    for start in range(0, len(keypoints), _PIECE):
        first = max(0, start - reach)
        piece = _smooth(keypoints[first : start + _PIECE + reach], fps, strength)
        result[start : start + _PIECE] = piece[start - first :][:_PIECE]
    return result


def _smooth(keypoints: np.ndarray, fps: float, strength: float) -> np.ndarray:
    turn, size, place = geometry.head_pose(keypoints)
    shape = geometry.pose_free(np.asarray(keypoints, np.float64), turn, size, place)
    frames = strength * float(fps)
    pose = np.concatenate([turn.reshape(-1, 9), size[:, None], place], 1)[:, None]
    pose = _filtered(pose, _POSE * frames, np.inf)[:, 0]
    shape = _filtered(shape, _EXPRESSION * frames, _JITTER)
    turn = geometry.nearest_rotation(pose[:, :9].reshape(-1, 3, 3))
    return geometry.posed(shape, turn, pose[:, 9], pose[:, 10:])


def _filtered(curves: np.ndarray, window: float, reach: float) -> np.ndarray:
    """[T, N, D]: N curves, averaged over frames `window` and values `reach` apart."""
    radius = min(int(np.ceil(3 * window)), len(curves) - 1)
    # Continued beyond both ends by point reflection, which continues straight lines.
    before = 2 * curves[0] - curves[radius:0:-1]
    after = 2 * curves[-1] - curves[-2 : -radius - 2 : -1]
    padded = np.concatenate([before, curves, after])
    total, weights = np.zeros_like(curves), np.zeros((*curves.shape[:2], 1))
    for shift in range(-radius, radius + 1):
        there = padded[radius + shift : radius + shift + len(curves)]
        apart = np.linalg.norm(there - curves, axis=-1, keepdims=True)
        weight = np.exp(-((shift / window) ** 2 + (apart / reach) ** 2) / 2)
        total += weight * there
        weights += weight
    return total / weights
