import os
import random
import shutil
import signal
import tempfile
import time
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from kd3_pipeline.distill import checkpoint
from kd3_pipeline.errors import ExternalError
from tests.distill.world import CPU, Run, objective, run, same, section, start, timeless, web

AVERAGED = {"ema": 0.3, "keep": "agreement"}


class Stopped(Exception):
    pass


def stop_after(epoch: int):
    """Ends a run as a crash would, when that epoch is saved."""

    def report(curves):
        if len(curves) == epoch:
            raise Stopped

    return report


def interrupt_at(step: int):
    """Presses Ctrl-C during that step, counted from 1."""
    told = 0

    def advance(n: int = 1, note: str = "") -> None:
        nonlocal told
        told += not note
        if told == step:
            signal.raise_signal(signal.SIGINT)

    return advance


def whole(changes: dict[str, Any]) -> Run:
    """A run with these parameters that nothing disturbed."""
    return _whole(tuple(changes.items()))


@cache
def _whole(changes: tuple[tuple[str, Any], ...]) -> Run:
    with tempfile.TemporaryDirectory() as folder:
        return run(Path(folder), section(**dict(changes)))


@pytest.fixture(scope="module")
def stopped(tmp_path_factory) -> Path:
    """What a run that crashed after its second epoch leaves."""
    folder = tmp_path_factory.mktemp("stopped")
    with pytest.raises(Stopped):
        run(folder, report=stop_after(2))
    assert names(folder) == ["step-000000003.pt", "step-000000006.pt"]
    return folder


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("selected-"))


def selections(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("selected-*")}


def assert_same(one: Run, other: Run) -> None:
    assert same(one, other)
    assert timeless(one) == timeless(other)
    assert one.trained.epoch == other.trained.epoch
    for name in ("kept", "labels", "confidence"):
        assert torch.equal(getattr(one.trained, name), getattr(other.trained, name)), name
    limits = (run.trained.thresholds for run in (one, other))
    torch.testing.assert_close(*limits, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize(
    ("epoch", "changes"),
    [(1, {}), (3, {}), (2, AVERAGED), (3, AVERAGED)],
    ids=["plain-1", "plain-3", "averaged-2", "averaged-3"],
)
def test_a_run_that_ended_after_an_epoch_goes_on_as_if_it_had_not(tmp_path, epoch, changes):
    of = section(**changes)
    with pytest.raises(Stopped):
        run(tmp_path / "broken", of, report=stop_after(epoch))
    assert len(checkpoint.load(tmp_path / "broken", CPU)["progress"]["curves"]) == epoch
    told: list[int] = []
    seen: list[int] = []
    resumed = run(
        tmp_path / "broken",
        of,
        advance=lambda n=1, note="": told.append(n),
        report=lambda curves: seen.append(len(curves)),
    )
    assert seen == list(range(epoch + 1, 4))
    assert sum(told) == 3 * 3
    assert_same(whole(changes), resumed)


@pytest.mark.parametrize(
    ("step", "changes"),
    [
        (1, {}),
        (5, {}),
        (1, AVERAGED),
        (5, AVERAGED),
        (5, {"refill": False}),
        (5, {"selection": "none", "momentum": 0.0}),
        (5, {"judge": "random", "crop": "resized"}),
        (5, {"objective": "dfnd"}),
        (8, {"ema": "auto", "disagreement": 2.0}),
    ],
    ids=[
        "plain-1",
        "plain",
        "averaged-1",
        "averaged",
        "not refilled",
        "without momentum",
        "random crops",
        "dfnd",
        "grown average, disagreement",
    ],
)
def test_a_run_interrupted_inside_of_an_epoch_goes_on_as_if_it_had_not_been(
    tmp_path, step, changes
):
    of = section(**changes)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "broken", of, advance=interrupt_at(step))
    assert names(tmp_path / "broken")[-1] == f"step-{step:09d}.pt"
    told: list[int] = []
    resumed = run(tmp_path / "broken", of, advance=lambda n=1, note="": told.append(n))
    assert told[0] >= min(step, 4)
    assert sum(told) == 3 * 3
    assert_same(whole(changes), resumed)


def test_a_run_interrupted_at_every_step_goes_on_as_if_it_had_not_been(tmp_path):
    of = section(**AVERAGED, refill=False, selection="none", epochs=2)  # 4 steps an epoch
    before = signal.getsignal(signal.SIGINT)
    interrupts = 0

    def interrupt(n: int = 1, note: str = "") -> None:
        if signal.getsignal(signal.SIGINT) is not before:  # in training
            signal.raise_signal(signal.SIGINT)

    while True:
        try:
            resumed = run(tmp_path / "broken", of, advance=interrupt)
            break
        except KeyboardInterrupt:
            interrupts += 1
            assert names(tmp_path / "broken")[-1] == f"step-{interrupts:09d}.pt"
    assert interrupts == 7  # none after the last step
    assert_same(run(tmp_path / "whole", of), resumed)


def test_a_finished_run_trains_no_further(tmp_path):
    done = run(tmp_path)
    told: list[int] = []
    again = run(tmp_path, advance=lambda n=1, note="": told.append(n))
    assert [n for n in told if n] == [9]
    assert_same(done, again)


def distil(folder: Path, changes: dict) -> None:
    run(folder, section(**changes))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "most", "epochs"),
    [
        (AVERAGED, 2, 4),
        ({}, 10, 20),
    ],
    ids=["twice", "ten times"],
)
def test_a_process_killed_again_and_again_ends_in_the_same_weights(tmp_path, changes, most, epochs):
    changes = changes | {"epochs": epochs}
    moments = random.Random(4)
    kills = 0
    while kills < most:
        before = checkpoint.saved(tmp_path / "killed")
        process = start(distil, tmp_path / "killed", changes)
        while checkpoint.saved(tmp_path / "killed")[-1:] == before[-1:] and process.is_alive():
            time.sleep(0.001)
        time.sleep(moments.uniform(0, 0.1))
        process.kill()
        process.join()
        if process.exitcode == 0:
            break
        assert process.exitcode == -signal.SIGKILL
        kills += 1
    assert kills >= 2
    told: list[int] = []
    resumed = run(
        tmp_path / "killed", section(**changes), advance=lambda n=1, note="": told.append(n)
    )
    assert told[0] >= 3 * kills  # every life has left an epoch at least
    assert_same(whole(changes), resumed)


@pytest.mark.parametrize("damage", ["empty", "cut", "zeros", "one bit", "garbage", "folder"])
def test_a_damaged_newest_state_falls_back_to_the_one_before(tmp_path, stopped, damage):
    shutil.copytree(stopped, tmp_path / "broken")
    spoil(tmp_path / "broken/step-000000006.pt", damage)
    loaded = checkpoint.load(tmp_path / "broken", CPU)
    assert len(loaded["progress"]["curves"]) == 1


def test_a_run_whose_newest_state_is_damaged_goes_on_from_the_one_before(tmp_path, stopped):
    shutil.copytree(stopped, tmp_path / "broken")
    spoil(tmp_path / "broken/step-000000006.pt", "one bit")
    seen: list[int] = []
    resumed = run(tmp_path / "broken", report=lambda curves: seen.append(len(curves)))
    assert seen == [2, 3]
    assert_same(whole({}), resumed)


def spoil(path: Path, damage: str) -> None:
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    if damage == "empty":
        content.clear()
    elif damage == "cut":
        del content[middle:]
    elif damage == "zeros":
        content[middle : middle + 4096] = bytes(4096)
    elif damage == "one bit":
        content[middle] ^= 1
    elif damage == "garbage":
        content = random.Random(1).randbytes(len(content))
    path.unlink()
    if damage == "folder":
        path.mkdir()
    else:
        path.write_bytes(content)


def test_any_damage_is_noticed(tmp_path):
    state = {"weights": torch.arange(500.0), "progress": {"step": 3, "curves": [{"loss": 0.5}]}}
    checkpoint.save(tmp_path, 1, state)
    (path,) = checkpoint.saved(tmp_path)
    content = path.read_bytes()
    place = random.Random(2)
    noticed = 0
    for _ in range(200):
        damaged = bytearray(content)
        damaged[place.randrange(len(content))] ^= 1 << place.randrange(8)
        path.write_bytes(damaged)
        try:
            loaded = checkpoint.load(tmp_path, CPU)
        except ExternalError:
            noticed += 1
        else:  # a bit that nothing reads, such as one of a date
            assert torch.equal(loaded["weights"], state["weights"])
            assert loaded["progress"] == state["progress"]
    assert noticed > 100


def test_no_state_that_can_be_read_is_an_error_that_names_the_folder(tmp_path, stopped):
    folder = shutil.copytree(stopped, tmp_path / "broken")
    for path in checkpoint.saved(folder):
        spoil(path, "cut")
    with pytest.raises(ExternalError, match=rf"step-000000003\.pt.*remove {folder} to start again"):
        run(folder)
    assert names(folder) == ["step-000000003.pt", "step-000000006.pt"]


def test_every_epoch_is_saved_and_only_the_last_two_states_are_kept(tmp_path):
    found: list[list[str]] = []
    of = section(epochs=4, objective="kd")
    run(tmp_path, of, report=lambda curves: found.append(names(tmp_path)))
    steps = [f"step-{step:09d}.pt" for step in (3, 6, 9, 12)]
    assert found == [steps[:1], steps[:2], steps[1:3], steps[2:4]]


def test_what_an_epoch_selected_is_written_once_and_in_no_state(tmp_path):
    written: list[dict[str, int]] = []

    def note(curves):
        written.append({path.name: path.stat().st_ino for path in tmp_path.glob("selected-*")})

    trained = run(tmp_path, report=note).trained
    assert list(written[2]) and written[0].items() < written[1].items() < written[2].items()
    assert set(written[2]) == {f"selected-{epoch:06d}.bits" for epoch in (1, 2, 3)}
    for kept, bits in zip(trained.kept, sorted(selections(tmp_path).items()), strict=True):
        expected = [sum(bool(kept[at + k]) << (7 - k) for k in range(8)) for at in range(0, 64, 8)]
        assert list(bits[1]) == expected
    state = torch.load(checkpoint.saved(tmp_path)[-1], weights_only=True)
    assert "kept" not in state["progress"]


@pytest.mark.parametrize(
    "left",
    ["the selection alone", "another life's selection", "half a selection"],
)
def test_a_run_killed_between_selection_and_state_goes_on_from_the_state_before(
    tmp_path, stopped, left
):
    folder = shutil.copytree(stopped, tmp_path / "broken")
    (folder / "step-000000006.pt").unlink()
    if left == "another life's selection":
        (folder / "selected-000002.bits").write_bytes(bytes(8))
    elif left == "half a selection":
        (folder / "selected-000002.bits").unlink()
        (folder / f".selected-000002.bits.tmp{os.getpid() + 1}").write_bytes(b"1234")
    seen: list[int] = []
    resumed = run(folder, report=lambda curves: seen.append(len(curves)))
    assert seen == [2, 3]
    assert_same(whole({}), resumed)


@pytest.mark.parametrize("damage", ["missing", "cut", "one bit"])
def test_a_state_whose_selection_is_damaged_falls_back_to_the_one_before(tmp_path, stopped, damage):
    folder = shutil.copytree(stopped, tmp_path / "broken")
    path = folder / "selected-000002.bits"
    if damage == "missing":
        path.unlink()
    else:
        spoil(path, damage)
    assert len(checkpoint.load(folder, CPU)["progress"]["curves"]) == 1
    assert_same(whole({}), run(folder))


def test_selections_that_no_state_can_do_without_are_an_error_that_names_them(tmp_path, stopped):
    folder = shutil.copytree(stopped, tmp_path / "broken")
    spoil(folder / "selected-000001.bits", "one bit")
    with pytest.raises(ExternalError, match=rf"selected-000001\.bits is damaged.*remove {folder}"):
        run(folder)


def distil_killed_before_state(folder: Path, state: int) -> None:
    """Kills itself where that state, counted from 1, is about to be written."""
    writes, write = 0, torch.save

    def save(value: Any, path: Path) -> None:
        nonlocal writes
        writes += 1
        if writes == state:
            os.kill(os.getpid(), signal.SIGKILL)
        write(value, path)

    checkpoint.torch.save = save
    run(folder)


@pytest.mark.parametrize("state", [1, 3])
def test_a_process_killed_between_selection_and_state_goes_on_as_if_it_had_not_been(
    tmp_path, state
):
    process = start(distil_killed_before_state, tmp_path, state)
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    assert len(checkpoint.saved(tmp_path)) == state - 1 < len(selections(tmp_path)) == state
    assert_same(whole({}), run(tmp_path))


def test_what_a_run_has_saved_can_be_removed(tmp_path, stopped):
    folder = shutil.copytree(stopped, tmp_path / "done")
    (folder / "agreement.json").write_text("{}")
    checkpoint.clear(folder)
    assert [path.name for path in folder.iterdir()] == ["agreement.json"]


def test_nothing_saved_is_a_fresh_start(tmp_path):
    assert checkpoint.load(tmp_path, CPU) is None
    assert checkpoint.load(tmp_path / "missing", CPU) is None


def test_a_checkpoint_comes_back_as_it_was_saved(tmp_path):
    checkpoint.save(tmp_path, 9, {"a": torch.arange(3), "curves": [{"loss": 0.5}]})
    checkpoint.save(tmp_path, 10, {"a": torch.arange(4), "curves": [{"loss": 0.25}]})
    loaded = checkpoint.load(tmp_path, CPU)
    assert torch.equal(loaded["a"], torch.arange(4))
    assert loaded["curves"] == [{"loss": 0.25}]
    assert names(tmp_path) == ["step-000000009.pt", "step-000000010.pt"]


def test_what_a_killed_save_left_is_not_a_state(tmp_path):
    checkpoint.save(tmp_path, 3, {"a": torch.arange(3)})
    (tmp_path / f".step-000000006.pt.tmp{os.getpid() + 1}").write_bytes(b"half a state")
    assert [path.name for path in checkpoint.saved(tmp_path)] == ["step-000000003.pt"]


def test_a_checkpoint_can_run_no_code(tmp_path):
    class Harmful:
        def __reduce__(self):
            return (tmp_path.joinpath("ran").touch, ())

    torch.save({"a": Harmful()}, tmp_path / "step-000000001.pt")
    with pytest.raises(ExternalError, match="UnpicklingError"):
        checkpoint.load(tmp_path, CPU)
    assert not (tmp_path / "ran").exists()


def test_the_student_given_is_replaced_by_the_saved_one(tmp_path, stopped):
    shutil.copytree(stopped, tmp_path / "broken")
    resumed = run(tmp_path / "broken", student=objective(section(seed=5)))
    assert same(resumed, whole({}))


def test_the_images_kept_before_an_interruption_are_still_noted(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, advance=interrupt_at(5))
    kept = checkpoint.load(tmp_path, CPU)["progress"]["kept"]
    assert len(kept) == 2  # one finished epoch and the one that was interrupted
    resumed = run(tmp_path)
    assert torch.equal(resumed.trained.kept[:2], kept)
    assert 0 < kept[1].sum() < len(web().train)
