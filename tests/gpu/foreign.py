#!/usr/bin/env python3
"""Another process takes the GPU's memory and gives it back, while the demonstration models serve.

    LD_LIBRARY_PATH=BUNDLE/lib foreign.py --bin BUNDLE --models models.d [--times 20]

Each time it takes all but a random part of what is free. Leases must follow within ten seconds, every
request must be answered as before or refused with RESOURCE_EXHAUSTED, and nothing may crash. Once all is
given back, all models must answer again.
"""
import argparse
import ctypes
import random
import subprocess
import sys
import time

import serve

MIB = 1 << 20


def taker():
    """The other process: takes all but N MiB for a line "N", gives all back for an empty one."""
    cuda = ctypes.CDLL("libcuda.so.1")

    def call(name, *args):
        code = getattr(cuda, name)(*args)
        if code != 0:
            raise SystemExit(f"{name}: error {code}")

    device, context, held = ctypes.c_int(), ctypes.c_void_p(), ctypes.c_uint64()
    call("cuInit", 0)
    call("cuDeviceGet", ctypes.byref(device), 0)
    call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
    call("cuCtxSetCurrent", context)
    for line in sys.stdin:
        if held.value:
            call("cuMemFree_v2", held)
            held.value = 0
        taken = 0
        if line.strip():
            free, total = ctypes.c_size_t(), ctypes.c_size_t()
            call("cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total))
            taken = max(free.value - int(line) * MIB, 2 * MIB)
            call("cuMemAlloc_v2", ctypes.byref(held), ctypes.c_size_t(taken))
        print(taken, flush=True)


def tell(process, line):
    process.stdin.write(line + "\n")
    process.stdin.flush()
    return int(process.stdout.readline())


def follows(server, seen):
    """Whether others' memory is seen as `seen` says, and leases fit beside it; and how long that took."""
    start = time.time()
    while time.time() - start < 10:
        device = server.status()["devices"][0]
        room = device["capacity_bytes"] - device["reserve_bytes"] - device["foreign_bytes"]
        if seen(device["foreign_bytes"]) and device["leased_bytes"] <= max(room, 0):
            return True, time.time() - start
    print("   ", device)
    return False, time.time() - start


def ask(server, expected):
    """All models at once: how many answered as expected, how many were refused."""
    asked = {name: subprocess.Popen(
        [server.cli, "--address", server.address, "--json", "generate", "--model", name, serve.PROMPTS[name],
         "--max-tokens", "8", "--temperature", "0", "--ignore-eos"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for name in expected}
    answered = refused = 0
    for name, process in asked.items():
        out, error = process.communicate(timeout=120)
        if process.returncode == 0:
            answered += serve.json.loads(out)["token_ids"] == expected[name]
        elif "RESOURCE_EXHAUSTED" in error:
            refused += 1
        else:
            print(f"   {name}: {error.strip()}")
    return answered, refused


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bin", required=True)
    parser.add_argument("--models", required=True)
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    serve.CPU = False
    other = subprocess.Popen([sys.executable, __file__, "--taker"], stdin=subprocess.PIPE,
                             stdout=subprocess.PIPE, text=True)
    tell(other, "")
    server = serve.Server(args, "0")
    expected = {name: server.generate(name)["token_ids"][:8] for name in serve.PROMPTS}
    draw, answered, refused, slowest = random.Random(args.seed), 0, 0, 0.0
    for i in range(args.times):
        taken = tell(other, str(draw.randrange(0, 1500)))
        good, seconds = follows(server, lambda foreign: foreign > taken - 64 * MIB)
        serve.check(good, f"{taken / MIB:.0f} MiB taken: leases follow in {seconds:.1f} s")
        here = ask(server, expected)
        serve.check(sum(here) == len(expected), f"{here[0]} answered, {here[1]} refused")
        tell(other, "")
        again, back = follows(server, lambda foreign: foreign < taken // 2)
        serve.check(again, f"given back: seen in {back:.1f} s")
        answered, refused, slowest = answered + here[0], refused + here[1], max(slowest, seconds)
    here = ask(server, expected)
    serve.check(here[0] == len(expected), f"at the end {here[0]} of {len(expected)} answer as before")
    print(f"   {args.times} times: {answered} answered, {refused} refused, slowest {slowest:.1f} s")
    failed = [m["name"] for m in server.status()["models"] if m["state"] == "failed"]
    serve.check(not failed, f"no model has failed: {failed}")
    code, log = server.stop()
    serve.check(code == 0, f"clean stop, exit status {code}")
    other.stdin.close()
    serve.tell_log(log)
    return 1 if serve.FAILED else 0


if __name__ == "__main__":
    if sys.argv[1:] == ["--taker"]:
        taker()
    else:
        sys.exit(main())
