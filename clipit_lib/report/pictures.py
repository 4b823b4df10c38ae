"""Pictures of the page: each once, small, with words for those who cannot see it."""

from __future__ import annotations

import base64
import hashlib
import io

from markupsafe import Markup
from PIL import Image

from clipit_lib import archive, paths
from clipit_lib.figures import gallery
from clipit_lib.report.outline import Outline

WIDEST = 1500  # pixels; a figure is shown at about half of that
LOSSLESS_UP_TO = 120_000  # bytes; what is larger holds patches or many points
WITHHELD = (
    "A picture is left out here: it may show patches or reports that are not ours to pass on. "
    "It is in the executed notebook."
)


class Pictures:
    """What the page has shown so far.

    Args:
        shareable: whether any picture may be shown; if not, only those that are kept as figures,
            which show no patch and no report.
    """

    def __init__(self, profile: str, outline: Outline, shareable: bool) -> None:
        self._profile, self._outline, self._shareable = profile, outline, shareable
        self._shown: dict[str, str] = {}
        kept = sorted(paths.figures(profile).glob("*.png"))
        self._kept = {_digest(path.read_bytes()): path.stem for path in kept}

    def show(self, picture: bytes) -> Markup:
        """A picture as a figure of the page; a link to it if it has been shown before."""
        digest = _digest(picture)
        name = self._kept.get(digest)
        if name is None and not self._shareable:
            return Markup("<p class='withheld'>{}</p>\n").format(WITHHELD)
        if digest in self._shown:
            return Markup("<p><a href='#{}'>The figure shown above</a></p>\n").format(
                self._shown[digest]
            )
        words = (name and gallery.meaning(name)) or f"Figure in: {self._outline.title}"
        anchor = self._shown[digest] = self._outline.anchor(f"figure {name or self._outline.title}")
        source, width, height = _embedded(picture)
        return Markup(
            "<figure id='{}'><img src='{}' width='{}' height='{}' alt='{}'>{}</figure>\n"
        ).format(anchor, source, width, height, words, self._caption(name))

    def _caption(self, name: str | None) -> Markup:
        """Where a kept figure lies, and how many runs are behind it."""
        if name is None:
            return Markup("")
        sidecar = paths.figures(self._profile) / f"{name}.runs.json"
        runs = archive.keys(sidecar) if sidecar.exists() else []
        behind = f", from {len(runs)} runs" if runs else ""
        return Markup("<figcaption><code>figures/{}/{}.svg</code>{}</figcaption>").format(
            self._profile, name, behind
        )


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _embedded(picture: bytes) -> tuple[str, int, int]:
    """A data URI in WebP, and the size in pixels at which it is shown."""
    with Image.open(io.BytesIO(picture)) as opened:
        image = Image.new("RGB", opened.size, "white")
        image.paste(opened.convert("RGBA"), mask=opened.convert("RGBA"))
    image.thumbnail((WIDEST, 10 * WIDEST))
    data = _webp(image, lossless=True)
    if len(data) > LOSSLESS_UP_TO:
        data = min(data, _webp(image, quality=82), key=len)
    text = base64.b64encode(data).decode("ascii")
    return f"data:image/webp;base64,{text}", image.width // 2, image.height // 2


def _webp(image: Image.Image, **options: int | bool) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "WEBP", method=6, **options)
    return stream.getvalue()
