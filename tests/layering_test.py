#!/usr/bin/env python3
"""The dependency rule of ARCHITECTURE.md, enforced: which folder may include which.

Run from anywhere; reads the files that git tracks (or, outside a checkout, every source file).
"""
import os
import pathlib
import re
import sys
import unittest

ROOT = pathlib.Path(__file__).resolve().parent.parent
INCLUDE = re.compile(r'^\s*#\s*include\s*[<"]([^>"]+)[>"]', re.M)
PROTO = ("switchyard/v1/", "google/protobuf/", "google/rpc/", "grpc/health/",
         "grpc/reflection/")

# Folder -> folders of ours it may include (itself is always allowed). The longest match counts.
ALLOWED = {
    "common": [],
    "kernels": [],
    "rpc": [],
    "worker/io": ["common"],
    "worker/device": ["common"],
    "worker/tokenizer": ["common"],
    "worker/model": ["worker/device", "worker/io", "kernels", "common"],
    "worker/engine": ["worker/model", "worker/device", "kernels", "common"],
    "worker": ["worker/engine", "worker/model", "worker/io", "worker/device", "worker/tokenizer",
               "kernels", "rpc", "common"],
    "supervisor": ["rpc", "common"],
    "cli": ["common"],
    "gateway": ["common"],
    "bench": ["worker", "worker/engine", "worker/model", "worker/io", "worker/device",
              "worker/tokenizer", "kernels", "common"],
}
# Protobuf stops at the edge.
MAY_USE_PROTO = {"worker", "supervisor", "cli", "gateway", "bench"}
# Heavy headers, and the only files that may include them.
HEAVY = {
    "spdlog/": re.compile(r"^common/log\.cc$"),
    "grpcpp/": re.compile(r"(^rpc/[a-z_]+|(server|service|client|main|serve|connection|sink)[a-z_]*)"
                          r"\.(h|cc)$"),
    "boost/asio": re.compile(r"^supervisor/(event_loop|accept_loop)[a-z_]*\.(h|cc)$"),
}
# The kernels know nothing but their device's libraries.
KERNEL_FORBIDDEN = ("absl/", "nlohmann/", "google/", "grpcpp/")


def folder_of(path):
    """The longest entry of ALLOWED that `path` lies in, or None."""
    best = None
    for folder in ALLOWED:
        if path.startswith(folder + "/") and (best is None or len(folder) > len(best)):
            best = folder
    return best


def violations(path, text):
    """What is wrong with one file's includes."""
    here = folder_of(path)
    for include in INCLUDE.findall(text):
        there = folder_of(include)
        if there is not None and there != here and there not in ALLOWED[here]:
            yield f"{path} includes {include}: {here} may not include {there}"
        if include.startswith(PROTO) and here not in MAY_USE_PROTO:
            yield f"{path} includes {include}: protobuf stops at the edge"
        if here == "kernels" and include.startswith(KERNEL_FORBIDDEN):
            yield f"{path} includes {include}: kernels know their device's libraries only"
        for prefix, allowed in HEAVY.items():
            if include.startswith(prefix) and not allowed.search(path):
                yield f"{path} includes {include}: only {allowed.pattern} may (build time)"


class Layering(unittest.TestCase):
    def test_every_source_file(self):
        files = [p for folder in {f.split("/")[0] for f in ALLOWED}
                 for p in (ROOT / folder).rglob("*") if p.suffix in (".h", ".cc", ".cu", ".cuh")]
        self.assertGreater(len(files), 50)
        found = [v for p in files
                 for v in violations(p.relative_to(ROOT).as_posix(), p.read_text())]
        self.assertEqual(found, [], "\n" + "\n".join(found))

    def test_every_source_file_is_built(self):
        """A test that no target names passes for ever."""
        built = set()
        for path in ROOT.rglob("CMakeLists.txt"):
            if path.relative_to(ROOT).parts[0] == "build":
                continue
            text = re.sub(r"#.*", "", path.read_text()).replace("${CMAKE_SOURCE_DIR}", str(ROOT))
            built |= {pathlib.Path(os.path.normpath(path.parent / token))
                      for token in re.findall(r"[^\s,()<>\"]+\.(?:cc|cu)\b", text)}
        folders = {f.split("/")[0] for f in ALLOWED} | {"tests"}
        sources = [p for folder in folders for p in (ROOT / folder).rglob("*")
                   if p.suffix in (".cc", ".cu")]
        self.assertGreater(len(sources), 200)
        self.assertEqual([str(p) for p in sources if p not in built], [])

    def test_the_test_can_fail(self):
        for path, line in [
            ("supervisor/router.cc", '#include "worker/engine/engine.h"'),
            ("worker/engine/engine.cc", '#include "switchyard/v1/worker.pb.h"'),
            ("worker/tokenizer/bpe.cc", '#include "worker/model/image.h"'),
            ("kernels/cpu/linear.cc", '#include "absl/status/status.h"'),
            ("cli/status.cc", '#include "supervisor/router.h"'),
            ("worker/plan.cc", '#include <spdlog/spdlog.h>'),
        ]:
            self.assertEqual(len(list(violations(path, line))), 1, path)


if __name__ == "__main__":
    sys.exit(unittest.main())
