"""KD3's training and selection as published, rebuilt from its description with what makes it slow.

A baseline for timings and a reference for tests: it shares the modules with `kd3_pipeline.kd3`,
since both need the same parameters, but none of its mathematics.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.distributions import Beta
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from kd3_pipeline.kd3 import Projection, Transfer
from kd3_pipeline.models.network import Network

SIDE = 32
BATCH = 1024
WORKERS = 4
WEB_MEAN = (0.480, 0.457, 0.409)
WEB_STD = (0.275, 0.271, 0.281)
CONTRAST_WEIGHT = 0.001
TEMPERATURE = 0.3


class Modules(NamedTuple):
    """What takes part; only the teacher is not trained."""

    student: Network
    teacher: Network
    transfer: Transfer
    student_projection: Projection
    teacher_projection: Projection

    def trained(self) -> list[nn.Module]:
        return [self.student, self.transfer, self.student_projection, self.teacher_projection]


class Losses(NamedTuple):
    """The loss and its terms before they are weighted, read from the device."""

    total: float
    feature: float
    student_contrast: float
    teacher_contrast: float


class Crops(Dataset[Tensor]):
    """A random crop of each image, [3, 32, 32], cut one by one with PIL.

    Args:
        pixels: uint8 [N, 32, 32, 3].
    """

    def __init__(
        self,
        pixels: np.ndarray,
        mean: Sequence[float] = WEB_MEAN,
        std: Sequence[float] = WEB_STD,
    ) -> None:
        self.pixels = pixels
        self.transform = transforms.Compose(
            [
                transforms.RandomResizedCrop(SIDE),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(mean, std),
            ]
        )

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> Tensor:
        return self.transform(Image.fromarray(self.pixels[index]))


def modules(student: Network, teacher: Network, device: torch.device) -> Modules:
    """The two networks on `device`, and what stands between them, with random weights."""
    return Modules(
        student.to(device),
        teacher.to(device).eval(),
        Transfer(student.feature_channels, teacher.feature_channels).to(device),
        Projection(student.feature_channels).to(device),
        Projection(teacher.feature_channels).to(device),
    )


def optimizer(of: Modules, lr: float = 0.05) -> torch.optim.SGD:
    """SGD with momentum 0.9 and weight decay 5e-4 on all that is trained."""
    parameters = [parameter for module in of.trained() for parameter in module.parameters()]
    return torch.optim.SGD(parameters, lr, momentum=0.9, weight_decay=5e-4)


def train_loader(
    pixels: np.ndarray, kept: Sequence[int], batch_size: int = BATCH, workers: int = WORKERS
) -> DataLoader[Tensor]:
    """Shuffled batches of the kept images, which are copied out first."""
    crops = Crops(pixels[np.asarray(kept, dtype=np.int64)])
    return DataLoader(crops, batch_size, shuffle=True, num_workers=workers)


def train_epoch(
    of: Modules, sgd: torch.optim.Optimizer, loader: DataLoader[Tensor], device: torch.device
) -> Losses:
    """One pass over the loader; the losses are means over its images."""
    for module in of.trained():
        module.train()
    of.teacher.eval()
    sums, count = [0.0] * len(Losses._fields), 0
    for images in loader:
        mixed = mix(images)
        sgd.zero_grad()
        losses = published_step(of, images.to(device), mixed.to(device))
        sgd.step()
        sums = [total + len(images) * value for total, value in zip(sums, losses, strict=True)]
        count += len(images)
    return Losses(*(total / count for total in sums))


def published_step(
    of: Modules, images: Tensor, mixed: Tensor, *, teacher_contrast: bool = True
) -> Losses:
    """Forward and backward of L = L_kd + 0.001 (L_con of the student + L_con of the teacher).

    Gradients are added to those in the modules, whose modes are left as they are.

    Args:
        images, mixed: the two views, [B, 3, S, S], on the device of the modules.
        teacher_contrast: whether the term that trains the teacher's projection is there.
    """
    student_features = of.student.features(images)
    student_pooled = _pool(student_features)
    student_mixed = _pool(of.student.features(mixed))
    with torch.no_grad():
        teacher_features = of.teacher.features(images)
        teacher_pooled = _pool(teacher_features)
        teacher_mixed = _pool(of.teacher.features(mixed))
        teacher_logits = of.teacher.classify(teacher_pooled)

    student_map, teacher_map = of.transfer(student_features, teacher_features)
    student_logits = of.teacher.classify(_pool(student_map))
    difference = student_logits - teacher_logits + 1e-6
    weights = torch.sigmoid((difference**2).sum(dim=1).sqrt()).detach()
    feature = weighted_mse(student_map, teacher_map, weights)

    project = of.student_projection
    student_term = contrast(project(student_pooled), project(student_mixed))
    teacher_term = torch.zeros_like(student_term)
    if teacher_contrast:
        project = of.teacher_projection
        teacher_term = contrast(project(teacher_pooled), project(teacher_mixed))
    total = feature + CONTRAST_WEIGHT * (student_term + teacher_term)
    total.backward()
    return Losses(total.item(), feature.item(), student_term.item(), teacher_term.item())


def mix(images: Tensor, lam: Tensor | None = None, permutation: Tensor | None = None) -> Tensor:
    """MixDistribution with λ ~ Beta(0.1, 0.1), on the CPU.

    Args:
        images: [B, 3, S, S].
        lam: [B]; drawn when None.
        permutation: [B] int64; drawn when None.
    """
    if lam is None:
        lam = Beta(0.1, 0.1).sample((len(images),))
    if permutation is None:
        permutation = torch.randperm(len(images))
    lam = lam[:, None, None, None]
    mean = images.mean(dim=(2, 3), keepdim=True)
    deviation = (images.var(dim=(2, 3), keepdim=True) + 1e-6).sqrt()
    standard = (images - mean) / deviation
    own = standard * deviation + mean
    lent = standard * deviation[permutation] + mean[permutation]
    return lam * own + (1 - lam) * lent


def weighted_mse(student_map: Tensor, teacher_map: Tensor, weights: Tensor) -> Tensor:
    """Mean of w_i (h_s,i − h_t,i)², written image by image into one tensor.

    Every write adds nodes to the graph whose backward passes go over the whole tensor, so the
    backward pass grows with the square of the batch.
    """
    squared = functional.mse_loss(student_map, teacher_map, reduction="none")
    for image in range(len(weights)):
        squared[image] = squared[image] * weights[image]
    return squared.mean()


def contrast(a: Tensor, b: Tensor, temperature: float = TEMPERATURE) -> Tensor:
    """NT-Xent of two [B, D] views whose rows have length one."""
    rows = torch.cat([a, b])
    powers = torch.exp(rows @ rows.T / temperature)
    others = powers.sum(dim=1) - powers.diagonal()
    positive = torch.exp((a * b).sum(dim=1) / temperature)
    return -torch.log(torch.cat([positive, positive]) / others).mean()


def published_selection(
    of: Modules,
    pixels: np.ndarray,
    alpha: float,
    device: torch.device,
    *,
    cutoff: float = 0.95,
    batch_size: int = BATCH,
    workers: int = WORKERS,
) -> list[int]:
    """Indices of the images to train on, each judged by one fresh random crop.

    Args:
        pixels: uint8 [N, 32, 32, 3].
        alpha: weight of the teacher's logits.
    """
    for module in (*of.trained(), of.teacher):
        module.eval()
    loader = DataLoader(Crops(pixels), batch_size, shuffle=False, num_workers=workers)
    confidences, labels = [], []
    for images in loader:
        confidence, label = judge(of, images.to(device), alpha)
        confidences.append(confidence)
        labels.append(label)
    classes = of.teacher.classifier.out_features
    return threshold(torch.cat(confidences), torch.cat(labels), classes, cutoff)


def judge(of: Modules, images: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    """Confidence [B] and class [B] of the combined prediction for [B, 3, S, S]."""
    with torch.no_grad():
        teacher_features = of.teacher.features(images)
        teacher_logits = of.teacher.classify(_pool(teacher_features))
    # no `no_grad` here, as published: the student's graph is built and dropped
    student_map, _ = of.transfer(of.student.features(images), teacher_features)
    student_logits = of.teacher.classify(_pool(student_map))
    mixed = alpha * teacher_logits + (1 - alpha) * student_logits
    confidence, label = torch.softmax(mixed, dim=1).detach().max(dim=1)
    return confidence, label


def threshold(confidence: Tensor, labels: Tensor, classes: int, cutoff: float) -> list[int]:
    """Indices of the images above their class's threshold, found image by image.

    Args:
        confidence, labels: [N]; on a GPU, two values of each image are waited for.
    """
    counts = torch.stack([(labels == label).sum() for label in range(classes)])
    ratios = counts / counts.max()
    thresholds = cutoff * ratios / (2 - ratios)
    kept = []
    for image in range(len(labels)):
        if confidence[image] > thresholds[labels[image]]:
            kept.append(image)
    return kept


def _pool(feature_map: Tensor) -> Tensor:
    return functional.adaptive_avg_pool2d(feature_map, 1).flatten(1)
