"""The certificate with which the data port speaks TLS, and its key: two PEM files, read again when they change.

A new pair counts only if a handshake in memory succeeds with it, so that a wrong one changes nothing for clients."""

import os
import re
import ssl
import stat
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from gateway.api.errors import ConfigError, NotNow
from gateway.config.file_watch import FileWatch, check_linked
from gateway.config.settings import Settings

CERTIFICATE: Final = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
KEY: Final = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----")
MAX_BYTES: Final = 1024 * 1024  # of a file; a chain has a few KB
MISMATCHES: Final = ("KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH")  # OpenSSL's names
STEPS: Final = 5  # of each side, more than any version of TLS needs; one that has ended does nothing more
EXPIRED: Final = 10  # OpenSSL's X509_V_ERR_CERT_HAS_EXPIRED
NOT_YET_VALID: Final = 9  # X509_V_ERR_CERT_NOT_YET_VALID
CERT_SETTING: Final = "GATEWAY_TLS_CERT_FILE"
KEY_SETTING: Final = "GATEWAY_TLS_KEY_FILE"
KEY_MODE: Final = f"give it mode 0400 and owner uid {os.geteuid()}, or 0440 and a group of that user"


class Certificate:
    """The pair of files, and the TLS context made of it. Raises ConfigError if the pair cannot serve clients."""

    def __init__(self, cert_file: Path, key_file: Path) -> None:
        self._cert_file = cert_file
        self._key_file = key_file
        self._watch = FileWatch(cert_file, key_file)
        self.context, self.facts = read_pair(cert_file, key_file)

    def has_changed(self) -> bool:
        """Return whether to `read` now (`FileWatch.has_changed`); `serve` asks every second. A pair that has stood for
        a second is whole: most tools write one file after the other."""
        return self._watch.has_changed()

    def read(self) -> bool:
        """Read the files again, and put the pair in force. Return False if they have changed since `has_changed`.
        Raises ConfigError; the pair before then stays. A handshake takes milliseconds, so a thread may do this."""
        found = self._watch.read(lambda: read_pair(self._cert_file, self._key_file))
        if found is None:
            return False
        self.context, self.facts = found
        return True

    def is_news(self, fault: str) -> bool:
        """Return whether to log why a `read` failed (`FileWatch.is_news`)."""
        return self._watch.is_news(fault)

    @property
    def exposure(self) -> str:
        """What is wrong with the key file's mode, or "" if only its owner and group can read it."""
        try:
            mode = stat.S_IMODE(self._key_file.stat().st_mode)
        except OSError:  # it is being replaced
            return ""
        if not mode & stat.S_IROTH:
            return ""
        return f"{KEY_SETTING}={self._key_file} has mode {mode:04o}, so every user can read it: {KEY_MODE}"


def certificate_of(settings: Settings) -> Certificate | None:
    """Return the certificate that the settings name, or None for plain HTTP; they name both files or none."""
    if settings.tls_cert_file is None or settings.tls_key_file is None:
        return None
    return Certificate(settings.tls_cert_file, settings.tls_key_file)


def read_pair(cert_file: Path, key_file: Path) -> tuple[ssl.SSLContext, dict[str, object]]:
    """Return the TLS context for a pair of files, and what the log tells of it. Raises ConfigError."""
    chain = read_file(cert_file, CERT_SETTING, "give it mode 0444")
    key = read_file(key_file, KEY_SETTING, KEY_MODE)
    leaf = CERTIFICATE.search(chain)
    if leaf is None:
        raise ConfigError(
            f"{CERT_SETTING}={cert_file} holds no certificate in PEM form; name the file with the server's own "
            "certificate first and its chain behind it, such as certbot's fullchain.pem"
        )
    if KEY.search(key) is None:
        raise ConfigError(
            f"{KEY_SETTING}={key_file} holds no private key in PEM form; name the key of that certificate, such as "
            "certbot's privkey.pem"
        )
    context = server_context(cert_file, key_file)
    return context, rehearse(context, leaf[0], cert_file)


def read_file(path: Path, setting: str, mode: str) -> str:
    """Return the text of one of the files. mode: what its rights should be, for the error. Raises ConfigError;
    NotNow if its content is not to blame."""
    try:
        check_linked(path, setting)
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise ConfigError(f"{setting}={path} is larger than {MAX_BYTES} bytes; name a PEM file")
        return content.decode("ascii", "replace")
    except PermissionError as error:
        raise NotNow(f"{setting}={path} cannot be read: {error.strerror}; {mode}") from error
    except OSError as error:
        raise NotNow(
            f"{setting}={path} cannot be read: {error.strerror}; name an existing PEM file, or set neither "
            f"{CERT_SETTING} nor {KEY_SETTING} for plain HTTP"
        ) from error


def server_context(cert_file: Path, key_file: Path) -> ssl.SSLContext:
    """Return a context for TLS 1.2 and later with HTTP/1.1 as the only protocol. Raises ConfigError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])

    def refuse_password() -> str:
        raise ConfigError(
            f"{KEY_SETTING}={key_file} is encrypted, and nobody is there to type a password; write it without one: "
            "openssl pkey -in KEY -out NEW_KEY"
        )

    try:
        context.load_cert_chain(cert_file, key_file, refuse_password)
    except ssl.SSLError as error:
        if reason_of(error) in MISMATCHES:
            raise ConfigError(
                f"{KEY_SETTING}={key_file} is not the key of {CERT_SETTING}={cert_file}; name a certificate and a key "
                "that were issued together, the server's own certificate first"
            ) from error
        raise ConfigError(
            f"{CERT_SETTING}={cert_file} with {KEY_SETTING}={key_file} cannot be used: {reason_of(error)}; "
            "issue them anew as PEM files"
        ) from error
    except OSError as error:
        raise NotNow(f"{CERT_SETTING}={cert_file} or {KEY_SETTING}={key_file} vanished: {error}") from error
    return context


def rehearse(context: ssl.SSLContext, leaf: str, cert_file: Path) -> dict[str, object]:
    """Make a handshake in memory with a client that trusts `leaf`, the server's own certificate; return its expiry and
    names. Raises ConfigError if such a client refuses it, for example because it has expired."""
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trusting.check_hostname = False
    trusting.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    try:
        trusting.load_verify_locations(cadata=leaf)
        client = trusting.wrap_bio(to_client, to_server)
        server = context.wrap_bio(to_server, to_client, server_side=True)
        for side in (client, server) * STEPS:
            with suppress(ssl.SSLWantReadError):
                side.do_handshake()
        told = client.getpeercert() or {}
        expires = datetime.fromtimestamp(ssl.cert_time_to_seconds(str(told["notAfter"])), UTC)
    except ssl.SSLCertVerificationError as error:
        kind = NotNow if error.verify_code == NOT_YET_VALID else ConfigError
        raise kind(f"{CERT_SETTING}={cert_file}: {refusal(error)}") from error
    except ssl.SSLError as error:
        raise ConfigError(
            f"{CERT_SETTING}={cert_file}: no client could use it: {reason_of(error)}; issue it anew"
        ) from error
    except (
        TypeError,
        ValueError,
        KeyError,
    ) as error:  # odd bytes, which OpenSSL passes over and Python does not
        raise ConfigError(
            f"{CERT_SETTING}={cert_file} cannot be understood: {error}; issue it anew"
        ) from error
    names = [str(name[1]) for name in told.get("subjectAltName", ())]
    return {"expires": f"{expires:%Y-%m-%dT%H:%M:%SZ}", "names": names}


def reason_of(error: ssl.SSLError) -> str:
    """Return OpenSSL's word for an error, or Python's text. `reason` may be None, though it is declared as a text: code
    that is compiled would raise TypeError."""
    return str(getattr(error, "reason", None) or error)


def refusal(error: ssl.SSLCertVerificationError) -> str:
    """Return why a client refuses the certificate, and what to do."""
    if error.verify_code == EXPIRED:
        return "the certificate has expired; renew it, and put the new pair in its place"
    if error.verify_code == NOT_YET_VALID:
        return "the certificate is not valid yet; check this host's clock, or wait"
    return f"clients would refuse the certificate: {error.verify_message}; issue it anew, for a TLS server"
