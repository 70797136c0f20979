"""What torch's TCPStore offers but waiting for others (store_meeting.py), at the port that is named."""

import sys
from datetime import timedelta

from torch.distributed import DistStoreError, PrefixStore, QueueEmptyError, TCPStore


def connect() -> TCPStore:
    return TCPStore("127.0.0.1", int(sys.argv[1]), is_master=False, timeout=timedelta(seconds=30))


a, b = connect(), connect()

a.set("k", "v")
assert b.get("k") == b"v"
assert b.add("count", 3) == 3
assert a.add("count", 4) == 7
a.append("k", "w")
assert b.get("k") == b"vw"
assert b.check(["k", "count"])
assert not b.check(["k", "none"])
assert a.compare_set("k", "vw", "x") == b"x"
assert a.compare_set("k", "vw", "y") == b"x"
a.multi_set(["m1", "m2"], ["1", "2"])
assert b.multi_get(["m2", "m1"]) == [b"2", b"1"]
assert {key.lstrip("/") for key in a.list_keys()} >= {"k", "m1", "m2"}
before = a.num_keys()
assert a.delete_key("m1")
assert not a.delete_key("m1")
assert b.num_keys() == before - 1

a.queue_push("q", "one")
a.queue_push("q", "two")
assert a.queue_len("q") == 2, "pushes have no answer: only the same connection is sure to come after them"
assert b.queue_len("q") == 2
assert b.queue_pop("q") == b"one"
assert b.queue_pop("q") == b"two"
try:
    b.queue_pop("q", block=False)
    raise AssertionError("an empty queue had something")
except QueueEmptyError:
    pass

try:
    b.wait(["never"], timedelta(milliseconds=50))
    raise AssertionError("what never came was there")
except DistStoreError:
    pass
assert b.get("k") == b"x", "a wait that timed out leaves the connection as it was"

big = "z" * (4 * 1024 * 1024)
a.set("big", big)
assert b.get("big") == big.encode()
prefixed = PrefixStore("p", a)
prefixed.set("k", "inside")
assert PrefixStore("p", b).get("k") == b"inside"
assert b.get("k") == b"x"
c = a.clone()
c.set("cloned", "1")
assert b.get("cloned") == b"1"
print("all is well")
