"""Disagreement step: pixels moved to where two networks disagree more."""

from typing import Protocol

import torch
from torch import Tensor


class Answers(Protocol):
    """A network as what it says: images [B, 3, S, S] → logits [B, classes]."""

    def __call__(self, images: Tensor, /) -> Tensor: ...


def disagreement(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """KL(teacher ‖ student) of each image: two [B, classes] → float32 [B]."""
    student = student_logits.float().log_softmax(dim=1)
    teacher = teacher_logits.float().log_softmax(dim=1)
    return (teacher.exp() * (teacher - student)).sum(dim=1)


def disagreement_step(
    images: Tensor,
    student: Answers,
    teacher: Answers,
    size: Tensor,
    lowest: Tensor,
    highest: Tensor,
) -> Tensor:
    """x' = clip(x + ε sign ∇_x KL(t(x) ‖ s(x))), without gradient.

    The sign step is that of Goodfellow et al., "Explaining and Harnessing Adversarial Examples",
    ICLR 2015; to climb the disagreement of student and teacher with it is the search of Micaelli
    and Storkey, "Zero-shot Knowledge Transfer via Adversarial Belief Matching", NeurIPS 2019, who
    climb in the latent space of a generator. The gradient goes through both networks.

    Args:
        images: x, normalised, [B, 3, S, S].
        student, teacher: give logits [B, classes], of each image by itself.
        size: ε, by channel as `images` is normalised, [3, 1, 1].
        lowest, highest: values of black and white, [3, 1, 1].
    """
    with torch.enable_grad():
        moved = images.detach().requires_grad_()
        found = disagreement(student(moved), teacher(moved)).sum()
        (gradient,) = torch.autograd.grad(found, moved)
    with torch.no_grad():
        return (moved + size * gradient.sign()).clamp(lowest, highest)
