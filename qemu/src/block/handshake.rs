//! How a connection of the network block device protocol begins: the fixed newstyle negotiation.
//!
//! Written from the protocol's description (doc/proto.md of the NetworkBlockDevice project). Known options: EXPORT_NAME,
//! ABORT, LIST, INFO and GO; every other is answered as unsupported, which clients take well.
//!
//! Invariant: a connection ends here or goes on with one export; nothing that a client sends makes more than a page be
//! allocated.
//!
//! Not here: requests; see `serve`.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::watch;

use super::extent::SECTOR;
use super::tape::Tape;

const GREETING: u64 = 0x4e42_444d_4147_4943; // NBDMAGIC
const OPTION: u64 = 0x4948_4156_454f_5054; // IHAVEOPT
const ANSWER: u64 = 0x0003_e889_0455_65a9;

const FIXED_NEWSTYLE: u16 = 1;
const NO_ZEROES: u16 = 2;

const OPT_EXPORT_NAME: u32 = 1;
const OPT_ABORT: u32 = 2;
const OPT_LIST: u32 = 3;
const OPT_INFO: u32 = 6;
const OPT_GO: u32 = 7;

const REP_ACK: u32 = 1;
const REP_SERVER: u32 = 2;
const REP_INFO: u32 = 3;
const ERR_UNSUPPORTED: u32 = (1 << 31) + 1;
const ERR_INVALID: u32 = (1 << 31) + 3;
const ERR_UNKNOWN: u32 = (1 << 31) + 6;

const INFO_EXPORT: u16 = 0;
const INFO_BLOCK_SIZE: u16 = 3;

/// HAS_FLAGS, SEND_FLUSH, SEND_FUA, SEND_TRIM, SEND_WRITE_ZEROES, CAN_MULTI_CONN: a writable disk with a volatile cache,
/// the same one on every connection.
const FLAGS: u16 = 1 | 1 << 2 | 1 << 3 | 1 << 5 | 1 << 6 | 1 << 8;
/// A name has at most 4096 bytes, and few bytes surround it.
const LONGEST_OPTION: u32 = 8192;
/// The most that a read or a write may carry.
pub(crate) const LONGEST: u32 = 4 << 20;
/// The kernel's page: what is best written at a time.
const PREFERRED: u32 = 4096;

/// A disk that is served.
#[derive(Clone, Debug)]
pub(crate) struct Export {
    pub(crate) tape: Arc<Tape>,
    pub(crate) disk: usize,
    /// Becomes true when the disk is withdrawn.
    pub(crate) withdrawn: watch::Receiver<bool>,
}

/// The disks that are served, by name.
pub(crate) type Exports = Arc<Mutex<BTreeMap<String, Export>>>;

impl Export {
    pub(crate) fn bytes(&self) -> u64 {
        self.tape
            .drives
            .get(self.disk)
            .map_or(0, |drive| drive.sectors * SECTOR)
    }
}

/// Negotiates until the client has chosen an export; none if it left, or asked for one that is not there in a way that
/// has no answer.
pub(crate) async fn negotiate(stream: &mut UnixStream, exports: &Exports) -> io::Result<Option<Export>> {
    let mut greeting = Vec::with_capacity(18);
    greeting.extend(GREETING.to_be_bytes());
    greeting.extend(OPTION.to_be_bytes());
    greeting.extend((FIXED_NEWSTYLE | NO_ZEROES).to_be_bytes());
    stream.write_all(&greeting).await?;
    let no_zeroes = stream.read_u32().await? & u32::from(NO_ZEROES) != 0;
    loop {
        if stream.read_u64().await? != OPTION {
            return Err(nonsense("an option that does not begin as one"));
        }
        let (option, length) = (stream.read_u32().await?, stream.read_u32().await?);
        if length > LONGEST_OPTION {
            return Err(nonsense("an option of absurd length"));
        }
        let mut data = vec![0; length as usize];
        stream.read_exact(&mut data).await?;
        match option {
            OPT_EXPORT_NAME => {
                let Some(export) = find(exports, &data) else {
                    return Ok(None);
                };
                let mut answer = export.bytes().to_be_bytes().to_vec();
                answer.extend(FLAGS.to_be_bytes());
                if !no_zeroes {
                    answer.extend([0; 124]);
                }
                stream.write_all(&answer).await?;
                return Ok(Some(export));
            }
            OPT_ABORT => {
                reply(stream, option, REP_ACK, &[]).await?;
                return Ok(None);
            }
            OPT_LIST if data.is_empty() => {
                let names: Vec<String> = exports
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .keys()
                    .cloned()
                    .collect();
                for name in names {
                    let mut server = (name.len() as u32).to_be_bytes().to_vec();
                    server.extend(name.as_bytes());
                    reply(stream, option, REP_SERVER, &server).await?;
                }
                reply(stream, option, REP_ACK, &[]).await?;
            }
            OPT_INFO | OPT_GO => match wanted(&data).map(|name| find(exports, name)) {
                None => reply(stream, option, ERR_INVALID, &[]).await?,
                Some(None) => reply(stream, option, ERR_UNKNOWN, &[]).await?,
                Some(Some(export)) => {
                    describe(stream, option, &export).await?;
                    if option == OPT_GO {
                        return Ok(Some(export));
                    }
                }
            },
            OPT_LIST => reply(stream, option, ERR_INVALID, &[]).await?,
            _ => reply(stream, option, ERR_UNSUPPORTED, &[]).await?,
        }
    }
}

/// Size, flags and block sizes. The last are told unasked, as a server may: only whole sectors are served.
async fn describe(stream: &mut UnixStream, option: u32, export: &Export) -> io::Result<()> {
    let mut info = INFO_EXPORT.to_be_bytes().to_vec();
    info.extend(export.bytes().to_be_bytes());
    info.extend(FLAGS.to_be_bytes());
    reply(stream, option, REP_INFO, &info).await?;
    let mut info = INFO_BLOCK_SIZE.to_be_bytes().to_vec();
    for size in [SECTOR as u32, PREFERRED, LONGEST] {
        info.extend(size.to_be_bytes());
    }
    reply(stream, option, REP_INFO, &info).await?;
    reply(stream, option, REP_ACK, &[]).await
}

async fn reply(stream: &mut UnixStream, option: u32, kind: u32, data: &[u8]) -> io::Result<()> {
    let mut message = Vec::with_capacity(20 + data.len());
    message.extend(ANSWER.to_be_bytes());
    for number in [option, kind, data.len() as u32] {
        message.extend(number.to_be_bytes());
    }
    message.extend(data);
    stream.write_all(&message).await
}

/// The name in the data of INFO and GO: its length, itself, then what the client wants to be told.
fn wanted(data: &[u8]) -> Option<&[u8]> {
    let (length, rest) = data.split_first_chunk::<4>()?;
    let (name, rest) = rest.split_at_checked(u32::from_be_bytes(*length) as usize)?;
    let (count, rest) = rest.split_first_chunk::<2>()?;
    (rest.len() == usize::from(u16::from_be_bytes(*count)) * 2).then_some(name)
}

fn find(exports: &Exports, name: &[u8]) -> Option<Export> {
    let name = std::str::from_utf8(name).ok()?;
    exports
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .get(name)
        .cloned()
}

fn nonsense(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_found_only_in_data_of_the_right_length() {
        let cases: [(&[u8], Option<&[u8]>); 6] = [
            (b"\0\0\0\x02ab\0\0", Some(b"ab")),
            (b"\0\0\0\x02ab\0\x01\0\x03", Some(b"ab")),
            (b"\0\0\0\0\0\0", Some(b"")),
            (b"\0\0\0\x02ab\0\x01", None),
            (b"\xff\xff\xff\xffab\0\0", None),
            (b"\0\0", None),
        ];
        for (data, name) in cases {
            assert_eq!(wanted(data), name, "{data:?}");
        }
    }
}
