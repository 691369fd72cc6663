"""One end of a link between two network namespaces: packets of a TUN device, delayed and dropped by a seed.

Usage: link.py OWN_ADDRESS PEER_ADDRESS DIR LOSS DELAY_MS JITTER_MS SEED
"""

import fcntl
import heapq
import json
import os
import random
import select
import signal
import socket
import struct
import subprocess
import sys
import time

# <linux/if_tun.h>
TUNSETIFF = 0x400454CA
IFF_TUN = 0x0001
IFF_NO_PI = 0x1000

own, peer, directory = sys.argv[1:4]
loss, delay, jitter = float(sys.argv[4]), float(sys.argv[5]) / 1000, float(sys.argv[6]) / 1000
chance = random.Random(f"{sys.argv[7]} {own}")

tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH22x", b"link0", IFF_TUN | IFF_NO_PI))
for command in (f"address add {own}/30 dev link0", "link set link0 up"):
    subprocess.run(["ip", *command.split()], check=True)

wire = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
wire.setblocking(False)
wire.bind(f"{directory}/{own}.link")

counts = {"packets": 0, "lost": 0, "reordered": 0}
underway = []
newest = 0


def finish(*_):
    print(json.dumps(counts), flush=True)
    sys.exit(0)


signal.signal(signal.SIGTERM, finish)
print("up", flush=True)
while True:
    now = time.monotonic()
    while underway and underway[0][0] <= now:
        _, number, packet = heapq.heappop(underway)
        counts["reordered"] += number < newest
        newest = max(newest, number)
        try:
            wire.sendto(packet, f"{directory}/{peer}.link")
        except (BlockingIOError, ConnectionRefusedError, FileNotFoundError):
            counts["lost"] += 1
    wait = max(0, underway[0][0] - now) if underway else None
    ready, _, _ = select.select([tun, wire], [], [], wait)
    if tun in ready:
        packet = os.read(tun, 65536)
        counts["packets"] += 1
        if chance.random() < loss:
            counts["lost"] += 1
        else:
            due = time.monotonic() + delay + chance.random() * jitter
            heapq.heappush(underway, (due, counts["packets"], packet))
    if wire in ready:
        try:
            os.write(tun, wire.recv(65536))
        except OSError:
            # The device is down, or its queue is full.
            counts["lost"] += 1
