"""TLS on the data port: whole answers, certificates that change, and clients that break their handshake."""

from __future__ import annotations

import json
import os
import socket
import ssl
import struct
import subprocess
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from tests.certificates import Authority, pem_of
from tests.fake_worker import COMPLETION, DONE, WAIT_S, FakeWorker, event
from tests.integration.gateway.conftest import StartGateway
from tests.integration.gateway.harness import (
    CHAT,
    Gateway,
    Site,
    ask,
    post,
    read_to_end,
    run_to_its_end,
    wait_until,
)

CERT, KEY = "GATEWAY_TLS_CERT_FILE", "GATEWAY_TLS_KEY_FILE"
CLOSE = "connection: close"
NO_LINGER = struct.pack("ii", 1, 0)
MIB = 1024 * 1024
StartTls = Callable[..., Gateway]


class Files:
    """The pair of files that a gateway reads."""

    def __init__(self, folder: Path) -> None:
        self.cert, self.key = folder / "cert.pem", folder / "key.pem"
        self.settings = {CERT: self.cert, KEY: self.key}

    def write(self, pair: tuple[bytes, bytes]) -> None:
        """Writes into the files, as a renewal of files that Docker binds must."""
        self.cert.write_bytes(pair[0])
        self.key.write_bytes(pair[1])
        self.key.chmod(0o400)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def files(tmp_path: Path, authority: Authority) -> Files:
    """A valid pair."""
    files = Files(tmp_path)
    files.write(authority.issue())
    return files


@pytest.fixture
def start_tls(start_gateway: StartGateway, authority: Authority, files: Files) -> StartTls:
    """Starts a gateway with that pair."""
    return lambda **settings: start_gateway(ca=authority.file, **(files.settings | settings))


@pytest.fixture
def gateway(start_tls: StartTls) -> Gateway:
    return start_tls()


def serial(gateway: Gateway) -> int:
    """The serial number of the certificate that a new connection gets."""
    with gateway.connect() as connection:
        return x509.load_der_x509_certificate(connection.getpeercert(binary_form=True)).serial_number  # type: ignore[attr-defined]


def serial_of(pair: tuple[bytes, bytes]) -> int:
    return x509.load_pem_x509_certificate(pair[0]).serial_number


def streaming(*headers: str, **script: object) -> bytes:
    """A request for a stream."""
    return post(json.dumps(ask("alpha", "sse", **script)).encode(), *headers)


def is_cut_off(connection: socket.socket, sent: bytes) -> bool:
    """Whether the gateway has ended a connection by the time that `sent` is sent."""
    try:
        connection.sendall(sent)
    except (ConnectionError, ssl.SSLError):
        return True
    return False


# answers


def test_chats_and_streams(gateway: Gateway, own_worker: FakeWorker) -> None:
    """By httpx and by OpenAI's client, on connections that are kept."""
    assert [gateway.chat("alpha").content for _ in range(3)] == [COMPLETION] * 3
    with gateway.http.stream("POST", CHAT, json=ask("alpha", "sse", chunks=3)) as answer:
        assert b"".join(answer.iter_raw()) == event(0) + event(1) + event(2) + DONE
    messages = [{"role": "user", "content": "hello"}]
    assert gateway.openai.chat.completions.create(model="alpha", messages=messages).choices  # type: ignore[call-overload]
    stream = gateway.openai.chat.completions.create(
        model="alpha", messages=messages, stream=True, extra_body={"script": {"do": "sse", "chunks": 5}}
    )  # type: ignore[call-overload]
    assert len(list(stream)) == 5
    gateway.terminate()
    assert gateway.end() == (0, "")


def test_a_large_body_and_a_large_answer(gateway: Gateway, own_worker: FakeWorker) -> None:
    """Many records each way arrive as they were sent."""
    body = ask("alpha") | {"padding": "x" * 5 * MIB}
    assert gateway.http.post(CHAT, json=body).content == COMPLETION
    assert json.loads(own_worker.next().body) == body
    with gateway.http.stream("POST", CHAT, json=ask("alpha", "sse", chunks=20_000)) as answer:
        assert b"".join(answer.iter_raw()) == b"".join(map(event, range(20_000))) + DONE


def test_versions_and_protocols(gateway: Gateway, authority: Authority) -> None:
    """TLS 1.2 and 1.3 are spoken, 1.1 is not; HTTP/1.1 is the only protocol, whatever else is offered."""
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        gateway.tls = ssl.create_default_context(cafile=authority.file)
        gateway.tls.minimum_version = gateway.tls.maximum_version = version
        gateway.tls.set_alpn_protocols(["h2", "http/1.1"])
        with gateway.connect() as connection:
            assert isinstance(connection, ssl.SSLSocket)
            assert connection.selected_alpn_protocol() == "http/1.1"
    done = subprocess.run(
        ["openssl", "s_client", "-connect", gateway.address, "-tls1_1", "-cipher", "ALL:@SECLEVEL=0"],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=WAIT_S,
    )  # fmt: skip
    assert "Cipher is (NONE)" in done.stdout
    gateway.event("handshake_failed")


def test_a_renegotiation_is_refused(gateway: Gateway, authority: Authority) -> None:
    """`R` has openssl ask for one; the gateway goes on for others."""
    words = ["openssl", "s_client", "-connect", gateway.address, "-tls1_2", "-CAfile", str(authority.file)]
    done = subprocess.run(words, input=b"R\n", capture_output=True, timeout=WAIT_S)
    assert b"RENEGOTIATING" in done.stdout + done.stderr
    assert b"no renegotiation" in (done.stdout + done.stderr).lower()
    assert gateway.chat("alpha").content == COMPLETION


def test_http_without_tls_is_told(gateway: Gateway) -> None:
    """Whoever forgets the s in https:// reads why there is no answer, and the log has a line."""
    with gateway.connect_tcp(post(b"{}") + b"x" * 100_000) as connection:
        answer = read_to_end(connection)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert "https://" in json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["message"]
    assert gateway.event("refused")["status"] == 400


# what the socket below is asked


def test_a_client_that_does_not_read_is_cut_off(start_tls: StartTls, own_worker: FakeWorker) -> None:
    """In GATEWAY_WRITE_TIMEOUT_S, as without TLS."""
    gateway = start_tls(GATEWAY_WRITE_TIMEOUT_S=1)
    with gateway.connect(post(json.dumps(ask("alpha", "flood", bytes=1 << 30)).encode())):
        assert own_worker.next().gone.wait(WAIT_S)


def test_a_client_that_reads_slowly_is_served(start_tls: StartTls, own_worker: FakeWorker) -> None:
    """What waits in each buffer counts: a client that takes its 4 KiB in time is never cut off."""
    gateway = start_tls(GATEWAY_WRITE_TIMEOUT_S=1)
    request = post(json.dumps(ask("alpha", "flood", bytes=5_000_000)).encode(), CLOSE)
    received, started = 0, time.monotonic()
    with gateway.connect(request) as connection:
        while part := connection.recv(1 << 20):  # a record of 16 KiB at most
            received += len(part)
            time.sleep(0.02)
    assert received > own_worker.next().payload_bytes >= 5_000_000 - 32_768
    assert time.monotonic() - started > 4


@pytest.mark.parametrize("behind", [b"", b"GET /health HTTP/1.1\r\nhost: gateway\r\n\r\n"], ids=["", "held"])
@pytest.mark.parametrize("reset", [False, True], ids=["closes", "resets"])
def test_a_client_that_leaves_frees_its_worker(
    gateway: Gateway, own_worker: FakeWorker, behind: bytes, reset: bool
) -> None:
    """Even where reading is paused, because of bytes behind the request."""
    connection = gateway.connect(streaming(hold=1) + behind)
    seen = own_worker.next()
    if reset:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
    connection.close()
    assert seen.gone.wait(WAIT_S)
    gateway.event("request", ending="client_gone")


def test_a_cut_stream_of_http_1_0_does_not_look_finished(gateway: Gateway) -> None:
    """Its only end is the connection's, which TLS would say goodbye to."""
    request = streaming(chunks=2, end="half").replace(b"HTTP/1.1", b"HTTP/1.0", 1)
    with gateway.connect(request) as connection, pytest.raises((ConnectionResetError, ssl.SSLError)):
        read_to_end(connection)


def test_a_whole_answer_of_http_1_0_ends_with_a_goodbye(gateway: Gateway) -> None:
    """Without a length, only that tells its end from a cut."""
    with gateway.connect(streaming(chunks=2).replace(b"HTTP/1.1", b"HTTP/1.0", 1)) as connection:
        assert read_to_end(connection).endswith(DONE)


def test_a_cut_stream_of_http_1_1_ends_without_its_last_chunk(gateway: Gateway) -> None:
    """And its connection in an orderly way."""
    with gateway.connect(streaming(chunks=2, end="drop")) as connection:
        answer = read_to_end(connection)
    assert b"upstream_disconnected" in answer
    assert not answer.endswith(b"0\r\n\r\n")


def test_a_refused_client_that_still_sends_reads_its_answer(start_tls: StartTls) -> None:
    """It is waited for as long as it sends something every two seconds; closing would reset the connection."""
    gateway = start_tls(GATEWAY_MAX_BODY_BYTES=100_000)
    head = post(b"").replace(b"content-length: 0", b"content-length: 300000")
    with gateway.connect(head) as connection:
        for _ in range(4):
            connection.sendall(b"x" * 50_000)
            time.sleep(1)
        assert read_to_end(connection).startswith(b"HTTP/1.1 413 ")


def test_a_refused_client_that_sends_without_end_is_cut_off(start_tls: StartTls) -> None:
    """After twice the largest body, as without TLS."""
    gateway = start_tls(GATEWAY_MAX_BODY_BYTES=100_000)
    head = post(b"").replace(b"content-length: 0", b"content-length: 999999999")
    with gateway.connect(head) as connection:
        wait_until(lambda: is_cut_off(connection, b"x" * 50_000), "the end of the connection")


def test_an_idle_connection_is_closed_without_the_client(start_tls: StartTls) -> None:
    """A client that says no goodbye of its own holds no connection open."""
    gateway = start_tls(GATEWAY_KEEP_ALIVE_S=0.5)
    before = gateway.open_files()
    with gateway.connect(b"GET /health HTTP/1.1\r\nhost: gateway\r\n\r\n") as connection:
        wait_until(lambda: gateway.open_files() <= before, "the connection closed")
        assert read_to_end(connection).startswith(b"HTTP/1.1 200 ")


# the end of the gateway


def test_the_end_waits_for_no_goodbye(gateway: Gateway) -> None:
    """Idle clients, a connection without a handshake and half a handshake hold up the end for a second at most."""
    gateway.chat("alpha")
    with gateway.connect(), gateway.connect_tcp(), gateway.connect_tcp(b"\x16\x03"):
        gateway.terminate()
        assert gateway.process.wait(4) == 0
    assert gateway.end() == (0, "")


def test_a_stream_outlives_sigterm(gateway: Gateway, own_worker: FakeWorker) -> None:
    """It ends whole, and its connection with a goodbye."""
    with gateway.connect(streaming(chunks=3, hold=1)) as connection:
        seen = own_worker.next()
        gateway.terminate()
        gateway.event("draining")
        seen.go_on()
        assert read_to_end(connection).endswith(b"0\r\n\r\n")
    assert gateway.end() == (0, "")


# hostile handshakes

HELLO = ssl.MemoryBIO()
with suppress(ssl.SSLWantReadError):
    ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), HELLO, server_hostname="localhost").do_handshake()
CLIENT_HELLO = HELLO.read()
HANDSHAKES = {
    "nothing": b"",
    "one byte": CLIENT_HELLO[:1],
    "half a hello": CLIENT_HELLO[:100],
    "a hello and no more": CLIENT_HELLO,
    "garbage": b"\x16" + os.urandom(500),
    "a record of garbage": CLIENT_HELLO[:5] + os.urandom(len(CLIENT_HELLO) - 5),
    "a hello and garbage": CLIENT_HELLO + os.urandom(1000),
    "no TLS at all": os.urandom(3).replace(b"\x16", b"\x17") + b"\r\n\r\n",
    "a large record": b"\x16\x03\x01\xff\xff" + b"x" * 300_000,
}


@pytest.mark.parametrize("leaves", ["stays", "closes", "resets"])
def test_hostile_handshakes_beside_a_stream(start_tls: StartTls, own_worker: FakeWorker, leaves: str) -> None:
    """The stream goes on, others are served, and within the time for a head all of them are gone."""
    gateway = start_tls(GATEWAY_HEAD_TIMEOUT_S=1)
    gateway.chat("alpha")
    with ExitStack() as stack, gateway.connect(streaming(CLOSE, chunks=3, hold=1)) as connection:
        own_worker.next()
        seen = own_worker.next()
        before = gateway.open_files()
        for sent in [*HANDSHAKES.values()] * 20:
            with suppress(ConnectionError):
                hostile = gateway.connect_tcp()
                if leaves == "stays":
                    stack.enter_context(hostile)
                hostile.sendall(sent)
            if leaves == "resets":
                hostile.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
            if leaves != "stays":
                hostile.close()
        assert gateway.chat("alpha").content == COMPLETION
        seen.go_on()
        assert read_to_end(connection).endswith(b"0\r\n\r\n")
        wait_until(lambda: gateway.open_files() <= before, "all of them gone")
    gateway.terminate()
    assert gateway.end() == (0, "")


# certificates


def test_a_renewed_pair_counts_for_new_connections(
    gateway: Gateway, own_worker: FakeWorker, authority: Authority, files: Files
) -> None:
    """Within five seconds, and an open stream goes on."""
    renewed = authority.issue()
    with gateway.connect(streaming(CLOSE, chunks=3, hold=1)) as connection:
        seen = own_worker.next()
        files.key.unlink()
        files.write(renewed)
        wait_until(lambda: serial(gateway) == serial_of(renewed), "the new certificate", 5)
        seen.go_on()
        assert read_to_end(connection).endswith(b"0\r\n\r\n")
    assert len(gateway.several(2, "certificate_read")) == 2


def test_links_are_followed(
    start_gateway: StartGateway, authority: Authority, files: Files, tmp_path: Path
) -> None:
    """A folder that is swapped by a link, as cert-manager's secrets are, is read anew."""
    pairs = [authority.issue(), authority.issue()]
    for number, pair in enumerate(pairs):
        (tmp_path / f"data-{number}").mkdir()
        Files(tmp_path / f"data-{number}").write(pair)
    link = tmp_path / "data"
    link.symlink_to("data-0")
    gateway = start_gateway(ca=authority.file, **Files(link).settings)
    assert serial(gateway) == serial_of(pairs[0])
    (tmp_path / "next").symlink_to("data-1")
    (tmp_path / "next").rename(link)
    wait_until(lambda: serial(gateway) == serial_of(pairs[1]), "the new certificate", 5)


def wrong_pairs(authority: Authority) -> dict[str, tuple[bytes, bytes, str]]:
    """Certificate, key, and a word of the error."""
    cert, key = authority.issue()
    locked = pem_of(ec.generate_private_key(ec.SECP256R1()), b"secret")
    client = authority.issue(usage=ExtendedKeyUsageOID.CLIENT_AUTH)
    return {
        "another's key": (cert, authority.issue()[1], "is not the key of"),
        "expired": (*authority.issue(days=(-9, -1)), "has expired"),
        "of tomorrow": (*authority.issue(days=(1, 9)), "not valid yet"),
        "for clients": (*client, "would refuse"),
        "no certificate": (b"", key, "holds no certificate"),
        "no key": (cert, b"", "holds no private key"),
        "the wrong way round": (key, cert, "holds no certificate"),
        "an encrypted key": (cert, locked, "is encrypted"),
        "a damaged certificate": (cert.replace(b"M", b"N"), key, "cannot be used"),
        "a damaged key": (cert, key.replace(b"M", b"N"), "cannot be used"),
        "a file of megabytes": (cert + b"x" * 2 * MIB, key, "is larger than"),
        "an odd space in a line": (cert.replace(b"\n", b"\xc2\xa0\n", 3), key, "cannot be understood"),
    }


WRONG = [
    "another's key", "expired", "of tomorrow", "for clients", "no certificate", "no key", "the wrong way round",
    "an encrypted key", "a damaged certificate", "a damaged key", "a file of megabytes", "an odd space in a line",
]  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_pair_ends_the_start(site: Site, authority: Authority, files: Files, name: str) -> None:
    """With exit code 2 and one line that says what is wrong and what to do."""
    cert, key, word = wrong_pairs(authority)[name]
    files.key.unlink()
    files.write((cert, key))
    run = run_to_its_end(site, **files.settings)
    assert run.returncode == 2
    assert run.stderr.count("\n") == 1
    assert word in run.stderr
    assert CERT in run.stderr or KEY in run.stderr


@pytest.mark.parametrize("alone", [CERT, KEY])
def test_one_file_alone_ends_the_start(site: Site, files: Files, alone: str) -> None:
    """Both variables are named."""
    run = run_to_its_end(site, **{alone: files.settings[alone]})
    assert run.returncode == 2
    assert f"{alone} is set without {KEY if alone == CERT else CERT}" in run.stderr


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("missing", [CERT, KEY])
def test_a_missing_file_ends_the_start(site: Site, files: Files, missing: str, processes: int) -> None:
    """And one that is a folder."""
    for place in ("/nowhere.pem", "/"):
        settings = files.settings | {missing: place, "GATEWAY_PROCESSES": processes}
        run = run_to_its_end(site, **settings)
        assert run.returncode == 2
        assert f"{missing}={place} cannot be read" in run.stderr


def test_wrong_new_pairs_change_nothing(gateway: Gateway, authority: Authority, files: Files) -> None:
    """Each is told once; the pair before stays in force, until a right one comes."""
    before = serial(gateway)
    wrong = wrong_pairs(authority)
    for number, name in enumerate(["another's key", "expired", "no key", "a damaged certificate"], 1):
        files.key.unlink()
        files.write(wrong[name][:2])
        told = gateway.several(number, "certificate_refused")[-1]["message"]
        assert wrong[name][2] in told
        assert "stays in force" in told
        assert serial(gateway) == before
    files.cert.unlink()
    assert "cannot be read" in gateway.several(5, "certificate_refused")[-1]["message"]
    assert serial(gateway) == before
    renewed = authority.issue()
    files.key.unlink()
    files.write(renewed)
    wait_until(lambda: serial(gateway) == serial_of(renewed), "the new certificate", 5)
    assert len(gateway.events("certificate_refused")) == 5


def test_a_pair_that_comes_too_early_counts_when_it_is_valid(
    gateway: Gateway, authority: Authority, files: Files
) -> None:
    """By itself: it is tried again every second, and told at most once (on a slow host it may be valid at once)."""
    early = authority.issue(days=(8 / 86400, 9))
    files.key.unlink()
    files.write(early)
    wait_until(lambda: serial(gateway) == serial_of(early), "the new certificate")
    assert len(gateway.events("certificate_refused")) <= 1


def test_a_key_that_everybody_can_read_is_told(start_tls: StartTls, files: Files) -> None:
    """With the mode that it should have."""
    files.key.chmod(0o644)
    message = start_tls().event("key_exposed")["message"]
    assert "0644" in message
    assert "0400" in message


def test_the_log_names_the_certificate(gateway: Gateway) -> None:
    """Its names and its last day."""
    line = gateway.event("certificate_read")
    assert line["names"] == ["localhost", "127.0.0.1"]
    assert line["expires"].startswith("20")
    assert line["expires"].endswith("Z")


def test_every_process_reads_the_files(start_tls: StartTls, authority: Authority, files: Files) -> None:
    """And reads them again."""
    gateway = start_tls(GATEWAY_PROCESSES=2)
    assert len(gateway.several(2, "certificate_read")) == 2
    renewed = authority.issue()
    files.key.unlink()
    files.write(renewed)
    gateway.several(4, "certificate_read")
    assert {serial(gateway) for _ in range(20)} == {serial_of(renewed)}
    gateway.terminate()
    assert gateway.end() == (0, "")
