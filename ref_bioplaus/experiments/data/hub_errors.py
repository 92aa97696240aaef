"""What goes wrong when a dataset of the hub or of a folder is opened, as sentences."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NETWORK = {
    "ConnectionError", "TimeoutError", "TransportError", "LocalEntryNotFoundError", "OfflineModeIsEnabled", "HTTPError",
    "gaierror",
}  # fmt: skip
UNCONNECTED = {"ConnectError", "ConnectTimeout", "ConnectionError", "ProxyError"}
LICENCE = "accept its terms on https://huggingface.co/datasets/{name} and log in with `hf auth login` (or set HF_TOKEN)"
CONVERTED = "refs/convert/parquet"  # the hub's own branch of most datasets


def refusal() -> str | None:
    """Why nothing connects to the hub, found by one request: its client would try six times in half a minute, and print
    each. It may take as long as that client waits (HF_HUB_ETAG_TIMEOUT); None where something answers, however late."""
    import datasets
    from huggingface_hub.constants import HF_HUB_ETAG_TIMEOUT
    from huggingface_hub.utils import get_session

    if datasets.config.HF_HUB_OFFLINE:
        return None
    try:
        get_session().head(datasets.config.HF_ENDPOINT, timeout=HF_HUB_ETAG_TIMEOUT)
    except Exception as error:  # of the client's HTTP library, which differs between its versions
        kinds = {kind.__name__ for kind in type(error).__mro__}
        return first_line(error) if kinds & UNCONNECTED else None
    return None


@contextmanager
def from_the_cache(offline: bool) -> Iterator[None]:
    """Where offline, `datasets` takes what is in its cache without asking the hub."""
    import datasets

    before = datasets.config.HF_HUB_OFFLINE
    datasets.config.HF_HUB_OFFLINE = before or offline
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE = before


def configurations(error: Exception, place: str, config: str | None, origin: str) -> str | None:
    """A sentence on a configuration that has to be chosen, or is none; None for another error."""
    import datasets

    text = str(error) if isinstance(error, ValueError) else ""
    cached = re.match(
        r"There are multiple .* configurations in the cache: (.*)|.*\nAvailable configs in the cache: (.*)", text
    )
    if cached:
        names = re.findall(r"[^][', ]+", cached[1] or cached[2])
        origin = f"{origin} in the cache"
    elif re.match("Config name is missing|BuilderConfig .* not found", text):
        names = datasets.get_dataset_config_names(place)
    else:
        return None
    wrong = f'has no configuration "{config}"' if config else f"has {len(names)} configurations"
    return f"{origin} {wrong}: choose one of {', '.join(names)} with --config."


def sentence(error: Exception, name: str, path: Path | None, refused: str | None = None) -> str:
    """What went wrong when a dataset was opened, and what to do. refused: why the hub was not asked."""
    import datasets

    chain: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in chain:
        chain.append(cause)
        cause = cause.__cause__ or cause.__context__
    kinds = {kind.__name__ for one in chain for kind in type(one).__mro__}
    text = " ".join(str(one) for one in chain).lower()
    refusing = next((one for one in chain if isinstance(one, OSError) and outside(one.filename, path)), None)
    program = re.search(r"Dataset scripts are no longer supported, but found (.+)", str(error))
    if program and path is not None:
        return (
            f"The folder {path} holds the program {program[1]}, which is not run: take it out where the images lie "
            f"beside it, or name a version of the dataset in parquet, as the hub has in its branch {CONVERTED}."
        )
    if program:
        return (
            f'The dataset "{name}" is a program, {program[1]}, which is not run: fetch its version in parquet by '
            f"`hf download {name} --repo-type dataset --revision {CONVERTED} --local-dir FOLDER`, and name FOLDER with "
            "--data."
        )
    if path is not None:
        if kinds & {"EmptyDatasetError", "DataFilesNotFoundError"}:
            return f"The folder {path} has no images: expected the layout of the Hugging Face hub."
        broken = None if refusing else broken_file(path)
        if broken:
            return f"The file {broken} is damaged ({first_line(chain[-1])}): fetch it again."
        if refusing:
            return unusable(refusing)
        return (
            f"The folder {path} cannot be read ({first_line(chain[-1])}): expected the layout of the Hugging Face hub."
        )
    if "GatedRepoError" in kinds or "gated dataset" in text:
        return f'The dataset "{name}" is only for those who accepted its terms: {LICENCE.format(name=name)}.'
    if kinds & {"DatasetNotFoundError", "RepositoryNotFoundError"}:
        return (
            f'The Hugging Face hub has no dataset "{name}", or you have no access: check the id, or log in '
            "with `hf auth login`."
        )
    if kinds & NETWORK:
        offline = "the hub cannot be reached" + (f" ({refused})" if refused else "")
        if datasets.config.HF_HUB_OFFLINE:
            offline = "HF_HUB_OFFLINE forbids the network"
        return (
            f'The dataset "{name}" is not in the cache, and {offline}: fetch it once with a network, or name a folder '
            "that holds it."
        )
    if refusing:
        return unusable(refusing)
    return f'The dataset "{name}" cannot be loaded ({first_line(chain[-1])}): delete its cache and fetch it again.'


def outside(file: Any, path: Path | None) -> bool:
    """Whether an error's file is none of the folder's: one of the cache."""
    return isinstance(file, str) and (path is None or not Path(file).resolve().is_relative_to(path.resolve()))


def unusable(error: OSError) -> str:
    """A sentence on a cache that refuses."""
    return (
        f"The cache of the Hugging Face hub cannot be used ({error.strerror}: {error.filename}): "
        "set HF_HOME to another folder."
    )


def first_line(error: BaseException) -> str:
    """An error in brackets: its kind and the first line of what it says, at most 200 characters."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"[:200].rstrip(" :.")


def broken_file(path: Path) -> Path | None:
    """The first parquet file of a folder that cannot be read."""
    import pyarrow.parquet

    for file in sorted(path.rglob("*.parquet")):
        try:
            pyarrow.parquet.read_table(file)
        except (OSError, ValueError):
            return file
    return None
