"""The language task: texts and what damages them, the model, 30 steps, commands, generation."""

from math import log

import pytest
import torch

import lincon
from lincon import LinconError
from lincon.tasks.classification.studies import scaling
from lincon.tasks.experiments.task import find_task
from lincon.tasks.experiments.training.models import build
from lincon.tasks.experiments.training.recipe import Cell
from lincon.tasks.experiments.training.run import Run
from lincon.tasks.language.baseline import baseline
from lincon.tasks.language.data import DATA, excerpt, handbook
from lincon.tasks.language.data.pages import PageText
from lincon.tasks.language.learner import MEASURES, Surprise, nats
from lincon.tasks.language.models import architecture
from lincon.tasks.language.predict import generate

from .test_cli import call, refused

TINY = "gpt-micro:dim=16,depth=1"
QUICK = ["--data", "excerpt:context=32", "--images", 64, "--epochs", 1, "--batch", 16]
PAGE = """<?xml version="1.0"?><html><head><title>Head</title></head><body>
<ul class="docnav"><li>Next</li></ul><div class="para">One  <em>short</em>
line.</div><pre>$ ls  -l
a</pre><img src="x" /><p>Last &amp; least.</p></body></html>
"""


# Texts.


def test_the_parts_of_the_excerpt_are_its_first_nine_tenths_and_its_last_one():
    text = excerpt.FILE.read_bytes()
    data = DATA["excerpt"](context=50)
    train, test = data.train_set, data.test_set
    context, following = train[[0, 1]]
    assert bytes(context.flatten().tolist()) == text[:100]
    assert bytes(following.flatten().tolist()) == text[1:101]
    cut = len(text) - len(text) // 10
    assert bytes(test[[0]].context[0].tolist()) == text[cut : cut + 50]
    assert len(train) == (cut - 1) // 50 and len(test) == (len(text) - cut - 1) // 50


def test_the_text_of_a_page_is_without_navigation_and_with_its_program_listings():
    page = PageText()
    page.feed(PAGE)
    assert page.text() == "One short line.\n$ ls  -l\na\nLast & least."


def book(folder, language="en-US", pages=100):
    home = folder / language
    home.mkdir(parents=True)
    for number in range(pages):
        (home / f"sect.{number:03}.html").write_text(PAGE.replace("short", f"short {number}"))
    (home / "index.html").write_text("the table of contents is not read")
    return home


def test_the_book_is_its_pages_in_order(tmp_path):
    book(tmp_path, "de-DE")
    pieces = DATA["handbook-de"](root=tmp_path, context=16).pieces(tmp_path)
    assert len(pieces) == 100
    assert pieces[7] == b"One short 7 line.\n$ ls  -l\na\nLast & least.\n\n"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (PAGE[:-20].encode(), ["cut off", "sect.003.html"]),
        (b"\xff\xfe" + PAGE.encode(), ["UTF-8", "byte 0"]),
        (b"\x1f\x8b" + bytes(40), ["UTF-8", "gzip"]),
        (b"just text", ["no page of HTML"]),
        (b"<html><head>x</head></html>", ["no text"]),
        (b"", ["no page of HTML"]),
    ],
)
def test_a_damaged_page_is_refused_by_name(content, words, tmp_path):
    (book(tmp_path) / "sect.003.html").write_bytes(content)
    with pytest.raises(LinconError) as refusal:
        DATA["handbook"](root=tmp_path)
    assert all(word in str(refusal.value) for word in words), refusal.value


def test_a_book_that_is_elsewhere_or_lacks_pages_is_refused_with_the_remedy(tmp_path):
    home = book(tmp_path / "html", pages=99)
    for root, words in [
        (tmp_path, ["lacks en-US", str(tmp_path / "html")]),
        (tmp_path / "nowhere", ["missing", handbook.PACKAGE]),
        (home.parent, ["99 of the book's pages"]),
    ]:
        with pytest.raises(LinconError) as refusal:
            DATA["handbook"](root=root)
        assert all(word in str(refusal.value) for word in words), refusal.value


def test_a_changed_excerpt_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(excerpt, "FILE", tmp_path / "damaged.txt")
    excerpt.FILE.write_text("It was a dark and stormy night.")
    with pytest.raises(LinconError, match=r"damaged\.txt is damaged"):
        DATA["excerpt"]()


def test_a_text_of_ones_own_is_read_and_a_short_or_missing_one_refused(tmp_path):
    (tmp_path / "my.txt").write_bytes(bytes(range(200)) * 2)
    make = find_task("language").data_set(f"{tmp_path}/my.txt:context=16")
    assert make(0, 4, None, None).train_set[[0]].following[0, 0] == 1
    for name, word in [("my.txt", "context=128"), ("no.txt", "missing"), ("my.txt:a=1", "'a'")]:
        with pytest.raises(LinconError, match=word):
            find_task("language").data_set(f"{tmp_path}/{name}")(0, 4, None, None)


# Model and measures.


def test_no_byte_is_predicted_from_a_later_one():
    model = architecture(TINY)(32).eval()
    text = torch.randint(256, (2, 32))
    other = text.clone()
    other[:, 20:] = 0
    same = torch.isclose(model(text), model(other), atol=1e-6).all(-1)
    assert bool(same[:, :20].all()) and not bool(same[:, 20:].any())


def test_the_head_is_the_embedding_and_the_body_the_blocks():
    model = build(Cell(TINY, "rpg", 0.1, 0, "language"), (32,))
    assert lincon.constraints(model)[0].rows == 12 * 16**2
    names = [name for name, _ in model.named_parameters()]
    assert "embedding.weight" in names and not any("head" in name for name in names)


def test_the_measures_are_those_of_all_bytes():
    logits, following = torch.randn(6, 5, 256), torch.randint(256, (6, 5))
    following[0, 0] = logits[0, 0].argmax()
    metric = Surprise()
    for part in (slice(0, 4), slice(4, 6)):
        metric.update(logits[part], following[part])
    likely = logits.softmax(-1).gather(-1, following.unsqueeze(-1)).log()
    found = metric.compute()
    assert set(found) == {measure.name for measure in MEASURES}
    assert float(found["cross_entropy"]) == pytest.approx(-float(likely.mean()), rel=1e-5)
    assert float(found["bits_per_byte"]) == pytest.approx(-float(likely.mean()) / log(2), rel=1e-5)
    right = (logits.argmax(-1) == following).double().mean()
    assert float(found["next_byte"]) == pytest.approx(float(right))


def test_thirty_steps_lower_the_loss():
    data = DATA["excerpt"](batch=8, context=32)
    model = build(Cell(TINY, "rpg", 0.1, 0, "language"), data.shape)
    optimiser = torch.optim.AdamW(model.parameters(), 1e-2)
    losses = []
    for context, following in list(data.train_dataloader())[:30]:
        loss = nats(model(context), following)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(log(256), abs=0.1)
    assert sum(losses[-5:]) / 5 < losses[0] - 1


def test_the_baseline_is_the_entropy_of_single_bytes():
    found = baseline(DATA["excerpt"]())["bits_per_byte"]
    counts = torch.bincount(torch.tensor(list(excerpt.FILE.read_bytes())), minlength=256).double()
    shares = counts[counts > 0] / counts.sum()
    assert found == pytest.approx(-float((shares * shares.log2()).sum()), abs=0.05)


# Commands.


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    out = tmp_path_factory.mktemp("language")
    result = call("train", "language", "--model", TINY, *QUICK, "--out", out)
    assert result.exit_code == 0, result.output
    return result, out


def test_train_says_what_it_measured_and_evaluate_finds_it_again(trained):
    result, out = trained
    assert "test bits / byte: " in result.stdout and "test next byte %: " in result.stdout
    again = call("evaluate", out)
    assert again.exit_code == 0 and again.stdout.strip() in result.stdout


def test_a_written_text_is_the_same_for_the_same_seed(trained):
    _, out = trained
    ask = ["predict", "language", "Once ", "--run", out, "--count", 60]
    first = call(*ask)
    assert first.exit_code == 0 and first.stdout.startswith("Once "), first.output
    assert call(*ask).stdout == first.stdout
    assert call(*ask, "--seed", 1).stdout != first.stdout
    assert "positive" in refused(*ask, "--temperature", 0)


def test_near_temperature_0_the_likeliest_byte_follows():
    torch.manual_seed(0)
    model = architecture(TINY)(8)
    text = b"a prompt that is longer than the context"
    expected = text
    for _ in range(5):
        window = torch.tensor([list(expected[-8:])])
        expected += bytes([int(model(window)[0, -1].argmax())])
    assert generate(model, text, 5, 1e-6, seed=3) == expected[len(text) :]


def test_compare_tabulates_bits_per_byte_and_draws_a_passage(tmp_path):
    options = ["language", "--model", TINY, *QUICK, "--seeds", 1]
    result = call("compare", *options, "--schemes", "vanilla,rpg", "--out", tmp_path)
    assert result.exit_code == 0, result.output
    assert "bits / byte" in result.stdout and "without looking" in result.stdout
    assert (tmp_path / "predictions.png").exists()


def test_laws_are_fitted_to_the_part_of_eight_bits_that_a_model_saves():
    bits = {"bits_per_byte": [6.0, 2.0]}
    runs = [Run("a", "rpg", dof, 0, dof, dof, 0, [1.0], [1.0], bits, {}) for dof in (10, 20)]
    (dof, saved), *_ = scaling.by_model(runs, lambda run: MEASURES[0].share(run.score)).values()
    assert dof.tolist() == [10, 20] and saved.tolist() == [0.75, 0.75]
    assert MEASURES[0].of_share(saved[0]) == 2.0


def test_scaling_refuses_a_score_that_is_no_share_of_anything(tmp_path):
    said = refused("scaling", "indoor", "--seeds", 1, "--out", tmp_path)
    assert "depth RMSE" in said and "worst" in said


def test_a_model_of_pictures_writes_no_text(tmp_path):
    assert call("train", "--epochs", 1, "--images", 64, "--out", tmp_path).exit_code == 0
    assert "not of language" in refused("predict", "language", "--run", tmp_path)
