"""Serves the sample's pages over real HTTP on the loopback: many host names, one ephemeral port."""

from __future__ import annotations

import gzip
import hashlib
import html
import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tasks.crawl.sample.pages import HOME, SamplePage, render

logger = logging.getLogger(__name__)

ROBOTS = "User-agent: *\nDisallow: /private/\nDisallow: /search\n\nSitemap: http://{host}/sitemap.xml\n"


class Site:
    """The pages by host and path, with what each host has besides: robots.txt, a sitemap, the home page."""

    def __init__(self, pages: Sequence[SamplePage]) -> None:
        self.pages: dict[tuple[str, str], SamplePage] = {(page.host, page.path): page for page in pages}
        self.hosts = sorted({page.host for page in pages} | {HOME})
        listing = "".join(f'<li><a href="http://{host}/">{host}</a></li>' for host in self.hosts if host != HOME)
        main = f"<h1>Documentation of the installed packages</h1><ul>{listing}</ul>"
        body = render(site="Sample", title="Home", main=main)
        self.pages.setdefault((HOME, "/"), SamplePage(HOME, "/", "Home", body, listed=False))
        for host in self.hosts:
            listed = sorted(page.url for page in pages if page.host == host and page.listed)
            urls = "".join(f"<url><loc>{html.escape(url)}</loc></url>" for url in listed)
            sitemap = f'<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">{urls}</urlset>'.encode()
            self._add_text(host, "/robots.txt", ROBOTS.format(host=host).encode(), "text/plain; charset=utf-8")
            self._add_text(host, "/sitemap.xml", sitemap, "application/xml")

    def _add_text(self, host: str, path: str, body: bytes, content_type: str) -> None:
        self.pages[host, path] = SamplePage(host, path, path, body, content_type=content_type, listed=False)

    @property
    def seeds(self) -> list[str]:
        """The first page of every host."""
        return [f"http://{host}/" for host in self.hosts]

    def digest(self) -> str:
        """Return the SHA-256 of everything the site serves."""
        digest = hashlib.sha256()
        for place in sorted(self.pages):
            digest.update(repr((place, self.pages[place].status)).encode() + self.pages[place].body)
        return digest.hexdigest()


@contextmanager
def serve(site: Site) -> Iterator[int]:
    """Serve `site` on 127.0.0.1 and give the port; ends with the block."""

    class SiteHandler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            host = (self.headers.get("Host") or "").split(":")[0].lower()
            page = site.pages.get((host, self.path.split("?")[0]))
            if page is None:
                page = SamplePage(
                    host, self.path, "Not found", b"<html><body><h1>Not found</h1></body></html>", status=404
                )
            body = page.body
            zipped = len(body) > 400 and "gzip" in (self.headers.get("Accept-Encoding") or "")
            if zipped:
                body = gzip.compress(body, compresslevel=1, mtime=0)
            self.send_response(page.status)
            self.send_header("Content-Type", page.content_type)
            if zipped:
                self.send_header("Content-Encoding", "gzip")
            for name, value in page.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            logger.debug(format, *args)

    class Server(ThreadingHTTPServer):
        # Every host's connections come to this one port at once: past a full queue the system drops them, and each
        # is tried again only after 1, 3, 7, 15 … seconds.
        request_queue_size = 1024
        daemon_threads = True

    server = Server(("127.0.0.1", 0), SiteHandler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=5)
