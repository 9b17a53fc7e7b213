import threading
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from kd3_pipeline.distill import loader
from kd3_pipeline.distill.loader import Resident, Streamed, free_memory, open_pixels
from kd3_pipeline.pixelstore import JpegPixels, encode_jpeg

CPU = torch.device("cpu")
ROWS = [torch.tensor(r, dtype=torch.int64) for r in ([5, 0, 3], [9, 9, 1, 5], [7], [], [2, 8])]
KINDS = [Resident, Streamed]
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")


def images(count: int = 10, side: int = 4) -> np.ndarray:
    shape = (count, side, side, 3)
    return np.random.default_rng(5).integers(0, 256, shape, dtype=np.uint8)


@pytest.fixture
def file(tmp_path) -> np.ndarray:
    """Pixels that are mapped from their file."""
    np.save(tmp_path / "pixels.npy", images())
    return np.load(tmp_path / "pixels.npy", mmap_mode="r")


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("pixels")]


class Recorded:
    """An array that keeps the rows it was asked for; after `free` reads, one waits for `go`."""

    def __init__(self, free: int = 1000) -> None:
        self.array, self.asked = images(), []
        self.shape = self.array.shape
        self.free, self.go = free, threading.Event()

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        self.asked.append(rows.tolist())
        assert len(self.asked) <= self.free or self.go.wait(10)
        return self.array[rows]


@pytest.mark.parametrize("where", ["resident", "streamed"])
def test_batches_are_the_rows_in_the_order_asked_for(file, where):
    pixels = open_pixels(file, CPU, where)
    assert (pixels.kind, len(pixels), pixels.side, pixels.device) == (where, 10, 4, CPU)
    found = list(pixels.batches(iter(ROWS)))
    assert len(found) == len(ROWS)
    for rows, batch in zip(ROWS, found, strict=True):
        assert batch.dtype == torch.uint8
        assert torch.equal(batch, torch.from_numpy(images())[rows])


@pytest.mark.parametrize("where", ["resident", "streamed"])
def test_batches_of_jpegs_are_their_pixels(tmp_path, where):
    jpegs = [encode_jpeg(image, 90) for image in images(side=16)]
    (tmp_path / "pixels.jpegs").write_bytes(b"".join(jpegs))
    store = JpegPixels.open(tmp_path / "pixels.jpegs", np.cumsum([len(one) for one in jpegs]))
    pixels = open_pixels(store, CPU, where)
    assert (pixels.kind, len(pixels), pixels.side) == (where, 10, 16)
    for rows, batch in zip(ROWS, pixels.batches(ROWS), strict=True):
        assert torch.equal(batch, torch.from_numpy(store[rows.numpy()]))


@pytest.mark.parametrize(("spare", "kind"), [(0, "resident"), (-1, "streamed")])
def test_jpegs_are_resident_by_their_decoded_size(monkeypatch, tmp_path, spare, kind):
    data = encode_jpeg(images(side=16)[0], 90)
    (tmp_path / "pixels.jpegs").write_bytes(3 * data)
    store = JpegPixels.open(tmp_path / "pixels.jpegs", len(data) * np.arange(1, 4))
    monkeypatch.setattr(loader, "free_memory", lambda device: 2 * 3 * 16 * 16 * 3 + spare)
    assert open_pixels(store, CPU).kind == kind


@pytest.mark.parametrize("kind", KINDS)
def test_no_batches_and_no_images_give_nothing(kind):
    assert list(kind(images(), CPU).batches([])) == []
    (batch,) = kind(images(0), CPU).batches([torch.arange(0)])
    assert batch.shape == (0, 4, 4, 3)


def test_resident_pixels_are_the_same_however_many_are_copied_at_a_time(monkeypatch):
    monkeypatch.setattr(loader, "CHUNK", 3 * images(1).nbytes)
    (batch,) = Resident(images(), CPU).batches([torch.arange(10)])
    assert torch.equal(batch, torch.from_numpy(images()))


def test_resident_pixels_may_be_a_tensor():
    (batch,) = Resident(torch.from_numpy(images()), CPU).batches([torch.tensor([4, 2])])
    assert torch.equal(batch, torch.from_numpy(images()[[4, 2]]))


def test_a_file_is_read_from_front_to_back():
    recorded = Recorded()
    list(Streamed(recorded, CPU).batches(ROWS))
    assert recorded.asked == [[0, 3, 5], [1, 5, 9, 9], [7], [], [2, 8]]


def test_two_batches_are_read_ahead_and_no_more():
    taken = 0

    def rows() -> Iterator[torch.Tensor]:
        nonlocal taken
        for batch in ROWS:
            taken += 1
            yield batch

    for used, _ in enumerate(Streamed(images(), CPU).batches(rows()), start=1):
        assert taken == min(used + 2, len(ROWS))
    assert used == len(ROWS)


def test_the_thread_ends_with_the_batches():
    batches = Streamed(images(), CPU).batches(ROWS)
    next(batches)
    assert len(threads()) == 1
    list(batches)
    assert threads() == []


def test_leaving_the_loop_early_ends_the_thread():
    for _ in Streamed(images(), CPU).batches(ROWS * 100):
        assert len(threads()) == 1
        break
    assert threads() == []


def test_what_waits_to_be_read_when_closed_is_not_read():
    recorded = Recorded(free=1)
    batches = Streamed(recorded, CPU).batches(ROWS)
    next(batches)
    threading.Timer(0.3, recorded.go.set).start()  # while `close` waits for the second read
    batches.close()
    assert len(recorded.asked) <= 2
    assert threads() == []


def test_an_error_of_the_consumer_ends_the_thread():
    def consume() -> None:
        for _ in Streamed(images(), CPU).batches(ROWS):
            assert len(threads()) == 1
            raise ArithmeticError

    with pytest.raises(ArithmeticError):
        consume()
    assert threads() == []


def test_an_error_of_the_thread_reaches_the_consumer_in_place_of_its_batch():
    batches = Streamed(images(), CPU).batches([ROWS[0], torch.tensor([10]), ROWS[2]])
    assert len(next(batches)) == 3
    with pytest.raises(IndexError, match="index 10 is out of bounds"):
        next(batches)
    assert threads() == []
    assert next(batches, None) is None


def test_an_error_of_the_rows_reaches_the_consumer():
    def rows() -> Iterator[torch.Tensor]:
        yield ROWS[0]
        raise ArithmeticError

    with pytest.raises(ArithmeticError):
        list(Streamed(images(), CPU).batches(rows()))
    assert threads() == []


@pytest.mark.parametrize(("spare", "kind"), [(0, "resident"), (-1, "streamed")])
def test_auto_is_resident_up_to_half_of_the_free_memory(monkeypatch, file, spare, kind):
    asked = []
    free = 2 * images().nbytes + spare
    monkeypatch.setattr(loader, "free_memory", lambda device: asked.append(device) or free)
    assert open_pixels(file, CPU).kind == kind
    assert asked == [CPU]


def test_free_memory_of_the_host_is_what_is_available(monkeypatch, tmp_path):
    (tmp_path / "meminfo").write_text("MemTotal: 900 kB\nMemAvailable:    70 kB\nHugePages: 0\n")
    monkeypatch.setattr(loader, "MEMINFO", tmp_path / "meminfo")
    assert free_memory(CPU) == 70 * 1024


@pytest.mark.parametrize("told", [None, "MemTotal: 900 kB\n"])
def test_free_memory_is_half_of_what_is_built_in_where_the_system_does_not_say(
    monkeypatch, tmp_path, told
):
    if told:
        (tmp_path / "meminfo").write_text(told)
    monkeypatch.setattr(loader, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(
        loader.os, "sysconf", {"SC_PHYS_PAGES": 1001, "SC_PAGE_SIZE": 4096}.__getitem__
    )
    assert free_memory(CPU) == 1001 * 2048


def test_free_memory_of_this_machine_is_some_of_it():
    assert 2**20 < free_memory(CPU) < 2**50


@needs_cuda
@pytest.mark.parametrize("kind", KINDS)
def test_batches_on_cuda_are_whole_and_do_not_wait_for_the_device(kind):
    device = torch.device("cuda")
    many = images(2000, 32)
    rows = list(torch.randint(0, 2000, (40, 256), generator=torch.Generator().manual_seed(1)))
    expected = torch.from_numpy(many).to(device)
    wanted = [batch.to(device) for batch in rows]
    busy = torch.rand(4096, 4096, device=device)
    pixels = kind(many, device)
    torch.cuda.set_sync_debug_mode("error")
    try:
        right = []
        for batch, index in zip(pixels.batches(rows), wanted, strict=True):
            busy = busy @ busy  # copies queue behind this, so that buffers are long in use
            right.append((batch == expected[index]).all())
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.stack(right).all()


@needs_cuda
def test_free_memory_of_cuda_is_that_of_the_device():
    free = free_memory(torch.device("cuda"))
    assert 0 < free <= torch.cuda.get_device_properties(0).total_memory
