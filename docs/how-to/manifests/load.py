import os
import threading
import time
from collections import Counter

import httpx

ADDRESS = os.environ.get("ADDRESS", "http://shop")
SECONDS = float(os.environ.get("SECONDS", "60"))
seen = Counter()


def ask():
    until = time.monotonic() + SECONDS
    with httpx.Client() as client:
        while time.monotonic() < until:
            try:
                seen[client.get(ADDRESS).status_code] += 1
            except httpx.ConnectError:
                seen["refused, sent again"] += 1  # nothing was sent: another pod gets it
            except httpx.HTTPError as error:
                seen[repr(error)] += 1
            time.sleep(0.01)


threads = [threading.Thread(target=ask) for _ in range(20)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
fine = seen.pop(200, 0)
again = seen.pop("refused, sent again", 0)
print(f"{fine} answered, {again} refused and sent again, {sum(seen.values())} failed {dict(seen)}")
