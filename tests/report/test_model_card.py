"""The model card: a README.md that can be uploaded as it is."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from composing import TEXTS, cached, combiner, live
from raising import own_error

import fusecomp as fc
from fusecomp.evaluation import bootstrap
from fusecomp.report import write_model_card

HOSTILE = "a | b\n---\n# x <script>alert(1)</script> `$x$` ```\n![](http://x) \x00\u202e\ud800 \\"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    fc.ComposedEncoder(live(), combiner()).save(tmp_path / "model")
    return tmp_path / "model"


def text_of(folder: Path) -> str:
    return (folder / "README.md").read_text()


def head_of(text: str) -> dict[str, Any]:
    _, head, _ = text.split("---\n", 2)
    lines = [line for line in head.splitlines() if not line.startswith("#")]
    return {name: json.loads(value) for name, value in (line.split(": ", 1) for line in lines)}


def table_below(text: str, title: str) -> list[list[str]]:
    """The cells of the first table of a section, as Markdown shows them."""
    section = text.split(f"\n## {title}\n", 1)[1]
    rows = re.findall(r"^\| (.*) \|$", section.split("\n## ")[0], re.MULTILINE)
    cells = [re.split(r"(?<!\\) \| ", row) for row in rows if not row.startswith("---")]
    return [[re.sub(r"\\([\W_])", r"\1", cell) for cell in row] for row in cells]


def test_every_saved_model_has_a_card(folder: Path) -> None:
    text = text_of(folder)
    assert head_of(text) == {
        "library_name": "fusecomp",
        "tags": ["composed-image-retrieval", "image-retrieval", "fusecomp", "Combiner"],
    }
    assert "# license: " in text.split("---\n")[1]
    assert "\n# Combiner on DualEncoder\n" in text
    settings = "Combiner(dim=4, projection_dim=3, hidden_dim=5, dropout=0.5)"
    assert ["fusion", settings] in table_below(text, "Method")
    assert "CVPR Workshops 2022, https://github.com/ABaldrati/CLIP4Cir" in text
    assert "## Scores" not in text


def test_the_card_has_each_score_with_its_interval(folder: Path, evaluation: fc.Evaluation) -> None:
    write_model_card(
        folder, evaluation, title="Mine", note="On *toys*.", settings={"seed": 3, "lr": 0.1}
    )
    text = text_of(folder)
    intervals = bootstrap(evaluation)
    found = {name: (value, span) for name, value, span in table_below(text, "Scores")[1:]}
    assert len(found) == len(evaluation)
    for name, value in evaluation.items():
        low, high = intervals[name]
        shown = name.replace("recall@", "R@").replace("/", " ")
        assert found[shown] == (f"{value:.2f}", f"[{low:.2f}, {high:.2f}]")
    assert "dataset toy" in text
    assert "\n# Mine\n" in text
    assert "\nOn *toys*.\n\n- seed: 3\n- lr: 0.1\n" in text
    (entry,) = head_of(text)["model-index"]
    assert entry["name"] == "Mine"
    metrics = entry["results"][0]["metrics"]
    assert {m["name"]: m["value"] for m in metrics} == {
        n: round(v, 2) for n, v in evaluation.items()
    }


def test_the_hub_reads_the_head(folder: Path, evaluation: fc.Evaluation) -> None:
    hub = pytest.importorskip("huggingface_hub", reason="needs the extra hf")
    write_model_card(folder, evaluation, title=HOSTILE)
    data = hub.ModelCard(text_of(folder)).data
    assert data.library_name == "fusecomp"
    assert [r.metric_name for r in data.eval_results] == list(evaluation)
    assert {r.dataset_name for r in data.eval_results} == {"toy"}


@pytest.mark.parametrize("fusion", [combiner(), lambda image, text: image], ids=["ours", "own"])
def test_the_code_of_the_card_loads_the_model(
    tmp_path: Path, evaluation: fc.Evaluation, fusion: Any
) -> None:
    model = fc.ComposedEncoder(live(), fusion)
    model.save(tmp_path / "model")
    write_model_card(tmp_path / "model", evaluation)
    (code,) = re.findall(r"```python\n(.*?)```", text_of(tmp_path / "model"), re.DOTALL)
    loading = code.partition("query =")[0].replace("this/folder", str(tmp_path / "model"))
    for name in ("encoder", "fusion"):
        loading = loading.replace(f"{name} = ...", f"{name} = given_{name}")
    names: dict[str, Any] = {"given_encoder": live(1), "given_fusion": fusion}
    exec(compile(loading, "card", "exec"), names)
    images = torch.randn(3, 3)
    expected = model.encode_query(images, TEXTS)
    assert torch.equal(names["model"].encode_query(images, TEXTS), expected)


def test_a_model_on_features_says_whose(tmp_path: Path) -> None:
    fc.ComposedEncoder(cached(), combiner()).save(tmp_path / "model")
    assert "encoder = ...  # the one whose features it was trained on\n" in text_of(
        tmp_path / "model"
    )


def test_no_hostile_name_breaks_the_card(folder: Path, evaluation: fc.Evaluation) -> None:
    protocol = {"dataset": HOSTILE, "split": HOSTILE, HOSTILE: HOSTILE}
    ranking = replace(evaluation.ranking, protocol=protocol)
    metrics = {f"{HOSTILE}{number}": float(number) for number in range(2)}
    odd = fc.Evaluation(dict(evaluation.metrics), ranking)
    plain = text_of(folder)
    write_model_card(folder, odd, title=HOSTILE, settings=metrics)
    text = text_of(folder)
    assert text.count("\n---\n") == plain.count("\n---\n") == 1
    body = text.split("\n---\n", 1)[1].rpartition("<!--")[0]
    assert not re.search(r"(?<!\\)[<>!$]", body.replace("\\\\", ""))
    assert body.count("\n```") == plain.count("\n```")
    assert all(sign.isprintable() or sign == "\n" for sign in body)
    assert {len(row) for row in table_below(text, "Scores")} == {3}
    (entry,) = head_of(text)["model-index"]
    assert entry["results"][0]["dataset"]["name"] == HOSTILE


@pytest.mark.parametrize("title", ["a \U0001f600 b", "caf\u00e9 \\ud83d \\", "\x7f\x85\u2028"])
def test_every_title_is_read_from_the_head_as_it_is(
    folder: Path, evaluation: fc.Evaluation, title: str
) -> None:
    yaml = pytest.importorskip("yaml", reason="needs PyYAML")
    write_model_card(folder, evaluation, title=title)
    _, head, _ = text_of(folder).split("---\n", 2)
    assert head.isascii()
    assert yaml.safe_load(head)["model-index"][0]["name"] == title


def test_a_card_that_was_edited_is_not_replaced(folder: Path, evaluation: fc.Evaluation) -> None:
    model = fc.ComposedEncoder(live(2), combiner(2))
    write_model_card(folder, evaluation)
    model.save(folder)  # as it was written
    path = folder / "README.md"
    path.write_text(path.read_text().replace("# license: ", "license: mit # "))
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    other = fc.ComposedEncoder(live(), combiner())
    assert own_error(other.save, folder).startswith(f"{path} was edited or is of somebody else")
    assert own_error(write_model_card, folder, evaluation).startswith(f"{path} was edited")
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before
    back = fc.ComposedEncoder.load(folder, live())
    assert all(torch.equal(t, model.state_dict()[n]) for n, t in back.state_dict().items())
    path.unlink()
    write_model_card(folder, evaluation)
    other.save(folder)


def test_a_card_belongs_to_a_whole_model(tmp_path: Path, evaluation: fc.Evaluation) -> None:
    with pytest.raises(FileNotFoundError, match="no saved model"):
        write_model_card(tmp_path / "model", evaluation)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    with pytest.raises(ValueError, match="no saved ComposedEncoder"):
        write_model_card(tmp_path / "model", evaluation)
    assert [file.name for file in (tmp_path / "model").iterdir()] == ["config.json"]


@pytest.mark.parametrize(
    "arguments", [{"title": 3}, {"note": None}, {"settings": 3}, {"settings": ["seed"]}]
)
def test_a_wrong_argument_is_named(
    folder: Path, evaluation: fc.Evaluation, arguments: dict[str, Any]
) -> None:
    (name,) = arguments
    with pytest.raises(TypeError, match=f"{name} must be a "):
        write_model_card(folder, evaluation, **arguments)
