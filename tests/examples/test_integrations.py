"""The integrations give what fusecomp itself gives."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import make_tokenizer, make_transformers

import fusecomp as fc
from fusecomp._core.files import read_tensors

FOLDER = Path(__file__).parents[2] / "examples" / "integrations"
OTHERS_WARN = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(FOLDER)


@pytest.fixture
def sentence_transformers(torchvision: None) -> Any:
    return pytest.importorskip(
        "sentence_transformers", minversion="5.4", reason="needs sentence-transformers 5.4"
    )


def test_sentence_transformers_encodes_composed_queries(
    sentence_transformers: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    import with_sentence_transformers as example

    model, ids, texts = example.toy_model()
    st = sentence_transformers.SentenceTransformer(modules=[example.ComposedQueries(model)])
    images, words = ids[:7], [texts[n % 2] for n in range(7)]
    pairs = [{"image": i, "text": t} for i, t in zip(images, words, strict=True)]
    queries, targets = st.encode(pairs, batch_size=3), st.encode([{"image": i} for i in ids])
    np.testing.assert_allclose(queries, model.encode_query(images, words), atol=1e-6)
    np.testing.assert_allclose(targets, model.encode_gallery(ids), atol=1e-6)
    with pytest.raises(ValueError, match="text"):
        st.encode("a text alone")
    example.main()
    assert "accuracy@5" in capsys.readouterr().out


def test_a_model_inside_sentence_transformers_is_saved_as_itself(
    sentence_transformers: Any, tmp_path: Path
) -> None:
    import with_sentence_transformers as example

    model, ids, texts = example.toy_model()
    example.ComposedQueries(model).save(str(tmp_path / "model"))
    loaded = fc.ComposedEncoder.load(tmp_path / "model", model.encoder)
    assert torch.equal(
        loaded.encode_query(ids[:1], texts[:1]), model.encode_query(ids[:1], texts[:1])
    )


@OTHERS_WARN
def test_a_clip_of_sentence_transformers_is_an_encoder(
    sentence_transformers: Any, transformers: Any, tmp_path: Path
) -> None:
    make_transformers(transformers, "clip").save_pretrained(tmp_path)
    size = {"size": {"shortest_edge": 16}, "crop_size": {"height": 16, "width": 16}}
    images = transformers.CLIPImageProcessor(**size)
    transformers.CLIPProcessor(images, make_tokenizer(transformers)).save_pretrained(tmp_path)
    st = sentence_transformers.SentenceTransformer(str(tmp_path))
    encoder = fc.encoders.TransformersEncoder(
        st[0].model, st.tokenizer, st.processor.image_processor
    )
    image = Image.new("RGB", (20, 30), (200, 10, 60))
    image.save(tmp_path / "image.png")
    assert encoder.load_image is not None
    with torch.no_grad():
        text = encoder.encode_text(["is red"])
        features = encoder.encode_image(encoder.load_image(tmp_path / "image.png")[None])
    np.testing.assert_allclose(st.encode(["is red"]), text, atol=1e-6)
    np.testing.assert_allclose(st.encode([image]), features, atol=1e-6)


@pytest.mark.filterwarnings("ignore")  # of mteb's packages
def test_mteb_measures_the_recall_of_evaluate(
    torchvision: None, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("mteb", reason="needs mteb")
    import with_mteb as example

    example.main()
    rows = [line.split() for line in capsys.readouterr().out.splitlines() if "recall@" in line]
    assert [row[0] for row in rows] == ["recall@1:", "recall@10:", "recall@100:"]
    for _, _, theirs, _, ours in rows:
        assert float(theirs.rstrip(",")) == pytest.approx(float(ours), abs=0.011)
    rows_of_one = [fc.Triplet("0", "a", ("is red",), "b")]
    with pytest.raises(ValueError, match="exclude_reference=False"):
        example.define_task(fc.datasets.Triplets(rows_of_one))


@pytest.mark.heavy
@pytest.mark.parametrize("count", [1, 2])
def test_the_loop_of_accelerate_equals_fit_and_resumes(
    tmp_path: Path, count: int, torchvision: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("accelerate", reason="needs accelerate")
    import with_accelerate as example

    monkeypatch.setenv("PYTHONPATH", str(FOLDER.parents[1]))
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
    script = [str(FOLDER / "with_accelerate.py"), "--folder", str(tmp_path / "state")]
    command = [sys.executable, *(torchrun if count > 1 else []), *script]
    for further in (["--stop-after", "1"], []):
        done = subprocess.run([*command, *further], capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("epoch") == (1 if further else 2)
    train, model, loss = example.parts()
    expected = fc.Trainer(model, loss=loss, config=example.CONFIG).fit(train).model.state_dict()
    for name, weight in read_tensors(tmp_path / "state" / "custom_checkpoint_0.pkl").items():
        torch.testing.assert_close(weight, expected[name], rtol=0, atol=0 if count == 1 else 1e-6)
