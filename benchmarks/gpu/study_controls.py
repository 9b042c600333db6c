"""Before any generator: the images are decoded once, and the reference classifier is trained."""

from __future__ import annotations

from study_data import make_study, reference
from work import Row, Work

from condgan.files import to_json
from condgan.study.provenance import provenance
from condgan.study.results import ClassifierOutcome


def run(work: Work) -> None:
    """Prepare one study."""
    work.write({"what": "origin", **to_json(provenance(work.device))})
    work.measure({"what": "control", "size": work.options["size"]}, lambda: train_reference(work))


def train_reference(work: Work) -> Row:
    """Train the classifier if its network is missing, as it is for merged results of earlier runs."""
    study = make_study(work)
    cell = reference(study.config)
    if not study.folder.is_finished(cell.name):
        study.run([cell.name])
    elif not study.folder.has_network(cell):
        study.classify(cell)
    outcome = study.folder.read(cell.name)
    score = outcome.report.balanced_accuracy.value if isinstance(outcome, ClassifierOutcome) else None
    return {"cell": cell.name, "balanced_accuracy": score}
