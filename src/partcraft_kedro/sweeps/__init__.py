"""Grids of runs: every point is a `kedro run` of its own, and a child of one MLflow run.

A sweep lies in `08_reporting/<dataset>/sweeps/<name>-<fingerprint>/`, a folder for each point. A point is done when its
`point.json` is there; one that failed or was killed has none, and is run again by the same command. Points share the
stages that they have in common, through the stages' own folders.
"""
