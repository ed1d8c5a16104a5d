//! The kernel's caches of answers about exports (net/sunrpc/cache.c): which of them no longer hold after a change, and the
//! lines that make it ask mountd again. Pure.
//!
//! An answer with a time in the past is one that was never given. To flush a whole cache would make every client of every
//! volume ask again; mountd needs half a second an answer where there are thousands.

use std::net::IpAddr;
use std::path::Path;

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
}

impl Stale<'_> {
    /// A domain is the names of all clients that an address is known under, joined by commas; or, where these are many,
    /// `$` and the address.
    fn is_about(&self, domain: &str) -> bool {
        let Some(peers) = self.peers else { return true };
        let one = |name: &str| {
            let address: Option<IpAddr> = name.strip_prefix('$').and_then(|text| text.parse().ok());
            peers.iter().any(|peer| {
                peer.with_read_only(false).to_string() == name || address.is_some_and(|address| peer.contains(address))
            })
        };
        domain.split(',').any(one)
    }
}

/// Of a cache's content the answers that hold and say yes.
pub(super) fn allowed(content: &str) -> String {
    let yes = content.lines().filter(|line| !line.starts_with('#'));
    yes.map(|line| format!("{line}\n")).collect()
}

/// Of a cache's content what was asked and not answered, and the answers that say no. mountd leaves a question unanswered
/// where an export is not mounted, and the kernel asks it no second time within two minutes.
fn unanswered(content: &str) -> String {
    let no = content.lines().filter(|line| line.starts_with("# "));
    no.map(|line| format!("{line}\n")).collect()
}

/// Lines for the channel of `nfsd.export`, from its content: `PATH TAB DOMAIN(FLAGS)`.
pub(super) fn exports(content: &str, stale: &Stale<'_>) -> Vec<String> {
    let about = |path: &Path, domain: &str| stale.path.is_some_and(|stale| stale == path) && stale.is_about(domain);
    exports_where(content, about)
}

/// The same, for all that was not answered.
pub(super) fn unanswered_exports(content: &str) -> Vec<String> {
    exports_where(&unanswered(content), |_, _| true)
}

fn exports_where(content: &str, about: impl Fn(&Path, &str) -> bool) -> Vec<String> {
    let line = |line: &str| {
        let (path, rest) = line.split_once('\t')?;
        let domain = rest.split_once('(')?.0;
        let path = unescape(path);
        about(&path, domain).then(|| format!("{domain} {} {PAST}\n", escape(&path)))
    };
    lines(content).filter_map(line).collect()
}

/// Lines for the channel of `nfsd.fh`, from its content: `DOMAIN TYPE 0xWORDS [PATH]`, the words in the machine's order.
pub(super) fn handles(content: &str, stale: &Stale<'_>) -> Vec<String> {
    // With the export's own inode before it or not.
    let about = |id: &[u8], domain: &str| {
        stale.fsid.is_some_and(|fsid| id.ends_with(fsid.as_bytes())) && stale.is_about(domain)
    };
    handles_where(content, about)
}

/// The same, for all that was not answered.
pub(super) fn unanswered_handles(content: &str) -> Vec<String> {
    handles_where(&unanswered(content), |_, _| true)
}

fn handles_where(content: &str, about: impl Fn(&[u8], &str) -> bool) -> Vec<String> {
    let line = |line: &str| {
        let mut words = line.split(' ');
        let (domain, kind, id) = (words.next()?, words.next()?, words.next()?);
        let id = bytes_of_words(id.strip_prefix("0x")?)?;
        let hex: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
        about(&id, domain).then(|| format!("{domain} {kind} \\x{hex} {PAST}\n"))
    };
    lines(content).filter_map(line).collect()
}

/// Lines for the channel of `auth.unix.ip`, from its content: `CLASS ADDRESS DOMAIN`. For all addresses of these clients.
pub(super) fn addresses(content: &str, peers: &[Client]) -> Vec<String> {
    let line = |line: &str| {
        let mut words = line.split(' ');
        let (class, text) = (words.next()?, words.next()?);
        let address: IpAddr = text.parse().ok()?;
        // The kernel keeps IPv4 addresses as IPv6 ones, and shows them as they were.
        let about = peers.iter().any(|peer| peer.contains(address.to_canonical()));
        about.then(|| format!("{class} {text} {PAST}\n"))
    };
    lines(content).filter_map(line).collect()
}

/// The entries of a cache, those among them that say no: these stand behind a `# `, as the heading stands behind a `#`.
fn lines(content: &str) -> impl Iterator<Item = &str> {
    content.lines().filter_map(|line| match line.strip_prefix('#') {
        Some(rest) => rest.strip_prefix(' ').filter(|rest| !rest.starts_with("expiry=")),
        None => Some(line),
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

    fn stale<'a>(peers: Option<&'a [Client]>) -> Stale<'a> {
        Stale {
            path: Some(Path::new("/volumes/a")),
            fsid: Some(A),
            peers,
        }
    }

    #[test]
    fn answers_about_one_client_are_told_from_its_neighbours() {
        let two = clients(&["10.77.0.2:ro"]);
        assert_eq!(
            exports(caches()[0], &stale(Some(&two))),
            ["10.77.0.0/24,10.77.0.2 /volumes/a 1\n"]
        );
        let handle = "\\x4d311d4d516f55eb92abb67edd849a50";
        assert_eq!(
            handles(caches()[1], &stale(Some(&two))),
            [format!("10.77.0.2 6 {handle} 1\n")]
        );
        let nobody = clients(&["10.77.0.77"]);
        assert!(exports(caches()[0], &stale(Some(&nobody))).is_empty());
    }

    #[test]
    fn of_an_export_whose_users_changed_all_answers_go_also_those_that_said_no() {
        assert_eq!(
            exports(caches()[0], &stale(None)),
            [
                "10.77.0.3 /volumes/a 1\n",
                "10.77.0.0/24,10.77.0.2 /volumes/a 1\n",
                "10.77.0.9 /volumes/a 1\n"
            ]
        );
        assert_eq!(handles(caches()[1], &stale(None)).len(), 2);
    }

    #[test]
    fn what_says_no_is_not_among_what_is_allowed() {
        let all = exports(caches()[0], &stale(None));
        let yes = exports(&allowed(caches()[0]), &stale(None));
        assert!(!yes.is_empty() && yes.len() < all.len(), "{yes:?} of {all:?}");
    }

    /// As a server's caches looked (6.12) while a client waited for a volume whose pool was not there.
    #[test]
    fn what_was_not_answered_is_asked_again_and_nothing_else() {
        let waiting = "#domain fsidtype fsid [path]\n# 10.77.0.2 6 0xa08966c14541644717dd92a8d04b04fd\n";
        assert_eq!(
            unanswered_handles(waiting),
            ["10.77.0.2 6 \\xc16689a047644145a892dd17fd044bd0 1\n"]
        );
        let holds = waiting.replace("# 10", "10");
        assert!(unanswered_handles(&holds).is_empty());
        let (yes, all) = (allowed(caches()[0]), exports_where(caches()[0], |_, _| true));
        let again = unanswered_exports(caches()[0]);
        assert!(!again.is_empty() && again.len() < all.len(), "{again:?} of {all:?}");
        assert!(unanswered_exports(&yes).is_empty());
    }

    #[test]
    fn addresses_are_those_of_the_clients() {
        assert_eq!(addresses(caches()[2], &clients(&["10.77.0.2"])), ["nfsd 10.77.0.2 1\n"]);
        assert_eq!(
            addresses(caches()[2], &clients(&["10.77.0.0/24:ro"])),
            ["nfsd 10.77.0.3 1\n", "nfsd 10.77.0.2 1\n"]
        );
        assert_eq!(addresses(caches()[2], &clients(&["fd00::/16"])), ["nfsd fd00::2 1\n"]);
    }

    #[test]
    fn a_domain_that_is_an_address_alone_is_compared_as_one() {
        let peers = clients(&["10.77.0.0/24"]);
        assert!(stale(Some(&peers)).is_about("$10.77.0.5") && !stale(Some(&peers)).is_about("$10.78.0.5"));
    }
}
