"""Durian in JAX: portrait animation with attribute transfer (arXiv 2509.04434)."""


def __getattr__(name: str):
    # Imported on demand: `import durian_jax` must not start JAX for `durian --help`.
    if name == "Animator":
        from durian_jax.animation.animator import Animator

        return Animator
    raise AttributeError(f"module 'durian_jax' has no attribute {name!r}")
