"""Images that somebody gives a trained run, made into what its own test images are: the size, channels and numbers."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from os.path import isdir
from pathlib import Path
from typing import Any

import numpy as np

from ...machine import files
from ..data import augmentation as augmentations
from ..data import inside
from ..data.augmentation import Augmentation, DataError
from ..data.hub import Undecodable, decoded
from ..data.images import PIXELS, VALUES, Dataset, Split, numbers

NEAR = 1e-4  # between brightness of 0 to 255 and the whole number that it is
COLOURS = {1: "grey", 3: "colour"}


def dataset(images: Any, inputs: Mapping[str, Any], augmentation: str) -> Dataset:
    """Images as the split "test" of a dataset that gives a network what the run's own dataset gave it.

    images: one or several, a NumPy array uint8 or of brightness in [0, 1], (height, width[, channels]) or with N before
    it; or a list of such, of Pillow's images or of files. Of a run on numbers that are as they are, an array of such.
    inputs: the run's, see INPUTS in spec/experiment.py. Raises DataError, one sentence, for images that are none, or do
    not fit.
    """
    plan, shape = augmentations.parse(augmentation), tuple(inputs["shape"])
    if inputs.get("scale") == VALUES:
        return asked(values(images, shape, plan), inputs, plan)
    fitted = [fit(image, place, shape, plan, bool(inputs.get("resized"))) for image, place in each(images, shape)]
    if not fitted:
        raise DataError("No image is given: expected one or more.")
    pixels = np.stack(fitted) if all(one.dtype == np.uint8 for one in fitted) else np.stack(fitted).astype(np.float32)
    return asked(pixels, inputs, Augmentation(plan.name, "none", plan.flip, None))


def asked(pixels: np.ndarray, inputs: Mapping[str, Any], plan: Augmentation) -> Dataset:
    """Images (N, height, width, channels) as the split "test" of a dataset with a run's inputs."""
    classes, rows = tuple(inputs["classes"]), np.arange(len(pixels))
    labels = np.zeros(len(pixels), np.int32) if classes else np.zeros((len(pixels), 0), np.float32)
    return Dataset(
        "the images given", Split("train", rows[:0], labels[:0], pixels[:0]), None, Split("test", rows, labels, pixels),
        classes, tuple(inputs["shape"]), plan, np.array(inputs["mean"]), np.array(inputs["deviation"]),
        scale=inputs.get("scale", PIXELS),
    )  # fmt: skip


def values(images: Any, shape: tuple[int, ...], plan: Augmentation) -> np.ndarray:
    """Samples of a run on numbers that are as they are, one or several, (N, height, width, channels); of vectors
    (N, 1, 1, units). Raises DataError for others than the run's."""
    found = array_of(images, "The samples are")
    if len(shape) == 1:
        vectors = found[None] if found.ndim == 1 else found
        if vectors.ndim != 2 or vectors.shape[1:] != shape:
            raise DataError(f"The samples have shape {found.shape}, expected (N, {shape[0]}) or ({shape[0]},).")
        return numbers(vectors)[:, None, None, :]
    grey = shape[2] == 1 and (found.ndim == 2 or found.ndim == 3 and found.shape[2] != 1)
    several = found[..., None] if grey else found
    several = several[None] if several.ndim == 3 else several
    size = plan.size or shape[:2]
    fits = several.shape[1:] == shape if plan.size is None else several.shape[3:] == shape[2:]
    if several.ndim != 4 or not fits or not augmentations.covers(plan, several.shape[1:3]):
        raise DataError(
            f"The images have shape {found.shape}, but the run learned from images of {size[0]} x {size[1]} with "
            f"{shape[2]} channels{' or larger, cropped' if plan.size else ''}: give one such, or (N, ...) of them."
        )
    return numbers(several)


def each(images: Any, shape: Sequence[int]) -> Iterable[tuple[Any, str]]:
    """The images one by one, with what a sentence calls each; shape: the run's, which tells one image from several."""
    if isinstance(images, str | Path) or hasattr(images, "convert"):
        images = [images]
    if isinstance(images, list | tuple):
        for i, image in enumerate(images):
            yield image, str(image) if isinstance(image, str | Path) else f"The image number {i}"
        return
    array = array_of(images, "The images are")
    one = array.ndim == 2 or (array.ndim == 3 and array.shape[2] == shape[2] and array.shape[1:] != tuple(shape[:2]))
    one = one or array.shape == tuple(shape)
    if array.ndim not in (2, 3, 4):
        raise DataError(
            f"The images have shape {array.shape}, expected (height, width), (height, width, channels), or these with "
            "the number of images before them."
        )
    for i, image in enumerate(array[None] if one else array):
        yield image, "The image" if one else f"The image number {i}"


def array_of(image: Any, words: str) -> np.ndarray:
    """An array on the host. words: what a sentence begins with. Raises DataError where it is none of numbers."""
    if hasattr(image, "detach"):
        image = image.detach().cpu()
    with suppress(Exception):  # whatever a foreign object raises
        found = np.asarray(image)
        if found.dtype.kind in "uif":
            return found
    raise DataError(f"{words} a {type(image).__name__}, expected an array of numbers, a file, or an image of Pillow.")


def fit(image: Any, place: str, shape: tuple[int, ...], plan: Augmentation, resize_first: bool) -> np.ndarray:
    """One image as the network gets it in a test, (height, width, channels): uint8, or float32 from 0 to 255.

    resize_first: whether the run's images varied in size. Raises DataError.
    """
    height, width, channels = shape
    if isinstance(image, str | Path):
        image = opened(Path(image), channels == 1)
    elif hasattr(image, "convert"):
        image = image.convert("L" if channels == 1 else "RGB")
    else:
        image = brightness(array_of(image, f"{place} is"), place)
        image = image[:, :, None] if image.ndim == 2 else image
        if image.ndim != 3 or image.shape[2] != channels:
            found = image.shape[2] if image.ndim == 3 else image.shape
            raise DataError(
                f"{place} has {found} channels, but the run learned from images with {channels}"
                f"{f' ({COLOURS[channels]})' if channels in COLOURS else ''}: convert it."
            )
    as_it_is = plan.size is None or (image_size(image) == (height, width) and not resizes(plan) and not resize_first)
    if isinstance(image, np.ndarray) and as_it_is:
        pixels = image
    else:
        pixels = augmentations.view(picture(image, place), plan, None, resize_first)
    if pixels.shape != shape:
        raise DataError(
            f"{place} has {pixels.shape[0]} x {pixels.shape[1]} pixels (height x width), but the run learned from "
            f"images of {height} x {width}: resize it."
        )
    return pixels


def image_size(image: Any) -> tuple[int, ...]:
    """(height, width) of an array; () of others."""
    return image.shape[:2] if isinstance(image, np.ndarray) else ()


def resizes(plan: Augmentation) -> bool:
    """Whether an image of the size that the network gets is resized before it is cropped to it."""
    return plan.kind in ("centre-crop", "random-resized-crop")


def opened(path: Path, grey: bool) -> Any:
    """An image file, by Pillow. Raises DataError, a sentence that names it."""
    try:
        with files.to_read(path) as stream:
            return decoded(stream, grey)
    except OSError as error:
        raise DataError(f"The image {path} cannot be read ({error.strerror}): name another file.") from error
    except Undecodable as error:
        raise DataError(f"The image {path} {error.args[0]}: {error.args[1]}.") from error


def picture(image: Any, place: str) -> Any:
    """An image as Pillow has it, to be resized or cropped. Raises DataError for one that Pillow cannot hold."""
    from PIL import Image

    if not isinstance(image, np.ndarray):
        return image
    if image.dtype != np.uint8 or image.shape[2] not in COLOURS:
        raise DataError(
            f"{place} must be resized or cropped as the run's images were, but is of {image.dtype} with "
            f"{image.shape[2]} channels: give it as uint8 in grey or colour, or in the size that the network takes."
        )
    return Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image)


def brightness(image: np.ndarray, place: str) -> np.ndarray:
    """Brightness from 0 to 255, of an image that has it so or from 0 to 1: uint8 wherever it is whole. Raises DataError
    for other numbers."""
    if image.dtype == np.uint8:
        return image
    low, high = (float(image.min()), float(image.max())) if image.size else (0.0, 0.0)
    if image.dtype.kind == "f" and low >= 0 and high <= 1:
        scaled = 255 * image.astype(np.float64)
        whole = np.round(scaled)
        return whole.astype(np.uint8) if np.all(np.abs(scaled - whole) < NEAR) else scaled.astype(np.float32)
    if image.dtype.kind in "ui" and low >= 0 and high <= 255:
        return image.astype(np.uint8)
    raise DataError(
        f"{place} is of {image.dtype} from {low:.4g} to {high:.4g}: expected uint8 from 0 to 255, or floats from 0 to "
        "1, which the run normalises by itself."
    )


def files_in(place: Path) -> list[Path]:
    """A file, or the images in a folder and those below it, by the endings of their names, in order. Raises DataError
    where there are none."""
    from PIL import Image

    if not isdir(place):
        return [place]
    Image.init()
    read = {ending for ending, name in Image.registered_extensions().items() if name in inside.RASTERS}
    found = sorted(path for path in place.rglob("*") if path.suffix.lower() in read)
    if not found:
        raise DataError(f"The folder {place} holds no image, whose names would end in .png, .jpg or the like.")
    return found


def pictures(images: Any) -> list[Any]:
    """One or several images, as `dataset` takes them, of any size, as Pillow has them in RGB. Raises DataError."""
    found = []
    for image, place in each(images, (0, 0, 3)):
        if isinstance(image, str | Path):
            found.append(opened(Path(image), False))
            continue
        if not hasattr(image, "convert"):
            array = brightness(array_of(image, f"{place} is"), place)
            image = picture(array[:, :, None] if array.ndim == 2 else array, place)
        found.append(image.convert("RGB"))
    if not found:
        raise DataError("No image is given: expected one or more.")
    return found
