"""Trains classifiers: those of real images, or those of one recipe's generators."""

from __future__ import annotations

from study_data import generators, make_study
from work import Row, Work

from condgan.study import Study


def run(work: Work) -> None:
    """Train as many as there is time for."""
    columns = {"what": "classifiers", "size": work.options["size"], "recipe": work.options["recipe"]}
    work.measure(columns, lambda: classify(work))


def classify(work: Work) -> Row:
    """Train them and return how many there are."""
    study = make_study(work)
    names = wanted(study, work)
    if names:
        study.run(names, time_limit=work.left())
    finished = [name for name in names if study.folder.is_finished(name)]
    scores = [study.folder.read(name).seconds for name in finished]
    return {"classes": work.options["classes"], "finished": len(finished), "of": len(names), "seconds": sum(scores)}


def wanted(study: Study, work: Work) -> list[str]:
    """Return the names of classifiers whose generators are here: results may come without networks."""
    recipe = work.options["recipe"]
    if recipe is None:
        return [cell.name for cell in study.cells if cell.kind == "classifier" and cell.recipe is None]
    here = {
        cell.name
        for cell in generators(study.config, [recipe], work.options["seeds"])
        if study.folder.is_finished(cell.name) and (study.folder.gan(cell) / "generator").is_dir()
    }
    return [cell.name for cell in study.cells if cell.kind == "classifier" and here.intersection(cell.needs)]
