"""Make what the page needs where nobody has a model yet: drawn images, a model and a gallery.

    python examples/demo/quick_model.py --workdir runs/demo

It draws MiniFashion, pretrains two small encoders, trains a Combiner, and writes the files that
serve.py takes: model/, triplets.jsonl, data/images/ and, as the last one, gallery.safetensors.
"""

import argparse
import json
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))  # drawn data and small encoders
import tinyclip
from drawn import minifashion

import fusecomp as fc

DIM = 64


def make(workdir: Path, images: int = 400, pretrain_epochs: int = 8, epochs: int = 40) -> None:
    """Draw, train and save; the settings are the tutorial's."""
    print("drawing images of garments", flush=True)
    sizes = {"train_images": images, "val_images": images // 2, "train_triplets": images}
    root = minifashion.render(workdir / "data", val_queries=7 * images // 10, **sizes)
    train, val = (fc.datasets.FashionIQ(root, s, name="MiniFashion") for s in ("train", "val"))
    torch.manual_seed(0)
    image, text = tinyclip.TinyImageEncoder(DIM), tinyclip.TinyTextEncoder(DIM)
    encoder = fc.DualEncoder(image, text, load_image=tinyclip.load_image)

    def show(epoch: int, loss: float) -> None:
        print(f"pretraining the encoders, epoch {epoch + 1} of {pretrain_epochs}", flush=True)

    print("pretraining the encoders on images and descriptions", flush=True)
    tinyclip.pretrain(image, text, root, pretrain_epochs, progress=show)
    print("training the Combiner", flush=True)
    cached = fc.CachedEncoder.build(encoder, train, val)
    config = fc.StageConfig(epochs=epochs, batch_size=min(256, images), lr=1e-3)
    trainer = fc.Trainer(
        fc.ComposedEncoder(cached, fc.Combiner(DIM)),
        loss=fc.InfoNCE(temperature=0.05),
        config=config,
    )
    model = fc.ComposedEncoder(encoder, trainer.fit(train, val).model.fusion)
    print("saving the model and a gallery", flush=True)
    model.save(workdir / "model")
    rows = [
        {"reference": t.reference_id, "text": list(t.texts), "target": t.target_id}
        for t in val.triplets()
    ]
    (workdir / "triplets.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    fc.Gallery.build(model, val.image_ids, val.path).save(workdir / "gallery.safetensors")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workdir", type=Path, default=Path("runs/demo"))
    make(parser.parse_args().workdir)
