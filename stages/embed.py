"""`pipeline embed`: kept images to pixels, features, logits and an index."""

from stages import paths
from stages.command import Json, Quiet, Set, start


def embed(overrides: Set = None, quiet: Quiet = False, as_json: Json = False) -> None:
    """Run the teacher over the kept images and index them, into data/embed."""
    params, console = start("embed", overrides, quiet, as_json)
    import numpy as np

    from pipeline.device import resolve_device
    from pipeline.embed.features import embed as embed_images
    from pipeline.embed.features import kept_images
    from pipeline.embed.index import build_index
    from pipeline.embed.summary import summarise
    from pipeline.models.checkpoint import load_model
    from pipeline.store import read_table, replacing, write_json

    section = params.embed
    device = resolve_device(section.device)
    kept = kept_images(read_table(paths.DEDUP))
    network, config = load_model(paths.TEACHER, device)
    with replacing(paths.EMBED) as folder:
        with console.progress("embed", len(kept)) as advance:
            embed_images(
                kept,
                paths.CRAWL,
                network,
                config,
                folder,
                batch_size=section.batch_size,
                fit=section.fit,
                device=device,
                advance=advance,
            )
        build_index(np.load(folder / "features.npy", mmap_mode="r"), folder / "index.faiss")
        summary = summarise(np.load(folder / "logits.npy", mmap_mode="r"), config.class_names)
    write_json(paths.summary("embed"), summary)
    console.result(
        f"embed: {summary['images']:,} images, teacher's mean confidence"
        f" {summary['mean_confidence']:.2f} → {paths.EMBED}",
        summary,
    )
