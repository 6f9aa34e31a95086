"""Names of what the package installs."""

SERVICE = "sidewire.service"
SOCKETS = ["sidewire.socket", "sidewire-ingest.socket"]
CONFIG = "/etc/sidewire/sidewire.toml"
SECRET = "/etc/sidewire/keys/jwt.secret"
INGEST_KEY = "/etc/sidewire/keys/ingest.key"


def with_unix_sockets(config):
    """Returns the packaged config with Unix sockets for backends and operators."""
    for name, port in (("ingest", 3001), ("ops", 3002)):
        address = f'listen = "127.0.0.1:{port}"'
        if config.count(address) != 1:
            raise ValueError(f"{CONFIG} does not have `{address}` once")
        config = config.replace(address, f'listen = "unix:/run/sidewire/{name}.sock"')
    return config
