"""Product pages as common shop systems build them, with structured data (`STRUCTURED`) or without (`VISIBLE_ONLY`).

Each has a name, a brand, a price and an image that the parser must find, and related products that it must ignore.
"""

import json
from dataclasses import dataclass

URL = "https://shop.example/products/rose-serum-30ml"
OTHERS = (
    "<section class='related-products'><h2>You may also like</h2><ul>"
    + "".join(
        f"<li class='card'><a href='/products/{n}'><img src='/img/other-{n}.jpg' width='400'>Lily {n}</a>"
        f"<span class='price'>£{n}.95</span><button>Add to cart</button></li>"
        for n in range(3, 9)
    )
    + "</ul></section>"
)
TOP = (
    "<header><a href='/'><img src='/logo.png' alt='The Shop' width='300'></a><a href='/cart'>Cart: £0.00</a>"
    "<p>Free delivery from £30.00</p></header><nav class='menu'><a href='/face'>Face</a></nav>"
)
TITLE = "<title>Rose Serum 30ml | The Shop</title>"


@dataclass(frozen=True)
class Kind:
    """A page and the expected result; `images` are the expected URLs without the origin."""

    html: str | bytes
    price: str | None = "15.00"
    currency: str | None = "GBP"
    brand: str | None = None
    images: tuple[str, ...] = ("/img/rose.jpg",)


def document(body: str, head: str = "") -> str:
    return f"<html><head>{TITLE}{head}</head><body>{TOP}<main>{body}</main>{OTHERS}</body></html>"


def ld(**changes: object) -> str:
    block = {"@context": "https://schema.org", "@type": "Product", "name": "Rose Serum 30ml", "image": "/img/rose.jpg",
             "brand": {"@type": "Brand", "name": "Acme"},
             "offers": {"@type": "Offer", "price": "15.00", "priceCurrency": "GBP"}}  # fmt: skip
    return f"<script type='application/ld+json'>{json.dumps({**block, **changes})}</script>"


IMG = "<img class='product-image' src='/img/rose.jpg' width='600' height='600' alt='Rose Serum 30ml'>"
BUY = "<form action='/cart/add'><input name='quantity' value='1'><button>Add to cart</button></form>"

VISIBLE_ONLY = {
    "blog system": Kind(document(
        "<div class='product'><div class='gallery'><a href='/img/rose.jpg'><img src='/img/rose-600x600.jpg' "
        "data-large_image='/img/rose.jpg' width='600'></a></div><div class='summary'><h1 class='product_title'>Rose Serum 30ml</h1>"
        "<p class='price'><del><span class='amount'><bdi><span>&pound;</span>20.00</bdi></span></del> "
        "<ins><span class='amount'><bdi><span>&pound;</span>15.00</bdi></span></ins></p>"
        "<form class='cart'><input name='quantity'><button name='add-to-cart'>Add to basket</button></form>"
        "<span class='brand'>Brand: <a href='/brand/acme'>Acme</a></span></div></div>"), brand="Acme"),
    "old and final price": Kind(document(
        f"<h1 class='page-title'>Rose Serum 30ml</h1>{IMG}<div class='price-box'><span class='special-price'>"
        "<span class='price-label'>Special Price</span><span class='price'>£15.00</span></span><span class='old-price'>"
        f"<span class='price-label'>Regular Price</span><span class='price'>£20.00</span></span></div>{BUY}")),
    "old price only by its class": Kind(document(
        f"<h1>Rose Serum 30ml</h1>{IMG}<div><span class='old-price'>£20.00</span> <span class='price'>£15.00</span></div>{BUY}")),
    "reduced from, to": Kind(document(
        f"<h1 class='product-name'>Rose Serum 30ml</h1>{IMG}<div class='prices'><div class='price'><span class='strike-through "
        "list'><span class='value' content='20.00'><span class='sr-only'>Price reduced from</span>£20.00<span class='sr-only'>"
        f"to</span></span></span><span class='sales'><span class='value' content='15.00'>£15.00</span></span></div></div>{BUY}")),
    "split in three": Kind(document(
        f"<h1>Rose Serum 30ml</h1>{IMG}<div class='buybox'><span class='price-big'><sup>£</sup><span>15</span><sup>00</sup></span>"
        f"</div>{BUY}")),
    "split by a point": Kind(document(
        f"<h1>Rose Serum 30ml</h1>{IMG}<p class='product-price'><span>£</span><span class='int'>15</span>"
        f"<span class='dec'>.00</span></p>{BUY}")),
    "sign as a point": Kind(document(f"<h1>Rose Serum 30ml</h1>{IMG}<p class='prix'>15€<sup>90</sup></p>{BUY}"), price="15.90", currency="EUR"),
    "no words in classes": Kind(document(
        f"<div class='c1'><h1>Rose Serum 30ml</h1><div class='c2'>{IMG}</div><div class='c3'><div class='x9'>£15.00</div>"
        "<div class='x7'>Delivery £3.95</div><button class='c4'>Add to basket</button></div></div>")),
    "in a wrapper with misleading names": Kind(document(
        f"<div class='page has-reviews cookie-banner-open'><div class='slider' style='display:none'><h1>Rose Serum 30ml</h1>{IMG}"
        f"<p class='price'>£15.00</p>{BUY}</div></div>")),
    "german": Kind(document(
        f"<h1>Rose Serum 30ml</h1>{IMG}<p>Hersteller: Acme</p><div><b>15,00 €</b> <small>inkl. MwSt., zzgl. Versand ab 3,95 €"
        "</small><p>Grundpreis: 50,00 € / 100 ml</p><p>UVP 20,00 €</p></div><button>In den Warenkorb</button>"),
        currency="EUR", brand="Acme"),
    "thousands of pesos": Kind(document(
        f"<h1>Rose Serum 30ml</h1>{IMG}<p class='precio'>$ 24.990</p><p>6 cuotas de $ 4.165</p><button>Agregar al carrito</button>"),
        price="24990.00", currency=None),
    "rubles": Kind(document(
        f"<h1>Rose Serum 30ml</h1>{IMG}<table><tr><td>Бренд</td><td>Acme</td></tr></table><div class='cost'>1 290 руб.</div>"
        "<a class='btn'>Купить</a>"), price="1290.00", currency="RUB", brand="Acme"),
    "yen in EUC": Kind(document(
        f"<meta charset='euc-jp'><h1>ローズ Serum 30ml</h1>{IMG}<table><tr><td>ブランド</td><td>Acme</td></tr>"
        "<tr><td>価格</td><td><b>3,980円</b>（税込）</td></tr></table><button>カートに入れる</button>").encode("euc_jp"),
        price="3980.00", currency="JPY", brand="Acme"),
    "out of stock": Kind(document(
        f"<div class='product-detail'><h1>Rose Serum 30ml</h1>{IMG}<p>Currently out of stock</p><input type='hidden' "
        "name='product_id' value='1'></div>"), price=None, currency=None),
}  # fmt: skip
STRUCTURED = {
    "json-ld alone": Kind(document("<h1>Rose Serum 30ml</h1>", ld()), brand="Acme"),
    "regular price structured, sale price visible": Kind(document(
        f"<div class='product-main'><h1>Rose Serum 30ml</h1>{IMG}<p class='price sale-price'>£12.00</p><s class='price'>£15.00</s>{BUY}</div>",
        ld()), price="12.00", brand="Acme"),
    "among others": Kind(document("<h1>Rose Serum 30ml</h1>", ld(name="Lily", offers={"price": "3"}) + ld()
                               + ld(name="Mint", offers={"price": "4"})), brand="Acme"),
    "by reference": Kind(document("<h1>Rose Serum 30ml</h1>", "<script type='application/ld+json'>" + json.dumps({"@graph": [
        {"@type": "Product", "name": "Rose Serum 30ml", "image": {"@id": "#i"}, "brand": {"@id": "#b"}, "offers": {"@id": "#o"}},
        {"@id": "#i", "@type": "ImageObject", "url": "/img/rose.jpg"}, {"@id": "#b", "@type": "Brand", "name": "Acme"},
        {"@id": "#o", "@type": "Offer", "price": 15, "priceCurrency": "GBP"}]}) + "</script>"), brand="Acme"),
    "six decimals": Kind(document("<h1>Rose Serum 30ml</h1>", ld(offers={"price": "15.000000", "priceCurrency": "GBP"})), brand="Acme"),
    "lower case type": Kind(document("<h1>Rose Serum 30ml</h1>", ld(**{"@type": "product"})), brand="Acme"),
    "escaped": Kind(document("<h1>Rose Serum 30ml</h1>", ld().replace('"', "&quot;")), brand="Acme"),
    "microdata": Kind(document(
        "<div itemscope itemtype='http://schema.org/Product'><h1 itemprop='name'>Rose Serum 30ml</h1>"
        "<span itemprop='brand' itemscope itemtype='http://schema.org/Brand'><meta itemprop='name' content='Acme'></span>"
        "<img itemprop='image' data-src='/img/rose.jpg' src='data:image/gif;base64,R0'><div itemprop='offers' itemscope "
        "itemtype='http://schema.org/Offer'><span itemprop='price' content='15.0'>15</span><meta itemprop='priceCurrency' "
        "content='GBP'></div></div>"), brand="Acme"),
    "rdfa": Kind(document(
        "<div vocab='http://schema.org/' typeof='Product'><h1 property='name'>Rose Serum 30ml</h1><img property='image' "
        "src='/img/rose.jpg'><span property='brand'>Acme</span><div property='offers' typeof='Offer'><span property='price'>"
        "15.00</span><meta property='priceCurrency' content='GBP'></div></div>"), brand="Acme"),
    "open graph": Kind(document("<h1>Rose Serum 30ml</h1>", "".join(
        f"<meta property='{name}' content='{value}'>" for name, value in {
            "og:type": "og:product", "og:image": "/img/rose.jpg", "product:brand": "Acme", "product:price:amount": "15,00",
            "product:price:currency": "GBP"}.items())), brand="Acme"),
    "next data": Kind(document(
        f"<h1>Rose Serum 30ml</h1>{IMG}<button>Add to bag</button><script id='__NEXT_DATA__' type='application/json'>"
        + json.dumps({"props": {"pageProps": {"product": {
            "name": "Rose Serum 30ml", "brand": {"name": "Acme"}, "price": {"current": 15.0, "currency": "GBP"}},
            "related": [{"name": "Lily 3", "brand": "Other", "price": 3}]}}}) + "</script>"),
        currency=None, brand="Acme"),
    "initial state": Kind(document(
        f"<h1>Rose Serum 30ml</h1>{IMG}<button>Add to bag</button><script>window.__INITIAL_STATE__ = {{'page': {{productName: "
        "'Rose Serum 30ml', brandName: 'Acme', salePrice: '15.00', currency: 'GBP',}}};</script>"), brand="Acme"),
    "data layer": Kind(document(
        f"<h1>Rose Serum 30ml</h1>{IMG}<button>Add to bag</button><script>dataLayer = dataLayer || []; dataLayer.push("
        + json.dumps({"ecommerce": {"detail": {"products": [{"name": "Rose Serum 30ml", "brand": "Acme", "price": "15.00"}]}}})
        + ");</script>"), currency=None, brand="Acme"),
}  # fmt: skip


def small(image: object, **changes: object) -> str:
    block = {"@context": "https://schema.org", "@type": "Product", "name": "Rose", "image": image, **changes}
    return json.dumps(block)


def script(text: str, kind: str = "application/ld+json") -> str:
    return f"<html><head><script type='{kind}'>{text}</script></head><body><h1>Rose</h1></body></html>"


# Name -> unusual page, and the image URLs that must be found in it.
UNUSUAL: dict[str, tuple[str | bytes, list[str]]] = {
    "relative": (script(small("/img/a.jpg")), ["/img/a.jpg"]),
    "protocol-relative": (script(small("//shop.example/img/a.jpg")), ["/img/a.jpg"]),
    "objects": (script(small([{"@type": "ImageObject", "url": "/img/a.jpg"}, {"contentUrl": "/img/b.jpg"}])),
                ["/img/a.jpg", "/img/b.jpg"]),
    "two sizes": (script(small(["/img/a.jpg?w=200", "/img/a.jpg", "/img/a.jpg?w=50"])), ["/img/a.jpg"]),
    "sizes in the name": (script(small(["/img/a_300x300.jpg", "/img/a_800x800.jpg"])), ["/img/a_800x800.jpg"]),
    "cdata": (script("/*<![CDATA[*/" + small("/img/a.jpg") + "/*]]>*/"), ["/img/a.jpg"]),
    "cdata in line comments": (script("//<![CDATA[\n" + small("/img/a.jpg") + "\n//]]>"), ["/img/a.jpg"]),
    "comment": (script("<!-- " + small("/img/a.jpg") + " -->"), ["/img/a.jpg"]),
    "control characters": (script('{"@type":"Product","name":"Rose\nSerum","image":"/img/a.jpg"}'), ["/img/a.jpg"]),
    "trailing comma": (script('{"@type":"Product","name":"Rose","image":"/img/a.jpg",}'), ["/img/a.jpg"]),
    "type in capitals": (script(small("/img/a.jpg"), "Application/LD+JSON"), ["/img/a.jpg"]),
    "type with a charset": (script(small("/img/a.jpg"), "application/ld+json; charset=utf-8"), ["/img/a.jpg"]),
    "two in one script": (script('{"@type":"WebPage"}\n' + small("/img/a.jpg")), ["/img/a.jpg"]),
    "typed by address": (script(small("/img/a.jpg", **{"@type": "http://schema.org/Product"})), ["/img/a.jpg"]),
    "entities": (script(small("/img/a.jpg?x=1&amp;y=2")), ["/img/a.jpg?x=1&y=2"]),
    "spaces": (script(small("/img/a b.jpg")), ["/img/a%20b.jpg"]),
    "base": ("<base href='https://shop.example/img/'>" + script(small("a.jpg")), ["/img/a.jpg"]),
    "lazy": (script(small([])) + "<img class=product data-src='/img/a.jpg' src='data:image/gif;base64,R0'>", ["/img/a.jpg"]),
    "largest of srcset": (script(small([])) + "<img class=product srcset='/img/s.jpg 400w, /img/l.jpg 800w'>", ["/img/l.jpg"]),
    "picture": (script(small([])) + "<picture><source srcset='/img/l.webp 900w'><img src='/img/s.jpg'></picture>", ["/img/l.webp"]),
    "link around": (script(small([])) + "<a href='/img/full.jpg'><img src='/img/s.jpg' width=300></a>", ["/img/full.jpg"]),
    "json of sizes": (script(small([])) + """<img class=product data-a-dynamic-image='{"/s.jpg":[300,300],"/l.jpg":[900,900]}'>""",
                      ["/l.jpg"]),
    "og before the page": ("<meta property='og:image' content='/img/og.jpg'>" + script(small([])) + "<img src='/img/a.jpg'>",
                           ["/img/og.jpg"]),
    "no logos, pixels, icons": (script(small(["/img/logo.png", "/img/pixel.gif", "/img/cart-icon.svg"]))
                                + "<img src='/img/a.jpg' width=600 height=600><img src='/t.jpg' width=1 height=1>", ["/img/a.jpg"]),
    "names within the page": (script(small([{"@id": "#image"}, "", URL, "/img/a.jpg"])), ["/img/a.jpg"]),
    "utf-16": (script(small("/img/a.jpg")).encode("utf-16"), ["/img/a.jpg"]),
}  # fmt: skip
