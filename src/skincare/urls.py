"""URLs: canonical form, product id and slug, safe file names.

    https://www.lookfantastic.com/dr.-pawpaw-balm-25ml/12060101.html    the old scheme
    https://www.lookfantastic.com/p/dr-pawpaw-balm-25ml/12060101/       the new one; a slug may hold slashes

Input is untrusted text; anything that is not a usable URL raises ValueError and nothing else.
"""

import re
import unicodedata
from typing import Final
from urllib.parse import quote, unquote, urlsplit

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
MAX_URL: Final = 2048
# With id, number and extension a name stays below the 255 bytes that file systems allow.
_MAX_NAME: Final = 120
_MAX_ID: Final = 20
# Device names reserved by Windows, with any extension.
_RESERVED: Final = {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(10))}


def canonical_url(url: str, *, keep_query: bool = False) -> str:
    """Return the canonical form of an http or https URL, without fragment and, unless `keep_query`, without query.

    Raises ValueError for another scheme, a missing or invalid host, an invalid port, or credentials in the URL.
    """
    parts = urlsplit(url.strip())
    if len(url) > MAX_URL or "@" in parts.netloc:
        raise ValueError(f"no usable web address: {url[:100]!r}")
    query = f"?{_quoted(parts.query)}" if keep_query and parts.query else ""
    return f"{origin(url)}{_quoted(parts.path) or '/'}{query}"


def origin(url: str) -> str:
    """Return scheme, host and non-default port of a URL; raises ValueError like `canonical_url`."""
    parts = urlsplit(url.strip())
    host = (parts.hostname or "").encode("idna").decode("ascii")
    if parts.scheme not in _DEFAULT_PORTS or not re.fullmatch(r"[a-z0-9._:-]+", host):
        raise ValueError(f"no web address: {url[:100]!r}")
    port = "" if parts.port in (None, _DEFAULT_PORTS[parts.scheme]) else f":{parts.port}"
    return f"{parts.scheme}://{f'[{host}]' if ':' in host else host}{port}"


def move(url: str, source: str, target: str) -> str:
    """Return a canonical `url` moved from the origin `source` to `target`; a URL on another origin is unchanged."""
    return target + url.removeprefix(source) if origin(url) == source else url


def product_id(url: str) -> str:
    """Return the last group of digits of the path; raises ValueError if there is none or it is too long."""
    groups = re.findall(r"[0-9]+", urlsplit(url).path)
    if not groups or len(groups[-1]) > _MAX_ID:
        raise ValueError(f"no product id in {url[:100]!r}")
    return str(groups[-1])


def product_slug(url: str, identity: str = "") -> str:
    """Return the path before the product id, or the last segment of a path without it, as a safe file name part."""
    path = urlsplit(url).path
    words, found, _ = path.rpartition(identity or product_id(url))
    return safe_name(re.sub(r"^/p/", "", unquote(words))) if found else safe_name(last_words(url))


def last_words(url: str) -> str:
    """Return the last segment of the path without extension, `rose-toner` of /en/products/rose-toner.html."""
    return re.sub(r"\.(html?|php|aspx?)$", "", unquote(urlsplit(url).path).rstrip("/").rpartition("/")[2])


def safe_name(text: str) -> str:
    """Return at most 128 lower-case ASCII letters, digits, dots and hyphens; never a hidden or reserved name."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode("ascii").lower()
    name = re.sub(r"\.{2,}", ".", re.sub(r"[^a-z0-9.]+", "-", plain)).strip("-.")[:_MAX_NAME].rstrip("-.")
    return f"product-{name}".rstrip("-") if name.partition(".")[0] in {*_RESERVED, ""} else name


def _quoted(text: str) -> str:
    return quote(text, safe="/%:@!$&'()*+,;=~?")
