import pytest

from benchmarks import architectures
from benchmarks.architectures import TIMM, looked_at, names_of


def test_a_line_has_the_cut_and_what_it_is_good_for():
    row = looked_at("torchvision/mobilenet_v3_small")
    assert (row.kind, row.features) == ("a", "576×3×3")
    assert row.difference <= architectures.SAME
    assert "| a | 576×3×3 | Linear, Hardswish, Dropout, Linear |" in row.line()


def test_a_refusal_is_told_in_its_words():
    row = looked_at("torchvision/resnet19")
    assert row.kind == "refused" and "no architecture named" in row.line()


def test_other_logits_are_no_success(monkeypatch):
    monkeypatch.setattr(architectures, "SAME", -1.0)
    assert looked_at("torchvision/mobilenet_v3_small").kind == "other logits"


def test_the_sweep_is_of_all_classifiers_of_torchvision_and_one_of_each_family_of_timm():
    timm = pytest.importorskip("timm", reason="needs the extra 'teachers'")
    names = list(names_of(["torchvision", "timm", "timm/resnet18"]))
    assert len(names) == 80 + 64 + 1 and names[-1] == "timm/resnet18"
    assert all(timm.is_model(name) for name in TIMM)
