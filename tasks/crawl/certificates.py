"""Checks the certificate of every server that a crawl of sites speaks to: who issued it, its dates, its names.

Scrapy does not by default (DOWNLOAD_VERIFY_CERTIFICATES), and where it does, says no more than "verify failed".
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

from cryptography.x509 import ExtensionNotFound, SubjectAlternativeName
from OpenSSL import SSL
from OpenSSL.crypto import FILETYPE_ASN1, X509, dump_certificate
from service_identity import VerificationError
from service_identity.exceptions import CertificateError
from service_identity.hazmat import DNS_ID, IPAddress_ID, verify_service_identity
from service_identity.pyopenssl import extract_patterns
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.ssl import CertificateOptions, platformTrust
from twisted.python.failure import Failure
from twisted.web.iweb import IPolicyForHTTPS
from zope.interface import implementer

from tasks.contracts.urls import named

# What OpenSSL's verification says (X509_V_ERR_…, openssl/x509_vfy.h), in words for a ledger row.
PROBLEMS = {
    2: "the certificate of its issuer is missing or not trusted",
    9: "not valid yet",
    10: "expired",
    18: "self-signed",
    19: "its chain ends in a root that is not trusted",
    20: "its issuer is not trusted",
    21: "its issuer is not trusted",
    23: "revoked",
    24: "issued by a certificate that may not issue any",
    26: "not made for a server",
    66: "its key is too short",
    67: "the key of its issuer is too short",
    68: "its signature uses a hash that is too weak",
}
SERVERS_WITH_OLD_RENEGOTIATION = 0x4  # OpenSSL's SSL_OP_LEGACY_SERVER_CONNECT, which Scrapy sets as well
MOST_NAMES = 5


class CertificateRefusedError(Exception):
    """A server's certificate does not say that it may speak for the host; another try would not help."""


@implementer(IPolicyForHTTPS)
class Certificates:
    """Makes the TLS connections of a crawler process; all share one set of trusted roots.

    Args:
        ca_file: PEM file of roots that are trusted besides the system's; "" for none.
        insecure_hosts: names whose certificate is not checked, such as "wiki.intranet.example".

    Attributes:
        accepted: (host, SHA-256 of its certificate) → what is wrong with it, where an insecure host's was let pass.
    """

    def __init__(self, ca_file: str, insecure_hosts: Sequence[str]) -> None:
        self.insecure_hosts = insecure_hosts
        self.accepted: dict[tuple[str, str], str] = {}
        self.context = CertificateOptions(trustRoot=platformTrust(), fixBrokenPeers=True).getContext()
        self.context.set_options(SERVERS_WITH_OLD_RENEGOTIATION)
        if ca_file:
            self.context.load_verify_locations(ca_file)

    def creatorForNetloc(self, hostname: bytes, port: int) -> Any:  # noqa: ARG002, N802 - Twisted's
        """Return what makes the connections to one host."""
        return _Creator(self, hostname.decode("ascii"))

    def problem_of(self, host: str, sha256: str) -> str:
        """Return what is wrong with a certificate that was let pass, "" where nothing is."""
        return self.accepted.get((host, sha256), "")


@implementer(IOpenSSLClientConnectionCreator)
class _Creator:
    def __init__(self, policy: Certificates, host: str) -> None:
        self.policy = policy
        self.host = host.strip("[]")
        self.is_address = isIPAddress(self.host) or isIPv6Address(self.host)

    def clientConnectionForTLS(self, tlsProtocol: Any) -> SSL.Connection:  # noqa: N802, N803 - Twisted's names
        """Return a connection that ends with CertificateRefusedError where the certificate is not right."""
        connection = SSL.Connection(self.policy.context)
        if not self.is_address:  # RFC 6066, section 3: an address is no server name
            connection.set_tlsext_host_name(self.host.encode("ascii"))
        connection.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, self._check(tlsProtocol))
        return connection

    def _check(self, protocol: Any) -> Callable[[SSL.Connection, X509, int, int, int], bool]:
        """Return what OpenSSL calls with each certificate of the chain, from the root to the host's own (depth 0)."""
        insecure = named(self.host, self.policy.insecure_hosts)
        problem = ""

        def check(_: SSL.Connection, certificate: X509, code: int, depth: int, passed: int) -> bool:
            nonlocal problem
            if not problem and not passed:
                problem = PROBLEMS.get(code, f"OpenSSL's verification error {code}")
            if not problem and depth == 0:
                problem = self._wrong_name(certificate)
            if problem and insecure:
                if depth == 0:
                    self.policy.accepted[self.host, fingerprint(certificate)] = problem
            elif problem:
                refused = CertificateRefusedError(f"certificate of {self.host}: {problem}")
                protocol.failVerification(Failure(refused))
            return insecure or not problem

        return check

    def _wrong_name(self, certificate: X509) -> str:
        """Return "" where the certificate is made for this host (RFC 9525), else for whom it is."""
        try:
            patterns = extract_patterns(certificate)
            identity = IPAddress_ID(self.host) if self.is_address else DNS_ID(self.host)
            verify_service_identity(patterns, [identity], [])
        except (VerificationError, CertificateError, ValueError):
            return f"made for another name: {_names(certificate)}"
        return ""


def _names(certificate: X509) -> str:
    """Return the names that a certificate is for, as far as they can be read and shown."""
    try:
        extension = certificate.to_cryptography().extensions.get_extension_for_class(SubjectAlternativeName)
    except (ExtensionNotFound, ValueError):
        return "none"
    names = [ascii(str(name.value))[1:-1][:100] for name in extension.value]
    return ", ".join(names[:MOST_NAMES]) + (f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else "")


def fingerprint(certificate: X509) -> str:
    """Return the SHA-256 (hex) of a certificate in DER, as browsers and `openssl x509 -fingerprint -sha256` show it."""
    return hashlib.sha256(dump_certificate(FILETYPE_ASN1, certificate)).hexdigest()
