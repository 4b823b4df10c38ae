"""Stage one gathered by report is equation 2 over patches."""

import torch
import torch.nn.functional as F
from torch import nn

from clipit_lib.encoders.encoder import Tokenizer, embed_texts
from clipit_lib.text import ReportTask, TextClassifier, pair_counts


class Bag(nn.Module):
    """A text tower in miniature: the mean of token embeddings."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(300, 6)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.table(ids).mean(dim=1)


def words(context: int) -> Tokenizer:
    return Tokenizer(lambda text: [ord(c) for c in text], 257, 258, 0, context)


def task(reports: list[int], labels: list[int]) -> tuple[ReportTask, TextClassifier]:
    torch.manual_seed(0)
    windows = words(8).windows(["abc", "de", "xyzw", "q"], "truncate")
    model = TextClassifier(Bag(), 6, 3)
    counts = pair_counts(torch.tensor(reports), torch.tensor(labels), 4, 3)
    return ReportTask(model, windows, counts, counts), model


def test_one_full_batch_is_the_loss_over_all_patches() -> None:
    reports, labels = [0, 0, 2, 2, 2, 3], [0, 1, 2, 2, 0, 1]
    gathered, model = task(reports, labels)
    assert gathered.rows == 3  # report 1 is paired with nothing
    ours = gathered.loss(model, torch.arange(3), torch.Generator())["classification"]
    windows = words(8).windows(["abc", "de", "xyzw", "q"], "truncate")
    plain = F.cross_entropy(model(windows)[reports], torch.tensor(labels))
    torch.testing.assert_close(ours, plain)
    assert gathered.validate() == float(plain.detach()) or abs(gathered.validate() - plain) < 1e-6


def test_batches_of_an_epoch_average_to_the_full_loss() -> None:
    gathered, model = task([0, 0, 2, 2, 2, 3, 1], [0, 1, 2, 2, 0, 1, 1])
    rows = torch.arange(4)
    parts = [gathered.loss(model, r, torch.Generator())["classification"] for r in rows.split(2)]
    full = gathered.loss(model, rows, torch.Generator())["classification"]
    torch.testing.assert_close(torch.stack(parts).mean(), full)


def test_each_epoch_learns_from_what_is_drawn_for_it_and_is_chosen_by_whole_texts() -> None:
    whole, model = task([0, 0, 2, 3], [0, 1, 2, 1])
    drawn = [words(8).windows([text[:1]] * 4, "truncate") for text in ("x", "y")]
    counts, rows = whole.validation_counts, torch.arange(3)
    redrawn = ReportTask(model, whole.windows, counts, counts, redraw=drawn.__getitem__)
    for epoch, windows in enumerate(drawn):
        redrawn.begin(epoch)
        expected = ReportTask(model, windows, counts, counts)
        found, plain = (each.loss(model, rows, torch.Generator()) for each in (redrawn, expected))
        assert torch.equal(found["classification"], plain["classification"])
        assert redrawn.validate() == whole.validate() != expected.validate()


def test_chunks_read_what_truncation_drops() -> None:
    tower, tokenizer = Bag(), words(5)  # three letters a window
    texts = ["abc", "abcdef", "abcxyz"]
    truncated = embed_texts(tower, tokenizer, texts, "truncate")
    chunked = embed_texts(tower, tokenizer, texts, "chunk")
    torch.testing.assert_close(truncated[0], truncated[1])
    assert (chunked[1] - chunked[2]).abs().max() > 1e-3
    torch.testing.assert_close(chunked[0], truncated[0])
    each = [embed_texts(tower, tokenizer, [part], "truncate")[0] for part in ("abc", "def")]
    torch.testing.assert_close(chunked[1], F.normalize(each[0] + each[1], dim=0))


def test_selected_windows_keep_the_order_asked_for() -> None:
    windows = words(5).windows(["abcdef", "x", "ghijkl"], "chunk")
    part = windows.select(torch.tensor([2, 1]))
    assert part.texts == 2 and part.owners.tolist() == [1, 0, 0]
    assert part.ids[part.owners == 0][:, 1].tolist() == [ord("g"), ord("j")]
