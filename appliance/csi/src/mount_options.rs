//! The mount options that a class may give. Invariant: what gets through is an NFS option that cannot lead anywhere else: neither
//! another server, nor another version, nor what the plugin decides itself.

use cistern_model::Invalid;

/// Options that stand alone.
const FLAGS: &[&str] = &[
    "ac",
    "noac",
    "acl",
    "noacl",
    "cto",
    "nocto",
    "fg",
    "fsc",
    "nofsc",
    "hard",
    "soft",
    "softerr",
    "softreval",
    "nosoftreval",
    "intr",
    "nointr",
    "sharecache",
    "nosharecache",
    "rdirplus",
    "nordirplus",
    "resvport",
    "ro",
    "rw",
    "sync",
    "async",
    "atime",
    "noatime",
    "diratime",
    "nodiratime",
    "relatime",
    "norelatime",
    "exec",
    "noexec",
    "suid",
    "nosuid",
    "dev",
    "nodev",
    "lock",
    "tcp",
];
/// Options with a number, and the numbers that they may have.
const NUMBERS: &[(&str, std::ops::RangeInclusive<u32>)] = &[
    ("acregmin", 0..=86_400),
    ("acregmax", 0..=86_400),
    ("acdirmin", 0..=86_400),
    ("acdirmax", 0..=86_400),
    ("actimeo", 0..=86_400),
    ("rsize", 4096..=1_048_576),
    ("wsize", 4096..=1_048_576),
    ("timeo", 1..=6000),
    ("retrans", 0..=1000),
    ("retry", 0..=10_000),
    ("nconnect", 1..=16),
    ("max_connect", 1..=16),
];
/// Options with a word of these.
const WORDS: &[(&str, &[&str])] = &[
    ("vers", &["4.1", "4.2"]),
    ("nfsvers", &["4.1", "4.2"]),
    ("minorversion", &["1", "2"]),
    ("proto", &["tcp", "tcp6"]),
    ("sec", &["sys"]),
    ("lookupcache", &["all", "none", "pos", "positive"]),
    ("local_lock", &["none", "all", "flock", "posix"]),
];

/// The most bytes of a label; those of real policies have less than 100.
const LONGEST_LABEL: usize = 255;

/// The options one by one, lists among them taken apart.
///
/// # Errors
/// One that is not NFS's, or that cannot be given here, by its name.
pub fn read(flags: &[String]) -> Result<Vec<String>, Invalid> {
    let all = flags.iter().flat_map(|flag| apart(flag)).map(str::trim);
    all.filter(|option| !option.is_empty()).map(one).collect()
}

/// At each comma that is not between quotes: a label of SELinux's has commas.
fn apart(list: &str) -> impl Iterator<Item = &str> {
    let mut quoted = false;
    list.split(move |c| {
        quoted ^= c == '"';
        c == ',' && !quoted
    })
}

/// A label as the kubelet gives it where a CSIDriver says `seLinuxMount`: all files of the volume have it for this node. It is the
/// kernel's to know whether there is such a one.
fn is_label(value: &str) -> bool {
    let plain = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    let plain = plain.unwrap_or(value);
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || b"_:.,-".contains(&byte);
    (1..=LONGEST_LABEL).contains(&plain.len()) && plain.bytes().all(inner)
}

fn one(option: &str) -> Result<String, Invalid> {
    let refuse = |why: &str| Err(Invalid::new("mount option", option, why));
    let (key, value) = match option.split_once('=') {
        None if FLAGS.contains(&option) => return Ok(option.to_owned()),
        // They are exported as `secure`.
        None if option == "noresvport" => {
            return refuse(
                "an appliance lets nobody in who comes from a port above 1023, and this asks for such a one",
            );
        }
        None => return refuse("it is none of NFS 4's that can be given in a class; see `man 5 nfs`"),
        Some(pair) => pair,
    };
    if let Some((_, range)) = NUMBERS.iter().find(|(known, _)| *known == key) {
        return match value.parse::<u32>() {
            Ok(number) if range.contains(&number) => Ok(option.to_owned()),
            _ => refuse(&format!("give a number from {} to {}", range.start(), range.end())),
        };
    }
    if key == "context" {
        return match is_label(value) {
            true => Ok(option.to_owned()),
            false => refuse("give a label of SELinux's, in quotes if it has commas"),
        };
    }
    match WORDS.iter().find(|(known, _)| *known == key) {
        Some((_, words)) if words.contains(&value) => Ok(option.to_owned()),
        Some((_, words)) => refuse(&format!("give one of {}", words.join(", "))),
        None if ["addr", "clientaddr", "mountaddr", "port", "fsc"].contains(&key) => {
            refuse("the plugin decides this itself")
        }
        None => refuse("it is none of NFS 4's that can be given in a class; see `man 5 nfs`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_taken_apart_and_each_is_looked_at() {
        let flags = ["hard,nconnect=4".to_owned(), " noatime ".to_owned(), String::new()];
        assert_eq!(read(&flags).unwrap(), ["hard", "nconnect=4", "noatime"]);
        // As a kubelet writes it.
        let label = "context=\"system_u:object_r:container_file_t:s0:c15,c25\"";
        assert_eq!(
            read(&[format!("hard,{label},noatime")]).unwrap(),
            ["hard", label, "noatime"]
        );
        for wrong in [
            "nconnect=0",
            "nconnect=x",
            "vers=3",
            "addr=10.0.0.1",
            "bind",
            "remount",
            "loop",
            "x-mount.mkdir",
            "sec=krb5",
            "uid=0",
            "rsize=1",
            "hard=1",
            "port=111",
            "context=",
            "context=a b",
            "context=a;b",
            "fscontext=a",
            "noresvport",
        ] {
            let told = read(&[wrong.to_owned()]).unwrap_err().to_string();
            assert!(told.contains(wrong), "{told}");
        }
    }

    #[test]
    fn what_an_appliance_lets_nobody_in_with_is_refused_for_that() {
        let told = read(&["hard,noresvport".to_owned()]).unwrap_err().to_string();
        assert!(
            told.contains("noresvport") && told.contains("port above 1023"),
            "{told}"
        );
        assert_eq!(read(&["resvport".to_owned()]).unwrap(), ["resvport"]);
    }
}
