"""Secrets in URLs: which parts of a URL are one, and how a text is written without them.

A URL of the settings ends up in params.yaml, dvc.lock, manifests, run records, papers and MLflow, so none may hold a
secret; what is filled in later (`tasks.crawl.credentials`) is known here and stays out of errors and logs.
"""

from __future__ import annotations

import logging
import re
import traceback
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, unquote

PLACEHOLDER = re.compile(r"\$(?:\{|%7B)([A-Za-z_][A-Za-z0-9_]*)(?:\}|%7D)", re.IGNORECASE)
"""`${NAME}`, also as it stands in a URL whose braces are escaped."""

SECRET_NAMES = (
    # Signed queries, where no ending tells: Google, CloudFront, Akamai, Tencent, Hawk.
    *("googleaccessid", "policy", "keypairid", "hdnea", "hdnts", "hdntl", "qak", "sign", "hmac", "bewit"),
    # Links that open what they lead to: Azure, Dropbox, Google Drive, WebHDFS, SAML.
    *("sas", "rlkey", "resourcekey", "delegation", "samlresponse", "macaroon"),
    # Tokens, keys and passwords of interfaces.
    *("pat", "jwt", "key", "appkey", "appcode", "licensekey", "licencekey", "passphrase", "pass", "passcode", "pwd"),
    *("pw", "pswd", "authorization", "authcode", "accesscode", "bearer", "session", "sessionkey", "sid", "otp", "totp"),
)
"""Query parameters that carry a secret: compared in lower case, without "-", "_" and "."."""

_SECRET_ENDINGS = (
    *("token", "secret", "password", "passwd", "signature", "sig", "credential", "credentials", "auth", "apikey"),
    *("accesskey", "accesskeyid", "secretkey", "privatekey", "subscriptionkey", "authkey", "accountkey", "sharedkey"),
    *("masterkey", "signingkey", "encryptionkey", "consumerkey", "developerkey", "functionskey"),
    *("sessionid", "sessid", "assertion"),
)
_SIGNING_PREFIXES = ("x-amz-", "x-goog-", "x-oss-", "x-ms-", "x-obs-", "x-tos-")
# Each repetition has an end, so that a long text takes time in its length.
_SCHEME = r"(?P<scheme>[A-Za-z][A-Za-z0-9+.\-]{0,30}:[/\\]{2,8})"
# Up to the last "@" before the path. A password with "/", "?" or "#" in it is not written as it should be, and seen by
# what stands for a port and is no number.
_USERINFO = re.compile(
    _SCHEME + r"(?P<userinfo>[^\s/?#\\\"'<>]{0,4000}"
    r"|[^\s/?#\\@:\"'<>]{0,400}:(?!\d{0,9}(?:[/?#\\\"'<>\s]|$))[^\s\"'<>@]{0,400})@"
)
_PARAMETER = re.compile(r"(?P<name>(?<=[?&;#])[^=&;#?\s\"'<>]{1,100})=(?P<value>[^&#;\s\"'<>]*)")
_SHORTEST_KNOWN = 5  # a shorter one would be found in what has nothing to do with it
_TIMES_ENCODED = 3
HIDDEN = "***"

_known: dict[str, str] = {}


def is_secret_name(name: str) -> bool:
    """Tell whether a query parameter of this name carries a secret.

    >>> [is_secret_name(n) for n in ("X-Amz-Signature", "apiKey", "refresh_token", "page", "v")]
    [True, True, True, False, False]
    """
    if name.startswith("]"):
        return False  # the end of a character class: a pattern for URLs, such as `[?&]token=`
    plain = re.sub(r"[-_.\[\]]", "", unquote(name).lower())
    return plain in SECRET_NAMES or plain.endswith(_SECRET_ENDINGS)


def literal_secrets(text: str) -> list[str]:
    """Say which secrets stand in a setting's text, without showing one; placeholders such as `${NAME}` are none.

    >>> literal_secrets("https://joe:hunter2@h.example/a?page=2&X-Amz-Signature=00ff")
    ['a user name or password before "@h.example"', 'the query parameter X-Amz-Signature']
    >>> literal_secrets("https://h.example/a?token=${TOKEN}"), literal_secrets("ftp://joe:${FTP_PASSWORD}@h.example/a")
    ([], [])
    """
    said: dict[str, None] = {}
    for form in _decoded(text):
        for match in _USERINFO.finditer(form):
            if _is_secret_userinfo(match["scheme"], match["userinfo"]):
                host = re.split(r"[/?#\\\s:]", form[match.end() : match.end() + 300])[0]
                said[f'a user name or password before "@{host}"'] = None
        for match in _PARAMETER.finditer(form):
            signed = match["name"].lower().startswith(_SIGNING_PREFIXES)
            if _is_secret_parameter(match) and ("://" in form or signed):
                said[f"the query parameter {match['name']}"] = None
    return list(said)


def without_secrets(text: str) -> str:
    """Return a text for people without the secrets of the URLs in it, and without those that this process was given.

    >>> without_secrets("GET https://joe:hunter2@h.example/a?page=2&sig=00ff failed")
    'GET https://***@h.example/a?page=2&sig=*** failed'
    """
    for secret in sorted(_known, key=len, reverse=True):
        text = text.replace(secret, _known[secret])
    if "@" not in text and "=" not in text and "%" not in text:
        return text
    text = _PARAMETER.sub(_parameter_hidden, _USERINFO.sub(_userinfo_hidden, text))
    if "%" in text:
        text = re.sub(r"\S*%\S*", lambda word: HIDDEN if literal_secrets(word[0]) else word[0], text)
    return text


def without_userinfo(text: str) -> str:
    """Return a text with the URLs in it without user name and password; a URL is such a text.

    >>> without_userinfo("https://joe:hunter2@h.example/@joe"), without_userinfo("joe@h.example")
    ('https://h.example/@joe', 'joe@h.example')
    """
    return _USERINFO.sub(_userinfo_taken_out, text) if "@" in text else text


def remember_secret(secret: str, shown: str = HIDDEN) -> None:
    """Keep a secret that this process was given out of every error and log line of it; `shown` stands for it."""
    for form in {secret, quote(secret, safe=""), quote(secret), unquote(secret)}:
        if len(form) >= _SHORTEST_KNOWN:
            _known[form] = shown
    _guard_log()


def remember_secrets_of(text: str) -> None:
    """Keep what `literal_secrets` finds in a text (the value of an environment variable) out of errors and logs."""
    for match in _USERINFO.finditer(text):
        if _is_secret_userinfo(match["scheme"], match["userinfo"]):
            remember_secret(match["userinfo"])
            remember_secret(match["userinfo"].partition(":")[2])
    for match in _PARAMETER.finditer(text):
        if _is_secret_parameter(match):
            remember_secret(match["value"])


def _decoded(text: str) -> Iterator[str]:
    """Yield a text, and what it is with its %-escapes taken out, as long as there are any: URLs stand in URLs."""
    for _ in range(_TIMES_ENCODED):
        yield text
        plain = unquote(text)
        if plain == text:
            return
        text = plain


def _is_secret_userinfo(scheme: str, userinfo: str) -> bool:
    kind = scheme.partition(":")[0].lower().rpartition("+")[2]
    if kind in ("http", "https", "ws", "wss"):
        return bool(userinfo)  # a user name alone is a token for many a service
    # Others have harmless names there, such as a container of a store.
    return bool(PLACEHOLDER.sub("", userinfo.partition(":")[2])) and userinfo.partition(":")[2] != HIDDEN


def _is_secret_parameter(match: re.Match[str]) -> bool:
    value = PLACEHOLDER.sub("", match["value"])
    return value not in ("", HIDDEN) and is_secret_name(match["name"])


def _userinfo_hidden(match: re.Match[str]) -> str:
    shown = f"{match['scheme']}{HIDDEN}@"
    return shown if _is_secret_userinfo(match["scheme"], match["userinfo"]) else match[0]


def _userinfo_taken_out(match: re.Match[str]) -> str:
    return match["scheme"] if _is_secret_userinfo(match["scheme"], match["userinfo"]) else match[0]


def _parameter_hidden(match: re.Match[str]) -> str:
    return f"{match['name']}={HIDDEN}" if _is_secret_parameter(match) else match[0]


def _guard_log() -> None:
    """Make every log record of this process without secrets, whichever handler writes it."""
    make = logging.getLogRecordFactory()
    if getattr(make, "guards_secrets", False):
        return

    def guarded(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = make(*args, **kwargs)
        try:
            said = record.getMessage()
        except (TypeError, ValueError):
            return record  # a wrong call, which logging itself reports
        if (clean := without_secrets(said)) != said:
            record.msg, record.args = clean, ()
        if record.exc_info and record.exc_info[0] is not None:
            # A formatter takes this instead of formatting the exception anew.
            record.exc_text = without_secrets("".join(traceback.format_exception(*record.exc_info)).rstrip("\n"))
        return record

    guarded.guards_secrets = True  # type: ignore[attr-defined]
    logging.setLogRecordFactory(guarded)
