//! Wakes the event loop more precisely than `poll` can, which waits whole milliseconds.

use std::{io, time::Instant};

use mio::{Registry, Token};

/// A timer for one wake-up at a time.
#[derive(Debug)]
pub(super) struct LoopTimer {
    #[cfg(target_os = "linux")]
    descriptor: std::os::fd::OwnedFd,
    set_for: Option<Instant>,
}

#[cfg(target_os = "linux")]
impl LoopTimer {
    pub(super) fn new(registry: &Registry, token: Token) -> io::Result<Self> {
        use std::os::fd::AsRawFd;

        use mio::{Interest, unix::SourceFd};
        use rustix::time::{TimerfdClockId, TimerfdFlags, timerfd_create};

        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let descriptor = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        let mut source = SourceFd(&descriptor.as_raw_fd());
        registry.register(&mut source, token, Interest::READABLE)?;
        Ok(Self {
            descriptor,
            set_for: None,
        })
    }

    /// Sets the time of the wake-up, in place of the previous one.
    pub(super) fn set(&mut self, now: Instant, at: Instant) -> io::Result<()> {
        use rustix::time::{Itimerspec, TimerfdTimerFlags, Timespec, timerfd_settime};

        if self.set_for == Some(at) {
            return Ok(());
        }
        let wait = at.saturating_duration_since(now);
        let zero = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let value = Timespec {
            tv_sec: i64::try_from(wait.as_secs()).unwrap_or(i64::MAX),
            // Zero would disarm the timer.
            tv_nsec: i64::from(wait.subsec_nanos().max(1)),
        };
        let once = Itimerspec {
            it_interval: zero,
            it_value: value,
        };
        timerfd_settime(&self.descriptor, TimerfdTimerFlags::empty(), &once)?;
        self.set_for = Some(at);
        Ok(())
    }
}

#[cfg(not(target_os = "linux"))]
impl Timer {
    pub(super) fn new(_: &Registry, _: Token) -> io::Result<Self> {
        Ok(Self { set_for: None })
    }

    /// Does nothing: other systems have no such timer.
    pub(super) fn set(&mut self, _: Instant, at: Instant) -> io::Result<()> {
        self.set_for = Some(at);
        Ok(())
    }
}
