"""Scores with merged categories: labels that look alike in images, such as Toner and Mist, count as one.

    groups = merging.parse(["Toner+Mist"], labels)
    metrics.score(predictions, labels, merged=groups)  # the scores of 13 categories
    comparison.compare(merging.merge(before, groups, labels), merging.merge(after, groups, labels))

The user chooses the groups before test is evaluated; the plain scores are always reported too.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from skincare.errors import StageError
from skincare.inference.predictions import Prediction
from skincare.labels import Labels

Group = tuple[str, ...]

_JOINED_BY: Final = " + "


def parse(texts: Sequence[str], labels: Labels) -> tuple[Group, ...]:
    """Return the groups of texts such as "Toner+Mist"; StageError for unknown, repeated or single categories."""
    groups = tuple(tuple(name.strip() for name in text.split("+")) for text in texts)
    known = {name.casefold(): name for name in labels.names}
    unknown = sorted({name for group in groups for name in group if name.casefold() not in known})
    if unknown:
        raise StageError(f"{unknown[0]!r} is no category; there are {', '.join(labels.names)}")
    groups = tuple(tuple(known[name.casefold()] for name in group) for group in groups)
    members = [name for group in groups for name in group]
    if len(members) != len(set(members)) or any(len(group) < 2 for group in groups):
        raise StageError("Merge two or more categories, each in one group only, as in Toner+Mist")
    return groups


def names(groups: Sequence[Group], labels: Labels) -> tuple[str, ...]:
    """Return the names after merging, a group as "Toner + Mist" at the position of its first category."""
    return tuple(dict.fromkeys(_renamed(groups, labels).values()))


def merge(predictions: Sequence[Prediction], groups: Sequence[Group], labels: Labels) -> list[Prediction]:
    """Return predictions whose truth, category, candidates and log-probabilities are of the groups.

    A group's probability is the sum of its members'. The predicted category is only renamed, even if another group has
    a higher summed probability.
    """
    if not groups:
        return list(predictions)
    renamed = _renamed(groups, labels)
    places = [[labels.index(old) for old, new in renamed.items() if new == name] for name in names(groups, labels)]
    return [
        replace(
            one,
            truth=renamed[one.truth],
            category=None if one.category is None else renamed[one.category],
            candidates=tuple(dict.fromkeys(renamed[name] for name in one.candidates)),
            log_probabilities=_summed(one.log_probabilities, places),
        )
        for one in predictions
    ]


def _renamed(groups: Sequence[Group], labels: Labels) -> dict[str, str]:
    """Return category -> name, in the order of the labels."""
    joined = {name: _JOINED_BY.join(sorted(group, key=labels.index)) for group in groups for name in group}
    return {name: joined.get(name, name) for name in labels.names}


def _summed(log_probabilities: Sequence[float], places: Sequence[Sequence[int]]) -> tuple[float, ...]:
    if not log_probabilities:
        return ()
    return tuple(float(np.logaddexp.reduce([log_probabilities[i] for i in members])) for members in places)
