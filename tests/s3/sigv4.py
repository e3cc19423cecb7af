"""AWS Signature Version 4, by hand.

The SDKs sign only what is right. These tests also need requests that are almost right: another
header list, another time, one wrong chunk. So every input of the signature can be given, and
nothing is normalised behind the caller's back: a target is the bytes that go on the wire.

Source: "Authenticating Requests (AWS Signature Version 4)", Amazon S3 API Reference.
"""

import hashlib
import hmac
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Callable, Iterable
from urllib.parse import quote, unquote_to_bytes

ALGORITHM = "AWS4-HMAC-SHA256"
UNSIGNED = "UNSIGNED-PAYLOAD"
STREAMING = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
STREAMING_TRAILER = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"
STREAMING_UNSIGNED_TRAILER = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
EMPTY_SHA256 = hashlib.sha256(b"").hexdigest()

Headers = dict[str, str]


def encode(raw: bytes | str, safe: str = "") -> str:
    """UriEncode of the specification: everything but unreserved characters, upper-case hex."""
    return quote(raw, safe=safe + "-._~")


def amz_time(offset: timedelta = timedelta()) -> str:
    """Now plus `offset`, as x-amz-date has it."""
    return (datetime.now(timezone.utc) + offset).strftime("%Y%m%dT%H%M%SZ")


@dataclass(frozen=True)
class Seed:
    """What the chunks of a streamed body sign on from."""

    key: bytes
    amz_date: str
    scope: str
    signature: str

    def chunk(self, previous: str, data: bytes) -> str:
        lines = [f"{ALGORITHM}-PAYLOAD", self.amz_date, self.scope, previous, EMPTY_SHA256, sha256(data)]
        return hmac_hex(self.key, "\n".join(lines))

    def trailer(self, previous: str, trailer: str) -> str:
        lines = [f"{ALGORITHM}-TRAILER", self.amz_date, self.scope, previous, sha256(trailer.encode())]
        return hmac_hex(self.key, "\n".join(lines))


@dataclass(frozen=True)
class Signer:
    """One key pair in one region. Times are `YYYYMMDDTHHMMSSZ`; None means now."""

    access_key: str
    secret_key: str
    region: str = "us-east-1"
    service: str = "s3"

    def scope(self, amz_date: str) -> str:
        return f"{amz_date[:8]}/{self.region}/{self.service}/aws4_request"

    def signing_key(self, amz_date: str) -> bytes:
        key = b"AWS4" + self.secret_key.encode()
        for part in (amz_date[:8], self.region, self.service, "aws4_request"):
            key = hmac.digest(key, part.encode(), "sha256")
        return key

    def signature(self, method: str, target: str, headers: Headers, signed: list[str], payload: str, date: str) -> str:
        """The signature over the canonical request; `headers` has lower-case names."""
        path, _, query = target.partition("?")
        canonical = "\n".join(
            [method, encode(unquote_to_bytes(path), "/"), canonical_query(query)]
            + [f"{name}:{' '.join(headers.get(name, '').split())}" for name in signed]
            + ["", ";".join(signed), payload]
        )
        to_sign = "\n".join([ALGORITHM, date, self.scope(date), sha256(canonical.encode())])
        return hmac_hex(self.signing_key(date), to_sign)

    def header(
        self,
        method: str,
        target: str,
        headers: Headers,
        body: bytes = b"",
        *,
        payload: str | None = None,
        date: str | None = None,
        unsigned: Iterable[str] = (),
    ) -> Headers:
        """`headers` (with Host) plus date, payload hash and Authorization. `unsigned` names stay out of SignedHeaders."""
        date = date or amz_time()
        payload = sha256(body) if payload is None else payload
        out = {name.lower(): value for name, value in headers.items()}
        out |= {"x-amz-date": date, "x-amz-content-sha256": payload}
        signed = sorted(n for n in out if n not in unsigned and n not in ("expect", "connection", "transfer-encoding"))
        value = self.signature(method, target, out, signed, payload, date)
        credential = f"{self.access_key}/{self.scope(date)}"
        out["authorization"] = f"{ALGORITHM} Credential={credential},SignedHeaders={';'.join(signed)},Signature={value}"
        return out

    def presign(
        self,
        method: str,
        target: str,
        headers: Headers,
        *,
        expires: int | str = 300,
        date: str | None = None,
        payload: str = UNSIGNED,
        **override: str,
    ) -> str:
        """`target` with the six X-Amz parameters. `override` replaces one before signing, e.g. Algorithm="x"."""
        date = date or amz_time()
        lower = {name.lower(): value for name, value in headers.items()}
        signed = sorted(lower)
        query = {
            "X-Amz-Algorithm": ALGORITHM,
            "X-Amz-Credential": f"{self.access_key}/{self.scope(date)}",
            "X-Amz-Date": date,
            "X-Amz-Expires": str(expires),
            "X-Amz-SignedHeaders": ";".join(signed),
        } | {f"X-Amz-{name}": value for name, value in override.items()}
        target += ("&" if "?" in target else "?") + "&".join(f"{n}={encode(v)}" for n, v in query.items())
        value = self.signature(method, target, lower, signed, payload, date)
        return f"{target}&X-Amz-Signature={value}"

    def streaming(
        self,
        method: str,
        target: str,
        headers: Headers,
        chunks: list[bytes],
        *,
        payload: str = STREAMING,
        trailer: Headers | None = None,
        tamper: Callable[[int, str], str] = lambda index, signature: signature,
        date: str | None = None,
    ) -> tuple[Headers, bytes]:
        """Headers and aws-chunked body of an upload. `tamper(index, signature)` may replace the signature of
        chunk `index`; the closing empty chunk is `len(chunks)`, the trailer `len(chunks) + 1`. An empty
        x-amz-trailer in `headers` leaves the trailer unannounced."""
        date = date or amz_time()
        headers = {"content-encoding": "aws-chunked"} | {n.lower(): v for n, v in headers.items()}
        headers.setdefault("x-amz-decoded-content-length", str(sum(map(len, chunks))))
        if trailer is not None:
            headers.setdefault("x-amz-trailer", ",".join(trailer))
            if not headers["x-amz-trailer"]:
                del headers["x-amz-trailer"]
        signs = payload != STREAMING_UNSIGNED_TRAILER
        headers = self.header(method, target, headers, payload=payload, date=date)
        seed = Seed(self.signing_key(date), date, self.scope(date), headers["authorization"].rpartition("=")[2])
        body, previous = bytearray(), seed.signature
        for index, data in enumerate([*chunks, b""]):
            extension = ""
            if signs:
                previous = seed.chunk(previous, data)
                extension = f";chunk-signature={tamper(index, previous)}"
            body += f"{len(data):x}{extension}\r\n".encode() + data + (b"\r\n" if data else b"")
        lines = "".join(f"{name}:{value}\n" for name, value in (trailer or {}).items())
        body += lines.replace("\n", "\r\n").encode()
        if trailer is not None and signs:
            value = tamper(len(chunks) + 1, seed.trailer(previous, lines))
            body += f"x-amz-trailer-signature:{value}\r\n".encode()
        body += b"\r\n"
        # Content-Length cannot be known before the body, and no client signs it here.
        headers["content-length"] = str(len(body))
        return headers, bytes(body)


def canonical_query(query: str) -> str:
    pairs = []
    for item in query.split("&") if query else []:
        name, _, value = item.partition("=")
        if name != "X-Amz-Signature":
            pairs.append((encode(unquote_to_bytes(name)), encode(unquote_to_bytes(value))))
    return "&".join(f"{name}={value}" for name, value in sorted(pairs))


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def hmac_hex(key: bytes, text: str) -> str:
    return hmac.digest(key, text.encode(), "sha256").hex()
