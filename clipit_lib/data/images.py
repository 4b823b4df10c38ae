"""Files of images: which of a folder's files they are, and their pixels by one set of rules."""

from __future__ import annotations

import os
import struct
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps, TiffImagePlugin

from clipit_lib.errors import ClipItError
from clipit_lib.files import file_digest

# -- Which files are images.

SUFFIXES = {".png", ".jpg", ".jpeg", ".jfif", ".tif", ".tiff", ".bmp", ".webp"}


def visible(name: object) -> str:
    """A name that can be written as UTF-8: bytes that are none become escapes."""
    return str(name).encode("utf-8", "backslashreplace").decode()


def is_image(name: str) -> bool:
    """Whether a file is called as an image is; hidden ones are not counted."""
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in SUFFIXES


def image_files(
    folder: Path, suffixes: Collection[str] = SUFFIXES
) -> tuple[list[str], Counter[str]]:
    """The images in a folder at any depth, links followed, or files of other suffixes.

    Hidden ones are left out. Each folder is read once, however many links lead to it.

    Returns:
        Paths relative to `folder`, sorted; how many files there are of each suffix that is not
        known, and of links that lead back above the folder.

    Raises:
        OSError: a folder cannot be read.
    """
    home, seen = os.path.realpath(folder), set[str]()
    found, others, closed = list[str](), Counter[str](), list[OSError]()
    for base, folders, names in os.walk(folder, onerror=closed.append, followlinks=True):
        here = os.path.realpath(base)
        above = home.startswith(os.path.join(here, ""))
        if above:
            others["links that lead back"] += 1
        if above or here in seen:
            folders.clear()
            continue
        seen.add(here)
        folders[:] = sorted(each for each in folders if not each.startswith("."))
        # As text, which lists ten times faster than paths do.
        within = os.path.relpath(base, folder)
        for name in names:
            suffix = os.path.splitext(name)[1].lower()
            if suffix in suffixes and not name.startswith("."):
                found.append(os.path.normpath(f"{within}/{name}"))
            elif not name.startswith("."):
                others[suffix or "no suffix"] += 1
    if closed:
        raise closed[0]
    return sorted(found), others


def passed_over(others: Counter[str]) -> list[str]:
    """One line on what is no image by its name; none if there is nothing."""
    if not others:
        return []
    most = sorted(others.items(), key=lambda each: (-each[1], each[0]))
    said = ", ".join(f"{visible(kind)} {count}" for kind, count in most)
    return [f"{others.total()} files passed over ({said})"]


# -- Pixels. Transparent is glass: black would be the densest tissue.

MEGAPIXELS = 200  # 0.8 GB decoded
SMALL, ELONGATED = 32, 2.0  # pixels of the shorter side; the longer over the shorter
JPEG_2000 = (33003, 33005, 34712)  # Aperio's two, and the registered one
UNREADABLE = (OSError, SyntaxError, ValueError, struct.error)


def read_image(path: Path, sha256: str = "", megapixels: int = MEGAPIXELS) -> Image.Image:
    """An image as RGB, 8 bits a channel, turned upright as its EXIF says.

    What is transparent is laid on white. Of 16 bits the upper eight are kept (65535 becomes 255);
    floats from 0 to 1 become 0 to 255.

    Raises:
        ClipItError: missing, unreadable, of several pages, of numbers without a known range, of
            more than so many megapixels, or other bytes than `sha256` (if given) says.
    """
    out = "Replace it or take it out of the list"
    try:
        if sha256 and file_digest(path) != sha256.lower():
            what = "the image differs from its sha256"
            raise ClipItError(what, path, "Restore the original file")
        with _of_any_size(), Image.open(path) as image:
            _require_one_page_within(image, path, megapixels)
            return _rgb(image, path)
    except FileNotFoundError as error:
        raise no_image(path) from error
    except UNREADABLE as error:
        code = _unknown_compression(path)
        if code is not None:
            name = " (JPEG 2000)" if code in JPEG_2000 else ""
            what = f"TIFF compression {code}{name} is not read"
            fix = "Save it as PNG, or as TIFF without that compression"
            raise ClipItError(what, path, fix) from error
        raise ClipItError("not a readable image or cut short", path, out) from error


def no_image(path: Path) -> ClipItError:
    """What is said of an image that is not there."""
    fix = "Add it or take it out of the list"
    if "\\" in str(path):
        fix = f"Write / in paths, not \\. {fix}"
    return ClipItError("no such image", path, fix)


@contextmanager
def _of_any_size() -> Iterator[None]:
    """Pillow's own guard, which is for all images of the process, gives way to that of a call."""
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def _require_one_page_within(image: Image.Image, where: Path, megapixels: int) -> None:
    if image.width * image.height > megapixels * 10**6:
        what = f"more than {megapixels} megapixels, which take {megapixels * 4 / 1000:.1f} GB of"
        fix = "Cut it into patches, or raise --max-megapixels of `predict --tiles`"
        raise ClipItError(f"{what} memory", where, fix)
    # The first picture of an MPO, which many cameras write as .jpg, is the photograph.
    pages = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
    if pages > 1:
        fix = "Save the page you mean (the first can be a thumbnail), or see a slide by --mpp"
        raise ClipItError(f"{pages} pages in one file", where, fix)


def _rgb(image: Image.Image, where: Path) -> Image.Image:
    clear = image.info.get("transparency")
    ImageOps.exif_transpose(image, in_place=True)  # as Pillow itself does with TIFF
    if image.mode in ("I", "F"):
        values = np.asarray(image)
        low, high = values.min(), values.max()
        if image.mode == "I" or not (low >= 0 and high <= 1):
            kind = "integers of 32 bits" if image.mode == "I" else "floats"
            what = f"{kind} from {low:g} to {high:g}: which of them is white is not known"
            raise ClipItError(what, where, "Save it with 8 or 16 bits, or as floats from 0 to 1")
        return Image.fromarray(np.rint(values * 255).astype(np.uint8)).convert("RGB")
    if image.mode.startswith("I;16"):
        deep = np.asarray(image)
        if getattr(image, "tag_v2", {}).get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == 0:
            deep = 65535 - deep  # white is 0: of 16 bits Pillow leaves that to its caller
        if 0 < deep.max() < 4096:
            what = f"integers of 16 bits up to {deep.max()}: which of them is white is not known"
            raise ClipItError(what, where, "Scale them to 0 to 65535, or save it with 8 bits")
        upper = np.where(deep == clear, 255, deep >> 8).astype(np.uint8)
        return Image.fromarray(upper).convert("RGB")
    if image.has_transparency_data:
        over = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", over.size, "white"), over).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _unknown_compression(path: Path) -> int | None:
    """The compression of a TIFF that Pillow has no name for; None of all other files."""
    try:
        with path.open("rb") as stream:
            head = stream.read(8)
            head += stream.read(8) if 43 in head[2:4] else b""
            tags = TiffImagePlugin.ImageFileDirectory_v2(head)
            stream.seek(tags.next)
            tags.load(stream)
    except UNREADABLE:
        return None
    code = tags.get(TiffImagePlugin.COMPRESSION, 1)
    return None if code in TiffImagePlugin.COMPRESSION_INFO else code


def fitted(image: Image.Image, side: int) -> UInt8[np.ndarray, "side side 3"]:
    """RGB of `side` x `side`; of another size, it is resized and centre cropped."""
    if image.size != (side, side):
        # Pillow's bicubic filter widens when it shrinks an image, so nothing aliases.
        image = ImageOps.fit(image, (side, side), Image.Resampling.BICUBIC)
    return np.asarray(image)


def oddities(image: Image.Image) -> list[str]:
    """What is unusual in the size of a patch."""
    short, long = sorted(image.size)
    small = [f"less than {SMALL} pixels wide or high"] if short < SMALL else []
    cut = [f"more than {ELONGATED:g} times as long as wide, so that most is cropped away"]
    return small + (cut if long > ELONGATED * short else [])


def decode_image(
    path: Path, side: int, sha256: str = "", odd: Counter[str] | None = None
) -> UInt8[np.ndarray, "side side 3"]:
    """A patch as it is trained on and predicted; `odd` counts what is unusual in the image."""
    image = read_image(path, sha256)
    if odd is not None:
        odd.update(oddities(image))
    return fitted(image, side)
