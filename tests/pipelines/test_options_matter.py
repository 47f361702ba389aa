"""Every option changes something that a run leaves behind."""

import re
import shutil
from pathlib import Path

import pytest
from kedro.framework.session import KedroSession
from kedro.framework.startup import bootstrap_project
from pydantic import BaseModel
from safetensors.numpy import load_file, save_file

from partcraft_kedro import options
from partcraft_kedro.weights import TINY

PROJECT = Path(__file__).parents[2]
_FINGERPRINT = re.compile(rb"[0-9a-f]{16}")
# The stage that shows it first, and another value than that of conf/test.
CHANGED = {
    "images": {
        "source": "folder",
        "classes": 3,
        "pictures_per_class": 7,
        "test_fraction": 0.5,
        "seed": 5,
    },
    "features": {"model": "<folder>", "layer": 1, "final_norm": True, "size": 64, "mirrored": True, "shard_size": 5},
    "parts": {
        "discovery": "centred",
        "names": "<names>",
        "parts": 4,
        "variants": 3,
        "max_iter": 1,
        "merge": False,
        "min_patches": 9,
        "min_pictures": 9,
        "seed": 3,
    },
    "train": {
        "steps": 3,
        "batch_size": 3,
        "learning_rate": 1e-3,
        "warmup_steps": 3,
        "average": 0.05,
        "token_start": "random",
        "stratified_timesteps": False,
        "weight_decay": 0.5,
        "attention_weight": 0.5,
        "rank": 2,
        "lora_layers": "all",
        "bottleneck_layers": 3,
        "attention_loss": "squared_error",
        "attention_normalisation": "maximum",
        "union_sampling": True,
        "masked_loss": True,
        "unet": "key_value",
        "unet_learning_rate_factor": 0.1,
        "lora_learning_rate_factor": 0.5,
        "method": "custom_diffusion",
        "template_probability": 1.0,
        "snr_gamma": 5.0,
        "max_gradient_norm": 1e-3,
        "checkpoint_every": 3,
        "log_every": 1,
        "sample_every": 2,
        "seed": 1,
    },
    "generate": {
        "sampling.steps": 3,
        "sampling.scheduler": "dpm-solver++",
        "sampling.guidance_scale": 5.0,
        "sampling.guidance_rescale": 0.0,
        "sampling.negative_prompt": "striped",
        "split": "train",
        "reconstructions": 3,
        "compositions": 1,
        "max_sources": 2,
        "transfers": 2,
        "transferred": ["head"],
        "seed": 1,
    },
    "evaluate": {"bootstrap": 50, "examples": 2, "seed": 1, "part_identity": "<folder>"},
    "base": {"model": "<folder>", "size": 64},
}
# What cannot show in the results of a small run on this device.
ELSEWHERE = {
    "base.config",  # test_checkpoints.py: of a model that is one file
    "base.device",
    "images.max_broken_share",  # test_mistakes.py breaks pictures
    "images.folder",  # test_photographs.py reads photographs; here `source` finds the creatures' folder
    "images.labels",  # test_readers.py
    "features.batch_size",  # speed and memory alone
    "parts.n_init",  # test_kmeans.py: on few pictures every start finds the same parts
    "generate.sampling.batch_size",
    "generate.sampling.compile",  # test_as_on_a_gpu.py
    # test_training.py: speed, memory and rounding alone
    "base.precision",
    "train.micro_batch",
    "train.gradient_checkpointing",
    "train.compile",
    "evaluate.inception",  # test_inception.py: weights of 90 MB
    "compute.engine",  # tests/compute: results are the same
    "compute.address",
    *(f"pretrain.{name}" for name in options.PretrainOptions.model_fields),  # hours
}


# What an option needs beside it, to have an effect at all; left behind without it before.
BESIDE = {"masked_loss": {"union_sampling": True}}  # where all parts are named there is nothing to mask


def leaves(group: type[BaseModel], prefix: str) -> set[str]:
    names = set()
    for name, field in group.model_fields.items():
        inner = isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
        names |= leaves(field.annotation, f"{prefix}.{name}") if inner else {f"{prefix}.{name}"}
    return names


def test_no_option_is_forgotten() -> None:
    known = set().union(*(leaves(group, name) for name, group in options.GROUPS.items()))
    assert known == ELSEWHERE | {f"{group}.{name}" for group, values in CHANGED.items() for name in values}


@pytest.fixture(scope="module")
def results(finished, tmp_path_factory):
    """A copy of finished data to run in, within this process."""
    folder = tmp_path_factory.mktemp("options")
    shutil.copytree(finished.data, folder / "data")
    for name, weights in (("base", "unet/diffusion_pytorch_model"), ("feature_extractor", "model")):
        shutil.copytree(TINY / name, folder / name)
        path = folder / name / f"{weights}.safetensors"
        save_file({key: 1.1 * value for key, value in load_file(path).items()}, path, {"format": "pt"})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PARTCRAFT_DATA", str(folder / "data"))
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
        bootstrap_project(PROJECT)
        yield folder, set(), set()


@pytest.mark.parametrize(
    ("group", "name", "value"),
    [(group, name, value) for group, values in CHANGED.items() for name, value in values.items()],
)
def test_an_option_changes_what_is_left_behind(results, group: str, name: str, value) -> None:
    folder, known, begun = results
    data = folder / "data"

    def files() -> dict:
        return {path: path.stat().st_mtime_ns for path in data.rglob("*") if path.is_file()}

    def content(path) -> tuple[str, bytes]:
        """Without fingerprints, which follow the options and not their effect."""
        name = _FINGERPRINT.sub(b"", path.relative_to(data).as_posix().encode()).decode()
        return re.sub(r"\d{4}-\d\d-\d\dT[\d.]+Z", "", name), _FINGERPRINT.sub(b"", path.read_bytes())

    tags = {"base": ["train"], "evaluate": ["evaluate", "report"]}.get(group, [group])
    if group not in begun:  # what comes before it as it was, so that a difference is this option's alone
        begun.add(group)
        with KedroSession.create(PROJECT, env="test") as session:
            session.run(pipeline_names=["__default__"])
    before = files()
    known |= {content(path) for path in before}
    if name in ("checkpoint_every", "log_every", "sample_every"):  # a finished training is not repeated for these
        for training in data.glob("06_models/test/training-*"):
            shutil.rmtree(training)
    if value == "<folder>":
        value = str(folder / ("base" if group == "base" else "feature_extractor"))
    if value == "<names>":
        value = str(folder / "names.yml")
        Path(value).write_text("1: beak\n")
    tree = value
    for key in reversed(name.split(".")):
        tree = {key: tree} | BESIDE.get(key, {})
    with KedroSession.create(PROJECT, env="test", runtime_params={group: tree}) as session:
        session.run(pipeline_names=["__default__"], tags=tags)
    # The options themselves are written down in stage.json and in the adapter's card.
    fresh = [path for path, stamp in files().items() if before.get(path) != stamp]
    assert {content(path) for path in fresh if path.suffix not in (".json", ".md") or path.stem == "metrics"} - known
