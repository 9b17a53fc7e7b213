"""`pipeline embed`: kept images to pixels, features, logits, scores and an index."""

from kd3_stages.command import Json, Quiet, Set, start


def embed(overrides: Set = None, quiet: Quiet = False, as_json: Json = False) -> None:
    """Run the teacher over the kept images, score and index them, into data/embed."""
    params, console = start("embed", overrides, quiet, as_json)
    from kd3_pipeline.engine import Engine
    from kd3_stages.steps.embed import run

    with Engine.chosen() as engine:
        run(params.embed, console, engine)
