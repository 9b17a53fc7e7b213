"""Step of `pipeline dag`: the graph of dvc.yaml without arrows that follow from others."""

import networkx
from dvc.dagascii import draw

from kd3_pipeline.console import Console
from kd3_pipeline.errors import UserError
from kd3_stages.steps.run_dvc import repository


def run(console: Console) -> None:
    """Draws it, as `dvc dag` draws the whole.

    Raises:
        UserError: DVC does not take this folder for one of its own, or there are no stages.
    """
    with repository() as repo:
        graph = repo.index.graph
        graph = networkx.relabel_nodes(graph, {stage: stage.addressing for stage in graph})
    if not graph:
        raise UserError("dvc.yaml declares no stages", "`pipeline init FOLDER` makes a project")
    least = networkx.transitive_reduction(graph)
    waits = {stage: sorted(least.successors(stage)) for stage in graph}
    console.result(draw(least.nodes, least.edges), {"waits_for": waits})
