"""What a page names as its licence, told from what it marks as one and is none: read by the crawl and by extract.

A licence permits. Terms of use, a page about privacy or the publisher, a reservation (TDMRep, RSL) and "all rights
reserved" do not: recorded as licences they would make our papers call them permissions.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import SplitResult, unquote, unquote_plus, urljoin, urlsplit

_OTHER = (
    # who publishes it, and how to get in
    *(r"privacy\w*", r"datenschutz\w*", "confidentialite", "privacidad", r"cookie\w*", "gdpr", "dsgvo", "imprint"),
    *("impressum", r"mentions[-_ ]?legales", r"aviso[-_ ]?legal", r"note[-_ ]?legali", "about", "contact"),
    *("accessibility", "barrierefreiheit", "log-?in", "sign-?in", "sign-?up", "register"),
    # what a visitor has to agree to
    *(r"terms\w*", "tos", "conditions?", "rules?", r"legal\w*", "disclaimers?", "notices?", "guidelines?"),
    *("polic(?:y|ies)", "agreements?", "agb", r"nutzungs\w+", r"rechtlich\w*", "haftungsausschluss", "cgu", "cgv"),
    *(r"conditions[-_ ]generales", "condiciones", "condizioni", "terminos", "termini", "termos", "voorwaarden"),
    # what is reserved, and who may be asked
    *(r"tdm(?:rep)?", "rsl", "robots", "opt-?out", "permissions?", "reprints?"),
)
_OTHER_PAGE = re.compile(rf"(?<![a-z])(?:{'|'.join(_OTHER)})(?![a-z])", re.IGNORECASE)
_PERMIT = re.compile(
    r"(?<![a-z])(?:driv(?:er'?s?|ing)|fishing|hunting|marriage|business|liquor|alcohol|gun|firearms?|pilot'?s?|dog|pet|"
    r"vehicle|trade|medical|nursing|professional|contractor'?s?|tv)[-_ +]?licen[cs]\w*",
    re.IGNORECASE,
)
_LICENCE = re.compile(
    r"licen|lizen|лиценз|ліценз|许可|許可|ライセンス|라이선스|creative.?commons|\bcc[ -](?:by|0)|public domain",
    re.IGNORECASE,
)
_RESERVED = re.compile(r"^\W*(?:copyright|\(c\)|©)|rights reserved|版权所有|版權所有", re.IGNORECASE)
_RELATIVE = re.compile(r"[^/.#?:\s][^:?#]*(?:[?#]|$)")
_TARGETS_OF_SCRIPTS = ("javascript:", "mailto:", "tel:", "data:", "about:", "blob:")
# A part of an address that says nothing of what the page is: a language, a date or version, an index page.
_SAYS_NOTHING = re.compile(r"(?:[a-z]{2}(?:[-_][a-z]{2,4})?|v?[\d.-]+|(?:index|default)(?:\.\w+)?)", re.IGNORECASE)
_WORDS_TOGETHER = re.compile(r"(?<=[a-z])(?=[A-Z])")  # TermsOfUse
# RSL 1.0 states at which price and for which use a page may be had, in XML; no licence to read is.
_RSL = "rsl+xml"  # of application/rsl+xml
_RSL_FILE = re.compile(r"(?:licen[cs]e|rsl)\.xml", re.IGNORECASE)

_CC_HOSTS = frozenset({"creativecommons.org", "www.creativecommons.org"})
_CC_CODES = frozenset(
    {
        *("by", "by-sa", "by-nd", "by-nc", "by-nc-sa", "by-nc-nd", "by-nd-nc", "sa", "nd", "nc", "nc-sa", "nd-nc"),
        *("sampling", "sampling+", "nc-sampling+", "devnations"),
    }
)
_CC_NAMES = {"zero": "CC0", "mark": "Public Domain Mark"}
_CC_PATH = re.compile(
    r"/(?:licenses|publicdomain)/([a-z+-]+)/(\d\.\d)(?:/([a-z]{2}|igo|scotland))?"
    r"(?:/(?:deed|legalcode|rdf)?(?:[.-][\w.-]*)?)?",
    re.IGNORECASE,
)
_CC_NO_LICENCE = re.compile(r"(?:/(?:licenses|publicdomain|choose(?:/.*)?))?/?", re.IGNORECASE)
_CC_SAID = re.compile(
    r"\b(?:cc|creative commons)[ -](by(?:-n[cd])?(?:-(?:sa|nd|nc))?|zero)(?![\w-]) ?(\d\.\d)?", re.IGNORECASE
)
_WORKS_IN_COPYRIGHT = re.compile(r"https?://rightsstatements\.org/(?:vocab|page)/inc\b", re.IGNORECASE)


def marked_licence(attributes: Mapping[str, str]) -> str | None:
    """Return the target of an element that is marked as the licence by its `rel`; None where it is not.

    One that is relative to the page's folder begins with a dot, so that it is told from the words of a meta element.

    >>> marked_licence({"rel": "License nofollow", "href": " l.txt "})
    './l.txt'
    """
    if "license" not in (attributes.get("rel") or "").lower().split():
        return None
    return None if is_terms(attributes) else target_of(attributes)


def target_of(attributes: Mapping[str, str]) -> str:
    """Return where a link leads; with a dot in front where that is relative to the page's folder."""
    target = (attributes.get("href") or "").strip()
    return f"./{target}" if _RELATIVE.match(target) else target


def is_terms(attributes: Mapping[str, str]) -> bool:
    """Tell whether an element leads to RSL terms: what it calls a licence is a reservation then, and no licence."""
    return _RSL in (attributes.get("type") or "").lower()


def is_licence(said: str) -> bool:
    """Return whether what a page marks as its licence may be one: an address, or words of a meta element.

    An anchor of the page itself, a script, a page about something else, a permit of another kind and a sentence that
    reserves all rights are none.

    >>> is_licence("https://site.example/license"), is_licence("/terms-of-use"), is_licence("#")
    (True, False, False)
    >>> is_licence("© 2020 Someone. All rights reserved."), is_licence("© 2020 Someone, CC BY 4.0")
    (False, True)
    """
    said = said.strip()
    if not said or said.startswith(("#", "?")) or said.lower().startswith(_TARGETS_OF_SCRIPTS):
        return False
    if "/" not in said and " " in said:
        if _PERMIT.search(said):
            return False
        return bool(_LICENCE.search(said)) or not (_RESERVED.search(said) or _OTHER_PAGE.search(said))
    address = _split(said)
    if address is None or _WORKS_IN_COPYRIGHT.match(said):
        return False
    path = unquote(address.path)
    if _is_creative_commons(address):
        return _CC_NO_LICENCE.fullmatch(path) is None
    if (address.netloc and not path.strip("/") and not address.query) or _PERMIT.search(path):
        return False
    page = _telling_part(path)
    if address.query and _SAYS_NOTHING.fullmatch(path.rstrip("/").rpartition("/")[2] or "index"):
        page += f" {unquote_plus(address.query)}"
    if _RSL_FILE.fullmatch(page):
        return False
    return _LICENCE.search(page) is not None or _OTHER_PAGE.search(page) is None


def licence_name(said: str) -> str:
    """Return under which name a licence is recorded: that of Creative Commons, whatever page of theirs is named.

    >>> licence_name("//creativecommons.org/licenses/by-sa/2.5/ch/deed.de"), licence_name("/license")
    ('CC BY-SA 2.5 CH', '/license')
    """
    address = _split(said)
    if address is None or not _is_creative_commons(address):
        return said
    match = _CC_PATH.fullmatch(unquote(address.path))
    code = match[1].lower() if match else ""
    if match is None or code not in {*_CC_CODES, *_CC_NAMES}:
        return said
    port = f" {match[3].upper()}" if match[3] else ""
    return f"{_CC_NAMES.get(code, f'CC {code.upper()}')} {match[2]}{port}"


def absolute(said: str, base: str) -> str:
    """Return a relative address, which begins with a slash or dots, as the whole one; anything else as it is.

    >>> absolute("../license", "https://site.example/a/b"), absolute("MIT", "https://site.example/a/b")
    ('https://site.example/license', 'MIT')
    """
    return urljoin(base, said) if _split(said) is not None and said.startswith(("/", "./", "../")) else said


def is_creative_commons(said: str) -> bool:
    """Return whether an address is that of a licence of Creative Commons."""
    address = _split(said)
    return (
        address is not None and _is_creative_commons(address) and _CC_PATH.fullmatch(unquote(address.path)) is not None
    )


def licence_in_words(text: str) -> str | None:
    """Return the licence of Creative Commons that a link's text names.

    >>> licence_in_words("Under Creative Commons by-sa 4.0"), licence_in_words("CC BY"), licence_in_words("by")
    ('CC BY-SA 4.0', 'CC BY', None)
    """
    match = _CC_SAID.search(text)
    if match is None:
        return None
    name = "CC0" if match[1].lower() == "zero" else f"CC {match[1].upper()}"
    return f"{name} {match[2]}" if match[2] else name


def _split(said: str) -> SplitResult | None:
    try:
        address = urlsplit(said)
        address.port  # noqa: B018 - which is read when it is asked for, and may be none
    except ValueError:
        return None
    return address


def _is_creative_commons(address: SplitResult) -> bool:
    return address.scheme.lower() in ("http", "https", "") and (address.hostname or "").rstrip(".") in _CC_HOSTS


def _telling_part(path: str) -> str:
    """Return the last part of a path that says what the page is.

    >>> _telling_part("/terms/en/"), _telling_part("/legal/mit"), _telling_part("/index.php")
    ('terms', 'mit', '')
    """
    parts = [part for part in path.split("/") if part and not _SAYS_NOTHING.fullmatch(part)]
    return _WORDS_TOGETHER.sub("-", parts[-1]) if parts else ""
