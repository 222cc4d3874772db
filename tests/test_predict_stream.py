"""predict.py gives one row for each input, in order and in flat memory, and continues after any interruption."""

import csv
import json
import math
import os
import signal
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import pytest
from PIL import Image

import predict
from skincare.errors import MissingInputError, StageError
from skincare.inference import image_sources, run_confidence
from skincare.inference.image_predictions import ImagePrediction, RankedLabel, failed, input_image
from skincare.inference.image_sources import ImageLoader, expand
from skincare.inference.prediction_files import format_rows, header
from skincare.labels import skincare_labels
from skincare.paths import REPOSITORY, TINY_MODEL, Layout
from tests.local_server import ok, serving

LABELS = skincare_labels()


class FakePredictor:
    """Answers by the file's name; files a*.jpg need not exist, x*.jpg are unusable."""

    name, labels, threshold, reads_text, needs_pixels, packs = "fake", LABELS, None, False, False, None

    def __init__(self, delay_s=0.0):
        self.delay_s = delay_s

    def predict(self, images):
        time.sleep(self.delay_s)
        return [self.row(one) for one in images]

    @staticmethod
    def row(image):
        name = Path(image.file).stem
        if name.startswith("x") or (image.reason and name[0] not in "a=\udcff"):
            return failed(image.file, image.reason or "drawn as unusable")
        text = f'"{image.file}",\n\u2028 \x1b'
        return ImagePrediction(image.file, "Oil", 0.5, "read", text, top=(RankedLabel("Oil", 0.5),))


@pytest.fixture
def fake(monkeypatch):
    monkeypatch.setattr(predict, "load_predictor", lambda *_: FakePredictor())


def run(root, *images, **options):
    return predict.run(predict.Config(root=root, images=tuple(map(str, images)), **options), Layout(root))


def write_list(path, n):
    path.write_text("".join(f"{'x' if i % 7 == 0 else 'a'}{i}.jpg\n" for i in range(n)))
    return path


def test_names_are_expanded_in_order(tmp_path):
    for name in ("b/2.PNG", "b/1.jpg", "b/notes.txt", "a.jpg", "c1.jpg", "c2.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    listed = tmp_path / "list.txt"
    listed.write_bytes(
        b"\xef\xbb\xbfhttp://shop.example/a.jpg\r\n\nabsent.jpg\n" + os.fsencode(tmp_path / "b") + b"\n\xff.jpg"
    )
    names = [str(tmp_path / "c?.jpg"), str(tmp_path)]
    found = [one.removeprefix(f"{tmp_path}/") for one in expand(names, [listed])]
    folder = ["a.jpg", "b/1.jpg", "b/2.PNG", "c1.jpg", "c2.jpg"]
    assert found == [
        "c1.jpg",
        "c2.jpg",
        *folder,
        "http://shop.example/a.jpg",
        "absent.jpg",
        "b/1.jpg",
        "b/2.PNG",
        "\udcff.jpg",
    ]
    with pytest.raises(MissingInputError, match=r"d\*\.jpg"):
        image_sources.check_names([str(tmp_path / "d*.jpg")])


def test_every_input_has_a_row_also_where_it_cannot_be_read(tmp_path, fake):
    os.mkfifo(tmp_path / "pipe")
    listed = tmp_path / "list.txt"
    listed.write_bytes(
        b"no.jpg\nnull\0byte.jpg\n"
        + os.fsencode(tmp_path / "pipe")
        + b"\n"
        + b"n" * 5000
        + b"\nftp://a/b.jpg\nhttp://\n"
    )
    summary = run(tmp_path, from_list=(listed,), out=tmp_path / "o.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "o.jsonl").read_text().splitlines()]
    reasons = [row["reason"].partition(":")[0] for row in rows]
    assert reasons == ["missing_file", "unreadable_file", "not_a_file", "unreadable_file", "missing_file", "not_a_url"]
    assert summary.headline == "6 images read = 0 answered + 0 abstained + 6 failed"


def test_urls_are_fetched_behind_the_guards_of_the_collector(tmp_path):
    with serving({"/a.jpg": ok(b"bytes")}) as server:
        sources = [f"{server.url}/a.jpg", f"{server.url}/absent.jpg"]
        with ImageLoader() as loader:
            assert [one.reason.partition(":")[0] for one in loader.load_all(sources)] == ["private_address"] * 2
        with ImageLoader(allow_private=True) as loader:
            found = list(loader.load_all(sources))
    assert [(one.file, one.content, one.reason) for one in found] == [
        (sources[0], b"bytes", ""), (sources[1], None, "http_404"),
    ]  # fmt: skip


@pytest.mark.parametrize("form", ["jsonl", "csv"])
def test_a_file_cut_anywhere_is_resumed_to_the_same_bytes(tmp_path, fake, form):
    listed, out = write_list(tmp_path / "list.txt", 4), tmp_path / f"o.{form}"
    listed.write_bytes(listed.read_bytes() + b"a1.jpg\n=1+1.jpg\na\rb.jpg\n\xff.jpg\n")
    whole_summary = run(tmp_path, from_list=(listed,), out=out)
    whole = out.read_bytes()
    for n_bytes in [*range(0, len(whole), 23), len(whole) - 1, len(whole)]:
        out.write_bytes(whole[:n_bytes])
        summary = run(tmp_path, from_list=(listed,), out=out, resume=True)
        assert out.read_bytes() == whole, n_bytes
        assert summary.counts == whole_summary.counts


@pytest.mark.parametrize(
    "content", ["name,price\n", "{}\n", "[1]\n", '{"file": "a"}\n{"file": "b"}\n', "notes", "[" * 100_000]
)
def test_resume_changes_no_file_that_holds_something_else(tmp_path, fake, content):
    for suffix in (".csv", ".jsonl"):
        out = tmp_path / f"o{suffix}"
        out.write_text(content)
        with pytest.raises(StageError, match="not a prediction"):
            run(tmp_path, from_list=(write_list(tmp_path / "l", 2),), out=out, resume=True)
        assert out.read_text() == content


def test_csv_and_json_lines_hold_the_same(tmp_path):
    row = ImagePrediction(
        "a.jpg", "Oil", 0.51239, "read", "oil", parent="Oils & balms", top=(RankedLabel("Oil", 0.51239),)
    )
    (cells,) = csv.DictReader([header("csv"), format_rows([row], "csv")])
    line = json.loads(format_rows([row], "jsonl"))
    assert {name: cells[name] for name in ("file", "outcome", "category", "parent", "status")} == {
        name: line[name] for name in ("file", "outcome", "category", "parent", "status")
    }
    assert float(cells["probability"]) == line["probability"] == line["top"][0]["probability"] == 0.5124
    assert cells["top"] == "Oil 0.5124"


def test_memory_does_not_grow_with_the_number_of_images(tmp_path, fake):
    def peak(n):
        listed = write_list(tmp_path / "list.txt", n)
        tracemalloc.start()
        summary = run(tmp_path, from_list=(listed,), out=tmp_path / "o.jsonl")
        assert sum(summary.counts.values()) == n
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    peak(10)  # what is imported and cached once
    assert peak(4000) < peak(1000) + 100_000


KILLED = """
import sys
import predict
from skincare import stage
from tests.test_predict_stream import FakePredictor
predict.load_predictor = lambda *_: FakePredictor(0.02)
stage.main("predict", predict.Config, predict.run)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_run_killed_by_a_signal_is_resumed_to_the_same_result(tmp_path, number):
    listed, out = write_list(tmp_path / "list.txt", 60), tmp_path / "o.jsonl"
    command = [sys.executable, "-c", KILLED, "--from", str(listed), "--out", str(out), "--root", str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": f"{REPOSITORY / 'src'}:{REPOSITORY}"}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    while not (out.is_file() and out.read_bytes().count(b"\n") >= 5):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(number)
    _, messages = process.communicate()
    n_before = out.read_bytes().count(b"\n")
    assert 5 <= n_before < 60
    if number != signal.SIGKILL:
        assert process.returncode == 130
        assert "--resume" in messages
    ended = subprocess.run([*command, "--resume"], env=environment, capture_output=True, text=True, check=True)
    assert f"60 images read ({n_before} by an earlier run) = 51 answered + 0 abstained + 9 failed" in ended.stderr
    rows = [json.loads(line) for line in out.read_text().split("\n")[:-1]]
    assert [row["file"] for row in rows] == listed.read_text().splitlines()


def test_a_strip_that_the_model_cannot_take_is_a_row(tmp_path):
    for name, size in (("a.png", (2000, 9)), ("b.png", (9, 2000)), ("c.png", (224, 224)), ("d.png", (1, 1))):
        Image.new("RGB", size, "red").save(tmp_path / name)
    summary = run(tmp_path, tmp_path, by="model", model=str(TINY_MODEL), decoder="rank", out=tmp_path / "o.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "o.jsonl").read_text().splitlines()]
    assert [row["reason"] for row in rows] == ["aspect_ratio: 2000 x 9", "aspect_ratio: 9 x 2000", "", ""]
    assert summary.counts == {"answered": 2, "abstained": 0, "failed": 2}
    best = rows[2]["top"]
    assert len(best) == 3
    assert best[0] == {"label": rows[2]["category"], "probability": rows[2]["probability"]}
    assert best == sorted(best, key=lambda one: -one["probability"])


def confidence(folder, *wanted, temperature=2.0):
    folder.mkdir(parents=True, exist_ok=True)
    rows = [{"wanted_risk": risk, "threshold": threshold} for risk, threshold in wanted]
    (folder / run_confidence.FILE).write_text(json.dumps({"temperature": temperature, "wanted": rows}))


def test_the_threshold_of_the_run_is_the_default(tmp_path):
    layout = Layout(tmp_path)
    source = layout.finetuned_model("r")
    source.mkdir(parents=True)

    def chosen(*options):
        found = run_confidence.choose(layout, source, *options)
        return found.temperature, found.threshold, found.needs_probabilities

    assert chosen(None, None, None, None) == (1.0, None, False)
    confidence(layout.finetune_log("r"), (0.05, 0.9), (0.1, None), (0.2, 0.7), (0.3, 0.5))
    assert chosen(None, None, None, None) == (2.0, 0.7, True), "0.1 has none, 0.2 is the next"
    assert chosen(None, None, None, 0.05) == (2.0, 0.9, True)
    assert chosen(None, None, 0.4, None) == (2.0, 0.4, True)
    assert chosen(None, 1.0, None, None) == (1.0, None, True), "the threshold is one of another temperature"
    assert chosen("generate", None, None, None) == (1.0, None, False)
    with pytest.raises(StageError, match=r"--max-error 0\.1; there is one for 0\.05, 0\.2, 0\.3"):
        chosen(None, None, None, 0.1)
    confidence(source, (0.1, 0.8))
    assert chosen(None, None, None, None) == (2.0, 0.8, True), "an exported folder carries its own"


@pytest.mark.parametrize("temperature", ["warm", 0, -1, math.inf, math.nan, None, []])
@pytest.mark.parametrize("row", [{"wanted_risk": 0.1, "threshold": 0.5}, {"wanted_risk": "few", "threshold": 0.5}, 3])
def test_a_malformed_confidence_file_is_an_error_that_names_it(tmp_path, temperature, row):
    for one in ({"temperature": temperature, "wanted": [row]}, {"temperature": 1.0, "wanted": [row, {}]}):
        (tmp_path / run_confidence.FILE).write_text(json.dumps(one))
        with pytest.raises(StageError, match=r"confidence\.json: not the confidence of a run"):
            run_confidence.choose(Layout(tmp_path / "root"), tmp_path, None, None, None, None)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resume": True}, "--resume needs the file"),
        ({"out": Path("a.txt")}, r"\.jsonl"),
        ({"out": Path("a.csv"), "csv": Path("b.csv")}, "mutually exclusive"),
        ({"out": Path("a.csv"), "form": "csv"}, "--format"),
        ({"max_error": 2.0}, "--max-error 2"),
        ({"max_error": 0.1, "min_confidence": 0.5}, "excludes"),
        ({"top_k": -1}, "--top-k"),
    ],
)
def test_options_that_contradict_each_other_are_refused(tmp_path, options, message):
    with pytest.raises(StageError, match=message):
        run(tmp_path, tmp_path, **options)


def test_bytes_that_are_no_image_give_a_reason():
    image = input_image("a.jpg", b"GIF89a")
    assert image.pixels is None
    assert image.reason


def test_the_reader_alone_starts_without_heavy_modules():
    code = (
        "import sys, predict\nfrom skincare.inference import image_predictor\n"
        "print(sorted({'torch', 'transformers', 'sklearn', 'scipy', 'requests'} & set(sys.modules)))"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY / "src", capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "[]"
