"""Structured data of a page with schema.org types (JSON-LD, microdata, RDFa), and JavaScript literals in scripts.

Every syntax gives dictionaries with `@type` and properties, as in JSON-LD; types and attribute names are
case-insensitive.
Microdata and RDFa are parsed in linear time: extruct takes minutes for 40 KB of nested items, and rdflib's RDFa parser
needs a browser DOM.
"""

import html as html_entities
import json
import re
from collections.abc import Iterator
from typing import Any, Final

import chompjs

from skincare.collecting.html_page import Element, HtmlPage

Block = dict[str, Any]

_MAX_LITERAL: Final = 1_000_000
_MAX_JSON: Final = 2_000_000
_MAX_VALUES: Final = 500  # of one JSON-LD script
_MAX_BLOCKS: Final = 5_000
_MAX_PROPERTIES: Final = 5_000
_MAX_TEXT: Final = 8_000
_START: Final = re.compile(r"[\[{]")
# Comment and CDATA markers around JSON, as in XHTML.
_MARKS: Final = re.compile(r"(?:/\*|//)?\s*(?:<!\[CDATA\[|\]\]>|<!--|-->)\s*(?:\*/)?")
# Properties that lead to the main entity; products below other properties are related products.
_DESCENDED: Final = ("mainEntity", "mainEntityOfPage", "@graph", "about")
_PRODUCT_TYPES: Final = frozenset({"product", "productgroup", "productmodel", "individualproduct", "someproducts"})
_LINK_TAGS: Final = frozenset({"a", "area", "link"})
_SOURCE_TAGS: Final = frozenset({"img", "audio", "video", "embed", "iframe", "source", "track"})


def parse_literal(text: str, start: int) -> Any:
    """Decode the JavaScript literal that begins at `start`; None if it is invalid."""
    try:
        return json.JSONDecoder(strict=False).raw_decode(text, start)[0]
    except (ValueError, RecursionError):
        pass
    try:
        return chompjs.parse_js_object(text[start : start + _MAX_LITERAL], loader_kwargs={"strict": False})
    except (ValueError, RecursionError):
        return None


def variants(product: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the members of a ProductGroup; an empty list for a single product."""
    members = product.get("hasVariant")
    return [one for one in (members if isinstance(members, list) else [members]) if isinstance(one, dict)]


def types_of(block: Block) -> set[str]:
    """Return the lower-case names of a block's types: `product` for `http://schema.org/Product`."""
    types = block.get("@type")
    listed = types if isinstance(types, list) else [types]
    return {re.split(r"[/#:]", one.strip())[-1].lower() for one in listed[:20] if isinstance(one, str)}


def is_product(block: Block) -> bool:
    """Return whether a block has a product type."""
    return bool(types_of(block) & _PRODUCT_TYPES)


def json_ld_blocks(page: HtmlPage) -> list[Block]:
    """Return the main JSON-LD blocks of a page, with @id references resolved within each script."""
    blocks: list[Block] = []
    for script in page.tagged("script"):
        if script.get("type").partition(";")[0].strip().lower() != "application/ld+json":
            continue
        values = list(_json_values(page.source_of(script)))
        by_id = _identified(values)
        waiting = values[::-1]
        while waiting and len(blocks) < _MAX_BLOCKS:
            value = waiting.pop()
            if isinstance(value, list):
                waiting.extend(reversed(value[:_MAX_BLOCKS]))
            elif isinstance(value, dict):
                blocks.append(_filled(value, by_id))
                waiting.extend(value[key] for key in _DESCENDED if isinstance(value.get(key), dict | list))
    return blocks


def microdata_blocks(page: HtmlPage) -> list[Block]:
    """Return the top-level items of microdata."""
    return _items(page, "itemscope", "itemtype", "itemprop")


def rdfa_blocks(page: HtmlPage) -> list[Block]:
    """Return the top-level items of RDFa Lite."""
    return _items(page, "typeof", "typeof", "property")


def _json_values(text: str) -> Iterator[Any]:
    """Yield the JSON values of a script, ignoring comment and CDATA markers."""
    text = text[:_MAX_JSON]
    if mark := _MARKS.match(text.lstrip()):
        text = text.lstrip()[mark.end() :]
    if text.lstrip()[:10].startswith(("{&quot;", "[{&quot;")):
        text = html_entities.unescape(text)
    decoder = json.JSONDecoder(strict=False)
    place = 0
    for _ in range(_MAX_VALUES):
        start = _START.search(text, place)
        if not start:
            return
        try:
            value, place = decoder.raw_decode(text, start.start())
        except (ValueError, RecursionError):
            yield parse_literal(text, start.start())
            return
        yield value


def _identified(values: list[Any]) -> dict[str, Block]:
    """Return the blocks of one script's graphs by their @id."""
    found: dict[str, Block] = {}
    for value in values:
        graph = value.get("@graph") if isinstance(value, dict) else value
        for block in graph[:_MAX_BLOCKS] if isinstance(graph, list) else []:
            if isinstance(block, dict) and isinstance(block.get("@id"), str) and len(block) > 1:
                found.setdefault(block["@id"], block)
    return found


def _filled(block: Block, by_id: dict[str, Block]) -> Block:
    if not by_id:
        return block
    return {
        key: [_referred(one, by_id) for one in value] if isinstance(value, list) else _referred(value, by_id)
        for key, value in block.items()
    }


def _referred(value: Any, by_id: dict[str, Block]) -> Any:
    """Return the block that a value references, or the value."""
    is_reference = isinstance(value, dict) and set(value) == {"@id"} and isinstance(value["@id"], str)
    return by_id.get(value["@id"], value) if is_reference else value


def _items(page: HtmlPage, scope: str, kind: str, prop: str) -> list[Block]:
    """Return the top-level items; a property belongs to its nearest enclosing item."""
    items: dict[int, Block] = {}
    owners: list[int] = []  # by element: the index of its nearest item
    top: list[Block] = []
    n_values = 0
    for place, element in enumerate(page.elements):
        owner = owners[element.parent] if element.parent >= 0 else -1
        attributes = element.attrib
        is_item = scope in attributes and len(items) < _MAX_BLOCKS
        names = attributes[prop].split()[:5] if prop in attributes else []
        if is_item:
            items[place] = {"@type": attributes.get(kind, "").split()[:5]}
        if names and owner >= 0:
            n_values += 1
            value: Any = items[place] if is_item else _value(page, element) if n_values <= _MAX_PROPERTIES else ""
            for name in names:
                _add(items[owner], name.rpartition(":")[2], value)
        elif is_item:
            top.append(items[place])
        owners.append(place if is_item else owner)
    return top


def _add(item: Block, name: str, value: Any) -> None:
    known = item.get(name)
    if known in (None, ""):
        item[name] = value
    elif isinstance(known, list):
        if len(known) < _MAX_VALUES:
            known.append(value)
    else:
        item[name] = [known, value]


def _value(page: HtmlPage, element: Element) -> str:
    """Return a property's value: its content, else its link, else its text."""
    attributes, tag = element.attrib, element.tag
    if "content" in attributes:
        return str(attributes["content"])[:_MAX_TEXT]
    if tag in _SOURCE_TAGS:
        return str(attributes.get("src") or attributes.get("data-src") or "")
    if tag in _LINK_TAGS:
        return str(attributes.get("href") or attributes.get("resource") or "")
    if tag in ("data", "meter") and "value" in attributes:
        return str(attributes["value"])
    if tag == "time" and "datetime" in attributes:
        return str(attributes["datetime"])
    return page.text_of(element, 400, _MAX_TEXT)
