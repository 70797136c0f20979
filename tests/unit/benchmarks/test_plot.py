"""A saved run as a picture."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from scoreboard.figures import SECONDS
from scoreboard.plot import PLOT_WIDTH, TEXT_WIDTH, draw

SVG = "{http://www.w3.org/2000/svg}"
START = {"figure": "start & exec", "unit": SECONDS, "ours": [0.1, 0.1, 0.3], "peer": [1.0], "floor": []}
LOSS = {"figure": "loss", "unit": SECONDS, "ours": [0.01], "peer": "never", "floor": []}
MEMORY = {"figure": "memory", "unit": "MiB", "ours": [40.0], "peer": [210.0], "floor": []}
BROKEN = {"figure": "fleet", "error": "OSError"}


def bars(document: str) -> list[tuple[str, float]]:
    """The colour and width of each, without the background and the legend."""
    found = ElementTree.fromstring(document).findall(f"{SVG}rect")[1:]
    return [(bar.attrib["fill"], float(bar.attrib["width"])) for bar in found if bar.attrib["height"] == "10"][3:]


def test_each_row_of_seconds_has_its_bars_on_one_scale() -> None:
    ours, peer = "#2a6fdb", "#d9822b"
    assert bars(draw([START, LOSS, MEMORY, BROKEN])) == [
        (ours, pytest.approx(PLOT_WIDTH / 2)),
        (peer, pytest.approx(PLOT_WIDTH)),
        (ours, 0.0),
    ]


def test_the_figures_are_named() -> None:
    texts = [text.text for text in ElementTree.fromstring(draw([START, MEMORY])).iter(f"{SVG}text")]
    assert "start & exec" in texts
    assert "100 ms" in texts
    assert "memory" not in texts


def test_the_bars_begin_beside_the_names() -> None:
    lines = ElementTree.fromstring(draw([START])).findall(f"{SVG}line")
    assert float(lines[0].attrib["x1"]) == TEXT_WIDTH


def test_a_run_without_seconds_has_no_picture() -> None:
    with pytest.raises(ValueError, match="no row of this run is in seconds"):
        draw([MEMORY, BROKEN])
