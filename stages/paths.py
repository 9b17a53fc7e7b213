"""Paths of all files, relative to the project's folder. Only `stages` knows them."""

from pathlib import Path

PARAMS = Path("params.yaml")
DVC = Path("dvc.yaml")
LOCK = Path("dvc.lock")
INPUTS = Path("data/inputs")
INPUTS_LOCK = Path("inputs.lock")  # beside dvc.lock, for git
CRAWL = Path("data/crawl")
MANIFEST = CRAWL / "manifest.parquet"
DEDUP = Path("data/dedup/images.parquet")
SHEET = Path("reports/dedup.html")
LEAKS = DEDUP.parent / "leaks.parquet"
EMBED = Path("data/embed")
COVERAGE = Path("reports/coverage.csv")
CLASSES = Path("reports/classes.csv")
TEACHER = Path("models/teacher")
STUDENT = Path("models/student")
EXPORT = Path("models/export")
SELECTION = Path("data/distill/selection.parquet")
DISTILLED = SELECTION.parent / "run.json"
THRESHOLDS = SELECTION.parent / "thresholds.parquet"
CURVES = Path("reports/distill.csv")
METRICS = Path("reports/metrics.json")
FIGURES = Path("reports/figures.json")  # the few of them that DVC compares
PREDICTIONS = Path("reports/predictions.csv")
CORRUPTIONS = Path("reports/corruptions.csv")
CONTAMINATION = Path("reports/contamination.html")
MISTAKES = Path("data/evaluate/mistakes.parquet")
REPORT = Path("reports/index.html")
CACHE = Path(".cache")
VIEWS = CACHE / "views"  # the teacher's answers, kept beyond a run


def summary(stage: str) -> Path:
    """A stage's own figures."""
    return Path("reports") / f"{stage}.json"
