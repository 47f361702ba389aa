"""A sweep that was found and checked, before anything runs."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from kedro.framework.context import KedroContext
from kedro.framework.project import pipelines
from kedro.framework.session import KedroSession
from kedro.validation import ParameterValidator
from omegaconf import OmegaConf
from pydantic import ValidationError

from partcraft_kedro.errors import UserError, unknown
from partcraft_kedro.options import SweepOptions, flatten, in_words, refuse_unknown_groups
from partcraft_kedro.sweeps.grid import Point, points_of


@dataclass(frozen=True)
class Plan:
    """A sweep that was found and checked.

    env, parameters: as `kedro run` has them, for all points; options: all options of each point, by groups;
    experiment: the id of MLflow's; folder: where sweeps keep their books.
    """

    name: str
    sweep: SweepOptions
    env: str | None
    parameters: dict[str, Any]
    points: list[Point]
    options: list[dict[str, Any]]
    experiment: str
    folder: Path

    @property
    def title(self) -> str:
        """Of the sweep's MLflow run: its name, and what differs from the defaults in all points."""
        return ", ".join([self.name, *(in_words(*option) for option in flatten(self.parameters).items())])[:250]

    def key(self) -> dict[str, Any]:
        """What the sweep is: every option of every point, wherever it is run."""
        points = {
            point.name: flatten({name: group for name, group in options.items() if name != "compute"})
            for point, options in zip(self.points, self.options, strict=True)
        }
        seen = {"env": self.env, "sweep": self.sweep.model_dump(mode="json"), "points": points}
        return {"stage": self.name, "version": 1, "seen": seen}


def plan_sweep(name: str, grid: dict[str, list], seeds: list[int], env: str | None, parameters: dict[str, Any]) -> Plan:
    """Find and check a sweep.

    grid: options and their values; empty: the sweep called `name` in conf/. seeds: empty: the sweep's own.
    Raises UserError if there is no such sweep, if an option does not exist or has a wrong value, if two points are the
    same, or if MLflow is not to be reached from Ray's machines.
    """
    session = KedroSession.create(env=env, runtime_params=parameters)
    with session:
        context = session.load_context()
        sweep = SweepOptions(grid=grid) if grid else _find_sweep(context, name)
        if seeds:
            sweep = sweep.model_copy(update={"seeds": seeds})
        if "train.seed" in {*sweep.grid, *sweep.options}:
            raise UserError("train.seed is what --seeds is for: leave it out of the grid and the options of a sweep.")
        points = points_of(sweep)
        raw = context.config_loader["parameters"]
        options = [_check(raw, point) for point in points]
        if options[0]["compute"].engine == "ray":
            _refuse_database(context.mlflow.server.mlflow_tracking_uri)  # type: ignore[attr-defined]  # as below
        folder = context.catalog.load("params:stages").layer("08_reporting") / "sweeps"
    for i, point in enumerate(points):
        for j in range(i):
            if points[j].name == point.name or options[j] == options[i]:
                raise UserError(f"Points of the sweep repeat each other: {points[j].name} and {point.name}.")
    experiment = context.mlflow.open_experiment()  # type: ignore[attr-defined]  # FlatMlflowHook puts it there
    return Plan(name, sweep, env, parameters, points, options, experiment, folder)


def _refuse_database(address: str) -> None:
    """Raise UserError unless machines can all tell MLflow of their points."""
    if not address.startswith(("http://", "https://", "databricks")):
        raise UserError(
            f"A sweep on Ray's machines needs a server of MLflow's, and {address} is a database of one machine: start "
            "`mlflow server --host 0.0.0.0` and give its address, MLFLOW_TRACKING_URI=http://…"
        )


def _find_sweep(context: KedroContext, name: str) -> SweepOptions:
    """A sweep that `conf/<env>/sweeps.yml` describes."""
    known = context.config_loader["sweeps"]
    if name not in known:
        raise unknown("sweep", name, known)
    try:
        return SweepOptions.model_validate(known[name])
    except ValidationError as error:
        wrong = "; ".join(found["msg"].removeprefix("Value error, ") for found in error.errors())
        raise UserError(f"The sweep {name!r} in conf/ is not one: {wrong}.") from error


def _check(raw: dict, point: Point) -> dict[str, Any]:
    """All options of a point, as `kedro run` would have them."""
    refuse_unknown_groups(option.partition(".")[0] for option in point.options)
    for option in point.options:
        if "." not in option:
            raise UserError(f"{option} is a group of options and no option: give one of them, as in train.rank=2,4.")
    return ParameterValidator(dict(pipelines)).validate_raw_params(with_options(raw, point.options))


def with_options(tree: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
    """A tree of options, with those of dotted names put in."""
    merged = OmegaConf.create(tree)
    for option, value in options.items():
        OmegaConf.update(merged, option, value, force_add=True)
    return cast("dict[str, Any]", OmegaConf.to_container(merged))  # its type does not tell a dict from a list
