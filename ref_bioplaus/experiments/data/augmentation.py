"""What happens to an image between its file and the network: a pure function of the seed, the epoch and the image.

    none, flip                    as it is; in training, mirrored half of the time
    crop, flip-crop               training: a border of 4 zero pixels, and a crop of the image's own size anywhere in it
                                  (He et al. 2016, sec. 4.2); test: as it is
    crop-24, flip-crop-24         training: a crop of 24 x 24 anywhere; test: the central one. An image that is smaller,
                                  and every image where sizes vary, is first resized as for centre-crop
    centre-crop-224, flip-...     resized until its shorter side has 224 * 256 / 224 pixels, then the central 224 x 224
    random-resized-crop-224,      training: a crop of 8 to 100 % of the area and an aspect of 3/4 to 4/3, resized
    flip-...                      (Szegedy et al. 2015, sec. 6); test: as centre-crop-224
    resize-32, flip-resize-32     resized to 32 x 32, whatever its aspect

A size is one side, or height x width, as in crop-24x20. Pixels stay uint8; resizing is Pillow's bilinear filter.
"""

import difflib
import math
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ...kernels import threefry
from ...random import key_at

BORDER = 4  # zero pixels around an image before a crop of its own size
RESIZED = 256 / 224  # sides of the image that is resized, over those of the crop from it
AREA = (0.08, 1.0)
ASPECT = (3 / 4, 4 / 3)
ATTEMPTS = 10  # crops tried before the central one is taken
WORDS = 64  # random words that belong to one image
FLIP, TOP, LEFT, FIRST_ATTEMPT = 0, 1, 2, 3  # what the words decide; an attempt takes four

OWN = "own"  # the kind of a function (image, words) of one's own: uint8 (height, width, channels), uint32 (WORDS,)
NAMED = ("none", "flip", "crop", "flip-crop", "crop-24", "flip-crop-24", "centre-crop-224", "random-resized-crop-224",
         "flip-random-resized-crop-224", "resize-32", "flip-resize-32")  # fmt: skip
NAME = re.compile(r"(flip-)?(crop|centre-crop|random-resized-crop|resize)(?:-(\d+)(?:x(\d+))?)?")


class DataError(RuntimeError):
    """Images that cannot be had as asked for; the message is a sentence that says what to do."""


class Varied(DataError):
    """Images whose sizes vary, which are not made equal; `size`: the least height and width."""

    size = (0, 0)


class Unreadable(DataError):
    """An image that cannot be decoded."""


class Augmentation(NamedTuple):
    """A name of the list above, taken apart."""

    name: str
    kind: str  # "none", "crop", "centre-crop", "random-resized-crop" or "resize"
    flip: bool
    size: tuple[int, int] | None  # (height, width); None: the images' own

    @property
    def words(self) -> int:
        """How many of an image's random words are looked at."""
        if self.kind == OWN:
            return WORDS
        return FIRST_ATTEMPT + 4 * ATTEMPTS if self.kind == "random-resized-crop" else FIRST_ATTEMPT


def parse(name: str) -> Augmentation:
    """The augmentation of a name. Raises DataError for a name that is not in the list."""
    if name in ("none", "flip"):
        return Augmentation(name, "none", name == "flip", None)
    found = NAME.fullmatch(name)
    if found is None or (found[3] is None and found[2] != "crop") or 0 in (int(found[3] or 1), int(found[4] or 1)):
        close = difflib.get_close_matches(name, NAMED, n=2)
        meant = f"did you mean {' or '.join(close)}? There are" if close else "expected"
        raise DataError(
            f'The augmentation "{name}" is unknown: {meant} none, flip, crop, crop-24, centre-crop-224, '
            "random-resized-crop-224 or resize-32, in any size, or one of these after flip-."
        )
    size = None if found[3] is None else (int(found[3]), int(found[4] or found[3]))
    return Augmentation(name, found[2], found[1] is not None, size)


# Random numbers, drawn on the host


def host_key(seed: int) -> np.ndarray:
    """The root key of a seed from 0 to 2^63 - 1, int32 (2,), as Backend.key makes it. Raises DataError."""
    if not 0 <= seed < 1 << 63:
        raise DataError(f"The seed is {seed}, expected 0 to 2^63 - 1.")
    return np.array([seed >> 32, seed & 0xFFFFFFFF], dtype=np.uint32).view(np.int32)


def permutation(address: tuple, n: int) -> np.ndarray:
    """0 to n - 1 in a random order, int64 (n,): the order of n random words of 64 bits."""
    counter = np.arange(n, dtype=np.int32)
    high, low = (word.view(np.uint32).astype(np.uint64) for word in threefry(key_at(address), 0 * counter, counter))
    return np.argsort(high << np.uint64(32) | low, kind="stable")


def image_words(augmentation: Augmentation, seed: int, epoch: int, rows: np.ndarray) -> np.ndarray:
    """The random words of images, uint32 (N, words): those of one image are the same in whatever batch it comes."""
    counter = rows.astype(np.int64)[:, None] * WORDS + np.arange(augmentation.words)
    high, low = (counter >> 32).astype(np.int32).ravel(), counter.astype(np.uint32).view(np.int32).ravel()
    return threefry(key_at((host_key(seed), "augment", epoch)), high, low)[0].view(np.uint32).reshape(counter.shape)


def uniform(word: np.integer) -> float:
    """A random word as a number in [0, 1)."""
    return int(word) * 2.0**-32


def below(word: Any, n: int):
    """A random word as a whole number in 0 to n - 1; of an array, each."""
    return (np.asarray(word).astype(np.uint64) * np.uint64(n) >> np.uint64(32)).astype(np.int64)


def changed_by(own: Callable, seed: int, epoch: int, rows: np.ndarray, images: np.ndarray) -> np.ndarray:
    """Images, (N, height, width, channels), each as a function of one's own makes it. Raises DataError where that
    returns another form."""
    words = image_words(Augmentation(OWN, OWN, False, None), seed, epoch, rows)
    found = [np.asarray(own(image, own_words)) for image, own_words in zip(images, words, strict=True)]
    for image in found:
        if image.shape != images.shape[1:] or image.dtype != images.dtype:
            raise DataError(
                f"The augmentation returns {image.dtype} {image.shape}, expected what it is given, {images.dtype} "
                f"{images.shape[1:]}."
            )
    return np.stack(found)


# Images in memory: crops and flips are one gather of pixels


def covers(augmentation: Augmentation, shape: tuple[int, int]) -> bool:
    """Whether crops of this size fit into images of (height, width) as they are."""
    return augmentation.size is None or (augmentation.size[0] <= shape[0] and augmentation.size[1] <= shape[1])


def gather(
    augmentation: Augmentation, shape: tuple[int, int], rows: np.ndarray, words: np.ndarray | None, zero: int
) -> np.ndarray:
    """Which pixel of n flattened images of `shape` goes where, int32 (N, height, width); `zero`: the number of a pixel
    that is 0, for the border. words: see image_words; None: as in a test."""
    height, width = shape
    h, w = augmentation.size if augmentation.kind == "crop" and augmentation.size else shape
    border = BORDER if augmentation.kind == "crop" and augmentation.size is None else 0
    if words is None or augmentation.kind != "crop":
        top, left = (np.full(len(rows), offset) for offset in central(height, width, h, w))
    else:
        top = below(words[:, TOP], height + 2 * border - h + 1) - border
        left = below(words[:, LEFT], width + 2 * border - w + 1) - border
    across = np.broadcast_to(np.arange(w), (len(rows), w))
    if words is not None and augmentation.flip:
        across = np.where(flipped(words)[:, None], across[:, ::-1], across)
    y, x = (top[:, None] + np.arange(h))[:, :, None], (left[:, None] + across)[:, None, :]
    pixel = (rows[:, None, None] * height + y) * width + x
    if border and words is not None:
        pixel = np.where((y >= 0) & (y < height) & (x >= 0) & (x < width), pixel, zero)
    return pixel.astype(np.int32)


def of_arrays(augmentation: Augmentation, images: np.ndarray, words: np.ndarray | None) -> np.ndarray:
    """Images (N, height, width, channels), cropped and mirrored on the host as `gather` says."""
    count, height, width, channels = images.shape
    if not count or (augmentation.size is None and (words is None or augmentation.name == "none")):
        return images
    index = gather(augmentation, (height, width), np.arange(count), words, count * height * width)
    flat = np.concatenate([images.reshape(-1, channels), np.zeros((1, channels), images.dtype)])
    return flat[index]


def flipped(words: np.ndarray) -> np.ndarray:
    """Which images are mirrored, bool (N,)."""
    return words[:, FLIP] >= 1 << 31


def central(height: int, width: int, h: int, w: int) -> tuple[int, int]:
    """Top and left of the central crop of h x w."""
    return round((height - h) / 2), round((width - w) / 2)


# Images from files: one at a time


def view(image: Any, augmentation: Augmentation, words: np.ndarray | None, resize_first: bool) -> np.ndarray:
    """A Pillow image as the network gets it, uint8 (height, width, channels).

    words: the image's own, (words,); None: as in a test. resize_first: whether sizes vary, see crop-24 above.
    """
    width, height = image.size
    h, w = augmentation.size or (height, width)
    if augmentation.kind == "resize":
        image = resized(image, h, w)
    elif augmentation.kind == "random-resized-crop" and words is not None:
        top, left, box_height, box_width = random_box(height, width, words)
        image = resized(image.crop((left, top, left + box_width, top + box_height)), h, w)
    elif augmentation.size is not None:
        if augmentation.kind != "crop" or resize_first or not covers(augmentation, (height, width)):
            image = covering(image, round(h * RESIZED), round(w * RESIZED))
        image = cropped(image, augmentation, words, 0)
    elif augmentation.kind == "crop" and words is not None:
        image = cropped(image, augmentation, words, BORDER)
    pixels = np.array(image)
    if words is not None and augmentation.flip and flipped(words[None, :])[0]:
        pixels = pixels[:, ::-1]
    return pixels if pixels.ndim == 3 else pixels[:, :, None]


def cropped(image: Any, augmentation: Augmentation, words: np.ndarray | None, border: int):
    """A crop anywhere, where the augmentation says so, and else the central one; pixels outside the image are 0."""
    width, height = image.size
    h, w = augmentation.size or (height, width)
    if words is None or augmentation.kind != "crop":
        top, left = central(height, width, h, w)
    else:
        top = int(below(words[TOP], height + 2 * border - h + 1)) - border
        left = int(below(words[LEFT], width + 2 * border - w + 1)) - border
    return image.crop((left, top, left + w, top + h))


def covering(image: Any, height: int, width: int):
    """The image resized, its aspect kept, to the least size that covers height x width."""
    w, h = image.size
    if w * height <= h * width:
        return resized(image, int(width * h / w), width)
    return resized(image, height, int(height * w / h))


def resized(image: Any, height: int, width: int):
    """The image in another size, by a bilinear filter that is as wide as it must be."""
    from PIL import Image

    return image if image.size == (width, height) else image.resize((width, height), Image.Resampling.BILINEAR)


def random_box(height: int, width: int, words: np.ndarray) -> tuple[int, int, int, int]:
    """Top, left, height and width of a crop of random area and aspect; where no attempt fits, the central one that has
    the nearest aspect."""
    low, high = (math.log(limit) for limit in ASPECT)
    for i in range(FIRST_ATTEMPT, FIRST_ATTEMPT + 4 * ATTEMPTS, 4):
        area = height * width * (AREA[0] + (AREA[1] - AREA[0]) * uniform(words[i]))
        aspect = math.exp(low + (high - low) * uniform(words[i + 1]))
        h, w = round(math.sqrt(area / aspect)), round(math.sqrt(area * aspect))
        if 0 < h <= height and 0 < w <= width:
            return int(below(words[i + 2], height - h + 1)), int(below(words[i + 3], width - w + 1)), h, w
    aspect = min(max(width / height, ASPECT[0]), ASPECT[1])
    h, w = min(height, round(width / aspect)), min(width, round(height * aspect))
    return (height - h) // 2, (width - w) // 2, h, w
