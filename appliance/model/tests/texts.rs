//! Everything that is read from text: whatever is typed is refused with words, or is a value that reads back as itself,
//! from its text and from JSON alike. Nothing panics, and what is accepted is within its bounds.
#![allow(missing_docs, clippy::unwrap_used)]

use std::fmt::{Debug, Display};
use std::str::FromStr;

use cistern_model::{
    AlertId, Bytes, Client, DiskId, Encryption, Invalid, JobId, Label, Labels, Layout, MOST_KEPT, MOST_LABELS, Mode,
    NodeName, Overcommit, Owner, Period, PoolId, PoolName, Reserve, Role, Schedule, ScrubEvery, Security, SnapshotId,
    SnapshotName, Squash, TokenId, TokenName, TransportSecurity, VolumeId, VolumeName, VolumeSource,
};
use proptest::prelude::*;
use proptest::test_runner::TestCaseResult;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// What is accepted reads back; what is not is refused in words that are short, whatever was typed.
fn reads_back<T>(text: &str) -> Result<Option<T>, TestCaseError>
where
    T: FromStr<Err = Invalid> + Display + Debug + PartialEq,
{
    match text.parse::<T>() {
        Ok(value) => {
            let again = value.to_string().parse::<T>().ok();
            prop_assert_eq!(again.as_ref(), Some(&value), "{:?}", text);
            Ok(Some(value))
        }
        Err(why) => {
            let why = why.to_string();
            prop_assert!(!why.is_empty() && why.chars().count() < 500, "{}", why);
            Ok(None)
        }
    }
}

/// What is no size is refused in words.
fn size_like(text: &str) -> Option<String> {
    text.parse::<Bytes>().err().map(|why| why.to_string())
}

/// The same where JSON carries the text: it accepts what the text does, and nothing else.
fn json_too<T>(text: &str) -> Result<Option<T>, TestCaseError>
where
    T: FromStr<Err = Invalid> + Display + Debug + PartialEq + Serialize + DeserializeOwned,
{
    let value = reads_back::<T>(text)?;
    let from_json: Option<T> = serde_json::from_value(serde_json::Value::String(text.to_owned())).ok();
    prop_assert_eq!(&from_json, &value, "{:?}", text);
    if let Some(value) = &value {
        let json = serde_json::to_string(value).unwrap();
        let again = serde_json::from_str::<T>(&json).ok();
        prop_assert_eq!(again.as_ref(), Some(value));
    }
    Ok(value)
}

/// Anything, and what comes near to what is meant.
fn near(pattern: &'static str) -> impl Strategy<Value = String> {
    prop_oneof![
        "\\PC{0,300}",
        ".{0,20}",
        pattern.prop_map(|text: String| text),
        // With something before, behind or within.
        (pattern, ".{0,2}", any::<prop::sample::Index>()).prop_map(|(text, odd, at)| {
            let places: Vec<usize> = text.char_indices().map(|(n, _)| n).chain([text.len()]).collect();
            let at = places[at.index(places.len())];
            format!("{}{odd}{}", &text[..at], &text[at..])
        }),
    ]
}

const ID: &str = "(vol|snap|pool|job|tok|)-?[0-9a-f]{30,33}";
const NAME: &str = "[a-z0-9-]{0,70}|\\PC{0,140}| x|(vol|snap|pool)-[0-9a-f]{32}";

fn is_plain(text: &str, most: usize) -> TestCaseResult {
    prop_assert!(!text.is_empty() && text.len() <= most, "{:?}", text);
    prop_assert!(!text.chars().any(char::is_control) && text.trim() == text, "{:?}", text);
    Ok(())
}

fn is_dns(text: &str) -> TestCaseResult {
    is_plain(text, 63)?;
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    prop_assert!(text.chars().all(allowed) && !text.starts_with('-') && !text.ends_with('-'));
    Ok(())
}

/// Safe as a path component, an LVM name and a part of a URL.
fn is_safe(text: &str) -> TestCaseResult {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "_.:-".contains(c);
    prop_assert!(
        text.chars().all(allowed) && text != "." && text != ".." && !text.starts_with('-'),
        "{:?}",
        text
    );
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2_000) })]

    #[test]
    fn a_size_is_what_its_digits_and_its_unit_say(text in near(r"[0-9]{0,21}(\.[0-9]{0,10})?( ?([kKMGTPE]i?)?B?)?")) {
        if let Ok(size) = text.parse::<Bytes>() {
            // For people it is rounded; exact in its longer form.
            prop_assert_eq!(format!("{size:#}").parse(), Ok(size));
            prop_assert_eq!(serde_json::from_value::<Bytes>(serde_json::json!(size.get())).ok(), Some(size));
        }
        prop_assert!(size_like(&text).is_none_or(|why| why.contains("size")));
    }

    #[test]
    fn a_whole_number_of_a_unit_is_that_many_bytes_or_too_large(count: u32, unit in 0usize..6, decimal: bool) {
        let name = ["", "k", "M", "G", "T", "P"][unit];
        let (suffix, base) = if decimal || unit == 0 { ("B", 1000_u128) } else { ("iB", 1024) };
        let name = if suffix == "iB" { name.replace('k', "K") } else { name.to_owned() };
        let expected = u128::from(count) * base.pow(u32::try_from(unit).unwrap());
        let read = format!("{count}{name}{suffix}").parse::<Bytes>().ok().map(|bytes| u128::from(bytes.get()));
        prop_assert_eq!(read, Some(expected).filter(|bytes| *bytes <= u128::from(u64::MAX)));
    }

    #[test]
    fn a_fraction_of_a_unit_is_rounded_by_less_than_a_byte(whole in 0u64..1000, tenths in 0u64..10) {
        let read = format!("{whole}.{tenths}GiB").parse::<Bytes>().unwrap().get();
        let tenfold = (whole * 10 + tenths) << 30;
        prop_assert!((read * 10).abs_diff(tenfold) < 10, "{} {}", read, tenfold);
    }

    #[test]
    fn names_are_short_and_without_control_characters(text in near(NAME)) {
        let names = [
            json_too::<VolumeName>(&text)?.map(String::from),
            json_too::<SnapshotName>(&text)?.map(String::from),
        ];
        for name in names.into_iter().flatten() {
            prop_assert_eq!(&name, &text);
            is_plain(&name, 128)?;
            // Either can be given where the other is meant.
            prop_assert!(name.parse::<VolumeId>().is_err() && name.parse::<SnapshotId>().is_err());
        }
    }

    #[test]
    fn names_of_pools_owners_and_tokens_are_dns_labels(text in near("[a-z0-9-]{0,66}|[A-Za-z0-9._-]{1,8}|pool-[0-9a-f]{32}")) {
        let names = [
            json_too::<PoolName>(&text)?.map(String::from),
            json_too::<Owner>(&text)?.map(String::from),
            json_too::<TokenName>(&text)?.map(String::from),
        ];
        for name in names.into_iter().flatten() {
            prop_assert_eq!(&name, &text);
            is_dns(&name)?;
            prop_assert!(name.parse::<PoolId>().is_err());
        }
    }

    #[test]
    fn a_node_s_name_is_safe_anywhere(text in near("[A-Za-z0-9._-]{0,60}|[a-z0-9.-]{250,256}")) {
        if let Some(name) = json_too::<NodeName>(&text)? {
            prop_assert_eq!(name.as_str(), &text);
            is_plain(&text, 253)?;
            is_safe(&text)?;
        }
    }

    #[test]
    fn ids_have_one_form_and_are_safe_anywhere(text in near(ID)) {
        let ids = [
            json_too::<VolumeId>(&text)?.map(String::from),
            json_too::<SnapshotId>(&text)?.map(String::from),
            json_too::<PoolId>(&text)?.map(String::from),
            json_too::<JobId>(&text)?.map(String::from),
            json_too::<TokenId>(&text)?.map(String::from),
        ];
        prop_assert!(ids.iter().flatten().count() <= 1, "of one kind: {:?}", ids);
        for id in ids.into_iter().flatten() {
            prop_assert_eq!(&id, &text);
            is_safe(&id)?;
        }
        json_too::<VolumeSource>(&text)?;
    }

    #[test]
    fn any_uuid_is_an_id_that_reads_back(uuid: u128) {
        let uuid = uuid::Uuid::from_u128(uuid);
        prop_assert_eq!(json_too::<VolumeId>(&VolumeId::from_uuid(uuid).to_string())?.map(VolumeId::uuid), Some(uuid));
        prop_assert_eq!(json_too::<PoolId>(&PoolId::from_uuid(uuid).to_string())?.map(PoolId::uuid), Some(uuid));
        let source = VolumeSource::Snapshot(SnapshotId::from_uuid(uuid));
        prop_assert_eq!(json_too::<VolumeSource>(&source.to_string())?, Some(source));
    }

    #[test]
    fn a_disk_is_known_by_what_reads_back_and_is_safe_anywhere(text in near("(free-){0,2}(wwn|nvme|serial|path|sd)-?[A-Za-z0-9_.:/ -]{0,210}")) {
        if let Some(id) = json_too::<DiskId>(&text)? {
            prop_assert_eq!(id.as_str(), &text);
            is_safe(id.as_str())?;
            prop_assert_eq!(id.is_free_part(), text.starts_with("free-"));
        }
        // Whatever a device says of itself.
        for id in [DiskId::from_wwn(&text), DiskId::from_serial(&text), DiskId::from_path(&text)] {
            is_safe(id.as_str())?;
            prop_assert!(id.as_str().len() <= 210);
            if !text.trim().is_empty() {
                prop_assert_eq!(json_too::<DiskId>(id.as_str())?, Some(id.clone()));
                // What is free of it has an id of its own, which is none of another disk.
                let free = DiskId::free_part_of(&id);
                is_safe(free.as_str())?;
                prop_assert!(free.is_free_part() && free.is_place() == id.is_place() && !id.is_free_part());
                prop_assert_eq!(json_too::<DiskId>(free.as_str())?, Some(free));
            }
        }
    }

    #[test]
    fn a_label_is_a_key_and_a_value_within_their_bounds(text in near("[A-Za-z0-9_./-]{0,66}=\\PC{0,130}")) {
        if let Some(label) = json_too::<Label>(&text)? {
            prop_assert_eq!(format!("{}={}", label.key(), label.value()), text);
            prop_assert!((1..=63).contains(&label.key().len()) && label.value().len() <= 128);
            prop_assert!(!label.value().chars().any(char::is_control));
        }
    }

    #[test]
    fn labels_are_at_most_thirty_two_and_read_back(map in prop::collection::btree_map("[a-z]{1,6}|-", "[a-z ]{0,4}|\\PC{0,140}", 0..40)) {
        let fits = map.len() <= MOST_LABELS && map.iter().all(|(key, value)| Label::new(key, value).is_ok());
        let json = serde_json::to_value(&map).unwrap();
        let labels = serde_json::from_value::<Labels>(json.clone()).ok();
        prop_assert_eq!(labels.is_some(), fits);
        if let Some(labels) = labels {
            prop_assert_eq!(serde_json::to_value(&labels).unwrap(), json);
            prop_assert_eq!(labels.iter().count(), map.len());
        }
    }

    #[test]
    fn a_client_is_an_address_or_a_network_and_has_one_form(
        text in near(r"([0-9]{1,3}\.){3}[0-9]{1,3}(/[0-9]{1,2})?(:ro)?|[0-9a-f:]{2,20}(/[0-9]{1,3})?(:ro)?"),
    ) {
        if let Some(client) = json_too::<Client>(&text)? {
            prop_assert_eq!(client.is_read_only(), text.ends_with(":ro"));
            // exports(5) is a file of lines, words and parentheses.
            prop_assert!(client.to_string().chars().all(|c| c.is_ascii_hexdigit() || ".:/ro".contains(c)));
        }
    }

    #[test]
    fn any_address_is_a_client_that_it_contains(bits: u32, prefix in 1u32..=32, read_only: bool) {
        let address = std::net::Ipv4Addr::from(bits);
        let network = std::net::Ipv4Addr::from(bits & (u32::MAX << (32 - prefix)));
        let suffix = if read_only { ":ro" } else { "" };
        // One address that no client can have is none with a prefix either.
        let nobody = prefix == 32 && (network.is_unspecified() || network.is_multicast());
        let client = json_too::<Client>(&format!("{network}/{prefix}{suffix}"))?;
        prop_assert_eq!(client.is_none(), nobody);
        if let Some(client) = client {
            prop_assert!(client.contains(address.into()) && client.is_read_only() == read_only);
            prop_assert!(client.is_same_peer(&client.with_read_only(!read_only)));
        }
        // With bits beyond the prefix it is not clear what was meant.
        if network != address {
            let text = format!("{address}/{prefix}");
            prop_assert_eq!(json_too::<Client>(&text)?, None);
        }
    }

    #[test]
    fn a_schedule_keeps_no_more_than_it_may(text in near("((hourly|daily|weekly|x)=?[0-9]{0,4},?){0,4}|none")) {
        if let Some(schedule) = reads_back::<Schedule>(&text)? {
            prop_assert!(Period::ALL.into_iter().all(|period| schedule.kept(period) <= MOST_KEPT));
            let json = serde_json::to_string(&schedule).unwrap();
            prop_assert_eq!(serde_json::from_str::<Schedule>(&json).ok(), Some(schedule));
        }
        reads_back::<Period>(&text)?;
    }

    #[test]
    fn options_have_one_form_each(text in near("(sys|krb5|none|root|all|tls|mtls)[ip,]?|[0-7]{0,5}")) {
        json_too::<Squash>(&text)?;
        json_too::<Security>(&text)?;
        json_too::<TransportSecurity>(&text)?;
        if let Some(mode) = json_too::<Mode>(&text)? {
            prop_assert!(mode.bits() <= 0o7777);
        }
    }

    #[test]
    fn what_a_pool_has_is_one_of_those_that_there_are(text in near("none|key|tpm2?|luks2|daily|weekly|monthly")) {
        if let Some(encryption) = json_too::<Encryption>(&text)? {
            prop_assert!(Encryption::ALL.contains(&encryption) && encryption.name() == text);
        }
        if let Some(every) = json_too::<ScrubEvery>(&text)? {
            prop_assert!(ScrubEvery::ALL.contains(&every) && every.name() == text);
            prop_assert_eq!(every.interval().is_none(), every == ScrubEvery::None);
        }
    }

    #[test]
    fn percents_are_within_their_bounds(text in near("[0-9]{0,6}%?"), number: u32) {
        let overcommit = text.parse::<Overcommit>().ok().into_iter().chain(Overcommit::new(number).ok());
        for percents in overcommit {
            prop_assert!((10..=10_000).contains(&percents.get()));
        }
        for percents in text.parse::<Reserve>().ok().into_iter().chain(Reserve::new(number).ok()) {
            prop_assert!(percents.get() <= 100);
            prop_assert_eq!(percents.get().to_string().parse::<Reserve>().ok(), Some(percents));
        }
    }

    #[test]
    fn layouts_roles_and_alerts_are_those_that_there_are(
        text in near("single|mirror|stripe-mirror|parity|double-parity|raid[0-9]|admin|viewer|provisioner|pool-degraded(\\.[a-z./]{0,5})?"),
    ) {
        if let Some(layout) = json_too::<Layout>(&text)? {
            prop_assert!(Layout::ALL.contains(&layout) && layout.name() == text);
        }
        json_too::<Role>(&text)?;
        json_too::<AlertId>(&text)?;
    }
}
