"""Make every report of a finished run of fashioniq_repro.py: figures, page, comparison.

    python examples/fashioniq_repro.py --workdir runs/fashioniq      # the run to read
    python examples/reports.py --workdir runs/fashioniq
    fusecomp compare "runs/fashioniq/evaluations/tuned, Sum.npz" \\
        "runs/fashioniq/evaluations/tuned, Combiner.npz"

Writes evaluations/ROW.npz, results.html, cosines.json and .png and curves-STAGE.png into the
workdir, the figures last. Needs the extra report; all but the figures do without matplotlib.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import command_line
import finished_run
import torch
from torch import Tensor

import fusecomp as fc
from fusecomp.evaluation import compare, cosines
from fusecomp.report import (
    PageOptions,
    ablation_table,
    cosine_figure,
    interval_table,
    retrieval_page,
    training_curves,
)

TITLE = "MiniFashion, tuned encoder and Combiner (drawn; typos in captions are meant)"


def gates(model: fc.ComposedEncoder, evaluation: fc.Evaluation) -> Mapping[str, Tensor]:
    """Return the Combiner's weight of the text for each query, by task."""
    encoder, combiner = model.encoder, model.fusion
    assert isinstance(combiner, fc.Combiner)
    found = {}
    with torch.no_grad():
        for name, ranking in evaluation.ranking.items():
            queries = ranking.task.queries
            images = encoder.encode_image([query.reference_id for query in queries])
            texts = encoder.encode_text([query.texts[0] for query in queries])
            found[name] = combiner.eval().gate(images, texts)
    return found


def main() -> None:
    """Write the reports."""
    args = finished_run.parse_arguments(__doc__)
    workdir: Path = args.workdir
    root, live = finished_run.open_run(workdir, args.seed)
    val = finished_run.validation(root)
    models = {
        name: fc.ComposedEncoder(fc.CachedEncoder.build(model.encoder, val), model.fusion)
        for name, model in live.items()
    }
    rows = {name: fc.evaluate(model, val) for name, model in models.items()}
    for name, evaluation in rows.items():
        evaluation.save(workdir / "evaluations" / f"{name}.npz")
    best = rows["tuned, Combiner"]
    retrieval_page(
        best,
        val,
        workdir / "results.html",
        PageOptions(title=TITLE),
        gates=gates(models["tuned, Combiner"], best),
    )
    gaps = {name: cosines(model, val) for name, model in models.items()}
    numbers = {name: gap.to_dict() for name, gap in gaps.items()}
    (workdir / "cosines.json").write_text(json.dumps(numbers, indent=2) + "\n")
    print(f"{ablation_table(rows)}\n")
    print(f"tuned, Combiner\n{interval_table(best)}\n")
    for name, gap in gaps.items():
        print(f"{name:<16} {gap}")
    names = ("tuned, Sum", "tuned, Combiner")
    print(f"\n{compare(*(rows[name] for name in names), names=names)}")
    cosine_figure(gaps, workdir / "cosines.png")
    for stage in ("plain/stage2", "tuned/stage1", "tuned/stage2"):
        log = finished_run.trainings(workdir, args.seed) / stage
        training_curves(log, workdir / f"curves-{stage.replace('/', '-')}.png", val.protocol)
    print(f"\nfigures, page and evaluations in {workdir}")


if __name__ == "__main__":
    command_line.command(main)
