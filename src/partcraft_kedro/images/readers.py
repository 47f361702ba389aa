"""Photographs in the layouts of those who publish them, read into tables of records.

Every reader returns, one row a picture: `id` (unique, str), `path` (absolute, str), `class_name`, `split` (`train` or
`test`); CUB and Stanford Dogs also `box` (x, y, width, height in pixels), CUB also `keypoints` (those that are
visible: name, x, y). Every reader raises UserError for a folder that is not what it looked for.
"""

import csv
import os
import xml.etree.ElementTree as ElementTree
from collections import deque
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from partcraft_kedro.errors import UserError
from partcraft_kedro.randomness import numpy_generator

CUB_HOME = "https://data.caltech.edu/records/65de6-vp158"
DOGS_HOME = "http://vision.stanford.edu/aditya86/ImageNetDogs/"
SIMS4_HOME = "https://huggingface.co/datasets/rocca/sims4-faces"

# By their names; what Pillow reads beyond these are drawings, films, and tables of numbers such as `features.h5`. HEIC
# counts, although it is not read, so that it is told of and not left out in silence.
_ENDINGS = {
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".jp2", ".j2k", ".jpx", ".png", ".apng", ".webp", ".avif", ".gif"),
    *(".bmp", ".dib", ".tif", ".tiff", ".tga", ".pbm", ".pgm", ".ppm", ".pnm", ".psd", ".qoi"),
    *(".heic", ".heif", ".hif"),
}
# Folders that Synology, QNAP, Windows, macOS and Linux make beside people's own, in lower case.
_SYSTEM = {
    *("@eadir", "#recycle", "#snapshot", "@recycle", "@recently-snapshot", ".@__thumb", "$recycle.bin", "recycler"),
    *("system volume information", "__macosx", "lost+found"),
}

# What CUB's fifteen keypoints say of five parts (the paper's names; the back and the nape go with the nearest).
CUB_PARTS = {
    "back": "body",
    "beak": "head",
    "belly": "body",
    "breast": "body",
    "crown": "head",
    "forehead": "head",
    "left eye": "head",
    "left leg": "legs",
    "left wing": "wing",
    "nape": "head",
    "right eye": "head",
    "right leg": "legs",
    "right wing": "wing",
    "tail": "tail",
    "throat": "head",
}


def read_cub(folder: Path) -> pd.DataFrame:
    """CUB-200-2011 (Wah et al. 2011): text files that number pictures, classes and keypoints; published split."""
    needed = ["images.txt", "image_class_labels.txt", "train_test_split.txt", "classes.txt", "bounding_boxes.txt"]
    needed += ["parts/parts.txt", "parts/part_locs.txt", "images"]
    _require(folder, needed, "CUB-200-2011", CUB_HOME)
    pictures = _read_numbered(folder / "images.txt", [str])
    _refuse_outside(folder / "images.txt", [path for (path,) in pictures.values()])
    classes = _read_numbered(folder / "classes.txt", [str])
    names = _read_numbered(folder / "parts" / "parts.txt", [str])
    labels = _of_pictures(folder / "image_class_labels.txt", [int], pictures)
    trained_on = _of_pictures(folder / "train_test_split.txt", [int], pictures)
    boxes = _of_pictures(folder / "bounding_boxes.txt", [float] * 4, pictures)
    seen: dict[int, list[dict]] = {number: [] for number in pictures}
    for number, part, x, y, visible in _rows(folder / "parts" / "part_locs.txt", [int, int, float, float, int]):
        if visible and number in seen:
            if part not in names:
                raise UserError(f"{folder / 'parts' / 'part_locs.txt'} names part {part}, which parts.txt does not.")
            seen[number].append({"name": names[part][0], "x": x, "y": y})
    unknown = sorted({labels[number][0] for number in pictures} - classes.keys())
    if unknown:
        raise UserError(f"{folder / 'image_class_labels.txt'} names class {unknown[0]}, which classes.txt does not.")
    return pd.DataFrame(
        {
            "id": f"{number:05d}",
            "path": str((folder / "images" / path).absolute()),
            "class_name": classes[labels[number][0]][0],
            "split": "train" if trained_on[number][0] else "test",
            "box": list(boxes[number]),
            "keypoints": seen[number],
        }
        for number, (path,) in pictures.items()
    )


def read_dogs(folder: Path) -> pd.DataFrame:
    """Stanford Dogs (Khosla et al. 2011): pictures in breeds' folders, and two MATLAB lists for the published split.

    Boxes are read where the publisher's `Annotation` folder is there too. Listed breeds whose folder is missing are
    left out.
    """
    _require(folder, ["Images", "train_list.mat", "test_list.mat"], "Stanford Dogs", DOGS_HOME)
    breeds = {path.name for path in (folder / "Images").iterdir() if path.is_dir()}
    rows = []
    for split in ("train", "test"):
        for name in _read_file_list(folder / f"{split}_list.mat"):
            breed, _, file = name.partition("/")
            if breed in breeds:
                stem = Path(file).stem
                rows.append(
                    {
                        "id": f"{breed}/{stem}",
                        "path": str((folder / "Images" / name).absolute()),
                        "class_name": breed.partition("-")[2] or breed,
                        "split": split,
                        "box": _annotated_box(folder / "Annotation" / breed / stem),
                    }
                )
    if not rows:
        raise UserError(f"No breed that {folder / 'train_list.mat'} names has a folder in {folder / 'Images'}.")
    return pd.DataFrame(rows)


def read_sims4(
    folder: Path, *, labels: Path | None, pictures_per_class: int, test_fraction: float, seed: int
) -> pd.DataFrame:
    """Sims4-Faces: random pictures of men and of women, equally many.

    folder: with `masc` and `fem`, as the publisher's two archives unpack, or of any layout, with
    labels: a CSV file with the columns `file` (relative to the folder) and `class`.
    """
    if labels is None:
        _require(folder, ["masc", "fem"], "Sims4-Faces (unpack masc.tar and fem.tar there)", SIMS4_HOME)
        groups = {name: _pictures_under(folder / name) for name in ("masc", "fem")}
    else:
        groups = _groups_of_table(folder, labels)
    chosen = {}
    for name, paths in groups.items():
        if len(paths) < pictures_per_class:
            raise UserError(
                f"images.pictures_per_class={pictures_per_class}, but {folder} has {len(paths)} pictures of {name!r}."
            )
        order = numpy_generator(seed, "sims4", name).permutation(len(paths))[:pictures_per_class]
        chosen[name] = [paths[i] for i in sorted(order)]
    return _split_classes(folder, chosen, test_fraction, seed)


def read_folder(folder: Path, *, test_fraction: float, seed: int) -> pd.DataFrame:
    """Anyone's pictures: one folder of them, or a folder for each class, at any depth.

    Links are followed. What is hidden, a system's, or no picture by its name is left out.
    """
    if not folder.is_dir():
        raise UserError(f"images.folder={str(folder)!r} is not a folder: name one with pictures in it.")
    groups: dict[str, list[Path]] = {}
    for path in _pictures_under(folder):
        inside = path.relative_to(folder).parts
        groups.setdefault(inside[0] if len(inside) > 1 else folder.name, []).append(path)
    if not groups:
        raise UserError(f"images.folder={str(folder)!r} holds no pictures (looked for JPEG, PNG, WebP, TIFF …).")
    return _split_classes(folder, groups, test_fraction, seed)


def _split_classes(folder: Path, groups: dict[str, list[Path]], test_fraction: float, seed: int) -> pd.DataFrame:
    """Records of grouped pictures, the same share of each class kept for evaluation."""
    rows = []
    for name, paths in sorted(groups.items()):
        order = numpy_generator(seed, "split", name).permutation(len(paths))
        held_back = set(order[: round(test_fraction * len(paths))].tolist())
        for i, path in enumerate(paths):
            split = "test" if i in held_back else "train"
            key = path.relative_to(folder).as_posix()
            rows.append({"id": key, "path": str(path.absolute()), "class_name": name, "split": split})
    return pd.DataFrame(rows)


def _pictures_under(folder: Path) -> list[Path]:
    """Pictures by their names, at any depth, in order.

    Each folder is gone through once, by its own path rather than by a link to it: links may lead in circles.
    """
    found, seen, waiting = [], set(), deque([folder])
    while waiting:
        within = waiting.popleft()
        if within.resolve() in seen:
            continue
        seen.add(within.resolve())
        for path in within.iterdir():
            if path.name.startswith(".") or path.name.lower() in _SYSTEM:
                continue
            if path.is_dir():
                (waiting.append if path.is_symlink() else waiting.appendleft)(path)
            # A link that leads nowhere is kept, to be set aside by name; a pipe would be waited for.
            elif path.suffix.lower() in _ENDINGS and (path.is_file() or path.is_symlink()):
                found.append(path)
    found.sort()
    if unreadable := [path for path in found if not _is_text(path)]:
        raise UserError(
            f"The name {os.fsencode(unreadable[0])!r} is not UTF-8, one of {len(unreadable)} such in {folder}: rename "
            "them, for example with `convmv -r -f latin1 -t utf8 --notest`."
        )
    return found


def _is_text(path: Path) -> bool:
    try:
        str(path).encode()
    except UnicodeEncodeError:  # bytes that are no UTF-8, which no table can hold
        return False
    return True


def _groups_of_table(folder: Path, labels: Path) -> dict[str, list[Path]]:
    named = f"images.labels={str(labels)!r}"
    try:
        with labels.open(encoding="utf-8-sig", newline="") as table:
            reader = csv.DictReader(table, skipinitialspace=True)
            columns, rows = list(reader.fieldnames or []), list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{named} cannot be read as CSV ({error}).") from error
    if not {"file", "class"} <= set(columns):
        raise UserError(f"{named} needs the columns `file` and `class`, has {columns}.")
    if not rows:
        raise UserError(f"{named} lists no picture.")
    classes: dict[str, str] = {}
    for number, row in enumerate(rows, start=1):
        if None in row or not row["file"] or not row["class"]:
            raise UserError(f"{named}, row {number}, should have {len(columns)} values, a file and a class among them.")
        file = Path(row["file"]).as_posix()  # `./a.png` is `a.png`
        if file in classes:
            raise UserError(f"{named} lists {file!r} twice.")
        classes[file] = row["class"]
    _refuse_outside(labels, list(classes))
    groups: dict[str, list[Path]] = {}
    for file, name in sorted(classes.items()):
        groups.setdefault(name, []).append(folder / file)
    return groups


def _require(folder: Path, names: list[str], dataset: str, home: str) -> None:
    missing = [name for name in names if not (folder / name).exists()]
    if missing:
        raise UserError(
            f"{folder} is not {dataset}: {missing[0]} is missing there. Name its folder with images.folder; "
            f"it is to be had at {home}."
        )


def _rows(path: Path, kinds: list[Callable]) -> list[tuple]:
    """The lines of a list, split at blanks; the last column may hold blanks itself."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not a text file ({error}).") from error
    rows = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            fields = line.split(None, len(kinds) - 1)
            try:
                rows.append(tuple(kind(field.strip()) for kind, field in zip(kinds, fields, strict=True)))
            except ValueError:
                columns = len(kinds)
                raise UserError(f"{path}, line {number}, should have {columns} columns, but reads {line!r}.") from None
    return rows


def _read_numbered(path: Path, kinds: list[Callable]) -> dict[int, tuple]:
    rows = _rows(path, [int, *kinds])
    numbered = {number: tuple(values) for number, *values in rows}
    if len(numbered) < len(rows):
        raise UserError(f"{path} has a number twice.")
    if not numbered:
        raise UserError(f"{path} is empty.")
    return numbered


def _of_pictures(path: Path, kinds: list[Callable], pictures: dict[int, tuple]) -> dict[int, tuple]:
    numbered = _read_numbered(path, kinds)
    missing = sorted(pictures.keys() - numbered.keys())
    if missing:
        raise UserError(f"{path} has no line for picture {missing[0]}, which images.txt lists.")
    return numbered


def _read_file_list(path: Path) -> list[str]:
    from scipy.io import loadmat

    try:
        listed = loadmat(path, variable_names=["file_list"])["file_list"]
        names = [str(np.asarray(entry).item()) for entry in listed.ravel()]
    except Exception as error:  # scipy raises whatever its parser stumbles over
        raise UserError(f"{path} cannot be read as Stanford Dogs' list of files ({error}).") from error
    _refuse_outside(path, names)
    return names


def _refuse_outside(path: Path, names: list[str]) -> None:
    unsafe = [name for name in names if Path(name).is_absolute() or ".." in Path(name).parts]
    if unsafe:
        raise UserError(f"{path} names {unsafe[0]!r}, which lies outside of the dataset or is not relative to it.")


def _annotated_box(path: Path) -> list[float] | None:
    """The first object's box of a PASCAL VOC annotation, as x, y, width, height."""
    if not path.exists():
        return None
    try:
        box = ElementTree.parse(path).find("object/bndbox")
        if box is None:
            raise ValueError("it has no object/bndbox")
        left, top, right, bottom = (float(box.findtext(side, "")) for side in ("xmin", "ymin", "xmax", "ymax"))
    except (ElementTree.ParseError, ValueError) as error:
        raise UserError(f"{path} cannot be read as an annotation ({error}).") from error
    return [left, top, right - left, bottom - top]
