"""Classifiers of torchvision, cut in two."""

import difflib
from typing import Any

from torchvision import models

from kd3_pipeline.errors import UserError
from kd3_pipeline.models.cut_network import CutNetwork
from kd3_pipeline.models.cutting import SIDES, SMALL, cut

OWN_SIDES = {"inception_v3": 299}


def torchvision_network(
    name: str, num_classes: int, *, head: dict[str, Any] | None = None, **options: Any
) -> CutNetwork:
    """A classifier of torchvision with random weights; keys are torchvision's behind `model.`.

    Args:
        name: as in `torchvision.models`.
        head: layers in place of others, as in `kd3_pipeline.models.heads`.
        options: of the model's constructor, such as `width_mult`.

    Raises:
        UserError: no such classifier, or it takes no images or gives no logits with these options.
        TypeError: an option is unknown.
    """
    known = models.list_models(module=models)
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3)
        meant = " or ".join(f"'torchvision/{other}'" for other in near)
        hint = f"did you mean {meant}?" if near else "see torchvision.models.list_models()"
        raise UserError(f"no architecture named 'torchvision/{name}'", hint)
    model = models.get_model(name, weights=None, num_classes=num_classes, **options)
    own = getattr(model, "image_size", None) or OWN_SIDES.get(name)
    sides = (own,) if own else (SMALL, *SIDES)
    return cut(model, f"torchvision/{name}", num_classes, sides, head=head)
