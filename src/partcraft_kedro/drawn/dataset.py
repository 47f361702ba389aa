"""A dataset of drawings, on disk: pictures, their masks, and a row of truth for each."""

from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from tqdm import tqdm

from partcraft_kedro.drawn.worlds import WORLDS
from partcraft_kedro.errors import UserError
from partcraft_kedro.files import write_file
from partcraft_kedro.randomness import numpy_generator


def draw_dataset(
    world_name: str,
    folder: Path,
    data_folder: Path,
    *,
    classes: int,
    pictures_per_class: int,
    test_fraction: float,
    seed: int,
) -> pd.DataFrame:
    """Draw a world's dataset into `folder` (`images/`, `masks/`), and return its records.

    The last pictures of each class are its test split. A picture that is already there is kept. Columns beside those
    of every dataset: `world`, `mask_path`, and what the world knows of each picture, as `World.to_row` has it.
    Raises UserError for more classes than the world has.
    """
    world, rows = WORLDS[world_name], []
    if world.most_classes and classes > world.most_classes:
        raise UserError(
            f"images.classes={classes} is more than {world_name} have: give images.classes={world.most_classes}."
        )
    test_count = round(test_fraction * pictures_per_class)
    jobs = [(index, copy) for index in range(classes) for copy in range(pictures_per_class)]
    for index, copy in tqdm(jobs, desc=f"draw {world.name}"):
        rng = numpy_generator(seed, f"{world.name} picture", index, copy)
        subject = world.random_member(index, classes, rng, seed)
        pose = world.random_pose(rng)
        name = f"{index:03d}_{copy:03d}"
        picture_path, mask_path = folder / "images" / f"{name}.png", folder / "masks" / f"{name}.png"
        if not (picture_path.exists() and mask_path.exists()):
            drawing = world.draw(subject, pose)
            _save(picture_path, drawing.picture)
            _save(mask_path, drawing.mask)
        rows.append(
            {
                "id": name,
                "path": picture_path.relative_to(data_folder).as_posix(),
                "mask_path": mask_path.relative_to(data_folder).as_posix(),
                "class_name": world.class_name(index),
                "split": "test" if copy >= pictures_per_class - test_count else "train",
                "world": world.name,
                **world.to_row(subject, pose),
            }
        )
    return pd.DataFrame(rows)


def _save(path: Path, array: np.ndarray) -> None:
    write_file(path, lambda partial: Image.fromarray(array).save(partial))
