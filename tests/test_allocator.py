import platform

import psutil
import pytest
import torch

from partcraft_kedro.allocator import give_back_freed_memory, keep_freed_memory
from partcraft_kedro.model.base import load_base

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have ways of their own")


def resident() -> int:
    return psutil.Process().memory_info().rss


@pytest.mark.parametrize("keep", [keep_freed_memory, lambda: load_base("tiny", "cpu")])
def test_freed_memory_is_kept_until_it_is_given_back(keep) -> None:
    keep()
    blocks = [torch.ones(2**22) for _ in range(40)]  # 16 MiB each
    full = resident()
    del blocks
    assert full - resident() < 100 * 2**20
    give_back_freed_memory()
    assert full - resident() > 500 * 2**20
