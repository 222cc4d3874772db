"""The cleaning report as text: images kept and rejected, the reasons, and images worth checking."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from skincare.cleaning import checks
from skincare.tables import RejectedRow

_MAX_LISTED: Final = 50


def render(counts: Mapping[str, int], results: Mapping[str, Any], rejected: Sequence[RejectedRow]) -> str:
    """Return the report as plain text."""
    seen, kept = results["seen"], counts["kept"]
    lines = [
        "CLEANING REPORT",
        "",
        f"{seen:6,} images of {results['products_seen']:,} products",
        f"{kept:6,} kept ({kept / seen:.1%}), of {results['products_kept']:,} products",
        f"{seen - kept:6,} rejected, one row each in rejected.csv:",
        *(f"{n:10,} {reason:18} {checks.meaning(reason)}" for reason, n in counts.items() if reason != "kept"),
        "",
        "Rejected of each category, by reason:",
        *(
            _category_line(reason, counts, results["seen_by_category"])
            for reason, counts in results["rejected_by_category"].items()
        ),
        "",
        "Sharpness: images that other thresholds would keep",
        f"{'threshold':>10} {'by content':>12} {'by whole frame, as the reference did':>40}",
        *(
            f"{threshold:>10} {n:12,} {results['plain_sharp_at_threshold'][threshold]:40,}"
            for threshold, n in results["sharp_at_threshold"].items()
        ),
        "",
        f"Kept though the whole frame is below the threshold (pale or small packs on white; worth checking): "
        f"{_some(results['kept_against_plain_rule'])}",
        f"Products that lost every image: {_some(results['products_lost'])}",
        f"Different images that share a 256-bit difference hash, all kept: {results['n_equal_hashes']}",
        "",
        "Images that two categories share:",
        *([f"    {one} and {other}: {categories}" for one, other, categories in results["conflicts"]] or ["    none"]),
        "",
        "What each check finds, alone or with others, among the images that can be read:",
        *(
            f"{one['failing']:10,} {reason:18} threshold {one['threshold']:<5g}"
            f"{'' if one['rejects'] else ' only counted;'} "
            f"{checks.meaning(reason)}"
            for reason, one in results["checks"].items()
        ),
        "",
        *(line for name, other in results["against_reference"].items() for line in _comparison(name, other)),
        "",
        "Rejected:",
        *(f"    {row.image_id:>14} {row.reason:18} {_why(row)}" for row in rejected),
    ]
    return "\n".join(lines) + "\n"


def _category_line(reason: str, counts: Mapping[str, int], seen: Mapping[str, int]) -> str:
    shares = ", ".join(f"{category} {n} of {seen[category]:,}" for category, n in counts.items())
    return f"    {reason:18} {shares}"


def _comparison(name: str, other: Mapping[str, Any]) -> list[str]:
    reasons = ", ".join(f"{reason} {n:,}" for reason, n in other["rejected"].items()) or "nothing rejected"
    return [
        f"--rules {name} keeps {other['kept']:,}: {reasons}",
        f"    rejected by them, not by content: {_some(other['only_they_reject'])}",
        f"    rejected by content, not by them: {_some(other['only_they_keep'])}",
    ]


def _why(row: RejectedRow) -> str:
    threshold = f" (threshold {row.limit})" if row.limit else ""
    original = f" of {row.duplicate_of}" if row.duplicate_of else ""
    return f"{row.value}{threshold}{original}".strip()


def _some(items: Sequence[str]) -> str:
    more = f" and {len(items) - _MAX_LISTED} more" if len(items) > _MAX_LISTED else ""
    return f"{len(items)}" + (f": {', '.join(items[:_MAX_LISTED])}{more}" if items else "")
