"""What a run forecasts, and how it tells what was done."""

import json

import pytest
from kedro.io import DataCatalog, MemoryDataset
from kedro.pipeline import Node, Pipeline

from partcraft_kedro.options import BaseModelOptions, ImagesOptions, PretrainOptions, TrainOptions
from partcraft_kedro.pipelines.images.pipeline import create_pipeline as images
from partcraft_kedro.pipelines.pretrain.pipeline import create_pipeline as pretrain
from partcraft_kedro.pipelines.prompts.pipeline import create_pipeline as prompts
from partcraft_kedro.progress import Ledger, ProgressHooks, _by_stage, _keys_of, duration, plan_of
from partcraft_kedro.stages import Stages


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(0.2, "0 s"), (59, "59 s"), (60, "1 min 00 s"), (293.4, "4 min 53 s"), (7499, "2 h 04 min")],
)
def test_durations_in_words(seconds: float, told: str) -> None:
    assert duration(seconds) == told


def test_the_plan_says_where_what_and_how_long() -> None:
    seconds = {"train": 293.0, "generate": 120.0}
    assert plan_of("creatures", "cpu, 2 threads, bfloat16", ["images"], ["train", "generate"], seconds) == [
        "PartCraft: creatures, cpu, 2 threads, bfloat16",
        "kept: images; to run: train (4 min 53 s), generate (2 min 00 s); together about 6 min 53 s",
    ]
    # Of what has never run nothing is said, nor of the sum.
    assert plan_of("cub", "", [], ["train", "report"], seconds) == [
        "PartCraft: cub",
        "to run: train (4 min 53 s), report",
    ]


def test_a_pipeline_is_planned_that_takes_no_engine(tmp_path, capsys) -> None:
    """Options that no node takes are as they were written, not validated."""
    options = {"base": BaseModelOptions(device="cpu"), "pretrain": PretrainOptions(), "compute": {"engine": "ray"}}
    known = {"params:stages": Stages(tmp_path, "creatures"), "parameters": options}
    catalog = DataCatalog({name: MemoryDataset(data) for name, data in known.items()})
    ProgressHooks().before_pipeline_run({}, pretrain(), catalog)
    told = capsys.readouterr().out.splitlines()
    assert told[0].startswith("PartCraft: creatures, cpu, ") and told[1] == "to run: pretrain"


def keys(stages: Stages, made: dict | None = None, pipeline: Pipeline | None = None, **options) -> dict[str, str]:
    options = {"images": ImagesOptions(), "train": TrainOptions()} | options
    return _keys_of(_by_stage(pipeline or images() + prompts()), options, made or {}, {}, stages)


def test_a_stage_s_key_follows_its_options_and_what_it_takes(tmp_path) -> None:
    stages = Stages(tmp_path, "creatures")
    before = keys(stages)
    assert keys(stages, train=TrainOptions(steps=3)) == before
    after = keys(stages, images=ImagesOptions(seed=1, folder="/my/pictures"))
    assert after["images"] != before["images"]
    assert after["prompts"] != before["prompts"]
    alone = keys(stages, {"records": "a"}, prompts())
    assert alone == keys(stages, {"records": "a"}, prompts())
    assert alone != keys(stages, {"records": "b"}, prompts())


def test_stages_are_told_apart_though_kedro_mixes_their_nodes(tmp_path) -> None:
    """A stage that begins before the one that it depends on is begun."""
    mixed = Pipeline(
        [
            Node(lambda x: x, "params:a", "early", name="a1", tags="late"),
            Node(lambda x: x, "params:a", "made", name="b1", tags="first"),
            Node(lambda x, y: x, ["early", "made"], "end", name="c1", tags="late"),
        ]
    )
    assert list(keys(Stages(tmp_path, "creatures"), pipeline=mixed)) == ["first", "late"]


def test_the_ledger_keeps_what_is_done_and_still_there(tmp_path) -> None:
    stages = Stages(tmp_path, "creatures", "/sweeps/a/b")
    folder = tmp_path / "06_models" / "training-1"
    folder.mkdir(parents=True)
    (folder / "finished.json").write_text("{}")
    assert not Ledger(stages).keeps("key")
    Ledger(stages).note("key", "train", [folder], ["adapter"], 12.34)
    Ledger(stages).note("other", "report", [], [], None)
    ledger = Ledger(stages)
    assert ledger.keeps("key") and not ledger.keeps("other")
    assert (ledger.made, ledger.seconds) == ({"adapter": "key"}, {"train": 12.3})
    (folder / "finished.json").unlink()
    assert not ledger.keeps("key")
    (path,) = tmp_path.glob(".runs/**/*.json")
    path.write_text('{"made": ')  # of a machine that lost power
    assert Ledger(stages).made == {}
    assert json.loads(path.read_text() + "{}}") == {"made": {}}
