"""How work is shared out, and what a cluster's machines are asked: without a cluster."""

import sys

import pytest

from partcraft_kedro.cluster import _Ranges, differs, places
from partcraft_kedro.compute import Engine
from partcraft_kedro.errors import UserError
from partcraft_kedro.machines import installed, shared_variables
from partcraft_kedro.options import ComputeOptions


def test_ray_is_asked_for_where_it_is_not_installed(tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    Engine(ComputeOptions(), "cpu", tmp_path).check()
    with pytest.raises(UserError, match=r"^compute\.engine=ray needs Ray: pip install .+'\.\[ray\]'\.$"):
        Engine(ComputeOptions(engine="ray"), "cpu", tmp_path).check()


def test_this_process_works_on_so_many_shards_at_once(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("partcraft_kedro.compute._SHARDS", 2)
    done = []
    items = [f"item {i}" for i in range(9)]
    Engine(ComputeOptions(), "cpu", tmp_path).map(
        lambda: lambda items, first: done.append((first, items)), items, 2, "work"
    )
    assert done == [(0, items[:4]), (4, items[4:8]), (8, items[8:])]


def test_other_code_or_packages_are_named(tmp_path) -> None:
    token = tmp_path / "token"
    token.write_text("token")
    here = installed()
    assert {"python", "partcraft_kedro", "torch", "diffusers"} <= here.keys()
    assert differs(token, here) is None
    assert differs(token, here | {"torch": "1.0"}) == f"has torch {here['torch']} and not 1.0"
    assert differs(tmp_path / "elsewhere", here) == "does not see what is written to it here"


@pytest.mark.parametrize("total", [0, 1, 7, 1000, 5000])
def test_ranges_are_whole_shards_and_cover_everything_once(total: int) -> None:
    left, taken = _Ranges(total, 8), []
    while left:
        taken.append(left.take(workers=3))
        if len(taken) % 3 == 2:  # its worker is lost, and another gets it
            left.give_back(taken[-1])
            assert left.take(workers=2) == taken[-1]
    assert [i for part in sorted(taken, key=lambda part: part.start) for i in part] == list(range(total))
    assert all(part.start % 8 == 0 for part in taken)
    assert all(part.stop % 8 == 0 for part in taken if part.stop != total)
    assert max(map(len, taken), default=0) <= 256
    if total == 5000:  # so that all workers end at about the same time
        assert len(taken[0]) == 256 and len(taken[-2]) == 8


def test_a_worker_has_a_gpu_or_a_machine() -> None:
    nodes = [{"Resources": {"CPU": 16.0, "GPU": 2.0}}, {"Resources": {"CPU": 4.0}}, {"Resources": {}}]
    both = [(nodes[0], {"num_gpus": 1, "num_cpus": 8})] * 2
    assert places(nodes, "auto") == places(nodes, "cuda") == both
    assert places(nodes, "cpu") == [(nodes[0], {"num_cpus": 16}), (nodes[1], {"num_cpus": 4})]
    assert places(nodes[1:], "auto") == [(nodes[1], {"num_cpus": 4})]
    with pytest.raises(UserError, match="neither GPUs nor processors"):
        places(nodes[2:], "auto")
    with pytest.raises(UserError, match=r"^base\.device='cuda' is on none of Ray's machines: "):
        places(nodes[1:], "cuda")
    with pytest.raises(
        UserError, match=r"^base\.device='cuda:1' is one GPU of several, and Ray's workers have one each"
    ):
        places(nodes, "cuda:1")


def test_what_the_user_says_of_a_run_is_shared_and_what_is_of_a_machine_is_not(monkeypatch) -> None:
    for name in (
        "PARTCRAFT_DATA",
        "HF_HOME",
        "HF_HUB_OFFLINE",
        "HF_TOKEN",
        "MLFLOW_TRACKING_URI",
        "ATEN_CPU_CAPABILITY",
    ):
        monkeypatch.setenv(name, "set")
    for name in ("HOME", "PATH", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "LOCAL_RANK"):
        monkeypatch.setenv(name, "of this machine")
    shared = shared_variables()
    assert [shared[name] for name in ("PARTCRAFT_DATA", "HF_HOME", "HF_HUB_OFFLINE", "HF_TOKEN")] == ["set"] * 4
    assert "of this machine" not in shared.values()


def test_a_folder_that_other_machines_may_not_see_is_copied(tmp_path) -> None:
    """And that of data, or for this process, is not."""
    outside, root = tmp_path / "cache/adapter", tmp_path / "data"
    outside.mkdir(parents=True)
    (tmp_path / "blob").write_text("weights")
    (outside / "weights").symlink_to(tmp_path / "blob")  # as a hub's cache has them
    on_ray, here = (Engine(ComputeOptions(engine=name), "cpu", root) for name in ("ray", "local"))
    assert here.shared(outside, root / "copies") == outside
    assert on_ray.shared(root / "adapter", root / "copies") == root / "adapter"
    assert not root.exists()
    for content in ("weights", "other weights"):  # the first time it was killed in between
        (tmp_path / "blob").write_text(content)
        copy = on_ray.shared(outside, root / "copies")
        assert copy.is_relative_to(root) and (copy / "weights").read_text() == content
        assert not (copy / "weights").is_symlink()
