//! SIGTERM as an event that can be polled beside sockets. A second thread sleeps until the
//! signal arrives; it does nothing else.

use std::{os::unix::net::UnixStream, thread};

use tokio::{
    runtime::Builder,
    signal::unix::{SignalKind, signal},
};

/// Returns a stream that ends at SIGTERM.
pub(crate) fn at_sigterm() -> UnixStream {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let mut terminate = {
        let _context = runtime.enter();
        signal(SignalKind::terminate()).unwrap()
    };
    let (ours, theirs) = UnixStream::pair().unwrap();
    thread::spawn(move || {
        runtime.block_on(terminate.recv());
        drop(theirs);
    });
    ours
}
