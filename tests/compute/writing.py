"""Work for a cluster that takes no time to load."""

import os
import time
from pathlib import Path

import ray

from partcraft_kedro.errors import UserError
from partcraft_kedro.files import write_file

ITEMS = [f"item {i}" for i in range(23)]


def open_writing(folder: Path, pause: float = 0.0):
    """Work that writes a file for every four items, which says what they are, and notes in others on which machine it
    began them, and who wrote it."""
    machine = ray.get_runtime_context().get_node_id()

    def work(items: list[str], first: int) -> None:
        for start in range(0, len(items), 4):
            path = folder / f"{first + start:03d}.txt"
            if not path.exists():
                write_file(folder / "begun" / path.name, lambda partial: partial.write_text(machine))
                time.sleep(pause)
                if "item 99" in items:
                    raise UserError("Item 99 cannot be read: remove it.")
                content = "\n".join(items[start : start + 4])
                write_file(path, lambda partial, content=content: partial.write_text(content))
                write_file(folder / "by" / path.name, lambda partial: partial.write_text(str(os.getpid())))

    return work


def open_telling(folder: Path):
    """Work that writes where a worker would look for a hub."""
    from huggingface_hub import constants

    def work(items: list[str], first: int) -> None:
        told = f"{constants.ENDPOINT} {constants.HF_HUB_OFFLINE}"
        write_file(folder / f"{first}.txt", lambda partial: partial.write_text(told))

    return work
