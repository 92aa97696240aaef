"""A stranger's folder of images: only ordinary files inside are read, and no program is started for them."""

import io
import os
import socket
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ref_bioplaus.experiments.data import inside, loading
from ref_bioplaus.experiments.data.loading import DataError

hf = pytest.importorskip("datasets")
pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")
pytestmark = pytest.mark.usefixtures("own_cache")
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 3\n%%EndComments\n(x) show\nshowpage\n%%EOF\n"


def image(form="PNG", seed=0):
    stream = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (3, 4), dtype=np.uint8)
    Image.fromarray(pixels).save(stream, form)
    return stream.getvalue()


def parquet(folder, cells, readme=""):
    """A folder in the hub's layout, of cells with bytes or a path."""
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table({"image": pa.array(cells, kind), "label": [i % 2 for i in range(len(cells))]})
    (folder / "data").mkdir(parents=True)
    for split in ("train", "test"):
        pq.write_table(table, folder / "data" / f"{split}-00000-of-00001.parquet")
    head = "dataset_info:\n  features:\n  - name: image\n    dtype: image\n  - name: label\n    dtype: int64\n"
    (folder / "README.md").write_text(f"---\n{head}{readme}---\n")
    return folder


def classes(folder, count=2):
    """A folder of a folder of images for each class."""
    for kind in ("cat", "dog"):
        (folder / "train" / kind).mkdir(parents=True)
        for i in range(count):
            (folder / "train" / kind / f"{i}.png").write_bytes(image(seed=i))
    return folder


GOOD = [{"bytes": image(seed=i), "path": None} for i in range(4)]


def refused(folder):
    """The sentence on a folder that is not read."""
    with pytest.raises(DataError) as caught:
        loading.load("x", folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_is_ordinary_is_read(tmp_path):
    assert loading.load("x", parquet(tmp_path / "parquet", GOOD)).train.count == 4
    folder = classes(tmp_path / "classes")
    os.symlink("0.png", folder / "train" / "cat" / "again.png")  # within the folder
    (folder / ".git").mkdir()
    os.mkfifo(folder / ".git" / "hidden")  # what nobody reads
    assert loading.load("x", folder).train.count == 5
    (tmp_path / "link").symlink_to(folder)
    assert loading.load("x", tmp_path / "link").train.count == 5
    readme = "configs:\n- config_name: default\n  data_files:\n  - split: train\n    path: data/../data/test-*\n"
    assert loading.load("x", parquet(tmp_path / "named", GOOD, readme)).train.count == 4


def test_a_part_of_a_hubs_cache_is_a_folder_too(tmp_path):
    """Its files are links to those beside it."""
    snapshot = tmp_path / "datasets--x--y" / "snapshots" / "0123"
    parquet(snapshot, GOOD)
    (tmp_path / "datasets--x--y" / "blobs").mkdir()
    for i, path in enumerate(sorted((snapshot / "data").iterdir())):
        path.rename(tmp_path / "datasets--x--y" / "blobs" / str(i))
        path.symlink_to(Path("..", "..", "..", "blobs", str(i)))
    assert loading.load("x", snapshot).train.count == 4


@pytest.mark.parametrize(
    "text",
    ["../elsewhere/private.parquet", "{elsewhere}/private.parquet", "file://{elsewhere}/private.parquet", "~/x.parquet",
     "http://127.0.0.1:{port}/x.parquet", "zip://x.parquet::http://127.0.0.1:{port}/x.zip",
     "hf://datasets/a/b/c.parquet", "data/link/private.parquet"],
)  # fmt: skip
@pytest.mark.parametrize("place", ["README.md", ".huggingface.yaml"])
def test_data_files_that_are_named_elsewhere_are_neither_read_nor_asked_for(tmp_path, text, place):
    elsewhere = parquet(tmp_path / "elsewhere", GOOD) / "private.parquet"
    (tmp_path / "elsewhere" / "data" / "train-00000-of-00001.parquet").rename(elsewhere)
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0)
        text = text.format(elsewhere=tmp_path / "elsewhere", port=server.getsockname()[1])
        configs = f"configs:\n- config_name: default\n  data_files:\n  - split: train\n    path: {text}\n"
        folder = parquet(tmp_path / "folder", GOOD, configs if place == "README.md" else "")
        (folder / "data" / "link").symlink_to(tmp_path / "elsewhere")
        if place != "README.md":
            (folder / place).write_text(configs)
        assert f'names the data files "{text}": only ordinary files inside the folder' in refused(folder)
        with pytest.raises(BlockingIOError):
            server.accept()


def test_links_that_lead_out_of_the_folder_are_not_followed(tmp_path):
    classes(tmp_path / "elsewhere")
    one = classes(tmp_path / "one")
    (one / "train" / "cat" / "9.png").symlink_to(tmp_path / "elsewhere" / "train" / "cat" / "0.png")
    assert 'The split "train" of' in refused(one)
    whole = classes(tmp_path / "whole")
    (whole / "train" / "owl").symlink_to(tmp_path / "elsewhere" / "train" / "dog")
    for readme in ("", "---\nconfigs:\n- config_name: default\n  data_files: train/*/*\n---\n"):
        (whole / "README.md").write_text(readme)
        try:  # `datasets` may not look through a folder that is a link, or find files there, which are refused
            assert loading.load("x", whole).classes == ("cat", "dog")
        except DataError as error:
            assert "only ordinary files inside the folder are read" in str(error)


@pytest.mark.parametrize("name", ["train/cat/1.png", "README.md", "data.parquet", ".huggingface.yaml"])
@pytest.mark.parametrize("kind", ["a pipe", "a device"])
def test_a_folder_with_a_pipe_or_a_device_does_not_hang(tmp_path, name, kind):
    folder = classes(tmp_path / "folder")
    (folder / name).unlink(missing_ok=True)
    if kind == "a pipe":
        os.mkfifo(folder / name)
    else:
        (folder / name).symlink_to("/dev/zero")
    assert f"{folder / name} is no ordinary file: take it out" in refused(folder)


def test_the_path_of_an_image_leads_nowhere_else(tmp_path):
    (tmp_path / "outside.png").write_bytes(image())
    (tmp_path / "pipe").parent.mkdir(exist_ok=True)
    os.mkfifo(tmp_path / "pipe")
    os.symlink(tmp_path / "outside.png", tmp_path / "link.png")
    for i, path in enumerate((tmp_path / "outside.png", tmp_path / "pipe", "/dev/zero", "http://127.0.0.1/i.png",
                              tmp_path / f"folder-{4}" / ".." / "outside.png", "../outside.png")):  # fmt: skip
        folder = parquet(tmp_path / f"folder-{i}", [{"bytes": None, "path": str(path)}] * 4)
        said = refused(folder)
        assert "in row 0 of split" in said
        assert f"cannot be read ({path} is not in the folder): only ordinary files inside" in said
    folder = tmp_path / "whole"
    (folder / "data").mkdir(parents=True)
    (folder / "data" / "0.bin").write_bytes(image())  # of an ending that is nobody's
    (tmp_path / "whole-parquet").mkdir()
    cells = [{"bytes": None, "path": str(folder / "data" / "0.bin")}] * 4
    parquet(tmp_path / "made", cells)
    for path in (tmp_path / "made" / "data").iterdir():
        path.rename(folder / "data" / path.name)
    (tmp_path / "made" / "README.md").rename(folder / "README.md")
    assert loading.load("x", folder).train.count == 4
    (folder / "data" / "0.bin").unlink()
    os.mkfifo(folder / "data" / "0.bin")
    source = inside.roots_of(folder)
    with pytest.raises(OSError, match="is a pipe, not an ordinary file"):
        inside.stream(cells[0], source)  # had it come after the folder was looked at


def test_no_program_is_started_for_an_image(tmp_path, monkeypatch):
    """PostScript is no raster: Pillow has Ghostscript run for it."""
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "gs").write_text(f"#!/bin/sh\ntouch {tmp_path / 'called'}\n")
    (programs / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    said = refused(parquet(tmp_path / "cells", [{"bytes": EPS, "path": None}] * 4))
    assert "is damaged" in said
    assert "or of a format that is not read: expected one of" in said
    folder = classes(tmp_path / "folder")
    (folder / "train" / "cat" / "0.png").write_bytes(EPS)
    assert "PNG" in refused(folder)
    assert not (tmp_path / "called").exists()


@pytest.mark.parametrize("form", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "PCX", "TGA", "JPEG2000"])
def test_rasters_are_read(tmp_path, form):
    folder = parquet(tmp_path / form, [{"bytes": image(form, i), "path": None} for i in range(4)])
    assert loading.load("x", folder).train.count == 4


def test_no_script_and_no_pickle_of_a_folder_is_run(tmp_path):
    marker = tmp_path / "executed"
    folder = classes(tmp_path / "own")
    (folder / "own.py").write_text(f"open({str(marker)!r}, 'w')\n")
    assert "holds the program own.py, which is not run" in refused(folder)
    for kind in ("pandas", "hdf5"):  # the one unpickles, the other's files can name files elsewhere
        builder = type("Builder", (), {"__module__": f"datasets.packaged_modules.{kind}.{kind}"})()
        with pytest.raises(DataError, match=f'holds files of the kind "{kind}", expected images, or one of arrow'):
            inside.check_builder(builder, (), "x")
    assert not marker.exists()


def test_tensors_in_a_tar_are_not_unpickled(tmp_path, monkeypatch):
    """Images and classes of a tar are read, and what stands beside them as a tensor is left as bytes."""
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch, "load", lambda *a, **k: pytest.fail("a tensor was unpickled"))
    with tarfile.open(tmp_path / "train-0000.tar", "w") as tar:
        for i in range(4):
            held = io.BytesIO()
            Image.fromarray(np.full((6, 5), 40 * i, np.uint8)).save(held, "PNG")
            for ending, data in (("png", held.getvalue()), ("cls", str(i % 2).encode()), ("pth", b"no tensor")):
                member = tarfile.TarInfo(f"{i:04}.{ending}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    builder = hf.load_dataset_builder(str(tmp_path))
    inside.check_builder(builder, inside.roots_of(tmp_path), str(tmp_path))
    builder.download_and_prepare()
    rows = builder.as_dataset()["train"]
    assert [rows[i]["cls"] for i in range(4)] == [0, 1, 0, 1]
    assert rows[0]["pth"] == b"no tensor"


def test_a_client_of_the_hub_that_runs_scripts_is_refused(tmp_path, monkeypatch):
    folder = classes(tmp_path / "own")
    monkeypatch.setattr(hf, "__version__", "3.6.0")
    assert refused(folder).startswith("datasets 3.6.0 is installed, which can run a script that lies in a folder")
    for version in ("4.0.0", "10.0.0.dev0"):
        monkeypatch.setattr(hf, "__version__", version)
        inside.check_version()


def test_a_folder_in_the_place_of_the_hubs_id_is_looked_at_too(tmp_path, monkeypatch):
    classes(tmp_path / "some" / "set")
    monkeypatch.chdir(tmp_path)
    assert loading.load("some/set").train.count == 4
    os.mkfifo(tmp_path / "some" / "set" / "train" / "cat" / "x.png")
    with pytest.raises(DataError, match="no ordinary file"):
        loading.load("some/set")
