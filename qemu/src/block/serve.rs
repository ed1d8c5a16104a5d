//! One connection of the network block device protocol after the negotiation: requests and their answers.
//!
//! Requests are carried out beside each other and answered as they end, as the protocol allows; what a flush covers is
//! settled when it arrives, before anything that arrives after it.
//!
//! Invariant: a change is in the history before its answer is sent. A connection holds a bounded number of requests, so
//! that a client cannot fill the memory.
//!
//! Not here: the negotiation (`handshake`), and what a change is (`tape`).

use std::io;
use std::sync::{Arc, PoisonError};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::OwnedWriteHalf;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::extent::SECTOR;
use super::fault::{Deed, delay, fails};
use super::handshake::{Export, Exports, LONGEST, negotiate};
use super::tape::Change;

const REQUEST: u32 = 0x2560_9513;
const REPLY: u32 = 0x6744_6698;

const READ: u16 = 0;
const WRITE: u16 = 1;
const DISCONNECT: u16 = 2;
const FLUSH: u16 = 3;
const TRIM: u16 = 4;
const WRITE_ZEROES: u16 = 6;
/// Force unit access: the change is safe when it is answered.
const FUA: u16 = 1;

/// Errors, as the protocol numbers them.
const EIO: u32 = 5;
const EINVAL: u32 = 22;
const ENOSPC: u32 = 28;

/// How many requests of one connection are under way at most.
const UNDER_WAY: usize = 16;

struct Request {
    flags: u16,
    command: u16,
    cookie: u64,
    offset: u64,
    length: u32,
}

struct Answer {
    cookie: u64,
    error: u32,
    data: Vec<u8>,
    _place: OwnedSemaphorePermit,
}

/// Serves one connection until its end.
pub(crate) async fn connection(mut stream: UnixStream, exports: Exports) {
    // A client that leaves or speaks nonsense ends its own connection; there is nobody to tell.
    if let Ok(Some(export)) = negotiate(&mut stream, &exports).await {
        let mut withdrawn = export.withdrawn.clone();
        tokio::select! {
            _ = requests(stream, export) => {}
            _ = withdrawn.wait_for(|gone| *gone) => {}
        }
    }
}

async fn requests(stream: UnixStream, export: Export) -> io::Result<()> {
    let (reader, writer) = stream.into_split();
    let mut reader = BufReader::with_capacity(64 * 1024, reader);
    let (answers, queue) = mpsc::unbounded_channel();
    let places = Arc::new(Semaphore::new(UNDER_WAY));
    let writing = tokio::spawn(write_answers(writer, queue));
    let ended = read_requests(&mut reader, &export, &answers, &places).await;
    // The writer ends when the last request under way has been answered.
    drop(answers);
    let _ = writing.await;
    ended
}

async fn read_requests(
    reader: &mut (impl AsyncRead + Unpin),
    export: &Export,
    answers: &mpsc::UnboundedSender<Answer>,
    places: &Arc<Semaphore>,
) -> io::Result<()> {
    loop {
        if reader.read_u32().await? != REQUEST {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "no request"));
        }
        let request = Request {
            flags: reader.read_u16().await?,
            command: reader.read_u16().await?,
            cookie: reader.read_u64().await?,
            offset: reader.read_u64().await?,
            length: reader.read_u32().await?,
        };
        if request.command == DISCONNECT {
            return Ok(());
        }
        let closed = |_| io::Error::other("closed");
        let place = Arc::clone(places).acquire_owned().await.map_err(closed)?;
        let mut data = Vec::new();
        if request.command == WRITE {
            if request.length > LONGEST {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "a write of absurd length"));
            }
            data.resize(request.length as usize, 0);
            reader.read_exact(&mut data).await?;
        }
        // Settled now: what is complete later is not covered by this flush.
        let covers = export.tape.history().end();
        let (fault, wait) = fate(export, &request);
        let (export, answers) = (export.clone(), answers.clone());
        let work = move || {
            let result = match fault {
                Some(error) => Err(error),
                None => perform(&export, &request, &data, covers),
            };
            let (error, data) = result.map_or_else(|error| (error, Vec::new()), |data| (0, data));
            let cookie = request.cookie;
            // Nobody waits for it when the connection has ended.
            let _ = answers.send(Answer {
                cookie,
                error,
                data,
                _place: place,
            });
        };
        match wait {
            None => drop(tokio::task::spawn_blocking(work)),
            Some(time) => drop(tokio::spawn(async move {
                tokio::time::sleep(time).await;
                let _ = tokio::task::spawn_blocking(work).await;
            })),
        }
    }
}

/// Whether the request is refused, and how long it waits.
fn fate(export: &Export, request: &Request) -> (Option<u32>, Option<std::time::Duration>) {
    let Some(drive) = export.tape.drives.get(export.disk) else {
        return (Some(EIO), None);
    };
    let deed = match request.command {
        READ => Deed::Read,
        WRITE | TRIM | WRITE_ZEROES => Deed::Write,
        FLUSH => Deed::Flush,
        _ => return (Some(EINVAL), None),
    };
    let length = u64::from(request.length);
    let end = request.offset.saturating_add(length);
    let aligned = request.offset.is_multiple_of(SECTOR) && length.is_multiple_of(SECTOR);
    let size = drive.sectors * SECTOR;
    let refused = match deed {
        Deed::Read if !aligned || end > size || request.length > LONGEST => Some(EINVAL),
        Deed::Write if !aligned => Some(EINVAL),
        Deed::Write if end > size => Some(ENOSPC),
        Deed::Read | Deed::Write | Deed::Flush => None,
    };
    let faults = drive.faults.lock().unwrap_or_else(PoisonError::into_inner);
    let failed = fails(&faults, deed, &(request.offset..end)).then_some(EIO);
    (refused.or(failed), delay(&faults))
}

fn perform(export: &Export, request: &Request, data: &[u8], covers: u64) -> Result<Vec<u8>, u32> {
    let (tape, disk) = (&export.tape, export.disk);
    let change = Change {
        disk,
        offset: request.offset,
        through: request.flags & FUA != 0,
    };
    match request.command {
        READ => {
            return tape
                .read(disk, request.offset, request.length as usize)
                .map_err(|_| EIO);
        }
        WRITE => tape.write(change, data).map_err(|error| match error.kind() {
            io::ErrorKind::StorageFull => ENOSPC,
            _ => EIO,
        })?,
        TRIM | WRITE_ZEROES => tape.clear(change, u64::from(request.length), request.command == TRIM),
        FLUSH => tape.flush(disk, covers),
        _ => return Err(EINVAL),
    }
    Ok(Vec::new())
}

async fn write_answers(mut writer: OwnedWriteHalf, mut queue: mpsc::UnboundedReceiver<Answer>) -> io::Result<()> {
    while let Some(answer) = queue.recv().await {
        let mut message = Vec::with_capacity(16 + answer.data.len());
        message.extend(REPLY.to_be_bytes());
        message.extend(answer.error.to_be_bytes());
        message.extend(answer.cookie.to_be_bytes());
        message.extend(&answer.data);
        writer.write_all(&message).await?;
    }
    Ok(())
}
