"""Published weights, from caches and folders made by hand: there is no network in tests."""

import hashlib
import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from kd3_pipeline.errors import ExternalError, UserError
from kd3_pipeline.models import build, own
from kd3_pipeline.models.adapting import LUMA
from kd3_pipeline.models.checkpoint import load_model
from kd3_pipeline.weights.network import load_teacher
from kd3_pipeline.weights.sources import (
    from_hub,
    from_timm,
    from_torch_hub,
    from_torchvision,
    name_in,
)

COMMIT = "0123456789abcdef0123456789abcdef01234567"
NOWHERE = "http://127.0.0.1:9"  # nothing listens there
IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
HUBCONF = """
from pathlib import Path
import torch
from torch import nn

dependencies = ["torch"]
Path(__file__).with_name("proof").touch()


class Published(nn.Module):
    def __init__(self, scale):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        for stage, (a, b) in enumerate([(16, 16), (16, 32), (32, 64)], start=1):
            setattr(self, f"layer{stage}", nn.ModuleList([Block(a, b)]))
        self.fc = nn.Linear(64, 10)
        self.scale = scale

    def forward(self, x):
        x = self.bn1(self.conv1(x)).relu()
        for stage in (self.layer1, self.layer2, self.layer3):
            x = stage[0](x)
        return self.scale * self.fc(x.mean((2, 3)))


class Block(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        stride = 1 if inputs == outputs else 2
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential()
        if stride == 2:
            conv = nn.Conv2d(inputs, outputs, 1, 2, bias=False)
            self.shortcut = nn.Sequential(conv, nn.BatchNorm2d(outputs))

    def forward(self, x):
        out = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
        return (out + self.shortcut(x)).relu()


def cifar10_resnet8(pretrained=False, scale=1.0):
    assert pretrained
    print("Downloading: \\"…\\"")
    torch.manual_seed(5)
    return Published(scale)


def cifar10_other(pretrained=False):
    return cifar10_resnet8(pretrained, 2.0)


def broken(pretrained=False):
    raise ValueError("no weights\\nat all")


def number(pretrained=False):
    return 3


class Answer(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 4, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        return {"logits": self.head(self.body(x).flatten(1))}


def answer(pretrained=False):
    if pretrained:
        torch.manual_seed(7)
    return Answer()
"""


@pytest.fixture
def repository(tmp_path):
    folder = tmp_path / "published"
    folder.mkdir()
    (folder / "hubconf.py").write_text(HUBCONF)
    return folder


def test_a_network_of_torch_hub_is_ours_with_its_weights(repository, capsys):
    weights = from_torch_hub(str(repository), "cifar10_resnet8", True)
    network = build("resnet8", 10)
    load_teacher(network, weights, 32)
    with torch.no_grad():
        theirs = weights.reference.eval()(IMAGES)
        torch.testing.assert_close(network.eval()(IMAGES), theirs, rtol=1e-4, atol=1e-5)
    assert capsys.readouterr().out == ""  # a stage's stdout is its result
    again = from_torch_hub(str(repository), "cifar10_resnet8", True, weights.sha256)
    assert again.sha256 == weights.sha256
    with pytest.raises(UserError, match=r"teacher\.sha256: "):
        from_torch_hub(str(repository), "cifar10_resnet8", True, "0000000000")


def test_the_code_of_a_repository_is_not_run_without_trust(repository):
    with pytest.raises(UserError, match=r"teacher\.trust: "):
        from_torch_hub(str(repository), "cifar10_resnet8", False)
    assert not (repository / "proof").exists()


def test_an_architecture_with_the_same_keys_and_other_logits_is_refused(repository):
    weights = from_torch_hub(str(repository), "cifar10_other", True)
    with pytest.raises(UserError, match=r"teacher\.architecture: .*cifar10_other"):
        load_teacher(build("resnet8", 10), weights, 32)


@pytest.mark.parametrize("entry", ["broken", "missing", "number", ""])
def test_a_function_that_gives_no_network_is_one_line_that_names_it(repository, entry):
    with pytest.raises(UserError, match=f"'{entry}'|^teacher.weights: ") as caught:
        from_torch_hub(str(repository), entry, True)
    assert "at all" not in str(caught.value)  # what follows the first line of the code's own error


@pytest.mark.parametrize("repository", ["owner/name", "owner/name:main", f"name:{COMMIT}", ""])
def test_a_repository_without_a_commit_is_refused(repository):
    for get in (lambda: from_torch_hub(repository, "entry", True), lambda: from_hub(repository)):
        with pytest.raises(UserError, match=r"^teacher\.repository: "):
            get()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The folder of an empty cache of the Hugging Face hub, without a network."""
    constants = pytest.importorskip("huggingface_hub.constants", reason="needs 'teachers'")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


def snapshot(cache, repository: str, revision: str = COMMIT):
    folder = cache / f"models--{repository.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs/main").write_text(COMMIT)
    (folder / "snapshots" / revision).mkdir(parents=True)
    return folder / "snapshots" / revision


def test_safetensors_are_preferred_in_a_repository_of_the_hub(cache):
    folder = snapshot(cache, "owner/name")
    state = build("resnet8", 10).state_dict()
    torch.save({"fc.weight": torch.zeros(1)}, folder / "pytorch_model.bin")
    save_file(state, folder / "model.safetensors")
    weights = from_hub(f"owner/name:{COMMIT}")
    load_teacher(build("resnet8", 10), weights, 32)
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    assert weights.sha256 == digest
    from_hub(f"owner/name:{COMMIT}", sha256=digest[:12])
    with pytest.raises(UserError, match=r"teacher\.sha256: "):
        from_hub(f"owner/name:{COMMIT}", sha256="0" * 12)


@pytest.mark.parametrize("file", ["", "best/net.pt"])
def test_other_files_of_the_hub_are_read_as_tensors_alone(cache, file):
    path = snapshot(cache, "owner/name") / (file or "pytorch_model.bin")
    path.parent.mkdir(exist_ok=True)
    torch.save({"state_dict": build("resnet8", 10).state_dict()}, path)
    load_teacher(build("resnet8", 10), from_hub(f"owner/name:{COMMIT}", file), 32)
    torch.save(build("resnet8", 10), path)
    with pytest.raises(UserError, match=r"teacher\.repository: "):
        from_hub(f"owner/name:{COMMIT}", file)


def test_weights_of_timm_are_those_of_its_repository(cache):
    timm = pytest.importorskip("timm", reason="needs the extra 'teachers'")
    from kd3_pipeline.models.timm_network import timm_network

    torch.manual_seed(0)
    model = timm.create_model("resnet18").eval()
    path = snapshot(cache, "timm/resnet18.a1_in1k") / "model.safetensors"
    save_file(model.state_dict(), path)
    weights = from_timm("resnet18", "a1_in1k")
    assert weights.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    network = timm_network("resnet18", 1000)
    load_teacher(network, weights, 64)
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(network.eval()(images), model(images), rtol=1e-4, atol=1e-5)


def test_weights_of_torchvision_come_with_their_class_names(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub/checkpoints"
    folder.mkdir(parents=True)
    network = build("torchvision/mobilenet_v3_small", 1000)
    torch.save(network.state_dict(), folder / "mobilenet_v3_small-047dcff4.pth")
    weights = from_torchvision("mobilenet_v3_small", "IMAGENET1K_V1")
    assert weights.class_names[:2] == ["tench", "goldfish"]
    fresh = build("torchvision/mobilenet_v3_small", 1000)
    load_teacher(fresh, weights, 64)
    assert torch.equal(fresh.classifier[-1].weight, network.classifier[-1].weight)


OFFLINE = {
    "torch.hub": (from_torch_hub, (f"owner/name:{COMMIT}", "entry", True), "owner/name"),
    "hub": (from_hub, (f"owner/name:{COMMIT}",), r"huggingface\.co/owner/name"),
    "timm": (from_timm, ("resnet18", "a2_in1k"), r"timm/resnet18\.a2_in1k"),
    "torchvision": (from_torchvision, ("resnet18", "IMAGENET1K_V1"), r"resnet18-f37072fd\.pth"),
}


@pytest.mark.parametrize("source", OFFLINE)
def test_without_a_network_each_source_says_what_to_do(tmp_path, monkeypatch, request, source):
    if source in ("hub", "timm"):
        request.getfixturevalue("cache")
        pytest.importorskip(source.replace("hub", "huggingface_hub"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", NOWHERE)
    get, arguments, what = OFFLINE[source]
    with pytest.raises(ExternalError, match=rf"{what}.* cannot be reached: .*source 'file'"):
        get(*arguments)
    assert not [path for path in tmp_path.rglob("*.pth") if path.is_file()]


@pytest.mark.parametrize("source", ["timm", "torchvision"])
def test_weights_that_a_library_does_not_have_are_answered_with_those_it_has(source):
    pytest.importorskip(source, reason="needs the extra 'teachers'")
    get = {"timm": from_timm, "torchvision": from_torchvision}[source]
    with pytest.raises(UserError, match=r"^teacher\.weights: .*'V9' for 'resnet18': known: \w"):
        get("resnet18", "V9")


def test_an_architecture_of_another_library_is_refused():
    assert name_in("timm", "timm/resnet18") == "resnet18"
    with pytest.raises(UserError, match=r"^teacher\.architecture: .*'timm/resnet18'"):
        name_in("timm", "resnet18")


# The stage: whatever the source, what it leaves is a checkpoint that loads on its own.


def stage(folder, monkeypatch, section: str) -> None:
    from kd3_stages.teacher import teacher

    monkeypatch.chdir(folder)
    (folder / "params.yaml").write_text(f"teacher: {{{section}}}\n")
    teacher()


def test_the_stage_takes_a_teacher_from_torch_hub(repository, monkeypatch, capsys):
    folder = repository.parent
    section = "source: torch.hub, repository: published, weights: cifar10_resnet8, trust: true"
    stage(folder, monkeypatch, f"{section}, architecture: resnet8")
    network, config = load_model(folder / "models/teacher", torch.device("cpu"))
    assert config.source == "published cifar10_resnet8"
    assert config.class_names == [f"class {k}" for k in range(10)]
    assert network(IMAGES).shape == (2, 10)
    assert "10 classes" in capsys.readouterr().out


def test_a_network_of_torch_hub_that_is_in_no_list_is_taken_without_a_search(
    repository, monkeypatch, capsys
):
    monkeypatch.setattr("kd3_pipeline.weights.network.architectures_for", None)
    monkeypatch.setattr(own, "_allowed", set())
    folder = repository.parent
    section = "source: torch.hub, repository: published, weights: answer, channels: 1"
    with pytest.raises(UserError, match=r"^teacher\.trust: "):
        stage(folder, monkeypatch, section)
    assert not own._allowed
    stage(folder, monkeypatch, f"{section}, trust: true")
    name = "torch.hub:published:answer"
    assert f"teacher: {name}, 3 classes" in capsys.readouterr().out
    assert json.loads((folder / "reports/teacher.json").read_text())["architecture"] == name
    network, config = load_model(folder / "models/teacher", torch.device("cpu"))
    assert config.architecture["name"] == name
    theirs = from_torch_hub(str(repository), "answer", True).reference
    gray = (IMAGES * torch.tensor(LUMA).reshape(1, 3, 1, 1)).sum(1, keepdim=True)
    with torch.no_grad():
        torch.testing.assert_close(network.eval()(IMAGES), theirs(gray)["logits"])
    monkeypatch.setattr(own, "_allowed", set())
    with pytest.raises(UserError, match="is code that would run"):
        load_model(folder / "models/teacher", torch.device("cpu"))


def test_the_stage_says_the_sha256_of_a_file_and_records_it(tmp_path, monkeypatch):
    save_file(build("resnet8", 3).state_dict(), tmp_path / "mine.safetensors")
    digest = hashlib.sha256((tmp_path / "mine.safetensors").read_bytes()).hexdigest()
    section = "source: file, path: mine.safetensors, architecture: resnet8, class_names: [a, b, c]"
    stage(tmp_path, monkeypatch, section)
    assert json.loads((tmp_path / "reports/teacher.json").read_text())["sha256"] == digest
    written = load_file(tmp_path / "models/teacher/model.safetensors")
    read = load_file(tmp_path / "mine.safetensors")
    assert all(torch.equal(written[name], value) for name, value in read.items())
    with pytest.raises(UserError, match=r"teacher\.class_names"):
        stage(tmp_path, monkeypatch, section.replace("[a,", "[z, a,"))
    with pytest.raises(UserError, match=r"teacher\.sha256: "):
        stage(tmp_path, monkeypatch, f"{section}, sha256: {'f' * 64}")


@pytest.mark.parametrize("name", ["timm/resnet18", "chenyaofo/vgg11_bn"])
def test_the_stage_leaves_a_checkpoint_that_loads_without_the_source(tmp_path, monkeypatch, name):
    if name.startswith("timm/"):
        pytest.importorskip("timm", reason="needs the extra 'teachers'")
    network = build(name, 5).eval()
    torch.save(network.state_dict(), tmp_path / "mine.pt")
    names = "class_names: [a, b, c, d, e]"
    stage(tmp_path, monkeypatch, f"source: file, path: mine.pt, architecture: {name}, {names}")
    loaded, _ = load_model(tmp_path / "models/teacher", torch.device("cpu"))
    with torch.no_grad():
        assert torch.equal(loaded(IMAGES), network(IMAGES))
