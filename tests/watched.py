"""A process whose look-ups of names, and files in its home folder, are seen: `watched(code, …)`.

It runs in namespaces of its own (user, network, mounts): no packet leaves it, and the only name
server is this file, which writes down what is asked and knows no name.
"""

import ctypes
import fcntl
import os
import socket
import struct
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

NEW_MOUNTS, NEW_USER, NEW_NETWORK = 0x20000, 0x10000000, 0x40000000  # of unshare(2)
BIND, PRIVATE_BELOW = 0x1000, 0x44000  # of mount(2)
FLAGS_OF, UP = 0x8914, 1  # of ioctl(2) on a socket
NO_SUCH_NAME = 0x8183
TOLD_TO_BE_SILENT = ("CI", "ORT_RUNNING_UNIT_TESTS", "DO_NOT_TRACK", "PYTEST_CURRENT_TEST")


@dataclass(frozen=True)
class Seen:
    """What a process did: files in its home folder, names that it looked up, what it printed."""

    files: list[str]
    names: list[str]
    printed: str


def watched(code: str, folder: Path, python: str = sys.executable) -> Seen:
    """Runs Python code with an empty home folder in `folder`, and none of the usual switches."""
    home, log = folder / "home", folder / "names.txt"
    home.mkdir(parents=True)
    log.touch()
    silent = ("XDG_", "DVC_", "HF_", "ORT_", "RAY_")
    env = {
        name: value
        for name, value in os.environ.items()
        if name not in TOLD_TO_BE_SILENT and not name.startswith(silent)
    }
    done = subprocess.run(
        [python, __file__, str(log), code],
        env=env | {"HOME": str(home), "TMPDIR": str(folder)},
        cwd=folder,
        text=True,
        capture_output=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    files = sorted(str(one.relative_to(home)) for one in home.rglob("*") if one.is_file())
    return Seen(files, log.read_text().split(), done.stdout)


def can_watch() -> bool:
    """Whether the kernel lets this user make such namespaces."""
    with tempfile.NamedTemporaryFile() as log:
        done = subprocess.run([sys.executable, __file__, log.name, ""], capture_output=True)
    return done.returncode == 0


def _alone() -> None:
    """Moves this process to a network with nothing but itself, whose name server it is."""
    system = ctypes.CDLL(None, use_errno=True)
    user, group = os.getuid(), os.getgid()
    if system.unshare(NEW_USER | NEW_NETWORK | NEW_MOUNTS):
        raise OSError(ctypes.get_errno(), "no namespaces here")
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"0 {user} 1")
    Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    system.mount(b"none", b"/", None, PRIVATE_BELOW, None)
    with tempfile.NamedTemporaryFile("w", delete=False) as file:
        file.write("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")
    if system.mount(os.fsencode(file.name), b"/etc/resolv.conf", None, BIND, None):
        raise OSError(ctypes.get_errno(), "resolv.conf cannot be replaced here")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, FLAGS_OF, struct.pack("16sH14x", b"lo", UP))


def _serve(server: socket.socket, log: str) -> None:
    """Answers that there is no such name, and writes it down."""
    while True:
        asked, sender = server.recvfrom(4096)
        labels, place = [], 12
        while asked[place]:
            labels.append(asked[place + 1 : place + 1 + asked[place]].decode("ascii", "replace"))
            place += 1 + asked[place]
        with open(log, "a") as file:
            print(".".join(labels), file=file)
        head = asked[:2] + struct.pack(">HHHHH", NO_SUCH_NAME, 1, 0, 0, 0)
        server.sendto(head + asked[12 : place + 5], sender)


def main(log: str, code: str) -> int:
    """Runs the code; its exit status."""
    _alone()
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("127.0.0.1", 53))
    answering = os.fork()
    if not answering:
        _serve(server, log)
    try:
        return subprocess.run([sys.executable, "-c", code]).returncode
    finally:
        os.kill(answering, 9)
        os.waitpid(answering, 0)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
