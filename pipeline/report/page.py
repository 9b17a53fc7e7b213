"""Report of a run: one self-contained HTML page from the files of its stages."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kd3_pipeline.crawlsummary import read_crawl_summary
from kd3_pipeline.embeddings import Embeddings
from kd3_pipeline.embedsummary import read_embed_summary
from kd3_pipeline.errors import UserError
from kd3_pipeline.metrics import read_metrics
from kd3_pipeline.report import sections
from kd3_pipeline.report.advice import Run, what_now
from kd3_pipeline.report.catalogue import Catalogue
from kd3_pipeline.report.corruptions import by_kind, read_corruptions
from kd3_pipeline.report.flow import Flow, count_flow, predicted, read_candidates
from kd3_pipeline.report.galleries import GALLERIES, build_galleries, read_mistakes
from kd3_pipeline.report.identity import Identity
from kd3_pipeline.report.inputs import Curves, read_confusions, read_curves, read_thresholds
from kd3_pipeline.report.map import read_map
from kd3_pipeline.report.origins import read_origins
from kd3_pipeline.report.refined import refined_section
from kd3_pipeline.report.sampling import disagreements
from kd3_pipeline.report.stored import Images, read_images
from kd3_pipeline.report.tiles import Gallery
from kd3_pipeline.templates import environment

MOST_THUMBNAILS = 75
STEPS = len(GALLERIES) + 2  # with the mistakes and the map
PACKAGE = "kd3_pipeline.report"
UNKNOWN = Identity()


@dataclass(frozen=True)
class ReportFiles:
    """The files of the earlier stages.

    Attributes:
        crawl: directory of the image shards and `manifest.parquet`.
        dedup: Parquet file, one row a stored image.
        leaks: Parquet file of the test images found in the crawl; may be missing.
        embed: directory of the embeddings.
        selection: Parquet file, one row an image that distillation used.
        thresholds: Parquet file, one row an epoch and class.
        curves: CSV file, one row an epoch.
        metrics: JSON file of the evaluation.
        predictions: CSV file, one row a test image.
        corruptions: CSV file, one row a corruption and severity; no rows if there were none.
        mistakes: Parquet file of test images that the student gets wrong; may be missing.
        harvest: JSON file, the crawl's summary; may be missing.
        embedded: JSON file, the summary of the embeddings.
    """

    crawl: Path
    dedup: Path
    leaks: Path
    embed: Path
    selection: Path
    thresholds: Path
    curves: Path
    metrics: Path
    predictions: Path
    corruptions: Path
    mistakes: Path
    harvest: Path
    embedded: Path

    @property
    def manifest(self) -> Path:
        """The crawl's table of candidates."""
        return self.crawl / "manifest.parquet"


def build_report(
    files: ReportFiles,
    identity: Identity = UNKNOWN,
    *,
    thumbnails: int = 60,
    map_images: int = 2000,
    seed: int = 0,
    progress: Callable[[int], object] | None = None,
) -> str:
    """Build the page.

    Args:
        files: of the earlier stages.
        identity: what else is known of the run.
        thumbnails: images (or pairs of images) in each gallery, at most 75.
        map_images: images on the map at most; 0 leaves it out.
        seed: of the choice of images; the same files and seed give the same page.
        progress: called with 1 after each of the `STEPS` galleries and the map.

    Returns:
        HTML that needs nothing beside itself: a few MB as a rule, under 18 whatever the pictures.

    Raises:
        UserError: a file is missing or malformed, or files are of different runs.
    """
    _check(thumbnails)
    advance = progress or (lambda n: None)
    # whatever is missing is told in the order of the stages, before any picture is read
    harvest = read_crawl_summary(files.harvest)
    candidates = read_candidates(files.manifest)
    images = read_images(files.dedup, files.selection)
    embedded = read_embed_summary(files.embedded)
    embeddings = Embeddings.open(files.embed)
    thresholds = read_thresholds(files.thresholds, images.epochs)
    curves = read_curves(files.curves)
    metrics = read_metrics(files.metrics)
    confusions = read_confusions(files.predictions)
    corruptions = by_kind(read_corruptions(files.corruptions))
    names = metrics.class_names
    flow = count_flow(candidates, embeddings, images, names)

    galleries = []
    catalogue = _catalogue(files, images, embeddings, flow, names, thumbnails)
    for gallery in build_galleries(catalogue, seed):
        galleries.append(gallery)
        advance(1)
    mistakes = read_mistakes(files.mistakes, thumbnails)
    advance(1)
    drawn = read_map(embeddings, files.selection, names, flow.names, map_images, seed)
    advance(1)
    run = Run(
        metrics=metrics,
        seen=np.bincount(predicted(embeddings), minlength=len(names)),
        images=images,
        confusions=confusions,
        curves=curves,
        apart=len(disagreements(images, flow.names, names)),
        shown=_shown(*galleries, mistakes),
    )
    return (
        environment(PACKAGE)
        .get_template("page.html.j2")
        .render(
            files=[path for path in vars(files).values() if path.exists()],
            origins=read_origins(files.manifest, images),
            flow=flow,
            **sections.harvest(harvest),
            map=drawn,
            what_now=what_now(run),
            **sections.identity(identity, metrics),
            **sections.summary(metrics, embedded),
            **sections.moments(embedded) | refined_section(embedded),
            **sections.galleries(galleries, mistakes),
            **sections.curves(curves),
            **sections.selection(images, names, thresholds),
            **sections.failures(metrics, confusions, corruptions),
            **sections.cost(metrics),
        )
    )


def _catalogue(
    files: ReportFiles,
    images: Images,
    embeddings: Embeddings,
    flow: Flow,
    names: tuple[str, ...],
    most: int,
) -> Catalogue:
    return Catalogue(
        files.crawl,
        files.manifest,
        files.leaks,
        images,
        embeddings,
        flow.names,
        flow.known,
        names,
        most,
    )


def _check(thumbnails: int) -> None:
    if not 0 <= thumbnails <= MOST_THUMBNAILS:
        raise UserError(
            f"report.thumbnails is {thumbnails}",
            f"take 0 to {MOST_THUMBNAILS}, which keeps the page under 18 MB",
        )


def _shown(*galleries: Gallery | None) -> dict[str, int]:
    """The galleries that have images, by key, with how many there are in all."""
    return {one.key: one.total for one in galleries if one and one.items}


def build_live(curves_path: Path, every: int) -> str:
    """Build the page of a distillation that is under way: the curves alone.

    Args:
        curves_path: CSV file, one row an epoch; before the first epoch has ended it is missing.
        every: seconds after which a browser reads the page again.

    Raises:
        UserError: the file is malformed.
    """
    curves = read_curves(curves_path) if curves_path.exists() else Curves([], {}, ())
    page = environment(PACKAGE).get_template("live.html.j2")
    return page.render(every=every, files=[curves_path], **sections.curves(curves, ended=False))
