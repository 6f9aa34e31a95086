//! Which certificate each connection gets when the certificate changes.

use std::{rc::Rc, sync::Arc};

use rcgen::generate_simple_self_signed;
use rustls::pki_types::{CertificateDer, ServerName};
use sidewire_protocol::schema::Schema;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::spawn_local,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::{
    auth::{Authenticator, IngestKeys},
    config::Config,
    connection::{serve_tcp, testing::ConnectionFixture},
    relay::LiveSettings,
    tls,
};

pub(super) struct Certified {
    cert: CertificateDer<'static>,
    pub(super) cert_pem: String,
    pub(super) live: LiveSettings,
}

/// A self-made certificate, and what a reload would make of it.
pub(super) fn certified() -> Certified {
    let made = generate_simple_self_signed(["relay.test".to_owned()]).unwrap();
    let key = tls::parse_private_key(made.signing_key.serialize_pem().as_bytes()).unwrap();
    let cert = made.cert.der().clone();
    Certified {
        cert_pem: made.cert.pem(),
        live: LiveSettings {
            subscribe_backend: None,
            inspector_key: None,
            config: Config::default(),
            schema: Arc::new(Schema::bundled().unwrap()),
            authenticator: Authenticator::Open,
            ingest_keys: IngestKeys::default(),
            tls: Some(tls::server_config(vec![cert.clone()], key).unwrap()),
            certificate: None,
        },
        cert,
    }
}

/// Connects as a client that trusts these certificates. Returns the one it is shown.
pub(super) async fn connect(
    fixture: &ConnectionFixture,
    trusted: &str,
) -> (TlsStream<TcpStream>, CertificateDer<'static>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let shard = Rc::clone(&fixture.shard);
    spawn_local(async move {
        let (stream, peer) = listener.accept().await.unwrap();
        serve_tcp(shard, stream, peer.ip(), (), ()).await;
    });
    let stream = TcpStream::connect(address).await.unwrap();
    let connector = TlsConnector::from(tls::client_config(Some(trusted.as_bytes())).unwrap());
    let name = ServerName::try_from("relay.test").unwrap();
    let stream = connector.connect(name, stream).await.unwrap();
    let shown = stream.get_ref().1.peer_certificates().unwrap()[0].clone();
    (stream, shown.into_owned())
}

#[tokio::test(flavor = "local")]
async fn a_new_certificate_is_used_for_new_connections_and_drops_none() {
    let fixture = ConnectionFixture::new();
    let (old, new) = (certified(), certified());
    let trusted = [old.cert_pem, new.cert_pem].concat();
    fixture.shard.relay.replace_settings(old.live);
    let (mut first, shown) = connect(&fixture, &trusted).await;
    assert_eq!(shown, old.cert);
    fixture.shard.relay.replace_settings(new.live);
    let (_second, shown) = connect(&fixture, &trusted).await;
    assert_eq!(shown, new.cert);

    first
        .write_all(b"GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .unwrap();
    let mut answer = [0; 12];
    first.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 404");
}
