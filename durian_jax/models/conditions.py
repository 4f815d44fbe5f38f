"""Conditions besides the reference pictures: keypoints and face identity."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from durian_jax.models.conv import Conv

# Contours of MediaPipe's face mesh (478 points, 468-477 the irises) with a colour each, RGB in
# [0, 1]. Left and right are the subject's and get different colours.
_CONTOURS = (
    # Face oval.
    ((1.0, 1.0, 1.0),
     (10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377, 152,
      148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109, 10)),
    # Right and left brow.
    ((1.0, 0.5, 0.0), (46, 53, 52, 65, 55), (70, 63, 105, 66, 107)),
    ((0.0, 0.5, 1.0), (276, 283, 282, 295, 285), (300, 293, 334, 296, 336)),
    # Right and left eye.
    ((1.0, 0.0, 0.0),
     (33, 7, 163, 144, 145, 153, 154, 155, 133), (33, 246, 161, 160, 159, 158, 157, 173, 133)),
    ((0.0, 0.0, 1.0),
     (263, 249, 390, 373, 374, 380, 381, 382, 362), (263, 466, 388, 387, 386, 385, 384, 398, 362)),
    # Right and left iris.
    ((1.0, 1.0, 0.0), (469, 470, 471, 472, 469)),
    ((0.0, 1.0, 1.0), (474, 475, 476, 477, 474)),
    # Nose: bridge to base, wings.
    ((0.0, 1.0, 0.0),
     (168, 6, 197, 195, 5, 4, 1, 19, 94, 2), (48, 64, 98, 97, 2, 326, 327, 294, 278),
     (4, 45, 220, 115, 48), (4, 275, 440, 344, 278)),
    # Outer and inner lips, each upper and lower.
    ((1.0, 0.0, 1.0),
     (61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291),
     (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291)),
    ((0.5, 0.0, 1.0),
     (78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308),
     (78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308)),
)  # fmt: skip


def rasterize_keypoints(keypoints: jax.Array, size: int) -> jax.Array:
    """Draws face contours on black, on the device.

    Points sampled along every contour edge are splatted as Gaussians. A Gaussian is separable, so
    all splats of one colour are a single matrix product over points, [size, P] x [P, size].
    A point carries the length of line it stands for, which makes the brightness of a line
    independent of the sampling; crossing lines saturate smoothly at 1.

    Args:
        keypoints: [B, F, 478, 2], x and y in pixels of the size x size picture, pixel centres at
            whole numbers. Points outside the picture leave no trace.
        size: side of the picture. Lines are about 1.6 px wide at 512, never below 1.1 px.

    Returns:
        float32 [B, F, size, size, 3] in [0, 1].
    """
    sigma = max(size / 1024, 0.35)
    # Edges of a face that fills the picture are at most 8 % of its side; splats 1.5 sigma apart
    # still join up.
    samples = int(np.ceil(0.08 * size / (1.5 * sigma)))
    position = ((np.arange(samples) + 0.5) / samples).astype(np.float32)[:, None]
    centers = jnp.arange(size, dtype=jnp.float32)
    keypoints = keypoints.astype(jnp.float32)
    dark = jnp.ones((*keypoints.shape[:2], size, size, 3))
    for colour, *chains in _CONTOURS:
        edges = np.concatenate([np.stack([c[:-1], c[1:]], axis=1) for c in map(np.array, chains)])
        start, stop = (keypoints[:, :, edges[:, end], None] for end in (0, 1))
        points = (start + position * (stop - start)).reshape(*keypoints.shape[:2], -1, 2)
        length = jnp.linalg.norm(stop - start, axis=-1).repeat(samples, axis=-1) / samples
        columns, rows = (
            jnp.exp(-0.5 * ((centers - points[..., axis, None]) / sigma) ** 2) for axis in (0, 1)
        )
        # A straight line integrates to 1 on its middle.
        weight = length.reshape(*length.shape[:2], -1, 1) / (sigma * np.sqrt(2 * np.pi))
        line = 1 - jnp.exp(-2 * jnp.einsum("bfpy,bfpx->bfyx", rows, columns * weight))
        dark *= 1 - line[..., None] * jnp.array(colour)
    return 1 - dark


# Keypoints that carry `face_coordinates`, and where they lie on the mean face seen from the front:
# x, y in its outer-canthal distance (the length from one outer eye corner to the other), from the
# point between the eyes: the front view of input_pipeline/assets/head_mesh.npy.
_ANCHORS = {
    10: (0.0, -0.5), 168: (0.0, 0), 4: (0.0, 0.47), 2: (0.0, 0.61), 0: (0.0, 0.76),
    17: (0.0, 0.91), 152: (0.0, 1.32), 338: (0.22, -0.5), 109: (-0.22, -0.5), 297: (0.42, -0.49),
    67: (-0.42, -0.49), 284: (0.72, -0.34), 54: (-0.72, -0.34), 389: (0.84, -0.08),
    162: (-0.84, -0.08), 454: (0.85, 0.27), 234: (-0.85, 0.27), 361: (0.81, 0.62),
    132: (-0.81, 0.62), 397: (0.67, 0.97), 172: (-0.67, 0.97), 378: (0.35, 1.22),
    149: (-0.35, 1.22), 336: (0.18, -0.2), 107: (-0.18, -0.2), 300: (0.68, -0.14),
    70: (-0.68, -0.14), 334: (0.5, -0.25), 105: (-0.5, -0.25), 263: (0.5, 0), 33: (-0.5, 0),
    362: (0.19, 0.1), 133: (-0.19, 0.1), 386: (0.38, 0.09), 159: (-0.38, 0.09), 374: (0.35, 0.13),
    145: (-0.35, 0.13), 278: (0.2, 0.51), 48: (-0.2, 0.51), 291: (0.33, 0.86), 61: (-0.33, 0.86),
    425: (0.47, 0.56), 205: (-0.47, 0.56),
}  # fmt: skip


def face_coordinates(keypoints: jax.Array, size: int, cells: int) -> jax.Array:
    """Which point of the mean face lies at each cell of a picture: a dense correspondence.

    The mean face is moved onto the keypoints by their similarity, and then bent so that it passes
    through some of them: each cell follows the keypoints near it, weighted by the inverse fourth
    power of their distance (Shepard 1968). Beyond the face it continues as the similarity.

    Args:
        keypoints: [B, F, 478, 2], pixels of the size x size picture.
        size: side of the picture in pixels. cells: side of the grid.

    Returns:
        float32 [B, F, cells, cells, 2], x and y as in `_ANCHORS`.
    """
    points = keypoints[:, :, np.array(list(_ANCHORS))].astype(jnp.float32)
    mean = np.array(list(_ANCHORS.values()), np.float32)
    centre, middle = points.mean(2, keepdims=True), mean.mean(0)
    # The similarity as one complex factor: mean face -> picture (least squares).
    x, y = jnp.moveaxis(points - centre, -1, 0)
    u, v = (mean - middle).T
    power = (u**2 + v**2).sum()
    real, imaginary = (u * x + v * y).sum(-1) / power, (u * y - v * x).sum(-1) / power
    scale = jnp.maximum(real**2 + imaginary**2, 1e-6)[:, :, None, None, None]
    real, imaginary = real[:, :, None, None, None], imaginary[:, :, None, None, None]
    grid = ((jnp.arange(cells) + 0.5) * (size / cells) - 0.5).astype(jnp.float32)
    dx = grid[:, None] - points[:, :, None, None, :, 0]
    dy = grid[:, None, None] - points[:, :, None, None, :, 1]
    du, dv = (dx * real + dy * imaginary) / scale, (dy * real - dx * imaginary) / scale
    weights = 1 / (du**2 + dv**2 + _SOFTNESS**2) ** 2
    weights /= weights.sum(-1, keepdims=True)
    return jnp.stack([(weights * (mean[:, i] + d)).sum(-1) for i, d in enumerate((du, dv))], -1)


# Distance from a keypoint, in outer-canthal distances, up to which a cell follows it alone.
_SOFTNESS = 0.1


def position_features(coordinates: jax.Array, longest: float, count: int) -> jax.Array:
    """Sines and cosines of coordinates [..., 2], of `count` wavelengths that halve from `longest`.

    Returns:
        float32 [..., 4 * count]. Two places are alike in them as far as they are near each other.
    """
    angles = coordinates[..., None] * (2 * np.pi / longest * 2.0 ** np.arange(count))
    angles = angles.reshape(*coordinates.shape[:-1], -1)
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)


class KeypointEncoder(nn.Module):
    """Keypoint pictures -> features added after the denoiser's first convolution.

    The pose guider of Animate Anyone, parameters named as in its public re-implementation. The
    zero-initialised output lets a pre-trained denoiser start undisturbed.

    Attributes:
        channels: of the stem and after each stride-2 stage; len(channels) - 1 stages.
        width: output channels, the width of the denoiser's first level.
        coordinates: whether the features also tell each cell's place in the picture and on the
            mean face (`face_coordinates`). Ours; the paper has drawn keypoints alone.
    """

    channels: tuple[int, ...]
    width: int
    coordinates: bool = False
    dtype: jnp.dtype = jnp.float32

    def setup(self):
        self.conv_in = Conv(self.channels[0], (3, 3), padding=1, dtype=self.dtype)
        blocks = []
        for before, after in zip(self.channels[:-1], self.channels[1:]):
            blocks.append(Conv(before, (3, 3), padding=1, dtype=self.dtype))
            blocks.append(Conv(after, (3, 3), strides=2, padding=1, dtype=self.dtype))
        self.blocks = blocks
        self.conv_out = Conv(
            self.width, (3, 3), padding=1, kernel_init=nn.initializers.zeros, dtype=self.dtype
        )
        if self.coordinates:
            # Strong enough that attention matches places from the start.
            kernel_init = nn.initializers.variance_scaling(_GAIN**2, "fan_in", "truncated_normal")
            self.place = nn.Dense(self.width, kernel_init=kernel_init, dtype=self.dtype)

    def __call__(self, pictures: jax.Array, coordinates: jax.Array | None = None) -> jax.Array:
        """[b, H, W, 3] in [0, 1], and `face_coordinates` [b, h, w, 2] -> [b, h, w, width]."""
        x = nn.silu(self.conv_in(pictures))
        for block in self.blocks:
            x = nn.silu(block(x))
        x = self.conv_out(x)
        if self.coordinates:
            x += self.place(_places(coordinates).astype(self.dtype))
        return x


_GAIN = 2.5  # of the initial features of places


def _places(coordinates):
    """Features [b, h, w, 40] of where cells lie: on the mean face, and in the picture."""
    axes = jnp.meshgrid(
        *(jnp.linspace(-0.5, 0.5, n) for n in coordinates.shape[1:3]), indexing="ij"
    )
    in_picture = position_features(jnp.stack(axes[::-1], axis=-1), 2.0, 5)
    on_face = position_features(coordinates, 8.0, 5)
    return jnp.concatenate(
        [on_face, jnp.broadcast_to(in_picture, (*on_face.shape[:-1], in_picture.shape[-1]))], -1
    )


class ConstantContext(nn.Module):
    """Cross-attention tokens that are the same for all pictures, such as those of one prompt.

    Attributes:
        tokens, width: number and size of the tokens.
    """

    tokens: int
    width: int

    @nn.compact
    def __call__(self) -> jax.Array:
        """float32 [1, tokens, width]."""
        drawn = nn.initializers.normal(1.0)
        return self.param("embedding", drawn, (self.tokens, self.width))[None]


class ConstantText(nn.Module):
    """Text that is the same for all pictures, as Stable Diffusion 3 takes it; zero at first.

    Attributes:
        tokens, width: number and size of the tokens. pooled: size of the vector beside them.
    """

    tokens: int
    width: int
    pooled: int

    @nn.compact
    def __call__(self) -> tuple[jax.Array, jax.Array]:
        """float32 [1, tokens, width] and [1, pooled]."""
        zeros = nn.initializers.zeros
        tokens = self.param("embedding", zeros, (self.tokens, self.width))
        return tokens[None], self.param("pooled", zeros, (self.pooled,))[None]


class FaceProjection(nn.Module):
    """ArcFace embedding -> context tokens, the projection of IP-Adapter-FaceID.

    Attributes:
        tokens, width: number and size of the tokens.
    """

    width: int
    tokens: int = 4
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, embedding: jax.Array) -> jax.Array:
        """Unit vectors [B, 512] -> tokens [B, tokens, width]."""
        x = nn.Dense(2 * embedding.shape[-1], dtype=self.dtype, name="proj_0")(embedding)
        x = nn.gelu(x, approximate=False)
        x = nn.Dense(self.tokens * self.width, dtype=self.dtype, name="proj_2")(x)
        x = x.reshape(len(x), self.tokens, self.width)
        return nn.LayerNorm(1e-5, dtype=self.dtype, name="norm")(x)
