"""Pictures on disk to codes, beside decoding and predicting one picture at a time."""

from measure import Result, side_by_side
from partcraft_kedro.images.decoding import load_ahead, load_pictures
from subjects.world import SIZE, World


def measure(world: World, rounds: int) -> tuple[list[Result], dict]:
    def one_by_one() -> int:
        for path in world.paths:
            world.predictor.predict(load_pictures([path], SIZE))
        return len(world.paths)

    def ours() -> int:
        batches = [world.paths[start : start + 32] for start in range(0, len(world.paths), 32)]
        for pictures in load_ahead(batches, SIZE):
            world.predictor.predict(pictures)
        return len(world.paths)

    return side_by_side("evaluation", "picture", {"one at a time": one_by_one, "ours": ours}, rounds=rounds), {}
