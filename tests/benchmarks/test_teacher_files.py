import torch

from benchmarks.teacher_files import main
from kd3_pipeline.models import build


def test_every_file_of_a_folder_gets_its_line(tmp_path, capsys):
    torch.save({"net": build("resnet8", 3).state_dict()}, tmp_path / "good.pt")
    torch.save(torch.zeros(3, 4), tmp_path / "goods.pt")
    out = tmp_path / "out"
    out.mkdir()
    main([str(tmp_path), "good=resnet8", "--input-size", "32", "--out", str(out / "table.md")])
    lines = capsys.readouterr().out.splitlines()
    assert lines[2] == "| good.pt | resnet8 | (a), 3 classes |  |"
    assert lines[3].startswith("| goods.pt | resnet8 | refused | teacher.path: goods.pt holds one ")
    assert (out / "table.md").read_text().splitlines() == lines
