"""Results come in order, whatever works on them, and no more is under way than memory holds."""

import pytest

from skincare import engines
from skincare.cleaning import measuring
from skincare.cleaning.measure_store import MeasureStore
from skincare.paths import REPOSITORY, Layout
from skincare.tables import IMAGES
from tests.dataset_helpers import jpeg, pack, write_pictures


def test_results_come_in_order_and_few_are_under_way():
    started = []

    def double(value):
        started.append(value)
        return 2 * value

    found = engines.in_order("local", double, range(1000))
    assert [next(found) for _ in range(3)] == [0, 2, 4]
    assert len(started) < 900
    assert list(found) == [2 * value for value in range(3, 1000)]


@pytest.mark.slow
def test_ray_gives_the_rows_of_the_local_engine(tmp_path):
    reason = "--engine ray is tested where Ray is installed (pip install 'ray[data]')"
    ray = pytest.importorskip("ray", reason=reason)
    pytest.importorskip("pandas", reason=reason)
    ray.init(num_cpus=2, log_to_driver=False, runtime_env={"env_vars": {"PYTHONPATH": str(REPOSITORY / "src")}})
    layout = Layout(tmp_path)
    write_pictures(layout, {f"10000001_{i}": jpeg(pack(i, 200)) for i in range(1, 40)} | {"10000001_40": b"<html>"})
    rows = IMAGES.read(layout.images_table)
    found = {}
    try:
        for engine in ("local", "ray"):
            with MeasureStore(tmp_path / f"{engine}.sqlite") as store:
                found[engine] = measuring.inspect_all(rows, layout, store, engine)
    finally:
        ray.shutdown()
    assert found["ray"] == found["local"]
    assert len(found["ray"]) == 40
