"""Timing ways of doing the same thing side by side: alternately, in one process, medians with their spread."""

import gc
import statistics
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass

import psutil

from partcraft_kedro.allocator import give_back_freed_memory


@dataclass(frozen=True)
class Result:
    """One way of doing a thing. rates: items a second, in each round; peak: MiB above what the process held before."""

    subject: str
    way: str
    item: str
    rates: list[float]
    peak: float

    @property
    def median(self) -> float:
        return statistics.median(self.rates)

    def to_row(self, baseline: "Result") -> dict:
        """What is stored and tabulated."""
        return asdict(self) | {"median": self.median, "ratio": self.median / baseline.median}


class _PeakMemory:
    """The most resident memory that the process has had within the block, in bytes, sampled every 2 ms.

    What the process has freed is given back first; what follows is slower for it, and not to be timed.
    """

    def __enter__(self) -> "_PeakMemory":
        gc.collect()
        give_back_freed_memory()
        self._process, self._done = psutil.Process(), threading.Event()
        self.before = self.peak = self._process.memory_info().rss
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._done.wait(0.002):
            self.peak = max(self.peak, self._process.memory_info().rss)

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()


def side_by_side(subject: str, item: str, ways: Mapping[str, Callable[[], int]], *, rounds: int) -> list[Result]:
    """Run each way in turn, `rounds` times over; each returns how many items it did. The first is the baseline.

    Rounds before them warm up and find the memory; they are not timed.
    """
    rates: dict[str, list[float]] = {name: [] for name in ways}
    peaks: dict[str, float] = {}
    for way in ways.values():
        way()
    for name, way in ways.items():
        with _PeakMemory() as memory:
            way()
        peaks[name] = (memory.peak - memory.before) / 2**20
    for way in ways.values():
        way()
    for _ in range(rounds):
        for name, way in ways.items():
            begin = time.perf_counter()
            items = way()
            rates[name].append(items / (time.perf_counter() - begin))
    results = [Result(subject, name, item, rates[name], peaks[name]) for name in ways]
    for result in results:
        ratio = result.median / results[0].median
        print(f"{subject:>22} | {result.way:<42} {result.median:9.2f} {item}s/s  {ratio:6.2f}×", flush=True)
    return results
