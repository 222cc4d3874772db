"""The stage serve.py as a process: start, answers of the reader, reload, end, and what it refuses."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
import requests

from skincare.paths import REPOSITORY, TINY_MODEL, Layout
from skincare.sample.products import sample_products
from skincare.sample.rendering import image_bytes

SCRIPT = str(REPOSITORY / "src" / "serve.py")


@contextmanager
def started(root, *options, is_ready=True, **variables):
    """Run the stage on a free port and yield process, address and the lines of its log."""
    command = [sys.executable, SCRIPT, "--root", str(root), "--port", "0", "--workers", "1", *options]
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env={**os.environ, **variables}, start_new_session=True
    )
    lines, address = [], threading.Event()

    def read():
        for line in process.stderr:
            lines.append(line)
            if "http://" in line:
                address.set()

    threading.Thread(target=read, daemon=True).start()
    try:
        assert address.wait(60), lines
        url = re.search(r"http://\S+", "".join(lines))[0]
        until(lambda: requests.get(f"{url}/readyz").status_code == (200 if is_ready else 503))
        yield process, url, lines
    finally:
        process.kill()
        process.wait()


def until(holds, seconds=60):
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)


def refused(tmp_path, *options):
    command = [sys.executable, SCRIPT, "--root", str(tmp_path), "--port", "0", *options]
    found = subprocess.run(command, capture_output=True, text=True, timeout=60)
    return found.returncode, found.stderr


def pack():
    product = sample_products(0)[0]
    return image_bytes(product, product.images[0], {product.product_id: product})


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("root")


def test_the_reader_answers_reloads_and_ends_with_a_summary(root):
    answers = root / "answers.jsonl"
    with started(root, "--answers", str(answers)) as (process, url, lines):
        reply = requests.post(f"{url}/predict?detail=true", data=pack(), headers={"Content-Type": "image/jpeg"})
        (one,) = reply.json()["predictions"]
        assert one["text"]
        assert len(one["lines"]) == len(one["text"])
        broken = requests.post(f"{url}/predict", files={"images": ("a.jpg", b"\xff\xd8broken")})
        assert (broken.status_code, broken.json()["predictions"][0]["status"]) == (422, "unreadable")
        assert str(root) not in reply.text + broken.text + requests.get(f"{url}/readyz").text
        process.send_signal(signal.SIGHUP)
        until(lambda: any("Reloaded" in line for line in lines))
        assert requests.get(f"{url}/readyz").json()["workers"] == 1
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    rows = [json.loads(line) for line in answers.read_text(encoding="utf-8").splitlines()]
    assert [row["status"] for row in rows] == [one["status"], "unreadable"]
    summary = json.loads(Layout(root).summary("serve").read_text(encoding="utf-8"))
    assert summary["counts"]["unreadable"] == 1


def test_sigterm_while_the_model_loads_ends_the_service(root):
    with started(root, "--by", "model", "--model", str(TINY_MODEL), is_ready=False) as (process, _, _):
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def test_sigterm_to_the_whole_process_group_answers_what_was_accepted(root):
    with started(root) as (process, url, _), ThreadPoolExecutor(1) as pool:
        future = pool.submit(requests.post, f"{url}/predict", data=pack(), headers={"Content-Type": "image/jpeg"})
        time.sleep(0.3)
        os.killpg(process.pid, signal.SIGTERM)
        assert future.result(30).json()["predictions"][0]["text"]
        assert process.wait(30) == 0


def test_the_key_of_the_environment_is_required_and_not_logged(root):
    with started(root, SKINCARE_API_KEY="quite-secret") as (process, url, lines):
        assert requests.post(f"{url}/predict", files={"images": b"a"}).status_code == 401
        process.send_signal(signal.SIGTERM)
        process.wait(30)
    log = Layout(root).stage_log("serve").read_text(encoding="utf-8")
    assert "quite-secret" not in "".join(lines) + log + Layout(root).summary("serve").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (("--by", "model"), 2, "fine-tuned model not found"),
        (("--by", "reader", "--decoder", "rank"), 1, "--by reader uses no model"),
        (("--backend", "openai"), 1, "belong together"),
        (("--limits.max-queue", "0"), 1, "--limits.max-queue 0 is not a number above 0"),
        (("--max-batch", "0"), 1, "--max-batch at least 1"),
    ],
)
def test_what_cannot_be_served_is_refused_with_an_exit_code(tmp_path, options, code, message):
    found, log = refused(tmp_path, *options)
    assert (found, "Traceback" in log) == (code, False), log
    assert message in log


def test_a_missing_package_is_named_with_its_remedy(tmp_path):
    program = (
        f"import runpy, sys; sys.modules['fastapi'] = None; sys.argv = {['serve.py', '--root', str(tmp_path)]!r}\n"
    )
    program += f"sys.path.insert(0, {str(REPOSITORY / 'src')!r}); runpy.run_path({SCRIPT!r}, run_name='__main__')"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert found.returncode == 2
    assert "requirements-serve.txt" in found.stderr
