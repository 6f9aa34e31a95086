//! Running programs: their output, the signals sent to them, their exit.

use std::{
    env,
    io::Read,
    os::unix::process::CommandExt,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Condvar, Mutex},
    thread,
    time::Duration,
};

pub use rustix::process::Signal;
use rustix::process::{Pid, kill_process_group};

/// Upper bound of every wait, so that a fault ends the test.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Returns `sidewire` with these arguments, without the environment variables that it reads.
///
/// # Panics
///
/// When the test was not started by Cargo, which says where the program is.
#[must_use]
pub fn sidewire(args: &[&str]) -> Command {
    let program = env::var_os("CARGO_BIN_EXE_sidewire").expect("started by `cargo test`");
    let mut command = Command::new(program);
    command.args(args);
    for variable in [
        "NOTIFY_SOCKET",
        "LISTEN_PID",
        "LISTEN_FDS",
        "LISTEN_FDNAMES",
        "WATCHDOG_USEC",
        "WATCHDOG_PID",
        "CREDENTIALS_DIRECTORY",
        "SIDEWIRE_TOKEN",
        "SIDEWIRE_INGEST_KEY",
    ] {
        command.env_remove(variable);
    }
    command
}

/// Returns true if this program is installed.
#[must_use]
pub fn is_on_path(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|directory| directory.join(program).is_file())
}

/// A running program in its own process group. It is killed if a test ends before it.
pub struct Process {
    child: Child,
    stdout: Captured,
    stderr: Captured,
}

/// Exit status and output of a program.
#[derive(Debug)]
pub struct Ended {
    /// The exit status.
    pub status: ExitStatus,
    /// Everything that it wrote to standard output.
    pub stdout: String,
    /// Everything that it wrote to standard error.
    pub stderr: String,
}

impl Process {
    /// Starts the program without standard input, and captures its output.
    #[must_use]
    pub fn start(command: Command) -> Self {
        Self::start_with(command, Stdio::null(), Stdio::piped(), Stdio::piped())
    }

    /// Starts the program with these streams.
    pub fn start_with(
        mut command: Command,
        stdin: impl Into<Stdio>,
        stdout: impl Into<Stdio>,
        stderr: impl Into<Stdio>,
    ) -> Self {
        command.process_group(0);
        command.stdin(stdin).stdout(stdout).stderr(stderr);
        let mut child = command.spawn().unwrap();
        Self {
            stdout: Captured::from(child.stdout.take()),
            stderr: Captured::from(child.stderr.take()),
            child,
        }
    }

    /// Runs the program to its end.
    #[must_use]
    pub fn run(command: Command) -> Ended {
        Self::start(command).end()
    }

    /// Waits until standard output contains what `find` looks for.
    pub fn stdout_has<T>(&self, find: impl FnMut(&str) -> Option<T>) -> T {
        self.stdout.wait(find)
    }

    /// Waits until standard error contains what `find` looks for.
    pub fn stderr_has<T>(&self, find: impl FnMut(&str) -> Option<T>) -> T {
        self.stderr.wait(find)
    }

    /// Returns the process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal to the process, and to those that it has started.
    pub fn signal(&self, signal: Signal) {
        kill_process_group(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for the program to exit.
    pub fn end(mut self) -> Ended {
        let whole = |stream: &Captured| stream.wait_whole();
        let (stdout, stderr) = (whole(&self.stdout), whole(&self.stderr));
        // Both streams have ended, so the process has exited or is about to.
        let status = self.child.wait().unwrap();
        Ended {
            status,
            stdout,
            stderr,
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.signal(Signal::KILL);
            self.child.wait().unwrap();
        }
    }
}

/// Output of a stream, read by a thread of its own.
#[derive(Clone, Default)]
struct Captured(Arc<(Mutex<Text>, Condvar)>);

#[derive(Default)]
struct Text {
    text: String,
    at_end: bool,
}

impl<R: Read + Send + 'static> From<Option<R>> for Captured {
    fn from(stream: Option<R>) -> Self {
        let captured = Self::default();
        let Some(mut stream) = stream else {
            captured.add(None);
            return captured;
        };
        let filled = captured.clone();
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(read @ 1..) = stream.read(&mut bytes) {
                filled.add(Some(&String::from_utf8_lossy(&bytes[..read])));
            }
            filled.add(None);
        });
        captured
    }
}

impl Captured {
    /// Adds text; `None` marks the end.
    fn add(&self, text: Option<&str>) {
        let mut state = self.0.0.lock().unwrap();
        state.text.push_str(text.unwrap_or_default());
        state.at_end |= text.is_none();
        self.0.1.notify_all();
    }

    fn wait<T>(&self, mut find: impl FnMut(&str) -> Option<T>) -> T {
        let mut found = None;
        let seen = self.wait_while(|state| {
            found = find(&state.text);
            found.is_none() && !state.at_end
        });
        found.unwrap_or_else(|| panic!("never received; output so far:\n{seen}"))
    }

    fn wait_whole(&self) -> String {
        self.wait_while(|state| !state.at_end)
    }

    fn wait_while(&self, mut goes_on: impl FnMut(&Text) -> bool) -> String {
        let (state, changed) = &*self.0;
        let (state, timeout) = changed
            .wait_timeout_while(state.lock().unwrap(), PATIENCE, |state| goes_on(state))
            .unwrap();
        let text = state.text.clone();
        // Unlock before panicking, or the reading thread would panic too.
        drop(state);
        assert!(!timeout.timed_out(), "waited in vain. What came:\n{text}");
        text
    }
}
