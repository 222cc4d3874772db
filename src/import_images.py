"""Import images that you already have: a folder per category, a table with a folder, or `datasets` / Parquet files.

- In: SOURCE, see below. Nothing in it is changed.
- Out: product_images/, csv_data/{skincare_products_clean,images_id_full,scrape_failures}.csv, log/import_images.json:
  the tables that scrape.py writes, so every later stage works unchanged.
- Command: python src/import_images.py photos/ --root my_run
- Time: 5 s for 192 photos on two cores; a second run reads only new and changed files. Memory use is constant.

Forms of SOURCE:

- a folder per category: photos/Cleanser/rose.jpg; folders below that of the category are products
- a folder with a CSV, TSV or JSONL file, or with Hugging Face's metadata.csv or metadata.jsonl; or such a file itself
- a folder of `datasets` (save_to_disk), or Parquet files such as `export_dataset.py --format parquet` writes

Every file of SOURCE is imported or listed in csv_data/scrape_failures.csv with a reason. A JPEG that is upright RGB
keeps its bytes; everything else is converted. After an interruption the same command continues.
"""

import dataclasses
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import tyro
from tqdm import tqdm

from skincare import colours, file_formats, images, runlog, stage, worker_pool
from skincare.cleaning.verification import near_duplicate_rows
from skincare.code_version import code_version
from skincare.dataset.splitting import group_products
from skincare.errors import StageError
from skincare.files import check_writable
from skincare.importing import grouping, import_tables, transfer
from skincare.importing.category_names import CategoryNames
from skincare.importing.columns import Role
from skincare.importing.entries import Entry, Refusal, Source
from skincare.importing.grouping import GroupBy, Grouping
from skincare.importing.import_state import ImportState
from skincare.importing.sources import open_source
from skincare.importing.transfer import Job, Outcome
from skincare.labels import labels_of
from skincare.paths import Layout
from skincare.runlog import Summary, counts_text
from skincare.tables import CATALOGUE, FAILURES, IMAGES

logger = logging.getLogger(__name__)

# Reasons that may not apply to the next run although the file is unchanged.
_PASSING: Final = ("unreadable_file", "kills_decoder")


@dataclass(frozen=True, kw_only=True)
class Config(stage.StageConfig):
    """Options of the stage."""

    source: tyro.conf.Positional[Path]
    """Folder or table file with the images."""
    table: Path | None = None
    """Table of the images, if SOURCE has several tables or the table is elsewhere; may be relative to SOURCE."""
    columns: dict[Role, str] = field(default_factory=dict)
    """Columns of the table that are given instead of detected, such as `category type product sku`."""
    categories: dict[str, str] = field(default_factory=dict)
    """Labels for category texts that are not labels, such as `Lotion Moisturiser`."""
    group_by: GroupBy = "auto"
    """How images are grouped into products; auto: the first possible of column, folder, pattern, near-duplicates."""
    product_pattern: str = ""
    """Regular expression for file names, whose first group is the product, such as `^([0-9]+)_`."""
    licence: str = ""
    """Licence of the images without one in the table."""
    attribution: str = ""
    """Attribution of the images without one in the table."""
    link: bool = False
    """Hard-link files that need no conversion instead of copying them."""


def run(config: Config, layout: Layout) -> Summary:
    """Read the source, group, transfer every image, write the tables from the state."""
    names = CategoryNames(labels_of(layout), config.categories)
    source = open_source(config.source, config.table, config.columns, names)
    _check_place(config, layout)
    logger.info("%s: %s", config.source, source.description)
    with ImportState(layout.import_state) as state:
        _check_source(config, state, layout)
        state.replace_entries(_labelled(source, names, config))
        _refuse_repeated(state)
        chosen = grouping.choose_grouping(config.group_by, config.product_pattern, source.columns, state)
        logger.info("images are grouped into products by %s: %s", chosen.by, chosen.why)
        runlog.remove_summary("import_images", layout)
        _bring_over(config, chosen, state, layout)
        if chosen.by == "near-duplicates" and _store_groups(state, layout):
            _bring_over(config, chosen, state, layout)
        counts = import_tables.counts(state)
        if not counts["imported"]:
            raise StageError(
                f"{config.source}: no image could be imported ({_refused(counts)})\n{_hints(state)}".strip()
            )
        # The images must be on disk before the tables name them.
        os.sync()
        CATALOGUE.write(layout.catalogue, import_tables.catalogue_rows(state), is_sorted=True)
        FAILURES.write(layout.failures_table, import_tables.failure_rows(state))
        IMAGES.write(layout.images_table, import_tables.image_rows(state, layout), is_sorted=True)
        return _summary(config, source, chosen, counts, state)


def _check_place(config: Config, layout: Layout) -> None:
    """Raise StageError where source and target overlap, or the root has the products of another stage."""
    source, target = config.source.resolve(), layout.product_images.resolve()
    if source.is_relative_to(target) or target.is_relative_to(source):
        raise StageError(f"{config.source} and {layout.product_images} overlap; name another --root")
    for path in (layout.catalogue, layout.images_table):
        if path.exists() and not layout.import_state.is_file():
            raise StageError(
                f"{path} is there and was not made by an import; name another folder with --root, so that neither "
                "collection replaces the other"
            )
    check_writable(layout.import_state)


def _check_source(config: Config, state: ImportState, layout: Layout) -> None:
    """Raise StageError where the root has the import of another source; discard results of other code."""
    name = str(config.source.resolve())
    known = state.one("select value from about where key = 'source'")
    if known not in (None, name):
        raise StageError(
            f"{layout.root} holds the images of {known}; name another --root, or put both below one folder and import "
            "that"
        )
    code = code_version((colours, file_formats, images, transfer), ("pillow", "simplejpeg"))
    if state.one("select value from about where key = 'code'") != code:
        state.change("update results set stamp = ''")
    state.change_all("insert or replace into about values (?, ?)", [("source", name), ("code", code)])
    for leftover in layout.product_images.glob(".*.part"):
        leftover.unlink()


def _labelled(source: Source, names: CategoryNames, config: Config) -> Iterator[tuple[Entry | Refusal, str]]:
    """Yield every item with its label; an entry without a label becomes a rejected entry."""
    for item in source.items():
        if isinstance(item, Refusal):
            yield item, ""
        elif label := names.find(item.category):
            licence, attribution = item.licence or config.licence, item.attribution or config.attribution
            yield dataclasses.replace(item, licence=licence, attribution=attribution), label
        elif item.category:
            yield Refusal(item.place, "unknown_category", names.hint(item.category)), ""
        else:
            yield Refusal(item.place, "no_category", "neither a column nor a folder names it"), ""


def _refuse_repeated(state: ImportState) -> None:
    """Reject every entry of a file that an earlier entry has."""
    state.change(
        "update entries set reason = 'duplicate_row', detail = 'named before' where reason = '' and exists "
        "(select 1 from entries as earlier where earlier.place = entries.place and earlier.reason in ('', "
        "'duplicate_row') and earlier.position < entries.position)"
    )


def _bring_over(config: Config, chosen: Grouping, state: ImportState, layout: Layout) -> None:
    """Rename the images in product_images/ after the products of their entries."""
    grouping.assign_products(chosen, state, config.source.resolve().stem)
    layout.product_images.mkdir(parents=True, exist_ok=True)
    _rearrange(state, layout)
    n_entries = state.one("select count(*) from entries where reason = ''")
    with tqdm(total=n_entries, desc="import_images", unit="image", disable=None) as bar:
        jobs = _jobs(config, state, layout, bar)
        for job, outcome in worker_pool.map_ordered("local", _transfer, jobs, _not_survived):
            if outcome.reason:
                job.target.unlink(missing_ok=True)
            state.keep_result(
                job.place, job.stamp if outcome.reason not in _PASSING else "", file=job.target.name, **vars(outcome)
            )
            bar.update()
    state.commit()


def _transfer(job: Job) -> tuple[Job, Outcome]:
    return job, transfer.transfer(job)


def _not_survived(job: Job) -> tuple[Job, Outcome]:
    return job, transfer.not_survived(job)


def _rearrange(state: ImportState, layout: Layout) -> None:
    """Rename images whose product has a new name, and remove those without an entry."""
    moved = state.rows(
        "select results.place, results.file, coalesce(entries.file, '') from results "
        "left join entries on entries.place = results.place and entries.reason = '' "
        "where results.file <> coalesce(entries.file, '')"
    )
    for place, old, new in list(moved):
        path = layout.product_images / old
        if new and path.is_file():
            path.replace(layout.product_images / new)
        else:
            path.unlink(missing_ok=True)
        if new:
            state.change("update results set file = ? where place = ?", new, place)
        else:
            state.change("delete from results where place = ?", place)
    state.commit()


def _jobs(config: Config, state: ImportState, layout: Layout, bar: "tqdm[None]") -> Iterator[Job]:
    """Yield the entries to transfer: new, changed, or with a missing image file."""
    columns = "place, path, row, col, file"
    for _, place, raw_path, row, column, file in state.by_position(columns):
        path, target = Path(os.fsdecode(raw_path)), layout.product_images / file
        try:
            stamp = f"{transfer.stamp_of(path, row)} {config.link}"
        except OSError:
            stamp = ""
        known = next(state.rows("select stamp, n_bytes, reason from results where place = ?", place), None)
        if known and stamp and known[0] == stamp and (known[2] or _size(target) == known[1]):
            bar.update()
            continue
        yield Job(place, path, row, column, target, stamp, config.link)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1


def _store_groups(state: ImportState, layout: Layout) -> bool:
    """Store the groups of near-duplicates; return whether this changes any product.

    Images of different categories stay apart: clean.py reports them as a conflict.
    """
    rows = list(import_tables.image_rows(state, layout))
    pairs = near_duplicate_rows(rows, layout)
    found = {
        f"{product_id}_{n}": (place, label)
        for _, place, label, product_id, n in state.by_position("place, label, product_id, n")
    }
    known = [found[row.image_id] for row in rows]
    links = [(known[i][0], known[j][0]) for i, j in pairs if known[i][1] == known[j][1]]
    group_of = group_products((place for place, _ in known), links)
    members: dict[str, list[str]] = {}
    for place, group in group_of.items():
        members.setdefault(group, []).append(place)
    new = {
        place: f"near-duplicates {group}" for group, places in members.items() if len(places) > 1 for place in places
    }
    old = dict(state.rows("select place, key from groups"))
    if new == old:
        return False
    state.change("delete from groups")
    state.change_all("insert into groups values (?, ?)", new.items())
    return True


def _refused(counts: dict[str, int]) -> str:
    return counts_text(counts, "imported")


def _hints(state: ImportState) -> str:
    hints = [str(detail) for detail in import_tables.figures(state)["unknown_categories"]]
    return "\n".join(hints[:5])


def _summary(config: Config, source: Source, chosen: Grouping, counts: dict[str, int], state: ImportState) -> Summary:
    figures = import_tables.figures(state)
    # Without those of which no image could be imported.
    n_products = sum(products for _, products in figures["images_and_products"].values())
    for detail, n in figures["unknown_categories"].items():
        logger.warning("%d images: %s", n, detail)
    return Summary(
        headline=f"imported {counts['imported']:,} of {sum(counts.values()):,} files or rows as {n_products:,} "
        f"products (grouped by {chosen.by}); not imported: {_refused(counts)}; see csv_data/scrape_failures.csv",
        counts=counts,
        results={
            "source": str(config.source),
            "form": source.description,
            "columns": source.columns,
            "grouped_by": chosen.by,
            "grouped_because": chosen.why,
            "n_products": n_products,
            **figures,
        },
    )


def main() -> None:
    """Run the stage from the command line."""
    stage.main("import_images", Config, run)


if __name__ == "__main__":
    main()
