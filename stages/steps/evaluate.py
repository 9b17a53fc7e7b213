"""Step of `pipeline evaluate`: read, look for test images among the trained, measure, write."""

from typing import Any

import numpy as np

from pipeline.console import Console
from pipeline.device import resolve_device
from pipeline.errors import ExternalError
from pipeline.evaluate import metrics, outputs
from pipeline.evaluate.calibration import fit_temperature
from pipeline.evaluate.contamination import contaminated
from pipeline.evaluate.corruptions import KINDS, SEVERITIES, corruption_error
from pipeline.evaluate.cost import BATCHES, latencies, macs
from pipeline.evaluate.pair import Pair
from pipeline.evaluate.styles import Style, load_styles
from pipeline.evaluate.web import Web, load_web
from pipeline.labelled import load_labelled, match_labels
from pipeline.models.checkpoint import WEIGHTS, load_model
from pipeline.models.distilled import load_student
from pipeline.models.network import parameter_count
from pipeline.params import Evaluate
from pipeline.store import replacing, row_count, write_json, write_table, write_text
from stages import paths

FOLDERS = {"teacher": paths.TEACHER, "student": paths.STUDENT}
CURVE_COLUMNS = ("corruption", "severity", "teacher", "student")


class Evaluation:
    """One comparison of the student with its teacher."""

    def __init__(self, section: Evaluate, console: Console) -> None:
        self.section, self.console = section, console
        device = resolve_device(section.device)
        teacher, self.config = load_model(paths.TEACHER, device)
        student, own = load_student(paths.STUDENT, device)
        self.pair = Pair(
            {"teacher": teacher, "student": student},
            {"teacher": self.config, "student": own},
            section.batch_size,
            device,
        )
        self.side = self.config.input_size

    def run(self) -> tuple[str, dict[str, Any]]:
        """Measures and writes everything: the result for a person, and as one JSON object."""
        section, names = self.section, self.config.class_names
        with self.console.progress("evaluate: reading", section.images or None) as advance:
            data = load_labelled(
                section.test_set, "test", self.side, section.images, section.seed, advance
            )
        labels = match_labels(data, names, section.test_set)
        styles = self._styles()
        web = self._web()
        found = self._contaminated(data.pixels, web)
        with self.console.progress("evaluate", 2 * len(labels)) as advance:
            teacher, student = (
                self.pair.logits(who, data.pixels, advance) for who in self.pair.networks
            )
        temperature = self._temperature(web)
        curves = self._curves(data.pixels, labels)
        with self.console.progress("evaluate: styles") as advance:
            by_style = self.pair.by_style(styles, advance)
        costs = self._costs()
        values = {
            "test_set": section.test_set,
            "test_images": len(labels),
            "class_names": names,
            "teacher": costs["teacher"] | metrics.scores(labels, teacher),
            "student": costs["student"]
            | metrics.scores(labels, student)
            | metrics.tempered(labels, student, temperature),
            **metrics.beside(labels, teacher, student),
            "per_class": metrics.per_class(labels, teacher, student, names),
            "leaked": row_count(paths.LEAKS) if paths.LEAKS.is_file() else None,
            "contaminated": found,
            "calibration": metrics.calibration(labels, student),
            "calibration_tempered": metrics.calibration(labels, student, temperature),
            "styles": by_style,
            "corruption_error": corruption_error(curves),
        }
        answers = outputs.answers(labels, teacher, student, names)
        write_json(paths.METRICS, values)
        write_text(paths.PREDICTIONS, outputs.predictions_csv(answers))
        write_text(paths.CORRUPTIONS, outputs.as_csv(CURVE_COLUMNS, curves))
        with replacing(paths.MISTAKES.parent) as folder:
            folder.mkdir()
            write_table(folder / paths.MISTAKES.name, outputs.mistakes(data.pixels, answers))
        return f"{outputs.summary(values)}\n→ {paths.METRICS}", values

    def _styles(self) -> list[Style]:
        source = self.section.styles
        if not source:
            return []
        with self.console.progress("evaluate: reading styles") as advance:
            styles, ignored = load_styles(source, self.side, self.config.class_names, advance)
        if ignored:
            self.console.note(
                f"{source}: {ignored:,} images are of classes that the teacher does not know, and"
                " left out"
            )
        return styles

    def _web(self) -> Web | None:
        classes = len(self.config.class_names)
        web = load_web(paths.EMBED, paths.SELECTION, self.side, classes)
        if web is None:
            self.console.note(
                f"{paths.EMBED} or {paths.SELECTION} is not there: test images were not looked for"
                " among those that trained the student, and its confidences have no temperature"
            )
        return web

    def _contaminated(self, test: np.ndarray, web: Web | None) -> int | None:
        if web is None:
            return None
        title = "evaluate: looking for test images"
        with self.console.progress(title, len(web.trained)) as advance:
            rows = contaminated(test, web.pixels, web.trained, advance)
        if not len(rows):
            return 0
        shown = ", ".join(map(str, rows[:5].tolist())) + (", …" if len(rows) > 5 else "")
        text = (
            f"{len(rows):,} of {len(test):,} images of {self.section.test_set} are among those"
            f" that trained the student (numbers {shown}, from 0)"
        )
        if not self.section.allow_contaminated:
            raise ExternalError(
                text,
                "set dedup.leaks to true and run `dvc repro`, or evaluate.allow_contaminated to"
                " true for scores that are too high",
            )
        self.console.note(f"{text}: the student's scores are too high")
        return len(rows)

    def _temperature(self, web: Web | None) -> float:
        if web is None:
            return 1.0
        with self.console.progress("evaluate: temperature", len(web.held_out)) as advance:
            logits = self.pair.logits("student", web.pixels[web.held_out], advance)
        temperature = fit_temperature(logits, web.teacher_logits[web.held_out])
        if temperature is None:
            self.console.note(
                f"{len(web.held_out)} web images are held out (distill.held_out), too few for a"
                " temperature: the student's confidences stay as they are"
            )
        return temperature or 1.0

    def _curves(self, pixels: np.ndarray, labels: np.ndarray) -> list[tuple]:
        if not self.section.corruptions:
            return []
        total = len(KINDS) * len(SEVERITIES) * 2 * len(pixels)
        with self.console.progress("evaluate: corruptions", total) as advance:
            return self.pair.under_corruption(pixels, labels, self.section.seed, advance)

    def _costs(self) -> dict[str, dict[str, Any]]:
        networks, times = self.pair.networks, {}
        if self.section.latency:
            steps = len(networks) * len(BATCHES) * (1 + (self.pair.device.type == "cuda"))
            with self.console.progress("evaluate: latency", steps) as advance:
                for who, network in networks.items():
                    times[who] = latencies(network, self.side, self.pair.device, advance)
        return {
            who: {
                "architecture": of.get("name") or of["backbone"],
                "parameters": parameter_count(network),
                "macs": macs(network, self.side),
                "megabytes": round((FOLDERS[who] / WEIGHTS).stat().st_size / 1e6, 3),
                "latency_ms": times.get(who, []),
            }
            for who, network in networks.items()
            for of in [self.pair.configs[who].architecture]
        }
