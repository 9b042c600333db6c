import pytest

from condgan.study.report.charts import Mark, dot_chart, line_panel, nice_ticks


@pytest.mark.parametrize(("low", "high"), [(0.1, 0.9), (-3e-5, 2e-4), (0, 1), (17, 1234), (-0.02, -0.01)])
def test_ticks_span_the_range(low, high):
    ticks = nice_ticks(low, high)
    assert ticks[0] <= low < high <= ticks[-1]
    assert 2 <= len(ticks) <= 8


def test_dots_lie_in_the_order_of_their_values_within_the_chart():
    marks = [Mark("a", 0.2, (0.1, 0.3)), Mark("b", 0.5, None), Mark("c", 0.9, (0.8, 1.2))]
    chart = dot_chart("x", {"": marks}, caption="", reference=(0.5, "guessing"), limits=(0.0, 1.0))
    ((_, placed),) = chart.groups
    places = [place for mark in placed for place in (mark.x, *(mark.bar or ()))]
    assert all(0 < place < 100 for place in places)
    assert placed[0].bar[0] < placed[0].x < placed[0].bar[1] < placed[1].x < placed[2].x
    assert chart.reference.at == placed[1].x
    assert placed[2].bar[1] == chart.ticks[-1].at  # cut at the limit


def test_a_line_panel_says_its_numbers():
    points = [(100.0, Mark("x", 0.75, (0.5, 1.0))), (10.0, Mark("x", 0.25, None))]
    panel = line_panel("recall", {"acgan": points}, {10.0: 3, 100.0: 30})
    assert panel.said == "recall. acgan: 0.750 at 100 %, 0.250 at 10 %"
    (line,) = panel.lines
    first, last = line.points
    assert first.x < last.x
    assert first.y > last.y  # down is less
    assert first.bar is None
