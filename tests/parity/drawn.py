"""Weights and inputs that PyTorch and JAX draw alike, so that fixtures need not hold them.

Uniform numbers from PCG64 seeded by the name. Every one-dimensional parameter is perturbed and
nothing is zero: at its initial value a swapped scale and bias, or a branch that is never added,
would go unseen.
"""

import zlib

import numpy as np


def tensor(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """float32 weights of a named tensor, torch layout; kernels keep the variance of their input."""
    noise = numbers(name, shape)
    if len(shape) < 2:
        around = 1.0 if name.endswith(("weight", "running_var")) else 0.0
        return (around + 0.3 * noise).astype(np.float32)
    return (noise * np.sqrt(3 / np.prod(shape[1:]))).astype(np.float32)


def numbers(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """float64 in [-1, 1)."""
    return np.random.Generator(np.random.PCG64(zlib.crc32(name.encode()))).random(shape) * 2 - 1


def picture(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """uint8."""
    return np.floor((numbers(name, shape) + 1) * 128).astype(np.uint8)
