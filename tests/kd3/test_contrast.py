import math

import pytest
import torch
from torch.autograd import gradcheck
from torch.func import functional_call

from kd3_pipeline.kd3 import Projection, nt_xent


def views(count: int = 5, width: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    a, b = torch.randn(2, count, width, generator=generator, dtype=torch.float64)
    return a, b


def by_hand(a: torch.Tensor, b: torch.Tensor, temperature: float) -> float:
    """NT-Xent, row by row, in plain Python."""
    rows = [*a.tolist(), *b.tolist()]

    def cosine(x, y):
        dot = sum(i * j for i, j in zip(x, y, strict=True))
        return dot / math.hypot(*x) / math.hypot(*y)

    total = 0.0
    for i, row in enumerate(rows):
        powers = {
            j: math.exp(cosine(row, other) / temperature) for j, other in enumerate(rows) if j != i
        }
        total -= math.log(powers[(i + len(a)) % len(rows)] / sum(powers.values()))
    return total / len(rows)


def test_the_published_contrast_is_reproduced(golden):
    found = nt_xent(golden["con_a"], golden["con_b"], float(golden["con_temperature"]))
    golden.matches(found, "con_loss")


def test_the_published_projection_is_reproduced(golden):
    projection = Projection(512).to(golden.device, golden.dtype)
    projection.linear.weight.data = golden["proj_weight"]
    projection.linear.bias.data = golden["proj_bias"]
    golden.matches(projection(golden["proj_input"]), "proj_output")


@pytest.mark.parametrize("temperature", [0.1, 0.3, 1.0])
def test_the_contrast_agrees_with_a_loop_over_the_rows(temperature):
    a, b = views()
    found = nt_xent(a, b, temperature).item()
    assert found == pytest.approx(by_hand(a, b, temperature), rel=1e-10)


def test_the_contrast_does_not_depend_on_length_or_on_the_order_of_the_views():
    a, b = views()
    torch.testing.assert_close(nt_xent(7 * a, b / 3), nt_xent(a, b))
    torch.testing.assert_close(nt_xent(b, a), nt_xent(a, b))


def test_views_that_agree_contrast_less_than_views_that_do_not():
    a, b = views()
    assert nt_xent(a, a) < nt_xent(a, b)


def test_one_image_has_nothing_to_contrast_with():
    a, b = (view.requires_grad_() for view in views(1))
    loss = nt_xent(a, b)
    loss.backward()
    assert loss.item() == 0
    assert a.grad.tolist() == b.grad.tolist() == [[0.0] * 4]


def test_projections_have_length_one():
    rows = Projection(6, 3)(torch.randn(4, 6))
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(4))


def test_the_gradient_of_the_contrast_is_right():
    a, b = (view.requires_grad_() for view in views())
    assert gradcheck(nt_xent, (a, b))


def test_the_gradient_of_the_projection_is_right():
    torch.manual_seed(0)
    projection = Projection(4, 3).double()
    names, values = zip(*projection.named_parameters(), strict=True)

    def projected(features, *parameters):
        return functional_call(projection, dict(zip(names, parameters, strict=True)), (features,))

    assert gradcheck(projected, (views()[0].requires_grad_(), *values))


def test_bfloat16_views_give_a_finite_loss_and_gradient():
    a, b = (view.to(torch.bfloat16).requires_grad_() for view in views())
    with torch.autocast("cpu", torch.bfloat16):
        loss = nt_xent(a, b)
    loss.backward()
    assert loss.isfinite()
    assert a.grad.isfinite().all()
