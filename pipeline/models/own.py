"""Networks of one's own: built by code of the user's, which runs with consent only.

A name is `package.module:function`, or `file.py:Class`; or `torch.hub:REPOSITORY:function`, where
REPOSITORY is `owner/name:commit` or a folder with a `hubconf.py`.
"""

import ast
import contextlib
import hashlib
import importlib
import importlib.util
import inspect
import io
import sys
import traceback
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from kd3_pipeline.errors import UserError, first_line
from kd3_pipeline.models.adapting import Adapted, adapted
from kd3_pipeline.models.cut_network import PREFIX, CutNetwork
from kd3_pipeline.models.cutting import SIDES, cut
from kd3_pipeline.params import HUB

ANY = "*"
CLASSES = ("num_classes", "n_classes", "nclasses", "classes", "num_class", "n_class", "nb_classes")
CONSENT = (
    "read it, then set teacher.trust (of a teacher) or distill.trust (of a student) to true;"
    " for a folder of a model: `pipeline predict --trust`"
)

# options of ours beside those of the callable: no argument of a function has such a name
CODE, HEAD, CHANNELS, ORDER = "code.sha256", "head.layers", "image.channels", "image.order"

_allowed: set[str] = set()


def allow(name: str) -> None:
    """Consent of the caller, for this process, that the code behind `name` runs; `*` is any."""
    _allowed.add(name)


def is_own(name: str) -> bool:
    """Tells whether an architecture's name is one of code of the user's."""
    return ":" in name


def own_network(name: str, num_classes: int, *, input_size: int = 0, **options: Any) -> CutNetwork:
    """A network that the user's code builds, cut in two.

    Args:
        name: as in this module's docstring.
        input_size: side in pixels of the images that it is meant for; 0: those usual are tried.
            It also goes to a callable that has an argument of this name.
        options: keyword arguments of the callable; and ours. CODE: SHA-256 of the code that the
            network was made with before, if only that will do; the network's `remembered` has it.
            HEAD, CHANNELS, ORDER: as in `kd3_pipeline.models.heads` and
            `kd3_pipeline.models.adapting`.

    Raises:
        UserError: there is no consent; no such file, module or callable; the code fails (with file
            and line) or has changed; what it gives is no classifier of `num_classes` classes.
    """
    code, head = options.pop(CODE, ""), options.pop(HEAD, None)
    channels, order = options.pop(CHANNELS, 3), options.pop(ORDER, "rgb")
    if name not in _allowed and ANY not in _allowed:
        raise UserError(f"architecture '{name}' is code that would run on this machine", CONSENT)
    source = _source(name)
    found = code_digest(source.files())
    if code and found and code != found:
        raise UserError(
            f"{source.shown} is not the code that the network was made with (its SHA-256 differs)",
            "restore it, or run the stage that made the network again",
        )
    with source.importable(), contextlib.redirect_stdout(io.StringIO()):
        make = source.load()
        model, told = _made(source, make, num_classes, input_size, options)
        if not isinstance(model, nn.Module):
            kind = type(model).__name__
            raise UserError(f"{name} gives a {kind}, no torch.nn.Module", "return the network")
        model.cpu()
        if channels != 3 or order != "rgb":
            model = adapted(model, channels, order)
        sides = (input_size,) if input_size else SIDES
        network = cut(model, name, num_classes, sides, source.described, head)
    if isinstance(network.model, Adapted):
        network.own_names = {"": f"{PREFIX}model."}
    network.told = "; ".join(filter(None, (told, network.told)))
    network.remembered = {CODE: found} if found else {}
    if input_size:
        network.remembered["input_size"] = input_size
    return network


def code_files(name: str) -> list[Path]:
    """The files of the user's own that a name means, with those in their folder that they import.

    Empty for code that is installed, or in a repository that is pinned by its commit.
    """
    return _source(name).files()


def code_digest(files: list[Path]) -> str:
    """SHA-256 of files of code: of the file itself if it is one; empty if there are none."""
    digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in files]
    if len(digests) < 2:
        return "".join(digests)
    lines = [f"{digest}  {path.name}\n" for digest, path in zip(digests, files, strict=True)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _made(
    source: "_Source",
    make: Any,
    num_classes: int,
    input_size: int,
    options: dict[str, Any],
) -> tuple[Any, str]:
    """What the callable gives, and how the number of classes came to it, in words."""
    if isinstance(make, nn.Module):
        if options:
            raise UserError(f"{source.shown}: '{source.entry}' is a network: it has no options")
        return make, ""
    if not callable(make):
        raise UserError(f"{source.shown}: '{source.entry}' is no function and no class")
    try:
        parameters = dict(inspect.signature(make).parameters)
    except (TypeError, ValueError):
        parameters = {}
    any_option = any(one.kind is one.VAR_KEYWORD for one in parameters.values())
    if unknown := [one for one in options if one not in parameters and not any_option]:
        takes = ", ".join(parameters) or "nothing"
        raise UserError(
            f"architecture '{source.name}' has no option '{unknown[0]}'", f"it takes {takes}"
        )
    if input_size and "input_size" in parameters:
        options = {"input_size": input_size} | options
    by = next((one for one in CLASSES if one in parameters), "")
    if by in options:
        by = ""
    try:
        if by:
            told = "" if by == "num_classes" else f"the number of classes is its argument '{by}'"
            return make(**options, **{by: num_classes}), told
        if any_option and "num_classes" not in options:
            with contextlib.suppress(TypeError):
                return make(**options, num_classes=num_classes), ""
        return make(**options), "it has no argument for the number of classes"
    except UserError:
        raise
    except Exception as error:  # the user's own code can fail in any way
        needed = [name for name in _without_value(parameters) if name not in {by, *options}]
        hint = (
            f"set {', '.join(needed)} in teacher.options, or distill.student_options of a student"
        )
        raise UserError(source.described(error), hint if needed else "") from None


def _without_value(parameters: Mapping[str, inspect.Parameter]) -> list[str]:
    """Names of the arguments that a callable cannot be called without."""
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return [
        name for name, one in parameters.items() if one.default is one.empty and one.kind in named
    ]


class _Source(ABC):
    """Where the code behind a name is."""

    def __init__(self, name: str, shown: str, entry: str, folder: Path) -> None:
        self.name, self.shown, self.entry, self.folder = name, shown, entry, folder

    @abstractmethod
    def load(self) -> Any:
        """The function or class.

        Raises:
            UserError: it is not there, or the code fails.
        """

    @abstractmethod
    def main_file(self) -> Path | None:
        """The user's own file with the entry; None: it is installed, or pinned by its commit."""

    def files(self) -> list[Path]:
        """The main file and those of its folder that it imports, directly or not."""
        main = self.main_file()
        if main is None:
            return []
        found, waiting = [main], [main]
        while waiting:
            for path in _imported(waiting.pop(), self.folder):
                if path not in found:
                    found.append(path)
                    waiting.append(path)
        return [main, *sorted(found[1:])]

    @contextlib.contextmanager
    def importable(self) -> Iterator[None]:
        """Lets the code import what lies beside it, and leaves nothing of that in sys.modules."""
        folder = str(self.folder)
        beside = {path.stem for path in self.folder.glob("*.py")}
        beside |= {path.parent.name for path in self.folder.glob("*/__init__.py")}
        beside -= set(sys.stdlib_module_names) | {"torch", "kd3_pipeline", "kd3_stages", "numpy"}
        hidden = {
            name: module for name, module in sys.modules.items() if name.partition(".")[0] in beside
        }
        for name in hidden:
            del sys.modules[name]
        sys.path.insert(0, folder)
        importlib.invalidate_caches()
        try:
            yield
        finally:
            with contextlib.suppress(ValueError):
                sys.path.remove(folder)
            for name in list(sys.modules):
                if name.partition(".")[0] in beside | {_package(self.folder)}:
                    del sys.modules[name]
            sys.modules.update(hidden)

    def described(self, error: Exception) -> str:
        """File, line and message of an error in the user's code."""
        problem = f"{type(error).__name__}: {first_line(error)}"
        if isinstance(error, SyntaxError) and error.filename:
            return f"{_shown(error.filename)}, line {error.lineno}: {error.msg}"
        frames = traceback.extract_tb(error.__traceback__)
        folder = str(self.folder.resolve())
        own = [frame for frame in frames if str(Path(frame.filename).resolve()).startswith(folder)]
        own = [frame for frame in own if "site-packages" not in frame.filename]
        if not own:
            return f"{self.shown}: {problem}"
        return f"{_shown(own[-1].filename)}, line {own[-1].lineno}: {problem}"


def _shown(file: str) -> str:
    """A file as it is seen from the project's folder, if it is in it."""
    path = Path(file).resolve()
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else file


def _may_be_meant(module: ModuleType, name: str, value: Any) -> bool:
    return not name.startswith("_") and getattr(value, "__module__", "") == module.__name__


class _OfModule(_Source):
    """A name in a module that is imported here."""

    def load(self) -> Any:
        try:
            module = self.module()
        except UserError:
            raise
        except Exception as error:  # the user's own code can fail in any way
            raise UserError(self.described(error)) from None
        if not hasattr(module, self.entry):
            here = [one for one, value in vars(module).items() if _may_be_meant(module, one, value)]
            hint = f"it has {', '.join(here[:8])}" if here else ""
            raise UserError(f"{self.shown} has no '{self.entry}'", hint)
        return getattr(module, self.entry)

    @abstractmethod
    def module(self) -> ModuleType:
        """The module that has the entry."""


class _File(_OfModule):
    def __init__(self, name: str) -> None:
        path, _, entry = name.rpartition(":")
        self.path = Path(path)
        super().__init__(name, path, entry, self.path.parent)

    def main_file(self) -> Path | None:
        if not self.path.is_file():
            raise UserError(f"architecture '{self.name}': {self.path} not found")
        return self.path

    def module(self) -> ModuleType:
        package = ModuleType(_package(self.folder))
        package.__path__ = [str(self.folder)]
        sys.modules[package.__name__] = package
        name = f"{package.__name__}.{self.path.stem}"
        spec = importlib.util.spec_from_file_location(name, self.path)
        if spec is None or spec.loader is None:
            raise UserError(f"architecture '{self.name}': {self.path} is no file of Python")
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
        return module


class _Package(_OfModule):
    def __init__(self, name: str) -> None:
        self.dotted, _, entry = name.rpartition(":")
        super().__init__(name, self.dotted, entry, Path())

    def main_file(self) -> Path | None:
        at = self.folder.joinpath(*self.dotted.split("."))
        places = (at.with_suffix(".py"), at / "__init__.py")
        return next((path for path in places if path.is_file()), None)

    def module(self) -> ModuleType:
        try:
            return importlib.import_module(self.dotted)
        except ModuleNotFoundError as error:
            if error.name and f"{self.dotted}.".startswith(f"{error.name}."):
                raise UserError(
                    f"architecture '{self.name}': there is no module '{error.name}'",
                    "it has to be in the project's folder or installed; a file is FILE.py:NAME",
                ) from None
            raise


class _Hub(_Source):
    def __init__(self, name: str) -> None:
        self.repository, _, entry = name.removeprefix(HUB).rpartition(":")
        folder = (
            Path(self.repository) if Path(self.repository).is_dir() else Path(torch.hub.get_dir())
        )
        super().__init__(name, self.repository, entry, folder)

    def main_file(self) -> Path | None:
        path = Path(self.repository) / "hubconf.py"
        return path if path.is_file() else None

    def load(self) -> Any:
        return self._build

    def _build(self, **options: Any) -> Any:
        local = Path(self.repository).is_dir()
        where: dict[str, Any] = (
            {"source": "local"} if local else {"trust_repo": True, "skip_validation": True}
        )
        where |= {"verbose": False, "pretrained": False}  # its weights are loaded afterwards
        return torch.hub.load(self.repository, self.entry, **where, **options)


def _source(name: str) -> _Source:
    if name.startswith(HUB):
        return _Hub(name)
    path, _, entry = name.rpartition(":")
    if not path or not entry.isidentifier():
        raise UserError(
            f"architecture '{name}' is none of one's own",
            "write package.module:function or file.py:Class",
        )
    return _File(name) if path.endswith(".py") else _Package(name)


def _package(folder: Path) -> str:
    """Name of the package that stands for a folder while code of it is read."""
    return f"own_{hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:12]}"


def _imported(path: Path, folder: Path) -> list[Path]:
    """Files under `folder` or beside `path` that the code in `path` imports."""
    try:
        tree = ast.parse(path.read_text("utf-8"))
    except (SyntaxError, ValueError):
        return []  # told when it is run
    names: list[tuple[Path, list[str]]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [(folder, alias.name.split(".")) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = folder
            if node.level:
                base = path.parent
                for _ in range(node.level - 1):
                    base = base.parent
            parts = node.module.split(".") if node.module else []
            names += [(base, [*parts, alias.name]) for alias in node.names]
    found = []
    for base, parts in names:
        for length in range(1, len(parts) + 1):
            at = base.joinpath(*parts[:length])
            found += [one for one in (at.with_suffix(".py"), at / "__init__.py") if one.is_file()]
    return list(dict.fromkeys(found))
