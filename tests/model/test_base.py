import platform

import pytest
import torch

from partcraft_kedro.model.base import load_base


@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="other C libraries keep freed memory, or not, by themselves"
)
def test_memory_that_was_freed_serves_again() -> None:
    import resource

    load_base("tiny", "cpu")
    size = 64 * 2**20
    torch.ones(size // 4)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        torch.ones(size // 4)
    fetched = (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) * resource.getpagesize()
    assert fetched < 2 * size  # of ten times as much
