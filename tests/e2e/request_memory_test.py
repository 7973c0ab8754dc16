"""Requests take a bounded amount of memory, in the supervisor and in workers: real processes."""

import threading
import unittest

from harness import Supervisor, fake, grpc, inference, peak_bytes, wait_for

Code = grpc.StatusCode
MIB = 1 << 20
BUDGET = 64 * MIB
ARRIVING = 512 * MIB  # kMaxArrivingBytes


class Herd:
    """Sends one request many times at once over a few connections: counts the codes of those that
    have ended."""

    def __init__(self, test, s, request, count, connections=4):
        self.bytes = request.SerializeToString()
        self.codes = {}
        self.told_to_retry = 0
        self._lock = threading.Lock()
        self._calls = []
        channels = [grpc.insecure_channel(s.address, options=[
            ("grpc.use_local_subchannel_pool", 1), ("grpc.max_send_message_length", -1)])
            for _ in range(connections)]
        for channel in channels:
            test.addCleanup(channel.close)
        for n in range(count):
            call = channels[n % connections].unary_stream("/switchyard.v1.Inference/Generate")(
                self.bytes, timeout=120)
            self._calls.append(call)
            threading.Thread(target=self._read, args=(call,), daemon=True).start()

    def _read(self, call):
        try:
            for _ in call:
                pass
        except grpc.RpcError:
            pass
        with self._lock:
            self.codes[call.code()] = self.codes.get(call.code(), 0) + 1
            self.told_to_retry += any(b"RetryInfo" in value for key, value in
                                      call.trailing_metadata() if key == "grpc-status-details-bin")

    def ended(self):
        with self._lock:
            return sum(self.codes.values())

    def cancel(self):
        for call in self._calls:
            call.cancel()


class RequestMemoryTest(unittest.TestCase):
    ARGS = ["--request-memory", "64MiB"]

    def test_what_waits_for_a_worker(self):
        # A worker that does not answer yet: ids are four times as large as what was sent of them.
        with fake(fault="alpha:start:hang", args=self.ARGS) as s:
            request = s.request("alpha", ids=inference.TokenIds(ids=[1] * (4 * MIB)))
            before = peak_bytes(s.process.pid)
            herd = Herd(self, s, request, 40)
            wait_for(lambda: s.model("alpha").queued + herd.ended() == 40, 60, "all to arrive")
            # 48 MiB are for such requests, of which one takes 16, or twice that as it has grown.
            queued = s.model("alpha").queued
            self.assertIn(queued, (1, 2, 3))
            self.assertEqual(herd.codes, {Code.RESOURCE_EXHAUSTED: 40 - queued})
            self.assertEqual(herd.told_to_retry, 40 - queued)
            self.assertLess(peak_bytes(s.process.pid) - before, 4 * BUDGET)
            # A small one still finds room, and what is cancelled makes some.
            small = s.inference.Generate(s.request("alpha"), timeout=60)
            wait_for(lambda: s.model("alpha").queued == queued + 1, what="a small one to be queued")
            herd.cancel()
            wait_for(lambda: s.model("alpha").queued == 1, what="the others to go")
            again = Herd(self, s, request, 1)
            wait_for(lambda: s.model("alpha").queued == 2, what="one in their place")
            again.cancel()
            small.cancel()

    def test_the_least_serves_small_requests(self):
        with fake(args=["--request-memory", "256KiB"]) as s:
            self.assertEqual(len(s.generate("alpha")[1]), 8)
            self.assertEqual(len(s.generate("alpha", "x" * 60_000)[1]), 8)

    def test_what_a_worker_looks_at(self):
        with Supervisor(args=self.ARGS) as s:
            expected = s.generate("austen")[1]
            worker = s.model("austen").worker_pid
            before = [peak_bytes(pid) for pid in (s.process.pid, worker)]
            request = s.request("austen", "word " * (15 * MIB // 5))
            herd = Herd(self, s, request, 60)
            wait_for(lambda: herd.ended() == 60, 60, "all to end")
            self.assertEqual(set(herd.codes), {Code.RESOURCE_EXHAUSTED, Code.INVALID_ARGUMENT})
            self.assertEqual(s.model("austen").restarts, 0)
            grown = [peak_bytes(pid) - was for pid, was in zip((s.process.pid, worker), before)]
            print(f"grown: {[g // MIB for g in grown]} MiB, {herd.codes}", flush=True)
            # What has not arrived whole is gRPC's, of which it may have so much at a time.
            self.assertLess(grown[0], ARRIVING + 2 * BUDGET)
            self.assertLess(grown[1], 6 * BUDGET)
            self.assertEqual(s.generate("austen")[1], expected)


if __name__ == "__main__":
    unittest.main(verbosity=2)
