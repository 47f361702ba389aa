"""`python -m partcraft_kedro` runs the project, as `kedro run` does."""

from pathlib import Path

from kedro.framework.project import configure_project


def main() -> None:
    configure_project(Path(__file__).parent.name)
    from partcraft_kedro.cli import plainly, run

    plainly(run)()


if __name__ == "__main__":
    main()
