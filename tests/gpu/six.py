#!/usr/bin/env python3
"""A hundred switches among six models of real size that are larger together than the budget.

    six.py --bin FOLDER [--device 0] [--budget 30GiB] [--switches 100] [--small]

Makes six checkpoints of random weights in $TMPDIR (52 GB, deleted afterwards), notes what each model
answers while all six are resident, then switches at random (--seed) within the budget and asks again
after every switch. Fails if an answer differs, a switch fails, or memory or descriptors grow. Needs
60 GB of host memory beside the page cache. --small: checkpoints of 0.1 GB, for a try without a GPU.
"""
import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time

import serve

SHAPES = {
    "whole-8b": "--shape llama-8b",
    "half-8b": "--shape llama-8b --layers 14",
    "some-70b": "--shape llama-70b --layers 3",
    "some-32b": "--shape qwen3-32b --layers 6",
    "llama-3b": "--shape llama-3b",
    "llama-1b": "--shape llama-1b",
}
SMALL = " --layers 2 --hidden 512 --intermediate 1024 --vocabulary 4000 --q-heads 8 --kv-heads 2 --head-dim 64"
IDS = ",".join(str(7 + 13 * i) for i in range(64))


def make(args, work):
    os.mkdir(work + "/models.d")
    for seed, (name, shape) in enumerate(SHAPES.items()):
        words = (shape.split(" --layers")[0] + SMALL if args.small else shape).split()
        subprocess.run([args.bin + "/switchyard-bench", "make-model", f"{work}/{name}", *words, "--seed",
                        str(seed)], check=True, stdout=subprocess.DEVNULL)
        with open(f"{work}/models.d/{name}.textproto", "w") as out:
            out.write(f'name: "{name}" checkpoint: "{work}/{name}" context_length: 2048 max_sequences: 4')


def answer(server, name):
    return server.run("generate", "--model", name, "--prompt-ids", IDS, "--max-tokens", 24, "--temperature", 0,
                      "--ignore-eos")[0]["token_ids"]


def descriptors(server):
    pids = [server.process.pid, *(m["worker_pid"] for m in server.status()["models"])]
    return sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in pids if pid)


def gap_now(server):
    """MiB that the driver reports beyond what is leased."""
    used = subprocess.run(["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"],
                          capture_output=True, text=True, check=True).stdout
    return int(used.split()[0]) - server.status()["devices"][0]["leased_bytes"] / 2**20


def gap(server):
    """That once it has settled, or after ten seconds; None without a GPU."""
    if serve.CPU:
        return None
    start, told = time.time(), []
    while not told or (told[-1] > 64 and time.time() - start < 10):
        told.append(gap_now(server))
    print(f"   driver less leases: {told[0]:.0f} MiB at first, {told[-1]:.0f} MiB after {time.time() - start:.2f} s")
    return told[-1]


def switches(args, server, expected):
    draw, names, seconds, wrong, before = random.Random(args.seed), list(SHAPES), [], 0, None
    last = None
    for i in range(args.switches):
        last = draw.choice([name for name in names if name != last])
        start = time.time()
        server.run("switch", last)
        seconds.append(time.time() - start)
        wrong += answer(server, last) != expected[last]
        if i + 1 == args.switches // 4:
            before = descriptors(server), gap(server)
    after = descriptors(server), gap(server)
    late = sorted(seconds[len(names):])
    serve.check(wrong == 0, f"{args.switches} switches, {wrong} answers other than without swaps")
    print(f"   median {late[len(late) // 2] * 1e3:.0f} ms, worst {late[-1] * 1e3:.0f} ms, the command's start included")
    serve.check(after[0] <= before[0] + 2, f"descriptors: {before[0]} after a quarter, {after[0]} at the end")
    if after[1] is not None:
        serve.check(max(abs(before[1]), abs(after[1])) <= 64,
                    f"driver less leases: {before[1]:.0f} MiB after a quarter, {after[1]:.0f} MiB at the end")


def resident(server):
    return [m["name"] for m in server.status()["models"] if m["state"] == "resident"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bin", required=True)
    parser.add_argument("--device", default="0")
    parser.add_argument("--budget", default="30GiB")
    parser.add_argument("--host-memory", default="60GB")
    parser.add_argument("--switches", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--small", action="store_true")
    args = parser.parse_args()
    serve.CPU = args.device.startswith("cpu")
    work = tempfile.mkdtemp()
    try:
        make(args, work)
        extra = ["--host-memory", args.host_memory]
        server = serve.Server(args, args.device, extra, work + "/models.d")
        expected = {name: answer(server, name) for name in SHAPES}
        serve.check(len(resident(server)) == len(SHAPES), "all six are resident")
        weights = sum(m["weight_bytes"] for m in server.status()["models"])
        server.stop()
        name = args.device.split("=")[0]
        print(f"-- {weights / 1e9:.1f} GB of weights in {args.budget}", flush=True)
        server = serve.Server(args, f"{name}={args.budget}", extra, work + "/models.d")
        switches(args, server, expected)
        serve.check(len(resident(server)) < len(SHAPES), f"not all are resident: {resident(server)}")
        restarts = sum(m["restarts"] for m in server.status()["models"])
        serve.check(restarts == 0, f"{restarts} workers were started again")
        code, log = server.stop()
        serve.check(code == 0, f"clean stop, exit status {code}")
        serve.tell_log(log)
    finally:
        shutil.rmtree(work)
    return 1 if serve.FAILED else 0


if __name__ == "__main__":
    sys.exit(main())
