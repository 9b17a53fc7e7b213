import io

import numpy as np
import pytest
from PIL import Image

from kd3_pipeline.evaluate.outputs import MOST_MISTAKES, answers, mistakes, prediction_rows

NAMES = ["cat, the", "dog"]
LABELS = np.array([0, 1, 0, 1])
STUDENT = np.array([[3, 0], [2, 0], [0, 4], [0, 1]], np.float32)
TEACHER = np.array([[1, 0], [0, 1], [1, 0], [1, 0]], np.float32)


def test_predictions_are_one_line_an_image_with_names_and_confidences():
    answered = answers(LABELS, TEACHER, STUDENT, NAMES)
    sure = ["student_confidence", "teacher_confidence"]
    assert list(answered) == ["actual", "student", "teacher", *sure]
    rows = list(prediction_rows(answered))
    assert rows[0] == ("cat, the", "cat, the", "cat, the", "0.9526", "0.7311")
    assert rows[1] == ("dog", "cat, the", "dog", "0.8808", "0.7311")
    assert len(rows) == 4


def test_mistakes_are_the_students_surest_first_with_its_pixels():
    pixels = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)
    found = mistakes(pixels, answers(LABELS, TEACHER, STUDENT, NAMES))
    assert found["actual"].to_pylist() == ["cat, the", "dog"]
    assert found["student"].to_pylist() == ["dog", "cat, the"]
    assert found["teacher"].to_pylist() == ["cat, the", "dog"]
    assert found["student_confidence"].to_pylist() == pytest.approx([0.98201, 0.88080], abs=1e-4)
    assert str(found.schema.field("student_confidence").type) == "float"
    for image, row in zip(found["image"].to_pylist(), (2, 1), strict=True):
        shown = Image.open(io.BytesIO(image["bytes"]))
        assert shown.format == "PNG"
        assert np.array_equal(np.asarray(shown), pixels[row])
        assert image["path"] == f"{row}.png"


def test_mistakes_are_no_more_than_a_page_can_show():
    count = MOST_MISTAKES + 30
    student = np.stack([np.linspace(1, 9, count), np.zeros(count)], axis=1)
    labels = np.ones(count, np.int64)
    found = mistakes(np.zeros((count, 4, 4, 3), np.uint8), answers(labels, student, student, NAMES))
    assert len(found) == MOST_MISTAKES
    assert found["image"][0].as_py()["path"] == f"{count - 1}.png"


def test_without_a_mistake_the_table_is_empty_and_has_its_columns():
    found = mistakes(
        np.zeros((4, 4, 4, 3), np.uint8), answers(LABELS, TEACHER, 9 * np.eye(2)[LABELS], NAMES)
    )
    assert len(found) == 0
    assert found.column_names[0] == "image"
