"""A small hub on loopback: answers what `datasets` and `huggingface_hub` ask for, and fails when told to."""

import hashlib
import json
import re
from urllib.parse import parse_qs, unquote, urlsplit

from support.object_stores.loopback import LoopbackHandler, LoopbackServer

COMMIT = "0123456789abcdef0123456789abcdef01234567"
README = """---
configs:
- config_name: default
  data_files:
  - split: train
    path: data/train-*.parquet
  - split: validation
    path: data/validation-*.parquet
---
"""


class HubServer(LoopbackServer):
    """Serves the files of one data set.

    Attributes:
        faults: what becomes of the next GETs of data files: "503", "cut" (half of the answer, then the connection is
            closed), "" for a sound answer; sound ones when the list is used up.
        requests: (method, path, range) of every request.
    """

    def __init__(self, repository, files):
        self.repository = repository
        self.files = {"README.md": README.encode(), **files}
        self.faults, self.requests = [], []
        super().__init__(Handler)


class Handler(LoopbackHandler):
    def answer(self):
        path = unquote(urlsplit(self.path).path)
        body = self.read_body().decode()
        self.server.requests.append((self.command, path, self.headers.get("Range")))
        name = re.escape(self.server.repository)
        if match := re.fullmatch(f"/datasets/{name}/resolve/[^/]+/(.+)", path):
            self.file(match[1])
        elif re.fullmatch(f"/api/datasets/{name}(/revision/(main|{COMMIT}))?", path):
            self.json(self.info())
        elif match := re.fullmatch(f"/api/datasets/{name}/tree/[^/]+/?(.*)", path):
            self.json(self.tree(match[1]))
        elif re.fullmatch(f"/api/datasets/{name}/paths-info/[^/]+", path):
            expected = (
                json.loads(body)["paths"] if body.startswith("{") else parse_qs(body)["paths"]
            )
            self.json([self.entry(file) for file in self.server.files if file in expected])
        elif path.startswith(f"/api/datasets/{self.server.repository}/revision/"):
            self.fail(404, "RevisionNotFound")
        else:
            self.fail(404, "RepoNotFound")

    def info(self):
        names = [{"rfilename": name} for name in self.server.files]
        when = "2024-01-01T00:00:00.000Z"
        facts = {"id": self.server.repository, "sha": COMMIT, "siblings": names}
        facts |= {"lastModified": when, "private": False, "gated": False, "disabled": False}
        return facts | {"tags": [], "downloads": 0, "likes": 0}

    def tree(self, folder):
        inside = [
            name for name in self.server.files if name.startswith(f"{folder}/" if folder else "")
        ]
        if "recursive=true" in self.path.lower():
            return [self.entry(name) for name in inside]
        cut = len(folder) + 1 if folder else 0
        folders = sorted({name[cut:].split("/")[0] for name in inside if "/" in name[cut:]})
        before = f"{folder}/" if folder else ""
        listed = [
            {"type": "directory", "path": before + one, "size": 0, "oid": COMMIT} for one in folders
        ]
        return listed + [self.entry(name) for name in inside if "/" not in name[cut:]]

    def entry(self, name):
        data = self.server.files[name]
        oid = hashlib.sha256(data).hexdigest()
        lfs = {"oid": oid, "size": len(data), "pointerSize": 130}
        return {"type": "file", "path": name, "size": len(data), "oid": oid[:40], "lfs": lfs}

    def file(self, name):
        data = self.server.files.get(name)
        if data is None:
            return self.fail(404, "EntryNotFound")
        is_data = self.command == "GET" and name.endswith(".parquet")
        fault = self.server.faults.pop(0) if is_data and self.server.faults else ""
        if fault == "503":
            return self.fail(503, "")
        begin, end = 0, len(data)
        if match := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or ""):
            begin, end = int(match[1]), min(int(match[2] or len(data)) + 1, len(data))
            if begin >= len(data):
                return self.fail(416, "")
        self.send_response(206 if self.headers.get("Range") else 200)
        if self.headers.get("Range"):
            self.send_header("Content-Range", f"bytes {begin}-{end - 1}/{len(data)}")
        tag = f'"{hashlib.sha256(data).hexdigest()}"'
        about = {"X-Repo-Commit": COMMIT, "ETag": tag, "X-Linked-Etag": tag}
        about["X-Linked-Size"] = len(data)
        self.finish_head({**about, "Accept-Ranges": "bytes", "Content-Length": end - begin})
        if self.command == "GET":
            self.wfile.write(data[begin : (begin + end) // 2 if fault == "cut" else end])
        if fault == "cut":
            self.close_connection = True
        return None

    def json(self, answer):
        data = json.dumps(answer).encode()
        self.send_response(200)
        head = {"Content-Type": "application/json", "Content-Length": len(data)}
        self.finish_head({**head, "X-Repo-Commit": COMMIT})
        self.wfile.write(data)

    def fail(self, status, code):
        self.send_response(status)
        self.finish_head({"X-Error-Code": code, "Content-Length": 0})

    def finish_head(self, headers):
        for name, value in headers.items():
            self.send_header(name, str(value))
        self.end_headers()
