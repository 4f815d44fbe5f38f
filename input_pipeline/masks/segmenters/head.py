"""Where every pixel of a picture lies on the head, by its keypoints.

Lengths and heights are in outer-canthal distances, the distance between the outer eye corners.
"""

import cv2
import numpy as np

from input_pipeline.faces.geometry import CONTOURS

SIZE = 256  # of the pictures, the input of the selfie model; outer-canthal distance: about 60 px

# Face-mesh indices.
FOREHEAD, CHIN = 10, 152
EYE_CORNERS = (33, 263)
_CHEEKBONES, _BROWS = (234, 454), (105, 334)


class Head:
    """Where every pixel of the working picture lies on the head. Maps are [SIZE, SIZE].

    Attributes:
      points: [478, 3], pixels. unit: pixels per outer-canthal distance.
      height, side: maps, height over the chin along the axis chin-forehead, distance from it.
      nose, eye, brow, top: heights of nose base, eyes, brows and the mesh's end on the forehead.
      oval: bool map, inside the face mesh.
      inside, outside: maps, distance to the edge of the oval, 0 on the other side of it.
    """

    def __init__(self, points):
        self.points = points
        xy = points[:, :2]
        up = xy[FOREHEAD] - xy[CHIN]
        # A turned head shortens the outer-canthal distance and not the face; nodding, the other.
        span = np.linalg.norm(xy[EYE_CORNERS[1]] - xy[EYE_CORNERS[0]])
        self.unit = max(span, 0.8 * np.linalg.norm(xy[FOREHEAD] - xy[2]), 1.0)
        up = up / max(np.linalg.norm(up), 1.0) / self.unit
        y, x = np.mgrid[:SIZE, :SIZE].astype(np.float32)
        cx, cy = xy[list(_CHEEKBONES)].mean(0)
        self.height = (x - xy[CHIN, 0]) * up[0] + (y - xy[CHIN, 1]) * up[1]
        self.side = np.abs((y - cy) * up[0] - (x - cx) * up[1])
        levels = ((2,), EYE_CORNERS, _BROWS, (FOREHEAD,))
        heights = [(xy[list(level)].mean(0) - xy[CHIN]) @ up for level in levels]
        self.nose, self.eye, self.brow, self.top = map(float, heights)
        self.oval = self.within("oval")
        self.inside, self.outside = (depth_of(m) / self.unit for m in (self.oval, ~self.oval))

    def within(self, *names):
        """Bool map: inside one of the named contours."""
        mask = np.zeros((SIZE, SIZE), np.uint8)
        for chain in (chain for name in names for chain in CONTOURS[name]):
            fill(mask, cv2.convexHull(self.points[list(chain), :2].astype(np.float32)))
        return mask > 0


def fill(mask, polygon):
    cv2.fillPoly(mask, [np.round(polygon * 16).astype(np.int32)], 1, shift=4)


def depth_of(mask):
    """Distance in pixels from each pixel of the mask to its edge."""
    return cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, 5)
