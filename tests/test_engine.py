"""Where pieces of work run, with spawned processes: order, back-pressure, deaths."""

import multiprocessing
import os
import signal
import time
from functools import partial
from pathlib import Path

import pytest

from kd3_pipeline.engine import VARIABLE, Engine
from kd3_pipeline.errors import ExternalError, UserError


def squared(number: int) -> int:
    return number * number


def slow_at_first(number: int) -> tuple[int, int]:
    time.sleep(0.3 if number == 0 else 0)
    return number, os.getpid()


def noted(number: int, folder: Path) -> int:
    (folder / f"{number}-{time.monotonic_ns()}").touch()
    return number


def deadly(number: int, folder: Path, times: int, how: int) -> int:
    """Ends its process at item 3, as often as is asked for."""
    noted(number, folder)
    if number == 3 and len(list(folder.glob("3-*"))) <= times:
        os.kill(os.getpid(), how)
        time.sleep(10)
    return number


def refused(number: int) -> int:
    if number == 2:
        raise UserError("item 2 is wrong", "take another")
    return number


@pytest.mark.parametrize("workers", [1, 2])
def test_results_are_in_the_order_of_the_items_and_loaded_by_the_workers(workers):
    with Engine(workers) as engine:
        found = list(engine.map(slow_at_first, range(7), squared))
    assert [number for number, _ in found] == [0, 1, 4, 9, 16, 25, 36]
    assert (os.getpid() in {pid for _, pid in found}) == (workers == 1)
    assert multiprocessing.active_children() == []


def test_few_items_are_begun_before_their_results_are_asked_for():
    taken = []
    with Engine(2) as engine:
        results = engine.map(squared, (taken.append(n) or n for n in range(100)))
        assert next(results) == 0
        assert len(taken) == 7  # three for each of two workers, and the one that was given
        assert list(engine.map(squared, range(3), ahead=1)) == [0, 1, 4]  # with the same processes
        assert [next(results) for _ in range(3)] == [1, 4, 9]
        assert len(taken) == 10
        results.close()
    assert multiprocessing.active_children() == []


def test_what_the_work_raises_comes_through_behind_the_results_before_it():
    with Engine(2) as engine:
        results = engine.map(refused, range(9))
        assert [next(results), next(results)] == [0, 1]
        with pytest.raises(UserError, match=r"^item 2 is wrong: take another$"):
            next(results)


@pytest.mark.parametrize("times", [1, 2])
def test_a_worker_that_dies_is_replaced_and_nothing_is_lost_or_given_twice(tmp_path, times):
    work = partial(deadly, folder=tmp_path, times=times, how=signal.SIGKILL)
    with Engine(2) as engine:
        assert list(engine.map(work, range(12))) == list(range(12))
    assert len(list(tmp_path.glob("3-*"))) > times


def test_an_item_that_kills_its_worker_three_times_is_named_with_how(tmp_path):
    work = partial(deadly, folder=tmp_path, times=99, how=signal.SIGKILL)
    found = []
    with Engine(2) as engine:
        results = engine.map(work, range(12), named="item {}".format)
        with pytest.raises(ExternalError) as caught:
            for one in results:
                found.append(one)
        assert found == [0, 1, 2]  # all before it
        told = "item 3: the process at work on it died 3 times (killed by signal 9): is there"
        assert str(caught.value).startswith(told)
        assert list(engine.map(squared, range(3))) == [0, 1, 4]  # others go on
    assert multiprocessing.active_children() == []


def test_the_environment_says_how_many_and_by_default_it_is_one_for_each_core():
    every = os.cpu_count()
    for text, workers in (("", every), ("processes:0", every), (" processes:3 ", 3)):
        assert Engine.chosen({VARIABLE: text}).threads == workers
    assert Engine.chosen({}).threads == every
    for text in ("processes", "processes:", "processes:-1", "processes:x", "threads:2", "ray:"):
        with pytest.raises(UserError, match=f"^engine '{text}': expected processes:N"):
            Engine.chosen({VARIABLE: text})
