"""How far two sets of features are apart: FID and FVD, whatever network the features are from."""

import numpy as np


def frechet_distance(first: np.ndarray, second: np.ndarray) -> float:
    """Distance of two Gaussians fitted to features [n, d] and [m, d] (Heusel et al., 2017).

    |mean difference|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)), covariances with n - 1. With S = R' R the
    trace of the root is the nuclear norm of R1 R2', which needs no root of a singular matrix.
    """
    first, second = first.astype(np.float64), second.astype(np.float64)
    difference = first.mean(0) - second.mean(0)
    roots = [
        np.linalg.qr(one - one.mean(0), mode="r") / np.sqrt(len(one) - 1) for one in (first, second)
    ]
    traces = sum((root**2).sum() for root in roots)
    cross = np.linalg.svd(roots[0] @ roots[1].T, compute_uv=False).sum()
    # Of equal features rounding leaves a little, above or below 0.
    return max(float(difference @ difference + traces - 2 * cross), 0.0)
