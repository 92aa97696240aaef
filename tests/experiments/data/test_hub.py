"""A hub that cannot be reached, is slow, lacks a dataset or has a program in its place: a server of our own."""

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from ref_bioplaus.experiments.data import hub_errors, loading
from ref_bioplaus.experiments.data.augmentation import DataError

hf = pytest.importorskip("datasets")
pytest.importorskip("PIL")

COMMIT = "0123456789abcdef0123456789abcdef01234567"
ASK = """
import sys
from ref_bioplaus.experiments import datasets
try:
    config = sys.argv[1] if sys.argv[1:] else None
    print("images:", datasets.load("some/name", normalise=False, config=config).train.count)
except datasets.DataError as error:
    print(error)
"""


class Hub(BaseHTTPRequestHandler):
    """As the hub answers for a dataset without a README. The server's `files`: what it has."""

    def do_HEAD(self):
        self.server.asked.append(self.path)
        if self.path == "/" or self.path.endswith(tuple(self.server.files)):
            time.sleep(self.server.slowness)
            return self.answer(200, b"content", ETag='"0123"')
        return self.answer(404, **{"X-Error-Code": "EntryNotFound" if self.server.files else "RepoNotFound"})

    def do_GET(self):
        self.server.asked.append(self.path)
        if self.path.startswith("/api/") and self.server.files:
            return self.answer(200, json.dumps({"id": "some/name", "sha": COMMIT, "siblings": []}).encode())
        return self.do_HEAD()

    def answer(self, status, content=b"", **headers):
        self.send_response(status)
        for name, value in {"X-Repo-Commit": COMMIT, "Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, *rest):
        pass


@pytest.fixture
def hub():
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        server.files, server.slowness, server.asked = (), 0.0, []
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def ask(place, port, *arguments, **environment):
    """What a process says of the dataset some/name of a hub at a port; and all else that it prints."""
    mine = {k: v for k, v in os.environ.items() if not k.startswith("HF_") and "proxy" not in k.lower()}
    mine |= {"HF_ENDPOINT": f"http://127.0.0.1:{port}", "HF_HOME": str(place), **environment}
    command = [sys.executable, "-c", ASK, *arguments]
    done = subprocess.run(command, env=mine, capture_output=True, text=True, timeout=100)
    return done.stdout.strip(), done.stderr


def closed(hub):
    """A port at which nobody listens."""
    hub.shutdown()
    hub.server_close()
    return hub.server_port


def test_a_hub_that_cannot_be_reached_is_asked_once(hub, tmp_path):
    said, printed = ask(tmp_path, closed(hub))
    assert said.startswith('The dataset "some/name" is not in the cache, and the hub cannot be reached (')
    assert "refused" in said and said.endswith("): fetch it once with a network, or name a folder that holds it.")
    assert printed == ""  # no line for each retry


def cached(place, config, count):
    """A configuration of some/name in a cache, as `datasets` leaves it."""
    from datasets.packaged_modules.parquet.parquet import Parquet
    from PIL import Image

    features = hf.Features(image=hf.Image(), label=hf.ClassLabel(names=["u", "v"]))
    images = [Image.fromarray(np.full((2, 3), i, np.uint8)) for i in range(count)]
    file = place / f"{config}.parquet"
    hf.Dataset.from_dict({"image": images, "label": [0, 1] * (count // 2)}, features=features).to_parquet(file)
    made = Parquet(
        cache_dir=str(place / "made"), dataset_name="name", config_name=config, hash=COMMIT, version="0.0.0",
        data_files={"train": str(file)},
    )  # fmt: skip
    made.download_and_prepare()
    shutil.copytree(Path(made.cache_dir).parents[1], place / "datasets" / "some___name" / config)


def test_what_is_cached_is_used_where_the_hub_cannot_be_reached(hub, tmp_path):
    cached(tmp_path, "plain", 4)
    port = closed(hub)
    said, printed = ask(tmp_path, port)
    assert said == "images: 4" and "Retry" not in printed
    cached(tmp_path, "other", 6)
    assert ask(tmp_path, port, "other")[0] == "images: 6"
    said, _ = ask(tmp_path, port)
    assert said in (
        f"some/name in the cache has 2 configurations: choose one of {a}, {b} with --config."
        for a, b in (("plain", "other"), ("other", "plain"))
    )
    said, _ = ask(tmp_path, port, "third")
    assert said == 'some/name in the cache has no configuration "third": choose one of other, plain with --config.'


def test_a_slow_hub_is_waited_for(hub, tmp_path):
    hub.slowness = 2.0  # longer than a connection may take: it was made, and the answer is late
    said, _ = ask(tmp_path, hub.server_port, HF_HUB_ETAG_TIMEOUT="1")
    assert said.startswith('The Hugging Face hub has no dataset "some/name", or you have no access')


def test_offline_nothing_is_asked(hub, tmp_path):
    said, _ = ask(tmp_path, hub.server_port, HF_HUB_OFFLINE="1")
    assert "HF_HUB_OFFLINE forbids the network" in said and hub.asked == []


def test_a_dataset_that_is_a_program(hub, tmp_path):
    hub.files = ("/name.py",)
    said, _ = ask(tmp_path, hub.server_port)
    assert said == (
        'The dataset "some/name" is a program, name.py, which is not run: fetch its version in parquet by `hf '
        "download some/name --repo-type dataset --revision refs/convert/parquet --local-dir FOLDER`, and name FOLDER "
        "with --data."
    )
    assert [path for path in hub.asked if path.endswith(".py")]


def test_a_folder_with_a_program(tmp_path):
    (tmp_path / "cats").mkdir()
    (tmp_path / "cats" / "cats.py").write_text("raise SystemExit(7)\n")
    with pytest.raises(DataError, match=r"cats holds the program cats\.py, which is not run: take it out where"):
        loading.load("x", tmp_path / "cats")


def test_the_hubs_own_version_in_parquet_is_read(tmp_path):
    """A folder for each configuration, and one in it for each split."""
    cached(tmp_path, "made", 4)
    for split in ("train", "test"):
        place = tmp_path / "fetched" / "default" / split
        place.mkdir(parents=True)
        (place / "0000.parquet").write_bytes((tmp_path / "made.parquet").read_bytes())
    data = loading.load("x", tmp_path / "fetched")
    assert (data.train.count, data.test.count) == (4, 4)


def test_the_setting_is_put_back():
    before = hf.config.HF_HUB_OFFLINE
    with pytest.raises(KeyError), hub_errors.from_the_cache(True):
        assert hf.config.HF_HUB_OFFLINE
        raise KeyError
    with hub_errors.from_the_cache(False):
        assert before == hf.config.HF_HUB_OFFLINE
    assert before == hf.config.HF_HUB_OFFLINE
