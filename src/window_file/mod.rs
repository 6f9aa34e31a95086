//! The file that keeps the tenants' logs from the end of a drain to the next start
//! (`replay.keep_file`). It is written once, when nothing can be appended any more, and used only
//! by the very next start, so that positions that were given to other events since never come
//! back.
//!
//! Each run has a number. It is written to the disk before anything else, and the file that a run
//! leaves has its number: a start that finds the file of another run than the one before it does
//! not use it, whatever happened in between.
//!
//! Beside the file, with the same name and an ending: `.run` with the number of the last run,
//! `.new` while one of the two is written, and `.rejected` for a file that could not be used.

mod read;
mod records;
mod write;

#[cfg(test)]
mod tests;

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufReader, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use sidewire_protocol::{clock::Clock, schema::Schema};
use tokio::time::Instant;

pub use records::WindowFileFault;
pub use write::WindowSize;

use crate::{
    bounded_file::read_text,
    hub::{KeptWindow, TenantRegistry},
};
use read::{ExpectedWindow, read_window};
use records::MAGIC;
use write::{WindowContent, write_window};

/// Maximum size of the file with the number of the last run.
const RUN_BYTES_MAX: usize = 64;

/// Returns true if the file exists, is not empty, and is another kind of file. One that cannot be
/// read is no matter here.
pub(crate) fn is_another_file(path: &Path) -> bool {
    let mut start = Vec::new();
    let file = File::open(path).map(|file| file.take(MAGIC.len() as u64));
    let read = file.and_then(|mut file| file.read_to_end(&mut start));
    read.is_ok() && !MAGIC.starts_with(&start)
}

/// The times by which ages in a file are computed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WindowTime {
    /// Now.
    now: Instant,
    /// The time of day now, since the Unix epoch.
    since_epoch: Duration,
}

impl WindowTime {
    fn now(clock: &Clock) -> Self {
        Self {
            now: Instant::now(),
            since_epoch: clock.since_unix_epoch(),
        }
    }
}

/// The file of a relay, in one run.
#[derive(Debug, Clone)]
pub struct WindowFile {
    path: PathBuf,
    /// The number of this run, from 1.
    run: u64,
}

/// What a start found.
#[derive(Debug)]
pub enum TakenWindow {
    /// There is no file.
    Missing,
    /// The file is used now, and is gone.
    Taken(Box<KeptWindow>),
    /// The file cannot be used. The second value is where it was put, or the reason why it stayed.
    Rejected(WindowFileFault, io::Result<PathBuf>),
}

/// A window that could not be written. There is no file.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    /// The file could not be written.
    #[error(transparent)]
    Write(#[from] io::Error),
    /// It took too long.
    #[error("the drain's time was over")]
    TooLate,
}

/// Tells a relay that is writing its window to stop.
#[derive(Debug, Clone, Default)]
pub struct SaveStop(Arc<AtomicBool>);

impl SaveStop {
    /// Stops the writing as soon as possible.
    pub fn stop(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn check(&self) -> Result<(), SaveError> {
        match self.0.load(Ordering::Relaxed) {
            true => Err(SaveError::TooLate),
            false => Ok(()),
        }
    }
}

impl WindowFile {
    /// Begins a run of the relay: writes its number to the disk.
    ///
    /// # Errors
    ///
    /// Fails if the number of the last run cannot be read, or that of this one not be written.
    pub fn begin_run(path: PathBuf) -> io::Result<Self> {
        let mut file = Self { path, run: 0 };
        file.run = file.last_run()? + 1;
        if let Err(error) = file.write_run() {
            drop(fs::remove_file(file.with_ending("new")));
            return Err(error);
        }
        Ok(file)
    }

    fn write_run(&self) -> io::Result<()> {
        let mut new = self.create_new()?;
        new.write_all(format!("{}\n", self.run).as_bytes())?;
        new.sync_all()?;
        fs::rename(self.with_ending("new"), self.with_ending("run"))?;
        self.sync_directory()
    }

    /// Returns the path of the file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Takes the window of the run before this one out of the file, and removes that. A file that
    /// cannot be used, or that is older than `age_max`, is renamed to `.rejected`.
    #[must_use]
    pub fn take(&self, schema: &Arc<Schema>, clock: &Clock, age_max: Duration) -> TakenWindow {
        match self.try_take(schema, WindowTime::now(clock), age_max) {
            Ok(Some(window)) => {
                // If it stays, it has the number of an earlier run from now on.
                drop(fs::remove_file(&self.path));
                TakenWindow::Taken(Box::new(window))
            }
            Ok(None) => TakenWindow::Missing,
            Err(fault) => {
                let aside = self.with_ending("rejected");
                let moved = fs::rename(&self.path, &aside).map(|()| aside);
                TakenWindow::Rejected(fault, moved)
            }
        }
    }

    fn try_take(
        &self,
        schema: &Arc<Schema>,
        time: WindowTime,
        age_max: Duration,
    ) -> Result<Option<KeptWindow>, WindowFileFault> {
        let file = match File::open(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        if !file.metadata()?.is_file() {
            return Err(WindowFileFault::NotAWindow);
        }
        let from = BufReader::with_capacity(1 << 16, file);
        let expected = ExpectedWindow {
            run: self.run - 1,
            age_max,
            schema,
        };
        read_window(from, &expected, time).map(Some)
    }

    /// Reads the number of the last run; 0 if there was none.
    fn last_run(&self) -> io::Result<u64> {
        let path = self.with_ending("run");
        let text = match read_text(&path, RUN_BYTES_MAX) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
            text => text?,
        };
        let number = text.trim_end().parse::<u64>().ok();
        number
            .filter(|number| *number < u64::MAX)
            .ok_or_else(|| io::Error::other(format!("{} has no number", path.display())))
    }

    /// Writes the window of a relay to which nothing is appended any more.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be written, or if it was told to stop before it was complete. Then
    /// there is no file.
    pub fn save(
        &self,
        registry: &TenantRegistry,
        schema: &Arc<Schema>,
        clock: &Clock,
        stop: &SaveStop,
    ) -> Result<WindowSize, SaveError> {
        let saved = self.try_save(registry, schema, WindowTime::now(clock), stop);
        if saved.is_err() {
            drop(fs::remove_file(self.with_ending("new")));
        }
        saved
    }

    fn try_save(
        &self,
        registry: &TenantRegistry,
        schema: &Arc<Schema>,
        time: WindowTime,
        stop: &SaveStop,
    ) -> Result<WindowSize, SaveError> {
        let content = WindowContent {
            run: self.run,
            registry,
            schema,
        };
        let (file, size) = write_window(self.create_new()?, &content, time, stop)?;
        file.sync_all()?;
        stop.check()?;
        fs::rename(self.with_ending("new"), &self.path)?;
        self.sync_directory()?;
        Ok(size)
    }

    /// Creates the file that is renamed when it is complete. Only its owner may read it.
    fn create_new(&self) -> io::Result<File> {
        let path = self.with_ending("new");
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
    }

    fn sync_directory(&self) -> io::Result<()> {
        let directory = self.path.parent().filter(|it| !it.as_os_str().is_empty());
        File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
    }

    fn with_ending(&self, ending: &str) -> PathBuf {
        let mut path = self.path.clone().into_os_string();
        path.push(".");
        path.push(ending);
        path.into()
    }
}
