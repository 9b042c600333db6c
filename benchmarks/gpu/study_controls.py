"""Before any generator: the images are decoded once, and the classifier that looks at generators is trained."""

from __future__ import annotations

from study_data import examiner, make_study
from work import Row, Work

from condgan.study.provenance import provenance


def run(work: Work) -> None:
    """Prepare one study."""
    work.write({"what": "origin", **provenance(work.device)})
    work.measure({"what": "control", "size": work.options["size"]}, lambda: train_examiner(work))


def train_examiner(work: Work) -> Row:
    """Train the classifier where its network is missing, which results that were brought along have left behind."""
    study = make_study(work)
    cell = examiner(study.config)
    if not study.folder.is_finished(cell.name):
        study.run([cell.name])
    elif not study.folder.has_network(cell):
        study.worker.classify(cell)
    return {"cell": cell.name, "balanced_accuracy": study.folder.read(cell.name)["metrics"]["balanced_accuracy"]}
