import base64
import re
from html.parser import HTMLParser
from io import BytesIO

import pandas as pd
import pytest
from PIL import Image

from partcraft_kedro.experiments.page import differences, render_page

HELD = {"base.model": "tiny", "features.model": "tiny", "train.steps": 300, "train.rank": 8, "train.micro_batch": None}


NONE = pd.DataFrame(columns=["run_id", "id", "turn", "prompt", "path", "emr", "cosim"])


class Page(HTMLParser):
    """Tables as lists of rows, addresses that a browser would fetch, and the text outside scripts and styles."""

    def __init__(self, html):
        super().__init__()
        self.tables, self.addresses, self.text, self._inside, self._in_cell = [], [], "", None, False
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self._inside = tag
        self.addresses += [value for name, value in attributes if name in ("src", "href", "data", "srcset")]
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("th", "td"):
            self.tables[-1][-1].append("")
            self._in_cell = True

    def handle_endtag(self, tag):
        self._in_cell &= tag not in ("th", "td")

    def handle_data(self, data):
        if self._in_cell:
            self.tables[-1][-1][-1] += data
        if self._inside not in ("script", "style"):
            self.text += data


@pytest.fixture(scope="module")
def both(weights, methods, samples, compositions):
    """The page of both sweeps, on CUB, as text."""
    points, scores = (pd.concat(tables) for tables in zip(weights, methods, strict=True))
    held = {"attention_weight": HELD, "methods": HELD}
    return render_page(
        "cub", points, scores, samples, compositions, held, "http://127.0.0.1:5000/#/experiments/1/runs/"
    )


@pytest.fixture(scope="module")
def page(both):
    return Page(both)


def test_the_page_fetches_nothing(both, page):
    assert both.count("plotly.js v") == 1
    links = [address for address in page.addresses if address.startswith("http://127.0.0.1:5000/#/experiments/1/runs/")]
    assert len(links) == 15 + 9  # of runs: followed, not fetched
    assert all(address.startswith(("#", "data:image/png;base64,")) for address in set(page.addresses) - set(links))
    assert not re.search(r"@import|url\(\s*['\"]?http", re.search("<style>.*?</style>", both, re.DOTALL)[0])


def test_figures_are_there_and_not_empty(both, page):
    assert both.count("Plotly.newPlot(") >= 3  # two of scores, one of training
    composed, png = [address for address in page.addresses if address.startswith("data:")]
    assert composed != png
    picture = Image.open(BytesIO(base64.b64decode(png.partition(",")[2]))).convert("RGB")
    assert (255, 0, 0) in [colour for _, colour in picture.getcolors(1 << 24)]  # the real picture


def test_every_point_is_there_with_its_run(page, weights, methods):
    of_weights, of_methods = page.tables[3], page.tables[7]
    for table, (points, _) in ((of_weights, weights), (of_methods, methods)):
        header, *rows = table
        assert [row[header.index("run_id")] for row in rows] == points["run_id"].tolist()
        assert [row[header.index("adapter_version")] for row in rows] == points["adapter_version"].tolist()
    header, *rows = of_weights
    assert rows[4][header.index("composition of 2 EMR")] == "0.5000"


def test_tables_hold_means_differences_and_the_papers_numbers(page):
    header, *rows = page.tables[5]
    assert [row[0] for row in rows] == ["partcraft", "break_a_scene", "textual_inversion"]
    assert rows[1][header.index("reconstruction EMR")] == "0.663 ± 0.038"
    assert rows[1][header.index("reconstruction EMR, paper")] == "0.390 [b]"
    header, *rows = page.tables[6]
    assert [row[0] for row in rows] == ["break_a_scene", "textual_inversion"]
    assert rows[0][header.index("reconstruction EMR")] == "-0.050 ± 0.000 *"
    assert "[b] the paper's supplementary material, E.2" in page.text


def test_the_page_begins_with_the_answer_and_few_numbers(page):
    text = " ".join(page.text.split())
    answer = "0.1 is ahead of 0.01 in reconstruction EMR, by 0.050, beyond the interval."
    assert 0 < text.index(answer) < text.index("What was run")
    assert page.tables[0][0] == [
        "setting",
        "seeds",
        "reconstruction EMR",
        "reconstruction EMR, paper",
        "reconstruction judge",
    ]


def test_what_was_run_is_told(page):
    text = " ".join(page.text.split())
    assert "9, each of 300 steps" in text
    assert "reconstruction: 120; composition of 1: 30" in text
    assert "Against partcraft" in text
    assert "Against 0.01" in text
    assert "FID: needs more pictures" in text
    assert "train.micro_batchnone" in text.replace(" ", "")


def test_nothing_of_training_is_shown_without_samples(weights, samples):
    html = render_page("creatures", *weights, samples.iloc[:0], NONE, {"attention_weight": HELD})
    assert "While training" not in html
    assert "<img" not in html


def test_text_from_outside_is_no_markup(weights, samples):
    points, scores = weights
    scores = scores.assign(note=scores["note"].mask(scores["task"] == "fid", "<script>alert(1)</script>"))
    html = render_page("<b>", points, scores, samples.iloc[:0], NONE, {"attention_weight": HELD})
    assert "<script>alert" not in html
    assert "&lt;b&gt;" in html


def test_a_single_setting_is_compared_with_nothing(weights, samples):
    points, scores = weights
    html = render_page("cub", points[points["setting"] == "0.1"], scores, samples, NONE, {"attention_weight": HELD})
    assert "Against" not in html


def test_differences_on_creatures_say_that_nothing_compares():
    text = " ".join(differences("creatures", HELD))
    for said in (
        "no numbers",
        "not photographs",
        "base is tiny",
        "tiny's own small vision",
        "300 steps",
        "train.rank is 8, the paper's 4.",
    ):
        assert said in text


def test_differences_on_photographs_are_what_differs():
    held = {"train.rank": 4, "train.learning_rate": 0.0001, "train.steps": 1000, "train.bottleneck_layers": None}
    assert differences("cub", held) == ["train.steps is 1,000, the paper's 299,700."]
    assert differences("dogs", {"train.steps": 600_000, "features.size": None}) == []
    assert differences("cub", {"features.size": 448}) == ["features.size is 448, the paper's 224."]
