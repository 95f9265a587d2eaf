#!/usr/bin/env python3
"""Makes the golden files beside it: what nix2container and dockerTools declare of a made store.

    generate.py NIX2CONTAINER CONFIG_DIGEST STREAM_LAYERED_IMAGE

NIX2CONTAINER         the program of github.com/nlewo/nix2container, commit 20d3395 (2026-03-20),
                      built by Go 1.26.8
CONFIG_DIGEST         config_digest.go beside this file, built within that repository
STREAM_LAYERED_IMAGE  pkgs/build-support/docker/stream_layered_image.py of NixOS/nixpkgs, commit
                      0137840; run by Python 3.11 or later

None of them is part of this repository. Run it where /nix/store is empty and may be written, for
example in a mount namespace: what it writes there is what store.json says. Without a change of the
programs, making the files again gives no difference.
"""

import base64
import gzip
import hashlib
import io
import json
import os
import pathlib
import subprocess
import sys
import tarfile
import tempfile

HERE = pathlib.Path(__file__).parent
STORE = "/nix/store/"
GLIBC = "0" * 32 + "-glibc-2.40"
GTK = "1" * 32 + "-gtk+-3.24++"
APP = "2" * 32 + "-app-1.0"
ROOT = "3" * 32 + "-root-env"
MORE = "4" * 32 + "-root-more"
SUDO = "5" * 32 + "-sudo-1.9"
FILE = "6" * 32 + "-file.conf"
LINK = "7" * 32 + "-current"
BASE = "8" * 32 + "-docker-image-base"
TARS = "9" * 32 + "-layers.json"
CUSTOM = "a" * 32 + "-web-customisation-layer"
ARCHIVE = "b" * 32 + "-base.tar"
ARCHIVE_GZ = "c" * 32 + "-base.tar.gz"


def d(name, mode=0o555):
    return {"name": name, "kind": "directory", "mode": mode}


def f(name, text, mode=0o444):
    data = text if isinstance(text, bytes) else text.encode()
    return {"name": name, "kind": "file", "mode": mode, "data": base64.b64encode(data).decode()}


def l(name, target):
    return {"name": name, "kind": "link", "target": target}


def tar(*members):
    """A small layer: (name, text or None for a directory, mode)."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, text, mode in members:
            info = tarfile.TarInfo(name)
            info.mode = mode
            if text is None:
                info.type = tarfile.DIRTYPE
                archive.addfile(info)
            else:
                info.size = len(text)
                archive.addfile(info, io.BytesIO(text.encode()))
    return out.getvalue()


def hexdigest(data):
    return hashlib.sha256(data).hexdigest()


def base_layers():
    first = tar(("etc", None, 0o755), ("etc/os-release", "base\n", 0o644))
    second = tar(("srv", None, 0o755), ("srv/data", "data\n", 0o600))
    return first, gzip.compress(second, mtime=0), second


def dir_transport():
    """What `skopeo copy … dir:` leaves: one layer is plain, the other gzip."""
    first, second_gz, second = base_layers()
    config = json.dumps({
        "architecture": "amd64", "os": "linux", "config": {"Env": ["BASE=1"]},
        "rootfs": {"type": "layers",
                   "diff_ids": ["sha256:" + hexdigest(first), "sha256:" + hexdigest(second)]},
    }).encode()
    kind = "application/vnd.docker.image.rootfs.diff.tar"
    manifest = json.dumps({
        "schemaVersion": 2,
        "config": {"mediaType": "application/vnd.docker.container.image.v1+json",
                   "size": len(config), "digest": "sha256:" + hexdigest(config)},
        "layers": [
            {"mediaType": kind, "size": len(first), "digest": "sha256:" + hexdigest(first)},
            {"mediaType": kind + ".gzip", "size": len(second_gz),
             "digest": "sha256:" + hexdigest(second_gz)},
        ],
    }).encode()
    files = {"manifest.json": manifest, hexdigest(config): config,
             hexdigest(first): first, hexdigest(second_gz): second_gz}
    return [d("")] + [f(name, data) for name, data in sorted(files.items())]


def docker_archive():
    """What `docker save` writes; the second layer is a link to the first one's neighbour."""
    first, _, second = base_layers()
    config = json.dumps({
        "architecture": "amd64", "os": "linux",
        "config": {"Env": ["PATH=/bin", "BASE=a=b", "BOTH=base"], "Cmd": ["sh"]},
        "rootfs": {"type": "layers",
                   "diff_ids": ["sha256:" + hexdigest(first), "sha256:" + hexdigest(second)]},
        "history": [{"created": "2020-01-01T00:00:00Z", "created_by": "first"},
                    {"created": "2020-01-01T00:00:00Z", "created_by": "env", "empty_layer": True},
                    {"created": "2020-01-01T00:00:00Z", "created_by": "second"}],
    }).encode()
    name = hexdigest(config) + ".json"
    manifest = json.dumps([{"Config": name, "RepoTags": ["base:1"],
                            "Layers": ["one/layer.tar", "two/layer.tar"]}]).encode()
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for member, data in [("one/layer.tar", first), ("two/layer.tar", second), (name, config),
                             ("manifest.json", manifest)]:
            info = tarfile.TarInfo(member)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def customisation():
    layer = tar(("./bin", None, 0o755), ("./bin/web", "web\n", 0o755))
    return [d(""), f("layer.tar", layer), f("checksum", hexdigest(layer) + "\n")]


def paths():
    archive = docker_archive()
    return {
        GLIBC: [d(""), d("bin"), f("bin/ldd", "#!/bin/sh\n", 0o555), d("lib"), f("lib/libc.so", "libc")],
        GTK: [d(""), d("include"), f("include/gtk++.h", "gtk"), d("lib"), l("lib/libc", STORE + GLIBC + "/lib")],
        APP: [d(""), d("bin"), f("bin/app", "app", 0o555), l("ldd", STORE + GLIBC + "/bin/ldd"), d("share"),
              d("share/empty"), f("share/" + "n" * 120, "long"), f("share/é", "accent"),
              d("share/a"), f("share/a/c", "c"), f("share/a-b", "b")],
        ROOT: [d(""), d("bin"), l("bin/app", STORE + APP + "/bin/app"), d("etc"), f("etc/passwd", "root:0\n"),
               d("nix", 0o755), d("nix/store", 0o755), d("nix/store/.links", 0o755)],
        MORE: [d(""), d("etc"), f("etc/group", "root\n"), f("etc/passwd", "ROOT:0\n"), d("tmp", 0o555)],
        SUDO: [d(""), d("bin"), f("bin/sudo", "sudo", 0o555), l("bin/sudoedit", "sudo"), d("libexec"),
               f("libexec/helper", "x", 0o555)],
        FILE: [f("", "key = value\n")],
        LINK: [l("", STORE + APP)],
        BASE: dir_transport(),
        CUSTOM: customisation(),
        ARCHIVE: [f("", archive)],
        ARCHIVE_GZ: [f("", gzip.compress(archive, mtime=0))],
    }


def write(base, entries):
    for entry in entries:
        path = os.path.join(STORE, base, entry["name"]).rstrip("/")
        if entry["kind"] == "directory":
            os.mkdir(path)
        elif entry["kind"] == "link":
            os.symlink(entry["target"], path)
        else:
            with open(path, "wb") as out:
                out.write(base64.b64decode(entry["data"]))
    for entry in reversed(entries):
        if entry["kind"] != "link":
            path = os.path.join(STORE, base, entry["name"]).rstrip("/")
            os.chmod(path, entry["mode"])


REFERENCES = {GTK: [GLIBC], APP: [GLIBC, GTK], ROOT: [APP], LINK: [APP], SUDO: [GLIBC]}


def run(*arguments):
    subprocess.run(arguments, check=True, stderr=subprocess.DEVNULL)


class Nix2container:
    def __init__(self, program, config_digest, folder):
        self.program, self.config_digest, self.folder = program, config_digest, folder
        self.images = {}

    def json(self, name, value):
        path = os.path.join(self.folder, name)
        with open(path, "w") as out:
            json.dump(value, out)
        return path

    def layers(self, name, bases, parents=(), rewrites=(), perms=(), history=None, most=1, tars=None, ignore=None):
        graph = [{"path": STORE + base, "narSize": 100, "narHash": "sha256:" + "0" * 52,
                  "references": sorted(STORE + other for other in REFERENCES.get(base, []) if other in bases)}
                 for base in sorted(bases)]
        out = os.path.join(self.folder, name + ".layers.json")
        command = "layers-from-reproducible-storepaths" if tars is None else "layers-from-non-reproducible-storepaths"
        arguments = [self.program, command, out, self.json(name + ".graph.json", graph), "--max-layers", str(most)]
        if rewrites:
            rules = [{"path": STORE + base, "regex": regex, "repl": repl} for base, regex, repl in rewrites]
            arguments += ["--rewrites", self.json(name + ".rewrites.json", rules)]
        if perms:
            arguments += ["--perms", self.json(name + ".perms.json", perms)]
        if history:
            arguments += ["--history", self.json(name + ".history.json", history)]
        if tars:
            arguments += ["--tar-directory", tars]
        if ignore:
            arguments += ["--ignore", STORE + ignore]
        run(*arguments, *parents)
        return out

    def image(self, name, layers, config=None, created="0001-01-01T00:00:00Z", base=None, arch="amd64"):
        out = os.path.join(self.folder, name + ".json")
        arguments = [self.program, "image", out, "--arch", arch, "--created", created]
        if base:
            arguments += ["--from-image", base]
        run(*arguments, self.json(name + ".config.json", config or {}), *layers)
        digest = subprocess.run([self.config_digest, out], check=True, capture_output=True, text=True).stdout
        with open(out) as image:
            self.images[name] = {"image": json.load(image), "config": digest.strip()}


def to_root(base):
    return (base, "^" + STORE + base, "")


def perm(base, regex, mode="", uid=0, gid=0, uname="", gname=""):
    return {"path": STORE + base, "regex": regex, "mode": mode, "uid": uid, "gid": gid, "uname": uname, "gname": gname}


def nix2container(program, config_digest):
    with tempfile.TemporaryDirectory() as folder:
        n = Nix2container(program, config_digest, folder)
        everything = [GLIBC, GTK, APP, FILE, LINK]
        n.image("plain", [n.layers("plain", everything)])
        n.image("popular", [n.layers("popular", everything, most=3)])
        n.image("one-each", [n.layers("one-each", everything, most=0)])
        n.image("to-root", [n.layers("to-root", [APP, GLIBC, GTK, ROOT, MORE], rewrites=[to_root(ROOT), to_root(MORE)])])
        n.image("file-and-link-moved", [n.layers("moved", [FILE, LINK], rewrites=[
            (FILE, "^" + STORE + FILE, "/etc/file.conf"), (LINK, "^" + STORE + LINK, "/current")])])
        n.image("perms", [n.layers("perms", [GLIBC, SUDO], perms=[
            perm(SUDO, "/bin/", "4755", 3000000, 1000, "someone", "some"),
            perm(SUDO, "sudo$", "6711", 7, 8, gname="last"),
            perm(SUDO, "helper", gid=5)])])
        n.image("to-folder", [n.layers("to-folder", [APP, GLIBC], rewrites=[(APP, "^" + STORE + APP, "/opt/app")])])
        n.image("by-regex", [n.layers("by-regex", [APP, GLIBC], rewrites=[
            (APP, "^/nix/store/[a-z0-9]{32}-([^/]+)", "/pkgs/$1"), (GLIBC, "lib(c?)", "x${1}y")])])
        low = n.layers("low", [GLIBC], history={"created_by": "low", "author": "me", "comment": "<libc>",
                                                "created": "2024-01-02T03:04:05.600+01:00"})
        middle = n.layers("middle", [GLIBC, GTK], parents=[low], history={"created_by": "middle"})
        n.image("nested", [low, middle, n.layers("nested", [GLIBC, GTK, APP], parents=[low, middle])])
        os.mkdir(STORE + TARS)
        tars = n.layers("tars", [FILE, LINK], tars=STORE + TARS)
        n.image("not-reproducible", [tars])
        base = os.path.join(folder, "base.json")
        run(program, "image-from-dir", base, STORE + BASE)
        with open(base) as image:
            n.images["only-base"] = {"image": json.load(image), "config": ""}
        n.image("on-base", [n.layers("on-base", [FILE])], base=base)
        n.image("config", [n.layers("config", [FILE])], created="2024-05-06T07:08:09Z", config={
            "entrypoint": ["/a<b>&c"], "Cmd": ["x\u2028y"], "Env": ["A=1", "é=ü"], "Labels": {"b": "1", "a": "2"},
            "ExposedPorts": {"80/tcp": {}, "53/udp": {}}, "Volumes": {"/data": {}}, "User": "1:2",
            "WorkingDir": "/w", "StopSignal": "SIGINT", "Healthcheck": {"Test": ["CMD", "x"]}})
        n.image("nothing", [self_empty(n)])
        return n.images


def self_empty(n):
    return n.json("empty.layers.json", [])


def docker_tools(script):
    images = {}

    def conf(name, **changes):
        value = {
            "architecture": "amd64", "os": "linux", "config": {"Cmd": [STORE + APP + "/bin/app"]},
            "created": "1970-01-01T00:00:01+00:00", "mtime": "1970-01-01T00:00:01+00:00",
            "uid": "0", "gid": "0", "uname": "root", "gname": "root", "store_dir": "/nix/store",
            "from_image": None, "store_layers": [[STORE + GLIBC], [STORE + GTK, STORE + APP, STORE + FILE]],
            "customisation_layer": STORE + CUSTOM, "repo_tag": "web:1",
        } | changes
        with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
            json.dump(value, file)
            file.flush()
            out = subprocess.run([sys.executable, script, file.name], check=True, capture_output=True).stdout
        with tarfile.open(fileobj=io.BytesIO(out)) as archive:
            manifest = json.load(archive.extractfile("manifest.json"))[0]
            layers = [hexdigest(archive.extractfile(name).read()) for name in manifest["Layers"]]
        images[name] = {"conf": value, "config": manifest["Config"].removesuffix(".json"), "layers": layers}

    conf("plain")
    conf("owner", uid="1000", gid="3000000", uname="user", gname="users", mtime="2024-01-02T03:04:05+00:00",
         created="2024-01-02T03:04:05.5+02:00")
    conf("links", store_layers=[[STORE + LINK, STORE + APP]], config={
        "Env": ["A=1", "B=é😀"], "Labels": {}, "Volumes": None, "Healthcheck": {"Interval": 1.5, "Test": []}})
    conf("on-base", from_image=STORE + ARCHIVE, config={"Env": ["BOTH=own", "NEW=1"], "Entrypoint": ["/x"]})
    conf("on-compressed-base", from_image=STORE + ARCHIVE_GZ)
    conf("no-config", config=None, store_layers=[])
    return images


def main():
    program, config_digest, script = sys.argv[1:]
    store = paths()
    for base, entries in store.items():
        write(base, entries)
    images = nix2container(program, config_digest)
    store[TARS] = [d("")] + [f(name, pathlib.Path(STORE, TARS, name).read_bytes())
                             for name in sorted(os.listdir(STORE + TARS))]
    for name, value in [("store", store), ("nix2container", images), ("docker-tools", docker_tools(script))]:
        (HERE / (name + ".json")).write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n")


main()
