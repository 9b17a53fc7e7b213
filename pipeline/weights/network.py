"""The teacher's network with the weights of a file: built as the file has it, and loaded."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from kd3_pipeline.console import Advance, no_progress
from kd3_pipeline.errors import UserError, first_line
from kd3_pipeline.models import build
from kd3_pipeline.models.adapting import adapted
from kd3_pipeline.models.cut_network import logits_of
from kd3_pipeline.models.finite import check_weights
from kd3_pipeline.models.heads import slots_of
from kd3_pipeline.models.layers import ARGUMENTS
from kd3_pipeline.models.network import Network
from kd3_pipeline.models.own import CHANNELS, HEAD, ORDER, is_own
from kd3_pipeline.weights.candidates import Candidate
from kd3_pipeline.weights.colours import fold, input_layers, with_channels
from kd3_pipeline.weights.files import Weights
from kd3_pipeline.weights.fitting import Fit, NoFit, fit, fit_trunk
from kd3_pipeline.weights.known import architectures_for, inner_of, key_of, outlines

PLACEHOLDER = 1000  # outputs of a network of which only the shapes before them are looked at


@dataclass(frozen=True)
class Fitted:
    """A network with a file's weights.

    Attributes:
        options: of `kd3_pipeline.models.build`, with which it is built again.
        notes: in lines, what was read in an unusual way, assumed, or left out.
    """

    network: Network
    class_names: list[str]
    options: dict[str, Any]
    notes: list[str]


@dataclass(frozen=True)
class _Way:
    """A way in which weights fit."""

    fit: Fit
    options: dict[str, Any]
    candidate: Candidate
    others: tuple[str, ...] = ()  # names of other candidates that fit as well


def fitted_network(
    weights: Weights,
    architecture: str,
    *,
    input_size: int,
    options: Mapping[str, Any] | None = None,
    class_names: Sequence[str] = (),
    channels: int = 3,
    order: str = "rgb",
    suggest: bool = True,
    advance: Advance = no_progress,
) -> Fitted:
    """The network of this name with these weights.

    The options of the architecture that the keys tell are found (zero-padded shortcuts, auxiliary
    classifiers, the image size of a transformer), and other last layers than its own are rebuilt.

    Args:
        architecture: of `kd3_pipeline.models.build`.
        input_size: side in pixels of the images that the network is meant for.
        options: of the architecture; `head` among them is an activation or a list of layers, as
            in `kd3_pipeline.weights.fitting.fit`.
        class_names: of the outputs; empty: those that the source has, else numbers.
        channels, order: of the images that the weights were trained on.
        suggest: look for the architectures that would fit if this one does not.
        advance: called once an architecture that is tried if this one does not fit.

    Raises:
        UserError: lists all that does not fit: the number of classes, keys that are missing or
            unexpected, shapes, the input size, and which architectures would fit; or some weights
            are not finite; or the source's own network has other logits.
    """
    given = dict(options or {})
    own_code = is_own(architecture)
    # code of one's own has its own head, and may have an argument of this name
    head = _head_option("ReLU" if own_code else given.pop("head", "ReLU"))
    if own_code:
        given.setdefault("input_size", input_size)
    if own_code and (channels != 3 or order != "rgb"):
        given |= {CHANNELS: channels, ORDER: order}
    read = 3 if own_code else channels
    names = list(class_names)
    try:
        way = _way(weights, architecture, given, head, len(names), input_size, read)
    except NoFit as problem:
        hint = ""
        if suggest and not own_code:
            hint = _hint(weights, architecture, given, head, input_size, read, advance)
        raise UserError(
            f"{weights.origin} does not fit the architecture {architecture}: {problem}", hint
        ) from None
    found = way.fit
    names, told = _class_names(names, weights, found.outputs, way.candidate)
    final = way.options | ({HEAD if own_code else "head": found.head} if found.head else {})
    network = build(architecture, len(names), **final)
    state = found.state
    if not own_code and (channels, order) != (3, "rgb"):
        layers = input_layers(inner_of(network))
        state = fold(state, layers, channels, order)
        told.append(_folded(channels, order))
    _load(network, replace(found, state=state), weights, input_size, channels, order)
    notes = [*weights.notes, *_candidate_told(way), *found.notes, *told]
    if way.options != given:
        chosen = {name: one for name, one in way.options.items() if given.get(name) != one}
        notes.append(f"by its keys and shapes the network has the options {_shown(chosen)}")
    notes += [network.told] if network.told else []
    return Fitted(network, names, final | dict(network.remembered), notes)


def load_teacher(network: Network, weights: Weights, input_size: int) -> None:
    """Loads weights into a network as it is, whole, under any of the usual names.

    Args:
        input_size: side in pixels of the images that the network is meant for.

    Raises:
        UserError: as `fitted_network`, but that other last layers are not rebuilt.
    """
    inner = inner_of(network)
    own = dict(inner.state_dict())
    problem: NoFit | None = None
    for candidate in weights.choices:
        try:
            found = _fit_module(inner, own, candidate, weights, "ReLU", network.num_classes)
            if found.head:
                raise NoFit(["its last layers are others than the network's"], 1)
        except NoFit as error:
            problem = _nearer(problem, error)
            continue
        _load(network, found, weights, input_size)
        return
    size = size_problem(network, input_size)
    listed = "; ".join([*(problem.problems if problem else []), *size])
    raise UserError(f"{weights.origin} does not fit the architecture: {listed}") from None


def backbone_state(
    network: Network, weights: Weights, key: str = "distill.student_weights"
) -> tuple[dict[str, Tensor], list[str]]:
    """The file's tensors for all of a network but its last layers, and what to tell of it.

    Args:
        network: before its classifier is dropped.
        key: the parameter to name in errors.

    Returns:
        A part of the network's state dict: the keys that are not in it keep their values.

    Raises:
        UserError: the tensors do not fit; it says what does not.
    """
    inner = inner_of(network)
    problem: NoFit | None = None
    for slot in slots_of(inner):
        for candidate in weights.choices:
            try:
                state, notes = fit_trunk(inner.state_dict(), slot, candidate.state)
            except NoFit as error:
                problem = _nearer(problem, error)
                continue
            check_weights(state, weights.origin)
            own = {key_of(network, name): tensor for name, tensor in state.items()}
            return own, [*weights.notes, *notes]
    reason = problem or "it has no layer that is known as its last"
    raise UserError(f"{key}: {weights.origin} does not fit the student: {reason}")


def _nearer(best: NoFit | None, other: NoFit) -> NoFit:
    """The one of two that fails by less, which is what to tell."""
    return other if best is None or other.misfits < best.misfits else best


def _head_option(head: object) -> str | list[Any]:
    """
    Raises:
        UserError: it is no activation and no list of layers.
    """
    if isinstance(head, list):
        return head
    known = {name.lower(): name for name, arguments in ARGUMENTS.items() if not arguments}
    known |= {name.lower(): name for name in ("GELU", "ELU", "LeakyReLU", "Softplus", "PReLU")}
    if isinstance(head, str) and head.lower() in known:
        return known[head.lower()]
    raise UserError(
        f"teacher.options.head: {head!r} is no activation and no list of layers",
        f"known activations: {', '.join(known.values())} (Identity for none)",
    )


def _way(
    weights: Weights,
    architecture: str,
    options: dict[str, Any],
    head: str | list[Any],
    classes: int,
    input_size: int,
    channels: int,
) -> _Way:
    """
    Raises:
        NoFit: of the variant and the state dict that fit best.
    """
    best: NoFit | None = None
    guess = classes or next((n for n in map(_guess, weights.choices) if n), PLACEHOLDER)
    for option, module in outlines(architecture, guess, options, input_size):
        own = with_channels(module, channels)
        ways: list[_Way] = []
        for candidate in weights.choices:
            try:
                found = _fit_module(module, own, candidate, weights, head, classes)
            except NoFit as error:
                best = _nearer(best, error)
                continue
            ways.append(_Way(found, option, candidate))
        if ways:
            return replace(ways[0], others=tuple(way.candidate.place for way in ways[1:]))
    raise best or NoFit(["it cannot be built with these options"], 1)


def _fit_module(
    module: nn.Module,
    own: Mapping[str, Tensor],
    candidate: Candidate,
    weights: Weights,
    head: str | list[Any],
    classes: int,
) -> Fit:
    return fit(
        own,
        slots_of(module),
        candidate.state,
        ordered=weights.ordered,
        head=head,
        classes=classes,
    )


def _guess(candidate: Candidate) -> int:
    """Outputs of the last matrix: right for most, and only where a network has several heads it
    matters."""
    matrices = [tensor for name, tensor in candidate.state.items() if tensor.ndim == 2]
    return len(matrices[-1]) if matrices else 0


def _load(
    network: Network,
    found: Fit,
    weights: Weights,
    input_size: int,
    channels: int = 3,
    order: str = "rgb",
) -> None:
    state = {key_of(network, name): tensor for name, tensor in found.state.items()}
    own = network.state_dict()
    for name in own.keys() - state.keys():
        if name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(0)
    other = [
        f"{name} is {str(value.dtype)[6:]}, not {str(own[name].dtype)[6:]}"
        for name, value in state.items()
        if own[name].is_floating_point() and not value.is_floating_point()
    ]
    if problems := [*size_problem(network, input_size), *other[:1]]:
        raise UserError(f"{weights.origin} does not fit the architecture: {'; '.join(problems)}")
    check_weights(state, weights.origin)
    network.load_state_dict(state)
    if weights.reference is not None:
        reference = adapted(weights.reference, channels, order)
        _compare(network, reference, weights.origin, input_size)


def size_problem(network: Network, input_size: int) -> list[str]:
    """Why the network takes no images of this side; empty if it does."""
    training = network.training
    tensors = (*network.parameters(), *network.buffers())
    device = tensors[0].device if tensors else torch.device("cpu")
    try:
        with torch.no_grad():
            network.eval()(torch.zeros(1, 3, input_size, input_size, device=device))
    except (RuntimeError, ValueError, AssertionError) as error:
        return [f"images of {input_size} pixels (teacher.input_size): {first_line(error)}"]
    finally:
        network.train(training)
    return []


def _compare(network: Network, reference: nn.Module, origin: str, input_size: int) -> None:
    """The source's own network, which runs its code, and ours have to agree."""
    training = network.training
    draw = torch.Generator().manual_seed(0)
    images = torch.randn(2, 3, input_size, input_size, generator=draw)
    with torch.no_grad():
        logits = network.eval()(images)
        try:
            expected = logits_of(reference.eval()(images), origin)
        except (RuntimeError, ValueError, AssertionError) as error:
            raise UserError(f"{origin}: its own network fails: {first_line(error)}") from None
    network.train(training)
    close = logits.shape == expected.shape and torch.allclose(
        logits,
        expected.float(),
        rtol=1e-3,
        atol=1e-3 * float(expected.float().std()),  # logits may be of any size
    )
    if not close:
        raise UserError(
            f"teacher.architecture: {origin} has other logits than this architecture with"
            " its weights",
            "choose the architecture that the source describes",
        )


def _class_names(
    names: list[str], weights: Weights, outputs: int, candidate: Candidate
) -> tuple[list[str], list[str]]:
    """Names of the outputs, and what to tell of them."""
    if names:
        return names, []
    count = outputs or _guess(candidate)
    if not count and not weights.class_names:
        raise UserError(
            f"{weights.origin} has no last linear layer that could be told",
            "set teacher.class_names",
        )
    named = weights.class_names
    if named and len(named) == (count or len(named)):
        where = f"the class names are {weights.named_at} of the file" if weights.named_at else ""
        return list(named), [where] * bool(where)
    told = [weights.names_unread] * bool(weights.names_unread)
    if named:
        told = [
            f"{weights.named_at or 'the source'} has {len(named)} names for {count} outputs: they"
            " are not used (teacher.class_names)"
        ]
    return [f"class {k}" for k in range(count)], told


def _candidate_told(way: _Way) -> list[str]:
    place = way.candidate.place
    if way.others:
        others = ", ".join(f"'{one}'" for one in way.others)
        return [
            f"its weights are '{place}'; {others} would fit as well (teacher.weights chooses, by"
            " this name)"
        ]
    return []


def _folded(channels: int, order: str) -> str:
    if channels == 1:
        return "its one channel is the brightness of RGB (0.299, 0.587, 0.114), in its first layer"
    return f"its colours come as {order.upper()}: its first layer takes them as RGB here"


def _shown(options: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}: {value}" for name, value in options.items())


def _hint(
    weights: Weights,
    architecture: str,
    options: dict[str, Any],
    head: str | list[Any],
    input_size: int,
    channels: int,
    advance: Advance,
) -> str:
    """What would fit."""
    other = 4 - channels

    def fits(options: dict[str, Any], channels: int) -> bool:
        try:
            _way(weights, architecture, options, head, 0, input_size, channels)
        except (NoFit, UserError):
            return False
        return True

    if fits(options, other):
        return f"it takes images of {other} channel{'s' * (other > 1)}: teacher.channels: {other}"
    if fits(options, channels):
        return ""  # only the number of classes is wrong
    if options and fits({}, channels):
        given = ", ".join(options)
        return f"it would fit {architecture} without {given} (teacher.options)"
    known = architectures_for(weights, channels, advance)
    if known:
        return f"it would fit {', '.join(known)} (teacher.architecture)"
    return (
        "it fits no known architecture by its keys and shapes: teacher.architecture takes your own,"
        " as file.py:Class (docs/own-networks.md)"
    )
