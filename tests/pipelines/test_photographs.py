"""Photographs through the whole chain: creatures laid out as CUB-200-2011, their keypoints in the middle of parts."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from kedro.framework.session import KedroSession
from kedro.framework.startup import bootstrap_project
from PIL import Image

from partcraft_kedro.drawn.creatures import Creatures
from partcraft_kedro.randomness import numpy_generator

PROJECT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def cub(tmp_path_factory) -> Path:
    """Two species of ten pictures, one of them broken and one there twice."""
    folder = tmp_path_factory.mktemp("birds") / "CUB_200_2011"
    world = Creatures()
    lists: dict[str, list[str]] = {name: [] for name in ("images", "image_class_labels", "train_test_split")}
    lists |= {"bounding_boxes": [], "parts/part_locs": []}
    for number in range(1, 21):
        kind = (number - 1) % 2
        rng = numpy_generator(0, "bird", number)
        drawing = world.draw(world.random_member(kind, 2, rng, seed=0), world.random_pose(rng))
        path = folder / "images" / f"{kind}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(drawing.picture).save(path)
        rows, columns = np.nonzero(drawing.mask)
        box = columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1
        lists["images"].append(f"{number} {kind}/{number}.png")
        lists["image_class_labels"].append(f"{number} {kind + 1}")
        lists["train_test_split"].append(f"{number} {int(number <= 14)}")
        lists["bounding_boxes"].append(f"{number} " + " ".join(f"{side:.1f}" for side in box))
        for part, label in ((1, "head"), (2, "tail")):
            rows, columns = np.nonzero(drawing.mask == world.value(label))
            seen = len(rows) > 0
            x, y = (columns.mean(), rows.mean()) if seen else (0, 0)
            lists["parts/part_locs"].append(f"{number} {part} {x:.1f} {y:.1f} {int(seen)}")
    (folder / "images" / "0" / "3.png").write_bytes(b"\x89PNG cut short")
    (folder / "images" / "1" / "20.png").write_bytes((folder / "images" / "1" / "18.png").read_bytes())
    (folder / "parts").mkdir()
    for name, lines in lists.items():
        (folder / f"{name}.txt").write_text("\n".join(lines) + "\n")
    (folder / "classes.txt").write_text("1 red bird\n2 blue bird\n")
    (folder / "parts" / "parts.txt").write_text("1 beak\n2 tail\n")
    return folder


def test_photographs_pass_through_the_whole_chain(project, cub) -> None:
    code, output = project.run(f"--params=images.source=cub,images.folder={cub},images.max_broken_share=0.1")
    assert code == 0, output
    records = pd.read_parquet(project.data / "02_intermediate/test/records.parquet")
    assert len(records) == 19
    assert records.set_index("id")["duplicate_of"].dropna().to_dict() == {"00020": "00018"}
    quarantine = pd.read_parquet(project.data / "02_intermediate/test/quarantine.parquet")
    assert list(quarantine["id"]) == ["00003"]
    metrics = json.loads((project.data / "08_reporting/test/metrics.json").read_text())
    found = metrics["discovery"]
    assert found["nmi"] > 0.5  # two names against five labels, twelve keypoints
    assert {"head", "tail"} <= set(found["matching"].values())
    assert 0 < found["keypoint_error"] < 100
    assert found["foreground_iou"] > 0.3
    assert 0.05 < found["foreground_share"] < 0.6
    names = yaml.safe_load((project.data / "05_model_input/test/part_names.yml").read_text())
    assert names[0] == "background"
    assert {"head", "tail"} <= set(names.values())
    assert {"code_class_nmi", "same_class_agreement"} <= found.keys()
    regions = {"iou_looked_found", "iou_looked_mask", "iou_found_mask"}
    assert metrics["reconstruction"].keys() == {"emr", "cosim", *regions}  # nobody knows the true looks
    assert metrics["composition"]["2"].keys() == {"emr", "cosim", *regions, "transfer", "preservation", "leakage"}
    assert metrics["composition"]["2"]["emr"]["ceiling"] is metrics["composition"]["2"]["transfer"]["ceiling"] is None
    scores = pd.read_parquet(project.data / "08_reporting/test/scores.parquet").set_index("id")
    for _, row in scores[scores["swapped"].map(len) == 1].iterrows():  # by codes
        (part,), code, found = row["swapped"], row["code"], row["found"]
        shown = {m for m in range(len(code)) if max(code[m], found[m]) >= 0}
        assert row["transfer"] == (code[part] == found[part]) if part in shown else np.isnan(row["transfer"])
        kept = [code[m] == found[m] for m in shown - {part}]
        assert row["preservation"] == pytest.approx(np.mean(kept))
    assert metrics["distance"]["frechet"]["features"].startswith("tiny, mean over patches")


@pytest.mark.parametrize("source", ["cub", "dogs", "sims4", "folder"])
def test_a_missing_dataset_is_told_in_one_sentence(project, source: str) -> None:
    code, output = project.run("--pipelines=images", f"--params=images.source={source}")
    assert code == 1
    assert "images.folder" in output
    assert "Traceback" not in output
    assert not project.found("02_intermediate/**/*.parquet")


@pytest.mark.parametrize(
    ("pipeline", "option", "model"),
    [
        ("features", "features.model", "facebook/dinov2-base"),
        ("train", "base.model", "stable-diffusion-v1-5/stable-diffusion-v1-5"),
    ],
)
def test_a_missing_model_is_told_in_one_sentence(project, pipeline: str, option: str, model: str) -> None:
    code, output = project.run(f"--pipelines={pipeline}", f"--params={option}={model}")
    assert code == 1
    assert f"{option}='{model}' is not on this machine" in output
    assert f"download https://huggingface.co/{model} into a folder" in output
    assert "Traceback" not in output


@pytest.mark.parametrize("environment", ["faces", "cub", "dogs", "sims4", "folder"])
def test_every_dataset_of_an_environment_resolves(tmp_path, monkeypatch, environment: str) -> None:
    monkeypatch.setenv("PARTCRAFT_DATA", str(tmp_path))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    bootstrap_project(PROJECT)
    with KedroSession.create(PROJECT, env=environment) as session:
        context = session.load_context()
        assert context.catalog.load("params:stages").dataset == environment
        for name in context.config_loader["catalog"]:
            if not name.startswith(("_", "params:")):
                assert environment in str(context.catalog.get(name)._filepath) or name == "tiny"
