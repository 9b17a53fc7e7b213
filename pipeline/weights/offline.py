"""Weights of hubs and libraries, as far as they are known without a network."""

from dataclasses import dataclass, field

from kd3_pipeline.errors import UserError
from kd3_pipeline.models import TIMM, TORCHVISION
from kd3_pipeline.params import Distill, Teacher
from kd3_pipeline.weights import sources


@dataclass(frozen=True)
class Known:
    """What is known of weights before they are got.

    Attributes:
        here: they are in the cache of their library, so that no network is needed.
        class_names: of the outputs, where the library says them.
        outputs: their number; 0: not known.
    """

    here: bool
    class_names: list[str] = field(default_factory=list)
    outputs: int = 0


def known_teacher(section: Teacher) -> Known:
    """What is known of a teacher of a hub or a library; no network is asked.

    Raises:
        UserError: there can be no such weights: a wrong name, a repository that is not pinned, no
            consent to its code, or a package that is missing.
    """
    if section.source == "torch.hub":
        about = (section.repository, section.weights, section.trust)
        return Known(sources.check_torch_hub(*about))
    if section.source == "hub":
        return Known(sources.in_hub_cache(section.repository, section.weights))
    name = sources.name_in(section.source, section.architecture)
    if section.source == "timm":
        settings = sources.timm_settings(name, section.weights)
        return Known(sources.in_timm_cache(settings), outputs=settings.num_classes or 0)
    chosen, path = sources.torchvision_settings(name, section.weights)
    names = list(chosen.meta.get("categories", []))
    return Known(path.exists(), names, len(names))


def student_start_is_here(section: Distill) -> bool:
    """Whether the weights that a student starts from need no network: a file, or in a cache.

    Raises:
        UserError: no library has such weights of this student.
    """
    key, named, student = "distill.student_weights", section.student_weights, section.student
    if section.starts_from_file or named == "default":
        return section.starts_from_file
    if student.startswith(TORCHVISION):
        return sources.torchvision_settings(student.removeprefix(TORCHVISION), named, key)[
            1
        ].exists()
    if student.startswith(TIMM):
        settings = sources.timm_settings(student.removeprefix(TIMM), named, key)
        return sources.in_timm_cache(settings)
    raise UserError(f"{key}: no library has weights '{named}' of '{student}'")
