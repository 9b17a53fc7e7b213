"""Program in a process of its own, asked through pipes."""

import os
import signal
import subprocess
import sys
import threading
import weakref
from collections import deque
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np

from kd3_pipeline.errors import UserError
from kd3_pipeline.program import worker
from kd3_pipeline.program.framing import receive, send

Kind = Literal["onnx", "torchscript", "export"]
ROOT = Path(__file__).parents[2]
TO_OPEN = 300.0  # seconds
TO_ANSWER, PER_IMAGE = 60.0, 2.0  # seconds for a batch, and for each image in it
TO_END = 5.0  # seconds after its last word
LINE = 2**12  # bytes of what it says, at most
CHUNK = 2**22  # pixels that are sent at once


class ProgramProcess:
    """A file that is opened in a process of its own, and answers batches.

    Any thread may ask; one batch is answered at a time. A copy is the same process. It ends with
    this object, and when the process that began it does, however it does.

    Attributes:
        described: what the file says of itself: `inputs` and `outputs` (None where only an answer
            tells), each with name, dtype and shape (None for a size that is free), `device`, and
            `parameters` where they can be counted.
        tail: weight and bias of the last linear layer of a program of torch that is cut there: it
            answers with `logits` and `features`.
        outputs: names of those to answer with, in this order; None: all.
        names: of the outputs of the last answer.
        dead: there will be no answers any more.
    """

    def __init__(
        self,
        kind: Kind,
        path: Path,
        device: str = "cpu",
        cut: bool = True,
        memory: int | None = None,
        to_open: float = TO_OPEN,
        to_answer: float = TO_ANSWER,
    ) -> None:
        """
        Args:
            device: `cpu` or `cuda`, where the file's runtime can use it.
            cut: a program of torch is cut at its features where its graph shows them.
            memory: bytes that the process may take on a CPU; None: those that are free.
            to_open, to_answer: seconds after which the process counts as hanging.

        Raises:
            UserError: the file cannot be opened, or its process ended or hung over it.
        """
        self.path, self._to_answer = path, to_answer
        self.names: list[str] = []
        self.outputs: list[str] | None = None
        self.dead = False
        self._failure: UserError | None = None  # why there will be no answers
        self._lock = threading.Lock()
        paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        self._process = subprocess.Popen(
            [sys.executable, "-m", worker.__name__, device],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
            start_new_session=True,  # Ctrl-C is for whoever asks, and may let a step end
        )
        self._said: deque[str] = deque(maxlen=20)
        listener = threading.Thread(target=_listen, args=(self._process.stderr, self._said))
        listener.daemon = True
        listener.start()
        self._end = weakref.finalize(self, _end, self._process)
        request = {
            "kind": kind,
            "path": str(path.resolve()),
            "device": device,
            "threads": os.cpu_count() or 1,
            "cut": cut,
            "memory": memory,
        }
        self.described, self.tail = self._exchange(request, [], to_open)

    def __deepcopy__(self, memo: dict) -> "ProgramProcess":
        return self

    def __call__(self, images: np.ndarray) -> list[np.ndarray]:
        """The `outputs` for a batch.

        Raises:
            UserError: the program fails with it, or its process ended or hung.
        """
        seconds = self._to_answer + PER_IMAGE * len(images)
        with self._lock:
            told, arrays = self._exchange({"outputs": self.outputs}, [images], seconds)
            self.names = told["names"]
        return arrays

    def close(self) -> None:
        """Ends the process."""
        self._end()

    def _exchange(
        self, header: dict[str, Any], arrays: list[np.ndarray], seconds: float
    ) -> tuple[dict[str, Any], list[np.ndarray]]:
        hung = threading.Event()

        def stop() -> None:
            hung.set()
            self._process.kill()

        timer = threading.Timer(seconds, stop)
        timer.daemon = True
        timer.start()
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            send(self._process.stdin, header, arrays)  # type: ignore[arg-type]
            answer, values = receive(self._process.stdout)  # type: ignore[arg-type]
        except (EOFError, BrokenPipeError, OSError, ValueError):
            timer.cancel()
            self._failure = self._failure or self._ended(hung.is_set(), seconds)
            raise self._failure from None
        finally:
            timer.cancel()
        if "error" in answer:
            raise UserError(f"{self.path.name}: {answer['error']}")
        return answer, values

    def _ended(self, hung: bool, seconds: float) -> UserError:
        """Why there is no answer, in a line."""
        self.dead = True
        if hung:
            return UserError(
                f"{self.path.name}: its process gave no answer in {seconds:.0f} seconds and was"
                " ended",
                "the graph does not end or is far too large for this machine: take another teacher",
            )
        try:
            status = self._process.wait(TO_END)  # it may be about to end, with an error of its own
        except subprocess.TimeoutExpired:
            self._process.kill()
            return UserError(
                f"{self.path.name}: its process says what is no answer", "take another teacher"
            )
        if status == -signal.SIGKILL or "MemoryError" in " ".join(self._said):
            return UserError(
                f"{self.path.name}: its process was killed, most likely because memory is short",
                "lower embed.batch_size or distill.batch_size, or use a machine with more memory",
            )
        how = f"by signal {-status}" if status < 0 else f"with status {status}"
        said = next((line for line in reversed(self._said) if line), "")
        return UserError(
            f"{self.path.name}: its process ended {how}" + (f": {said[:200]}" if said else ""),
            "the file is damaged, or its runtime cannot run it: export it again",
        )


def _listen(stream: BinaryIO, said: deque[str]) -> None:
    """Keeps the last lines that a process writes to its standard error."""
    for line in iter(lambda: stream.readline(LINE), b""):  # which may have no end
        said.append(line.decode("utf-8", "replace").strip())


def _end(process: subprocess.Popen) -> None:
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout):
        try:
            if stream:
                stream.close()
        except OSError:  # what was still to be sent to it
            pass
