import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from fusecomp import fusions
from fusecomp._core.checks import as_path, as_text, require_kind
from fusecomp._core.model_card import model_card, plain, require_unedited, write_card
from fusecomp._core.saved_model import read_model
from fusecomp.evaluation import Evaluation
from fusecomp.report._score_tables import interval_table


def write_model_card(
    folder: str | Path,
    evaluation: Evaluation,
    *,
    title: str = "",
    note: str = "",
    settings: Mapping[str, object] | None = None,
) -> None:
    """Write the scores of a saved model into its card, ``README.md``, which can be uploaded as is.

    The card has a head in YAML as model hubs read it, the method with its reference, the settings,
    the protocol, each score with its 95 % interval, and how to load the model. The license is left
    to you. What the card held before is replaced, unless somebody has edited it.

    Args:
        folder: what ``ComposedEncoder.save`` wrote.
        evaluation: of this model.
        title: the headline; by default the fusion's and the encoder's class.
        note: a paragraph in Markdown, such as what the model was trained on.
        settings: of the training, by name, such as ``{"seed": 0}``.

    Raises:
        TypeError: if an argument is something else.
        FileNotFoundError: if there is no such folder.
        ValueError: if it holds no whole model, or its card was edited.
        OSError: if writing fails.
    """
    path = as_path("folder", folder)
    as_text("title", title)
    as_text("note", note)
    require_kind("settings", settings, Mapping | None, "a mapping")
    scores = _scores(evaluation)
    saved = read_model(path)
    require_unedited(path)
    sections = ["## Training"] if note or settings else []
    if note:
        sections.append(note)
    if settings:
        sections.append("\n".join(f"- {plain(n)}: {plain(str(v))}" for n, v in settings.items()))
    name = title or f"{saved.parts.fusion} on {saved.parts.encoder}"
    card = model_card(
        asdict(saved.parts),
        vars(fusions)[saved.parts.fusion].__doc__ if saved.parts.arguments is not None else None,
        [*sections, scores],
        title=title,
        head={"model-index": [{"name": name, "results": [_result(evaluation)]}]},
    )
    write_card(path, card)


def _scores(evaluation: Evaluation) -> str:
    table = interval_table(evaluation)
    rows = [f"| {' | '.join(map(plain, row))} |" for row in table.rows]
    head = ["| metric | value | 95 % interval |", "| --- | ---: | ---: |"]
    notes = [f"{plain(note)}." for note in table.notes]
    return "\n\n".join(["## Scores", "\n".join([*head, *rows]), *notes])


def _result(evaluation: Evaluation) -> dict[str, object]:
    """Return the scores as the head lists them."""
    protocol = evaluation.protocol
    name = protocol.get("dataset", "unnamed")
    # A type is the name of a dataset on a hub, where odd characters are none.
    dataset = {"name": name, "type": re.sub(r"[^A-Za-z0-9._-]+", "-", name)}
    if "split" in protocol:
        dataset["split"] = protocol["split"]
    return {
        "task": {"type": "composed-image-retrieval", "name": "Composed image retrieval"},
        "dataset": dataset,
        "metrics": [
            {"type": name.rpartition("/")[2], "name": name, "value": round(value, 2)}
            for name, value in evaluation.items()
        ],
    }
