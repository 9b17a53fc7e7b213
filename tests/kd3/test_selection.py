import math

import pytest
import torch

from kd3_pipeline.kd3 import select


def logits(seed: int, rows: int = 60, classes: int = 5, spread: float = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return spread * torch.randn(rows, classes, generator=generator, dtype=torch.float64)


def by_hand(teacher, student, alpha, cutoff):
    """The rule, image by image, in plain Python."""
    judged = []
    for of_teacher, of_student in zip(teacher.tolist(), student.tolist(), strict=True):
        mixed = [alpha * t + (1 - alpha) * s for t, s in zip(of_teacher, of_student, strict=True)]
        powers = [math.exp(value - max(mixed)) for value in mixed]
        confidence = max(powers) / sum(powers)
        judged.append((powers.index(max(powers)), confidence))
    counts = [0] * teacher.shape[1]
    for label, _ in judged:
        counts[label] += 1
    kept = []
    for label, confidence in judged:
        balance = counts[label] / max(counts)
        kept.append(confidence > cutoff * balance / (2 - balance))
    return kept, counts


@pytest.mark.parametrize("which", [0, 1, 2])
def test_the_published_selection_is_reproduced(golden, which):
    alpha, cutoff = float(golden["sel_alphas"][which]), float(golden["sel_cutoff"])
    found = select(golden["sel_teacher_logits"], golden["sel_student_logits"], alpha, cutoff)
    assert torch.equal(found.mask.nonzero().flatten(), golden[f"sel_indices_{which}"])
    assert found.confidence.dtype == found.thresholds.dtype == golden.dtype


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("cutoff", [0.7, 0.95])
@pytest.mark.parametrize("classes", [2, 5])
def test_selection_agrees_with_a_loop_over_the_images(alpha, cutoff, classes):
    teacher, student = logits(1, classes=classes), logits(2, classes=classes)
    found = select(teacher, student, alpha, cutoff)
    kept, counts = by_hand(teacher, student, alpha, cutoff)
    assert found.mask.tolist() == kept
    assert found.counts.tolist() == counts
    assert 0 < sum(kept) < len(kept)


def test_the_rarest_class_is_let_in_more_easily():
    sure = torch.tensor([[1.2, 0.0]] * 9 + [[0.0, 1.2]])
    found = select(sure, sure, 1.0)
    assert found.confidence.unique().numel() == 1
    assert found.mask.tolist() == [False] * 9 + [True]
    balance = 1 / 9
    expected = torch.tensor([0.95, 0.95 * balance / (2 - balance)])
    torch.testing.assert_close(found.thresholds, expected)


def test_nothing_is_kept_when_all_are_unsure_of_one_class():
    unsure = torch.tensor([[0.1, 0.0, 0.0]]).repeat(7, 1)
    found = select(unsure, unsure, 0.5)
    assert not found.mask.any()
    assert found.counts.tolist() == [7, 0, 0]


def test_one_sure_image_among_unsure_ones_of_its_class_is_kept_alone():
    mixed = torch.tensor([[0.1, 0.0]] * 6)
    mixed[3, 0] = 9
    assert select(mixed, mixed, 1.0).mask.nonzero().flatten().tolist() == [3]


def test_all_are_kept_when_all_are_sure():
    sure = 20 * torch.eye(4).repeat(3, 1)
    found = select(sure, sure, 0.5)
    assert found.mask.all()
    assert found.labels.tolist() == [0, 1, 2, 3] * 3


def test_a_class_that_nobody_predicts_has_threshold_zero():
    found = select(20 * torch.eye(4)[:3], 20 * torch.eye(4)[:3], 1.0)
    assert found.counts.tolist() == [1, 1, 1, 0]
    assert found.thresholds[3] == 0


def test_a_single_class_keeps_every_image():
    found = select(torch.randn(5, 1), torch.randn(5, 1), 0.5)
    assert found.mask.all()
    assert found.confidence.tolist() == [1.0] * 5


def test_an_image_exactly_at_its_threshold_is_not_kept():
    certain = torch.zeros(3, 1)
    assert not select(certain, certain, 0.5, cutoff=1.0).mask.any()


def test_alpha_decides_who_is_asked():
    teacher, student = 20 * torch.eye(3), 20 * torch.eye(3).roll(1, 0)
    assert select(teacher, student, 1.0).labels.tolist() == [0, 1, 2]
    assert select(teacher, student, 0.0).labels.tolist() == [2, 0, 1]


def test_no_image_at_all_gives_an_empty_selection():
    found = select(torch.zeros(0, 3), torch.zeros(0, 3), 0.5)
    assert found.mask.shape == (0,)
    assert found.counts.tolist() == [0, 0, 0]


def test_one_image_is_judged_by_the_cutoff_itself():
    for confidence in (0.94, 0.96):
        image = torch.tensor([[math.log(confidence / (1 - confidence)), 0.0]])
        found = select(image, image, 0.5)
        assert found.thresholds.tolist() == pytest.approx([0.95, 0.0])
        assert found.mask.tolist() == [confidence > 0.95]


def test_of_classes_that_tie_the_first_is_taken():
    tied = torch.tensor([[1.0, 3.0, 3.0], [2.0, 2.0, 2.0], [0.0, 0.0, 5.0]])
    found = select(tied, tied, 0.5)
    assert found.labels.tolist() == [1, 0, 2]
    torch.testing.assert_close(found.confidence[1], torch.tensor(1 / 3))


def test_classes_of_equal_count_have_the_threshold_of_the_most_frequent():
    found = select(torch.eye(3).repeat(4, 1), torch.eye(3).repeat(4, 1), 0.5)
    assert found.thresholds.tolist() == pytest.approx([0.95] * 3)


def test_logits_laid_out_otherwise_are_judged_the_same():
    teacher, student = logits(1), logits(2)
    wide = torch.zeros(60, 10, dtype=teacher.dtype)
    wide[:, ::2] = teacher
    expected = select(teacher, student, 0.4)
    found = select(wide[:, ::2], student.T.contiguous().T, 0.4)
    assert not found.mask.all() and found.mask.any()
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


def test_thresholds_are_as_exact_as_the_logits():
    rare = torch.zeros(10, 2, dtype=torch.float64)
    rare[:9, 0], rare[9, 1] = 1.0, 1.0
    balance = 1 / 9
    assert select(rare, rare, 0.5).thresholds[1].item() == pytest.approx(
        0.95 * balance / (2 - balance), rel=1e-15
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_stored_half_precision_logits_are_judged_in_float32(dtype):
    teacher, student = logits(1).to(dtype), logits(2).to(dtype)
    found = select(teacher, student.float(), 1.0)
    expected = select(teacher.float(), student.float(), 1.0)
    assert found.confidence.dtype == found.thresholds.dtype == torch.float32
    # 900 images of one class: bfloat16 would count by fours
    many = torch.tensor([[9.0, 0.0]] * 900 + [[0.0, 9.0]] * 899, dtype=dtype)
    balance = 899 / 900
    assert select(many, many, 0.5).thresholds[1].item() == pytest.approx(
        0.95 * balance / (2 - balance), rel=1e-6
    )
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)
