"""Ordered results, a bounded number of items in flight, isolation of items that crash or hang their worker."""

import os
import signal
import subprocess
import sys
import time
from functools import partial
from itertools import count, islice
from pathlib import Path

import pytest

from skincare import worker_pool
from skincare.cleaning import batch_inspection
from skincare.cleaning.metrics_cache import MetricsCache
from skincare.paths import REPOSITORY, Layout
from skincare.tables import IMAGES
from tests.dataset_helpers import jpeg, pack, write_images


def _double(value):
    return 2 * value


def _double_or_die(value):
    if value in (13, 20, 777):
        os.kill(os.getpid(), signal.SIGKILL)
    if value == 500:
        time.sleep(60)
    if value == 900:
        raise ValueError("not a crash")
    return 2 * value


def _on_failure(value):
    return f"failed {value}"


@pytest.mark.parametrize(
    "map_items", [partial(worker_pool.map_ordered, "local", on_failure=_on_failure), worker_pool.map_threads]
)
def test_results_are_ordered_and_few_items_are_in_flight(map_items):
    taken = []
    found = map_items(function=_double, items=(taken.append(value) or value for value in range(1000)))
    assert [next(found) for _ in range(3)] == [0, 2, 4]
    assert len(taken) < 900
    assert list(found) == [2 * value for value in range(3, 1000)]


def test_endless_items_are_taken_only_as_results_are_consumed():
    taken = []
    found = worker_pool.map_ordered("local", _double, (taken.append(i) or i for i in count()), _on_failure)
    in_flight = [len(taken) - n for n, _ in enumerate(islice(found, 500))]
    found.close()
    assert max(in_flight) <= 16 * (os.cpu_count() or 1)


def test_only_the_item_that_crashes_or_hangs_its_worker_fails(monkeypatch):
    monkeypatch.setattr(worker_pool, "_TIMEOUT_S", 1)
    found = list(worker_pool.map_ordered("local", _double_or_die, range(800), _on_failure))
    failed = {13, 20, 500, 777}
    assert found == [f"failed {value}" if value in failed else 2 * value for value in range(800)]


def test_an_exception_of_the_function_is_raised_to_the_consumer():
    found = worker_pool.map_ordered("local", _double_or_die, range(892, 2000), _on_failure)
    assert [next(found) for _ in range(8)] == [2 * value for value in range(892, 900)]
    with pytest.raises(ValueError, match="not a crash"):
        next(found)


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT])
def test_no_worker_survives_the_program(end):
    code = (
        "import time\nfrom skincare import worker_pool\n"
        "for one in worker_pool.map_ordered('local', time.sleep, iter(lambda: 0.01, None), None):\n"
        "    print(one, flush=True)"
    )
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "src")}
    with subprocess.Popen(
        [sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as program:
        assert program.stdout.readline()
        program.send_signal(end)
        # The pipe ends when the last process that writes to it has.
        program.communicate(timeout=20)
    assert program.returncode == -end


def test_a_function_runs_alongside_a_block_and_its_exception_is_raised_at_the_end(tmp_path):
    file = tmp_path / "written"
    with worker_pool.run_alongside(file.write_text, "text"):
        pass
    assert file.read_text(encoding="utf-8") == "text"
    with pytest.raises(FileNotFoundError), worker_pool.run_alongside(Path(tmp_path / "no" / "folder").write_text, ""):
        file.unlink()
    assert not file.exists()


@pytest.mark.slow
def test_ray_gives_the_rows_of_the_local_engine(tmp_path):
    reason = "--engine ray is tested where Ray is installed (pip install 'ray[data]')"
    ray = pytest.importorskip("ray", reason=reason)
    pytest.importorskip("pandas", reason=reason)
    ray.init(num_cpus=2, log_to_driver=False, runtime_env={"env_vars": {"PYTHONPATH": str(REPOSITORY / "src")}})
    layout = Layout(tmp_path)
    write_images(layout, {f"10000001_{i}": jpeg(pack(i, 200)) for i in range(1, 40)} | {"10000001_40": b"<html>"})
    rows = IMAGES.read(layout.images_table)
    found = {}
    try:
        for engine in ("local", "ray"):
            with MetricsCache(tmp_path / f"{engine}.sqlite") as store:
                found[engine] = batch_inspection.inspect_all(rows, layout, store, engine)
    finally:
        ray.shutdown()
    assert found["ray"] == found["local"]
    assert len(found["ray"]) == 40
