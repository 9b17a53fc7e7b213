"""A new objective is one file and one line: values, messages, pages and runs follow from them."""

from pathlib import Path

import pytest

from tests.stages.workspace import fresh_copy, run

LINE = """        "dfnd": Entry("""
OWN = """\"\"\"Softened logits under another name.\"\"\"

from kd3_pipeline.distill.objectives.kd import KD


class Own(KD):
    \"\"\"The same as `kd`.\"\"\"
"""


@pytest.mark.slow
def test_an_objective_is_a_file_and_a_line(project: Path, tmp_path: Path) -> None:
    folder = fresh_copy(project, tmp_path)
    (folder / "pipeline/distill/objectives/own.py").write_text(OWN)
    registry = folder / "pipeline/registry.py"
    text = registry.read_text()
    assert text.count(LINE) == 1
    line = '        "own": Entry("own:Own", "what a stranger added"),\n'
    registry.write_text(text.replace(LINE, line + LINE))

    wrong = run(folder, "pipeline", "distill", "--set", "distill.objective=owm", check=False)
    assert "did you mean 'own'?" in wrong.stderr
    done = run(folder, "pipeline", "distill", "--set", "distill.objective=own", "--epochs", "1")
    assert "agreement with the teacher" in done.stdout
    assert "own from" in (folder / "models/student/config.json").read_text()
    run(folder, "python", "-m", "kd3_stages.generate")
    assert "`own`: what a stranger added" in (folder / "docs/parameters.md").read_text()
