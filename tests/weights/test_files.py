import hashlib
import pickle
import re
import tarfile
import warnings
import zipfile
from collections import OrderedDict

import pytest
import torch
from safetensors.torch import save as save_bytes
from safetensors.torch import save_file
from torch import nn

from kd3_pipeline.errors import UserError
from kd3_pipeline.models import build
from kd3_pipeline.program.archive import checked_copy
from kd3_pipeline.weights import pickles
from kd3_pipeline.weights.files import read_weights
from kd3_pipeline.weights.network import load_teacher

SIDE = 16
IMAGES = torch.randn(4, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))


def trained(name: str = "resnet8", classes: int = 5):
    torch.manual_seed(1)
    network = build(name, classes)
    network(IMAGES)
    return network.eval()


def loads(path, network, name: str = "resnet8") -> None:
    """`path` gives a new network the outputs of this one."""
    fresh = build(name, network.num_classes).eval()
    load_teacher(fresh, read_weights(path), SIDE)
    with torch.no_grad():
        assert torch.equal(fresh(IMAGES), network(IMAGES))


def save(path, value) -> None:
    if path.suffix == ".safetensors":
        save_file(value, path)
    else:
        torch.save(value, path)


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".pth"])
@pytest.mark.parametrize(
    "prefix",
    ["", "module.", "_orig_mod.", "backbone.", "_orig_mod.module.", "backbone.module._orig_mod."],
)
def test_prefixes_are_undone_in_every_format(tmp_path, suffix, prefix):
    network = trained()
    path = tmp_path / f"teacher{suffix}"
    save(path, {prefix + name: value for name, value in network.state_dict().items()})
    loads(path, network)


def test_the_counter_of_averaged_weights_is_left_out(tmp_path):
    network = trained()
    averaged = torch.optim.swa_utils.AveragedModel(network, use_buffers=True)
    torch.save({"ema": averaged.state_dict()}, tmp_path / "teacher.pt")
    loads(tmp_path / "teacher.pt", network)


@pytest.mark.parametrize("wrapper", ["state_dict", "model", "net", "model_state_dict", "ema"])
def test_wrappers_are_undone(tmp_path, wrapper):
    network = trained()
    path = tmp_path / "teacher.pth"
    torch.save({"epoch": 3, "acc": 91.5, wrapper: network.state_dict()}, path)
    loads(path, network)


def test_wrappers_in_wrappers_are_undone(tmp_path):
    network = trained()
    path = tmp_path / "teacher.pth"
    torch.save({"model": OrderedDict(state_dict=network.state_dict())}, path)
    loads(path, network)


@pytest.mark.parametrize(
    ("name", "renamings"),
    [
        ("resnet8", [("fc.", "linear.")]),
        ("resnet8", [("downsample.", "shortcut.")]),
        ("resnet8", [("fc.", "linear."), ("downsample.", "shortcut.")]),
        ("resnet18", [("linear.", "fc."), ("shortcut.", "downsample.")]),
        ("shufflev1", [("linear.", "fc.")]),
        ("torchvision/resnet18", [("fc.", "linear."), ("downsample.", "shortcut.")]),
    ],
)
def test_the_other_usual_names_of_layers_are_understood(tmp_path, name, renamings):
    network = trained(name)
    state = network.state_dict()
    for ours, theirs in renamings:
        assert any(ours in key for key in state)
        state = {key.replace(ours, theirs): value for key, value in state.items()}
    path = tmp_path / "teacher.safetensors"
    save_file(state, path)
    loads(path, network, name)


def test_files_without_step_counters_are_read(tmp_path):
    network = trained()
    state = network.state_dict()
    path = tmp_path / "teacher.pt"
    torch.save({key: value for key, value in state.items() if "num_batches" not in key}, path)
    loads(path, network)


def test_the_old_names_of_torchvisions_densenet_are_understood(tmp_path):
    network = build("torchvision/densenet121", 3)
    state = network.model.state_dict()
    old = {re.sub(r"(denselayer\d+\.\w+)([12])\.", r"\1.\2.", key): state[key] for key in state}
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    torch.save(old, tmp_path / "teacher.pt")
    fresh = build("torchvision/densenet121", 3)
    load_teacher(fresh, read_weights(tmp_path / "teacher.pt"), 64)
    assert all(torch.equal(value, state[key]) for key, value in fresh.model.state_dict().items())


def test_all_that_does_not_fit_is_in_one_error(tmp_path):
    path = tmp_path / "teacher.pt"
    state = build("resnet14", 7).state_dict()
    state["conv1.weight"] = torch.zeros(16, 1, 3, 3)
    del state["bn1.bias"]
    torch.save(state, path)
    with pytest.raises(UserError) as caught:
        load_teacher(build("resnet8", 5), read_weights(path), SIDE)
    text = str(caught.value)
    assert "5 class names for 7 outputs" in text
    assert "missing bn1.bias;" in text
    assert "conv1.weight [16, 1, 3, 3] for [16, 3, 3, 3]" in text
    unexpected = text.partition("unexpected ")[2].partition(";")[0]
    assert unexpected.count("layer") == 10
    assert unexpected.endswith(f" and {3 * 10 - 10} more")
    assert "\n" not in text
    with pytest.raises(UserError, match=r"images of 4 pixels \(teacher\.input_size\): "):
        torch.save(build("vgg8", 5).state_dict(), path)
        load_teacher(build("vgg8", 5), read_weights(path), 4)


def test_another_file_than_the_one_meant_is_refused(tmp_path):
    path = tmp_path / "teacher.pt"
    torch.save(trained().state_dict(), path)
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    assert read_weights(path).sha256 == found
    read_weights(path, found[:8].upper())
    read_weights(path, found)
    with pytest.raises(UserError, match=rf"teacher\.sha256: {path} has {found}"):
        read_weights(path, "0123456789")


class Planted:
    """Runs code when it is unpickled without care."""

    def __init__(self, proof: str) -> None:
        self.proof = proof

    def __reduce__(self):
        return open, (self.proof, "w")


def plain_pickle(value, path) -> None:
    path.write_bytes(pickle.dumps(value, protocol=2))


@pytest.mark.parametrize("write", [torch.save, plain_pickle])
def test_a_pickle_with_code_is_refused_without_running_it(tmp_path, write):
    proof, path = tmp_path / "proof", tmp_path / "teacher.pt"
    write({"state_dict": Planted(str(proof))}, path)
    with pytest.raises(UserError, match=r"teacher\.pt is not a file of tensors alone") as caught:
        read_weights(path)
    assert not proof.exists()
    assert "weights_only" not in str(caught.value)  # nobody is told how to run the code


def test_what_a_pickle_of_code_asks_for_is_named_and_nobody_is_told_how_to_run_it(tmp_path):
    torch.save({"state_dict": Planted(str(tmp_path / "proof"))}, tmp_path / "teacher.pt")
    with pytest.raises(UserError, match=r"it asks for \S*open\): weights have no use for it"):
        read_weights(tmp_path / "teacher.pt")


@pytest.mark.parametrize(
    ("value", "lines"),
    [
        (trained, r"torch.save(saved.state_dict(), "),
        (lambda: {"state_dict": trained().state_dict(), "net": trained()}, 'saved["state_dict"], '),
    ],
)
def test_a_file_of_objects_is_answered_with_their_names_and_the_lines_that_convert_it(
    tmp_path, value, lines
):
    torch.save(value(), tmp_path / "whole.pt")
    with pytest.raises(UserError) as caught:
        read_weights(tmp_path / "whole.pt")
    assert "it asks for kd3_pipeline.models.resnet.BasicBlock, " in str(caught.value)
    assert 'saved = torch.load("whole.pt", weights_only=False); ' in str(caught.value)
    assert lines in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_program_is_no_file_of_weights(tmp_path):
    torch.jit.script(nn.Linear(3, 2)).save(tmp_path / "teacher.pt")
    with pytest.raises(UserError, match="is a TorchScript program"):
        read_weights(tmp_path / "teacher.pt")
    (tmp_path / "teacher.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(64))
    with pytest.raises(UserError, match="is an HDF5 file"):
        read_weights(tmp_path / "teacher.h5")


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (torch.zeros(5, 512), r"holds one tensor, \[5, 512\]"),
        ([trained().state_dict()], r"holds a list of 1"),
        ({}, "holds an empty state dict"),
        ({"epoch": 3, "lr": 0.1}, r"no state dict of tensors \(its keys: epoch, lr\)"),
    ],
)
def test_a_file_without_weights_says_what_it_holds_and_the_way_out(tmp_path, value, said):
    torch.save(value, tmp_path / "teacher.pt")
    with pytest.raises(UserError, match=rf"{said}.*: save "):
        read_weights(tmp_path / "teacher.pt")


def test_the_content_of_a_file_tells_its_format_and_not_its_name(tmp_path):
    state = trained().state_dict()
    save_file(state, tmp_path / "teacher.pt")
    torch.save(state, tmp_path / "teacher.safetensors")
    for name in ("teacher.pt", "teacher.safetensors"):
        assert read_weights(tmp_path / name).state.keys() == state.keys()
    with pytest.raises(UserError, match=r"is a folder: name a file: teacher\.pt, teacher\.safet"):
        read_weights(tmp_path)


OTHERS = {
    "a.pt.gz": (b"\x1f\x8b\x08\0rest", "packed with gzip: unpack it"),
    "page.pt": (b"\n<!doctype html><html>", "a web page: get the file"),
    "picture.pt": (b"\x89PNG\r\n\x1a\nrest", "an image"),
    "net.tflite": (b"\x1c\0\0\0TFL3rest", "a TFLite file: export the network as ONNX"),
    "saved_model.pb": (b"\x08\x01\x12\x90", "a file of TensorFlow: export"),
    "log.json": (b'{"acc": 1}', "text .JSON"),
    "model.safetensors.index.json": (b'{"weight_map": {}}', "the index of .*: put the parts"),
    "model-00002-of-00003.safetensors": (save_bytes({"a": torch.zeros(2)}), "part 2 of 3: put"),
    "pytorch_model-00001-of-00002.bin": (b"any", r"part 1 of 2: put .*\*-of-\*\.bin"),
    "model.bin.index.json": (b'{"weight_map": {"a": "b.bin"}}', r"the index of .*-of-\*\.bin"),
    "none.pt": (b"", "empty: get it again"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_another_kind_of_file_is_named_with_the_way_out(tmp_path, name):
    content, said = OTHERS[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=f" is {said}") as caught:
        read_weights(tmp_path / name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("inside", "said"),
    [
        (["metadata.json", "config.json", "model.weights.h5"], "a file of Keras: export"),
        (["run/best.pt", "run/labels.txt"], "a zip archive with run/best.pt in it: unpack it"),
    ],
)
def test_an_archive_of_something_else_is_named_with_the_way_out(tmp_path, inside, said):
    with zipfile.ZipFile(tmp_path / "teacher.zip", "w") as archive:
        for name in inside:
            archive.writestr(name, "x")
    with pytest.raises(UserError, match=f" is {said}"):
        read_weights(tmp_path / "teacher.zip")


@pytest.mark.parametrize(
    ("inside", "said"),
    [
        (["run/best.pt", "run/log.txt"], r"a tar archive with run/best\.pt in it: unpack it"),
        (["pickle", "storages", "tensors"], r"a file of torch\.save of PyTorch 0\.1: load and"),
    ],
)
def test_a_tar_is_named_with_the_way_out(tmp_path, inside, said):
    (tmp_path / "file").write_bytes(b"x")
    with tarfile.open(tmp_path / "teacher.pth.tar", "w") as archive:
        for name in inside:
            archive.add(tmp_path / "file", name)
    with pytest.raises(UserError, match=f" is {said}"):
        read_weights(tmp_path / "teacher.pth.tar")


def test_one_part_of_one_is_a_whole_file(tmp_path):
    save_file({"fc.weight": torch.zeros(2, 3)}, tmp_path / "model-00001-of-00001.safetensors")
    torch.save({"fc.weight": torch.zeros(2, 3)}, tmp_path / "fold-1-of-5.pt")
    for path in tmp_path.iterdir():
        assert read_weights(path).state.keys() == {"fc.weight"}


@pytest.mark.parametrize(
    ("kind", "raw"), [("U1", b"\xff" * 4), ("U1", b"\0\xd8\0\0"), ("U2", b"\0")]
)
def test_texts_of_an_array_that_are_no_characters_are_not_read(kind, raw):
    dtype = pickles.DtypeStandIn(kind, False, True)
    dtype.__setstate__((3, "<", None, None, None, 4, 4, 8))
    array = pickles.ArrayStandIn()
    array.__setstate__((1, (1,), dtype, False, raw))
    assert array.values is None
    array.__setstate__((1, (1,), dtype, False, "ab".encode("utf-32-le")[: 4 * int(kind[1])]))
    assert array.values == ["ab"[: int(kind[1])]]


def test_a_module_in_a_dictionary_is_converted_under_its_key(tmp_path):
    torch.save({"epoch": 3, "ema": trained(), "lr": 0.1}, tmp_path / "whole.pt")
    with pytest.raises(UserError, match=r'torch\.save\(saved\["ema"\]\.state_dict\(\), '):
        read_weights(tmp_path / "whole.pt")


@pytest.mark.parametrize(
    "written", [{"class_names": '["a", "b"]'}, {"id2label": '{"0": "a", "1": "b"}'}]
)
def test_class_names_in_the_header_of_safetensors_are_read(tmp_path, written):
    save_file({"fc.weight": torch.zeros(2, 3)}, tmp_path / "t.safetensors", metadata=written)
    read = read_weights(tmp_path / "t.safetensors")
    assert (read.class_names, read.named_at) == (["a", "b"], *written)
    save_file(
        {"fc.weight": torch.zeros(2, 3)}, tmp_path / "t.safetensors", metadata={"classes": "["}
    )
    read = read_weights(tmp_path / "t.safetensors")
    assert read.class_names == []
    assert read.names_unread.startswith("classes of the file is not read as class names: it is no")


CONTENTS = {
    "missing": None,
    "empty": b"",
    "garbage": bytes(range(256)) * 8,
    "a pickle of nothing": b"\x80\x02.",
    "cut off": trained().state_dict,
    "a pickled network": trained,
    "a tensor": lambda: torch.zeros(3),
    "a list": lambda: [1, 2],
    "a number in a wrapper": lambda: {"state_dict": 4},
    "numbers": lambda: {"a": 1.0},
    "numbered tensors": lambda: {0: torch.zeros(1)},
}


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
@pytest.mark.parametrize("content", CONTENTS)
def test_what_is_no_file_of_weights_is_one_line_that_names_parameter_and_file(
    tmp_path, suffix, content
):
    path, value = tmp_path / f"teacher{suffix}", CONTENTS[content]
    if content == "cut off":
        save(path, value())
        path.write_bytes(path.read_bytes()[:-200])
    elif callable(value):
        torch.save(value(), path)
    elif value is not None:
        path.write_bytes(value)
    with pytest.raises(UserError, match=rf"^teacher\.path: {path} ") as caught:
        read_weights(path)
    assert "\n" not in str(caught.value)


def test_a_file_that_would_fill_the_memory_is_refused(tmp_path):
    path, bomb = tmp_path / "teacher.pt", tmp_path / "bomb.pt"
    torch.save({"fc.weight": torch.zeros(1, dtype=torch.float16).expand(2**20, 2**14)}, path)
    with pytest.raises(UserError, match=r"fc\.weight is \[1048576, 16384\], which the file has no"):
        read_weights(path)
    torch.save({"fc.weight": torch.zeros(5, 8)}, path)
    with zipfile.ZipFile(path) as plain, zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as packed:
        for name in plain.namelist():
            packed.writestr(name, plain.read(name))
    assert read_weights(bomb).state.keys() == {"fc.weight"}
    with zipfile.ZipFile(bomb, "a", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("teacher/data/9", bytes(2**27))
    with pytest.raises(UserError, match=r"teacher\.path: .*unpacks to 134 MB"):
        read_weights(bomb)
    for kind in ("torchscript", "export"):
        with pytest.raises(UserError, match="unpacks to 134 MB"):
            checked_copy(bomb, kind)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda one: one.to("meta"), "without values"),
        (lambda one: one.to_sparse(), "sparse"),
        (lambda one: torch.quantize_per_tensor(one, 0.1, 0, torch.qint8), "quantised"),
    ],
)
def test_tensors_that_are_no_plain_numbers_are_named(tmp_path, make, told):
    path = tmp_path / "teacher.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.save({"fc.weight": make(torch.ones(5, 8)), "fc.bias": torch.zeros(5)}, path)
        with pytest.raises(UserError, match=rf"teacher\.path: .*: fc\.weight is {told}"):
            read_weights(path)


@pytest.mark.parametrize("dtype", [torch.int8, torch.bool, torch.cfloat])
def test_numbers_of_another_kind_than_the_networks_are_refused(tmp_path, dtype):
    state = trained().state_dict()
    torch.save(state | {"fc.weight": state["fc.weight"].to(dtype)}, tmp_path / "teacher.pt")
    with pytest.raises(UserError, match=rf"fc\.weight is {str(dtype)[6:]}, not float32"):
        load_teacher(build("resnet8", 5), read_weights(tmp_path / "teacher.pt"), 32)
