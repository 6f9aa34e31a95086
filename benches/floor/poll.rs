//! epoll, level-triggered: a socket is registered once, and modified only when it could not
//! take what was written.

use std::os::fd::{AsFd, OwnedFd, RawFd};

use rustix::{
    buffer::spare_capacity,
    event::{
        Timespec,
        epoll::{self, CreateFlags, Event, EventData, EventFlags},
    },
};

/// The socket that an epoll event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    ClientListener,
    IngestListener,
    StatsListener,
    Stop,
    Client(RawFd),
    Publisher(RawFd),
}

impl Source {
    /// The kind in the upper half, the descriptor in the lower.
    fn to_data(self) -> EventData {
        let (kind, fd) = match self {
            Self::ClientListener => (0, 0),
            Self::IngestListener => (1, 0),
            Self::StatsListener => (2, 0),
            Self::Stop => (3, 0),
            Self::Client(fd) => (4, fd),
            Self::Publisher(fd) => (5, fd),
        };
        EventData::new_u64(kind << 32 | u64::from(fd.cast_unsigned()))
    }
}

/// Returns the source of an event, and true if its socket can be written to again.
pub(crate) fn source_of(event: Event) -> (Source, bool) {
    // The event is packed, so its fields cannot be borrowed.
    let Event { flags, data } = event;
    let data = data.u64();
    let fd = RawFd::try_from(data & u64::from(u32::MAX)).expect("as it was registered");
    let source = match data >> 32 {
        0 => Source::ClientListener,
        1 => Source::IngestListener,
        2 => Source::StatsListener,
        3 => Source::Stop,
        4 => Source::Client(fd),
        _ => Source::Publisher(fd),
    };
    (source, flags.contains(EventFlags::OUT))
}

pub(crate) struct Poll {
    epoll: OwnedFd,
}

impl Poll {
    pub(crate) fn new() -> Self {
        let epoll = epoll::create(CreateFlags::CLOEXEC).unwrap();
        Self { epoll }
    }

    /// Reports from now on when `socket` can be read, as `source`, until it is closed.
    pub(crate) fn add(&self, socket: impl AsFd, source: Source) {
        epoll::add(&self.epoll, socket, source.to_data(), EventFlags::IN).unwrap();
    }

    /// Also reports when the full socket can be written to.
    pub(crate) fn await_room(&self, socket: impl AsFd, source: Source) {
        let flags = EventFlags::IN | EventFlags::OUT;
        epoll::modify(&self.epoll, socket, source.to_data(), flags).unwrap();
    }

    pub(crate) fn no_more_await_room(&self, socket: impl AsFd, source: Source) {
        epoll::modify(&self.epoll, socket, source.to_data(), EventFlags::IN).unwrap();
    }

    /// Fills `ready` with up to its capacity of events. Blocks until the first one arrives,
    /// unless `busy`.
    pub(crate) fn wait(&self, ready: &mut Vec<Event>, busy: bool) {
        let at_once = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let timeout = busy.then_some(&at_once);
        match epoll::wait(&self.epoll, spare_capacity(ready), timeout) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => panic!("cannot wait: {error}"),
        }
    }
}
