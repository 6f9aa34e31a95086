//! The queue of log lines for standard error. Logging never blocks: a separate thread writes the
//! lines, and lines for which there is no room are dropped and counted.

use std::{
    io::{self, Write},
    mem,
    sync::{
        Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread::{self, ThreadId},
    time::Duration,
};

/// Maximum number of bytes that wait to be written. The batch that is being written may have as
/// many again.
const QUEUE_BYTES_MAX: usize = 1024 * 1024;

/// Number of bytes to which a larger buffer is shrunk once it is written.
const BUFFER_BYTES_KEPT: usize = 64 * 1024;

/// Pause before a write that would have blocked is repeated. This happens if another process has
/// made standard error non-blocking.
const RETRY_PAUSE: Duration = Duration::from_millis(10);

/// Lines that wait for the thread that writes them.
#[derive(Debug)]
pub(super) struct LogQueue {
    state: Mutex<LogQueueState>,
    /// Notified when a line is added to an empty queue.
    filled: Condvar,
    /// Notified when everything is written.
    drained: Condvar,
    lost: AtomicU64,
}

#[derive(Debug)]
struct LogQueueState {
    waiting: Vec<u8>,
    /// True once the last line is queued.
    is_closed: bool,
    is_writing: bool,
    /// The thread that writes. Its own lines, which report lost lines, are always accepted.
    writer: Option<ThreadId>,
}

impl LogQueue {
    pub(super) const fn new() -> Self {
        Self {
            state: Mutex::new(LogQueueState {
                waiting: Vec::new(),
                is_closed: false,
                is_writing: false,
                writer: None,
            }),
            filled: Condvar::new(),
            drained: Condvar::new(),
            lost: AtomicU64::new(0),
        }
    }

    /// Queues a line, or drops and counts it if there is no room. A line behind the last one is
    /// dropped.
    pub(super) fn push(&self, line: &[u8]) {
        let mut state = self.lock();
        if state.is_closed {
            return;
        }
        let has_room = state.waiting.len() + line.len() <= QUEUE_BYTES_MAX;
        if !has_room && state.writer != Some(thread::current().id()) {
            drop(state);
            self.lost.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let was_empty = state.waiting.is_empty();
        state.waiting.extend_from_slice(line);
        drop(state);
        if was_empty {
            self.filled.notify_one();
        }
    }

    /// Queues the last line, for which there is always room: nothing that other threads still log
    /// comes behind it.
    pub(super) fn push_last(&self, line: &[u8]) {
        let mut state = self.lock();
        state.waiting.extend_from_slice(line);
        state.is_closed = true;
        drop(state);
        self.filled.notify_one();
    }

    /// Returns the number of lines that were dropped for lack of room or could not be written.
    pub(super) fn lost_count(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Waits until everything is written, but no longer than `timeout`. Returns false on timeout.
    pub(super) fn flush(&self, timeout: Duration) -> bool {
        let is_busy = |state: &mut LogQueueState| state.is_writing || !state.waiting.is_empty();
        let waited = self
            .drained
            .wait_timeout_while(self.lock(), timeout, is_busy);
        let (_state, result) = waited.unwrap_or_else(PoisonError::into_inner);
        !result.timed_out()
    }

    fn lock(&self) -> MutexGuard<'_, LogQueueState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes the lines of a queue to an output.
pub(super) struct LogWriter<'a, W, R> {
    queue: &'a LogQueue,
    output: W,
    /// Called with the number of lines lost since the last call, once a write succeeds
    /// again.
    report: R,
    reported: u64,
    batch: Vec<u8>,
    /// True if the output ends with a part of a line, because the rest could not be written.
    is_torn: bool,
}

impl<'a, W: Write, R: FnMut(u64)> LogWriter<'a, W, R> {
    /// Creates the writer of the queue, which must run on this thread.
    pub(super) fn new(queue: &'a LogQueue, output: W, report: R) -> Self {
        queue.lock().writer = Some(thread::current().id());
        Self {
            queue,
            output,
            report,
            reported: 0,
            batch: Vec::new(),
            is_torn: false,
        }
    }

    /// Waits for lines and writes them. Never returns.
    pub(super) fn run(mut self) {
        loop {
            self.write_batch();
        }
    }

    /// Writes all queued lines; if there are none, waits for the next one first.
    fn write_batch(&mut self) {
        let is_empty = |state: &mut LogQueueState| state.waiting.is_empty();
        let waited = self.queue.filled.wait_while(self.queue.lock(), is_empty);
        let mut state = waited.unwrap_or_else(PoisonError::into_inner);
        state.is_writing = true;
        mem::swap(&mut state.waiting, &mut self.batch);
        drop(state);

        // What is left of a torn line must not swallow the next one.
        if self.is_torn {
            self.is_torn = write_bytes(&mut self.output, b"\n") > 0;
        }
        let left = match self.is_torn {
            true => self.batch.len(),
            false => write_bytes(&mut self.output, &self.batch),
        };
        let (written, unwritten) = self.batch.split_at(self.batch.len() - left);
        self.is_torn |= written.last().is_some_and(|byte| *byte != b'\n');
        let unwritten = unwritten.iter().filter(|byte| **byte == b'\n').count() as u64;
        let lost = self.queue.lost.fetch_add(unwritten, Ordering::Relaxed) + unwritten;
        if unwritten == 0 && lost > self.reported {
            (self.report)(lost - self.reported);
            self.reported = lost;
        }

        self.batch.clear();
        self.batch.shrink_to(BUFFER_BYTES_KEPT);
        let mut state = self.queue.lock();
        state.is_writing = false;
        let is_drained = state.waiting.is_empty();
        drop(state);
        if is_drained {
            self.queue.drained.notify_all();
        }
    }
}

/// Writes the bytes. Returns the number of bytes at their end that could not be written.
fn write_bytes(output: &mut impl Write, mut bytes: &[u8]) -> usize {
    while !bytes.is_empty() {
        match output.write(bytes) {
            Ok(0) => break,
            Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::sleep(RETRY_PAUSE),
            Err(_) => break,
        }
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use super::*;

    /// An output that keeps its input, or fails with the given errors.
    #[derive(Default)]
    struct Output {
        written: Vec<u8>,
        errors: Vec<io::ErrorKind>,
    }

    impl Write for &mut Output {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if let Some(kind) = self.errors.pop() {
                return Err(kind.into());
            }
            // In pieces, as a pipe does.
            let taken = bytes.len().min(1000);
            self.written.extend_from_slice(&bytes[..taken]);
            Ok(taken)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Pushes a line from a thread other than the writer's.
    fn push(queue: &LogQueue, line: &[u8], times: usize) {
        thread::scope(|scope| {
            scope.spawn(|| (0..times).for_each(|_| queue.push(line)));
        });
    }

    #[test]
    fn lines_are_written_whole_and_in_order() {
        let queue = LogQueue::new();
        let mut output = Output {
            errors: vec![io::ErrorKind::WouldBlock, io::ErrorKind::Interrupted],
            ..Output::default()
        };
        let mut writer = LogWriter::new(&queue, &mut output, |_| panic!("nothing is lost"));
        let long = [&[b'x'; 4000][..], b"\n"].concat();
        push(&queue, b"first\n", 1);
        push(&queue, &long, 1);
        writer.write_batch();
        assert!(queue.flush(Duration::ZERO));
        assert_eq!(output.written, [b"first\n", &long[..]].concat());
        assert_eq!(queue.lost_count(), 0);
    }

    #[test]
    fn a_line_without_room_is_counted_and_reported_once_a_write_succeeds() {
        let queue = LogQueue::new();
        let (mut output, mut reports) = (Output::default(), Vec::new());
        let line = [b'\n'; 1];
        push(&queue, &line, QUEUE_BYTES_MAX + 3);
        assert_eq!(queue.lost_count(), 3);
        assert!(!queue.flush(Duration::ZERO), "nothing is written yet");
        let mut writer = LogWriter::new(&queue, &mut output, |lost| {
            // Other threads fill the queue first, but the report is still accepted.
            push(&queue, &line, QUEUE_BYTES_MAX);
            queue.push(b"lost\n");
            reports.push(lost);
        });
        writer.write_batch();
        writer.write_batch();
        drop(writer);
        assert_eq!(reports, [3]);
        assert_eq!(output.written.len(), 2 * QUEUE_BYTES_MAX + 5);
        assert!(output.written.ends_with(b"\nlost\n"));
        assert!(queue.flush(Duration::ZERO));
    }

    #[test]
    fn lines_that_cannot_be_written_are_counted_and_reported_once_a_write_succeeds() {
        let queue = LogQueue::new();
        let mut output = Output {
            errors: vec![io::ErrorKind::StorageFull, io::ErrorKind::BrokenPipe],
            ..Output::default()
        };
        let mut reports = Vec::new();
        let mut writer = LogWriter::new(&queue, &mut output, |lost| reports.push(lost));
        for times in [2, 3, 1] {
            push(&queue, b"line\n", times);
            writer.write_batch();
        }
        drop(writer);
        assert_eq!(reports, [5]);
        assert_eq!(output.written, b"line\n");
        assert_eq!(queue.lost_count(), 5);
    }

    /// An output with room for so many bytes.
    struct Disk<'a> {
        written: &'a RefCell<Vec<u8>>,
        room: &'a Cell<usize>,
    }

    impl Write for Disk<'_> {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let taken = bytes.len().min(self.room.get());
            if taken == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.room.set(self.room.get() - taken);
            self.written.borrow_mut().extend_from_slice(&bytes[..taken]);
            Ok(taken)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_that_is_written_in_part_is_lost_and_does_not_swallow_the_next_one() {
        let queue = LogQueue::new();
        let (written, room) = (RefCell::default(), Cell::new(6));
        let disk = Disk {
            written: &written,
            room: &room,
        };
        let mut writer = LogWriter::new(&queue, disk, |_| ());
        for (line, more_room) in [
            (&b"one\ntwo\n"[..], 0),
            (b"three\n", 1),
            // The torn line is ended, but there is no more room.
            (b"four\n", 100),
            (b"five\n", 0),
        ] {
            push(&queue, line, 1);
            writer.write_batch();
            room.set(room.get() + more_room);
        }
        assert_eq!(*written.borrow(), b"one\ntw\nfive\n");
        assert_eq!(queue.lost_count(), 3);
    }

    #[test]
    fn nothing_is_written_behind_the_last_line() {
        let queue = LogQueue::new();
        let mut output = Output::default();
        let mut writer = LogWriter::new(&queue, &mut output, |_| ());
        push(&queue, &[b'\n'; QUEUE_BYTES_MAX], 1);
        queue.push_last(b"last\n");
        push(&queue, b"late\n", 1);
        writer.write_batch();
        drop(writer);
        assert!(output.written.ends_with(b"\nlast\n"));
        assert!(queue.flush(Duration::ZERO));
        assert_eq!(queue.lost_count(), 0);
    }

    #[test]
    fn the_memory_of_a_full_buffer_is_released() {
        let queue = LogQueue::new();
        let mut output = Output::default();
        let mut writer = LogWriter::new(&queue, &mut output, |_| ());
        push(&queue, &[b'\n'; 1000], QUEUE_BYTES_MAX / 1000);
        writer.write_batch();
        assert!(writer.batch.capacity() <= BUFFER_BYTES_KEPT);
    }
}
