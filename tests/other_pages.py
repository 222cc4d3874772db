"""Pages that are no product's own, drawn by hand as shops have them: lists, searches, articles, errors, challenges."""

import json
from typing import Any

NAMES = ("Rose Serum", "Lily Cream", "Mint Toner", "Sage Balm", "Aloe Mask", "Iris Oil", "Fern Peel", "Moss Mist")


def page(body: str, title: str, head: str = "") -> str:
    navigation = "<nav class='main-menu'><a href='/a'>Skin</a><a href='/b'>Hair</a><a href='/cart'>Cart £0.00</a></nav>"
    footer = "<footer><a href='/help'>Help</a> Free delivery over £30.00</footer>"
    return f"<html><head><title>{title}</title>{head}</head><body>{navigation}{body}{footer}</body></html>"


def json_ld(*blocks: Any) -> str:
    return "".join(f'<script type="application/ld+json">{json.dumps(block)}</script>' for block in blocks)


def card(n: int, name: str, attributes: str = "", button: str = "") -> str:
    return (
        f"<li class='product-card' {attributes}><a href='/p/{n}'><img src='/img/{n}_300x300.jpg' alt='{name}'>"
        f"<h3>{name}</h3></a><span class='price'>£{n + 5}.50</span>{button}</li>"
    )


def cards(attributes: str = "", button: str = "") -> str:
    return "<ul class='grid'>" + "".join(card(n, name, attributes, button) for n, name in enumerate(NAMES)) + "</ul>"


def microdata_card(n: int, name: str) -> str:
    return (
        f"<div itemscope itemtype='https://schema.org/Product'><a itemprop='url' href='/p/{n}'>"
        f"<img itemprop='image' src='/img/{n}.jpg'><span itemprop='name'>{name}</span></a>"
        f"<span itemprop='offers' itemscope itemtype='https://schema.org/Offer'>"
        f"<meta itemprop='price' content='{n + 5}.50'>£{n + 5}.50</span></div>"
    )


_ADD = "<button class='add-to-basket'>Add to basket</button>"
_LISTED = {
    "@type": "ItemList",
    "itemListElement": [
        {"@type": "ListItem", "position": n, "item": {"@type": "Product", "name": name, "image": f"/{n}.jpg",
                                                        "offers": {"price": n + 5, "priceCurrency": "GBP"}}}
        for n, name in enumerate(NAMES)
    ],
}  # fmt: skip
_PRODUCTS = [
    {"@type": "Product", "name": name, "image": f"/{n}.jpg", "offers": {"price": n + 5}} for n, name in enumerate(NAMES)
]
_ARTICLE = {"@type": "NewsArticle", "headline": "The ten best serums", "image": "/hero.jpg"}
_DATA_LAYER = json.dumps(
    {"ecommerce": {"impressions": [{"name": name, "price": "5.50", "brand": "Acme"} for name in NAMES]}}
)
_WIDE = "<p>" + "Words about skin and how to care for it. " * 30 + "</p>"

LISTS = {
    "cards": page(f"<h1>Serums</h1>{cards()}", "Serums | Shop"),
    "cards with buttons": page(f"<h1>Serums</h1>{cards(button=_ADD)}", "Serums | Shop"),
    "cards and pages": page(f"<h1>Face</h1>{cards()}<div class='pagination'><a rel='next' href='?p=2'>2</a></div>", "Face"),
    "cards and filters": page(f"<h1>Face</h1><div class='facets'>Brand: <a href='?b=1'>Acme</a></div>{cards(button=_ADD)}", "Face"),
    "json-ld list": page(f"<h1>Face</h1>{cards()}", "Face", json_ld(_LISTED)),
    "json-ld products": page(f"<h1>Face care</h1>{cards()}", "Face care", json_ld(*_PRODUCTS)),
    "json-ld array": page(f"<h1>Face care</h1>{cards()}", "Face care", json_ld(_PRODUCTS)),
    "json-ld collection": page(f"<h1>Face</h1>{cards()}", "Face", json_ld({"@type": "CollectionPage", "mainEntity": _LISTED})),
    "json-ld catalogue": page("<h1>Face</h1>", "Face", json_ld({"@type": "OfferCatalog", "itemListElement": _PRODUCTS})),
    "microdata cards": page("<h1>Face</h1>" + "".join(microdata_card(*one) for one in enumerate(NAMES)), "Face"),
    "category as a product": page(f"<h1>Serums</h1>{cards()}<a rel='next' href='?p=2'>next</a>", "Serums", json_ld(
        {"@type": "Product", "name": "Serums", "offers": {"@type": "AggregateOffer", "lowPrice": "5.50", "offerCount": 48}})),
    "og group": page(f"<h1>Face</h1>{cards()}", "Face", "<meta property='og:type' content='product.group'>"),
    "data layer": page(f"<h1>Face</h1>{cards()}<script>dataLayer.push({_DATA_LAYER});</script>", "Face"),
    "no heading": page(cards(button=_ADD), "Everything for the face"),
    "brand": page(f"<h1>Acme</h1><img src='/brands/acme-logo.png' class='brand'>{_WIDE}{cards(button=_ADD)}", "Acme | Shop"),
    "home": page(f"<h1>Shop</h1><div class='slider'><a href='/sale'>Serums from £5.00</a></div>{cards()}", "The shop"),
    "sale": page("<h1>Sale: up to 50 % off</h1>" + cards().replace("£", "<del>£99.00</del> £"), "Sale"),
    "microdata article list": page("<h1>Face</h1>" + "".join(
        f"<article class='tile'><a href='/p/{n}'>{name}</a><b>€ {n},99</b></article>" for n, name in enumerate(NAMES)), "Face"),
}  # fmt: skip
SEARCHES = {
    "results": page(f"<h1>Search results for “rose”</h1><p>8 products</p>{cards(button=_ADD)}", "Search results: rose"),
    "german": page(f"<h1>Suchergebnisse für rose</h1>{cards()}", "Suchergebnisse"),
    "none": page("<h1>No results for “rosee”</h1><p>You may also like</p>" + cards(), "0 results for rosee"),
    "one": page(f"<h1>1 result for rose</h1>{card(1, 'Rose Serum', button=_ADD)}", "Search results for rose"),
    "microdata": page("<h1>rose</h1>" + microdata_card(1, "Rose Serum") + microdata_card(2, "Rose Oil")
                      + microdata_card(3, "Mint Toner"), "Search results for rose"),
}  # fmt: skip
EDITORIALS = {
    "article": page(f"<h1>The ten best serums</h1>{_WIDE}<p>Rose Serum, £12.50, <a href='/p/1'>buy now</a></p>",
                    "The ten best serums", json_ld(_ARTICLE)),
    "article with prices": page("<article><h1>The best serums of the year</h1>" + "".join(
        f"<h2>{n}. {name}</h2><img src='/{n}_600x600.jpg'>{_WIDE}<p>Price: £{n + 5}.50</p><a class='button' href='https://x.example/{n}'>"
        "Buy now</a>" for n, name in enumerate(NAMES)) + "</article>", "The best serums of the year",
        "<meta property='og:type' content='article'>"),
    "article about products": page(f"<h1>Serums</h1>{_WIDE}", "Serums", json_ld(_ARTICLE, *_PRODUCTS)),
    "article and a product": page(f"<h1>Rose Serum, tested</h1>{_WIDE}", "Rose Serum, tested", json_ld(
        _ARTICLE, {"@type": "Product", "name": "Rose Serum", "image": "/r.jpg"})),
    "recipe": page("<h1>Oat scrub</h1><p>For 2 people, costs about £1.50</p>", "Oat scrub", json_ld({"@type": "Recipe", "name": "Oat scrub", "image": "/oat.jpg"})),
    "delivery": page("<h1>Delivery and returns</h1><table><tr><td>Standard</td><td>£3.95</td></tr><tr><td>Express</td>"
                     "<td>£5.95</td></tr><tr><td>Abroad</td><td>£9.95</td></tr></table>", "Delivery"),
    "questions": page("<h1>Questions</h1><h2>What does delivery cost?</h2><p>£3.95, from £30 it is free.</p>", "FAQ",
                      json_ld({"@type": "FAQPage", "mainEntity": [{"@type": "Question", "name": "Cost?"}]})),
    "about": page(f"<h1>About us</h1><img src='/team_1200x600.jpg' width='1200' height='600'>{_WIDE}", "About us"),
    "review": page(f"<h1>Rose Serum: a review</h1>{_WIDE}<p>It costs £12.50 and I love it.</p>", "Rose Serum: a review",
                   json_ld({"@type": "Review", "itemReviewed": {"@type": "Product", "name": "Rose Serum", "image": "/r.jpg"}})),
    "shop finder": page("<h1>Our shops</h1>", "Shops", json_ld({"@type": "Store", "name": "Shop", "image": "/s.jpg"})),
    "organisation": page("<h1>Welcome</h1>", "Shop", json_ld(
        {"@type": "WebSite", "name": "Shop"}, {"@type": "Organization", "name": "Shop", "logo": "/logo.png",
         "makesOffer": {"@type": "Offer", "price": "5"}})),
}  # fmt: skip
ERRORS = {
    "not found": page("<h1>Page not found</h1><p>You may also like</p>" + cards(button=_ADD), "404"),
    "gone": page("<h1>Sorry, this product is no longer available</h1>" + cards(), "Shop"),
    "french": page(f"<h1>Page introuvable</h1>{cards()}", "Erreur 404"),
    "empty": "",
    "cart": page("<h1>Your basket</h1><table><tr><td>Rose Serum</td><td>£12.50</td></tr><tr><td>Total</td><td>£12.50"
                 "</td></tr></table><a href='/checkout'>Go to checkout</a>", "Your basket"),
    "login": page("<h1>Sign in</h1><form action='/login'><input name='mail'><input name='password'></form>", "Sign in"),
    "country": page("<h1>Choose your country</h1><a href='/gb'>United Kingdom £</a><a href='/de'>Deutschland €</a>", "Shop"),
}  # fmt: skip
CHALLENGES = {
    "cloudflare": "<title>Just a moment...</title><div id='challenge-form'></div>",
    "denied": "<title>Access Denied</title><h1>Access Denied</h1><p>Reference #18.2f1f</p>",
    "perimeter": "<title>Access to this page has been denied</title><div id='px-captcha'></div>",
    "robot": "<title>Robot Check</title><p>Type the characters you see in this image</p><img src='/captcha/1_200x70.jpg'>",
    "recaptcha": "<title>Shop</title><form><div class='g-recaptcha'></div></form>",
    "human": "<title>Shop</title><h1>Verify you are human</h1>",
    "incapsula": "<title>Pardon Our Interruption</title>",
    "checking": "<title>Checking your browser before accessing</title>",
}
