"""The default segmenter, which needs no face parser.

Hair and hats follow the picture: one colour histogram per class (as in Jones and Rehg, "Statistical
color models with application to skin detection", 2002) starts from seeds placed by the keypoints
and is refined by expectation-maximisation under a prior on where on a head the class can lie.
Glasses and beards are regions of the face; they cover what they name and some skin round it.

Lengths and heights are in eye spans, the distance between the outer eye corners.
"""

from pathlib import Path

import cv2
import numpy as np

from input_pipeline.faces.geometry import CONTOURS
from input_pipeline.kinds import KINDS
from input_pipeline.masks.segmenters import Pictures, Segmenter

_MODEL = Path(__file__).parents[2] / "assets" / "selfie_segmentation.tflite"
_SIZE = 256  # working size, the input of the selfie model; an eye span is about 60 pixels
_BINS = 32  # per axis of a colour histogram
_ROUNDS = 4  # of expectation-maximisation
_BACKGROUND, _SKIN, _CLOTHES, _HAIR, _HAT = range(5)

# Face-mesh indices.
_FOREHEAD, _CHIN = 10, 152
_EYE_CORNERS, _CHEEKBONES, _BROWS = (33, 263), (234, 454), (105, 334)
_TEMPLES = (127, 356)  # side of the face at the height of the eyes
_OVAL = CONTOURS["oval"][0]
_LOWER_OVAL = _OVAL[_OVAL.index(454) : _OVAL.index(234) + 1]


def _smoothing(darker, lighter):
    """Blur of one histogram axis, [_BINS, _BINS] with columns of sum 1; widths in bins."""
    step = np.subtract.outer(np.arange(_BINS), np.arange(_BINS)).astype(np.float32)
    kernel = np.exp(-0.5 * (step / np.where(step > 0, lighter, darker)) ** 2)
    return kernel / kernel.sum(0)


_CHROMA, _LIGHT = _smoothing(1.2, 1.2), _smoothing(1.5, 1.5)
_SKIN_LIGHT = _smoothing(2.5, 4.5)  # a forehead shines; shadow on skin is likelier hair


class HeuristicSegmenter(Segmenter):
    """Masks from keypoints, MediaPipe's person mask and colour; presence comes from a label.

    Hair, beard and hat never overlap.
    """

    name = "heuristic"
    version = "1"
    tells_presence = False
    kinds = frozenset(KINDS)

    def __init__(self):
        from ai_edge_litert.interpreter import Interpreter

        self._selfie = Interpreter(str(_MODEL), num_threads=1)
        self._selfie.allocate_tensors()

    def _masks(self, pictures: Pictures, present: frozenset[str]) -> dict[str, np.ndarray]:
        shape = pictures.images.shape[:3]
        masks = {kind: np.zeros(shape, bool) for kind in present}
        for i, (image, keypoints) in enumerate(zip(pictures.images, pictures.keypoints)):
            for kind, mask in self._masks_of(image, keypoints, present).items():
                masks[kind][i] = _resized(mask.astype(np.float32), shape[1]) > 0.5
        return masks

    def _masks_of(self, image, keypoints, present):
        """Masks of one picture at working size."""
        # A pixel's centre lies at its index.
        face = _Face((keypoints + 0.5) * (_SIZE / len(image)) - 0.5)
        masks = {}
        if present & {"hair", "beard", "hat"}:
            masks = self._head_masks(_resized(image, _SIZE), face, present)
        if "glasses" in present:
            masks["glasses"] = _glasses(face)
        return masks

    def _head_masks(self, image, face, present):
        """Hat, beard and hair at working size, those of them that are present."""
        label = _classify(image, face, self._person(image), present)
        masks = {}
        taken = label == _BACKGROUND
        if "hat" in present:
            hat = _parts(label == _HAT, face.unit, 0.03, touching=face.height > face.top)
            masks["hat"] = _filled(hat, face.unit)
            taken |= masks["hat"]
        if "beard" in present:
            masks["beard"] = _beard(face, label == _HAIR) & ~taken
            taken |= masks["beard"]
        if "hair" in present:
            masks["hair"] = _hair(face, (label == _HAIR) & ~taken) & ~taken
        return masks

    def _person(self, image):
        """Probability of person, float32 [_SIZE, _SIZE], the mean over both mirror images."""
        (source,), (result,) = self._selfie.get_input_details(), self._selfie.get_output_details()
        maps = []
        for step in (1, -1):
            picture = image[None, :, ::step].astype(np.float32) / 255
            self._selfie.set_tensor(source["index"], picture)
            self._selfie.invoke()
            maps.append(self._selfie.get_tensor(result["index"])[0, :, ::step, 0])
        return np.mean(maps, axis=0)


class _Face:
    """Where every pixel of the working picture lies on the head. Maps are [_SIZE, _SIZE].

    Attributes:
      points: [478, 3], pixels. unit: pixels per eye span.
      height, side: maps, height over the chin along the axis chin-forehead, distance from it.
      nose, eye, brow, top: heights of nose base, eyes, brows and the mesh's end on the forehead.
      oval: bool map, inside the face mesh.
      inside, outside: maps, distance to the edge of the oval, 0 on the other side of it.
    """

    def __init__(self, points):
        self.points = points
        xy = points[:, :2]
        up = xy[_FOREHEAD] - xy[_CHIN]
        # A turned head shortens the eye span and not the face; a nodding one the other way.
        span = np.linalg.norm(xy[_EYE_CORNERS[1]] - xy[_EYE_CORNERS[0]])
        self.unit = max(span, 0.8 * np.linalg.norm(xy[_FOREHEAD] - xy[2]), 1.0)
        up = up / max(np.linalg.norm(up), 1.0) / self.unit
        y, x = np.mgrid[:_SIZE, :_SIZE].astype(np.float32)
        cx, cy = xy[list(_CHEEKBONES)].mean(0)
        self.height = (x - xy[_CHIN, 0]) * up[0] + (y - xy[_CHIN, 1]) * up[1]
        self.side = np.abs((y - cy) * up[0] - (x - cx) * up[1])
        levels = ((2,), _EYE_CORNERS, _BROWS, (_FOREHEAD,))
        heights = [(xy[list(level)].mean(0) - xy[_CHIN]) @ up for level in levels]
        self.nose, self.eye, self.brow, self.top = map(float, heights)
        self.oval = self.within("oval")
        self.inside, self.outside = (_depth(m) / self.unit for m in (self.oval, ~self.oval))

    def within(self, *names):
        """Bool map: inside one of the named contours."""
        mask = np.zeros((_SIZE, _SIZE), np.uint8)
        for chain in (chain for name in names for chain in CONTOURS[name]):
            _fill(mask, cv2.convexHull(self.points[list(chain), :2].astype(np.float32)))
        return mask > 0


def _classify(image, face, person, present):
    """Which pixel is background, skin, clothes, hair or hat: int [_SIZE, _SIZE].

    person: probability that a pixel belongs to a person, clothes and hat included.
    """
    lab = cv2.cvtColor(cv2.GaussianBlur(image, (0, 0), 0.8), cv2.COLOR_RGB2LAB)
    light, a, b = np.moveaxis(lab.astype(np.int32), -1, 0)
    a, b = (np.clip((channel - 64) // 4, 0, _BINS - 1) for channel in (a, b))
    bins = (light // 8 * _BINS + a) * _BINS + b
    seeds, baldness = _seeds(bins, face, person, present)
    prior = _prior(face, person, baldness, "hat" in present)
    trust = 0.5 + 0.5 * (seeds > 0.3)
    # The silhouette's very edge mixes two classes.
    trust[_SKIN:] *= _depth(person > 0.5) > 0.02 * face.unit
    # Below the jaw dark clothes would take the hair's colours over.
    trust[_HAIR] *= np.where(face.height < 0.1, 0.3, 1.0)
    weights = seeds
    for _ in range(_ROUNDS):
        score = np.empty(seeds.shape, np.float32)
        for i, weight in enumerate(weights):
            density = _log_density(bins, weight, _SKIN_LIGHT if i == _SKIN else _LIGHT)
            score[i] = cv2.GaussianBlur(np.maximum(density + prior[i], -20), (0, 0), 1.5)
        odds = np.exp(score - score.max(0))
        weights = trust * odds / odds.sum(0)
        weights[_SKIN] = np.maximum(weights[_SKIN], seeds[_SKIN] == 1)
    return np.where(person < 0.05, _BACKGROUND, score.argmax(0))


def _seeds(bins, face, person, present):
    """First weights of each class, [classes, _SIZE, _SIZE], and how bald the head looks, 0 .. 1."""
    height, side, outside = face.height, face.side, face.outside
    silhouette = person > 0.5
    sure = face.oval & ~face.within("lips", "eyes", "brows") & (face.inside > 0.08)
    sure &= height < (face.eye - 0.2 if "glasses" in present else face.brow)
    if "beard" in present:
        sure &= height > face.nose
    # From the cheeks the skin model climbs the forehead, over highlights, as far as colour allows.
    forehead = silhouette & (height > face.brow) & (face.oval | ((outside < 0.3) & (side < 0.7)))
    skin = sure
    for _ in range(3):
        density = _log_density(bins, skin, _SKIN_LIGHT)
        floor = np.quantile(density[sure], 0.1) if sure.any() else 0.0
        skin = np.maximum(sure, forehead * _sigmoid(2 * (density - floor) + 1))
    other = _sigmoid(2 * (floor - density))  # not skin

    depth = _depth(silhouette) / face.unit
    rim = silhouette & ~face.oval & (height > face.brow + 0.1) & (depth > 0.05) & (depth < 0.35)
    if "hat" in present:
        beside = silhouette & (outside > 0.03) & (outside < 0.3)
        hair = (beside & (height > 0.1) & (height < face.brow)) * other
        hats, baldness = [rim & (height > face.top + 0.15) & (side < 0.6)], 0.0
    else:
        hair = rim * (other + 0.01)
        crown = other[rim & (height > face.top + 0.3) & (side < 0.6)]
        hats, baldness = [], float(_sigmoid(12 * (0.5 - crown.mean()))) if crown.size else 0.0
    # Long hair may cover a shoulder, hardly the middle of the chest.
    density, sure = _log_density(bins, hair, _LIGHT), hair > 0.3
    like_hair = density > (np.quantile(density[sure], 0.2) if sure.any() else 0.0)
    low = silhouette & (height < -0.5)
    clothes = other * ((low & (side < 0.45)) + (low & (side > 1.3)) * (1 - 0.95 * like_hair))
    return np.stack([person < 0.1, skin, clothes, hair, *hats]), baldness


def _prior(face, person, baldness, with_hat):
    """Log prior of each class by place, [classes, _SIZE, _SIZE]; tuned by eye on real portraits."""
    height, side, oval, outside = face.height, face.side, face.oval, face.outside
    above = height - face.top
    below = np.clip(-0.1 - height, 0, None)

    hair = (1 - 2 * baldness) * np.clip(3 * above, 0, 0.7)
    fringe = np.clip(2 * above, -1, 0)
    hair += oval * np.where(height < face.brow + 0.15, -10 * face.inside, fringe)
    hair -= 3 * np.clip(side - 1.4, 0, None)
    hair -= np.clip(below, 0, 1) + 2 * np.clip(0.6 - side, 0, None) * np.clip(4 * below, 0, 3)
    hair -= baldness * np.clip(6 * (0.9 - height), 0, 6)

    skin = oval - np.clip(-0.5 * (1 + height), 0, 1)
    skin -= (1 - baldness) * np.clip(3 * (above - 0.3), 0, 2)
    beyond_ears = np.clip(5 * (height + 0.1), 0, 1) * np.clip(8 * (outside - 0.15), 0, 3)
    skin -= beyond_ears * (~oval & (above < 0))

    shoulder = -0.1 + 0.6 * np.clip(side - 0.4, 0, 0.7)  # rises beside the neck
    clothes = np.clip(6 * (shoulder - height), -12, 0) - 8 * oval - 1

    # The selfie model is seldom in doubt on a person: doubt speaks for the background.
    chance = np.clip(person, 0.001, 0.999)
    background = np.log((1 - chance) / chance) + 1.5

    hat = np.clip(6 * (height - face.brow + 0.1), -3, 0) + np.clip(20 * height + 4, -9, 0)
    hat += np.clip(5 * (outside - 0.25), -3, 1) - 6 * (oval & (above < -0.15))
    if with_hat:
        skin, hair = (prior - np.clip(4 * above, 0, 5) for prior in (skin, hair))
        hair += ~oval & (outside < 0.3) & (height < face.brow)
    return np.stack([background, skin, clothes, hair, hat])


def _hair(face, hair):
    """The hair class without specks and collars, and off the middle of the face."""
    middle = face.oval & (face.height < face.brow - 0.12) & (face.inside > 0.15)
    hair = _morph(cv2.MORPH_CLOSE, _morph(cv2.MORPH_OPEN, hair & ~middle, 2), 2)
    # A dark coat touches dark hair along a thin line at the neck.
    cut = _morph(cv2.MORPH_OPEN, hair, round(0.06 * face.unit))
    hair = np.where(face.height < 0.6, cut, hair)
    near = (face.height > 0.75) & (face.outside < 0.3)
    return _filled(_parts(hair, face.unit, 0.03, touching=near), face.unit) & ~middle


def _beard(face, hair):
    """The lower face without the lips, and what hangs from it."""
    xy = face.points[:, :2]
    jaw = xy[list(_LOWER_OVAL)] * 1.08 - xy[1] * 0.08  # away from the tip of the nose
    mask = np.zeros((_SIZE, _SIZE), np.uint8)
    _fill(mask, np.concatenate([jaw, xy[[205, 98, 2, 327, 425]]]))
    hanging = hair & (face.height < 0.1) & (face.side < 0.35) & (face.outside < 0.5)
    hanging = _morph(cv2.MORPH_OPEN, hanging, round(0.06 * face.unit))
    beard = _parts((mask > 0) | hanging, face.unit, 0.03, touching=mask > 0)
    return beard & ~face.within("lips")


def _glasses(face):
    """Frames, lenses, bridge and temples, laid on the face in three dimensions."""
    points, unit = face.points, face.unit
    right = points[_EYE_CORNERS[1]] - points[_EYE_CORNERS[0]]
    right = right / np.linalg.norm(right) * unit
    forward = np.cross(right, points[_FOREHEAD] - points[_CHIN])
    forward = forward / np.linalg.norm(forward) * unit
    up = np.cross(forward, right) / unit

    angle = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    # A superellipse of degree 4: between an oval and a rectangle.
    x, y = (np.sign(f) * np.sqrt(np.abs(f)) for f in (np.cos(angle), np.sin(angle)))
    rim = 0.36 * x[:, None] * right + 0.27 * y[:, None] * up
    mask = np.zeros((_SIZE, _SIZE), np.uint8)
    bridge = []
    for eye, temple, outward in zip(CONTOURS["eyes"], _TEMPLES, (-right, right)):
        centre = points[list(eye)].mean(0) + 0.08 * forward + 0.04 * outward - 0.05 * up
        _fill(mask, (centre + rim)[:, :2])
        hinge = centre + 0.34 * outward + 0.08 * up
        _draw(mask, [hinge, points[temple] + 0.06 * outward - 0.15 * forward], 0.13 * unit)
        bridge.append(centre + 0.05 * up)
    _draw(mask, bridge, 0.2 * unit)
    return mask > 0


def _fill(mask, polygon):
    cv2.fillPoly(mask, [np.round(polygon * 16).astype(np.int32)], 1, shift=4)


def _draw(mask, line, width):
    points = np.round(np.array(line)[:, :2] * 16).astype(np.int32)
    cv2.polylines(mask, [points], False, 1, max(1, round(float(width))), shift=4)


def _depth(mask):
    """Distance in pixels from each pixel of the mask to its edge."""
    return cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, 5)


def _morph(operation, mask, radius):
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    return cv2.morphologyEx(mask.astype(np.uint8), operation, disc) > 0


def _parts(mask, unit, area, touching):
    """The connected parts that are larger than `area` and touch a region."""
    _, part, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=4)
    keep = stats[:, cv2.CC_STAT_AREA] > area * unit**2
    keep &= np.bincount(part[touching], minlength=len(keep)) > 0
    return keep[part] & mask


def _filled(mask, unit):
    """Closes holes smaller than an eye."""
    return ~_parts(~mask, unit, 0.12, touching=~mask)


def _resized(image, size):
    interpolation = cv2.INTER_AREA if size < len(image) else cv2.INTER_LINEAR
    return cv2.resize(image, (size, size), interpolation=interpolation)


def _log_density(bins, weight, light):
    """Log density at each pixel of the colours that the weights pick; flat where they pick none."""
    counts = np.bincount(bins.ravel(), np.ravel(weight), _BINS**3).astype(np.float32)
    if counts.sum() < 5:
        return np.full(bins.shape, -12.0, np.float32)
    cube = (light @ counts.reshape(_BINS, -1)).reshape(_BINS, _BINS, _BINS)
    cube = _CHROMA @ cube @ _CHROMA.T
    return np.log(cube.ravel() / counts.sum() + 1e-5)[bins]


def _sigmoid(x):
    return 1 / (1 + np.exp(-x))
