"""One proxy before two relays, and what the scenarios need of them."""

import asyncio

from processes import CheckError, Ports, Proxy, Relay, wait_for

from clients import TENANT, TOPIC, Clients

# The idle timeout of the proxies that show what pings are for, in seconds.
SHORT = 2


class Bench:
    """One proxy before two relays, and what the scenarios need."""

    def __init__(self, kind, directory, keys, running):
        self.kind = kind
        self.clients = Clients(keys)
        free = Ports()
        ports = {name: free.free() for name in ("client", "ingest", "ops")}
        file = "sidewire.toml"
        if kind == "haproxy-passthrough":
            file = "sidewire-passthrough.toml"

        def relay(address, **options):
            started = Relay(file, address, ports, keys, directory / address, **options)
            running.callback(started.end)
            return started

        def proxy(name, relays, **options):
            port = free.free()
            started = Proxy(kind, relays, ports, keys, directory / name, port, **options)
            running.callback(started.process.end)
            return started

        one, two, pinging, absent = "127.0.0.5", "127.0.0.6", "127.0.0.7", "127.0.0.8"
        self.relays = [relay(one), relay(two)]
        self.pinging_relay = relay(pinging, ping_interval="500ms")
        for started in [*self.relays, self.pinging_relay]:
            started.wait_until_ready()
        # With the timeouts of the file.
        self.proxy = proxy("proxy", (one, two))
        # With short timeouts, before the same relays, which ping every 30 s.
        self.impatient = proxy("impatient", (one, two), timeout=SHORT)
        # With short timeouts, before one relay that pings every 500 ms, and none.
        self.pinged = proxy("pinged", (pinging, absent), timeout=SHORT)
        for started in (self.proxy, self.impatient, self.pinged):
            started.wait_until_ready()
        self.epochs = [it.post(TENANT, "room:0", {})["position"]["epoch"] for it in self.relays]

    async def post(self, relay, data, topic=TOPIC, tenant=TENANT):
        return await asyncio.to_thread(relay.post, tenant, topic, data)

    async def post_to_both(self, data):
        await asyncio.gather(*(self.post(relay, data) for relay in self.relays))

    async def until(self, what, condition):
        return await asyncio.to_thread(wait_for, what, condition)

    def relay_of(self, epoch):
        return self.relays[self.epochs.index(epoch)]


def require(condition, message):
    if not condition:
        raise CheckError(message)
