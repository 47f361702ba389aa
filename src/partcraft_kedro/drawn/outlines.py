"""Shape: does a picture show each part once, in as many pieces, of such a size, and with details where drawings do?

EMR, CoSim and the judge's looks ask for colours and patterns; a headless ball in the right colours would pass them all.
What is usual is read off drawings, through the same judge: no bound is set by hand.
"""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from partcraft_kedro.drawn.judge import Judge
from partcraft_kedro.drawn.world import World
from partcraft_kedro.images.tensors import to_unit
from partcraft_kedro.randomness import numpy_generator

_DRAWINGS = 400
_UNUSUAL = 0.005  # of drawings at either end: with a dozen bounds some nine drawings of ten are within all
_RARE = 0.01  # share of drawings that a number of pieces needs, to count as usual
_SPECK = 4  # pixels of the judge's 64×64 that make a piece


@dataclass(frozen=True)
class Outlines:
    """What is usual in a world.

    low, high: of the area of each label and detail and, in columns after those, of the share of each detail's border
    that lies in its label, (measures,); pieces: (names, most + 1) bool, whether so many pieces of it are usual.
    """

    world: World
    low: np.ndarray
    high: np.ndarray
    pieces: np.ndarray

    @classmethod
    def of_drawings(cls, world: World, judge: Judge, count: int = _DRAWINGS) -> "Outlines":
        """From fresh drawings of random subjects, seen by the judge."""
        measured, pieces = [], []
        for start in range(0, count, 50):
            drawn = []
            for index in range(start, min(start + 50, count)):
                rng = numpy_generator(0, "outlines", world.name, index)
                drawn.append(world.draw(world.random_subject(rng), world.random_pose(rng)).picture)
            of_batch = _measure(world, judge.outlines(world, to_unit(np.stack(drawn))))
            measured.append(of_batch[0])
            pieces.append(of_batch[1])
        low, high = np.quantile(np.concatenate(measured), (_UNUSUAL, 1 - _UNUSUAL), axis=0)
        counted = np.concatenate(pieces)
        usual = np.stack([(counted == number).mean(0) >= _RARE for number in range(counted.max() + 1)], axis=1)
        return cls(world, low, high, usual)

    def passes(self, outlines: np.ndarray) -> np.ndarray:
        """Whether pictures have the shape of drawings, (n,) bool. outlines: (n, 64, 64), of `Judge.outlines`."""
        measures, pieces = _measure(self.world, outlines)
        most = self.pieces.shape[1] - 1
        usual = self.pieces[np.arange(pieces.shape[1]), pieces.clip(max=most)] & (pieces <= most)
        return ((measures >= self.low) & (measures <= self.high)).all(1) & usual.all(1)


def _measure(world: World, outlines: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Areas and shares of borders, (n, labels + details + details), and numbers of pieces, (n, labels + details)."""
    names = (*world.labels, *world.details)
    measures, pieces = [], []
    for outline in outlines:
        masks = [outline == value for value in range(len(names))]
        borders = []
        for detail, host in world.details.items():
            mask = masks[world.value(detail)]
            ring = ndimage.binary_dilation(mask) & ~mask
            # A detail that does not show is told by its area.
            borders.append(masks[world.value(host)][ring].mean() if ring.any() else 1.0)
        measures.append([*(mask.sum() for mask in masks), *borders])
        pieces.append([_pieces(mask) for mask in masks])
    return np.array(measures, float), np.array(pieces)


def _pieces(mask: np.ndarray) -> int:
    """Connected regions, specks aside."""
    regions, _ = ndimage.label(mask)
    return int((np.bincount(regions.ravel())[1:] >= _SPECK).sum())
