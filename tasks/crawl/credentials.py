"""The two ways in which a crawl is given secrets: a netrc file, and `${NAME}` in a URL of the settings.

Both are read at the moment of a request, and only for the place that they were given for: a link, a redirect or an
archive's index cannot have one sent anywhere else. What is stored and logged is the URL as the settings hold it.
"""

from __future__ import annotations

import base64
import netrc
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from urllib.parse import urlsplit

from tasks.contracts.errors import ParamsError
from tasks.contracts.redaction import PLACEHOLDER, remember_secret

NETRC_VARIABLE = "NETRC"
_SHORTEST_HIDDEN = 5  # characters; a shorter value would be found in URLs that have nothing to do with it


@dataclass(frozen=True)
class Placeholders:
    """Which variables of the environment each place (scheme, host and port) is to be sent, by the settings' URLs."""

    names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @classmethod
    def of(cls, urls: Iterable[str], where: str) -> Placeholders:
        """Read the placeholders of some URLs.

        Args:
            where: the setting, for the message.

        Raises:
            ParamsError: the environment lacks one.
        """
        names: dict[str, dict[str, None]] = {}
        for url in urls:
            for name in PLACEHOLDER.findall(url):
                if not os.environ.get(name):
                    raise ParamsError(
                        f"{where} names ${{{name}}}, and the environment has no such variable",
                        where=f"params.yaml, {where}",
                        fix=f"export {name}=… before the run, on each machine that fetches",
                    )
                names.setdefault(_place(url), {})[name] = None
        return cls({place: tuple(listed) for place, listed in names.items()})

    def __or__(self, other: Placeholders) -> Placeholders:
        places = {*self.names, *other.names}
        both = {place: (*self.names.get(place, ()), *other.names.get(place, ())) for place in places}
        return Placeholders({place: tuple(dict.fromkeys(listed)) for place, listed in both.items()})

    def filled(self, url: str) -> str:
        """Return a URL as it is to be sent; what it holds stays out of this process's errors and logs."""
        allowed = self.names.get(_place(url), ()) if self.names else ()
        if not allowed:
            return url
        return PLACEHOLDER.sub(lambda found: _value(found[1]) if found[1] in allowed else found[0], url)

    def hidden(self, url: str) -> str:
        """Return a URL that a server gave, the secrets that it was sent replaced by their names again."""
        for name in self.names.get(_place(url), ()) if self.names else ():
            value = _value(name)
            if len(value) >= _SHORTEST_HIDDEN:
                url = url.replace(value, f"$%7B{name}%7D")
        return url


def login(url: str) -> tuple[str, str] | None:
    """Return user and password for a URL's host from the netrc file (NETRC, else ~/.netrc), None where it names none.

    Its `default` entry is not used: a crawl meets hosts that nobody thought of.

    Raises:
        ParamsError: the file cannot be read.
    """
    path = Path(os.environ.get(NETRC_VARIABLE) or "~/.netrc").expanduser()
    try:
        host = (urlsplit(url).hostname or "").lower()
        changed = path.stat().st_mtime_ns
    except (OSError, ValueError):
        return None
    entry = _logins(path, changed).get(host) if host else None
    if entry is not None:
        remember_secret(entry[1])
        remember_secret(basic(*entry).partition(" ")[2])
    return entry


def basic(user: str, password: str) -> str:
    """Return the value of an Authorization header (RFC 7617).

    >>> basic("Aladdin", "open sesame")
    'Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=='
    """
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def joined(base: str, path: str) -> str:
    """Return the URL of a file below `base`, whose query (a signature) stays at the end.

    >>> joined("https://mirror.example/cc?sig=${SIG}", "a/b.gz")
    'https://mirror.example/cc/a/b.gz?sig=${SIG}'
    """
    place, mark, query = base.partition("?")
    return f"{place.rstrip('/')}/{path}{mark}{query}"


@lru_cache(maxsize=4)
def _logins(path: Path, _changed: int) -> dict[str, tuple[str, str]]:
    try:
        hosts = netrc.netrc(path).hosts
    except netrc.NetrcParseError as error:
        # Its message may show a part of the file.
        raise ParamsError("the netrc file cannot be read", where=f"{path}, line {error.lineno}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ParamsError("the netrc file cannot be read", where=str(path), found=type(error).__name__) from None
    return {host.lower(): (user, password or "") for host, (user, _, password) in hosts.items() if host != "default"}


def _value(name: str) -> str:
    value = os.environ.get(name, "")
    if not value:
        raise ParamsError(f"the environment has no {name}, which a URL of the settings names")
    remember_secret(value, f"${{{name}}}")
    return value


def _place(url: str) -> str:
    """Return scheme, host and port, of a URL whose host may be a placeholder too."""
    scheme, _, rest = url.partition("://")
    authority = rest.partition("/")[0].partition("?")[0].partition("#")[0]
    return f"{scheme}://{authority}".lower()
