"""What each page says that its reader has: a CLIP under its name, a dataset, a model; all tiny."""

import hashlib
import json
import re
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from fashioniq_files import CATEGORIES
from matplotlib import font_manager
from PIL import Image
from tiny import make_open_clip, make_tokenizer, make_transformers
from torch import Tensor, nn

import fusecomp as fc
from fusecomp.types import Tokens

ROOT = Path(__file__).resolve().parents[2]
DIM = 640
Names = dict[str, Any]


def load(path: Path) -> Tensor:
    """The image of a file is drawn from its bytes."""
    return torch.tensor(list(hashlib.sha256(path.read_bytes()).digest())) / 255


class Words(nn.Module):
    """A text is the mean of its words' vectors, and each of them a token."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(64, DIM)

    def encode_tokens(self, texts: Sequence[str]) -> tuple[Tensor, Tokens]:
        rows = [torch.tensor([sum(map(ord, word)) % 64 for word in text.split()]) for text in texts]
        numbers = nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-1)
        values, mask = self.words(numbers.clamp_min(0)), numbers >= 0
        return (values * mask[..., None]).sum(1) / mask.sum(1, keepdim=True), Tokens(values, mask)

    def forward(self, texts: Sequence[str]) -> Tensor:
        return self.encode_tokens(texts)[0]


def encoder() -> fc.DualEncoder:
    torch.manual_seed(0)
    return fc.DualEncoder(nn.Linear(32, DIM), Words(), load_image=load)


def model() -> fc.ComposedEncoder:
    return fc.ComposedEncoder(encoder(), fc.Combiner(dim=DIM))


def brief(patch: pytest.MonkeyPatch) -> None:
    """One epoch for a stage, and few weights for a Combiner."""
    config, narrow = fc.StageConfig, partial(fc.Combiner, projection_dim=8, hidden_dim=8)
    narrow.from_published = fc.Combiner.from_published  # type: ignore[attr-defined]
    patch.setattr(fc, "StageConfig", lambda **settings: config(**settings | {"epochs": 1}))
    patch.setattr(fc, "Combiner", narrow)


def fashioniq(request: pytest.FixtureRequest) -> None:
    """The folder ``fashionIQ_dataset`` with images, and the one that the pages ask with."""
    root: Path = request.getfixturevalue("tiny_fashioniq")
    split = root / "image_splits" / "split.dress.val.json"
    split.write_text(json.dumps([*json.loads(split.read_text()), "B005X4PL1G"]))
    names = [name for path in root.glob("image_splits/*") for name in json.loads(path.read_text())]
    for number, name in enumerate(names):
        Image.new("RGB", (40, 60), (number, 99, 255 - number)).save(root / "images" / f"{name}.png")


def datasets() -> Names:
    """FashionIQ's training and validation."""
    splits = {
        split: fc.datasets.FashionIQ("fashionIQ_dataset", split) for split in ("train", "val")
    }
    assert len(splits["val"]) == 8 * len(CATEGORIES)
    return dict(splits)


def caching(request: pytest.FixtureRequest, patch: pytest.MonkeyPatch) -> Names:
    fashioniq(request)
    return {"encoder": encoder(), "fusion": fc.Sum(), **datasets()}


def clip(request: pytest.FixtureRequest, patch: pytest.MonkeyPatch) -> Names:
    open_clip_models(request, patch)
    sentences = pytest.importorskip("sentence_transformers", reason="needs the extra sentence")
    minilm = request.getfixturevalue("minilm")
    patch.setattr(sentences, "SentenceTransformer", lambda name: minilm)
    library = request.getfixturevalue("transformers")
    made = {
        "AutoModel": make_transformers(library, "siglip"),
        "AutoTokenizer": make_tokenizer(library),
        "AutoImageProcessor": library.SiglipImageProcessor(size={"height": 16, "width": 16}),
    }
    for name, part in made.items():
        patch.setattr(getattr(library, name), "from_pretrained", lambda _, part=part: part)
    return {"vision": nn.Linear(32, 768), "load": load}


def open_clip_models(request: pytest.FixtureRequest, patch: pytest.MonkeyPatch) -> Any:
    """Let open_clip give a tiny ResNet of CLIP under every name."""
    library = request.getfixturevalue("open_clip")
    made = make_open_clip("resnet", dim=DIM), None, fc.images.clip_transform(32)
    patch.setattr(library, "create_model_and_transforms", lambda name, pretrained: made)
    return library


def fusions(request: pytest.FixtureRequest, patch: pytest.MonkeyPatch) -> Names:
    library = request.getfixturevalue("open_clip")
    return {
        "clip": make_open_clip("resnet", dim=DIM, width=DIM, heads=10, layers=1),
        "tokenizer": library.get_tokenizer("RN50"),
        "preprocess": fc.images.clip_transform(32),
    }


def index(request: pytest.FixtureRequest, patch: pytest.MonkeyPatch) -> Names:
    fashioniq(request)
    open_clip_models(request, patch)
    brief(patch)
    return {}


def indexes(request: pytest.FixtureRequest, patch: pytest.MonkeyPatch) -> Names:
    needs = {"faiss": "the extra faiss", "pymilvus": "the extra milvus", "sklearn": "scikit-learn"}
    for name, extra in needs.items():
        pytest.importorskip(name, reason=f"needs {extra}")
    servers = pytest.importorskip("milvus_lite.server_manager", reason="needs the extra milvus")
    # The file's server; the page makes it.
    request.addfinalizer(servers.server_manager_instance.release_all)
    fashioniq(request)
    val = fc.datasets.FashionIQ("fashionIQ_dataset", "train")
    triplets = val.triplets()
    return {
        "model": fc.ComposedEncoder(encoder(), fc.Sum()),
        "val": val,
        "attributes": {"number": list(range(len(val.image_ids)))},
        "references": [val.path(triplet.reference_id) for triplet in triplets],
        "texts": [triplet.texts[0] for triplet in triplets],
    }


def integrations(request: pytest.FixtureRequest, patch: pytest.MonkeyPatch) -> Names:
    library = request.getfixturevalue("transformers")
    pytest.importorskip(
        "sentence_transformers", minversion="5.4", reason="needs sentence-transformers 5.4"
    )
    # Their own.
    warnings.simplefilter("ignore", DeprecationWarning)
    warnings.simplefilter("ignore", UserWarning)
    make_transformers(library, "clip").save_pretrained("clip-ViT-B-32")
    size = {"size": {"shortest_edge": 16}, "crop_size": {"height": 16, "width": 16}}
    processor = library.CLIPProcessor(library.CLIPImageProcessor(**size), make_tokenizer(library))
    processor.save_pretrained("clip-ViT-B-32")
    patch.syspath_prepend(ROOT / "examples" / "integrations")
    for name in ("dress", "other"):
        Path(f"{name}.jpg").write_text(name)
    return {"model": model()}


def many_gpus(request: pytest.FixtureRequest, patch: pytest.MonkeyPatch) -> Names:
    pytest.importorskip("lightning_fabric", reason="needs the extra fabric")
    first = re.search(r"^```python\n(.*?)^```", page("many-gpus"), re.DOTALL | re.MULTILINE)
    assert first is not None
    Path("mine.py").write_text(first[1])
    patch.syspath_prepend(".")
    patch.setitem(sys.modules, "mine", None)
    del sys.modules["mine"]
    # One process is a group too.
    where = Path("processes").absolute().as_uri()
    torch.distributed.init_process_group("gloo", where, rank=0, world_size=1)
    request.addfinalizer(torch.distributed.destroy_process_group)
    brief(patch)
    return {"encoder": encoder(), "device": "cpu"}


def protocols(request: pytest.FixtureRequest, patch: pytest.MonkeyPatch) -> Names:
    root, folder = Path("CIRCO"), "COCO2017_unlabeled/unlabeled2017"
    names = {number: f"{number:012}.jpg" for number in range(60)}
    images = [{"id": number, "file_name": name} for number, name in names.items()]
    put(root / "COCO2017_unlabeled/annotations/image_info_unlabeled2017.json", {"images": images})
    for name in names.values():
        put(root / folder / name, name)
    rows = [
        {"id": n, "reference_img_id": n, "relative_caption": f"has {n}", "shared_concept": "a dog"}
        for n in range(4)
    ]
    known = [{"target_img_id": n + 9, "gt_img_ids": [n + 9, n + 20]} for n in range(4)]
    aspects = {"semantic_aspects": ["negation"]}
    put(root / "annotations/val.json", [a | b | aspects for a, b in zip(rows, known, strict=True)])
    put(root / "annotations/test.json", rows)
    return {"model": fc.ComposedEncoder(encoder(), fc.Sum())}


def put(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def published_weights(request: pytest.FixtureRequest, patch: pytest.MonkeyPatch) -> Names:
    fashioniq(request)
    tokenizer = request.getfixturevalue("open_clip").get_tokenizer("RN50")
    tuned = fc.encoders.OpenClipEncoder(
        make_open_clip("resnet", dim=DIM, width=64, heads=1), tokenizer
    )
    tuned.save_clip4cir("tuned_clip_best.pt")
    combiner = fc.Combiner(DIM, projection_dim=8, hidden_dim=8)
    torch.save({"epoch": 0, "Combiner": combiner.state_dict()}, "combiner.pt")
    return {}


def reports(request: pytest.FixtureRequest, patch: pytest.MonkeyPatch) -> Names:
    fashioniq(request)
    brief(patch)
    known = font_manager.findfont("DejaVu Sans")
    entry = font_manager.FontEntry(fname=known, name="Noto Sans CJK SC")
    patch.setattr(font_manager.fontManager, "ttflist", [*font_manager.fontManager.ttflist, entry])
    Path("fonts").mkdir()
    Path("fonts/NotoEmoji-Regular.ttf").write_bytes(Path(known).read_bytes())
    names = datasets()
    combined = model()
    config = fc.StageConfig(epochs=1, batch_size=8, lr=1e-3)
    trainer = fc.Trainer(combined, loss=fc.InfoNCE(), config=config, workdir="runs/mine/stage2")
    trainer.fit(names["train"], names["val"])
    return names | {
        "model": combined,
        "models": {"Sum": fc.ComposedEncoder(combined.encoder, fc.Sum()), "Combiner": combined},
        "combiner": combined.fusion,
        "cached": fc.CachedEncoder.build(combined.encoder, names["val"]),
    }


def reproduce(request: pytest.FixtureRequest, patch: pytest.MonkeyPatch) -> Names:
    fashioniq(request)
    return {"encoder": encoder()}


def reproduce_cirr(request: pytest.FixtureRequest, patch: pytest.MonkeyPatch) -> Names:
    request.getfixturevalue("tiny_cirr")
    return {"model": fc.ComposedEncoder(encoder(), fc.Sum())}


def sessions(request: pytest.FixtureRequest, patch: pytest.MonkeyPatch) -> Names:
    fashioniq(request)
    for category in CATEGORIES:
        first, second, third = (f"{category[0].upper()}val{number:02d}" for number in range(3))
        turns = [["", [f"is like {name}", "is new"], name] for name in (first, second)]
        root = Path("multiturn_fashioniq")
        put(root / f"data/{category}.val.json", [{"target": ["", third], "reference": turns}])
        put(root / f"image_splits/split.{category}.val.json", [first, second, third])
    return {
        "model": fc.ComposedEncoder(encoder(), fc.Sum()),
        "val": datasets()["val"],
        "describe_difference": lambda shown, target: f"is {target}, not {shown}",
    }


def demo(request: pytest.FixtureRequest, patch: pytest.MonkeyPatch) -> Names:
    pytest.importorskip("starlette", reason="needs the extra demo")
    pytest.importorskip("uvicorn", reason="needs the extra demo")
    from demo import serve

    for name in ("a", "b"):
        put(Path(f"images/{name}.png"), name)
    Path("mine.csv").write_text("reference,text,target,split\na,is blue,b,val\n")
    made = model()
    made.save("runs/mine/model")
    images = fc.Gallery.build(made, ["a.png", "b.png"], lambda name: Path("images") / name)
    images.save("runs/mine/gallery.safetensors")
    # It makes what is served, and serves nothing.
    patch.setattr(serve, "serve", lambda make, browser: make(print))
    return {"make_my_encoder": encoder}


def watch(request: pytest.FixtureRequest, patch: pytest.MonkeyPatch) -> Names:
    for name in ("tensorboard", "tqdm"):
        pytest.importorskip(name, reason=f"needs the extra {name}")
    patch.setitem(sys.modules, "wandb", Mock())
    config = fc.StageConfig(epochs=1, batch_size=8, lr=1e-3)
    stages = {"a": replace(config, trainable="text"), "b": config}
    return {"encoder": encoder(), "fusion": model().fusion, "loss": fc.InfoNCE(), **stages}


def page(name: str) -> str:
    return (ROOT / "docs" / f"{name}.md").read_text("utf-8")


# By page: makes its files in the current folder, and returns the names that it says are there.
SETTINGS: dict[str, Callable[[pytest.FixtureRequest, pytest.MonkeyPatch], Names]] = {
    "caching": caching,
    "clip": clip,
    "demo": demo,
    "fusions": fusions,
    "index": index,
    "integrations": integrations,
    "indexes": indexes,
    "many-gpus": many_gpus,
    "published-weights": published_weights,
    "reports": reports,
    "reproduce": reproduce,
    "reproduce-cirr": reproduce_cirr,
    "protocols": protocols,
    "sessions": sessions,
    "watch": watch,
}
