import platform

import psutil
import pytest
import torch

from partcraft_kedro.allocator import give_back_freed_memory
from partcraft_kedro.model.base import load_base


def resident() -> int:
    return psutil.Process().memory_info().rss


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have ways of their own")
def test_with_a_base_model_on_a_cpu_freed_memory_is_kept_until_it_is_given_back() -> None:
    load_base("tiny", "cpu")
    blocks = [torch.ones(2**22) for _ in range(40)]  # 16 MiB each
    full = resident()
    del blocks
    assert full - resident() < 100 * 2**20
    give_back_freed_memory()
    assert full - resident() > 500 * 2**20
