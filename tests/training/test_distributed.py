"""Ranks train as one process does, under gloo on a CPU: processes that are forked, and processes of torchrun."""

import functools
import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import torch.distributed as dist
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from test_training import assert_equal_gradients, fresh_model, gradients, options

from partcraft_kedro.errors import UserError
from partcraft_kedro.model.partcraft import PartCraft
from partcraft_kedro.options import TrainOptions
from partcraft_kedro.project import lay_out
from partcraft_kedro.torchrun import _be_as_the_first
from partcraft_kedro.training.cache import TrainingCache
from partcraft_kedro.training.loop import train
from partcraft_kedro.training.ranks import LostRank, Ranks

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="processes are forked, and killed by a signal")

_forks = multiprocessing.get_context("fork")  # what takes long to import is there
_SOON = 30  # seconds within which all ranks have ended
_LOST, _MISTAKE = 3, 4  # exit codes


@pytest.fixture(scope="module")
def cache() -> TrainingCache:
    """Small latents: two pictures lack a part."""
    rng = np.random.default_rng(0)
    latents = torch.from_numpy(rng.standard_normal((2, 5, 4, 16, 16))).half()
    label_maps = torch.from_numpy(rng.integers(0, 3, (5, 16, 16), dtype=np.uint8))
    codes = np.array([[0, 1, 2], [1, -1, 0], [2, 3, 1], [0, 0, 0], [1, 2, -1]])
    return TrainingCache([latents], [latents.abs() * 0.1], torch.stack([label_maps, label_maps.flip(-1)]), codes)


def of_twenty_steps(**changes) -> TrainOptions:
    return options(**{"steps": 20, "batch_size": 4, "micro_batch": 4, "checkpoint_every": 5, "average": 0.9} | changes)


def start(count: int, store: Path, work: Callable[[Ranks], None]) -> list[multiprocessing.Process]:
    """`work` in so many ranks; exit codes `_LOST` and `_MISTAKE` are of LostRank and of another UserError, whose text
    is then in `<store>.<rank>`."""
    store.unlink(missing_ok=True)

    def run(rank: int) -> None:
        dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=count)
        try:
            work(Ranks())
        except UserError as error:
            store.with_suffix(f".{rank}").write_text(str(error))
            os._exit(_LOST if isinstance(error, LostRank) else _MISTAKE)
        dist.destroy_process_group()
        os._exit(0)  # what pytest would tidy up is not this process's

    processes = [_forks.Process(target=run, args=(rank,), daemon=True) for rank in range(count)]
    for process in processes:
        process.start()
    return processes


def codes_of(processes: list[multiprocessing.Process], timeout: float | None = 300) -> list[int | None]:
    for process in processes:
        process.join(timeout)
    return [process.exitcode for process in processes]


def training(cache: TrainingCache, of: TrainOptions, folder: Path) -> Callable[[Ranks], None]:
    """What each rank does of a training in `folder`; each rank leaves its weights there."""

    def work(ranks: Ranks) -> None:
        model = fresh_model(of)
        train(model, cache, of, folder, "f")
        weights = {name: weight.detach().contiguous() for name, weight in model.trainable().items()}
        save_file(weights, folder / f"weights_{dist.get_rank()}.safetensors")

    return work


def facts_of(folder: Path) -> dict:
    with safe_open(folder / "checkpoint.safetensors", "pt") as stored:
        return json.loads(stored.metadata()["training"])


@pytest.fixture(scope="module")
def trained(cache, tmp_path_factory) -> Callable[[int], Path]:
    """The folder of a training by one process without a group, or by two or four ranks; each is done once."""
    of = of_twenty_steps()

    @functools.cache
    def folder_of(count: int) -> Path:
        folder = tmp_path_factory.mktemp(f"{count}_ranks")
        if count == 1:
            train(fresh_model(of), cache, of, folder, "f")
        else:
            assert codes_of(start(count, folder / "store", training(cache, of, folder))) == [0] * count
        return folder

    return folder_of


def assert_losses_are_equal_to_rounding(folder: Path, expected: Path) -> None:
    found, of_expected = (pd.read_csv(each / "losses.csv") for each in (folder, expected))
    assert list(found["step"]) == list(range(1, 21))
    for name in ("loss", "loss_ldm", "loss_attention"):
        np.testing.assert_allclose(found[name], of_expected[name], rtol=1e-3)


@pytest.mark.parametrize("count", [2, 4])
def test_ranks_learn_what_one_process_learns(trained, count: int) -> None:
    assert_losses_are_equal_to_rounding(trained(count), trained(1))
    first, *others = (load_file(trained(count) / f"weights_{rank}.safetensors") for rank in range(count))
    for other in others:
        assert all(torch.equal(other[name], weight) for name, weight in first.items())


@pytest.mark.parametrize("killed", [0, 1])
def test_a_rank_that_is_killed_ends_all_and_the_training_goes_on(cache, trained, tmp_path, killed: int) -> None:
    """With as many ranks bit for bit, with another number but for rounding."""
    of, checkpoint = of_twenty_steps(), tmp_path / "checkpoint.safetensors"
    work = training(cache, of, tmp_path)
    processes = start(2, tmp_path / "store", work)
    while not checkpoint.exists() and None in codes_of(processes, 0.01):
        pass
    os.kill(processes[killed].pid, signal.SIGKILL)
    codes = codes_of(processes, _SOON)
    assert (codes[killed], codes[1 - killed]) == (-signal.SIGKILL, _LOST)
    assert facts_of(tmp_path)["step"] < of.steps
    if killed:
        assert codes_of(start(2, tmp_path / "store", work)) == [0, 0]
        assert checkpoint.read_bytes() == (trained(2) / checkpoint.name).read_bytes()
    else:
        train(fresh_model(of), cache, of, tmp_path, "f")
        assert_losses_are_equal_to_rounding(tmp_path, trained(1))


def of_little_memory(model: PartCraft) -> PartCraft:
    """With memory for one picture a pass."""

    def allocate(_: torch.nn.Module, arguments: tuple) -> None:
        if len(arguments[0]) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    model.pipeline.unet.conv_in.register_forward_pre_hook(allocate)
    return model


def test_the_gradient_is_that_of_the_whole_batch_though_one_rank_has_little_memory(cache, tmp_path) -> None:
    of = of_twenty_steps(attention_weight=1.0)

    def work(ranks: Ranks) -> None:
        passes = []

        def prepare(model: PartCraft) -> None:
            unet = (model if ranks.first else of_little_memory(model)).pipeline.unet
            unet.conv_in.register_forward_hook(lambda _, arguments, __: passes.append(len(arguments[0])))

        found = gradients(cache, of, prepare, ranks)
        assert passes == ([2] if ranks.first else [1, 1])
        save_file(found, tmp_path / f"{dist.get_rank()}.safetensors")

    assert codes_of(start(2, tmp_path / "store", work)) == [0, 0]
    expected = gradients(cache, of)
    for rank in (0, 1):
        assert_equal_gradients(load_file(tmp_path / f"{rank}.safetensors"), expected)


def test_a_checkpoint_keeps_the_passes_that_all_ranks_have_memory_for(cache, tmp_path) -> None:
    of = of_twenty_steps(steps=1)

    def work(ranks: Ranks) -> None:
        model = fresh_model(of)
        train(model if ranks.first else of_little_memory(model), cache, of, tmp_path, "f")

    assert codes_of(start(2, tmp_path / "store", work)) == [0, 0]
    assert facts_of(tmp_path)["micro_batch"] == 1


def test_what_ranks_cannot_train_together_is_refused(cache, tmp_path) -> None:
    def work(of: TrainOptions, ranks: Ranks) -> None:
        train(fresh_model(of.model_copy(update={"seed": dist.get_rank()})), cache, of, tmp_path, "f")

    def with_another_base(ranks: Ranks) -> None:
        model = fresh_model(of := of_twenty_steps())
        model.pipeline.text_encoder.get_input_embeddings().weight.data[7, 3] += 0.0 if ranks.first else 1e-6
        train(model, cache, of, tmp_path, "f")

    store = tmp_path / "store"
    assert codes_of(start(2, store, functools.partial(work, of_twenty_steps(batch_size=3)))) == [_MISTAKE, _MISTAKE]
    assert "train.batch_size=3 cannot be cut into equal slices for 2 processes" in store.with_suffix(".0").read_text()
    assert "train.batch_size=4" in store.with_suffix(".0").read_text()
    for unlike in (functools.partial(work, of_twenty_steps()), with_another_base):
        store.with_suffix(".0").unlink()
        assert codes_of(start(2, store, unlike)) == [_MISTAKE, _LOST]
        assert "Rank 1 begins with other weights than rank 0" in store.with_suffix(".0").read_text()


def by_torchrun(*command: str, folder: Path) -> tuple[int, str]:
    """Exit code and output of two processes on this machine."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2"]
    done = subprocess.run([*launch, *command], cwd=folder, capture_output=True, text=True, timeout=300)
    return done.returncode, done.stdout + done.stderr


SCRIPT = """
import functools, os, pathlib, sys
from partcraft_kedro.errors import UserError
from partcraft_kedro.torchrun import follow, is_follower, leading, together

def work(mistaken, tell=None):
    from huggingface_hub.constants import ENDPOINT
    print("words of", os.environ["RANK"])
    pathlib.Path(os.environ["RANK"]).write_text(("told " if tell else "untold ") + ENDPOINT)
    if mistaken and not tell:
        raise UserError("It is a mistake.")

if is_follower():
    follow(["run", "--params", "a.b=c"])
with leading():
    os.environ["HF_ENDPOINT"] = "http://hub"  # only here, and after all have begun
    together(functools.partial(work, "mistaken" in sys.argv), tell=print)
"""


@pytest.mark.parametrize("mistaken", [False, True])
def test_the_first_process_of_torchrun_runs_and_the_others_follow_in_silence(tmp_path, mistaken: bool) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    code, output = by_torchrun("script.py", *(["mistaken"] if mistaken else []), folder=tmp_path)
    assert (code != 0) == mistaken
    assert (output.count("words of 0"), output.count("words of 1")) == (1, 0)
    assert [(tmp_path / rank).read_text() for rank in "01"] == ["told http://hub", "untold http://hub"]
    assert bool(re.search(r"^Error: Rank 1 on .+: It is a mistake\.$", output, re.MULTILINE)) == mistaken


def test_a_host_with_another_package_is_refused() -> None:
    with pytest.raises(
        UserError, match=r"^This machine has torch .+ and not 1\.0: all hosts need the code and the pack"
    ):
        _be_as_the_first({}, {"torch": "1.0"})


def test_a_slip_under_torchrun_is_told_once_and_before_anything_is_made(tmp_path) -> None:
    lay_out(tmp_path / "project")
    command = ["-m", "partcraft_kedro", "run", "--env=test", "--params", "train.batch_size=3"]
    code, output = by_torchrun(*command, folder=tmp_path / "project")
    assert code != 0
    assert output.count("Error: train.batch_size=3 cannot be cut into equal slices for 2 processes") == 1
    assert output.count("Error: ") == 1 + output.count("ChildFailedError: ")
    assert not any((tmp_path / "project" / "data").iterdir())
