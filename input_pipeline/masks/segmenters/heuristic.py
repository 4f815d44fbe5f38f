"""The default segmenter, which needs no face parser.

Hair and hats follow the picture: one colour histogram per class (as in Jones and Rehg, "Statistical
color models with application to skin detection", 2002) starts from seeds placed by the keypoints
and is refined by expectation-maximisation under a prior on where on a head the class can lie.
All frames of a clip share the histograms, and masks are averaged along the optical flow.
Glasses and beards are regions of the face; they cover what they name and some skin round it.

Lengths and heights are in outer-canthal distances, the distance between the outer eye corners.
"""

import dataclasses
from pathlib import Path

import cv2
import numpy as np

from input_pipeline.faces.geometry import CONTOURS
from input_pipeline.kinds import KINDS
from input_pipeline.masks.segmenters import Pictures, Segmenter
from input_pipeline.masks.segmenters.head import (
    CHIN,
    EYE_CORNERS,
    FOREHEAD,
    SIZE,
    Head,
    depth_of,
    fill,
)

_MODEL = Path(__file__).parents[2] / "assets" / "selfie_segmentation.tflite"
_BINS = 32  # per axis of a colour histogram
_ROUNDS = 4  # of expectation-maximisation
_MODEL_FRAMES = 8  # of a clip, from which the colours are learned
# How much of a mask comes from the frame before, moved by the optical flow, where the two look
# alike: within so many grey levels.
_MEMORY, _ALIKE = 0.85, 16.0
_BACKGROUND, _SKIN, _CLOTHES, _HAIR, _HAT = range(5)

# Face-mesh indices.
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
    version = "2"
    tells_presence = False
    kinds = frozenset(KINDS)

    def __init__(self):
        from ai_edge_litert.interpreter import Interpreter

        self._selfie = Interpreter(str(_MODEL), num_threads=1)
        self._selfie.allocate_tensors()

    def _masks(self, pictures: Pictures, present: frozenset[str]) -> dict[str, np.ndarray]:
        count, size = pictures.images.shape[:2]
        # A pixel's centre lies at its index.
        points = (pictures.keypoints + 0.5) * (SIZE / size) - 0.5
        kinds = sorted(present & {"hair", "beard", "hat"})
        masks = {kind: np.zeros((count, size, size), bool) for kind in present}
        if kinds:
            for i, shares in enumerate(self._head_masks(pictures.images, points, kinds)):
                for kind, share in zip(kinds, shares):
                    masks[kind][i] = _resized(share, size) > 0.5
        if "glasses" in present:
            for i in range(count):
                shape = _glasses(Head(points[i])).astype(np.float32)
                masks["glasses"][i] = _resized(shape, size) > 0.5
        return masks

    def _head_masks(self, images, points, kinds):
        """Where the kinds are, float32 [T, kinds, SIZE, SIZE]; above 0.5 never two of them."""
        present = frozenset(kinds)
        chosen = np.linspace(0, len(images) - 1, min(len(images), _MODEL_FRAMES)).round()
        views = {i: self._view(images[i], points[i]) for i in chosen.astype(int)}
        colours = _Colours.of(list(views.values()), present)
        masks, greys = [], []
        for i in range(len(images)):
            view = views.get(i) or self._view(images[i], points[i])
            found = _shaped(view.head, colours.label(view), present, colours.baldness)
            masks.append([found[kind] for kind in kinds])
            greys.append(cv2.cvtColor(_resized(images[i], SIZE), cv2.COLOR_RGB2GRAY))
        masks = np.array(masks, np.float32)
        # Backwards, too: a mask owes as much to the frames after it as to those before.
        return (_steadied(masks, greys) + _steadied(masks[::-1], greys[::-1])[::-1]) / 2

    def _view(self, image, points):
        small = _resized(image, SIZE)
        return _View(_colour_bins(small), Head(points), self._person(small))

    def _person(self, image):
        """Probability of person, float32 [SIZE, SIZE], the mean over both mirror images."""
        (source,), (result,) = self._selfie.get_input_details(), self._selfie.get_output_details()
        maps = []
        for step in (1, -1):
            picture = image[None, :, ::step].astype(np.float32) / 255
            self._selfie.set_tensor(source["index"], picture)
            self._selfie.invoke()
            maps.append(self._selfie.get_tensor(result["index"])[0, :, ::step, 0])
        return np.mean(maps, axis=0)


@dataclasses.dataclass(frozen=True)
class _View:
    """One frame: bins int [SIZE, SIZE], of its pixels' colours; head; person, the probability
    that a pixel belongs to a person, clothes and hat included."""

    bins: np.ndarray
    head: Head
    person: np.ndarray


@dataclasses.dataclass(frozen=True)
class _Colours:
    """What the classes look like in a clip.

    tables: log density by bin, for each class. baldness: of the head, 0 .. 1.
    """

    tables: list[np.ndarray]
    baldness: float
    with_hat: bool

    @staticmethod
    def of(views, present):
        """Expectation-maximisation on all the views at once."""
        bins = np.stack([view.bins for view in views])
        seeds, balds = zip(*(_seeds(view.bins, view.head, view.person, present) for view in views))
        seeds = np.stack(seeds, 1)
        # A crown that shows hair in one frame is not bald: glare may look like a scalp in others.
        baldness, with_hat = min(balds), "hat" in present
        trust = 0.5 + 0.5 * (seeds > 0.3)
        for i, view in enumerate(views):
            # The silhouette's very edge mixes two classes.
            trust[_SKIN:, i] *= depth_of(view.person > 0.5) > 0.02 * view.head.unit
            # Below the jaw dark clothes would take the hair's colours over.
            trust[_HAIR, i] *= np.where(view.head.height < 0.1, 0.3, 1.0)
        weights = seeds
        for _ in range(_ROUNDS):
            tables = [
                _log_table(bins, weight, _SKIN_LIGHT if i == _SKIN else _LIGHT)
                for i, weight in enumerate(weights)
            ]
            colours = _Colours(tables, baldness, with_hat)
            odds = np.stack([colours.odds(view) for view in views], 1)
            weights = trust * odds
            weights[_SKIN] = np.maximum(weights[_SKIN], seeds[_SKIN] == 1)
        return colours

    def odds(self, view):
        """Probability of each class, [classes, SIZE, SIZE]."""
        prior = _prior(view.head, view.person, self.baldness, self.with_hat)
        score = np.stack([
            cv2.GaussianBlur(np.maximum(table[view.bins] + place, -20), (0, 0), 1.5)
            for table, place in zip(self.tables, prior)
        ])  # fmt: skip
        odds = np.exp(score - score.max(0))
        return odds / odds.sum(0)

    def label(self, view):
        """Which pixel is background, skin, clothes, hair or hat: int [SIZE, SIZE]."""
        return np.where(view.person < 0.05, _BACKGROUND, self.odds(view).argmax(0))


def _colour_bins(image):
    lab = cv2.cvtColor(cv2.GaussianBlur(image, (0, 0), 0.8), cv2.COLOR_RGB2LAB)
    light, a, b = np.moveaxis(lab.astype(np.int32), -1, 0)
    a, b = (np.clip((channel - 64) // 4, 0, _BINS - 1) for channel in (a, b))
    return (light // 8 * _BINS + a) * _BINS + b


def _seeds(bins, face, person, present):
    """First weights of each class, [classes, SIZE, SIZE], and how bald the head looks, 0 .. 1."""
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

    depth = depth_of(silhouette) / face.unit
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
    """Log prior of each class by place, [classes, SIZE, SIZE]; tuned by eye on real portraits."""
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


def _steadied(masks, greys):
    """Masks [T, kinds, SIZE, SIZE] of which each remembers those before it; greys: T pictures."""
    flow = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    grid = np.stack(np.meshgrid(*[np.arange(SIZE, dtype=np.float32)] * 2), -1)
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)  # DIS cuts the picture into one stripe per thread: results would differ
    steadied = [masks[0]]
    for mask, grey, last in zip(masks[1:], greys[1:], greys):
        place = grid + flow.calc(grey, last, None)
        gap = cv2.absdiff(grey, cv2.remap(last, place, None, cv2.INTER_LINEAR))
        gap = cv2.GaussianBlur(gap.astype(np.float32), (0, 0), 2)
        memory = _MEMORY * np.exp(-((gap / _ALIKE) ** 2))
        moved = [cv2.remap(one, place, None, cv2.INTER_LINEAR) for one in steadied[-1]]
        steadied.append(mask + memory * (np.array(moved) - mask))
    cv2.setNumThreads(threads)
    return np.array(steadied)


def _shaped(face, label, present, baldness):
    """Hat, beard and hair of one frame, those of them that are present."""
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
        hair = _hair(face, (label == _HAIR) & ~taken, label == _CLOTHES, baldness)
        masks["hair"] = hair & ~taken
    return masks


def _hair(face, hair, clothes, baldness):
    """The hair class without specks and collars, and off the middle of the face."""
    middle = face.oval & (face.height < face.brow - 0.12) & (face.inside > 0.15)
    thin = _morph(cv2.MORPH_OPEN, hair & ~middle, 1)
    hair = _morph(cv2.MORPH_CLOSE, _morph(cv2.MORPH_OPEN, thin, 2), 2)
    # A dark coat touches dark hair along a thin line at the neck; a strand hangs beside both.
    cut = _morph(cv2.MORPH_OPEN, hair, round(0.06 * face.unit))
    free = thin & ~_morph(cv2.MORPH_DILATE, clothes, round(0.06 * face.unit)) & (face.side > 0.6)
    hair = np.where(face.height < 0.6, cut, hair) | (free & (face.height < face.eye))
    if baldness > 0.5:
        # The edge of a bald scalp is as dark as hair, and thin; what is left at the sides is short.
        thick = _morph(cv2.MORPH_OPEN, hair, round(0.08 * face.unit))
        hair = np.where((face.height > face.brow + 0.2) & (face.side < 0.75), thick, hair)
        low = hair & (face.height < face.brow) & ((face.height < 0.6) | (face.outside > 0.25))
        if low.sum() < 0.6 * face.unit**2:  # else it is long hair under a glaring light
            hair &= ~low
    near = (face.height > 0.75) & (face.outside < 0.3)
    return _filled(_parts(hair, face.unit, 0.03, touching=near), face.unit) & ~middle


def _beard(face, hair):
    """The lower face without the lips, and what hangs from it."""
    xy = face.points[:, :2]
    jaw = xy[list(_LOWER_OVAL)] * 1.08 - xy[1] * 0.08  # away from the tip of the nose
    mask = np.zeros((SIZE, SIZE), np.uint8)
    fill(mask, np.concatenate([jaw, xy[[205, 98, 2, 327, 425]]]))
    hanging = hair & (face.height < 0.1) & (face.side < 0.35) & (face.outside < 0.5)
    hanging = _morph(cv2.MORPH_OPEN, hanging, round(0.06 * face.unit))
    beard = _parts((mask > 0) | hanging, face.unit, 0.03, touching=mask > 0)
    return beard & ~face.within("lips")


def _glasses(face):
    """Frames, lenses, bridge and temples, laid on the face in three dimensions."""
    points, unit = face.points, face.unit
    right = points[EYE_CORNERS[1]] - points[EYE_CORNERS[0]]
    right = right / np.linalg.norm(right) * unit
    forward = np.cross(right, points[FOREHEAD] - points[CHIN])
    forward = forward / np.linalg.norm(forward) * unit
    up = np.cross(forward, right) / unit

    angle = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    # A superellipse of degree 4: between an oval and a rectangle.
    x, y = (np.sign(f) * np.sqrt(np.abs(f)) for f in (np.cos(angle), np.sin(angle)))
    rim = 0.36 * x[:, None] * right + 0.27 * y[:, None] * up
    mask = np.zeros((SIZE, SIZE), np.uint8)
    bridge = []
    for eye, temple, outward in zip(CONTOURS["eyes"], _TEMPLES, (-right, right)):
        centre = points[list(eye)].mean(0) + 0.08 * forward + 0.04 * outward - 0.05 * up
        fill(mask, (centre + rim)[:, :2])
        hinge = centre + 0.34 * outward + 0.08 * up
        _draw(mask, [hinge, points[temple] + 0.06 * outward - 0.15 * forward], 0.13 * unit)
        bridge.append(centre + 0.05 * up)
    _draw(mask, bridge, 0.2 * unit)
    return mask > 0


def _draw(mask, line, width):
    points = np.round(np.array(line)[:, :2] * 16).astype(np.int32)
    cv2.polylines(mask, [points], False, 1, max(1, round(float(width))), shift=4)


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
    return _log_table(bins, weight, light)[bins]


def _log_table(bins, weight, light):
    """The same for each bin, [_BINS ** 3]."""
    counts = np.bincount(bins.ravel(), np.ravel(weight), _BINS**3).astype(np.float32)
    if counts.sum() < 5:
        return np.full(_BINS**3, -12.0, np.float32)
    cube = (light @ counts.reshape(_BINS, -1)).reshape(_BINS, _BINS, _BINS)
    cube = _CHROMA @ cube @ _CHROMA.T
    return np.log(cube.ravel() / counts.sum() + 1e-5)


def _sigmoid(x):
    return 1 / (1 + np.exp(-x))
