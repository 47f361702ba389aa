import numpy as np
import pytest

from partcraft_kedro.experiments.plots import (
    compositions_figure,
    learning_figure,
    learning_plot,
    stages_figure,
    sweep_figure,
    sweep_plot,
)
from partcraft_kedro.experiments.summary import interval_of_mean, summarise_seeds, table_of_sweep


def traces_of(figure, group):
    """(x, y) of what plotly draws of a legend's entry, entry aside."""
    return [
        (list(map(float, trace.x)), list(map(float, trace.y)))
        for trace in figure.data
        if trace.legendgroup == group and not trace.showlegend
    ]


def lines_of(axis):
    """(x, y) of everything that matplotlib draws as a line."""
    return [(list(map(float, line.get_xdata())), list(map(float, line.get_ydata()))) for line in axis.lines]


def legend_of(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def has(lines, y):
    return any(len(values) == len(y) and np.allclose(values, y) for _, values in lines)


TASKS = ["reconstruction", *(f"composition of {n}" for n in range(1, 5))]
# Smallest λ first: .7 − .05 · rank + the mean of 0, .01, .03 over seeds.
RECONSTRUCTED = 0.7 - 0.05 * np.arange(4, -1, -1) + 0.04 / 3


def test_a_number_is_an_axis_with_a_curve_for_each_task(weights):
    summary = summarise_seeds(*weights, "cub")
    drawn, plotted = sweep_figure(summary), sweep_plot(summary)
    assert [axis.get_title() for axis in drawn.axes if axis.get_visible()] == ["EMR", "CoSim", "judge"]
    emr = drawn.axes[0]
    assert [tick.get_text() for tick in emr.get_xticklabels()] == ["0.00001", "0.0001", "0.001", "0.01", "0.1"]
    assert np.allclose(emr.get_xticks(), [-5, -4, -3, -2, -1])  # log10
    assert list(plotted.layout.xaxis.ticktext) == ["0.00001", "0.0001", "0.001", "0.01", "0.1"]
    assert np.allclose(plotted.layout.xaxis.tickvals, [-5, -4, -3, -2, -1])
    assert legend_of(drawn) == [*TASKS, "single seeds", "the paper"]
    assert [trace.name for trace in plotted.data if trace.showlegend] == legend_of(drawn)
    for count, task in enumerate(TASKS):
        assert has(lines_of(emr), RECONSTRUCTED - 0.08 * count)
        assert has(traces_of(plotted, task), RECONSTRUCTED - 0.08 * count)


def test_every_seed_is_shown_and_leads_to_its_run(weights):
    summary = summarise_seeds(*weights, "cub")
    seeds = (0.7 - 0.05 * np.arange(4, -1, -1)[:, None] + np.array([0, 0.01, 0.03])).ravel()
    assert has(lines_of(sweep_figure(summary).axes[0]), seeds)
    plotted = sweep_plot(summary)
    assert has(traces_of(plotted, "single seeds"), seeds)
    first = next(trace for trace in plotted.data if trace.legendgroup == "single seeds")
    means = next(trace for trace in plotted.data if trace.legendgroup == "reconstruction")
    assert np.array(first.x).min() > means.x[0]  # beside the mean, not under its mark
    assert list(first.customdata[:3]) == [f"attention_weight-0.00001-{seed}" for seed in range(3)]


def test_intervals_are_the_summarys(weights):
    half = np.ptp(interval_of_mean(np.array([0, 0.01, 0.03]))) / 2
    plotted = sweep_plot(summarise_seeds(*weights, "cub"))
    means = next(trace for trace in plotted.data if trace.legendgroup == "reconstruction")
    assert np.allclose(means.error_y.array, half)
    assert np.allclose(means.error_y.arrayminus, half)
    drawn = sweep_figure(summarise_seeds(*weights, "cub")).axes[0]
    segments = np.array(drawn.collections[0].get_segments())
    assert np.allclose(np.ptp(segments[:, :, 1], axis=1), 2 * half)


def test_the_papers_numbers_are_drawn_where_there_are_any(weights):
    published = [0.397, 0.425, 0.445, 0.460, 0.339]
    summary = summarise_seeds(*weights, "cub")
    assert has(lines_of(sweep_figure(summary).axes[0]), published)
    assert has(traces_of(sweep_plot(summary), "the paper"), published)
    without = summarise_seeds(*weights, "creatures")
    assert "the paper" not in legend_of(sweep_figure(without))
    assert not traces_of(sweep_plot(without), "the paper")


def test_zero_stands_a_step_left_of_the_smallest(weights):
    summary = summarise_seeds(*weights, "creatures").replace({"setting": {"0.1": "0"}})
    assert np.allclose(sweep_figure(summary).axes[0].get_xticks(), [-6, -5, -4, -3, -2])


def test_settings_stand_side_by_side_between_floor_and_ceiling(methods):
    summary = summarise_seeds(*methods, "creatures")
    drawn, plotted = sweep_figure(summary), sweep_plot(summary)
    emr = drawn.axes[0]
    wrapped = [task.replace(" ", "\n", 1) for task in TASKS]
    assert [tick.get_text() for tick in emr.get_xticklabels()] == wrapped
    assert legend_of(drawn) == [*methods[0]["setting"].unique(), "single seeds", "ceiling", "floor"]
    means = 0.7 - 0.08 * np.arange(5) + 0.04 / 3
    for rank, method in enumerate(methods[0]["setting"].unique()):
        assert has(lines_of(emr), means - 0.05 * rank)
        assert has(traces_of(plotted, method), means - 0.05 * rank)
    # A ceiling for reconstructions alone, a floor for all five tasks, in each of three panels.
    for lines in (lines_of(emr), traces_of(plotted, "ceiling")[:1]):
        assert sum(np.allclose(y, 0.95) for _, y in lines) == 1
    assert sum(np.allclose(y, 0.05) for _, y in lines_of(emr)) == 5
    assert len(traces_of(plotted, "floor")) == 3 * 5


def test_one_seed_is_drawn_without_an_interval(methods):
    points, scores = methods
    summary = summarise_seeds(points[points["seed"] == 0], scores, "creatures")
    first = next(trace for trace in sweep_plot(summary).data if trace.legendgroup == "partcraft")
    assert np.isnan(first.error_y.array).all()
    assert has(lines_of(sweep_figure(summary).axes[0]), 0.7 - 0.08 * np.arange(5))


def test_learning_is_the_mean_over_pictures_then_seeds(methods, samples):
    points = methods[0]
    # Of both pictures .2 · stage + .05, and over seeds a mean of 0, .01, .02.
    means = 0.2 * np.arange(1, 4) + 0.05 + 0.01
    half = np.ptp(interval_of_mean(np.array([0, 0.01, 0.02]))) / 2
    axis = learning_figure(points, samples).axes[0]
    assert sum(np.allclose(y, means) for _, y in lines_of(axis) if len(y) == 3) == 3
    edges = axis.collections[0].get_paths()[0].vertices[:, 1]
    assert (edges.min(), edges.max()) == pytest.approx((means[0] - half, means[-1] + half))
    plotted = learning_plot(points, samples)
    (x, y), *_ = [trace for trace in traces_of(plotted, "break_a_scene") if len(trace[0]) == 3]
    assert (x, y) == ([100, 200, 300], pytest.approx(means))
    band = traces_of(plotted, "break_a_scene")[0]
    assert (min(band[1]), max(band[1])) == pytest.approx((means[0] - half, means[-1] + half))


def test_stages_are_of_one_picture_and_the_lowest_seed(methods, samples):
    figure = stages_figure(methods[0], samples)
    rows = np.array(figure.axes).reshape(3, 4)
    assert [axis.get_title() for axis in rows[0]] == ["real picture", "step 100", "step 200", "step 300"]
    assert [row[0].get_ylabel() for row in rows] == ["partcraft", "break_a_scene", "textual_inversion"]
    assert [row[0].images[0].get_array()[0, 0].tolist() for row in rows] == [[255, 0, 0]] * 3
    shown = [[axis.images[0].get_array()[0, 0, 0] for axis in row[1:]] for row in rows]
    # Trainings 0, 3 and 6 are those of seed 0, each with a grey of 20 · training + 5 · stage.
    assert np.array_equal(shown, [[0, 5, 10], [60, 65, 70], [120, 125, 130]])
    assert rows[1, 2].get_xlabel() == "EMR 0.40"


def test_more_settings_than_stages_go_across(methods, samples):
    rows = np.array(stages_figure(methods[0], samples[samples["step"] == 200]).axes).reshape(2, 3)
    assert [axis.get_title() for axis in rows[0]] == ["partcraft", "break_a_scene", "textual_inversion"]
    assert [row[0].get_ylabel() for row in rows] == ["real picture", "step 200"]
    assert [axis.images[0].get_array()[0, 0, 0] for axis in rows[1]] == [5, 65, 125]


def test_many_stages_are_thinned_out_from_first_to_last(methods, samples):
    of_one = samples[(samples["run_id"] == "methods-partcraft-0") & (samples["id"] == "a")].iloc[:1]
    many = of_one.loc[of_one.index.repeat(50)].assign(step=range(10, 510, 10))
    titles = [axis.get_title() for axis in stages_figure(methods[0], many).axes]
    assert len(titles) == 9
    assert (titles[1], titles[-1]) == ("step 10", "step 500")


def test_without_samples_there_is_no_figure_of_training(methods, samples):
    for figure in (learning_figure, learning_plot, stages_figure):
        assert figure(methods[0], samples.iloc[:0]) is None


def test_settings_that_share_a_training_have_no_figure_of_it(methods, samples):
    points, shared = methods[0], samples.copy()
    other = points["run_id"].iloc[-1]
    shared.loc[shared["run_id"] == other, "path"] = samples.loc[
        samples["run_id"] == points["run_id"].iloc[0], "path"
    ].to_numpy()
    assert stages_figure(points, shared) is None
    assert learning_figure(points, shared) is None


def test_a_measure_that_one_setting_lacks_is_drawn_without_it(methods):
    points, scores = methods
    lacking = points.loc[points["setting"] == "partcraft", "run_id"]
    scores = scores[~(scores["run_id"].isin(lacking) & (scores["measure"] == "judge"))]
    figure = sweep_figure(summarise_seeds(points, scores, "creatures"))
    judge = next(axis for axis in figure.axes if axis.get_title() == "judge")
    emr = next(axis for axis in figure.axes if axis.get_title() == "EMR")
    assert 0 < len(judge.lines) < len(emr.lines)


def test_a_user_s_text_is_no_formula_and_no_html(methods, samples, tmp_path):
    names = {"partcraft": "$x$ <b>&", "break_a_scene": r"$\frac{$", "textual_inversion": "</script>"}
    points = methods[0].assign(setting=methods[0]["setting"].map(names))
    summary = summarise_seeds(points, methods[1], "creatures")
    figure = sweep_figure(summary)
    figure.savefig(tmp_path / "sweep.png")
    assert "\\$x\\$ <b>&" in legend_of(figure)  # escaped for matplotlib, which draws the bare sign
    stages_figure(points, samples).savefig(tmp_path / "stages.png")
    plot = sweep_plot(summary)
    assert "$x$ &lt;b&gt;&amp;" in {trace.name for trace in plot.data}
    assert plot.to_html(include_plotlyjs=False).count("</script>") == 1  # the end of its own


def test_compositions_are_of_the_same_parts_and_the_lowest_seed(methods, compositions):
    figure = compositions_figure(methods[0], compositions)
    rows = np.array(figure.axes).reshape(2, 3)
    assert [axis.get_title() for axis in rows[0]] == ["partcraft", "break_a_scene", "textual_inversion"]
    assert [row[0].get_ylabel() for row in rows] == ["a \\$b\\$", "a \\$a\\$"]  # by turn
    shown = [[axis.images[0].get_array()[0, 0, 0] for axis in row] for row in rows]
    assert np.array_equal(shown, [[2, 62, 122], [0, 60, 120]])


def test_a_prompt_that_one_setting_lacks_is_not_compared(methods, compositions):
    lacking = compositions[(compositions["run_id"] != "methods-partcraft-0") | (compositions["id"] != "a")]
    assert len(compositions_figure(methods[0], lacking).axes) == 3
    assert compositions_figure(methods[0], compositions.assign(prompt=range(18))) is None


def test_axes_of_shares_end_at_0_and_1(methods):
    points, scores = methods
    wild = scores.assign(value=scores["value"].mask(scores["run_id"] == "methods-partcraft-2", 0.0))
    summary = summarise_seeds(points, wild, "creatures")
    assert summary["low"].min() < 0 and summary["high"].max() > 1
    for axis in sweep_figure(summary).axes[:3]:
        assert axis.get_ylim()[0] >= 0 and axis.get_ylim()[1] <= 1
    assert sweep_plot(summary).layout.yaxis.range == (0, 1)


def test_two_seeds_are_points_without_an_interval(methods):
    points, scores = methods
    summary = summarise_seeds(points[points["seed"] < 2], scores, "creatures")
    first = next(trace for trace in sweep_plot(summary).data if trace.legendgroup == "partcraft")
    assert np.isnan(first.error_y.array).all()
    assert table_of_sweep(summary).loc["partcraft", "reconstruction EMR"] == "0.705 (0.700, 0.710)"
