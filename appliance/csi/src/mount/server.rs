//! Whether an appliance's NFS server answers. Invariant: each question has its limit; a server whose machine takes connections and
//! whose NFS threads all hang does not answer.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, lookup_host};

/// NFS 4's port.
const PORT: u16 = 2049;
/// NFS' number among RPC's programs, and version 4's.
const PROGRAM: [u32; 2] = [100_003, 4];
/// What marks the last part of a message (RFC 5531, section 11).
const LAST: u32 = 1 << 31;

/// A server's addresses, each once, in the order of the node's resolver.
pub(super) async fn addresses(server: &str, within: Duration) -> io::Result<Vec<IpAddr>> {
    if let Ok(address) = server.parse() {
        return Ok(vec![address]);
    }
    let found = tokio::time::timeout(within, lookup_host((server, PORT))).await;
    let found = found.map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "no answer to the question for its name"))?;
    let mut all = Vec::new();
    for address in found? {
        if !all.contains(&address.ip()) {
            all.push(address.ip());
        }
    }
    match all.is_empty() {
        false => Ok(all),
        true => Err(io::Error::new(io::ErrorKind::NotFound, "it has no address")),
    }
}

/// Fails unless the NFS server at an address answers a request that asks for nothing.
pub(super) async fn knock(address: IpAddr, within: Duration) -> io::Result<()> {
    let asked = tokio::time::timeout(within, ask(SocketAddr::new(address, PORT))).await;
    asked.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

async fn ask(address: SocketAddr) -> io::Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    let id = u32::from_be_bytes(*b"cist");
    let [program, version] = PROGRAM;
    // A call (0) by version 2 of RPC, of procedure 0, by nobody, who proves nothing.
    let call = [id, 0, 2, program, version, 0, 0, 0, 0, 0];
    let length = u32::try_from(call.len() * 4).unwrap_or_default();
    let message: Vec<u8> = [LAST | length]
        .iter()
        .chain(&call)
        .flat_map(|w| w.to_be_bytes())
        .collect();
    stream.write_all(&message).await?;
    let mut answer = [0; 16];
    stream.read_exact(&mut answer).await?;
    let word = |at: usize| u32::from_be_bytes([answer[at], answer[at + 1], answer[at + 2], answer[at + 3]]);
    // A reply (1) to that call which was accepted (0).
    match (word(4), word(8), word(12)) {
        (got, 1, 0) if got == id => Ok(()),
        _ => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "what answers there is no NFS server",
        )),
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    const SHORT: Duration = Duration::from_millis(200);

    async fn answering(with: Option<[u32; 4]>) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut call = [0; 44];
            stream.read_exact(&mut call).await.unwrap();
            assert_eq!(call[..4], (LAST | 40).to_be_bytes());
            if let Some(words) = with {
                let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
                stream.write_all(&bytes).await.unwrap();
            }
            std::future::pending::<()>().await;
        });
        address
    }

    #[tokio::test]
    async fn only_who_answers_as_a_server_of_nfs_is_there() {
        let id = u32::from_be_bytes(*b"cist");
        let good = answering(Some([LAST | 24, id, 1, 0])).await;
        ask(good).await.unwrap();
        for wrong in [[LAST | 24, id, 1, 1], [LAST | 24, 7, 1, 0]] {
            assert!(ask(answering(Some(wrong)).await).await.is_err());
        }
        // It takes the connection, and then says nothing.
        let silent = answering(None).await;
        assert!(tokio::time::timeout(SHORT, ask(silent)).await.is_err());
    }

    #[tokio::test]
    async fn an_address_stands_for_itself() {
        let all = addresses("fd00::5", SHORT).await.unwrap();
        assert_eq!(all, ["fd00::5".parse::<IpAddr>().unwrap()]);
    }
}
