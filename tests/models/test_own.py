import copy
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from kd3_pipeline.errors import UserError
from kd3_pipeline.models import build, own
from kd3_pipeline.models.fuse import fuse
from kd3_pipeline.models.network import drop_classifier, pool
from tests.imports import ROOT
from tests.models.own_networks import CUTS, HEADER, SHAPES, source

IMAGES = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch):
    """A project's folder, in which code is allowed to run."""
    monkeypatch.setattr(own, "_allowed", {own.ANY})
    monkeypatch.chdir(tmp_path)
    return tmp_path


def network_of(shape: str, **options):
    Path(f"{shape}.py").write_text(source(shape), "utf-8")
    torch.manual_seed(0)
    network = build(f"{shape}.py:Net", 7, **({"input_size": 32} | options)).eval()
    draw = torch.Generator().manual_seed(1)
    for module in network.modules():  # batch norms that do something
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
            module.running_mean.normal_(0, 0.1, generator=draw)
            module.running_var.uniform_(0.5, 1.5, generator=draw)
    return network


def as_it_is(shape: str, network) -> nn.Module:
    """The user's own module, with the network's weights, as it runs without this project."""
    scope = {"__name__": "user"}
    exec(source(shape), scope)
    module = scope["Net"](num_classes=7).eval()
    module.load_state_dict(network.model.state_dict())
    return module


@pytest.mark.parametrize("shape", SHAPES)
def test_usual_networks_of_ones_own_are_cut_in_two(shape):
    network = network_of(shape)
    assert (network.cut, network.map_shape) == CUTS[shape]
    assert bool(network.cut_reason) == (network.cut != "map")
    with torch.no_grad():
        features = network.features(IMAGES)
        expected = as_it_is(shape, network)(IMAGES)
        assert features.shape == (3, *network.map_shape)
        for found in (
            network(IMAGES),
            network.classifier(pool(features)),
            copy.deepcopy(network.classifier)(pool(features)),
            copy.deepcopy(network)(IMAGES),
        ):
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_its_keys_are_the_users_own_behind_one_prefix(shape):
    network = network_of(shape)
    theirs = as_it_is(shape, network).state_dict()
    assert list(network.state_dict()) == [f"model.{key}" for key in theirs]
    assert network.own_names == {"": "model."}


@pytest.mark.parametrize("shape", SHAPES)
def test_it_is_fused_and_laid_out_as_embedding_does(shape):
    network = network_of(shape)
    fused = fuse(network).to(memory_format=torch.channels_last)
    with torch.no_grad():
        found = fused(IMAGES.contiguous(memory_format=torch.channels_last))
        torch.testing.assert_close(found, network(IMAGES), rtol=1e-4, atol=1e-5)
    left = any(isinstance(module, nn.BatchNorm2d) for module in fused.modules())
    assert left == (shape == "asking")  # of which no more is known than that it works


@pytest.mark.parametrize("shape", SHAPES)
def test_a_student_of_it_has_no_weights_that_nothing_trains(shape):
    network = network_of(shape).train()
    drop_classifier(network)
    features = network.features(IMAGES)
    features.square().mean().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    assert torch.equal(network.classify(pool(features)), pool(features))


@pytest.mark.parametrize("shape", ["view", "asking"])
def test_dropout_that_follows_the_mode_does_so_in_every_form(shape):
    network = network_of(shape)
    pooled = torch.ones(64, network.feature_channels)
    for tail in (network.classify, network.classifier, copy.deepcopy(network.classifier)):
        assert float(tail(pooled).detach().std(dim=0).max()) < 1e-6
    network.train()
    for tail in (network.classify, network.classifier, copy.deepcopy(network.classifier)):
        assert float(tail(pooled).detach().std(dim=0).min()) > 0


def test_many_threads_may_run_a_network_that_stops_at_its_cut():
    network = network_of("asking")
    assert network.stop == ("model.norm", False)
    batches = torch.randn(8, 2, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        expected = [network(batch) for batch in batches]
    found: dict[int, list] = {}

    def ask(which: int) -> None:
        with torch.no_grad():
            found[which] = [network(batches[which]) for _ in range(20)]

    threads = [threading.Thread(target=ask, args=(which,)) for which in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(one, expected[at]) for at, some in found.items() for one in some)


def test_a_pass_that_does_not_come_to_the_cut_is_an_error():
    network = network_of("asking")
    network.model.forward = lambda images: images.mean(dim=(2, 3))
    with pytest.raises(RuntimeError, match=r"did not come to 'model\.norm'"):
        network(IMAGES)


@pytest.mark.parametrize("shape", ["tutorial", "asking"])
def test_a_compiled_network_gives_the_same(shape):
    network = network_of(shape)
    compiled = torch.compile(network.features, backend="eager")
    with torch.no_grad():
        torch.testing.assert_close(compiled(IMAGES), network.features(IMAGES))
        torch.testing.assert_close(compiled(IMAGES[:2]), network.features(IMAGES[:2]))


RUN = """
import sys, numpy as np, torch, onnxruntime
images = np.load("images.npy")
for shape in sys.argv[1:]:
    session = onnxruntime.InferenceSession(f"{shape}.onnx")
    name = session.get_inputs()[0].name
    np.save(f"{shape}_onnx.npy", session.run(None, {name: images})[0])
    program = torch.export.load(f"{shape}.pt2").module()
    np.save(f"{shape}_pt2.npy", program(torch.from_numpy(images)).detach().numpy())
"""


class Student(nn.Module):
    """A network without its classifier, and another in its place, as distillation makes it."""

    def __init__(self, network) -> None:
        super().__init__()
        drop_classifier(network)
        self.backbone = network
        self.fc = nn.Linear(network.feature_channels, 7)

    def forward(self, images):
        return self.fc(pool(self.backbone.features(images)))


@pytest.mark.parametrize("role", ["teacher", pytest.param("student", marks=pytest.mark.slow)])
def test_exported_files_run_where_the_code_is_not(project, role):
    expected = {}
    for shape in SHAPES:
        network = network_of(shape)
        network = (Student(network) if role == "student" else network).eval().requires_grad_(False)
        network = fuse(network)
        batch = {"images": {0: torch.export.Dim("batch")}}
        program = torch.export.export(network, (IMAGES[:2],), dynamic_shapes=batch)
        torch.export.save(program, f"{shape}.pt2")
        torch.onnx.export(program, dynamo=True, verbose=False).save(f"{shape}.onnx")
        expected[shape] = network(IMAGES).numpy()
        Path(f"{shape}.py").unlink()
    np.save("images.npy", IMAGES.numpy())
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-I", "-c", RUN, *SHAPES], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    for shape, logits in expected.items():
        for form in ("onnx", "pt2"):
            np.testing.assert_allclose(np.load(f"{shape}_{form}.npy"), logits, rtol=1e-4, atol=1e-5)


def test_code_runs_with_consent_only(project, monkeypatch):
    monkeypatch.setattr(own, "_allowed", set())
    Path("net.py").write_text("raise SystemExit('it ran')", "utf-8")
    with pytest.raises(UserError, match=r"'net\.py:Net' is code that would run .*teacher\.trust"):
        build("net.py:Net", 7)
    own.allow("other.py:Net")
    with pytest.raises(UserError, match="would run"):
        build("net.py:Net", 7)
    Path("net.py").write_text(source("backbone"), "utf-8")
    own.allow("net.py:Net")
    assert build("net.py:Net", 7, input_size=32).num_classes == 7


def test_code_that_changed_is_refused():
    network = network_of("backbone")
    code = network.remembered[own.CODE]
    assert network.remembered == {own.CODE: code, "input_size": 32}
    again = build("backbone.py:Net", 7, **json.loads(json.dumps(network.remembered)))
    again.load_state_dict(network.state_dict())
    Path("backbone.py").write_text(source("backbone") + "\n# another\n", "utf-8")
    with pytest.raises(UserError, match=r"^backbone\.py is not the code that the network was made"):
        build("backbone.py:Net", 7, **network.remembered)


def test_files_beside_it_are_part_of_the_code(project):
    folder = project / "nets"
    folder.mkdir()
    (folder / "blocks.py").write_text("from widths import WIDTH\n", "utf-8")
    (folder / "widths.py").write_text("WIDTH = 5\n", "utf-8")
    (folder / "unused.py").write_text("raise RuntimeError\n", "utf-8")
    text = source("mlp").replace("width=16", "width=WIDTH")
    (folder / "net.py").write_text("from .blocks import WIDTH\n" + text, "utf-8")
    before = set(sys.modules)
    network = build("nets/net.py:Net", 7, input_size=32)
    assert network.feature_channels == 5
    assert not {name for name in set(sys.modules) - before if not name.startswith("torch")}
    assert str(folder) not in sys.path
    files = [path.name for path in own.code_files("nets/net.py:Net")]
    assert files == ["net.py", "blocks.py", "widths.py"]
    (folder / "widths.py").write_text("WIDTH = 6\n", "utf-8")
    with pytest.raises(UserError, match="is not the code"):
        build("nets/net.py:Net", 7, **network.remembered)


def test_two_files_of_one_name_do_not_meet(project):
    for width, folder in ((4, "a"), (6, "b")):
        Path(folder).mkdir()
        Path(folder, "blocks.py").write_text(f"WIDTH = {width}\n", "utf-8")
        text = "from blocks import WIDTH\n" + source("mlp").replace("width=16", "width=WIDTH")
        Path(folder, "net.py").write_text(text, "utf-8")
    for folder, width in (("a", 4), ("b", 6), ("a", 4)):
        assert build(f"{folder}/net.py:Net", 7, input_size=32).feature_channels == width


def test_a_package_of_the_project_is_one_too(project):
    package = project / "mine" / "nets"
    package.mkdir(parents=True)
    (project / "mine" / "__init__.py").touch()
    (package / "__init__.py").write_text("from mine.nets.small import Net as small\n", "utf-8")
    (package / "small.py").write_text(source("backbone"), "utf-8")
    network = build("mine.nets:small", 7, input_size=32)
    assert network.cut == "map" and network.remembered[own.CODE]
    assert "mine" not in sys.modules
    assert build("torchvision.models:resnet18", 7, input_size=64).feature_channels == 512


@pytest.mark.parametrize(
    ("signature", "told"),
    [
        ("num_classes", ""),
        ("n_classes=5", "the number of classes is its argument 'n_classes'"),
        ("classes", "the number of classes is its argument 'classes'"),
        ("", "it has no argument for the number of classes"),
    ],
)
def test_the_number_of_classes_goes_to_the_argument_that_is_for_it(signature, told):
    given = signature.partition("=")[0] or 7
    text = (
        f"def net({signature}):\n    return nn.Sequential(nn.Conv2d(3, {given}, 3), nn.Flatten())"
    )
    text = text.replace("nn.Flatten()", "nn.AdaptiveAvgPool2d(1), nn.Flatten()")
    Path("net.py").write_text(HEADER + text, "utf-8")
    assert build("net.py:net", 7).told == told


def test_outputs_that_are_not_the_one_asked_for_are_told():
    Path("net.py").write_text(source("tutorial").replace("num_classes=10", ""), "utf-8")
    Path("net.py").write_text(source("tutorial").replace("num_classes", "units"), "utf-8")
    with pytest.raises(UserError, match=r"net\.py:Net gives \[10\] for an image, not 7 logits"):
        build("net.py:Net", 7)
    assert build("net.py:Net", 7, units=7).num_classes == 7


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ("(logits, x)", "its logits are the first of 2 outputs"),
        ("{'logits': logits, 'x': x}", "its logits are output['logits']"),
        ("{'out': logits}", "its logits are output['out']"),
        ("Answer(logits)", "its logits are output.logits"),
    ],
)
def test_logits_are_found_in_what_a_network_returns(answer, told):
    text = source("backbone").replace(
        "return self.head(self.backbone(x))",
        f"logits = self.head(self.backbone(x))\n        return {answer}",
    )
    text = "import dataclasses\n" + text
    text += "\n@dataclasses.dataclass\nclass Answer:\n    logits: torch.Tensor\n"
    Path("net.py").write_text(text, "utf-8")
    network = build("net.py:Net", 7)
    assert (network.told, network.cut) == (told, "map")
    assert network(IMAGES).shape == (3, 7)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import nothing_like_it", r"net\.py, line 5: ModuleNotFoundError: No module named"),
        ("def Net(:\n", r"net\.py, line 5: invalid syntax"),
        ("def Net():\n    return 1 / 0\n", r"net\.py, line 6: ZeroDivisionError: division by zero"),
        ("def Net():\n    return 5\n", r"net\.py:Net gives a int, no torch\.nn\.Module"),
        ("def Other():\n    pass\n", r"net\.py has no 'Net': it has Other"),
        ("Net = 5\n", r"net\.py: 'Net' is no function and no class"),
        (
            "class Net(nn.Module):\n    def forward(self, x):\n        return x @ x\n        \n",
            r"net\.py:Net gives .* for an image, not 7 logits",
        ),
        (
            "class Net(nn.Module):\n    def forward(self, x):\n        return x.nothing\n",
            r"takes no images of 3 channels and 224, .*: .*net\.py, line 7: AttributeError"
            r".*: teacher\.input_size is the side",
        ),
        (
            "class Net(nn.Module):\n    def forward(self, x):\n        return {'a': x, 'b': x}\n",
            r"net\.py:Net returns a dict with a, b: which are the logits\?",
        ),
    ],
)
def test_errors_in_the_code_have_their_file_and_line(text, message):
    Path("net.py").write_text(HEADER + text, "utf-8")
    with pytest.raises(UserError, match=message):
        build("net.py:Net", 7)


def test_what_is_not_there_is_named():
    with pytest.raises(UserError, match=r"'gone\.py:Net': gone\.py not found"):
        build("gone.py:Net", 7)
    with pytest.raises(UserError, match="there is no module 'gone'"):
        build("gone.nets:Net", 7)
    with pytest.raises(UserError, match="is none of one's own: write package"):
        build("net.py:", 7)
    Path("net.py").write_text(source("mlp"), "utf-8")
    with pytest.raises(UserError, match=r"has no option 'depth': it takes num_classes, width"):
        build("net.py:Net", 7, depth=3)
    assert build("net.py:Net", 7, width=4).feature_channels == 4


def test_any_argument_of_a_network_can_be_an_option():
    text = (
        "class Net(nn.Sequential):\n"
        "    def __init__(self, num_classes=10, channels=8, order='bgr', head='', code=''):\n"
        "        assert (order, head, code) == ('rgb', 'two', 'x')\n"
        "        super().__init__(nn.Conv2d(1, channels, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1),\n"
        "            nn.Flatten(), nn.Linear(channels, num_classes))\n"
    )
    Path("net.py").write_text(f"from torch import nn\n{text}", "utf-8")
    theirs = {"channels": 5, "order": "rgb", "head": "two", "code": "x"}
    network = build("net.py:Net", 7, **theirs, **{own.CHANNELS: 1})
    assert network.feature_channels == 5
    options = theirs | {own.CHANNELS: 1} | dict(network.remembered)
    assert build("net.py:Net", 7, **options)(IMAGES).shape == (3, 7)


def test_a_network_without_a_vector_gives_its_logits_alone():
    text = (
        "class Net(nn.Module):\n"
        "    def __init__(self, num_classes):\n"
        "        super().__init__()\n"
        "        self.fc = nn.Linear(3, num_classes)\n"
        "    def forward(self, x):\n"
        "        return torch.relu(self.fc(x.flatten(2).transpose(1, 2))).amax(1)\n"
    )
    Path("net.py").write_text(HEADER + text, "utf-8")
    network = build("net.py:Net", 7, input_size=32).eval()
    assert (network.cut, network.feature_channels, network.num_classes) == ("logits", 7, 7)
    assert isinstance(network.classifier, nn.Identity) and network.cut_reason
    assert torch.equal(network.features(IMAGES), network(IMAGES))


def test_a_hub_function_gives_its_own_network(project):
    (project / "repository").mkdir()
    text = source("backbone") + "\ndef small(pretrained=False):\n    return Net(7)\n"
    (project / "repository" / "hubconf.py").write_text("dependencies = ['torch']\n" + text, "utf-8")
    network = build("torch.hub:repository:small", 7, input_size=32)
    assert network.cut == "map" and network.remembered[own.CODE]


def test_importing_the_package_of_models_imports_no_library_of_networks():
    code = (
        "import sys, kd3_pipeline.models;"
        " print('torchvision' in sys.modules, 'timm' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.split() == ["False", "False"], done.stderr


def test_an_argument_without_a_value_is_named_with_where_to_set_it():
    text = "class Net(nn.Module):\n    def __init__(self, depth, num_classes, *, wide, bias=True):"
    Path("net.py").write_text(f"{HEADER}{text}\n        pass\n", "utf-8")
    with pytest.raises(UserError, match=r"missing 1 .*'depth': set depth in teacher\.options"):
        build("net.py:Net", 7, wide=2)


@pytest.mark.parametrize(
    ("name", "meant"),
    [("nets/net.py", r"nets/net\.py:NAME"), ("nets.net.Net", r"a colon .*: nets\.net:Net")],
)
def test_a_name_of_own_code_without_its_colon_is_understood(name, meant):
    with pytest.raises(UserError, match=f"no architecture named '{name}': .*{meant}"):
        build(name, 7)
