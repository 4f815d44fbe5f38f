"""Who is in the picture: parameters in groups, so that an attribute is one group to be exchanged.

A `Person` is a JAX pytree of float32 leaves: `dataclasses.replace(a, hair=b.hair)` is A with B's
hair, and people of equal structure can be interpolated or stacked leaf by leaf. An attribute that
is not worn keeps its parameters and has `worn` 0.
"""

import dataclasses

import jax
import numpy as np


def _group(cls):
    """A frozen dataclass whose fields are the leaves of a pytree."""
    return jax.tree_util.register_dataclass(dataclasses.dataclass(frozen=True)(cls))


@_group
class Face:
    """Bones and colours. Factors of the mean face unless said otherwise; colours RGB in [0, 1]."""

    width: float
    jaw: float
    chin: float
    cheek: float
    brow_ridge: float
    eye_gap: float
    eye_height: float
    eye_tilt: float  # slope: outer corners up > 0
    nose_length: float
    nose_width: float
    mouth_width: float
    lip: float  # thickness
    ear: float
    skin: np.ndarray
    lip_colour: np.ndarray
    eye_colour: np.ndarray
    brow_colour: np.ndarray
    brow_thickness: float
    brow_tilt: float
    brow_arch: float
    lashes: float  # 0 to 1, like all below
    lid_shadow: float
    lid_colour: np.ndarray
    blush: float
    freckles: float
    age: float  # lines on forehead, beside eyes and mouth, bags under the eyes


@_group
class Hair:
    """All styles are one shape; see STYLES for what makes a style."""

    worn: float
    colour: np.ndarray
    grey: float  # share of grey strands
    volume: float  # thickness of the cap over the skull
    hairline: float  # height above which the forehead has hair
    temples: float  # how far the hairline recedes beside the forehead
    fringe: float  # how far hair hangs into the forehead, 0 to 1
    sweep: float  # fringe to one side, -1 to 1
    part: float  # place of the parting, -1 to 1; a groove in the cap
    side: float  # height down to which hair covers the sides
    length: float  # of the hair behind and beside the neck, 0 = none
    curl: float  # size of the curls, 0 = straight
    wave: float
    bun: float  # size, 0 = none
    tails: float  # size of two tails, 0 = none
    crown: float  # height above which the head is bald
    stubble: float  # 1 = shaved: skin shows through


@_group
class Glasses:
    worn: float
    width: float  # half-width of a lens
    height: float
    square: float  # exponent of the superellipse: 2 round, 5 rectangular
    cat: float  # outer upper corner drawn out
    drop: float  # lower outer part drawn out (aviator)
    rim: float  # radius of the frame
    lower: float  # 1 = full rim, 0 = half rim
    colour: np.ndarray
    tint: float  # darkness of the lenses, 0 to 1


@_group
class Beard:
    worn: float
    moustache: float  # 1 = has one; the same for the next two
    chin: float
    cheeks: float
    length: float  # 0 = stubble
    colour: np.ndarray
    grey: float


@_group
class Hat:
    worn: float
    height: float
    kind: float  # 0 beanie, 1 wide brim, 2 cap, 3 beret, 4 bowler, 5 headband
    colour: np.ndarray
    band: np.ndarray  # second colour


@_group
class Clothes:
    kind: float  # 0 turtleneck, 1 round neck, 2 shirt collar, 3 hood
    colour: np.ndarray
    second: np.ndarray
    stripes: float
    shoulders: float


@_group
class Lighting:
    """Light and background, which a person keeps in all clips."""

    light: np.ndarray  # direction to it, unit length
    light_colour: np.ndarray
    ambient: float
    background: np.ndarray  # [2, 3], two colours
    background_scale: float
    background_seed: float


@_group
class Person:
    face: Face
    hair: Hair
    glasses: Glasses
    beard: Beard
    hat: Hat
    clothes: Clothes
    lighting: Lighting

    def worn(self) -> frozenset[str]:
        """The attribute kinds this person shows."""
        return frozenset(kind for kind in KINDS if getattr(self, kind).worn > 0.5)


KINDS = ("hair", "glasses", "beard", "hat")

# What departs from the plain style; two numbers are the ends of a range.
STYLES = {
    "shaved": dict(volume=0.0, stubble=1.0, side=(0.0, 0.1), temples=(0.0, 0.6)),
    "crew cut": dict(volume=(0.04, 0.1), side=(0.0, 0.15), temples=(0.0, 0.8)),
    "side part": dict(
        volume=(0.25, 0.4), side=(0.05, 0.2), part=(0.5, 0.8), fringe=(0.05, 0.25), sweep=(0.6, 1.0)
    ),
    "quiff": dict(volume=(0.4, 0.6), side=(0.1, 0.3), hairline=(0.66, 0.72), wave=(0.4, 1.0)),
    "receding": dict(
        volume=(0.08, 0.2), side=(-0.2, 0.0), temples=(0.9, 1.4), hairline=(0.78, 0.9)
    ),
    "balding": dict(volume=(0.12, 0.25), side=(-0.3, -0.15), crown=(0.42, 0.6), hairline=0.95),
    "bowl cut": dict(volume=(0.2, 0.35), side=(-0.1, 0.0), fringe=(0.75, 0.95)),
    "curls": dict(volume=(0.5, 0.7), curl=(0.04, 0.055), side=(-0.15, 0.0), fringe=(0.0, 0.35)),
    "afro": dict(volume=(0.95, 1.2), curl=(0.025, 0.035), side=(-0.35, -0.2), hairline=0.74),
    "bob": dict(volume=(0.25, 0.4), length=(0.18, 0.3), side=-0.4, fringe=(0.0, 0.9)),
    "long straight": dict(volume=(0.15, 0.3), length=(0.6, 1.0), side=-0.4, part=(-0.3, 0.3)),
    "long side part": dict(
        volume=(0.3, 0.4), length=(0.5, 1.0), side=-0.4, part=(0.4, 0.7), fringe=(0.25, 0.5),
        sweep=(0.7, 1.0), wave=(0.3, 1.0),
    ),
    "long waves": dict(
        volume=(0.35, 0.55), length=(0.5, 0.9), side=-0.4, curl=(0.02, 0.035), wave=1.0
    ),
    "bun": dict(volume=(0.05, 0.15), side=(0.0, 0.1), bun=(0.75, 1.1), hairline=(0.66, 0.76)),
    "tails": dict(
        volume=(0.1, 0.2), side=(-0.1, 0.1), tails=(0.8, 1.15), part=0.0, fringe=(0.0, 0.8)
    ),
}  # fmt: skip
_PLAIN = dict(
    volume=0.2, hairline=(0.68, 0.8), temples=(0.0, 0.3), fringe=0.0, sweep=0.0, part=(-1.0, 1.0),
    side=0.0, length=0.0, curl=0.0, wave=(0.0, 0.5), bun=0.0, tails=0.0, crown=9.0, stubble=0.0,
)  # fmt: skip

_FRAMES = {
    "round": dict(width=(0.19, 0.22), height=(0.18, 0.21), square=2.0, rim=(0.010, 0.018)),
    "oval": dict(width=(0.21, 0.24), height=(0.14, 0.16), square=2.2, rim=(0.010, 0.016)),
    "square": dict(width=(0.21, 0.24), height=(0.17, 0.20), square=4.5, rim=(0.022, 0.034)),
    "narrow": dict(width=(0.21, 0.24), height=(0.11, 0.13), square=5.0, rim=(0.010, 0.018)),
    "cat eye": dict(width=(0.21, 0.23), height=(0.14, 0.17), square=2.6, cat=1.0, rim=0.024),
    "aviator": dict(width=(0.22, 0.24), height=(0.19, 0.21), square=2.4, drop=1.0, rim=0.009),
    "half rim": dict(width=(0.21, 0.24), height=(0.13, 0.16), square=3.2, rim=0.016, lower=0.0),
}
_BEARDS = {
    "stubble": dict(moustache=1.0, chin=1.0, cheeks=1.0, length=0.0),
    "moustache": dict(moustache=1.0, chin=0.0, cheeks=0.0, length=(0.5, 0.9)),
    "goatee": dict(moustache=1.0, chin=1.0, cheeks=0.0, length=(0.4, 0.8)),
    "chin beard": dict(moustache=0.0, chin=1.0, cheeks=1.0, length=(0.3, 0.7)),
    "short full": dict(moustache=1.0, chin=1.0, cheeks=1.0, length=(0.25, 0.5)),
    "long full": dict(moustache=1.0, chin=1.0, cheeks=1.0, length=(0.9, 1.4)),
}

_SKINS = [(0.98, 0.84, 0.76), (0.95, 0.77, 0.66), (0.90, 0.69, 0.55), (0.82, 0.60, 0.45)]
_SKINS += [(0.68, 0.47, 0.34), (0.53, 0.35, 0.25), (0.41, 0.27, 0.20), (0.32, 0.21, 0.16)]
_DARK_HAIR = [(0.05, 0.04, 0.04), (0.11, 0.07, 0.05), (0.18, 0.11, 0.07)]
_LIGHT_HAIR = [(0.30, 0.18, 0.10), (0.46, 0.30, 0.16), (0.66, 0.47, 0.25), (0.84, 0.70, 0.45)]
_LIGHT_HAIR += [(0.50, 0.19, 0.08), (0.38, 0.14, 0.08)]
_DYED_HAIR = [(0.80, 0.35, 0.50), (0.25, 0.40, 0.75), (0.20, 0.55, 0.45), (0.55, 0.25, 0.65)]
_DARK_EYES = [(0.13, 0.07, 0.04), (0.24, 0.13, 0.07), (0.33, 0.20, 0.09)]
_LIGHT_EYES = [(0.20, 0.36, 0.52), (0.24, 0.40, 0.28), (0.36, 0.42, 0.46), (0.40, 0.33, 0.14)]
_RIMS = [(0.04, 0.04, 0.05), (0.45, 0.34, 0.14), (0.33, 0.06, 0.07), (0.52, 0.53, 0.57)]
_RIMS += [(0.28, 0.16, 0.08), (0.08, 0.14, 0.30)]
_RARITY = {"hair": 0.93, "glasses": 0.4, "beard": 0.4, "hat": 0.3}


class _Dice:
    """Draws from a Generator."""

    def __init__(self, rng: np.random.Generator):
        self.rng = rng

    def between(self, low: float, high: float) -> float:
        return float(self.rng.uniform(low, high))

    def chance(self, probability: float) -> float:
        return float(self.rng.random() < probability)

    def one(self, choices):
        return choices[self.rng.integers(len(choices))]

    def shade(self, choices, spread: float = 0.06) -> np.ndarray:
        """A colour near one of the choices."""
        return np.clip(self.one(choices) * self.rng.uniform(1 - spread, 1 + spread, 3), 0, 1)

    def paint(self, saturation: tuple = (0.05, 0.65), value: tuple = (0.15, 0.85)) -> np.ndarray:
        """Any colour of a dyed or painted thing."""
        hue, s, v = self.between(0, 6), self.between(*saturation), self.between(*value)
        wheel = np.clip(np.abs((hue + np.array([0, 4, 2])) % 6 - 3) - 1, 0, 1)
        return v * (1 - s + s * wheel)

    def settings(self, *tables: dict) -> dict:
        """Merged tables, every range replaced by a draw from it."""
        merged = {key: value for table in tables for key, value in table.items()}
        return {
            key: self.between(*value) if isinstance(value, tuple) else float(value)
            for key, value in merged.items()
        }


def sample_person(rng: np.random.Generator, worn: dict[str, bool] | None = None) -> Person:
    """Draws a person; all leaves float32.

    Args:
      rng: the person depends on it and on nothing else; what is worn changes no other parameter.
      worn: which attribute kinds the person must or must not show; the rest is drawn.
    """
    dice = _Dice(rng)
    tone = int(rng.integers(len(_SKINS)))
    fair, age = tone < 4, dice.between(0, 1) ** 1.5
    hair_colour = dice.shade(_LIGHT_HAIR + _DARK_HAIR if fair else _DARK_HAIR, 0.12)
    grey = np.clip(dice.between(-0.3, 1.3) * (age - 0.45) * 2.2, 0, 1)
    natural = hair_colour * (1 - grey) + grey * np.array([0.62, 0.62, 0.64])
    if dice.chance(0.1):
        hair_colour, grey = dice.shade(_DYED_HAIR, 0.15), 0.0
    face = _sample_face(dice, tone, age, natural)
    person = Person(
        face=face,
        hair=_sample_hair(dice, hair_colour, grey),
        glasses=_sample_glasses(dice),
        beard=_sample_beard(dice, natural, grey),
        hat=_sample_hat(dice),
        clothes=_sample_clothes(dice),
        lighting=_sample_lighting(dice),
    )
    drawn = {kind: dice.chance(probability) for kind, probability in _RARITY.items()}
    for kind in KINDS:
        shown = float((worn or {}).get(kind, drawn[kind]))
        group = dataclasses.replace(getattr(person, kind), worn=shown)
        person = dataclasses.replace(person, **{kind: group})
    return jax.tree.map(np.float32, person)


def _sample_face(dice: _Dice, tone: int, age: float, natural: np.ndarray) -> Face:
    skin = np.clip(_SKINS[tone] * dice.rng.uniform(0.96, 1.04, 3), 0, 1)
    dark = np.array([0.42, 0.20, 0.18]) if tone > 4 else np.array([0.70, 0.32, 0.30])
    painted = dice.chance(0.2)
    lips = dice.shade([(0.62, 0.10, 0.16), (0.75, 0.25, 0.32), (0.45, 0.10, 0.20)])
    return Face(
        width=dice.between(0.93, 1.08), jaw=dice.between(0.86, 1.10), chin=dice.between(0.8, 1.2),
        cheek=dice.between(0.88, 1.14), brow_ridge=dice.between(0.7, 1.2),
        eye_gap=dice.between(0.95, 1.07), eye_height=dice.between(0.85, 1.2),
        eye_tilt=dice.between(-0.04, 0.09), nose_length=dice.between(0.75, 1.25),
        nose_width=dice.between(0.82, 1.28), mouth_width=dice.between(0.88, 1.14),
        lip=dice.between(0.7, 1.25), ear=dice.between(0.85, 1.2), skin=skin,
        lip_colour=lips if painted else dark * dice.between(0.85, 1.1) * (0.5 + 0.5 * skin[0]),
        eye_colour=dice.shade(_LIGHT_EYES + _DARK_EYES if tone < 4 else _DARK_EYES),
        brow_colour=natural * 0.6 + 0.01, brow_thickness=dice.between(0.65, 1.3),
        brow_tilt=dice.between(-0.04, 0.03), brow_arch=dice.between(0.5, 1.5),
        lashes=dice.between(0.3, 1), lid_shadow=dice.chance(0.3) * dice.between(0.2, 1),
        lid_colour=dice.paint(), blush=dice.between(0.2, 0.9),
        freckles=dice.chance(0.25) * dice.between(0.3, 1) * (tone < 3), age=age,
    )  # fmt: skip


def _sample_hair(dice: _Dice, colour: np.ndarray, grey: float) -> Hair:
    style = dice.settings(_PLAIN, STYLES[dice.one(list(STYLES))])
    if dice.chance(0.5):
        style["part"], style["sweep"] = -style["part"], -style["sweep"]
    return Hair(worn=1.0, colour=colour, grey=grey, **style)


def _sample_glasses(dice: _Dice) -> Glasses:
    shape = dice.settings(dict(cat=0.0, drop=0.0, lower=1.0), _FRAMES[dice.one(list(_FRAMES))])
    tint = dice.one([0.0, 0.0, 0.06, 0.3, 0.85])
    return Glasses(worn=1.0, colour=dice.shade(_RIMS, 0.1), tint=tint, **shape)


def _sample_beard(dice: _Dice, colour: np.ndarray, grey: float) -> Beard:
    shape = dice.settings(_BEARDS[dice.one(list(_BEARDS))])
    return Beard(worn=1.0, colour=colour * dice.between(0.75, 1.0), grey=grey, **shape)


def _sample_hat(dice: _Dice) -> Hat:
    return Hat(
        worn=1.0, height=dice.between(0.2, 0.9), kind=float(dice.rng.integers(6)),
        colour=dice.paint(value=(0.1, 0.75)), band=dice.paint(value=(0.08, 0.8)),
    )  # fmt: skip


def _sample_clothes(dice: _Dice) -> Clothes:
    return Clothes(
        kind=float(dice.rng.integers(4)), colour=dice.paint(value=(0.1, 0.8)), second=dice.paint(),
        stripes=dice.chance(0.3), shoulders=dice.between(0.92, 1.1),
    )  # fmt: skip


def _sample_lighting(dice: _Dice) -> Lighting:
    light = np.array([dice.between(-0.9, 0.9), dice.between(0.2, 0.9), dice.between(0.7, 1.2)])
    warmth = dice.between(-0.08, 0.10)
    return Lighting(
        light=light / np.linalg.norm(light),
        light_colour=np.array([1 + warmth, 1.0, 1 - warmth]) * dice.between(0.78, 0.98),
        ambient=dice.between(0.75, 1.05),
        background=np.stack([dice.paint((0.0, 0.5), (0.15, 0.9)) for _ in range(2)]),
        background_scale=dice.between(0.5, 1.8), background_seed=dice.between(0, 50),
    )  # fmt: skip
