import pytest
import torch

from partcraft_kedro.errors import UserError
from partcraft_kedro.passes import as_many_as_fit, is_out_of_memory


def fill(most: int, tried: list[int]):
    """Work on pictures of which memory holds `most`."""

    def work(size: int) -> str:
        tried.append(size)
        torch.empty(2**50 if size > most else 1)
        return f"{size} done"

    return work


def test_passes_are_halved_until_memory_holds_them(caplog) -> None:
    tried = []
    assert as_many_as_fit(fill(2, tried), 13, "drawing", "draw less") == ("1 done", 1)
    assert tried == [13, 6, 3, 1]
    assert [record.getMessage() for record in caplog.records] == [
        "Memory ran out in drawing: going on with passes of 1 instead of 13 pictures."
    ]
    caplog.clear()
    assert as_many_as_fit(fill(2, tried), 2, "drawing", "draw less") == ("2 done", 2)
    assert not caplog.records


def test_one_picture_too_many_is_told(caplog) -> None:
    expected = "^Memory ran out in drawing with one picture a pass: close other programs, or draw less; finished work"
    with pytest.raises(UserError, match=expected):
        as_many_as_fit(fill(0, []), 8, "drawing", "draw less")
    assert not caplog.records


def test_other_errors_are_no_want_of_memory() -> None:
    tried = []

    def fail(size: int) -> None:
        tried.append(size)
        torch.zeros(2) @ torch.zeros(3)

    with pytest.raises(RuntimeError, match="inconsistent tensor size"):
        as_many_as_fit(fail, 8, "drawing", "draw less")
    assert tried == [8]


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("MPS backend out of memory (MPS allocated: 18.12 GB)"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("GET was unable to find an engine to execute this computation"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:121] data. DefaultCPUAllocator: not enough memory"),
    ],
)
def test_every_device_says_it_in_its_own_words(error: RuntimeError) -> None:
    assert is_out_of_memory(error)
