"""Which encoding a page is read in: where it is declared, when that is believed, and what a stray byte costs."""

from __future__ import annotations

import pytest

from tasks.contracts.charset import decode
from tasks.contracts.encodings import decode_as
from tests.hostile.growth import MOST_GROWTH, growth

RUSSIAN = "Река течёт с гор к морю, и никто не знает её начала. "
JAPANESE = "①川は山から海へ流れる。㈱髙島屋〜−∥。"
GERMAN = "Der Fluß fließt über Köln nach Süden, wo die Äcker grün sind. "
TEXTS = {  # a language's own encodings, by Python's codec where that writes what browsers read
    "windows-1251": (RUSSIAN, "cp1251"), "koi8-r": (RUSSIAN, "koi8-r"), "iso-8859-5": (RUSSIAN, "iso8859-5"),
    "windows-1252": (GERMAN + "“Ja” – €5", "cp1252"), "iso-8859-15": (GERMAN, "iso8859-15"),
    "windows-1250": ("Příliš žluťoučký kůň úpěl ďábelské ódy. ", "cp1250"),
    "iso-8859-2": ("Zażółć gęślą jaźń i idź dalej nad rzekę. ", "iso8859-2"),
    "windows-1253": ("Το ποτάμι κυλά από τα βουνά στη θάλασσα. ", "cp1253"),
    "windows-1254": ("Irmağın suyu dağlardan denize doğru akıyor. ", "cp1254"),
    "windows-1255": ("הנהר זורם מן ההרים אל הים ואיש אינו יודע. ", "cp1255"),
    "windows-1256": ("يجري النهر من الجبال الى البحر ولا يعلم احد. ", "cp1256"),
    "windows-874": ("แม่น้ำไหลจากภูเขาสู่ทะเล ", "cp874"),
    "euc-kr": ("똠방각하 강은 산에서 바다로 흐른다. 뷁쀍 ", "cp949"),
    "gbk": ("河流从山上流向大海，没有人知道它的源头。镕喆 ", "gbk"),
    "gb18030": ("河流从山上流向大海。𠀀㐀 ", "gb18030"),
    "big5": ("河流從山上流向大海，沒有人知道它的源頭。啲嘅喺 ", "big5hkscs"),
    "shift_jis": ("①川は山から海へ流れる。㈱髙島屋～－∥。纊ｱ", "cp932"),
    "utf-8": (RUSSIAN + JAPANESE + GERMAN, "utf-8"),
}  # fmt: skip
# Bytes that mean nothing where they stand alone, in the midst of text.
STRAY = {"windows-1251": b"\x98", "windows-1252": b"\x81", "windows-1250": b"\x90", "windows-1253": b"\xff",
         "windows-1254": b"\x9e", "windows-1255": b"\xff", "windows-874": b"\xfc", "euc-kr": b"\xff", "gbk": b"\xff",
         "gb18030": b"\xff", "big5": b"\xff", "shift_jis": b"\xff", "utf-8": b"\xff"}  # fmt: skip


def page(content: bytes, head: bytes = b"") -> bytes:
    return b"<!doctype html><html><head>" + head + b"<title>x</title></head><body><p>" + content + b"</p>"


def text_of(body: bytes, header: str = "") -> str:
    """Return what is read in the page's paragraph."""
    return decode(body, header)[0].rpartition("<p>")[2].removesuffix("</p>")


@pytest.mark.parametrize("encoding", TEXTS)
@pytest.mark.parametrize("place", ["header", "meta", "pragma"])
def test_a_declared_encoding_is_read_as_browsers_read_it(encoding: str, place: str) -> None:
    text, codec = TEXTS[encoding]
    head = {
        "header": b"",
        "meta": b"<meta charset=" + encoding.encode() + b">",
        "pragma": b"<META content='text/html; charset=" + encoding.encode() + b"' HTTP-EQUIV=Content-Type />",
    }[place]
    header = f"text/html; charset={encoding}" if place == "header" else "text/html"
    body = page((text * 3).encode(codec), head)
    assert decode(body, header)[1] == encoding
    assert text_of(body, header) == text * 3


@pytest.mark.parametrize("encoding", STRAY)
@pytest.mark.parametrize(("number", "length"), [(1, 1), (2, 1), (1, 40), (5, 40)])
def test_a_stray_byte_costs_one_character_and_no_more(encoding: str, number: int, length: int) -> None:
    text, codec = TEXTS[encoding]
    content = text.encode(codec) * length
    stray = STRAY[encoding]
    body = page((b" " + stray + b" ").join([content] * (number + 1)), b"<meta charset=" + encoding.encode() + b">")
    read = text_of(body)
    assert decode(body, "")[1] == encoding
    # What has no meaning is U+FFFD, or in Windows' tables a control character.
    (lost,) = {*read} - {*text, " "}
    assert lost in ("\ufffd", stray.decode("latin-1"))
    assert read.replace(f" {lost} ", "") == text * length * (number + 1)


def test_japanese_mail_coding() -> None:
    body = page(b"\x1b$B-!@n$O\x1b(B abc \x1b$B-j\x1b(B")
    for header, head in (("text/html; charset=iso-2022-jp", b""), ("", b"<meta charset=csISO2022JP>"), ("", b"")):
        assert text_of(body.replace(b"<head>", b"<head>" + head), header) == "①川は abc ㈱"


R, J, G, K = (TEXTS[one][0] * 5 for one in ("windows-1251", "shift_jis", "windows-1252", "euc-kr"))
DISBELIEVED = [
    # (what the header says, what meta says, text, its codec, what is read)
    ("utf-8", "", R, "cp1251", "windows-1251"), ("utf-8", "", J, "cp932", "shift_jis"),
    ("utf-8", "", G, "cp1252", "windows-1252"), ("utf-8", "euc-kr", K, "cp949", "euc-kr"),
    ("", "utf-8", K, "cp949", "euc-kr"), ("utf-8", "", G[:200], "cp1252", "windows-1252"),
    ("iso-8859-1", "", R, "utf-8", "utf-8"), ("iso-8859-1", "utf-8", G, "utf-8", "utf-8"),
    ("windows-1251", "", R, "utf-8", "utf-8"), ("", "gb2312", J, "utf-8", "utf-8"), ("koi8-r", "", R, "utf-8", "utf-8"),
    ("iso-8859-1", "shift_jis", J, "cp932", "shift_jis"), ("iso-8859-1", "", J, "cp932", "shift_jis"),
    ("shift_jis", "", "川は山から海へ流れる。島屋ヴ" * 9, "euc_jp", "euc-jp"),
    ("utf-16", "", R, "cp1251", "windows-1251"), ("utf-16le", "", R, "utf-8", "utf-8"),
    ("", "utf-16", R, "utf-8", "utf-8"),
]  # fmt: skip
UNDECLARED = [
    ("", "", TEXTS[encoding][0] * 5, TEXTS[encoding][1], encoding)
    for encoding in ("windows-1251", "koi8-r", "windows-1252", "shift_jis", "euc-kr", "utf-8")
]
BELIEVED = [
    # The bytes do not speak against it, or too few of them do.
    ("windows-1251", "utf-8", R, "cp1251", "windows-1251"), ("shift_jis", "euc-jp", J, "cp932", "shift_jis"),
    ("koi8-r", "windows-1251", R, "koi8-r", "koi8-r"), ("utf-8", "windows-1251", R, "utf-8", "utf-8"),
    ("gbk", "", "联通", "gbk", "gbk"), ("gbk", "", "一茅", "gbk", "gbk"),
    ("latin1", "", "Ã©", "cp1252", "windows-1252"),

    ("windows-1251", "", "Рђ", "cp1251", "windows-1251"), ("windows-1250", "", G, "cp1252", "windows-1250"),
]  # fmt: skip


@pytest.mark.parametrize(("header", "meta", "text", "codec", "expected"), [*DISBELIEVED, *UNDECLARED, *BELIEVED])
def test_what_is_declared_is_believed_unless_the_bytes_speak_against_it(
    header: str, meta: str, text: str, codec: str, expected: str
) -> None:
    body = page(text.encode(codec), b"<meta charset=%s>" % meta.encode() if meta else b"")
    content_type = f"text/html; charset={header}" if header else "text/html"
    assert decode(body, content_type)[1] == expected
    assert text_of(body, content_type) == decode_as(expected, text.encode(codec))


def test_a_page_that_is_broken_by_somebody_else_is_still_utf8() -> None:
    body = page(("\ufffd" * 30 + "ü\x85").encode(), b"<meta charset=utf-8>")
    assert text_of(body) == "\ufffd" * 30 + "ü\x85"
    # Half of it is another encoding's, and the other half is certain.
    assert decode(page("ü".encode() * 5 + "ü".encode("latin-1") * 5), "text/html; charset=utf-8")[1] == "utf-8"


S = b"<meta charset=windows-1251>"
PRESCAN = [
    S, b"<META CHARSET='windows-1251'/>", b'<meta\n\tcharset = "cp1251" >', b"<meta/charset=x-cp1251>",
    b"<meta name=a content=b charset=windows-1251>", b"<meta charset=windows-1251",
    b"<!-- <meta charset=koi8-r> -->" + S,
    b"<!--><meta charset=windows-1251>-->", b"<meta charset=no-such-thing>" + S, b"<meta charset=>" + S,
    b"<meta http-equiv=refresh content='0; charset=koi8-r'>" + S, b"<meta content='text/html; charset=koi8-r'>" + S,
    b"<meta http-equiv='Content-Type' content='text/html; CHARSET = \"windows-1251\"'>",
    b"<meta http-equiv='Content-Type' content='charset; charset=windows-1251'>",
    b"<meta http-equiv=content-type content=text/html;charset=windows-1251>", b"<p title='<meta charset=koi8-r>'>" + S,
    b"<metadata charset=koi8-r>" + S, b"</meta charset=koi8-r>" + S, b"<!doctype <meta charset=koi8-r>" + S,
    b"<?xml version='1.0' encoding='koi8-r'?>" + S, b"a < b <meta charset=windows-1251>",
    b"<1 <meta charset=windows-1251>",
    b"<?xml version='1.0' encoding = \"windows-1251\"?>",
    b"\n<?xml version='1.0' encoding='windows-1251' standalone='no'?>",
    b"<meta charset=windows-1251><meta charset=koi8-r>", b"<meta name=x charset=windows-1251 charset=koi8-r>",
    b" " * 900 + S, b"<style>" + b"p{}" * 1000 + b"</style>" + S, b"<!--" + b"x" * 5000 + b"-->" + S,
    b"x" * 2000 + b"<script>'<meta charset=koi8-r>'</script>" + S,
]  # fmt: skip


@pytest.mark.parametrize("head", PRESCAN)
def test_meta_and_the_xml_declaration(head: bytes) -> None:
    # Few characters, so that no guess from the bytes helps.
    text = "Ђ ѓ"
    body = head + (b" <p>" if b">" in head[-40:] or head == S else b"\n<p>") + text.encode("cp1251")
    assert decode(body, "text/html")[1] == "windows-1251"
    assert decode(body, "")[0].endswith(text)


def test_the_xml_declaration_decides_for_xml() -> None:
    body = b"<?xml version='1.0' encoding='koi8-r'?><html><meta charset=windows-1251>" + RUSSIAN.encode("koi8-r")
    assert decode(body, "application/xhtml+xml")[1] == "koi8-r"
    assert decode(body, "text/html")[1] == "windows-1251"


@pytest.mark.parametrize(("header", "expected"), [
    ("text/html; charset=windows-1251", "windows-1251"), ("text/html;charset=\"windows-1251\"", "windows-1251"),
    ("text/html; charset='windows-1251'", "windows-1251"), ("TEXT/HTML; CHARSET = cp1251", "windows-1251"),
    ("text/html; charset=\"windows-1251", "windows-1251"),
    ("text/html; foo=bar; charset=windows-1251;", "windows-1251"),
    ("text/html, text/html; charset=windows-1251", "windows-1251"), ("charset=windows-1251", "windows-1251"),
    ("text/html; charset=windows-1251, text/html", "windows-1251"), ("text/html charset=windows-1251", "windows-1251"),
    ("text/html; charset=koi8-r, text/html; charset=windows-1251", "windows-1251"),
    ("text/plain; charset=koi8-r, text/html; charset=windows-1251", "windows-1251"),
    ("text/html; charset=utf-7", "koi8-u"), ("text/html; charset=", "koi8-u"), ("text/html; charset", "koi8-u"),
    ("text/html; xcharset=windows-1251", "koi8-u"), ("text/html; charset=koi8-r, text/plain", "koi8-u"), ("", "koi8-u"),
])  # fmt: skip
def test_the_header(header: str, expected: str) -> None:
    assert decode(b"<meta charset=koi8-u><p>" + "Ђ ѓ".encode("cp1251"), header)[1] == expected


@pytest.mark.parametrize("mark", [b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff"])
def test_a_byte_order_mark_comes_before_all_that_is_said(mark: bytes) -> None:
    codec = {b"\xef\xbb\xbf": "utf-8", b"\xff\xfe": "utf-16-le", b"\xfe\xff": "utf-16-be"}[mark]
    text = f"<meta charset=koi8-r>{RUSSIAN}"
    assert decode(mark + text.encode(codec), "text/html; charset=windows-1252")[0] == text


HOSTILE = {
    "tags": lambda n: b"<a b=c " * n, "quotes": lambda n: b"<a b='" * n, "comments": lambda n: b"<!--" * n,
    "metas": lambda n: b"<meta charset=x " * n, "scripts": lambda n: b"x" * 2000 + b"<script>" * n,
    "pragmas": lambda n: b"<meta content=\"" + b"charset='" * n, "declarations": lambda n: b"<?xml " + b"encoding=" * n,
    "pairs": lambda n: b"<meta charset=shift_jis>" + b"\x81\xff\xa0" * n,
    "four bytes": lambda n: b"<meta charset=gb18030>" + b"\x81\x30\x81" * n,
    "escapes": lambda n: b"<meta charset=iso-2022-jp>" + b"\x1b$B\x1b(B\x1b" * n,
    "stray": lambda n: b"<meta charset=euc-kr>" + b"\xff<" * n,
    "euc": lambda n: b"<meta charset=euc-jp>" + b"\x8f\xa1" * n,
}  # fmt: skip


@pytest.mark.parametrize("shape", HOSTILE)
def test_time_is_linear(shape: str) -> None:
    assert growth(lambda body: decode(body, ""), HOSTILE[shape], 20_000) < MOST_GROWTH
