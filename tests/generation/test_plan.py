import numpy as np
import pandas as pd
import pytest

from partcraft_kedro.generation.plan import compose_code, make_plan
from partcraft_kedro.prompts import find_tokens, tokens_of

PARTS = 5
# Entry m of picture i is 100·i + m, so that every entry tells where it comes from.
CODES = 100 * np.arange(12)[:, None] + np.arange(PARTS + 1)
IDS = [f"picture {i}" for i in range(12)]
COUNTS = {"reconstructions": 5, "compositions": 10, "max_sources": 4, "seed": 7}
COUNTS |= {"transfers": 3, "transferred": {"head": 2, "tail": 5}}


@pytest.fixture
def plan():
    return make_plan(IDS, CODES, **COUNTS)


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_one_part_comes_from_each_further_picture_and_never_the_same_twice(count):
    seen = set()
    for seed in range(200):
        composed, swapped = compose_code(CODES[:count], np.random.default_rng(seed))
        assert len(swapped) == len(set(swapped)) == count - 1
        origin = dict(zip(swapped, range(1, count), strict=True))
        assert composed.tolist() == [100 * origin.get(m, 0) + m for m in range(PARTS + 1)]
        seen |= set(swapped)
    assert seen == (set(range(PARTS + 1)) if count > 1 else set())


def test_the_sources_stay_as_they_are():
    codes = CODES.copy()
    compose_code(codes[:4], np.random.default_rng(0))
    assert np.array_equal(codes, CODES)


def test_a_part_that_its_source_does_not_show_becomes_absent():
    composed, (part,) = compose_code(np.array([[1, 2, 3], [-1, -1, -1]]), np.random.default_rng(0))
    assert composed[part] == -1
    assert sorted(composed.tolist()) == sorted([-1, *(code for m, code in enumerate([1, 2, 3]) if m != part)])


def test_the_plan_has_reconstructions_and_compositions_of_each_number_of_sources(plan):
    assert plan["id"].is_unique
    assert plan["kind"].value_counts().to_dict() == {"composition": 40, "transfer": 12, "reconstruction": 5}
    composed = plan[plan["kind"] == "composition"]
    assert composed["sources"].map(len).value_counts().to_dict() == {1: 10, 2: 10, 3: 10, 4: 10}
    assert all(len(set(sources)) == len(sources) for sources in composed["sources"])
    assert composed["sources"].map(tuple).nunique() > 30
    assert set(composed["transferred"]) == {""}


def test_every_row_s_code_is_its_base_with_the_swapped_parts(plan):
    for row in plan.itertuples():
        base, *further = (IDS.index(source) for source in row.sources)
        expected = CODES[base].copy()
        for source, part in zip(further, row.swapped, strict=True):
            expected[part] = CODES[source, part]
        assert np.array_equal(row.code, expected)
        assert find_tokens(row.prompt) == tokens_of(expected)


def test_reconstructions_are_different_pictures_as_they_are(plan):
    rows = plan[plan["kind"] == "reconstruction"]
    assert rows["sources"].map(len).eq(1).all()
    assert rows["swapped"].map(len).eq(0).all()
    assert rows["sources"].str[0].is_unique


def test_no_more_reconstructions_than_pictures():
    everything = make_plan(IDS, CODES, **COUNTS | {"reconstructions": 100, "compositions": 0, "transfers": 0})
    assert everything["sources"].str[0].tolist() == IDS


def test_the_plan_follows_its_seed_and_grows_without_changing(plan):
    pd.testing.assert_frame_equal(make_plan(IDS, CODES, **COUNTS), plan)
    other = make_plan(IDS, CODES, **COUNTS | {"seed": 8})
    assert other["prompt"].tolist() != plan["prompt"].tolist()
    more = make_plan(IDS, CODES, **COUNTS | {"compositions": 11, "transfers": 4})
    assert set(plan["prompt"]) <= set(more["prompt"])


def test_transfers_give_a_pair_s_first_each_part_of_the_second_and_all(plan):
    rows = plan[plan["kind"] == "transfer"]
    assert rows["transferred"].tolist() == ["nothing", "head", "tail", "head and tail"] * 3
    for start in range(0, 12, 4):
        (alone,), (first, second), of_tail, of_both = rows["sources"].iloc[start : start + 4]
        assert alone == first and rows["code"].iloc[start].tolist() == CODES[IDS.index(first)].tolist()
        assert (of_tail, of_both) == ([first, second], [first, second, second])
        assert first != second
        base, donor = IDS.index(first), IDS.index(second)
        for row, parts in zip(rows.iloc[start + 1 : start + 4].itertuples(), ([2], [5], [2, 5]), strict=True):
            assert row.swapped == parts
            assert row.code.tolist() == [100 * (donor if m in parts else base) + m for m in range(PARTS + 1)]
    assert rows["sources"].map(tuple).nunique() > 3


def test_each_picture_has_the_noise_of_the_one_before_its_last_swap(plan):
    """Chains of compositions, each with a source more; a pair's transfers all from its first picture."""
    by_id = plan.set_index("id")
    assert (plan["before"] == "").sum() == 5 + 10 + 3  # reconstructions, and the first of each chain and pair
    for row in plan[plan["before"] != ""].itertuples():
        before = by_id.loc[row.before]
        assert row.noise == before["noise"] != row.id
        if row.kind == "composition":
            assert (row.sources[:-1], row.swapped[:-1]) == (before["sources"], before["swapped"])
        else:
            assert (row.sources[:1], []) == (before["sources"], before["swapped"])
    alone = plan[plan["before"] == ""]
    assert alone["noise"].tolist() == alone["id"].tolist()


def test_one_transferred_part_comes_alone_once():
    rows = make_plan(IDS, CODES, **COUNTS | {"transferred": {"head": 2}}).query("kind == 'transfer'")
    assert rows["transferred"].tolist() == ["nothing", "head"] * 3


@pytest.mark.parametrize("changed", [{"transfers": 0}, {"transferred": {}}])
def test_no_transfers_are_planned_unless_asked_for(changed):
    assert "transfer" not in set(make_plan(IDS, CODES, **COUNTS | changed)["kind"])


def test_one_picture_has_nothing_to_transfer():
    alone = make_plan(IDS[:1], CODES[:1], **COUNTS | {"max_sources": 1})
    assert "transfer" not in set(alone["kind"])
