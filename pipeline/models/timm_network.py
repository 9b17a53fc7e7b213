"""Networks of timm, cut in two."""

import difflib
from typing import Any

from kd3_pipeline.errors import UserError
from kd3_pipeline.extras import install_extra
from kd3_pipeline.models.cut_network import CutNetwork
from kd3_pipeline.models.cutting import SMALL, cut

# options with which timm itself reads or fetches weights
LOADING = ("pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "cache_dir")


def timm_network(
    name: str, num_classes: int, *, head: dict[str, Any] | None = None, **options: Any
) -> CutNetwork:
    """A network of timm with random weights; keys are timm's behind `model.`.

    Args:
        name: as in `timm.list_models()`.
        head: layers in place of others, as in `kd3_pipeline.models.heads`.
        options: of the model's constructor, such as `img_size`.

    Raises:
        UserError: timm is not installed, has no such model, or it takes no images or gives no
            logits with these options; or an option is one that loads weights.
    """
    timm = import_timm()
    if loading := [option for option in LOADING if option in options]:
        raise UserError(
            f"architecture 'timm/{name}' takes no option '{loading[0]}', which reads weights",
            "teacher.weights or distill.student_weights names them",
        )
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=1)
        hint = f"did you mean 'timm/{near[0]}'?" if near else "see timm.list_models()"
        raise UserError(f"no architecture named 'timm/{name}'", hint)
    model = timm.create_model(name, num_classes=num_classes, **options)
    side = options.get("img_size") or model.pretrained_cfg["input_size"][-1]
    fixed = model.pretrained_cfg.get("fixed_input_size") or "img_size" in options
    sides = (int(side),) if fixed else (SMALL, int(side))
    return cut(model, f"timm/{name}", num_classes, sides, head=head)


def import_timm() -> Any:
    """The package timm.

    Raises:
        UserError: it is not installed.
    """
    try:
        import timm
    except ImportError:
        raise UserError("timm is not installed", install_extra("teachers")) from None
    return timm
