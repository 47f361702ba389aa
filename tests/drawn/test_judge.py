import numpy as np
import torch

from partcraft_kedro.drawn.judge import Judge
from partcraft_kedro.drawn.worlds import COLOURS, DETAILS, LABELS, PLACES, STYLES
from partcraft_kedro.images.tensors import to_unit
from partcraft_kedro.weights import TINY


class Told(Judge):
    """A judge whose network is told what it sees: logits by hand, whatever the picture."""

    def __init__(self):
        super().__init__()
        groups = [(names, 16) for names in (LABELS, PLACES, STYLES, COLOURS)] + [((*LABELS, *DETAILS), 64)]
        self.vocabularies = [names for names, _ in groups]
        self.logits = [torch.zeros(1, len(names), side, side) for names, side in groups]

    def tell(self, group, word, rows=slice(None), columns=slice(None), logit=9.0):
        self.logits[group][0, self.vocabularies[group].index(word), rows, columns] = logit

    def forward(self, pictures):
        return tuple(logits.expand(len(pictures), -1, -1, -1) for logits in self.logits)


PICTURE = torch.zeros(1, 3, 128, 128)
LABEL, PLACE, STYLE, COLOUR, OUTLINE = range(5)


def look_of(world, part):
    """The last style and the last colour that the part can have."""
    styles, colours = world.looks[part]
    return styles[-1], colours[-1]


def test_looks_are_the_vote_of_a_part_s_patches(world):
    """Each part has two rows of patches; one in four of its patches errs."""
    judge = Told()
    judge.tell(PLACE, "dusk")
    for place, part in enumerate(world.looks):
        rows = slice(2 * place, 2 * place + 2)
        judge.tell(LABEL, part, rows)
        for group, words, word in zip((STYLE, COLOUR), world.looks[part], look_of(world, part), strict=True):
            judge.tell(group, words[0], rows, slice(0, 4))
            judge.tell(group, word, rows, slice(4, None))
    judge.tell(LABEL, "background", slice(2 * len(world.looks), None))
    (seen,) = judge.attributes(world, PICTURE)
    assert seen == {"background": "dusk"} | {part: " ".join(look_of(world, part)) for part in world.looks}


def test_a_part_of_less_than_two_patches_does_not_show(world):
    judge = Told()
    judge.tell(LABEL, "background", logit=5.0)
    first, second, *others = world.looks
    judge.tell(LABEL, first, 0, 0)
    judge.tell(LABEL, second, 1, slice(0, 2))
    (seen,) = judge.attributes(world, PICTURE)
    assert seen[first] is None
    assert seen[second] is not None
    assert all(seen[part] is None for part in others)


def test_another_world_s_words_are_not_considered(world):
    """Where other worlds' labels and words win, the world's own best are taken."""
    judge = Told()
    foreign = [label for label in LABELS if label not in world.labels]
    part = next(iter(world.looks))
    styles, colours = world.looks[part]
    for group, words in ((LABEL, foreign), (STYLE, set(STYLES) - {*styles}), (COLOUR, set(COLOURS) - {*colours})):
        for word in words:
            judge.tell(group, word, logit=12.0)
    judge.tell(LABEL, part)
    judge.tell(STYLE, styles[1])
    judge.tell(COLOUR, colours[1])
    for name in {*LABELS, *DETAILS} - {*world.labels, *world.details}:
        judge.tell(OUTLINE, name, logit=12.0)
    judge.tell(OUTLINE, part)
    (seen,) = judge.attributes(world, PICTURE)
    assert seen[part] == f"{styles[1]} {colours[1]}"
    assert (judge.outlines(world, PICTURE) == world.value(part)).all()


def test_outlines_are_in_the_order_of_the_world_s_labels_and_details(world):
    judge = Told()
    names = (*world.labels, *world.details)
    for row, name in enumerate(names):
        judge.tell(OUTLINE, name, row)
    outlines = judge.outlines(world, PICTURE)
    assert (outlines.dtype, outlines.shape) == (np.uint8, (1, 64, 64))
    assert (outlines[0, : len(names)] == np.arange(len(names))[:, None]).all()


def test_a_saved_judge_sees_the_same(tmp_path):
    torch.manual_seed(0)
    judge = Judge().eval()
    judge.save(tmp_path / "judge.safetensors")
    again = Judge.load(tmp_path / "judge.safetensors")
    pictures = torch.rand(2, 3, 128, 128)
    for one, other, side in zip(judge(pictures), again(pictures), (16, 16, 16, 16, 64), strict=True):
        assert one.shape[2:] == (side, side)
        torch.testing.assert_close(one, other, atol=0.02, rtol=0)
    assert again.embed(pictures).shape == (2, 96)
    assert not again.training


def test_the_shipped_judge_knows_drawings(world):
    rng = np.random.default_rng(7)
    drawn = [(world.random_subject(rng), world.random_pose(rng)) for _ in range(40)]
    drawings = [world.draw(*pair) for pair in drawn]
    pictures = to_unit(np.stack([drawing.picture for drawing in drawings]))
    judge = Judge.load(TINY / "judge" / "judge.safetensors")
    seen = judge.attributes(world, pictures)
    hits = [
        row[label] == subject[label]
        for row, (subject, _), drawing in zip(seen, drawn, drawings, strict=True)
        for label in world.labels
        if (drawing.mask == world.labels.index(label)).any()
    ]
    assert np.mean(hits) > 0.9
    true = np.stack([drawing.details[1::2, 1::2] for drawing in drawings])
    assert (judge.outlines(world, pictures) == true).mean() > 0.95
