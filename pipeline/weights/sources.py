"""Sources of a teacher's weights: hubs and libraries, each with the cache of its own library."""

import contextlib
import hashlib
import io
import re
import sys
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.parse import urlparse

import torch
from safetensors.torch import save
from torch import nn

from kd3_pipeline.errors import ExternalError, UserError, first_line
from kd3_pipeline.extras import install_extra
from kd3_pipeline.weights.files import (
    Weights,
    check_sha256,
    read_weights,
    undo_prefixes,
)

PINNED = re.compile(r"([\w.-]+/[\w.-]+):([0-9a-f]{40})")
HUB_FILES = ("model.safetensors", "pytorch_model.bin")
OFFLINE = "check the network, or get the file elsewhere and use source 'file' with teacher.path"


def from_torch_hub(repository: str, entry: str, trust: bool, sha256: str = "") -> Weights:
    """The weights of a network that a function of a torch.hub repository builds.

    This runs the repository's code.

    Args:
        repository: `owner/name:commit` on GitHub, or a folder with a `hubconf.py`.
        entry: name of the function; it is called with `pretrained=True`.
        trust: the caller agrees that the code is run.
        sha256: of the state dict as safetensors; empty if not known.

    Raises:
        UserError: there is no agreement, no such function, or it fails; the SHA-256 is another.
        ExternalError: no network.
    """
    local = check_torch_hub(repository, entry, trust)
    where = {"source": "local"} if local else {"trust_repo": True, "skip_validation": True}
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # a stage's stdout is its result
            model = torch.hub.load(repository, entry, pretrained=True, verbose=False, **where)
    except (URLError, TimeoutError, ConnectionError) as error:
        raise _unreachable(repository, error) from None
    except Exception as error:  # the repository's own code can fail in any way
        raise UserError(
            f"{repository}: '{entry}' failed: {type(error).__name__}: {first_line(error)}"
        ) from None
    if not isinstance(model, nn.Module):
        raise UserError(f"{repository}: '{entry}' gives a {type(model).__name__}, no network")
    model.cpu()
    state = undo_prefixes({name: value.clone() for name, value in model.state_dict().items()})
    contiguous = {name: value.contiguous() for name, value in state.items()}
    digest = hashlib.sha256(save(contiguous)).hexdigest()
    check_sha256(digest, sha256, f"the state dict of {repository} {entry}")
    return Weights(state, f"{repository} {entry}", digest, reference=model)


def check_torch_hub(repository: str, entry: str, trust: bool) -> bool:
    """Tells whether the repository is a folder that is here; nothing is asked for.

    Raises:
        UserError: there is no agreement to its code, it is not pinned, or no function is named.
    """
    local = bool(repository) and Path(repository).is_dir()
    if not local:
        _pinned(repository)
    if not trust:
        raise UserError(
            f"teacher.trust: source 'torch.hub' runs the code of {repository}",
            "read it, then set it to true; or use source 'file' with its weights",
        )
    if not entry:
        raise UserError("teacher.weights: source 'torch.hub' needs the name of a function here")
    return local


def from_hub(repository: str, file: str = "", sha256: str = "") -> Weights:
    """The weights in a repository of the Hugging Face hub.

    Args:
        repository: `owner/name:commit`.
        file: path of the weights in it; empty for `model.safetensors`, else `pytorch_model.bin`.
        sha256: as in `read_weights`.

    Raises:
        UserError: huggingface_hub is not installed, there is no such repository or file, or as
            `read_weights`.
        ExternalError: no network, and the file is not in the cache.
    """
    name, commit = _pinned(repository)
    path = _hub_file(name, commit, (file,) if file else HUB_FILES)
    return read_weights(path, sha256, "teacher.repository")


def from_timm(
    name: str, weights: str, sha256: str = "", key: str = "teacher.weights", **options: Any
) -> Weights:
    """Pretrained weights of timm, with the keys of its networks.

    Args:
        name: of the model, as `resnet18`.
        weights: timm's tag, as `a1_in1k`.
        sha256: of the file, as in `read_weights`.
        key: the parameter to name in errors.
        options: of the model's constructor, to which timm brings the weights.

    Raises:
        UserError: timm is not installed or has no such weights, or as `read_weights`.
        ExternalError: as `from_hub`.
    """
    from kd3_pipeline.models.timm_network import import_timm

    timm = import_timm()
    settings = timm_settings(name, weights, key)
    path = _hub_file(settings.hf_hub_id, "main", timm_files(settings))
    read = read_weights(path, sha256, key)
    # timm itself brings files of older releases to the keys of this one
    model = timm.create_model(
        f"{name}.{weights}",
        pretrained=True,
        pretrained_cfg_overlay={"file": str(path)},
        **options,
    )
    return Weights(model.state_dict(), f"timm {name}.{weights}", read.sha256)


def timm_settings(name: str, weights: str, key: str = "teacher.weights") -> Any:
    """What timm knows of weights, by their names; nothing is asked for.

    Raises:
        UserError: timm is not installed, or has no such weights on the hub.
    """
    from kd3_pipeline.models.timm_network import import_timm

    timm = import_timm()
    tags = [known.partition(".")[2] for known in timm.list_pretrained(f"{name}.*")]
    if weights not in tags:
        raise UserError(
            f"{key}: timm has no weights '{weights}' for '{name}'",
            f"known: {', '.join(tags) or 'none'}",
        )
    settings = timm.get_pretrained_cfg(f"{name}.{weights}")
    if not settings.hf_hub_id:
        raise UserError(f"timm has '{name}.{weights}' at {settings.url} only", OFFLINE)
    return settings


def timm_files(settings: Any) -> tuple[str, ...]:
    """The files that may hold these weights, in their repository."""
    return (settings.hf_hub_filename,) if settings.hf_hub_filename else HUB_FILES


def from_torchvision(
    name: str, weights: str, sha256: str = "", key: str = "teacher.weights"
) -> Weights:
    """Pretrained weights of torchvision.

    Args:
        name: of the model, as `resnet18`.
        weights: as `IMAGENET1K_V1`, or `DEFAULT`.
        sha256: of the file, as in `read_weights`.
        key: the parameter to name in errors.

    Raises:
        UserError: torchvision has no such weights, or as `read_weights`.
        ExternalError: no network, and the file is not in the cache of torch.hub.
    """
    chosen, path = torchvision_settings(name, weights, key)
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.name
        prefix = file.rpartition("-")[2].partition(".")[0]  # of the SHA-256, by convention
        try:
            torch.hub.download_url_to_file(chosen.url, str(path), prefix, sys.stderr.isatty())
        except (URLError, OSError) as error:
            raise _unreachable(chosen.url, error) from None
        except RuntimeError as error:  # another SHA-256 than the name says
            raise ExternalError(f"{chosen.url}: {first_line(error)}", "try again") from None
    read = read_weights(path, sha256, key)
    names = list(chosen.meta.get("categories", []))
    return Weights(read.state, f"torchvision {name} {weights}", read.sha256, class_names=names)


def torchvision_settings(name: str, weights: str, key: str = "teacher.weights") -> tuple[Any, Path]:
    """What torchvision knows of weights, and where its cache has the file; nothing is asked for.

    Raises:
        UserError: torchvision has no such weights.
    """
    from torchvision import models

    try:
        known = models.get_model_weights(name)
    except ValueError:
        raise UserError(f"torchvision has no model '{name}'") from None
    if weights not in known.__members__:
        raise UserError(
            f"{key}: torchvision has no weights '{weights}' for '{name}'",
            f"known: {', '.join(known.__members__) or 'none'}",
        )
    chosen = known[weights]
    return chosen, Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(chosen.url).path).name


def name_in(library: str, architecture: str) -> str:
    """The name that `architecture` has in `timm` or `torchvision`.

    Raises:
        UserError: it is no architecture of this library.
    """
    found, _, name = architecture.partition("/")
    if found != library or not name:
        raise UserError(
            f"teacher.architecture: source '{library}' needs one like '{library}/resnet18',"
            f" not '{architecture}'"
        )
    return name


def in_hub_cache(repository: str, file: str) -> bool:
    """Tells whether weights of a pinned repository of the hub are here; nothing is asked for.

    Raises:
        UserError: huggingface_hub is not installed, or the repository is not pinned.
    """
    name, commit = _pinned(repository)
    return _in_cache(_hub(), name, commit, (file,) if file else HUB_FILES) is not None


def in_timm_cache(settings: Any) -> bool:
    """Tells whether these weights of timm are here; nothing is asked for."""
    return _in_cache(_hub(), settings.hf_hub_id, "main", timm_files(settings)) is not None


def _hub() -> Any:
    try:
        import huggingface_hub
    except ImportError:
        raise UserError("huggingface_hub is not installed", install_extra("teachers")) from None
    return huggingface_hub


def _pinned(repository: str) -> tuple[str, str]:
    found = PINNED.fullmatch(repository)
    if not found:
        raise UserError(
            f"teacher.repository: expected owner/name:commit, got '{repository}'",
            "the commit has 40 hex digits: a branch or a tag can change",
        )
    return found[1], found[2]


def _hub_file(repository: str, revision: str, files: tuple[str, ...]) -> Path:
    """The first of `files` that the repository has, from the cache if it is there."""
    hub = _hub()
    from huggingface_hub import errors

    if found := _in_cache(hub, repository, revision, files):
        return found
    for file in files:
        try:
            return Path(hub.hf_hub_download(repository, file, revision=revision))
        except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled) as error:
            raise _unreachable(f"huggingface.co/{repository}", error) from None
        except errors.EntryNotFoundError:
            continue
        except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError) as error:
            raise UserError(f"teacher.repository: {first_line(error)}") from None
        except (errors.HfHubHTTPError, OSError) as error:
            raise _unreachable(f"huggingface.co/{repository}", error) from None
    raise UserError(
        f"huggingface.co/{repository} has no {' or '.join(files)}",
        "set teacher.weights to the path of its weights",
    )


def _in_cache(hub: Any, repository: str, revision: str, files: tuple[str, ...]) -> Path | None:
    for file in files:
        cached = hub.try_to_load_from_cache(repository, file, revision=revision)
        if isinstance(cached, str):
            return Path(cached)
    return None


def _unreachable(what: str, error: Exception) -> ExternalError:
    reason = getattr(error, "reason", None) or first_line(error)
    return ExternalError(f"{what} cannot be reached: {reason}", OFFLINE)
