"""A user's mistakes: each is told in one sentence, before anything has run where that can be."""

import copy
import io
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import click
import yaml
from kedro import KedroDeprecationWarning
from kedro.framework.cli.project import run
from omegaconf import DictConfig, OmegaConf

from partcraft_kedro.errors import FullDisk, UserError, first_line, is_full_disk, unknown
from partcraft_kedro.project import project_folder
from partcraft_kedro.torchrun import is_launched

_SETTINGS = ("parameters", "catalog", "globals", "mlflow", "sweeps", "credentials")  # how Kedro's files of them begin


def plainly(command: click.Command) -> click.Command:
    """A command, or each of a group's, that looks at the names it is given before it does anything, and turns the
    errors that a user can mend into one line and exit code 1."""
    command = copy.copy(command)
    make_context = partial(_make_context_plainly, command.make_context)
    command.make_context = make_context  # type: ignore[method-assign]  # of this copy alone
    if isinstance(command, click.Group):
        get = partial(_get_plainly, command.get_command)
        command.get_command = get  # type: ignore[method-assign]  # of this copy alone
    else:
        invoke = partial(_invoke_plainly, command.invoke)
        command.invoke = invoke  # type: ignore[method-assign]  # of this copy alone
    return command


def _get_plainly(
    get: Callable[[click.Context, str], click.Command | None], context: click.Context, name: str
) -> click.Command | None:
    return (found := get(context, name)) and plainly(found)


def _make_context_plainly(make_context: Callable[..., click.Context], *given: Any, **settings: Any) -> click.Context:
    """What is wrong with the options as one sentence, without the usage above it."""
    try:
        return make_context(*given, **settings)
    except click.UsageError as error:
        error.ctx = None
        raise


def _invoke_plainly(invoke: Callable[[click.Context], Any], context: click.Context) -> Any:
    # As an activated environment has it: `kedro mlflow ui` starts `mlflow`.
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    # `--pipelines=train` is what people type, and Kedro knows what it means.
    warnings.filterwarnings("ignore", "Option '--pipeline' is deprecated", KedroDeprecationWarning)
    # What equals the newest version of a folder is no further one.
    warnings.filterwarnings("ignore", "Save version .* did not match load version")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without λ or – is no reason to fail
    try:
        if is_launched() and context.command.callback is not run.callback:
            raise UserError(f"torchrun is for `kedro run` alone: start `{context.info_name}` without it.")
        _refuse_unknown_names(context.params)
        _name_stages_of_nodes(context.params)
        return invoke(context)
    except Exception as error:
        sentence = _unreadable_settings(error, context.params) or _sentence(error)
        if sentence is None:
            raise
        raise click.ClickException(sentence) from error


def _refuse_unknown_names(given_options: dict[str, Any]) -> None:
    """Raise UserError for an environment, a pipeline, a tag or a node that there is not.

    `kedro viz run` would wait ten minutes for a server that has died of it.
    """
    from kedro.framework.project import pipelines

    def given(*parameters: str) -> list[str]:
        values = [given_options.get(parameter) or () for parameter in parameters]
        return [name for value in values for name in ([value] if isinstance(value, str) else value)]

    conf, environment = _settings_of(given_options)
    if "[" in str(conf):
        raise UserError(f"Kedro cannot read settings in {conf}, for the [ in its name: rename the folder.")
    if environment and conf.is_dir() and not (conf / environment).is_dir():
        raise unknown("environment", environment, (path.name for path in conf.iterdir() if path.is_dir()))
    chosen = given("pipeline", "pipelines")
    for name in chosen:
        if name not in pipelines:
            raise unknown("pipeline", name, set(pipelines) - {"__default__"})
    tags, nodes = given("tags"), given("node_names", "from_nodes", "to_nodes")
    datasets = given("from_inputs", "to_outputs", "load_versions")
    if tags or nodes or datasets:
        there = [node for name in chosen or ["__default__"] for node in pipelines[name].nodes]
        for kind, names, known in (
            ("tag", tags, {tag for node in there for tag in node.tags}),
            ("node", [name for name in nodes if "." in name], {node.name for node in there}),
            ("node", [name for name in nodes if "." not in name], {_without_stage(node.name) for node in there}),
            ("dataset", datasets, {name for node in there for name in (*node.inputs, *node.outputs)}),
        ):
            for name in names:
                if name not in known:
                    raise unknown(kind, name, known)


def _settings_of(given_options: dict[str, Any]) -> tuple[Path, str | None]:
    """The folder of settings, and the environment that was asked for."""
    from kedro.framework.project import settings

    conf = Path(given_options.get("conf_source") or project_folder() / settings.CONF_SOURCE)
    return conf, given_options.get("env") or os.environ.get("KEDRO_ENV")


def _unreadable_settings(error: BaseException, given_options: dict[str, Any]) -> str | None:
    """What to tell of settings that Kedro could not read, if an error may be of that."""
    if not any(isinstance(cause, (yaml.YAMLError, UnicodeError, AttributeError)) for cause in _chain(error)):
        return None
    conf, environment = _settings_of(given_options)
    try:
        for folder in (conf / "base", conf / (environment or "local")):
            for path in sorted(folder.rglob("*.yml")):
                if path.name.startswith(_SETTINGS):
                    _refuse_unreadable(path)
    except UserError as unreadable:
        return str(unreadable)
    return None


def _refuse_unreadable(settings: Path) -> None:
    """Raise UserError for settings that Kedro could not read: it would tell no line, or no file."""
    try:
        content = OmegaConf.load(settings)
    except (yaml.YAMLError, ValueError, OSError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise UserError(
            f"{settings}{line} cannot be read ({getattr(error, 'problem', None) or first_line(error)}): mend it."
        ) from error
    if not isinstance(content, DictConfig):
        raise UserError(f"{settings} has a list where names and their values belong, `train: {{steps: 300}}`: mend it.")


def _without_stage(node: str) -> str:
    return node.rpartition(".")[2]


def _name_stages_of_nodes(options: dict[str, Any]) -> None:
    """Kedro calls a node of a stage `train.train_adapter`; people may leave the stage away."""
    from kedro.framework.project import pipelines

    full = {_without_stage(node.name): node.name for pipeline in pipelines.values() for node in pipeline.nodes}
    for parameter in ("node_names", "from_nodes", "to_nodes"):
        if given := options.get(parameter):
            options[parameter] = [full.get(name, name) for name in given]


def _sentence(error: BaseException) -> str | None:
    """What to tell the user, if anything in the error's chain is the user's to mend."""
    from kedro.io import DatasetError
    from kedro.validation.exceptions import ParameterValidationError

    chain = list(_chain(error))
    for cause in chain:  # before all else: what MLflow says of a run that failed hides why it did
        if isinstance(cause, UserError):
            return str(cause)
    for cause in chain:
        if is_full_disk(cause) or "No usable temporary directory" in str(cause):
            return str(FullDisk(_not_written(cause)))
        if _is_out_of_memory(cause):
            return (
                f"Memory ran out ({' '.join(str(cause).split())[:120]}): close other programs, or give a smaller "
                "features.batch_size or generate.sampling.batch_size; finished work is kept."
            )
        if "database is locked" in str(cause):
            return "MLflow's database is in use by other runs: run the same command again; finished work is kept."
        if type(cause).__module__.startswith("requests."):  # MLflow's server, in the middle of a run
            return f"The network failed ({cause}): run the same command again; finished work is kept."
        if type(cause).__module__.partition(".")[0] in ("sqlalchemy", "alembic"):
            import mlflow

            return (
                f"MLflow's database {mlflow.get_tracking_uri()} cannot be used ({first_line(cause)}): "
                "a run that was killed may have left it half-written. Remove it, or name another one with "
                "MLFLOW_TRACKING_URI."
            )
    if isinstance(error, ParameterValidationError):
        return _wrong_options(str(error))
    # A missing version, or a pipeline, tag or node that does not exist.
    if isinstance(error, DatasetError) or (isinstance(error, ValueError) and _raised_in(error).startswith("kedro.")):
        return " ".join(str(error).split())
    return None


def _wrong_options(told: str) -> str:
    """What is wrong with each option, out of what pydantic tells Kedro and Kedro tells in one text."""
    sentences, group, option = [], "", ""
    for line in told.splitlines():
        if begins := re.match(r"- Parameter '(\w+)'", line):
            group = option = begins[1]
        elif re.fullmatch(r"[\w.]+", line):
            option = f"{group}.{line}"
        elif found := re.match(r"  (Value error, )?(.+) \[type=\w+, input_value=(.*), input_type=\w+\]$", line):
            wrong = found[2][0].lower() + found[2][1:]
            sentences.append(f"{option}: {wrong}" if found[1] else f"{option}={found[3]}: {wrong}")
    if not sentences:
        return " ".join(told.split())
    return "; ".join(sentences).removesuffix("?") + ("?" if sentences[-1].endswith("?") else ".")


def _not_written(error: BaseException) -> str:
    """What an error of a full disk is about: stages name their own files."""
    import mlflow

    if type(error).__module__.partition(".")[0] in ("mlflow", "sqlalchemy", "sqlite3"):
        return f"MLflow's database {mlflow.get_tracking_uri()}"
    # Of a copy the second name is that of the file that it was to be.
    names = (getattr(error, name, None) for name in ("filename2", "filename"))
    return next(filter(None, names), "a file for MLflow or a temporary one")


def _is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, in Python or in torch, which is asked if it is there: to import it takes seconds."""
    if isinstance(error, MemoryError) or "torch" not in sys.modules:
        return isinstance(error, MemoryError)
    from partcraft_kedro.passes import is_out_of_memory

    return is_out_of_memory(error)


def _raised_in(error: BaseException) -> str:
    """The name of the module that raised an error."""
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    return "" if frame is None else frame.tb_frame.f_globals["__name__"]


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
