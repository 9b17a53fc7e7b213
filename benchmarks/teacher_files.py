"""Files of weights, each with what comes of it: how the network is cut, or why it is refused.

    python -m benchmarks.teacher_files FOLDER [NAME=ARCHITECTURE ...]

NAME is the beginning of a file's name, the longest counts; without one that fits, a file is taken
for a torchvision/resnet18. `NAME=ARCHITECTURE@1` is a network of one channel. With `--out` the
table also goes into a file of Markdown.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from kd3_pipeline.errors import PipelineError
from kd3_pipeline.weights.files import read_weights
from kd3_pipeline.weights.network import fitted_network

DEFAULT = "torchvision/resnet18"
PARTS = {"map": "(a)", "vector": "(b)", "logits": "(c)"}


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("architectures", nargs="*", metavar="NAME=ARCHITECTURE")
    parser.add_argument("--input-size", type=int, default=64)
    parser.add_argument("--out", type=Path)
    given = parser.parse_intermixed_args(arguments)
    known = dict(one.split("=", 1) for one in given.architectures)
    lines = ["| file | architecture | outcome | told |", "|---|---|---|---|"]
    print("\n".join(lines))
    for path in sorted(one for one in given.folder.iterdir() if one.is_file()):
        fitting = sorted((name for name in known if path.name.startswith(name)), key=len)
        architecture = known[fitting[-1]] if fitting else DEFAULT
        lines.append(row(path, architecture, given.input_size))
        print(lines[-1], flush=True)
    if given.out:
        given.out.write_text("\n".join(lines) + "\n", "utf-8")


def row(path: Path, architecture: str, input_size: int) -> str:
    """The line of one file."""
    name, _, channels = architecture.partition("@")
    try:
        found = fitted_network(
            read_weights(path), name, input_size=input_size, channels=int(channels or 3)
        )
    except PipelineError as error:
        words = str(error).replace(f"{path.parent}/", "")
        return f"| {path.name} | {architecture} | refused | {_cell(words)} |"
    outcome = f"{PARTS[found.network.cut]}, {len(found.class_names)} classes"
    told = "; ".join(found.notes).replace(f"{path.parent}/", "")
    return f"| {path.name} | {architecture} | {outcome} | {_cell(told)} |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


if __name__ == "__main__":
    main()
