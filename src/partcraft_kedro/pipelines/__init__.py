"""One package a stage: `nodes.py`, thin, and `pipeline.py`."""
