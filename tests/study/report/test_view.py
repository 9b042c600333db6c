from condgan.study.report.view import make_view
from study.builders import full_results, small_results


def test_the_sweep_is_drawn_over_the_patients_kept():
    sweep = make_view(full_results()).sweep
    assert sweep.rare == "viral"
    assert [share.percent for share in sweep.panels[0].shares] == [10, 50, 100]
    assert [share.images for share in sweep.panels[0].shares] == [114, 572, 1143]
    assert sweep.has_reference
    assert all(panel.lines[0].style == "ref" for panel in sweep.panels)
    assert make_view(small_results()).sweep is None


def test_a_score_of_one_generator_has_no_bar():
    bars = {mark.mark.label: mark.bar for _, marks in make_view(small_results()).charts[0].groups for mark in marks}
    assert bars["real images"] is not None
    assert bars["generated only, as many as real"] is None
