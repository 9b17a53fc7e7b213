"""A DVC remote on S3-compatible storage: a server of a package, on loopback."""

import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.stages.test_doc_commands import dvc
from tests.stages.workspace import fresh_copy, repro, run

pytestmark = pytest.mark.slow
BUCKET = "images"


@pytest.fixture
def endpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Address of a server with an empty bucket, of which the environment has the keys."""
    pytest.importorskip("dvc_s3")
    server = pytest.importorskip("moto.server")
    keys = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}
    files = {"AWS_CONFIG_FILE": "none", "AWS_SHARED_CREDENTIALS_FILE": "none"}
    for name, value in (keys | files | {"AWS_DEFAULT_REGION": "us-east-1"}).items():
        monkeypatch.setenv(name, value)
    running = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    address = f"http://{host}:{port}"
    made = urllib.request.Request(f"{address}/{BUCKET}", method="PUT")
    assert urllib.request.urlopen(made, timeout=30).status == 200
    yield address
    running.stop()


def test_what_a_machine_has_pushed_another_pulls_and_runs_nothing(
    stub: Path, tmp_path: Path, endpoint: str
) -> None:
    folder, other = fresh_copy(stub, tmp_path), tmp_path / "other"
    address = f"s3://{BUCKET}/project"
    dvc(folder, ["dvc", "remote", "add", "--default", "storage", address])
    dvc(folder, ["dvc", "remote", "modify", "storage", "endpointurl", endpoint])
    dvc(folder, ["dvc", "push"])
    run(folder, "git", "add", "-A")
    run(folder, "git", "commit", "-qm", "results")

    run(tmp_path, "git", "clone", "-q", str(folder), str(other))
    for outside in ("teacher", "images", "styles", "web"):  # not in git, as a user's own files
        if not (other / outside).exists():
            (folder / outside).rename(other / outside)
    assert not (other / "data/crawl").exists()
    dvc(other, ["dvc", "pull"])
    for output in ("data/crawl", "data/embed", "models/student"):
        ours, theirs = (one / output / "file" for one in (folder, other))
        assert theirs.read_bytes() == ours.read_bytes()
    assert repro(other) == []
