"""`synthesize`: have a language model write reports for the classes of a data set (table 7)."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from clipit_lib import paths
from clipit_lib.data.contract import PatchDataset
from clipit_lib.data.registry import open_dataset
from clipit_lib.errors import ClipItError
from clipit_lib.reports import synthetic
from clipit_lib.reports.corpus import ReportCorpus
from clipit_lib.reports.registry import open_corpus
from clipit_lib.reports.synthetic_endpoint import Endpoint
from clipit_lib.reports.synthetic_requests import EXAMPLES, PER_CLASS
from clipit_lib.settings import Profile, known, load_profile


def main(arguments: list[str]) -> None:
    """Write a csv (id, class, text) of reports that a language model makes up, after real ones.

    Any endpoint that speaks OpenAI's chat completions will do, one on this machine too. Its key
    is read from the environment variable CLIPIT_LLM_KEY. Answers are kept as they come in a
    .jsonl beside the csv: the same command again asks only for what is missing.
    """
    given = _parser().parse_args(arguments)
    output: Path = given.output
    if output.suffix != ".csv":
        raise ClipItError(f"unknown kind of file {output.suffix!r}", "--output", "Name a .csv")
    endpoint = Endpoint(
        given.endpoint,
        given.model,
        key=paths.language_model_key(),
        temperature=given.temperature,
        timeout=given.timeout,
    )
    data, corpus = _opened(load_profile(given.profile), given.dataset)
    examples = synthetic.choose_examples(corpus.texts, given.examples, given.seed)
    classes = dict(zip(data.classes, data.class_texts, strict=True))
    wanted = synthetic.orders(classes, corpus.organ, examples, given.per_class, given.seed)
    journal = output.with_suffix(".jsonl")
    todo = synthetic.remaining(endpoint, wanted, journal)
    if given.dry_run:
        for message in wanted[0].messages:
            print(f"--- {message['role']}\n{message['content']}\n")
    print(f"{len(wanted) - len(todo)} of {len(wanted)} reports are kept in {journal}")
    print(f"to do: {synthetic.estimate(todo, examples, given.price_in, given.price_out)}")
    if given.dry_run:
        return
    if todo and examples:
        _consent(corpus, len(examples), endpoint, given.yes)
    try:
        outcome = synthetic.generate(endpoint, wanted, journal)
    except KeyboardInterrupt:
        raise ClipItError("stopped", journal, "The same command again goes on from here") from None
    synthetic.write_csv(wanted, outcome.texts, output)
    print(f"{len(outcome.texts)} reports in {output}")
    if outcome.missing:
        first, fault = next(iter(outcome.missing.items()))
        raise ClipItError(
            f"{len(outcome.missing)} of {len(wanted)} reports are missing, first {first} ({fault})",
            output,
            "Run the same command again to ask for them once more",
        )


def _opened(profile: Profile, dataset: str) -> tuple[PatchDataset, ReportCorpus]:
    """A data set and its reports, without the encoders that a workbench brings."""
    settings = profile.data_settings(dataset)
    known(settings.corpus, profile.corpora, "corpus", f"profile {profile.name}")
    corpus = open_corpus(settings.corpus, profile.corpora[settings.corpus])
    return open_dataset(dataset, settings), corpus


def _consent(corpus: ReportCorpus, count: int, endpoint: Endpoint, yes: bool) -> None:
    """Say what leaves this machine; go on only if the user agrees."""
    print(
        f"WARNING: {count} reports of the corpus {corpus.name} (licence: {corpus.licence}) leave "
        f"this machine: every request sends them to {endpoint.address}. You must hold the right "
        "to pass them on, and they must identify nobody."
    )
    if endpoint.key and endpoint.url.startswith("http://"):
        print("WARNING: this address is not encrypted; reports and key can be read on the way.")
    if yes:
        return
    if not sys.stdin.isatty():
        raise ClipItError("nobody to ask for consent", "synthesize", "Add --yes if you agree")
    if input("Send them? [y/N] ").strip().lower() not in ("y", "yes"):
        raise ClipItError("not sent, as you wish", "synthesize", "Add --examples 0 to send none")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m clipit_lib synthesize", description=main.__doc__
    )
    add = parser.add_argument
    add("--profile", default="demo")
    add("--dataset", required=True, help="a data set of the profile: its classes, its reports")
    add("--endpoint", required=True, help="address without /chat/completions: https://HOST/v1")
    add("--model", required=True, help="as the endpoint calls it")
    add("--output", required=True, type=Path, help="the csv to write")
    add(
        "--per-class",
        type=_whole(1),
        default=PER_CLASS,
        help="reports of each class",
    )
    add("--examples", type=_whole(0), default=EXAMPLES, help="real reports shown")
    add("--temperature", type=float, default=1.0)
    add("--seed", type=_whole(0), default=0, help="of the choice of examples and of each request")
    add("--timeout", type=float, default=120.0, help="seconds to wait for an answer")
    add("--price-in", type=float, help="of a million prompt tokens")
    add("--price-out", type=float, help="of a million completion tokens")
    add("--dry-run", action="store_true", help="print the first request and an estimate, only")
    add("--yes", action="store_true", help="agree that the examples leave this machine")
    return parser


def _whole(least: int) -> Callable[[str], int]:
    """Reads a whole number of at least `least`, for argparse."""

    def read(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {least} up")
        return int(text)

    return read
