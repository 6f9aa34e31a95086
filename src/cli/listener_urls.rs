//! The URLs for connecting from this machine to a relay with a given configuration.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::CommandFailure;
use crate::config::{Config, ListenAddress};

/// The path of the WebSocket endpoint.
const WEBSOCKET_PATH: &str = "/ws";

/// Returns the URL of the client listener.
///
/// # Errors
///
/// When the relay picks the port itself.
pub(super) fn client_url(config: &Config) -> Result<String, CommandFailure> {
    let scheme = if config.client.tls.is_some() {
        "wss"
    } else {
        "ws"
    };
    let address = reachable_address("client.listen", config.client.listen, "--url")?;
    Ok(format!("{scheme}://{address}{WEBSOCKET_PATH}"))
}

/// Returns the URL of the ingest listener; `unix:PATH` for a Unix socket.
///
/// # Errors
///
/// When the relay picks the port itself.
pub(super) fn ingest_url(config: &Config) -> Result<String, CommandFailure> {
    http_url("ingest.listen", &config.ingest.listen, "--url")
}

/// Returns the URL of the ops listener; `unix:PATH` for a Unix socket.
///
/// # Errors
///
/// When the relay picks the port itself.
pub(super) fn ops_url(config: &Config) -> Result<String, CommandFailure> {
    http_url("ops.listen", &config.ops.listen, "--ops-url")
}

fn http_url(key: &str, listen: &ListenAddress, flag: &str) -> Result<String, CommandFailure> {
    match listen {
        ListenAddress::Tcp(address) => {
            let address = reachable_address(key, *address, flag)?;
            Ok(format!("http://{address}"))
        }
        socket @ ListenAddress::Unix(_) => Ok(socket.to_string()),
    }
}

/// Returns the address to connect to: the loopback address for a listener on all addresses. `flag`
/// is the one with which the user can give the URL.
fn reachable_address(
    key: &str,
    listen: SocketAddr,
    flag: &str,
) -> Result<SocketAddr, CommandFailure> {
    if listen.port() == 0 {
        return Err(CommandFailure::new(format!(
            "{key} has port 0, so the relay picks a free port when it starts; give the URL with {flag} (the relay logs its addresses)"
        )));
    }
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    Ok(SocketAddr::new(ip, listen.port()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::TlsFiles;

    #[test]
    fn without_a_config_file_the_urls_are_the_defaults_on_loopback() {
        let config = Config::default();
        assert_eq!(client_url(&config).unwrap(), "ws://127.0.0.1:3000/ws");
        assert_eq!(ingest_url(&config).unwrap(), "http://127.0.0.1:3001");
    }

    #[test]
    fn the_urls_match_the_configured_listeners() {
        let mut config = Config::default();
        for (listen, host) in [
            ("0.0.0.0:4000", "127.0.0.1:4000"),
            ("[::]:4000", "[::1]:4000"),
            ("192.0.2.7:4000", "192.0.2.7:4000"),
            ("[2001:db8::7]:4000", "[2001:db8::7]:4000"),
        ] {
            config.client.listen = listen.parse().unwrap();
            config.ingest.listen = listen.parse().unwrap();
            assert_eq!(client_url(&config).unwrap(), format!("ws://{host}/ws"));
            assert_eq!(ingest_url(&config).unwrap(), format!("http://{host}"));
        }
        config.client.tls = Some(TlsFiles {
            cert_file: "tls.crt".into(),
            key_file: "tls.key".into(),
        });
        assert!(client_url(&config).unwrap().starts_with("wss://"));
        config.ingest.listen = "unix:/run/ingest.sock".parse().unwrap();
        assert_eq!(ingest_url(&config).unwrap(), "unix:/run/ingest.sock");
    }

    #[test]
    fn port_zero_is_refused_with_the_key_and_the_url_flag() {
        let mut config = Config::default();
        config.client.listen = "127.0.0.1:0".parse().unwrap();
        config.ingest.listen = "127.0.0.1:0".parse().unwrap();
        for (url, key) in [
            (client_url(&config), "client.listen"),
            (ingest_url(&config), "ingest.listen"),
        ] {
            let failure = url.unwrap_err().to_string();
            assert!(failure.starts_with(key), "{failure}");
            assert!(failure.contains("--url"), "{failure}");
        }
    }
}
