"""Many processes train as one: order, validation, files, warnings, errors."""

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from exact import CONFIG, Scaled, all_weights, composed, furthest, load_wide
from processes import Processes
from torch import Tensor
from toy import DIM, Toy, assert_same, first_epoch

import fusecomp as fc
from fusecomp import distributed
from fusecomp.training import batches


def sizes(root: Path, config: fc.StageConfig, rows: int) -> list[int]:
    trainer = fc.Trainer(composed(), loss=fc.InfoNCE(), config=config)
    return [len(batch) for batch in first_epoch(trainer, Toy(root, rows=rows))]


def test_each_process_gets_a_contiguous_share(tmp_path: Path, three: Processes) -> None:
    assert three.run(sizes, tmp_path, CONFIG, 24) == [[4, 4, 2], [3, 3, 1], [3, 3, 1]]
    # A last batch of two rows is too small for three processes: it joins the one before.
    assert three.run(sizes, tmp_path, CONFIG, 22) == [[4, 4], [3, 4], [3, 4]]


def test_fewer_rows_than_processes_are_refused(tmp_path: Path, three: Processes) -> None:
    config = replace(CONFIG, batch_size=2)
    with pytest.raises(RuntimeError, match="batch_size=2 is less than a row for each of 3"):
        three.run(sizes, tmp_path, config, 24)


def order_of_rows(root: Path) -> list[str]:
    config = replace(CONFIG, batch_size=7)
    data = Toy(root, rows=20)
    encoder = fc.Trainer(composed(), loss=fc.InfoNCE(), config=config).prepare(data)
    return [
        name
        for batch in batches(data, encoder, config, epoch=1)
        for names in distributed.gather_objects(list(batch.query_ids))
        for name in names
    ]


def test_the_gathered_order_is_that_of_one_process(tmp_path: Path, three: Processes) -> None:
    alone = order_of_rows(tmp_path)
    assert three.run(order_of_rows, tmp_path) == [alone] * 3


def counted(root: Path) -> dict[str, Tensor]:
    """What a BatchNorm has counted, beside an encoder that sees it in evaluation too."""
    data = Toy(root, rows=16)
    model = composed(batchnorm=True)
    config = replace(CONFIG, trainable="both", encoder_mode="train", epochs=1)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "BatchNorm of the encoder learns")
        fc.Trainer(model, loss=fc.InfoNCE(0.1), config=config).fit(data)
    return {name: value.clone() for name, value in model.named_buffers()}


def test_batchnorm_has_counted_the_same_on_all_processes(tmp_path: Path, two: Processes) -> None:
    first, second = two.run(counted, tmp_path)
    assert first
    assert_same(first, second)


def validated(root: Path, workdir: Path) -> tuple[dict[str, float], list[dict[str, float]]]:
    data = Toy(root, rows=17)
    run = fc.Trainer(composed(), loss=fc.InfoNCE(0.1), config=CONFIG, workdir=workdir).fit(
        data, data
    )
    return dict(run.metrics), [dict(record) for record in run.history]


def judged(root: Path) -> list[dict[str, float]]:
    """Each process measures something else, as rounding may make it."""
    real = fc.evaluate

    def evaluate(*arguments: Any, **more: Any) -> fc.Evaluation:
        evaluation = real(*arguments, **more)
        return replace(evaluation, metrics={**evaluation.metrics, "mean": distributed.get_rank()})

    data = Toy(root, rows=17)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fusecomp.training._trainer.evaluate", evaluate)
        run = fc.Trainer(composed(), loss=fc.InfoNCE(0.1), config=CONFIG).fit(data, data)
    return [dict(record) for record in run.history]


def test_the_first_process_judges_for_all(tmp_path: Path, two: Processes) -> None:
    first, second = two.run(judged, tmp_path)
    assert first == second
    assert [record["mean"] for record in second] == [0, 0]


def test_many_processes_validate_and_write_as_one(tmp_path: Path, two: Processes) -> None:
    one = validated(tmp_path, tmp_path / "one")
    for metrics, history in two.run(validated, tmp_path, tmp_path / "two"):
        assert metrics == pytest.approx(one[0], rel=1e-10)
        assert [pytest.approx(record, rel=1e-10) for record in one[1]] == history
    files = [
        sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.*"))
        for folder in (tmp_path / "one", tmp_path / "two")
    ]
    assert files[0] == files[1]


def sent(root: Path) -> list[list[int]]:
    """The shapes of all that is sent when a trainer is made."""
    data = Toy(root)
    shapes: list[list[int]] = []

    def watch(values: Any) -> None:
        shapes.extend(list(value.shape) for value in values)

    cached = fc.CachedEncoder.build(composed().encoder, data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fusecomp.training._trainer.broadcast", watch)
        model = fc.ComposedEncoder(cached, fc.Combiner(DIM).double())
        fc.Trainer(model, loss=Scaled(), config=replace(CONFIG, trainable="fusion"))
    return shapes


def test_weights_are_sent_and_cached_features_are_not(tmp_path: Path) -> None:
    expected = [list(p.shape) for p in (*fc.Combiner(DIM).parameters(), *Scaled().parameters())]
    assert sorted(sent(tmp_path)) == sorted(expected)


def in_a_folder_of_its_own(root: Path) -> str:
    """Only the first process finds the checkpoint."""
    data, config = Toy(root), replace(CONFIG, epochs=1)
    fc.Trainer(composed(), loss=fc.InfoNCE(0.1), config=config, workdir=root / "run").fit(
        data, data
    )
    workdir = root / ("run" if distributed.get_rank() == 0 else "elsewhere")
    with pytest.raises(ValueError) as caught:
        fc.Trainer(composed(), loss=fc.InfoNCE(0.1), config=config, workdir=workdir).fit(data, data)
    return str(caught.value)


def test_a_checkpoint_that_some_do_not_see_is_named(tmp_path: Path, two: Processes) -> None:
    for message in two.run(in_a_folder_of_its_own, tmp_path):
        assert "processes [1] do not see" in message
        assert "a disk that all share" in message


def resumed(root: Path, workdir: Path, epochs: int) -> dict[str, Tensor]:
    model = composed()
    config = replace(CONFIG, epochs=3, lr_schedule="cosine", ema_decay=0.9)

    class Stop(Exception):
        pass

    class StopAfter:
        def on_epoch(self, trainer: fc.Trainer, record: dict[str, float]) -> None:
            if record["epoch"] == epochs + 1:
                raise Stop

    try:
        data = Toy(root, rows=17)
        fc.Trainer(
            model, loss=fc.InfoNCE(0.1), config=config, workdir=workdir, callbacks=[StopAfter()]
        ).fit(data, data)
    except Stop:
        assert epochs < 3
    return all_weights(model, None)


def test_a_run_goes_on_with_another_number_of_processes(
    tmp_path: Path, two: Processes, three: Processes
) -> None:
    one = resumed(tmp_path, tmp_path / "straight", 3)
    two.run(resumed, tmp_path, tmp_path / "moved", 1)
    three.run(resumed, tmp_path, tmp_path / "moved", 2)
    assert furthest(one, resumed(tmp_path, tmp_path / "moved", 3)) < 1e-10


def warned_of(root: Path) -> list[str]:
    config = replace(CONFIG, encoder_mode="train")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fc.Trainer(composed(batchnorm=True), loss=fc.InfoNCE(), config=config)
    return [str(warning.message) for warning in caught]


def test_batchnorm_that_learns_from_shares_is_warned_of(tmp_path: Path, two: Processes) -> None:
    assert warned_of(tmp_path) == []
    for messages in two.run(warned_of, tmp_path):
        assert [message.partition(" ")[0] for message in messages] == ["BatchNorm"]


def changed_batch(root: Path) -> str:
    """The batch was that of one process; now each is to take as many."""
    config, data = replace(CONFIG, batch_size=2 * CONFIG.batch_size), Toy(root, rows=40)
    with pytest.raises(ValueError) as caught:
        fc.Trainer(composed(), loss=fc.InfoNCE(0.1), config=config, workdir=root / "run").fit(data)
    return str(caught.value)


def test_more_processes_with_another_global_batch_are_refused(
    tmp_path: Path, two: Processes
) -> None:
    fc.Trainer(composed(), loss=fc.InfoNCE(0.1), config=CONFIG, workdir=tmp_path / "run").fit(
        Toy(tmp_path, rows=40)
    )
    for message in two.run(changed_batch, tmp_path):
        assert "config.batch_size was 10 and is now 20" in message


def test_a_single_candidate_is_refused(tmp_path: Path) -> None:
    trainer = fc.Trainer(composed(), loss=fc.InfoNCE(), config=CONFIG)
    batch = next(first_epoch(trainer, Toy(tmp_path)))
    before = {name: weight.clone() for name, weight in all_weights(trainer.model, None).items()}
    with pytest.raises(ValueError, match="at least 2"):
        trainer.step(batch.rows(0, 1))
    assert furthest(before, all_weights(trainer.model, None)) == 0


def broken(root: Path) -> str:
    model = composed()
    data = Toy(root, rows=10)
    model.encoder.load_image = load_broken  # type: ignore[attr-defined]
    before = {name: weight.clone() for name, weight in all_weights(model, None).items()}
    with pytest.raises(fc.training.NonFiniteError) as caught:
        fc.Trainer(model, loss=fc.InfoNCE(0.1), config=replace(CONFIG, cache=False)).fit(data)
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name])
    return str(caught.value)


def load_broken(path: Path) -> Tensor:
    return load_wide(path) * (torch.nan if path.stem == "7" else 1.0)


def test_all_processes_name_the_broken_row(tmp_path: Path, two: Processes) -> None:
    for message in two.run(broken, tmp_path):
        # Image 7 is the reference of row 7 and the target of row 2.
        assert "'7'" in message
        assert "'2'" in message
