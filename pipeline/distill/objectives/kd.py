"""Plain distillation (Hinton et al., 2015)."""

from torch import Tensor

from kd3_pipeline.distill.objectives.objective import Objective, softened_divergence


class KD(Objective):
    """KL between the softened logits of teacher and student."""

    def forward(
        self,
        images: Tensor,
        *others: Tensor,
        weights: Tensor | None = None,
        answers: Tensor | None = None,
    ) -> dict[str, Tensor]:
        target = self.ask_teacher(images)[1] if answers is None else answers
        logits = self.student(images)
        return {"kl": softened_divergence(logits, target, self.section.kd_temperature, weights)}
