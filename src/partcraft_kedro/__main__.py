"""`partcraft` and `python -m partcraft_kedro`: the project's commands, also where there is no project yet."""

from pathlib import Path

from kedro.framework.project import configure_project
from kedro.framework.startup import bootstrap_project
from kedro.utils import find_kedro_project


def main() -> None:
    """Run a command in the project of the working directory, if there is one."""
    project = find_kedro_project(Path.cwd())
    if project:
        bootstrap_project(project)
    else:
        configure_project(Path(__file__).parent.name)
    from partcraft_kedro.cli import cli

    cli()


if __name__ == "__main__":
    main()
