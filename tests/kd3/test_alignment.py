import pytest
import torch
from torch import nn
from torch.autograd import gradcheck
from torch.func import functional_call

from kd3_pipeline.kd3 import (
    ChannelVariance,
    Transfer,
    disagreement_weights,
    per_channel,
    weighted_feature_loss,
)
from kd3_pipeline.models.network import pool


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def test_the_published_weights_are_reproduced(golden):
    found = disagreement_weights(golden["feat_student_logits"], golden["feat_teacher_logits"])
    golden.matches(found, "feat_weights")


def test_the_published_feature_loss_is_reproduced(golden):
    weights = disagreement_weights(golden["feat_student_logits"], golden["feat_teacher_logits"])
    found = weighted_feature_loss(golden["feat_student"], golden["feat_teacher"], weights)
    golden.matches(found, "feat_loss")


def test_weights_carry_no_gradient():
    logits = draw(4, 3).requires_grad_()
    weights = disagreement_weights(logits, draw(4, 3, seed=1))
    assert not weights.requires_grad
    student = draw(4, 2, 3, 3).requires_grad_()
    weighted_feature_loss(student, draw(4, 2, 3, 3, seed=2), weights).backward()
    assert logits.grad is None
    assert student.grad.abs().sum() > 0


def test_disagreement_weighs_more_and_agreement_half():
    teacher = draw(3, 4)
    student = teacher.clone()
    student[1] += 0.5
    student[2] += 5
    weights = disagreement_weights(student, teacher)
    assert weights[0].item() == pytest.approx(0.5, abs=1e-5)
    assert weights[0] < weights[1] < weights[2] <= 1


def test_the_feature_loss_weighs_each_image_as_a_loop_does():
    student, teacher, weights = draw(3, 2, 2, 2), draw(3, 2, 2, 2, seed=1), draw(3, seed=2).abs()
    total = 0.0
    for image in range(3):
        for difference in (student[image] - teacher[image]).flatten().tolist():
            total += weights[image].item() * difference**2
    found = weighted_feature_loss(student, teacher, weights)
    assert found.item() == pytest.approx(total / student.numel(), rel=1e-12)


def test_the_gradient_of_the_feature_loss_is_right():
    maps = [draw(3, 2, 2, 2, seed=seed).requires_grad_() for seed in (0, 1)]
    weights = draw(3, seed=2).sigmoid().requires_grad_()
    assert gradcheck(weighted_feature_loss, (*maps, weights))


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_the_published_transfer_and_shared_classifier_are_reproduced(golden, mode):
    transfer = Transfer(24, 32).to(golden.device, golden.dtype)
    prefix = "transfer_state/"
    names = [name for name in golden.arrays.files if name.startswith(prefix)]
    transfer.load_state_dict({name.removeprefix(prefix): golden[name] for name in names})
    classifier = nn.Linear(32, 10).to(golden.device, golden.dtype)
    classifier.weight.data = golden["transfer_classifier_weight"]
    classifier.bias.data = golden["transfer_classifier_bias"]

    transfer.train(mode == "train")
    student, teacher = transfer(golden["transfer_student"], golden["transfer_teacher"])
    golden.matches(classifier(pool(student)), f"transfer_{mode}_logits")
    if mode == "train":
        golden.matches(student, "transfer_train_student_out")
        golden.matches(teacher, "transfer_train_teacher_out")


@pytest.mark.parametrize(("student", "teacher"), [(8, 4), (4, 8), (4, 4)])
def test_the_larger_map_is_pooled_to_the_smaller(student, teacher):
    transfer = Transfer(3, 6).double()
    own, other = draw(2, 3, student, student), draw(2, 6, teacher, teacher, seed=1)
    ours, theirs = transfer(own, other)
    assert ours.shape == theirs.shape == (2, 6, 4, 4)
    expected = other if teacher == 4 else other.reshape(2, 6, 4, 2, 4, 2).mean(dim=(3, 5))
    torch.testing.assert_close(theirs, expected)


def test_the_inner_width_is_the_teachers_over_the_factor():
    assert Transfer(8, 32).transfer[0].out_channels == 16
    assert Transfer(8, 32, factor=4).transfer[0].out_channels == 8
    assert Transfer(8, 32, inner=5).transfer[0].out_channels == 5


@pytest.mark.parametrize(("student_side", "teacher_side"), [(4, 2), (2, 4)])
def test_the_gradient_of_the_transfer_is_right(student_side, teacher_side):
    torch.manual_seed(0)
    transfer = Transfer(2, 4).double()
    for module in transfer.modules():  # away from the ReLU's kink and from in-place statistics
        if isinstance(module, nn.BatchNorm2d):
            module.track_running_stats = False
            module.bias.data.fill_(0.7)
    student = draw(2, 2, student_side, student_side).requires_grad_()
    teacher = draw(2, 4, teacher_side, teacher_side, seed=1).requires_grad_()
    names, values = zip(*transfer.named_parameters(), strict=True)

    def carried(student, teacher, *parameters):
        parameters = dict(zip(names, parameters, strict=True))
        return functional_call(transfer, parameters, (student, teacher))

    assert gradcheck(carried, (student, teacher, *values))


def test_a_teachers_vector_is_met_by_the_average_of_the_transferred_map():
    transfer = Transfer(3, 6).double()
    own, vector = draw(2, 3, 4, 4), draw(2, 6, seed=1)
    ours, theirs = transfer(own, vector)
    assert theirs is vector
    torch.testing.assert_close(ours, pool(transfer.transfer(own)))


@pytest.mark.parametrize("teacher", [(6,), (6, 4, 4)], ids=["a vector", "a map"])
def test_a_students_vector_is_a_map_of_one_position(teacher):
    transfer = Transfer(3, 6, kernel=1).double()
    vector, other = draw(2, 3), draw(2, *teacher, seed=1)
    ours, theirs = transfer(vector, other)
    assert ours.shape == theirs.shape
    torch.testing.assert_close(
        ours.flatten(1), transfer.transfer(vector[:, :, None, None])[..., 0, 0]
    )
    torch.testing.assert_close(pool(theirs), pool(other))


def test_only_where_the_teachers_features_may_be_negative_are_the_transferred():
    for signed in (False, True):
        torch.manual_seed(0)
        transfer = Transfer(3, 6, signed=signed).double()
        ours, _ = transfer(draw(4, 3, 4, 4), draw(4, 6, 4, 4))
        assert (ours < 0).any() == signed
    assert transfer.state_dict().keys() == Transfer(3, 6).state_dict().keys()


def test_bfloat16_maps_under_autocast_give_a_finite_loss():
    transfer = Transfer(3, 8)
    student = torch.randn(4, 3, 4, 4, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        ours, theirs = transfer(student, torch.randn(4, 8, 4, 4, dtype=torch.bfloat16))
        assert ours.dtype == torch.bfloat16
        weights = disagreement_weights(pool(ours).float(), pool(theirs).float())
        loss = weighted_feature_loss(ours.float(), theirs.float(), weights)
    loss.backward()
    assert loss.dtype == torch.float32
    assert student.grad.isfinite().all()


def test_the_variance_of_channels_is_that_of_all_batches_together():
    maps = draw(12, 5, 3, 3, seed=4).float() * torch.tensor([1.0, 3.0, 0.5, 2.0, 1.0]).view(5, 1, 1)
    maps += 100 * torch.arange(5.0).view(5, 1, 1)
    of = ChannelVariance(5)
    for part in maps.split(4):
        of.update(part.mean(dim=(0, 2, 3)), part.var(dim=(0, 2, 3), unbiased=False))
    expected = maps.double().var(dim=(0, 2, 3), unbiased=False)
    torch.testing.assert_close(of().double(), expected, rtol=1e-3, atol=0)
    torch.testing.assert_close(of.mean, maps.mean(dim=(0, 2, 3)), rtol=1e-5, atol=1e-5)


def test_a_silent_channel_has_a_hundredth_of_the_mean_variance():
    of = ChannelVariance(4)
    of.update(torch.zeros(4), torch.tensor([0.0, 4.0, 4.0, 8.0]))
    torch.testing.assert_close(of(), torch.tensor([0.04, 4.0, 4.0, 8.0]))


def test_values_of_channels_spread_over_maps_and_vectors():
    values = torch.arange(3.0)
    assert per_channel(values, torch.zeros(2, 3, 4, 4)).shape == (1, 3, 1, 1)
    assert per_channel(values, torch.zeros(2, 3)).shape == (1, 3)
