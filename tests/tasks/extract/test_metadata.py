"""What pages say about themselves, in the forms in which they do."""

import json

import pytest

from tasks.extract.blocks import read
from tasks.extract.metadata import Metadata, metadata_of


def said(head: str, body: str = "<p>Text.</p>", heading: str | None = None) -> Metadata:
    return metadata_of(read(f"<html><head>{head}</head><body>{body}</body></html>").head, heading)


def test_json_ld_says_what_the_metas_do_not() -> None:
    thing = {
        "@graph": [{"@type": "WebSite"}, {"author": [{"name": "Ann"}, "Bob"], "datePublished": "2026-02-03T01:00"}]
    }
    script = f'<script type="application/ld+json">{json.dumps(thing)}</script>'
    found = said(script)
    assert (found.author, found.published) == ("Ann; Bob", "2026-02-03")
    assert said(script + '<meta name=author content="Cid">').author == "Cid"


@pytest.mark.parametrize(
    "script", ["{", "[[[", '{"author": 5, "datePublished": {}}', '"author"', '{"author": {"name": null}}']
)
def test_broken_json_ld_says_nothing(script: str) -> None:
    found = said(f'<script type="application/ld+json">{script} datePublished</script>')
    assert (found.author, found.published) == (None, None)


def test_the_first_title_of_those_a_page_gives() -> None:
    element = "<title>How rivers meet the sea – The Coast</title>"
    assert said(element).title == "How rivers meet the sea"
    assert said(element, heading="Rivers").title == "Rivers"
    assert (
        said(element + '<meta property="og:title" content=" Rivers  and seas ">', heading="Rivers").title
        == "Rivers and seas"
    )
    assert said("").title is None


@pytest.mark.parametrize(
    ("head", "body", "license_"),
    [
        ("", '<a rel="license nofollow" href="https://creativecommons.org/licenses/by/4.0/">x</a>', "CC BY 4.0"),
        ("", '<a rel=license href="http://creativecommons.org/publicdomain/zero/1.0/">x</a>', "CC0 1.0"),
        ("<link rel=license href=/license>", "", "/license"),
        ("<base href=https://other.example/a/>", "<a rel=license href=l.txt>x</a>", "https://other.example/a/l.txt"),
        ('<meta name="dcterms.license" content="https://creativecommons.org/licenses/by/4.0/">', "", "CC BY 4.0"),
        ("", "<a rel=no-license href=/license>x</a>", None),
        ('<meta name="dcterms.license" content="MIT">', "", "MIT"),
        ("", '<a href="https://creativecommons.org/licenses/by/4.0/">another page\'s</a>', None),
    ],
)
def test_a_licence_is_what_is_marked_as_one(head: str, body: str, license_: str | None) -> None:
    assert said(head, body).license == license_


@pytest.mark.parametrize(
    "target",
    [
        "https://site.example/privacy.html",
        "/privacy-policy/",
        "/legal/privacy_policy?lang=en",
        "https://site.example/cookie-policy",
        "/cookies",
        "/datenschutzerklaerung",
        "DE/Service/Impressum/impressum_node.html",
        "/mentions-legales",
        "#",
        "#site_footer_container",
        "javascript:void(0)",
        "mailto:someone@site.example",
        "https://state.example/drivers-license",
        "/driving-licence/renew",
        "/permits/fishing-license.html",
        "https://town.example/business_licenses/apply",
        "/contact",
        "/about",
        "https://site.example/",
        "/terms",
        "https://site.example/en/terms-of-use/",
        "/TermsOfService.aspx",
        "/legal",
        "/w/index.php?title=Terms_of_use",
        "/nutzungsbedingungen/de/",
        "/legal/tdm-policy.json",
        "/rsl.xml",
        "https://creativecommons.org/choose/",
    ],
)
def test_what_is_known_to_be_no_licence_is_not_stored_as_one(target: str) -> None:
    assert said("", f'<a rel="license" href="{target}">x</a>').license is None
    assert said(f'<link rel="license" href="{target}">', "").license is None
    # The next that is marked still counts.
    both = f'<a rel="license" href="{target}">x</a><a rel="license" href="/licenses/mit">y</a>'
    assert said("", both).license == "/licenses/mit"


def test_a_reservation_in_rsl_is_no_licence() -> None:
    assert said('<link rel="license" type="application/rsl+xml; charset=utf-8" href="/l">').license is None


@pytest.mark.parametrize(
    "target",
    [
        "https://opensource.org/license/mit",
        "https://privacy.example/license",
        "/about/licensing",
        "/LICENSE-2.0",
        "https://www.gnu.org/licenses/old-licenses/gpl-2.0.html",
        "https://www.mozilla.org/MPL/2.0/",
        "/legal/copyright",
        "COPYING.txt",
        "/privacy-and-license",
        "https://docs.python.org/3/license.html",
    ],
)
def test_a_licence_is_still_one(target: str) -> None:
    found = said("", f'<a rel="license" href="{target}">x</a>').license
    assert found is not None
    assert found.removeprefix("./") == target


@pytest.mark.parametrize(
    ("content", "license_"),
    [
        ("Copyright 2020 Someone", None),
        ("© 2020 Someone. All rights reserved.", None),
        ("All rights reserved", None),
        ("© 2020 Someone, CC BY 4.0", "© 2020 Someone, CC BY 4.0"),
        ("Licensed under MIT", "Licensed under MIT"),
        ("MIT", "MIT"),
        ("Terms of use", None),
        ("/terms", None),
        ("Terms of the Apache License", "Terms of the Apache License"),
        ("http://rightsstatements.org/vocab/InC/1.0/", None),
    ],
)
def test_a_reservation_of_rights_is_no_licence(content: str, license_: str | None) -> None:
    assert said(f'<meta name="dc.rights" content="{content}">', "").license == license_
