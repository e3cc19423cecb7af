"""HTTP/1.1 over a plain socket: what is sent is what the test wrote, byte for byte.

`Wire` is one connection. `Raw` signs requests and sends each over a connection of its own.
"""

import re
import socket
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from sigv4 import Headers, Signer, encode

TIMEOUT = 15.0


class Closed(Exception):
    """The server closed the connection where a response was expected."""


@dataclass
class Response:
    status: int
    headers: list[tuple[str, str]]
    body: bytes = b""

    def __getitem__(self, name: str) -> str:
        """The only value of header `name`."""
        (value,) = [v for n, v in self.headers if n == name.lower()]
        return value

    def __contains__(self, name: str) -> bool:
        return any(n == name.lower() for n, _ in self.headers)

    def get(self, name: str, default: str | None = None) -> str | None:
        return self[name] if name in self else default

    @property
    def code(self) -> str:
        """Code of S3's error document; empty when the body is none."""
        return xml_text(self.body, "Code")

    @property
    def refusal(self) -> tuple[int, str]:
        """Status and code, for comparing in one go."""
        return self.status, self.code

    def __repr__(self) -> str:
        return f"<{self.status} {self.headers} {self.body[:600]!r}>"


def xml(body: bytes) -> ElementTree.Element:
    """The document without its namespace."""
    return ElementTree.fromstring(re.sub(rb' xmlns="[^"]*"', b"", body, count=1))


def xml_text(body: bytes, path: str) -> str:
    try:
        return xml(body).findtext(path) or ""
    except ElementTree.ParseError:
        return ""


class Wire:
    """One connection to the server, as a context manager."""

    def __init__(self, address: tuple[str, int], timeout: float = TIMEOUT):
        self.socket = socket.create_connection(address, timeout=timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = b""

    def __enter__(self) -> "Wire":
        return self

    def __exit__(self, *_) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def send_or_closed(self, data: bytes) -> None:
        """Sends as much as the server takes: it may answer and close in the middle."""
        try:
            self.socket.sendall(data)
        except OSError as refused:
            if isinstance(refused, TimeoutError):
                raise

    def request(self, method: str, target: str, headers: Headers, body: bytes = b"") -> Response:
        self.send(head(method, target, headers) + body)
        return self.response(method)

    def response(self, method: str = "GET") -> Response:
        """The next response whose status is final."""
        while (found := self.any_response(method)).status < 200:
            pass
        return found

    def any_response(self, method: str = "GET") -> Response:
        """The next response, 100 Continue included."""
        lines = self._until(b"\r\n\r\n").decode("latin-1").split("\r\n")
        assert lines[0].startswith("HTTP/1.1 "), lines[0]
        found = Response(int(lines[0].split(" ")[1]), [])
        for line in lines[1:-2]:
            name, colon, value = line.partition(":")
            assert colon and name == name.strip(), f"malformed header line {line!r}"
            found.headers.append((name.lower(), value.strip()))
        if method != "HEAD" and found.status >= 200 and found.status not in (204, 304):
            found.body = self._body(found)
        return found

    def assert_closed(self) -> None:
        """The server closes, and has no more to say."""
        try:
            rest = self.buffer + self.socket.recv(65536)
        except ConnectionResetError:
            rest = b""
        assert rest == b"", f"expected the connection to close, got {rest[:300]!r}"

    def _body(self, found: Response) -> bytes:
        if found.get("transfer-encoding") == "chunked":
            body = b""
            while size := int(self._until(b"\r\n").split(b";")[0], 16):
                body += self._exactly(size + 2)[:-2]
            self._until(b"\r\n")
            return body
        if "content-length" in found:
            return self._exactly(int(found["content-length"]))
        body = self.buffer
        while more := self.socket.recv(65536):
            body += more
        self.buffer = b""
        return body

    def _until(self, mark: bytes) -> bytes:
        while mark not in self.buffer:
            self._fill()
        line, _, self.buffer = self.buffer.partition(mark)
        return line + mark

    def _exactly(self, length: int) -> bytes:
        parts, have = [self.buffer], len(self.buffer)
        while have < length:
            more = self.socket.recv(1 << 20)
            if not more:
                raise Closed(f"after {have} of {length} body bytes")
            parts.append(more)
            have += len(more)
        data = b"".join(parts)
        self.buffer = data[length:]
        return data[:length]

    def _fill(self) -> None:
        try:
            more = self.socket.recv(65536)
        except ConnectionResetError as reset:
            raise Closed(f"reset after {self.buffer[:300]!r}") from reset
        if not more:
            raise Closed(f"closed after {self.buffer[:300]!r}")
        self.buffer += more


def head(method: str, target: str, headers: Headers) -> bytes:
    lines = [f"{method} {target} HTTP/1.1"] + [f"{name}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def path_of(bucket: str, key: str | bytes = "") -> str:
    """The path-style target of an object, percent-encoded as SDKs do."""
    return f"/{bucket}/{encode(key, '/')}" if key else f"/{bucket}"


@dataclass
class Raw:
    """Requests written by hand, to one endpoint with one key pair."""

    endpoint: str
    signer: Signer
    address: tuple[str, int] = field(init=False)
    host: str = field(init=False)

    def __post_init__(self) -> None:
        parts = urlsplit(self.endpoint)
        self.address = (parts.hostname, parts.port)
        self.host = parts.netloc

    def connect(self, timeout: float = TIMEOUT) -> Wire:
        return Wire(self.address, timeout)

    def signed(self, method: str, target: str, body: bytes = b"", headers: Headers | None = None, **how) -> Headers:
        """The headers of a signed request with `body`; `how` goes to Signer.header."""
        base = {"host": self.host} | {n.lower(): v for n, v in (headers or {}).items()}
        if body or method in ("PUT", "POST"):
            base.setdefault("content-length", str(len(body)))
        return self.signer.header(method, target, base, body, **how)

    def request(self, method: str, target: str, body: bytes = b"", headers: Headers | None = None, **how) -> Response:
        """A signed request on its own connection."""
        return self.send(method, target, self.signed(method, target, body, headers, **how), body)

    def send(self, method: str, target: str, headers: Headers, body: bytes = b"") -> Response:
        """These headers and this body, unsigned and unchanged."""
        with self.connect() as wire:
            wire.send_or_closed(head(method, target, {"host": self.host} | headers) + body)
            return wire.response(method)

    def presigned(self, method: str, target: str, body: bytes = b"", headers: Headers | None = None, **how) -> Response:
        """A request signed in its query."""
        signed = {"host": self.host} | {n.lower(): v for n, v in (headers or {}).items()}
        target = self.signer.presign(method, target, signed, **how)
        if body or method in ("PUT", "POST"):
            signed["content-length"] = str(len(body))
        return self.send(method, target, signed, body)

    def stream(
        self, target: str, chunks: list[bytes], headers: Headers | None = None, method: str = "PUT", **how
    ) -> Response:
        """An aws-chunked upload; `how` goes to Signer.streaming."""
        base = {"host": self.host} | (headers or {})
        return self.send(method, target, *self.signer.streaming(method, target, base, chunks, **how))
