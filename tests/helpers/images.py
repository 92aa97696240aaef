"""Datasets in the hub's layout, of random images."""

import io

import numpy as np
import pytest
from PIL import Image

hf = pytest.importorskip("datasets")
SHAPE = (10, 7)
NAMES = ["cat", "dog", "owl"]


def encoded(pixels, form="PNG", **options):
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, form, **options)
    return stream.getvalue()


def random_images(n, shape=SHAPE, channels=3, seed=0):
    return (
        np.random.default_rng(seed)
        .integers(0, 256, (n, *shape, channels), dtype=np.uint8)
        .squeeze(-1 if channels == 1 else ())
    )


def write(folder, column="image", label="label", names=NAMES, shards=1, **splits):
    """A folder in the hub's layout: splits of encoded images and labels: words, where classes have no names."""
    kind = hf.ClassLabel(names=names) if names else hf.Value("string")
    features = hf.Features({column: hf.Image(decode=False), label: kind})
    for split, (images, labels) in splits.items():
        cells = [{"bytes": image, "path": f"{i}.img"} for i, image in enumerate(images)]
        table = hf.Dataset.from_dict({column: cells, label: labels}, features=features)
        table = table.cast_column(column, hf.Image())
        (folder / "data").mkdir(parents=True, exist_ok=True)
        for i in range(shards):
            table.shard(shards, i, contiguous=True).to_parquet(
                folder / "data" / f"{split}-{i:05}-of-{shards:05}.parquet"
            )
    return folder


def labels_for(n):
    return [i % 3 for i in range(n)]
