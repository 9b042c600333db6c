"""Sentences on the results of a study, from the content of its `results.json`; none claims more than intervals bear."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from page_parts import listed, plain
from study_tables import Arm, arms_of, difference, full_percent

from condgan.runs import in_words
from condgan.study.cells import make_cells
from condgan.study.config import StudyConfig
from condgan.study.report_html import interval, number, p_value, plural
from condgan.study.report_words import (
    Results,
    Row,
    arm_name,
    cells_of,
    intervals_name,
    metric_name,
    recall_class,
    side_name,
    size_of_test,
)
from condgan.study.summaries import chance_of, is_synthetic_only

_KINDS = {"gan": "generators", "classifier": "classifiers", "judge": "judgements of images"}
_MOST_LISTED = 2
_FINISHED = "Is the study finished?"


def primary_metric(results: Results) -> str:
    """Return the metric that the main question is answered by."""
    return str(results["config"].get("primary_metric", "balanced_accuracy"))


def alone(results: Results) -> dict[str, Arm]:
    """Return for each recipe the first arm of its images alone."""
    found: dict[str, Arm] = {}
    for recipe, arm in arms_of(results):
        if recipe is not None and is_synthetic_only(arm):
            found.setdefault(recipe, (recipe, arm))
    return found


def rare_class(results: Results) -> str:
    """Return the class whose recall is asked for: the one made rare, or else the rarest."""
    names, counts = results["data"]["class_names"], results["data"]["counts"]["train"]
    return str(results["config"].get("reduced_class") or names[min(range(len(names)), key=lambda k: counts[k])])


def headline(results: Results) -> str:
    """Return what the study says in a sentence or two."""
    metric = primary_metric(results)
    said = [_scored(results, metric)]
    if main := main_verdict(results):
        said.append(f"{plain(main['question'])} **{_capital(plain(main['answer']))}**.")
    return " ".join(filter(None, said)) or "No classifier has been tested."


def notice(results: Results) -> str:
    """Return what nobody may overlook about the data, empty if there is nothing."""
    said = results["data"].get("notice")
    return f"**{plain(said)}**" if said else ""


def main_verdict(results: Results) -> Row | None:
    """Return the verdict on the primary comparisons, if there are any."""
    if not any(row["primary"] for row in results.get("comparisons", [])):
        return None
    return next(iter(results.get("verdicts", [])), None)


def findings(results: Results) -> list[str]:
    """Return what the study says of recipes, of the rarest class and of the images themselves, a sentence each."""
    said = [*_matched(results), _best(results), _scored(results, f"recall/{rare_class(results)}"), _seen(results)]
    return [sentence for sentence in said if sentence]


def tested_on(results: Results) -> str:
    """Say what the scores were measured on, and what their intervals cover."""
    summaries = results.get("summaries", [])
    if not summaries:
        return "No classifier has been tested."
    said = f"Tested on {size_of_test(summaries)}. In brackets: {intervals_name(results)} over "
    said += "the seeds of generators and of classifiers, and over patients."
    once = list(dict.fromkeys(row["recipe"] for row in summaries if row["generator_seeds"] == 1))
    if once:
        names = "; the generators" if {row["recipe"] for row in summaries} - {None} == set(once) else ""
        named = names or f"; {listed([f'`{recipe}`' for recipe in once])}"
        said = said.removesuffix(".") + f"{named} were trained once only, and another seed can change the order."
    if any(row["classifier_seeds"] == 1 for row in summaries):
        said += " Where there is one classifier only, its interval leaves out the chance of its training."
    return said


def answers(results: Results) -> list[str]:
    """Return the questions and answers, those that were asked of each recipe together."""
    recipes = sorted(results["config"].get("recipes", {}), key=len, reverse=True)
    name = re.compile("|".join(rf"\b{re.escape(recipe)}\b" for recipe in recipes) or r"(?!)")
    asked: dict[str, list[tuple[list[str], str]]] = {}
    for verdict in results.get("verdicts", []):
        if verdict["question"] == _FINISHED:  # said by `unfinished`
            continue
        question = name.sub("…", verdict["question"])
        asked.setdefault(question, []).append((name.findall(verdict["question"]), verdict["answer"].rstrip(".")))
    return [f"**{plain(question)}** {_together(entries)}." for question, entries in asked.items()]


def evidence(results: Results) -> list[str]:
    """Return what each answer rests on."""
    said = []
    for verdict in results.get("verdicts", []):
        question, answer, why = (plain(verdict[key]) for key in ("question", "answer", "evidence"))
        said.append(f"**{question}** {_capital(answer.rstrip('.'))}. {why}")
    return said


def matched_pairs(results: Results) -> list[Row]:
    """Return the comparisons of different recipes on the same networks, with the same augmentation."""
    plans = results["config"].get("recipes", {})

    def rest(row: Row) -> Row:
        entry = plans.get(row["recipe"], {})
        return {name: entry.get(name) for name in ("networks", "augment")}

    rows = recipe_pairs(results)
    return [row for row in rows if rest(row["a"]) == rest(row["b"])]


def recipe_pairs(results: Results) -> list[Row]:
    """Return the comparisons of recipes of the main study."""
    rows = results.get("comparisons", [])
    return [row for row in rows if row["family"] == "recipes" and row["a"]["p"] == full_percent(results)]


def unfinished(results: Results) -> list[str]:
    """Say what of the study is missing, and which trainings failed."""
    cells, planned = results.get("cells", []), results.get("cells_planned")
    said = []
    if planned is not None and len(cells) < planned:
        left = _missing(results)
        said.append(
            f"**Unfinished**: {len(cells)} of {planned} parts of the study are done; all figures may change."
            + (f" Missing: {left}." if left else "")
        )
    if failed := [cell for cell in cells if "error" in cell]:
        names = "; ".join(f"{cell['name']}: {plain(cell['error'])}" for cell in failed)
        said.append(f"**Failed**: {plural(len(failed), 'training')} diverged and are in no score ({names}).")
    return said


def provenance(results: Results, source: str) -> str:
    """Say by which command, from which commits, on what device and in what time the results were computed."""
    versions = ", ".join(f"{name} {version}" for name, version in results.get("versions", {}).items())
    seconds: Counter[str] = Counter()
    for cell in results.get("cells", []):
        seconds[_KINDS[cell["kind"]]] += cell.get("seconds", 0)
    times = ", ".join(f"{kind} {in_words(spent)}" for kind, spent in seconds.items() if spent)
    command = f"```bash\n{results['command']}\n```\n\n" if results.get("command") else ""
    return (
        f"{command}Commit {results.get('commit') or 'unknown'}; {results.get('device') or 'device unknown'}; "
        f"{versions or 'versions unknown'}. Time: {times or 'unknown'}. All figures and settings are in {source}."
    )


def uses_of_test(results: Results) -> str:
    """Say how often the test set was looked at, and what for."""
    counts = results.get("test_evaluations", {})
    judging = sum(count for name, count in counts.items() if name.partition("@")[0].endswith("/fidelity"))
    total = sum(counts.values())
    return (
        f"The test set was looked at {plural(total, 'time')}: {total - judging} for the score of a classifier, "
        f"{judging} to compare the images of a generator with; a part that was run again counts again. No network, "
        "step, threshold or setting was chosen on it; which control is the best one was, and that favors the controls."
    )


def captions(results: Results) -> dict[str, str]:
    """Return for each generator what its picture shows, by the name of its cell."""
    size = "x".join(map(str, results["data"]["image_shape"][1:]))
    found = {}
    for cell in cells_of(results, "gan"):
        kept, steps = cell.get("kept", {}), cell.get("steps")
        said = f"{cell['recipe']}, generator seed {cell['seed']}, {size} pixels"
        if kept.get("criterion"):
            criterion = kept["criterion"].replace("_", " ").replace("kid", "KID")
            said += f", step {kept['step']} of {steps} ({criterion} on validation images)"
        elif steps is not None:
            said += f", {steps} steps"
        if "seconds" in cell and "device" in cell:
            said += f", {in_words(cell['seconds'])} on {cell['device'].partition(',')[0]}"
        found[cell["name"]] = f"{said}. The first images of each class, not selected."
    return found


def _scored(results: Results, metric: str) -> str:
    """Say what classifiers reach by a metric with generated images alone, with real ones and by guessing."""
    arms = arms_of(results)
    found = {recipe: arms[arm].get(metric, {}) for recipe, arm in alone(results).items()}
    rows = {recipe: row for recipe, row in found.items() if row.get("value") is not None}
    real = arms.get((None, "real"), {}).get(metric)
    if not rows:
        return ""
    name, rare = metric_name(metric), recall_class(metric)
    what = name if name.isupper() else name.lower()
    if rare:
        made_rare = rare == results["config"].get("reduced_class")
        what = f"Recall of {rare}, the {'class made rare' if made_rare else 'rarest class'}"
    said = {recipe: f"{interval(row)} (`{recipe}`)" for recipe, row in rows.items()}
    lowest, highest = (choose(rows, key=lambda recipe: rows[recipe]["value"]) for choose in (min, max))
    values = f"of {listed(list(said.values()))}"
    if len(rows) > _MOST_LISTED:
        values = f"from {said[lowest]} to {said[highest]}"
    sentence = (
        f"{what}: with generated images alone {values.removeprefix('of ')}" if rare
        else f"Trained on generated images alone, a ResNet-18 reaches a {what} {values}"
    )  # fmt: skip
    chance = chance_of(metric, len(results["data"]["class_names"]))
    sentence += f"; with real images {interval(real)}" if real else ""
    return sentence + (f"; guessing gives {number(chance)}." if chance is not None else ".")


def _matched(results: Results) -> list[str]:
    """Say of recipes on the same networks which one's images teach more."""
    rows = matched_pairs(results)
    said = [f"`{row['a']['recipe']}` less `{row['b']['recipe']}` {difference(row)}, p {_p(row)}" for row in rows]
    if not said:
        return []
    metric = metric_name(rows[0]["metric"]).lower()
    return [
        f"Recipe against recipe on the same networks, by {metric} of their images alone, p after Holm's correction: "
        f"{'; '.join(said)}."
    ]


def _best(results: Results) -> str:
    """Name the arm with generated images that comes off best against the best control."""
    rows = [row for row in results.get("comparisons", []) if row["primary"] and row["difference"] is not None]
    if not rows:
        return ""
    best = max(rows, key=lambda row: row["difference"])
    mixed = any(not is_synthetic_only(row["a"]["arm"]) for row in rows)
    arms = f"The best of {plural(len(rows), 'arm')}" if len(rows) > 1 else "The one arm"
    said = (
        f"{arms} with generated images is `{best['a']['recipe']}`, {arm_name(best['a']['arm'])}: by "
        f"{metric_name(best['metric']).lower()} {difference(best)} against the best control, {side_name(best['b'])} "
        f"(p {_p(best)} after Holm's correction)."
    )
    return said if mixed else f"{said} Whether adding generated images to real ones helps has not been tested."


def _seen(results: Results) -> str:
    """Say of the generated images whether they collapsed or repeat training images."""
    judged = cells_of(results, "judge")
    varied = [cell for cell in judged if cell.get("diversity")]
    asked = [cell for cell in judged if cell.get("memorization")]
    said = []
    if varied:
        collapsed = Counter(
            cell["recipe"] for cell in varied if any(e["collapsed"] for e in cell["diversity"]["per_class"].values())
        )
        said.append(f"Collapsed onto few images of a class: {_of(collapsed, varied)}")
    if asked:
        signs = Counter(cell["recipe"] for cell in asked if any(map(_is_sign, _verdicts_of(cell))))
        said.append(f"repeating training images or giving patients away: {_of(signs, asked)}")
        if unsure := sum(any(v.startswith("cannot tell") for v in _verdicts_of(cell)) for cell in asked):
            said[-1] += f" (too few images to tell for {unsure})"
    return _capital("; ".join(said)) + "." if said else ""


def _verdicts_of(cell: Row) -> list[str]:
    return [entry["verdict"] for entry in cell["memorization"]["per_class"].values()]


def _is_sign(verdict: str) -> bool:
    return not verdict.startswith(("no sign", "cannot tell"))


def _of(found: Counter[str], cells: Sequence[Row]) -> str:
    trained = Counter(cell["recipe"] for cell in cells)
    named = [f"`{recipe}` ({count} of {trained[recipe]})" for recipe, count in found.items()]
    return listed(named) if named else f"none of {plural(len(cells), 'generator')}"


def _together(entries: Sequence[tuple[list[str], str]]) -> str:
    by_answer: dict[str, list[list[str]]] = {}
    for names, answer in entries:
        by_answer.setdefault(answer, []).append(names)
    said = []
    for answer, asked in by_answer.items():
        if not any(asked):
            said.append(_capital(plain(answer)))
        elif any(len(names) > 1 for names in asked) and len(entries) > _MOST_LISTED and answer.startswith("cannot"):
            said.append(f"{plain(answer)} for {len(asked)} of {len(entries)} pairs")
        else:
            named = f"`{answer}`" if any(answer in names for names in asked) else plain(answer)
            said.append(f"{named} ({', '.join(_pair(names, answer) for names in asked)})")
    return _capital("; ".join(said))


def _pair(names: Sequence[str], answer: str) -> str:
    others = " or ".join(f"`{name}`" for name in names if name != answer)
    return f"against {others}" if answer in names else others


def _missing(results: Results) -> str:
    """Say how many parts of each kind are missing, and what has not been begun."""
    if "arms" not in results["config"]:
        return ""
    planned = make_cells(StudyConfig.from_dict(results["config"]))
    names = {cell["name"] for cell in results["cells"]}
    done = [cell for cell in planned if cell.name in names]
    left = Counter(_KINDS[cell.kind] for cell in planned if cell.name not in names)
    said = ", ".join(f"{count} of the {kind}" for kind, count in left.items())
    recipes, arms = ({getattr(cell, kind): None for cell in planned} for kind in ("entry", "arm"))
    begun = {found for cell in done for found in (cell.entry, cell.arm)}
    untouched = [f"`{recipe}`" for recipe in recipes if recipe not in begun and recipe]
    untouched += [arm_name(arm) for arm in arms if arm and arm not in begun]
    return said + (f". Not begun: {'; '.join(map(plain, untouched))}" if untouched else "")


def _p(row: Row) -> str:
    return plain(p_value(row.get("p_holm")))


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def shown_arms(results: Results) -> list[Arm]:
    """Return the arms of a short table: real images, the best control, and each recipe's images alone."""
    arms, metric = arms_of(results), primary_metric(results)
    score = {arm: found[metric]["value"] for arm, found in arms.items() if metric in found}
    controls = [arm for arm, value in score.items() if arm[0] is None and value is not None]
    best = max(controls, key=lambda arm: score[arm], default=None)
    real = [arm for arm in controls if arm[1] == "real" or arm == best]
    return [*real, *alone(results).values()]
