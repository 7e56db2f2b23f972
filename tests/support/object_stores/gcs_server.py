"""Google Cloud Storage on loopback: the part of its XML API that obstore uses, objects in memory."""

import hashlib
import re
import secrets
import threading
from datetime import UTC, datetime
from email.utils import format_datetime
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

from support.object_stores.loopback import LoopbackHandler, LoopbackServer

PAGE = 100  # entries of a listing; the service gives 1000


class GcsServer(LoopbackServer):
    """One bucket.

    Attributes:
        objects: contents by key; tests also put there what no client would.
        uploads: parts by number, of multipart uploads that were neither completed nor aborted.
    """

    def __init__(self, bucket: str) -> None:
        self.bucket = bucket
        self.objects: dict[str, bytes] = {}
        self.uploads: dict[str, dict[int, bytes]] = {}
        self.lock = threading.Lock()
        super().__init__(Handler)


class Handler(LoopbackHandler):
    server: GcsServer

    def answer(self) -> None:
        url, body = urlsplit(self.path), self.read_body()
        query = {
            name: values[0] for name, values in parse_qs(url.query, keep_blank_values=True).items()
        }
        bucket, _, key = unquote(url.path).removeprefix("/").partition("/")
        if bucket != self.server.bucket:
            return self.fail(404, "NoSuchBucket")
        with self.server.lock:
            if not key:
                return self.list(query)
            if "uploads" in query or "uploadId" in query:
                return self.multipart(key, query, body)
            return self.object(key, body)

    def object(self, key: str, body: bytes) -> None:
        objects = self.server.objects
        if self.command == "PUT":
            if self.headers.get("x-goog-if-generation-match") == "0" and key in objects:
                return self.fail(412, "PreconditionFailed")
            objects[key] = body
            return self.send(200, b"", etag(body))
        if key not in objects:
            return self.fail(404, "NoSuchKey")
        if self.command == "DELETE":
            del objects[key]
            return self.send(204, b"")
        data = objects[key]
        if match := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or ""):
            first, last = int(match[1]), min(int(match[2] or len(data)), len(data) - 1)
            return self.send(
                206,
                data[first : last + 1],
                {"Content-Range": f"bytes {first}-{last}/{len(data)}"} | etag(data),
            )
        return self.send(200, data, etag(data))

    def multipart(self, key: str, query: dict[str, str], body: bytes) -> None:
        uploads = self.server.uploads
        if "uploads" in query:
            number = secrets.token_hex(8)
            uploads[number] = {}
            names = f"<Bucket>{self.server.bucket}</Bucket><Key>{escape(key)}</Key><UploadId>{number}</UploadId>"
            return self.xml(
                f"<InitiateMultipartUploadResult>{names}</InitiateMultipartUploadResult>"
            )
        if query["uploadId"] not in uploads:
            return self.fail(404, "NoSuchUpload")
        if self.command == "PUT":
            uploads[query["uploadId"]][int(query["partNumber"])] = body
            return self.send(200, b"", etag(body))
        parts = uploads.pop(query["uploadId"])
        if self.command == "DELETE":
            return self.send(204, b"")
        self.server.objects[key] = b"".join(parts[number] for number in sorted(parts))
        tag = etag(self.server.objects[key])["ETag"]
        return self.xml(
            f"<CompleteMultipartUploadResult><ETag>{tag}</ETag></CompleteMultipartUploadResult>"
        )

    def list(self, query: dict[str, str]) -> None:
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
        entries: dict[str, str] = {}
        for key, data in sorted(self.server.objects.items()):
            if not key.startswith(prefix):
                continue
            head, found, _ = key[len(prefix) :].partition(delimiter) if delimiter else (key, "", "")
            if found:
                folder = escape(prefix + head + delimiter)
                entries[folder] = f"<CommonPrefixes><Prefix>{folder}</Prefix></CommonPrefixes>"
            else:
                when = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
                about = f"<Size>{len(data)}</Size><LastModified>{when}</LastModified><ETag>{etag(data)['ETag']}</ETag>"
                entries[key] = f"<Contents><Key>{escape(key)}</Key>{about}</Contents>"
        first = int(query.get("continuation-token") or 0)
        page = "".join(list(entries.values())[first : first + PAGE])
        if first + PAGE < len(entries):
            page += f"<NextContinuationToken>{first + PAGE}</NextContinuationToken>"
        self.xml(f"<ListBucketResult><Name>{self.server.bucket}</Name>{page}</ListBucketResult>")

    def xml(self, text: str) -> None:
        self.send(
            200,
            f'<?xml version="1.0" encoding="UTF-8"?>{text}'.encode(),
            {"Content-Type": "application/xml"},
        )

    def fail(self, status: int, code: str) -> None:
        self.send(status, f"<Error><Code>{code}</Code></Error>".encode())

    def send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def etag(data: bytes) -> dict[str, str]:
    when = format_datetime(datetime.now(UTC), usegmt=True)
    return {
        "ETag": f'"{hashlib.md5(data).hexdigest()}"',
        "Last-Modified": when,
        "x-goog-generation": "1",
    }
