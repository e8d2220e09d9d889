"""What can be said of a crawl's settings on this machine before anything is fetched."""

from __future__ import annotations

import ipaddress
import ssl
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import fsspec

from tasks.contracts.errors import HeadwaterError, InputError, ParamsError, raised
from tasks.contracts.urls import canonical_url, host_of, named
from tasks.crawl.addresses import is_public
from tasks.crawl.credentials import Placeholders
from tasks.crawl.input_files import find_files
from tasks.crawl.jobs import Crawl
from tasks.crawl.settings import CrawlSettings
from tasks.rights.takedowns import read_takedowns


def faults_of(params: CrawlSettings) -> Iterator[HeadwaterError]:
    """Yield what keeps a crawl with these settings from its first page, as far as nobody need be asked for it."""
    for check in _CHECKS[params.source]:
        yield from raised(partial(check, params))


def contact(params: CrawlSettings) -> None:
    """Raise ParamsError where a crawl of other people's sites does not say who crawls."""
    if not params.contact.strip():
        raise ParamsError(
            "a crawl of other people's sites must say whom they can write to",
            where="params.yaml, crawl.contact",
            expected="an e-mail address or a URL",
            found="nothing",
            fix="--set crawl.contact=you@example.org",
        )


def starts(params: CrawlSettings | Crawl) -> None:
    """Raise InputError where no page is named to start from."""
    if not params.seeds and not params.sitemaps:
        raise InputError(
            "there is nothing to crawl",
            where="params.yaml, crawl",
            expected="at least one URL in crawl.seeds or crawl.sitemaps",
            found="none",
            fix="--set 'crawl.seeds=[https://…]'",
        )


def clean(urls: Sequence[str], where: str, drop_query: Sequence[str]) -> list[str]:
    """Return URLs of the settings in their one spelling, sorted, each once.

    Args:
        where: the setting that holds them.

    Raises:
        InputError: one is no URL of the web.
    """
    cleaned = {url: canonical_url(url, drop_query) for url in urls}
    wrong = [url for url, spelling in cleaned.items() if spelling is None]
    if wrong:
        raise InputError(
            "this is not an address of the web",
            where=f"params.yaml, {where}",
            expected="http://… or https://…",
            found=", ".join(wrong),
        )
    return sorted({spelling for spelling in cleaned.values() if spelling is not None})


def roots(ca_file: str) -> str:
    """Return the absolute path of `crawl.ca_file`, "" where none is named.

    Raises:
        InputError: it holds no certificate.
    """
    if not ca_file:
        return ""
    path = Path(ca_file).expanduser().resolve()
    try:
        ssl.create_default_context(cafile=str(path))
    except OSError as error:
        raise InputError(
            "the file of root certificates cannot be read",
            where="params.yaml, crawl.ca_file",
            expected="a PEM file with at least one certificate",
            found=f"{path}: {error}",
        ) from error
    return str(path)


def selection(params: CrawlSettings) -> None:
    """Raise ParamsError where it is not said what to take from Common Crawl."""
    if not params.snapshot or bool(params.warc_files) == bool(params.domains):
        raise ParamsError(
            "it is not said what to take from Common Crawl",
            where="params.yaml, crawl",
            expected="a snapshot, and either warc_files or domains",
            found=f"snapshot {params.snapshot!r}, warc_files {params.warc_files}, domains {list(params.domains)}",
        )


def placeholders(params: CrawlSettings) -> Placeholders:
    """Return what the environment fills into the URLs of Common Crawl's settings.

    Raises:
        ParamsError: the environment lacks one.
    """
    return Placeholders.of([params.data_url], "crawl.data_url") | Placeholders.of([params.index_url], "crawl.index_url")


def _spelling(params: CrawlSettings) -> None:
    for where, urls in (("crawl.seeds", params.seeds), ("crawl.sitemaps", params.sitemaps)):
        Placeholders.of(clean(urls, where, params.drop_query), where)


def _private(params: CrawlSettings) -> None:
    named_hosts = {host_of(canonical_url(url) or "") for url in [*params.seeds, *params.sitemaps]}
    hosts = sorted(host for host in named_hosts if _is_private(host) and not named(host, params.allow_hosts))
    if hosts:
        raise ParamsError(
            "a crawl does not go to private or special addresses unless it is told to",
            where="params.yaml, crawl.seeds and crawl.sitemaps",
            found=", ".join(hosts),
            fix=f"if you mean it: --set 'crawl.allow_hosts=[{', '.join(hosts)}]'",
        )


def _is_private(host: str) -> bool:
    """Tell whether a host is a private or special address by what it is called; of other names DNS is asked later."""
    if host == "localhost" or host.endswith(".localhost"):  # RFC 6761
        return True
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return not is_public(host)


def _host_names(params: CrawlSettings) -> None:
    for key in ("allowed_domains", "allow_hosts", "insecure_hosts"):
        wrong = [name for name in getattr(params, key) if "/" in name]
        if wrong:
            raise ParamsError(
                "a host is named without http:// and without a path",
                where=f"params.yaml, crawl.{key}",
                expected="names such as example.org or *.example.org",
                found=", ".join(wrong),
            )


def _files(params: CrawlSettings) -> None:
    """Look for the files of this machine; of remote ones only whether there is a driver."""
    local = [path for path in params.paths if path.startswith("file://") or "://" not in path]
    if local or not params.paths:
        find_files(local, "WARC files" if params.source == "warc" else "JSONL or Parquet files")
    for path in params.paths:
        protocol = path.partition("://")[0]
        try:
            if path not in local:
                fsspec.get_filesystem_class(protocol)
        except (ImportError, ValueError) as error:
            raise InputError(
                "an input place cannot be listed",
                where="params.yaml, crawl.paths",
                found=f"{path}: {error}",
                fix="install the driver of fsspec that it names, or fetch the file by hand",
            ) from error


_TRUST: tuple[Callable[[CrawlSettings], object], ...] = (
    lambda params: roots(params.ca_file),
    lambda _: read_takedowns(),
)
_CHECKS: dict[str, tuple[Callable[[CrawlSettings], object], ...]] = {
    "sample": (lambda _: read_takedowns(),),
    "sites": (contact, starts, _spelling, _private, _host_names, *_TRUST),
    "common_crawl": (selection, placeholders, *_TRUST),
    "warc": (_files,),
    "text": (_files,),
}
