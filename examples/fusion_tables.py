"""Tables and figure of compare_fusions.py; the figure needs matplotlib."""

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from intervals import student

import fusecomp as fc
from fusecomp.evaluation import compare
from fusecomp.report import Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BASE = "Combiner"
AGAINST = f"against {BASE}, seeds better"


class Score(NamedTuple):
    """The scores of a training, and the seconds that it took."""

    evaluation: fc.Evaluation
    seconds: float


class Cost(NamedTuple):
    """The parameters of a fusion, and the milliseconds of a query."""

    parameters: int
    milliseconds: float


Rows = Mapping[str, Sequence[Score]]  # by fusion: a score a seed
Numbers = dict[str, dict[str, Any]]  # by fusion


def write(
    results: Mapping[str, Mapping[str, Rows]], costs: Mapping[str, Cost], folder: Path, drawn: bool
) -> None:
    """Print the tables; write them, all numbers and the figure."""
    content = {
        dataset: {
            recipe: {name: summarize(rows, name, costs[name], drawn) for name in rows}
            for recipe, rows in recipes.items()
        }
        for dataset, recipes in results.items()
    }
    (folder / "results.json").write_text(json.dumps(content, indent=1))
    tables = "\n\n".join(f"{dataset}\n\n{table(recipes)}" for dataset, recipes in content.items())
    (folder / "tables.md").write_text(f"{tables}\n")
    print(f"\n{tables}\n")
    draw(content, folder / "figure.png")


def summarize(rows: Rows, name: str, cost: Cost, drawn: bool) -> dict[str, Any]:
    """Return means over the seeds, the difference from the Combiner, and each seed's numbers."""
    ours = [score.evaluation for score in rows[name]]
    headline = ours[0].default_metric
    over_tasks = [metric for metric in ours[0] if "/" not in metric or metric.startswith("mean/")]
    pairs = [
        compare(base.evaluation, own, changes=0, resamples=2000).differences[headline]
        for base, own in zip(rows[BASE], ours, strict=True)
    ]
    each = [pair.difference for pair in pairs]
    difference = statistics.fmean(each)
    if drawn and len(each) > 1:
        interval = student(each)
    else:
        interval = (
            statistics.fmean(pair.low for pair in pairs),
            statistics.fmean(pair.high for pair in pairs),
        )
    return {
        "metrics": {m: statistics.fmean(one[m] for one in ours) for m in over_tasks},
        "headline": headline,
        "difference": difference,
        "interval": interval,
        "scores": [one[headline] for one in ours],
        "differences": each,
        "seconds": statistics.fmean(score.seconds for score in rows[name]),
        **cost._asdict(),
    }


def table(recipes: Mapping[str, Numbers]) -> Table:
    """Return the table of a dataset: all numbers of the last recipe, the headline of the others."""
    *others, (last, numbers) = recipes.items()
    first = next(iter(numbers.values()))
    headline = first["headline"]
    metrics = [m for m in first["metrics"] if "recall" in m and m != headline] + [headline]
    rows = []
    for name, found in ranked(numbers):
        cells = [name]
        for _, other in others:
            cells += [f"{other[name]['metrics'][headline]:.2f}", against_base(name, other[name])]
        cells += [f"{found['metrics'][metric]:.2f}" for metric in metrics]
        parameters = found["parameters"]
        cells += [against_base(name, found), f"{found['seconds']:.1f}"]
        cells += [f"{parameters / 1e6:.1f} M" if parameters >= 1e5 else f"{parameters}"]
        rows.append([*cells, f"{found['milliseconds']:.2f}"])
    head = [text for name, _ in others for text in (f"{name} recipe: {short(headline)}", AGAINST)]
    head += [f"{last} recipe: {short(metrics[0])}", *map(short, metrics[1:]), AGAINST, "training s"]
    return Table(["", *head, "parameters", "ms a query"], rows, [], recipes)


def ranked(numbers: Numbers) -> list[tuple[str, dict[str, Any]]]:
    """Return the fusions, the best by the headline first."""
    return sorted(numbers.items(), key=lambda item: -item[1]["metrics"][item[1]["headline"]])


def short(metric: str) -> str:
    """Shorten the name of a metric."""
    return metric.removeprefix("mean/").replace("recall_subset@", "Rs@").replace("recall@", "R@")


def against_base(name: str, found: Mapping[str, Any]) -> str:
    """Return the difference from the Combiner, its interval and the seeds that are better."""
    if name == BASE:
        return ""
    (low, high), each = found["interval"], found["differences"]
    better = sum(difference > 0 for difference in each)
    return f"{found['difference']:+.2f} [{low:+.2f}, {high:+.2f}], {better}/{len(each)}"


def draw(content: Mapping[str, Mapping[str, Numbers]], path: Path) -> None:
    """Draw the headline over the milliseconds of a query, a panel a dataset."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1 + 5.5 * len(content), 5.5), layout="constrained")
    panels = figure.subplots(1, len(content), squeeze=False)[0]
    for axes, (dataset, recipes) in zip(panels, content.items(), strict=True):
        draw_panel(axes, dataset, recipes)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=2, fontsize=9, frameon=False)
    figure.savefig(path, dpi=150)


def draw_panel(axes: "Axes", dataset: str, recipes: Mapping[str, Numbers]) -> None:
    """Draw a point a fusion and recipe, with the names of the fusions in the right margin."""
    from matplotlib.ticker import LogLocator

    *_, last = recipes.values()
    headline = next(iter(last.values()))["headline"]
    for name, found in last.items():
        heights = [numbers[name]["metrics"][headline] for numbers in recipes.values()]
        axes.plot([found["milliseconds"]] * len(heights), heights, color="#d1d5db", linewidth=1.5)
    for (recipe, numbers), colour in zip(recipes.items(), ("#9ca3af", "#0a8f3c"), strict=True):
        points = [(one["milliseconds"], one["metrics"][headline]) for one in numbers.values()]
        axes.plot(*zip(*points, strict=True), "o", color=colour, label=f"{recipe} recipe")
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.minorticks_off()
    axes.set_title(dataset, fontsize=11, loc="left")
    axes.set_xlabel("milliseconds a query", fontsize=9)
    axes.set_ylabel(f"{short(headline)}, per cent", fontsize=9)
    axes.grid(alpha=0.25, linewidth=0.5)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
    write_names(
        axes, [(name, one["milliseconds"], one["metrics"][headline]) for name, one in ranked(last)]
    )


def write_names(axes: "Axes", points: Sequence[tuple[str, float, float]]) -> None:
    """Write the names of points, the highest first, below each other, with lines to the points."""
    low, high = axes.get_ylim()
    heights = [(y - low) / (high - low) for _, _, y in points]
    step = 0.046
    for _ in range(100):  # push neighbours apart until nothing overlaps
        for upper in range(len(heights) - 1):
            overlap = step - (heights[upper] - heights[upper + 1])
            if overlap > 0:
                heights[upper] += overlap / 2
                heights[upper + 1] -= overlap / 2
    for (name, x, y), height in zip(points, heights, strict=True):
        line = {"arrowstyle": "-", "color": "#9ca3af", "linewidth": 0.5, "relpos": (0, 0.5)}
        axes.annotate(
            name,
            (x, y),
            (1.05, height),
            textcoords="axes fraction",
            va="center",
            fontsize=8,
            arrowprops=line,
        )
