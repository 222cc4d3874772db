"""The results of run.sh as Markdown tables for the README and the docs.

In: the JSON files of a folder; missing files are named in the output.
Command: python benchmarks/gpu/table.py [benchmarks/results/gpu]
"""

import json
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

REPOSITORY: Final = Path(__file__).resolve().parents[2]

Row = Mapping[str, Any]


def main() -> None:
    """Print the tables of a folder."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else REPOSITORY / "benchmarks" / "results" / "gpu"
    sys.stdout.write("\n".join(lines(folder)) + "\n")


def lines(folder: Path) -> Iterator[str]:
    """Yield all tables, after the name of the card and the date."""
    found = _read(folder, "environment")
    yield f"## {found.get('card', 'unknown card')}, {found.get('date', 'unknown date')}"
    yield ""
    if found:
        versions = ", ".join(f"{name} {found['versions'].get(name, '?')}" for name in ("torch", "transformers"))
        rates = [f"{found[key]:,.0f} {unit}" for key, unit in _RATES.items() if key in found]
        yield "; ".join([versions, f"commit {found['git_commit'] or '?'}", *rates])
        yield ""
    for name, show in _TABLES.items():
        content = _read(folder, name)
        yield from show(content) if content else [f"No complete {name}.json: see run.log and steps.jsonl."]
        yield ""


def _read(folder: Path, name: str) -> dict[str, Any]:
    """Return the results of a step; empty if it wrote none, or was stopped while it wrote."""
    try:
        return json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return {}


def _tests(content: Row) -> Iterator[str]:
    counts = Counter(test["outcome"] for test in content["tests"])
    yield "Tests: " + ", ".join(f"{n} {outcome}" for outcome, n in sorted(counts.items()))
    yield ""
    yield from _table(
        ["Test", "Outcome", "Seconds", "Why"], [test["name"].rpartition("::")[2] for test in content["tests"]],
        [[test["outcome"], f"{test['seconds']:.1f}", _cell(test["reason"])] for test in content["tests"]],
    )  # fmt: skip


def _training(content: Row) -> Iterator[str]:
    published = content["reference_published_minutes_per_epoch"]
    cap = f" of at most {content['cap_gb']:g} GiB" if content["cap_gb"] else ""
    for key, title in (
        ("rows", f"{content['batch_size']} images per step"),
        ("largest", "the largest batch that fits"),
    ):
        yield f"Training in a process{cap}, {title}; published reference: {published:.0f} minutes per epoch"
        yield ""
        rows = content.get(key, [])
        head = [
            "",
            "Images per step",
            "Images/s",
            "Ratio",
            "Peak memory",
            "GFLOP per image",
            "Minutes per epoch",
            "Limit",
        ]
        yield from _table(head, [row["variant"] for row in rows], [_training_cells(row) for row in rows])
        yield ""


def _training_cells(row: Row) -> list[str]:
    if "error" in row:
        return [str(row["batch_size"]), *[""] * 5, _cell(row["error"])]
    return [
        str(row["batch_size"]), f"{row['images_per_second']:.2f}", f"{row['ratio']:.1f} x" if "ratio" in row else "",
        f"{row['peak_gib']:.1f} GiB", f"{row['gflop_per_image']:,.0f}", f"{row['minutes_per_epoch']:.1f}",
        f"{row['does_not_fit']}: {_cell(row['why'])}" if "why" in row else "",
    ]  # fmt: skip


def _evaluation(content: Row) -> Iterator[str]:
    yield f"Inference, {content['n_images']} images, {content['batch_size']} per pass"
    yield ""
    rows = content["rows"]
    yield from _table(
        ["", "Images timed", "Images/s", "Ratio", "GFLOP per image", "Operations alone allow"],
        [row["method"] for row in rows],
        [
            [
                str(row["n_images"]), f"{row['images_per_second']:.2f}", f"{row['ratio']:.1f} x",
                f"{row['gflop_per_image']:,.0f}", f"{row['operations_allow']:.1f} x",
            ]
            for row in rows
        ],
    )  # fmt: skip


def _profile(content: Row) -> Iterator[str]:
    yield from _table(
        ["Step", "Images", "Images/s", "Kernels' share of the wall time", "Waits per step"],
        [row["variant"] for row in content["rows"]],
        [
            [
                str(row["batch_size"]), f"{row['images_per_second']:.2f}",
                f"{row['shares_of_wall_time']['kernels']:.1%}" if "shares_of_wall_time" in row else "no device",
                f"{row['waits_per_step']:g}" if "waits_per_step" in row else "",
            ]
            for row in content["rows"]
        ],
    )  # fmt: skip
    yield ""
    for row in content["rows"]:
        yield f"{row['n_steps']} training steps of {row['batch_size']} images ({row['variant']}): {row['verdict']}"
        yield ""
        for name in ("shares_of_wall_time", "shares_of_kernel_time"):
            if name in row:
                yield f"{name.replace('_', ' ')}: " + ", ".join(f"{key} {v:.1%}" for key, v in row[name].items())
                yield ""
        longest = row.get("longest_kernels") or row["longest_operators"]
        yield from _table(
            ["Longest", "Calls", "Share of wall time"], [f"`{_cell(one['name'])}`" for one in longest],
            [[str(one["n_calls"]), f"{one['share']:.1%}"] for one in longest],
        )  # fmt: skip
        yield ""


def _table(head: Sequence[str], names: Sequence[str], cells: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for name, row in zip(names, cells, strict=True):
        yield f"| {' | '.join([name, *row])} |"


def _cell(text: str) -> str:
    """Return external text with table syntax and line ends removed, cut to 160 characters."""
    return " ".join(text.replace("|", "/").split())[:160]


_RATES: Final = {
    "memory_gib": "GiB", "matmul_bf16_tflops": "TFLOP/s in bf16 products", "copy_gb_per_s": "GB/s within its memory",
}  # fmt: skip
_TABLES: Final = {
    "tests": _tests, "finetune_speed": _training, "evaluation_speed": _evaluation, "profile": _profile,
    "profile_compiled": _profile,
}  # fmt: skip


if __name__ == "__main__":
    main()
