"""Results come in order, whatever works on them, and no more is under way than memory holds."""

import os
import signal
import subprocess
import sys
import time
from functools import partial
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
        raise ValueError("an error is no death")
    return 2 * value


def _lost(value):
    return f"lost {value}"


@pytest.mark.parametrize("order", [partial(worker_pool.map_ordered, "local", lost=_lost), worker_pool.map_threads])
def test_results_come_in_order_and_few_are_under_way(order):
    taken = []
    found = order(function=_double, items=(taken.append(value) or value for value in range(1000)))
    assert [next(found) for _ in range(3)] == [0, 2, 4]
    assert len(taken) < 900
    assert list(found) == [2 * value for value in range(3, 1000)]


def test_what_kills_its_process_or_hangs_is_lost_alone(monkeypatch):
    monkeypatch.setattr(worker_pool, "_PATIENCE_S", 1)
    found = list(worker_pool.map_ordered("local", _double_or_die, range(800), _lost))
    lost = {13, 20, 500, 777}
    assert found == [f"lost {value}" if value in lost else 2 * value for value in range(800)]


def test_an_error_is_raised_where_the_results_are_taken():
    found = worker_pool.map_ordered("local", _double_or_die, range(892, 2000), _lost)
    assert [next(found) for _ in range(8)] == [2 * value for value in range(892, 900)]
    with pytest.raises(ValueError, match="no death"):
        next(found)


def test_nothing_is_left_running_when_the_program_is_killed():
    code = (
        "import time\nfrom skincare import worker_pool\n"
        "for one in worker_pool.map_ordered('local', time.sleep, iter(lambda: 0.01, None), None):\n"
        "    print(one, flush=True)"
    )
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "src")}
    with subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE) as program:
        assert program.stdout.readline()
        program.kill()
        # The pipe ends when the last process that writes to it has.
        program.communicate(timeout=20)


def test_a_function_runs_beside_a_block_and_its_error_is_raised_at_the_end(tmp_path):
    file = tmp_path / "written"
    with worker_pool.run_alongside(file.write_text, "beside"):
        pass
    assert file.read_text(encoding="utf-8") == "beside"
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
