"""The teacher that is not here yet: what is known of it before it is trained or downloaded."""

from kd3_pipeline.classes import load_classes
from kd3_pipeline.console import Console, listed
from kd3_pipeline.errors import PipelineError, UserError
from kd3_pipeline.frames import Frame
from kd3_pipeline.labelled import Reading, load_labelled, to_be_downloaded
from kd3_pipeline.labelled.names import listed_names
from kd3_pipeline.models import build
from kd3_pipeline.models.network import parameter_count
from kd3_pipeline.models.own import is_own
from kd3_pipeline.params import Params, Teacher
from kd3_pipeline.weights.network import size_problem
from kd3_pipeline.weights.offline import known_teacher
from kd3_stages.steps.class_check import asked_for, styles, test_set
from kd3_stages.steps.findings import Finding
from kd3_stages.steps.student_check import student_findings
from kd3_stages.steps.teacher_config import teacher_config

SHOWN = 5  # class names
FEW = 64  # images of a labelled set, which are enough to know its classes
GOT = "`pipeline teacher --check` gets and checks it"


def to_be_got(section: Teacher, here: bool, fetch: bool) -> bool:
    """Whether the teacher has to be trained, or cannot be had without a network that is not asked.

    Args:
        here: models/teacher is one of these parameters.
        fetch: a network may be asked.

    Raises:
        UserError: there can be no such teacher.
    """
    if section.source == "train":
        return not here
    if section.source == "file" or fetch or here:
        return False
    return not known_teacher(section).here


def outline_findings(params: Params, console: Console) -> list[Finding]:
    """Findings about a teacher with random weights in place of its own: all but what it answers.

    Raises:
        UserError: it cannot be trained on its data, or there is no such network.
    """
    section = params.teacher
    if section.source == "train":
        frame = Frame(section.input_size, params.embed.fit, params.embed.size)
        names = _trained_names(section, frame, console)
        text = f"{section.architecture}, will be trained here on {section.data}"
        ok: bool | None = True
    else:
        known = known_teacher(section)
        names = listed_names(section.class_names, "teacher.class_names") or known.class_names
        names = names or [f"class {output}" for output in range(known.outputs)]
        where = section.repository or section.architecture
        text, ok = f"{section.source} {where}, not here yet: {GOT}", None
    first = Finding("teacher", text, ok, values={"source": section.source})
    if not names or section.source == "torch.hub":  # whose code says what the network is
        return [first]
    return [first, *_of_shape(params, names, console)]


def without_teacher(params: Params, first: Finding, console: Console) -> list[Finding]:
    """The finding that a file is no teacher, and what can be found all the same: by the names of
    its classes and of its network, where both are set."""
    section = params.teacher
    try:
        names = listed_names(section.class_names, "teacher.class_names")
        if section.source != "file" or not names:
            return [first]
        return [first, *_of_shape(params, names, console)]
    except PipelineError:  # the network cannot be had either, which is what `first` says
        return [first]


def _of_shape(params: Params, names: list[str], console: Console) -> list[Finding]:
    """Findings by the shape of a teacher alone.

    Raises:
        UserError: there is no such network, or it does not take images of this size.
    """
    section = params.teacher
    frame = Frame(section.input_size, params.embed.fit, params.embed.size)
    options = dict(section.options)
    if is_own(section.architecture):
        options = {"input_size": section.input_size} | options
    network = build(section.architecture, len(names), **options).eval()
    if problems := size_problem(network, section.input_size):
        raise UserError(f"{section.architecture}: {problems[0]}", "choose another architecture")
    config = teacher_config(section, names, options, section.source)
    classes = f"{len(names):,}: {listed(names, SHOWN)}"
    shape = f"{section.architecture}, {parameter_count(network):,} parameters"
    found = [Finding("network", shape), Finding("classes", classes, values={"names": names})]
    found += asked_for(params.crawl, names)
    test, problem = test_set(params.evaluate, frame, names, FEW, console)
    if test is not None:
        text = f"{params.evaluate.test_set}: its classes are the teacher's"
        problem = Finding("test set", text, values={"images": test.total or params.evaluate.drawn})
    assert problem is not None
    found += [problem, *styles(params.evaluate, frame, names)]
    return [*found, *student_findings(params.distill, network, config)]


def _trained_names(section: Teacher, frame: Frame, console: Console) -> list[str]:
    """The classes of the data that a teacher will be trained on.

    Raises:
        UserError: it cannot be read, or its classes are not those of teacher.class_names.
    """
    given = listed_names(section.class_names, "teacher.class_names")
    if to_be_downloaded(section.data):
        return given or [one.name for one in load_classes(section.data).classes]
    with console.progress("check: reading the teacher's data", FEW) as advance:
        data = load_labelled(
            section.data,
            "train",
            frame,
            min(section.drawn or FEW, FEW),
            section.seed,
            advance,
            reading=Reading.of(section),
            class_names=given,
        )
    return data.class_names or [f"class {label}" for label in range(int(data.labels.max()) + 1)]
