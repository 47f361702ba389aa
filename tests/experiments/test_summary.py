import numpy as np
import pandas as pd
import pytest
from scipy import stats

from partcraft_kedro.experiments.summary import (
    answers,
    compare_with,
    interval_of_mean,
    reference_of,
    summarise_seeds,
    table_of_differences,
    table_of_points,
    table_of_sweep,
)


def row_of(table, **where):
    """The one row in which these columns have these values."""
    rows = table[np.logical_and.reduce([table[column] == value for column, value in where.items()])]
    assert len(rows) == 1
    return rows.iloc[0]


def of_composition(points, scores, setting):
    """EMR of compositions of 2, by seed."""
    runs = points[points["setting"] == setting].sort_values("seed")["run_id"]
    emr = scores[(scores["task"] == "composition of 2") & (scores["measure"] == "emr")].set_index("run_id")["value"]
    return emr[runs].to_numpy()


def test_an_interval_worked_out_by_hand():
    # Mean 2, standard deviation 1, t(0.975, 2) = 4.3027 from a printed table: half a width of 4.3027 / √3.
    assert interval_of_mean(np.array([1.0, 2.0, 3.0])) == pytest.approx((2 - 2.48413, 2 + 2.48413), abs=1e-4)


@pytest.mark.parametrize("count", [2, 3, 10])
def test_intervals_are_those_of_a_t_test(count):
    values = np.random.default_rng(count).normal(size=count)
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert interval_of_mean(values) == pytest.approx((expected.low, expected.high))


@pytest.mark.filterwarnings("error")
def test_one_seed_has_no_interval():
    assert np.isnan(interval_of_mean(np.array([0.5]))).all()


def test_the_summary_is_over_seeds_in_the_grids_order(weights):
    points, scores = weights
    summary = summarise_seeds(points, scores, "cub")
    assert list(summary["setting"].unique()) == ["0.1", "0.01", "0.001", "0.0001", "0.00001"]
    row = row_of(summary, setting="0.01", task="composition of 2", measure="emr")
    # .7 − .05 − 2 · .08 and, over seeds, a mean of (0 + .01 + .03) / 3.
    assert row["mean"] == pytest.approx(0.49 + 0.04 / 3)
    assert (row["low"], row["high"]) == pytest.approx(interval_of_mean(np.array([0.49, 0.50, 0.52])))
    assert (row["seeds"], row["n"], row["floor"]) == (3, 30, pytest.approx(0.05))
    assert row["run_ids"] == [f"attention_weight-0.01-{seed}" for seed in range(3)]
    assert row["values"] == pytest.approx([0.49, 0.50, 0.52])
    assert (row["published"], row["source"]) == (0.291, "c")


def test_what_has_no_value_keeps_its_note(weights):
    row = row_of(summarise_seeds(*weights, "cub"), setting="0.1", task="fid", measure="frechet")
    assert np.isnan(row["mean"])
    assert (row["seeds"], row["run_ids"], row["note"]) == (0, [], "needs more pictures")
    assert row["published"] == 19.08


def test_a_seed_without_a_value_is_left_out(weights):
    points, scores = weights
    scores = scores.copy()
    lost = (scores["run_id"] == "attention_weight-0.1-1") & (scores["measure"] == "emr")
    scores.loc[lost, "value"] = np.nan
    row = row_of(summarise_seeds(points, scores, "cub"), setting="0.1", task="reconstruction", measure="emr")
    assert row["values"] == pytest.approx([0.7, 0.73])
    assert row["run_ids"] == ["attention_weight-0.1-0", "attention_weight-0.1-2"]


def test_other_options_than_the_papers_have_no_number_beside_them(weights):
    points, scores = weights
    summary = summarise_seeds(points.assign(option="train.rank", attention_weight=0.01), scores, "cub")
    assert summary["published"].isna().all()


def test_differences_are_those_of_a_paired_t_test(weights):
    points, scores = weights
    scores = scores.assign(value=scores["value"] + np.random.default_rng(3).normal(0, 0.02, len(scores)))
    # The order of rows is no pairing: seeds are.
    shuffled = points.sample(frac=1, random_state=0)
    comparison = compare_with(shuffled, scores, "0.01")
    assert set(comparison["setting"]) == {"0.1", "0.001", "0.0001", "0.00001"}
    for setting in ("0.1", "0.00001"):
        mine, theirs = of_composition(points, scores, setting), of_composition(points, scores, "0.01")
        expected = stats.ttest_rel(mine, theirs).confidence_interval(0.95)
        row = row_of(comparison, setting=setting, task="composition of 2", measure="emr")
        assert row["difference"] == pytest.approx((mine - theirs).mean())
        assert (row["low"], row["high"]) == pytest.approx((expected.low, expected.high))
        assert row["excludes_zero"] == (stats.ttest_rel(mine, theirs).pvalue < 0.05)
        assert row["seeds"] == 3


@pytest.mark.parametrize(
    ("differences", "excludes"),
    [((0.1, 0.2, 0.3), False), ((0.19, 0.2, 0.21), True), ((-0.19, -0.2, -0.21), True)],
)
def test_whether_zero_is_excluded(differences, excludes):
    # Half widths 4.3027 · s / √3: .248 around .2, and .0248 around ±.2.
    points = pd.DataFrame({"setting": ["a"] * 3 + ["b"] * 3, "seed": [0, 1, 2] * 2, "run_id": list("uvwxyz")})
    values = [0.5] * 3 + [0.5 + difference for difference in differences]
    scores = pd.DataFrame({"run_id": list("uvwxyz"), "task": "reconstruction", "measure": "emr", "value": values})
    assert compare_with(points, scores, "a")["excludes_zero"].tolist() == [excludes]


def test_seeds_of_one_setting_alone_are_not_paired(weights):
    points, scores = weights
    row = row_of(
        compare_with(points[points["run_id"] != "attention_weight-0.01-2"], scores, "0.01"),
        setting="0.1",
        task="reconstruction",
        measure="emr",
    )
    assert row["seeds"] == 2


def test_a_reference_that_does_not_exist_is_refused(weights):
    with pytest.raises(ValueError, match=r"'0\.5' is none of"):
        compare_with(*weights, "0.5")


def test_a_seed_that_stands_twice_is_refused(weights):
    points, scores = weights
    with pytest.raises(pd.errors.MergeError):
        compare_with(pd.concat([points, points]), scores, "0.01")


def test_the_reference_is_the_papers_choice(weights, methods):
    assert reference_of(weights[0]) == "0.01"
    assert reference_of(methods[0].iloc[::-1]) == "partcraft"
    assert reference_of(weights[0].assign(method="break_a_scene")) == "0.01"
    assert reference_of(weights[0].assign(option="train.rank", attention_weight=0.01)) == "0.1"


def test_the_table_of_a_sweep_has_the_papers_numbers_beside_ours(weights):
    table = table_of_sweep(summarise_seeds(*weights, "cub"))
    assert list(table.index) == ["0.1", "0.01", "0.001", "0.0001", "0.00001"]
    # Half a width: t(0.975, 2) = 4.3027 times the deviation of 0, .01, .03, .015275, by √3.
    assert table.loc["0.01", "reconstruction EMR"] == "0.663 ± 0.038"
    assert table.loc["0.01", "reconstruction EMR, paper"] == "0.460 [a]"
    assert table.loc["0.01", "composition of 4 EMR, paper"] == "0.202 [c]"
    assert table.loc["0.1", "composition of 4 EMR, paper"] == "–"
    assert table.loc["0.1", "FID, paper"] == "19.08 [a]"
    assert "FID" not in table  # no seed has one
    assert table.loc["0.1", "Fréchet distance"].startswith("20.10 ± ")


def test_creatures_have_no_number_of_the_paper_beside_them(weights):
    assert not [column for column in table_of_sweep(summarise_seeds(*weights, "creatures")) if "paper" in column]


def test_the_table_of_differences_marks_what_excludes_zero(weights):
    points, scores = weights
    reconstructed = (scores["task"] == "reconstruction") & (scores["measure"] == "emr")
    spoilt = reconstructed & scores["run_id"].str.contains("-0.001-1")
    scores = scores.assign(value=scores["value"] - 0.2 * spoilt)
    table = table_of_differences(compare_with(points, scores, "0.01"))
    assert table.loc["0.1", "reconstruction EMR"] == "+0.050 ± 0.000 *"
    # −.05, −.25, −.05: mean −.1167, half a width 4.3027 · .11547 / √3.
    assert table.loc["0.001", "reconstruction EMR"] == "-0.117 ± 0.287"


def test_every_value_leads_to_its_run(weights):
    points, scores = weights
    table = table_of_points(points, scores)
    assert len(table) == len(points)
    row = row_of(table, setting="0.001", seed=2)
    assert (row["run_id"], row["adapter_version"]) == ("attention_weight-0.001-2", "version of 0.001 2")
    assert row["composition of 1 EMR"] == pytest.approx(0.7 - 0.1 - 0.08 + 0.03)
    assert "FID" not in table


def test_answers_say_what_is_ahead_and_whether_that_is_certain(weights):
    points, scores = weights
    emr = (scores["task"] == "reconstruction") & (scores["measure"] == "emr")
    spoilt = scores.assign(value=scores["value"] - 0.2 * (emr & scores["run_id"].str.contains("-0.001-1")))
    told = answers(summarise_seeds(points, spoilt, "creatures"), compare_with(points, spoilt, "0.01"), "0.01")
    assert told[0] == "0.1 is ahead of 0.01 in reconstruction EMR, by 0.050, beyond the interval."
    assert told[1] == "0.001 is behind 0.01 in reconstruction EMR, by 0.117, within the interval."
    assert len(told) == 4  # the reference has no sentence
    two = points[points["seed"] < 2]
    told = answers(summarise_seeds(two, scores, "creatures"), compare_with(two, scores, "0.01"), "0.01")
    assert "too few for an interval" in told[0]


def test_a_single_setting_is_told_by_what_it_reached(weights):
    points, scores = weights
    one = points[points["setting"] == "0.1"]
    told = answers(summarise_seeds(one, scores, "creatures"), compare_with(one, scores, "0.1"), "0.1")
    # .7 + .04 / 3; half a width of 4.3027 · .015275 / √3.
    assert told == ["0.1 reached a reconstruction EMR of 0.713 ± 0.038, a reconstruction judge of 0.613 ± 0.038."]
