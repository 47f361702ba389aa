"""The command line: names, and values of options."""

from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result
from kedro.framework.cli.cli import KedroCLI
from kedro.framework.startup import bootstrap_project

from partcraft_kedro.arguments import grid, params
from partcraft_kedro.mistakes import _name_stages_of_nodes
from partcraft_kedro.project import lay_out


def kedro(*arguments: str) -> Result:
    return CliRunner().invoke(KedroCLI(Path.cwd()), arguments)


@pytest.mark.parametrize(
    "command",
    [("run",), ("sweep",), ("viz", "run"), ("catalog", "describe-datasets"), ("mlflow", "ui"), ("jupyter", "lab")],
    ids=" ".join,
)
def test_every_command_refuses_an_environment_that_there_is_not(command: tuple[str, ...]) -> None:
    result = kedro(*command, "--env=cbu")
    assert result.exit_code == 1
    last = result.output.splitlines()[-1]
    assert last.startswith("Error: There is no environment 'cbu': did you mean 'cub'? There are base, cub, dogs,")


def test_the_help_names_what_may_be_given() -> None:
    told = " ".join(kedro("run", "--help").output.split())
    assert "cub, dogs, faces, folder, sims4, test; none: creatures" in told
    assert "download, evaluate, experiments" in told
    assert "groups base, images" in told and "options.py" in told


def test_so_it_does_with_one_from_the_shell(monkeypatch) -> None:
    monkeypatch.setenv("KEDRO_ENV", "tset")
    assert "did you mean 'test'?" in kedro("catalog", "list-patterns").output


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["run", "--pipelines=images,trian"], "There is no pipeline 'trian': did you mean 'train'?"),
        (["run", "--pipeline=xyz"], "There is no pipeline 'xyz': there are download, evaluate"),
        (["viz", "run", "--pipeline=trian"], "There is no pipeline 'trian'"),
        (["run", "--tags=generate,raport"], "There is no tag 'raport': did you mean 'report'?"),
        (["run", "--nodes=train_adaptr"], "There is no node 'train_adaptr': did you mean 'train_adapter'?"),
        (["run", "--nodes=train.train_adaptr"], "'train.train_adaptr': did you mean 'train.train_adapter'?"),
        (["run", "--to-nodes=score"], "There is no node 'score'"),
        (["run", "--to-outputs=adaptr"], "There is no dataset 'adaptr': did you mean 'adapter'?"),
        (["run", "--load-versions=adaptr:2026"], "There is no dataset 'adaptr': did you mean 'adapter'?"),
        (["run", "--load-versions=adaptr:me/birds"], "There is no dataset 'adaptr': did you mean 'adapter'?"),
        (["run", "--load-versions=me/birds"], "'me/birds' is not of the form adapter:<version>"),
        (["run", "--piplines=train"], "'--pipelines'"),
    ],
)
def test_a_name_that_there_is_not_is_told_with_what_may_be_meant(arguments: list[str], told: str) -> None:
    result = kedro(*arguments)
    last = result.output.splitlines()[-1]
    assert result.exit_code in (1, 2) and told in last
    assert len(last) < 600  # there are sixty names of nodes


@pytest.mark.parametrize("parameter", ["node_names", "from_nodes", "to_nodes"])
def test_nodes_are_named_with_or_without_their_stage(parameter) -> None:
    bootstrap_project(Path.cwd())  # as every command does
    options = {parameter: ["train_adapter", "report.draw_scores"], "tags": ("train",)}
    _name_stages_of_nodes(options)
    assert options == {parameter: ["train.train_adapter", "report.draw_scores"], "tags": ("train",)}


def test_a_folder_that_kedro_cannot_read_is_told(tmp_path, monkeypatch) -> None:
    folder = tmp_path / "mine [1]"
    lay_out(folder)
    monkeypatch.chdir(folder)
    assert kedro("run").output.splitlines()[-1].startswith(f"Error: Kedro cannot read settings in {folder}")


def read(given: str) -> dict:
    return params(click.Context(click.Command("run")), click.Option(["--params"]), given)


@pytest.mark.parametrize(
    ("given", "tree"),
    [
        ("", {}),
        ("train.steps=300, train.attention_weight=0.1", {"train": {"steps": 300, "attention_weight": 0.1}}),
        (
            "images.folder=/data/My Pictures (2024), birds,images.source=folder",
            {"images": {"folder": "/data/My Pictures (2024), birds", "source": "folder"}},
        ),
        ("images.folder=/data/a=b [1]", {"images": {"folder": "/data/a=b [1]"}}),
        ("images.folder=12345,images.labels=null", {"images": {"folder": "12345", "labels": None}}),
        ("base.model=007,base.precision=auto", {"base": {"model": "007", "precision": "auto"}}),
        (
            "generate.sampling.negative_prompt=blurry, dark: yes,generate.sampling.steps=5",
            {"generate": {"sampling": {"negative_prompt": "blurry, dark: yes", "steps": 5}}},
        ),
        ("evaluate.part_identity=null", {"evaluate": {"part_identity": None}}),
    ],
)
def test_values_are_what_they_look_like_and_text_where_text_belongs(given: str, tree: dict) -> None:
    assert read(given) == tree


@pytest.mark.parametrize("given", ["train.steps", "=3", "train.steps=[2", "train=5,train.steps=3"])
def test_what_is_no_option_is_refused(given: str) -> None:
    with pytest.raises(click.BadParameter):
        read(given)


def test_values_of_a_grid_keep_their_blanks() -> None:
    context, option = click.Context(click.Command("sweep")), click.Option(["--grid"])
    given = ("evaluate.part_identity=/my models/12, null", "train.rank = 2, 4")
    assert grid(context, option, given) == {
        "evaluate.part_identity": ["/my models/12", None],
        "train.rank": [2, 4],
    }


@pytest.mark.parametrize("command", [("sweep",), ("compose",), ("catalog", "list-patterns")])
def test_torchrun_is_for_runs_alone(monkeypatch, command: tuple[str, ...]) -> None:
    for name, value in {"TORCHELASTIC_RUN_ID": "none", "WORLD_SIZE": "2", "RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    result = kedro(*command)
    told = f"Error: torchrun is for `kedro run` alone: start `{command[-1]}` without it."
    assert (result.exit_code, result.output.splitlines()[-1]) == (1, told)
