//! The kernel's caches of answers about exports (net/sunrpc/cache.c): which of them no longer hold after a change, and the
//! lines that make it ask mountd again. Pure.
//!
//! An answer with a time in the past is one that was never given. To flush a whole cache would make every client of every
//! volume ask again; mountd needs half a second an answer where there are thousands.
//!
//! Invariant: nobody who waits for an answer is told no by accident. A question that was not answered yet is answered by whatever is
//! written, its time notwithstanding: who waits for it looks only at yes or no (cache_check after cache_wait_req), and no is a stale
//! handle. A cache's content shows the two alike, behind a `# `: what was answered with no, and what was not answered.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use cistern_model::Client;
use uuid::Uuid;

use super::super::mounts::unescape;
use super::table::escape;

/// Long past, for a cache's time of expiry.
const PAST: &str = "1";

/// What the cached answers are about that no longer hold.
#[derive(Debug, Clone, Default)]
pub(super) struct Stale<'a> {
    /// The export.
    pub(super) path: Option<&'a Path>,
    /// Its fsid.
    pub(super) fsid: Option<Uuid>,
    /// The clients whose access changed; none: everybody's.
    pub(super) peers: Option<&'a [Client]>,
    /// Clients that had no access before: what they were told no is to be asked again. Nobody else's no is touched, because it may be
    /// a question that somebody waits for.
    pub(super) newcomers: &'a [Client],
}

impl Stale<'_> {
    fn is_about(&self, said: Said, domain: &str) -> bool {
        match said {
            Said::Yes => self.peers.is_none_or(|peers| is_of(domain, peers)),
            Said::NoOrNothing => is_of(domain, self.newcomers),
        }
    }
}

/// Whether a domain has one of these clients. It is the names of all clients that an address is known under, joined by commas; or, where
/// these are many, `$` and the address.
pub(super) fn is_of(domain: &str, clients: &[Client]) -> bool {
    domain.split(',').any(|name| {
        let address: Option<IpAddr> = name.strip_prefix('$').and_then(|text| text.parse().ok());
        clients.iter().any(|client| {
            client.with_read_only(false).to_string() == name || address.is_some_and(|address| client.contains(address))
        })
    })
}

/// What a cache has about something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Said {
    Yes,
    /// No, or no answer yet. mountd leaves a question unanswered where an export is not mounted, and the kernel asks it no second time
    /// within two minutes.
    NoOrNothing,
}

/// Of a cache's content the answers that hold and say yes.
pub(super) fn allowed(content: &str) -> String {
    let yes = content.lines().filter(|line| !line.starts_with('#'));
    yes.map(|line| format!("{line}\n")).collect()
}

/// Lines for the channel of `nfsd.export`, from its content, that take back what no longer holds.
pub(super) fn exports(content: &str, stale: &Stale<'_>) -> Vec<String> {
    let entries = export_entries(content)
        .filter(|entry| stale.path.is_some_and(|path| path == entry.path) && stale.is_about(entry.said, entry.domain));
    entries.map(|entry| no_longer(&entry.path, entry.domain)).collect()
}

/// The line that takes back what was said of one export.
pub(super) fn no_longer(path: &Path, domain: &str) -> String {
    format!("{domain} {} {PAST}\n", escape(path))
}

/// What `nfsd.export` says no to, or has no answer to: path and domain.
pub(super) fn denied(content: &str) -> impl Iterator<Item = (PathBuf, &str)> {
    let entries = export_entries(content).filter(|entry| entry.said == Said::NoOrNothing);
    entries.map(|entry| (entry.path, entry.domain))
}

/// An entry of `nfsd.export`: `PATH TAB DOMAIN(FLAGS)`.
struct ExportSaid<'a> {
    said: Said,
    path: PathBuf,
    domain: &'a str,
}

fn export_entries(content: &str) -> impl Iterator<Item = ExportSaid<'_>> {
    lines(content).filter_map(|(said, line)| {
        let (path, rest) = line.split_once('\t')?;
        Some(ExportSaid {
            said,
            path: unescape(path),
            domain: rest.split_once('(')?.0,
        })
    })
}

/// Lines for the channel of `nfsd.fh`, from its content, that take back what no longer holds.
pub(super) fn handles(content: &str, stale: &Stale<'_>) -> Vec<String> {
    // With the export's own inode before it or not.
    let entries = handle_entries(content).filter(|entry| {
        stale.fsid.is_some_and(|fsid| entry.id.ends_with(fsid.as_bytes())) && stale.is_about(entry.said, entry.domain)
    });
    entries
        .map(|entry| format!("{} {} {} {PAST}\n", entry.domain, entry.kind, hex(&entry.id)))
        .collect()
}

/// What is answered about a handle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reply {
    /// It is of the export at this path.
    Of(PathBuf),
    /// There is no such thing.
    NotThere,
}

/// An answer for the channel of `nfsd.fh`, and how it is taken back.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    /// What it says.
    pub(super) reply: Reply,
    /// The answer.
    pub(super) line: String,
    /// What makes it one that was never given. Nobody waits for it any more by then.
    pub(super) taken_back: String,
}

/// Answers to what `nfsd.fh` has no answer to, or says no to: `reply` tells what is said of the export with this fsid to this domain, if
/// anything. They hold until `until`, in seconds of the wall clock; what may be done there mountd is asked for itself.
pub(super) fn answers(content: &str, until: u64, reply: impl Fn(Uuid, &str) -> Option<Reply>) -> Vec<Answer> {
    let answer = |entry: HandleSaid<'_>| {
        let fsid = Uuid::from_slice(&entry.id).ok()?;
        let reply = reply(fsid, entry.domain)?;
        let question = format!("{} {} {}", entry.domain, entry.kind, hex(&entry.id));
        let path = match &reply {
            Reply::Of(path) => format!(" {}", escape(path)),
            Reply::NotThere => String::new(),
        };
        Some(Answer {
            line: format!("{question} {until}{path}\n"),
            taken_back: format!("{question} {PAST}\n"),
            reply,
        })
    };
    let entries = handle_entries(content).filter(|entry| entry.said == Said::NoOrNothing && entry.kind == WHOLE_UUID);
    entries.filter_map(answer).collect()
}

/// The kind of a handle that names an export by its 16 bytes alone (FSID_UUID16), as those of whole filesystems do.
const WHOLE_UUID: &str = "6";

/// An entry of `nfsd.fh`: `DOMAIN TYPE 0xWORDS [PATH]`, the words in the machine's order.
struct HandleSaid<'a> {
    said: Said,
    domain: &'a str,
    kind: &'a str,
    id: Vec<u8>,
}

fn handle_entries(content: &str) -> impl Iterator<Item = HandleSaid<'_>> {
    lines(content).filter_map(|(said, line)| {
        let mut words = line.split(' ');
        let (domain, kind, id) = (words.next()?, words.next()?, words.next()?);
        Some(HandleSaid {
            said,
            domain,
            kind,
            id: bytes_of_words(id.strip_prefix("0x")?)?,
        })
    })
}

fn hex(id: &[u8]) -> String {
    id.iter()
        .fold("\\x".to_owned(), |text, byte| format!("{text}{byte:02x}"))
}

/// Lines for the channel of `auth.unix.ip`, from its content: `CLASS ADDRESS DOMAIN`. For all addresses of these clients that are known;
/// for those that are not, if they are newcomers'.
pub(super) fn addresses(content: &str, peers: &[Client], newcomers: &[Client]) -> Vec<String> {
    let line = |(said, line): (Said, &str)| {
        let mut words = line.split(' ');
        let (class, text) = (words.next()?, words.next()?);
        let address: IpAddr = text.parse().ok()?;
        let whose = match said {
            Said::Yes => peers,
            Said::NoOrNothing => newcomers,
        };
        // The kernel keeps IPv4 addresses as IPv6 ones, and shows them as they were.
        let about = whose.iter().any(|peer| peer.contains(address.to_canonical()));
        about.then(|| format!("{class} {text} {PAST}\n"))
    };
    lines(content).filter_map(line).collect()
}

/// The entries of a cache. What is no yes stands behind a `# `, as the heading stands behind a `#`.
fn lines(content: &str) -> impl Iterator<Item = (Said, &str)> {
    content.lines().filter_map(|line| match line.strip_prefix('#') {
        Some(rest) => {
            let no = rest.strip_prefix(' ').filter(|rest| !rest.starts_with("expiry="));
            no.map(|rest| (Said::NoOrNothing, rest))
        }
        None => Some((Said::Yes, line)),
    })
}

fn bytes_of_words(hex: &str) -> Option<Vec<u8>> {
    if hex.is_empty() || !hex.len().is_multiple_of(8) || !hex.is_ascii() {
        return None;
    }
    let mut bytes = Vec::new();
    for at in (0..hex.len()).step_by(8) {
        bytes.extend(u32::from_str_radix(&hex[at..at + 8], 16).ok()?.to_ne_bytes());
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Uuid = Uuid::from_u128(0x4d31_1d4d_516f_55eb_92ab_b67e_dd84_9a50);

    fn caches() -> [&'static str; 3] {
        let text = crate::linux::fixture(include_str!("../fixtures/nfsd-caches.txt"));
        let mut parts = text.split("--\n");
        [(); 3].map(|()| parts.next().unwrap())
    }

    fn clients(texts: &[&str]) -> Vec<Client> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn stale<'a>(peers: Option<&'a [Client]>, newcomers: &'a [Client]) -> Stale<'a> {
        Stale {
            path: Some(Path::new("/volumes/a")),
            fsid: Some(A),
            peers,
            newcomers,
        }
    }

    #[test]
    fn answers_about_one_client_are_told_from_its_neighbours() {
        let two = clients(&["10.77.0.2:ro"]);
        assert_eq!(
            exports(caches()[0], &stale(Some(&two), &[])),
            ["10.77.0.0/24,10.77.0.2 /volumes/a 1\n"]
        );
        let yes = caches()[1].replace("# 10", "10");
        assert_eq!(
            handles(&yes, &stale(Some(&two), &[])),
            ["10.77.0.2 6 \\x4d311d4d516f55eb92abb67edd849a50 1\n"]
        );
        let nobody = clients(&["10.77.0.77"]);
        assert!(exports(caches()[0], &stale(Some(&nobody), &nobody)).is_empty());
    }

    #[test]
    fn of_an_export_whose_users_changed_all_go_who_were_told_yes() {
        assert_eq!(
            exports(caches()[0], &stale(None, &[])),
            ["10.77.0.3 /volumes/a 1\n", "10.77.0.0/24,10.77.0.2 /volumes/a 1\n"]
        );
        assert_eq!(handles(caches()[1], &stale(None, &[])).len(), 1);
    }

    /// A no may be a question that somebody waits for, and is answered with no by what takes it back.
    #[test]
    fn what_is_no_yes_is_taken_back_from_newcomers_alone() {
        let nine = clients(&["10.77.0.9"]);
        assert_eq!(
            exports(caches()[0], &stale(Some(&nine), &nine)),
            ["10.77.0.9 /volumes/a 1\n"]
        );
        assert!(exports(caches()[0], &stale(Some(&nine), &[])).is_empty());
        let two = clients(&["10.77.0.2"]);
        assert!(handles(caches()[1], &stale(Some(&two), &[])).is_empty());
        assert_eq!(
            handles(caches()[1], &stale(Some(&two), &two)),
            ["10.77.0.2 6 \\x4d311d4d516f55eb92abb67edd849a50 1\n"]
        );
        assert!(addresses(caches()[2], &two, &[]).is_empty());
    }

    #[test]
    fn what_says_no_is_not_among_what_is_allowed() {
        let nine = clients(&["10.77.0.9"]);
        let all = exports(caches()[0], &stale(None, &nine));
        let yes = exports(&allowed(caches()[0]), &stale(None, &nine));
        assert!(!yes.is_empty() && yes.len() < all.len(), "{yes:?} of {all:?}");
        assert_eq!(
            denied(caches()[0]).collect::<Vec<_>>(),
            [(PathBuf::from("/volumes/a"), "10.77.0.9")]
        );
    }

    /// As a server's caches looked (6.12) while a client waited for a volume whose pool was not there.
    #[test]
    fn who_waits_is_answered_with_what_is_open_to_them() {
        let waiting = "#domain fsidtype fsid [path]\n# 10.77.0.2 6 0xa08966c14541644717dd92a8d04b04fd\n";
        let fsid = Uuid::from_u128(0xc166_89a0_4764_4145_a892_dd17_fd04_4bd0);
        let open = |asked: Uuid, domain: &str| {
            assert_eq!(domain, "10.77.0.2");
            (asked == fsid).then(|| Reply::Of("/volumes/a b".into()))
        };
        let question = "10.77.0.2 6 \\xc16689a047644145a892dd17fd044bd0";
        assert_eq!(
            answers(waiting, 1000, open),
            [Answer {
                reply: Reply::Of("/volumes/a b".into()),
                line: format!("{question} 1000 /volumes/a\\040b\n"),
                taken_back: format!("{question} 1\n"),
            }]
        );
        assert_eq!(answers(waiting, 1000, |_, _| None), []);
        let no = answers(waiting, 1000, |_, _| Some(Reply::NotThere));
        assert_eq!(no[0].line, format!("{question} 1000\n"));
        assert_eq!(answers(&waiting.replace("# 10", "10"), 1000, open), []);
        // The top of all exports, by a number of its own.
        assert_eq!(answers("# 10.77.0.2 1 0x00000000\n", 1000, open), []);
    }

    #[test]
    fn addresses_are_those_of_the_clients() {
        let of = |texts: &[&str]| addresses(caches()[2], &clients(texts), &clients(texts));
        assert_eq!(of(&["10.77.0.2"]), ["nfsd 10.77.0.2 1\n"]);
        assert_eq!(of(&["10.77.0.0/24:ro"]), ["nfsd 10.77.0.3 1\n", "nfsd 10.77.0.2 1\n"]);
        assert_eq!(of(&["fd00::/16"]), ["nfsd fd00::2 1\n"]);
    }

    #[test]
    fn a_domain_that_is_an_address_alone_is_compared_as_one() {
        let peers = clients(&["10.77.0.0/24"]);
        assert!(is_of("$10.77.0.5", &peers) && !is_of("$10.78.0.5", &peers));
        assert!(is_of("10.77.0.9,10.77.0.0/24", &peers) && !is_of("10.77.0.9", &peers));
    }
}
