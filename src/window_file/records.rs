//! The format of a window file: a magic text with the format's version, records, and the SHA-256
//! digest of all that. A record is an encoded [`Record`] behind its length. Adding a field or a
//! kind of record that a reader may skip keeps the version; anything else needs a new one.

use std::{
    io::{self, Read, Write},
    time::Duration,
};

use aws_lc_rs::digest::{Context, SHA256, SHA256_OUTPUT_LEN};
use bytes::Bytes;
use prost::Message;

/// What the file begins with, before the version.
pub(super) const MAGIC: &[u8; 15] = b"sidewire-window";

/// The version of the format.
const VERSION: u8 = 1;

/// Maximum size of a record, in bytes: more than that of any event or schema.
const RECORD_BYTES_MAX: usize = 2 << 30;

/// One record. The first is a start, the last an end. Schemas precede the events that refer to
/// them by their number, from 0, and a tenant precedes its events and message ids.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Record {
    #[prost(oneof = "RecordKind", tags = "1, 2, 3, 4, 5, 6, 7")]
    pub(super) kind: Option<RecordKind>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub(super) enum RecordKind {
    #[prost(message, tag = "1")]
    Start(StartRecord),
    #[prost(message, tag = "2")]
    Schema(SchemaRecord),
    #[prost(message, tag = "3")]
    Tenant(TenantRecord),
    #[prost(message, tag = "4")]
    Event(EventRecord),
    #[prost(message, tag = "5")]
    MessageId(MessageIdRecord),
    /// A tenant of which there is only the head of the log.
    #[prost(message, tag = "6")]
    Dormant(TenantRecord),
    #[prost(message, tag = "7")]
    End(EndRecord),
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct StartRecord {
    /// The number of the run that wrote it.
    #[prost(uint64, tag = "1")]
    pub(super) run: u64,
    /// When it was written, in milliseconds since the Unix epoch.
    #[prost(uint64, tag = "2")]
    pub(super) written_at_ms: u64,
    /// The key of the message ids' fingerprints.
    #[prost(bytes = "vec", tag = "3")]
    pub(super) fingerprint_key: Vec<u8>,
    /// The full name of the envelope.
    #[prost(string, tag = "4")]
    pub(super) envelope: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct SchemaRecord {
    /// An encoded FileDescriptorSet.
    #[prost(bytes = "vec", tag = "1")]
    pub(super) descriptor_set: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct TenantRecord {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(string, tag = "2")]
    pub(super) epoch: String,
    /// The offset of the newest event.
    #[prost(uint64, tag = "3")]
    pub(super) head: u64,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct EventRecord {
    #[prost(uint64, tag = "1")]
    pub(super) offset: u64,
    /// Time since the append when the file was written, in milliseconds.
    #[prost(uint64, tag = "2")]
    pub(super) age_ms: u64,
    /// The number of its schema.
    #[prost(uint32, tag = "3")]
    pub(super) schema: u32,
    #[prost(string, repeated, tag = "4")]
    pub(super) topics: Vec<String>,
    /// The envelope without its position.
    #[prost(bytes = "bytes", tag = "5")]
    pub(super) envelope: Bytes,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct MessageIdRecord {
    #[prost(bytes = "vec", tag = "1")]
    pub(super) id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub(super) body: Vec<u8>,
    #[prost(uint64, tag = "3")]
    pub(super) offset: u64,
    /// Time since it was remembered when the file was written, in milliseconds.
    #[prost(uint64, tag = "4")]
    pub(super) age_ms: u64,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct EndRecord {
    /// Number of tenants, dormant ones not included.
    #[prost(uint64, tag = "1")]
    pub(super) tenants: u64,
    #[prost(uint64, tag = "2")]
    pub(super) events: u64,
}

/// A reason for which a file is none of this relay's.
#[derive(Debug, thiserror::Error)]
pub enum WindowFileFault {
    /// It cannot be read.
    #[error("it cannot be read: {0}")]
    Read(#[from] io::Error),
    /// It is another kind of file.
    #[error("it is not a window file")]
    NotAWindow,
    /// A newer relay has written it.
    #[error("its format has version {0}, which a newer Sidewire writes; this one knows {VERSION}")]
    NewerFormat(u8),
    /// It has been changed or cut off.
    #[error("it is damaged: {0}")]
    Damaged(&'static str),
    /// Its events have another envelope.
    #[error("its events are {found}, and the schema's envelope is {expected}")]
    Foreign {
        /// The full name of the envelope in the file.
        found: String,
        /// That of the schema in force.
        expected: String,
    },
    /// Its messages could be misread by clients that know the schema in force.
    #[error("its events have a schema with which the one in force is not compatible")]
    Incompatible,
    /// It was used before, or the relay has run since without writing one.
    #[error(
        "it is not of the last run, so its positions may have been given to other events since"
    )]
    OtherRun,
    /// It was written so long ago that the relay may have run elsewhere since.
    #[error("it was written {} ago, longer than replay.age", humantime::format_duration(*.0))]
    TooOld(Duration),
}

/// Writes records, and computes their digest.
pub(super) struct RecordWriter<W> {
    to: W,
    digest: Context,
    buffer: Vec<u8>,
    bytes: u64,
}

impl<W: Write> RecordWriter<W> {
    pub(super) fn new(to: W) -> io::Result<Self> {
        let mut writer = Self {
            to,
            digest: Context::new(&SHA256),
            buffer: Vec::new(),
            bytes: 0,
        };
        writer.buffer.extend_from_slice(MAGIC);
        writer.buffer.push(VERSION);
        writer.write_buffer()?;
        Ok(writer)
    }

    pub(super) fn write(&mut self, kind: RecordKind) -> io::Result<()> {
        self.buffer.clear();
        let record = Record { kind: Some(kind) };
        record.encode_length_delimited(&mut self.buffer)?;
        self.write_buffer()
    }

    /// Writes the digest. Returns the writer and the size of the file in bytes.
    pub(super) fn finish(mut self) -> io::Result<(W, u64)> {
        let digest = self.digest.finish();
        self.to.write_all(digest.as_ref())?;
        Ok((self.to, self.bytes + SHA256_OUTPUT_LEN as u64))
    }

    fn write_buffer(&mut self) -> io::Result<()> {
        self.digest.update(&self.buffer);
        self.bytes += self.buffer.len() as u64;
        self.to.write_all(&self.buffer)
    }
}

/// Reads records, and checks their digest.
pub(super) struct RecordReader<R> {
    from: R,
    digest: Context,
}

impl<R: Read> RecordReader<R> {
    pub(super) fn new(from: R) -> Result<Self, WindowFileFault> {
        let mut reader = Self {
            from,
            digest: Context::new(&SHA256),
        };
        let mut start = [0; MAGIC.len() + 1];
        reader.fill(&mut start).map_err(|fault| match fault {
            WindowFileFault::Damaged(_) => WindowFileFault::NotAWindow,
            other => other,
        })?;
        match start.split_last() {
            Some((&VERSION, magic)) if magic == MAGIC => Ok(reader),
            Some((version, magic)) if magic == MAGIC => Err(WindowFileFault::NewerFormat(*version)),
            _ => Err(WindowFileFault::NotAWindow),
        }
    }

    /// Reads the next record. Its kind is `None` if this version does not know it.
    pub(super) fn read(&mut self) -> Result<Option<RecordKind>, WindowFileFault> {
        let len = self.read_length()?;
        if len > RECORD_BYTES_MAX {
            return Err(WindowFileFault::Damaged("a record is too long"));
        }
        // Read in parts, since the length may be any number and memory is taken only for what
        // exists.
        let mut bytes = Vec::new();
        let read = (&mut self.from).take(len as u64).read_to_end(&mut bytes)?;
        if read < len {
            return Err(CUT_OFF);
        }
        self.digest.update(&bytes);
        let record = Record::decode(Bytes::from(bytes));
        let record = record.map_err(|_| WindowFileFault::Damaged("a record cannot be decoded"))?;
        Ok(record.kind)
    }

    /// Checks the digest behind the last record, and that nothing follows.
    pub(super) fn finish(mut self) -> Result<(), WindowFileFault> {
        let mut written = [0; SHA256_OUTPUT_LEN];
        self.from.read_exact(&mut written).map_err(cut_off)?;
        if self.digest.finish().as_ref() != written {
            return Err(WindowFileFault::Damaged("its digest is wrong"));
        }
        match self.from.read(&mut [0])? {
            0 => Ok(()),
            _ => Err(WindowFileFault::Damaged("something follows its end")),
        }
    }

    fn read_length(&mut self) -> Result<usize, WindowFileFault> {
        let mut len = 0;
        // The lengths of records have at most five bytes.
        for shift in [0, 7, 14, 21, 28] {
            let mut byte = [0];
            self.fill(&mut byte)?;
            let [byte] = byte;
            len |= usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(len);
            }
        }
        Err(WindowFileFault::Damaged("a record is too long"))
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), WindowFileFault> {
        self.from.read_exact(bytes).map_err(cut_off)?;
        self.digest.update(bytes);
        Ok(())
    }
}

const CUT_OFF: WindowFileFault = WindowFileFault::Damaged("it is cut off");

fn cut_off(error: io::Error) -> WindowFileFault {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => CUT_OFF,
        _ => error.into(),
    }
}
