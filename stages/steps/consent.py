"""Consent to code of others, as the parameters give it."""

from kd3_pipeline.params import Params
from kd3_pipeline.program.consent import trust_programs


def consented(params: Params) -> None:
    """Takes `teacher.trust` and `distill.trust` as consent to the code that they speak of."""
    teacher, distill = params.teacher, params.distill
    if teacher.trust:
        trust_programs()
    names = [teacher.architecture] if teacher.trust else []
    if teacher.trust and teacher.source == "torch.hub":
        names.append(teacher.hub_network)
    names += [distill.student] if distill.trust else []
    for name in names:
        if ":" in name:
            from kd3_pipeline.models.own import allow  # late: imports torch

            allow(name)
