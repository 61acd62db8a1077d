"""A Hub on loopback: the HTTP calls that huggingface_hub makes, over repositories kept in memory as git keeps them.

It speaks the Hub's own protocol over real sockets: blobs are named by git's SHA-1 or, for large files, by their SHA-256
and uploaded ahead of the commit; a commit is one request and atomic; private repositories look missing to strangers.
"""

import base64
import hashlib
import json
import re
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

USERS = {"hf_me": "me", "hf_other": "other", "hf_read": "me"}
READERS = {"hf_read"}
"""Tokens that may not write."""
LARGE = (".safetensors", ".parquet")
"""Endings that a new repository's .gitattributes gives to LFS."""
FRONT_MATTER = re.compile(r"^\s*---\n([\S\s]*?)\n---[ \t]*(\n|$)")
REPO = r"/(?:(?P<type>models|datasets|spaces)/)?(?P<repo>[\w.-]+/[\w.-]+)"


def blob_oid(data):
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


@dataclass
class Repository:
    owner: str
    private: bool = False
    gated: bool = False
    sdk: str | None = None
    branches: dict = field(default_factory=dict)
    commits: dict = field(default_factory=dict)
    """Oid to (parent, title, {path: bytes})."""
    pulls: int = 0

    def commit(self, branch, title, files, parent=None):
        parent = parent or self.branches.get(branch)
        listing = sorted((path, blob_oid(data)) for path, data in files.items())
        oid = hashlib.sha1(json.dumps([parent, title, listing]).encode()).hexdigest()
        self.commits[oid] = (parent, title, files)
        self.branches[branch] = oid
        return oid

    def resolve(self, revision):
        return self.branches.get(revision) or (revision if revision in self.commits else None)

    def history(self, branch="main"):
        """Titles, newest first."""
        titles, oid = [], self.branches[branch]
        while oid:
            oid, title, _ = self.commits[oid]
            titles.append(title)
        return titles

    def files(self, branch="main"):
        return self.commits[self.branches[branch]][2]


@dataclass
class Fault:
    method: str
    fragment: str
    times: int
    applied: bool
    """Whether the request still takes effect."""
    status: int | None = None
    """Of the answer; without one the connection breaks."""


class Hub(ThreadingHTTPServer):
    """The server; ``repositories`` and ``requests`` are there for tests to read."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.lock = threading.Lock()
        self.reset()

    def reset(self):
        self.repositories, self.large, self.requests, self.faults = {}, {}, [], []

    def add(self, repo_id, files, *, repo_type="model", private=False):
        """A repository that is there already."""
        repository = Repository(repo_id.split("/")[0], private)
        repository.commit("main", "initial commit", {".gitattributes": b"*.safetensors filter=lfs\n"})
        repository.commit("main", "theirs", {**repository.files(), **files})
        self.repositories[repo_type, repo_id] = repository
        return repository

    def drop(self, method, fragment, times=1, *, applied=False):
        """Break the connection at the next requests whose path holds ``fragment``."""
        self.faults.append(Fault(method, fragment, times, applied))

    def refuse(self, method, fragment, status):
        """Answer the next such request with an error, as a proxy does, though it took effect."""
        self.faults.append(Fault(method, fragment, 1, True, status))

    def count(self, method, fragment):
        return sum(1 for m, path in self.requests if m == method and fragment in path)

    def fault(self, method, path):
        with self.lock:
            for fault in self.faults:
                if fault.times and fault.method == method and fault.fragment in path:
                    fault.times -= 1
                    return fault
        return None

    def handle_error(self, request, client_address):
        """A client that has gone is no news."""


@contextmanager
def running():
    hub = Hub()
    thread = threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
        thread.join()


class RefusedError(Exception):
    def __init__(self, status, code, message):
        self.status, self.code, self.message = status, code, message


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # with it every answer waits until its headers are acknowledged, 40 ms

    def log_message(self, *args):
        pass

    def do_GET(self):
        self._serve()

    do_HEAD = do_POST = do_PUT = do_GET  # noqa: N815 - the names that http.server looks for

    def _serve(self):
        parts = urlsplit(self.path)
        self.route, self.query = unquote(parts.path), parse_qs(parts.query)
        self.server.requests.append((self.command, self.route))
        fault = self.server.fault(self.command, self.route)
        if fault and not fault.applied:
            self.rfile.read(int(self.headers.get("Content-Length") or 0) // 2)
            return self._hang_up()
        self.body = self._read()
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        self.user, self.reads = USERS.get(token), token in READERS
        try:
            if token and self.user is None:
                raise RefusedError(401, "", "Invalid credentials in Authorization header")
            with self.server.lock:
                status, headers, content = self._answer()
        except RefusedError as refused:
            status, content = refused.status, json.dumps({"error": refused.message}).encode()
            headers = {"X-Error-Message": refused.message, **({"X-Error-Code": refused.code} if refused.code else {})}
        if fault and fault.status is None:
            return self._hang_up()
        if fault:
            status, headers, content = fault.status, {}, b"{}"
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
        return None

    def _read(self):
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _hang_up(self):
        self.close_connection = True
        self.connection.close()

    def _answer(self):
        for method, pattern, action in ROUTES:
            match = re.fullmatch(pattern, self.route)
            if match and self.command in method:
                found = action(self, **match.groupdict())
                return found if isinstance(found, tuple) else (200, {}, json.dumps(found).encode())
        raise RefusedError(404, "", f"no such route: {self.command} {self.route}")

    def _repository(self, type, repo, *, write=False):
        repository = self.server.repositories.get(((type or "models").removesuffix("s"), repo))
        if repository is None or (repository.private and self.user != repository.owner):
            if self.user is None:
                raise RefusedError(401, "RepoNotFound", "Invalid username or password.")
            raise RefusedError(404, "RepoNotFound", "Repository not found")
        if repository.gated and self.user != repository.owner:
            raise RefusedError(403, "GatedRepo", f"Access to {repo} is restricted and you are not in the list")
        if write and self.user is None:
            raise RefusedError(401, "", "Invalid username or password.")
        if write and (self.reads or (self.user != repository.owner and "create_pr" not in self.query)):
            raise RefusedError(403, "", f"You don't have the rights to write to {repo}")
        return repository

    def _commit(self, repository, revision):
        oid = repository.resolve(revision)
        if oid is None:
            raise RefusedError(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return oid, repository.commits[oid][2]

    def whoami(self):
        if self.user is None:
            raise RefusedError(401, "", "Invalid username or password.")
        return {"type": "user", "name": self.user, "orgs": [], "auth": {"type": "access_token"}}

    def create(self):
        if self.user is None:
            raise RefusedError(401, "", "Invalid username or password.")
        asked = json.loads(self.body)
        owner = asked.get("organization") or self.user
        repo_id, repo_type = f"{owner}/{asked['name']}", asked.get("type", "model")
        url = f"{self.server.url}/{'' if repo_type == 'model' else repo_type + 's/'}{repo_id}"
        if owner != self.user or self.reads:
            raise RefusedError(
                403, "", f"You don't have the rights to create a {repo_type} under the namespace {owner!r}"
            )
        if (repo_type, repo_id) in self.server.repositories:
            content = json.dumps({"error": "You already created this repo", "url": url}).encode()
            return 409, {}, content
        if repo_type == "space" and not asked.get("sdk"):
            raise RefusedError(400, "", "a Space needs an sdk")
        private = asked.get("visibility") == "private" or bool(asked.get("private"))
        repository = Repository(owner, private, sdk=asked.get("sdk"))
        repository.commit("main", "initial commit", {".gitattributes": b"*.safetensors filter=lfs\n"})
        self.server.repositories[repo_type, repo_id] = repository
        return {"url": url, "name": repo_id, "id": repo_id}

    def validate(self):
        match = FRONT_MATTER.match(json.loads(self.body)["content"])
        errors, data = [], {}
        try:
            data = yaml.safe_load(match.group(1)) if match else {}
        except yaml.YAMLError as error:
            errors.append({"message": str(error)})
        for name, kind in (("tags", list), ("library_name", str), ("model-index", list), ("configs", list)):
            if name in data and not isinstance(data[name], kind):
                errors.append({"message": f'"{name}" must be a {kind.__name__}'})
        content = json.dumps({"errors": errors, "warnings": []}).encode()
        return (400 if errors else 200), {}, content

    def preupload(self, type, repo, revision):
        repository = self._repository(type, repo, write=True)
        _, files = self._commit(repository, revision)
        answers = []
        for asked in json.loads(self.body)["files"]:
            large, there = asked["path"].endswith(LARGE), files.get(asked["path"])
            oid = None if there is None else hashlib.sha256(there).hexdigest() if large else blob_oid(there)
            mode = "lfs" if large else "regular"
            answers.append({"path": asked["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        return {"files": answers}

    def batch(self, type, repo):
        self._repository(type, repo)  # whoever may propose a change may upload for it
        if self.user is None:
            raise RefusedError(401, "", "Invalid username or password.")
        objects = []
        for asked in json.loads(self.body)["objects"]:
            answer = {"oid": asked["oid"], "size": asked["size"]}
            if asked["oid"] not in self.server.large:
                answer["actions"] = {"upload": {"href": f"{self.server.url}/lfs/{asked['oid']}", "header": {}}}
            objects.append(answer)
        return (
            200,
            {"Content-Type": "application/vnd.git-lfs+json"},
            json.dumps({"transfer": "basic", "objects": objects}).encode(),
        )

    def put(self, oid):
        if hashlib.sha256(self.body).hexdigest() != oid:
            raise RefusedError(400, "", "the content does not have this hash")
        self.server.large[oid] = self.body
        return {}

    def commit(self, type, repo, revision):
        repository = self._repository(type, repo, write=True)
        head, files = self._commit(repository, revision)
        files, header = dict(files), {}
        for line in self.body.decode().splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "header":
                header = value
            elif entry["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                if value["oid"] not in self.server.large:
                    raise RefusedError(400, "", f"LFS object {value['oid']} is missing")
                files[value["path"]] = self.server.large[value["oid"]]
            elif entry["key"] == "deletedFile":
                if value["path"] not in files:
                    raise RefusedError(404, "EntryNotFound", "A file with this name doesn't exist")
                del files[value["path"]]
        if header.get("parentCommit", head) != head:
            raise RefusedError(412, "", "A commit has happened since. Please refresh and try again.")
        answer = {"success": True}
        if "create_pr" in self.query:
            repository.pulls += 1
            revision = f"refs/pr/{repository.pulls}"
            answer["pullRequestUrl"] = f"{self.server.url}/{repo}/discussions/{repository.pulls}"
        oid = repository.commit(revision, header["summary"], files, parent=head)
        place = f"{self.server.url}/{'' if type == 'models' else type + '/'}{repo}"
        return {**answer, "commitOid": oid, "commitUrl": f"{place}/commit/{oid}"}

    def branch(self, type, repo, revision):
        repository = self._repository(type, repo, write=True)
        if revision in repository.branches:
            raise RefusedError(409, "", "Reference already exists")
        repository.branches[revision] = repository.branches["main"]
        return {}

    def info(self, type, repo, revision="main"):
        oid, files = self._commit(self._repository(type, repo), revision)
        siblings = [{"rfilename": path} for path in sorted(files)]
        return {"_id": "1", "id": repo, "sha": oid, "private": False, "tags": [], "siblings": siblings}

    def tree(self, type, repo, revision, folder=None):
        _, files = self._commit(self._repository(type, repo), revision)
        if folder:
            raise RefusedError(404, "EntryNotFound", f"{folder} does not exist on {revision!r}")
        listed = []
        for path, data in sorted(files.items()):
            entry = {"type": "file", "oid": blob_oid(data), "size": len(data), "path": path}
            if path.endswith(LARGE):
                entry["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}
            listed.append(entry)
        return listed

    def resolve(self, type, repo, revision, path):
        oid, files = self._commit(self._repository(type, repo), revision)
        if path not in files:
            raise RefusedError(404, "EntryNotFound", f"Entry not found: {path}")
        data = files[path]
        tag = hashlib.sha256(data).hexdigest() if path.endswith(LARGE) else blob_oid(data)
        return 200, {"ETag": f'"{tag}"', "X-Repo-Commit": oid}, data


ROUTES = [
    ("GET", "/api/whoami-v2", Handler.whoami),
    ("POST", "/api/repos/create", Handler.create),
    ("POST", "/api/validate-yaml", Handler.validate),
    ("POST", f"/api{REPO}/preupload/(?P<revision>.+)", Handler.preupload),
    ("POST", f"{REPO}.git/info/lfs/objects/batch", Handler.batch),
    ("PUT", "/lfs/(?P<oid>[0-9a-f]{64})", Handler.put),
    ("POST", f"/api{REPO}/commit/(?P<revision>.+)", Handler.commit),
    ("POST", f"/api{REPO}/branch/(?P<revision>.+)", Handler.branch),
    ("GET", f"/api{REPO}", Handler.info),
    ("GET", f"/api{REPO}/revision/(?P<revision>.+)", Handler.info),
    ("GET", f"/api{REPO}/tree/(?P<revision>refs/pr/[0-9]+|[^/]+)(?:/(?P<folder>.+))?", Handler.tree),
    ("GET HEAD", f"{REPO}/resolve/(?P<revision>refs/pr/[0-9]+|[^/]+)/(?P<path>.+)", Handler.resolve),
]
