//! The keys of encrypted pools: kept, lost, given back, sealed by a TPM.

use cistern_model::{AlertKind, ErrorKind, EventKind, JobState, Layout, OrphanKind, PoolKeyRequest, PoolState};

use crate::layers::{BOTH, SEALED, file_is_there, is_blank, request, with};
use crate::support::{Rig, by, refused, serial};

pub(crate) fn with_a_tpm() -> Rig {
    let rig = Rig::new();
    rig.machine.fit_tpm(Some(1));
    rig
}

/// A machine with a TPM and a pool whose key it has sealed.
fn sealed() -> (Rig, String) {
    let rig = with_a_tpm();
    let job = rig.try_pool(&request(SEALED, Layout::Mirror, &["a", "b"])).unwrap();
    assert_eq!(job.state, JobState::Succeeded, "{job:?}");
    let key = rig.engine.pool_key(&by(), "tank").unwrap();
    (rig, key.key)
}

#[test]
fn a_key_is_read_with_an_event_and_one_that_is_lost_is_given_back() {
    let mut rig = with(BOTH, Layout::Mirror, &["a", "b"]);
    rig.make_pool("plain", Layout::Single, &["c"]);
    let key = rig.engine.pool_key(&by(), "tank").unwrap();
    refused(rig.engine.pool_key(&by(), "plain"), ErrorKind::Invalid);
    let events = rig.engine.events(0, 1000);
    assert_eq!(events.iter().filter(|e| e.kind == EventKind::PoolKeyUsed).count(), 1);
    assert!(!events.iter().any(|e| e.message.contains(&key.key)));
    // The state partition is lost, and with it the key.
    let record = format!("key-{}", key.pool);
    rig.machine.host().records.remove(&record).unwrap();
    rig.restart();
    assert!(rig.engine.pool(&by(), "tank").is_err());
    assert_eq!(rig.engine.pool(&by(), "plain").unwrap().state, PoolState::Ready);
    let orphans = rig.engine.orphans().unwrap();
    let orphan = orphans
        .iter()
        .find(|orphan| orphan.object == key.pool.to_string())
        .unwrap();
    assert_eq!(orphan.kind, OrphanKind::LockedPool);
    assert_eq!(orphan.disks, [serial("a"), serial("b")]);
    let alerts = rig.engine.alerts(false);
    assert!(alerts.iter().any(|alert| alert.kind == AlertKind::PoolIncomplete));
    let before = [rig.machine.writes(&serial("a")), rig.machine.writes(&serial("b"))];
    let id = key.pool.to_string();
    let give = |text: &str| {
        rig.engine
            .give_pool_key(&by(), &id, &PoolKeyRequest { key: text.to_owned() })
    };
    refused(give("ABCD"), ErrorKind::Invalid);
    let other = with(BOTH, Layout::Mirror, &["a", "b"]);
    refused(
        give(&other.engine.pool_key(&by(), "tank").unwrap().key),
        ErrorKind::Conflict,
    );
    assert_eq!(rig.machine.record(&record), None);
    give(&key.key.to_lowercase().replace('-', " ")).unwrap();
    assert_eq!(rig.engine.pool(&by(), "tank").unwrap().state, PoolState::Ready);
    assert_eq!(
        [rig.machine.writes(&serial("a")), rig.machine.writes(&serial("b"))],
        before
    );
    assert!(
        !rig.engine
            .alerts(false)
            .iter()
            .any(|alert| alert.kind == AlertKind::PoolIncomplete)
    );
    rig.restart();
    rig.check();
    file_is_there(&rig);
}

#[test]
fn a_key_that_a_tpm_would_seal_is_refused_where_there_is_none_before_anything_is_touched() {
    let rig = Rig::new();
    let before = rig.snapshot();
    let asked = request(SEALED, Layout::Mirror, &["a", "b"]);
    let why = refused(rig.engine.create_pool(&by(), &asked), ErrorKind::Invalid);
    assert!(why.contains("TPM"), "{why}");
    refused(rig.engine.plan_pool(&asked), ErrorKind::Invalid);
    assert_eq!(rig.snapshot(), before);
}

#[test]
fn a_sealed_key_is_nowhere_to_be_read_and_opens_the_pool_by_itself() {
    let (mut rig, key) = sealed();
    let id = rig.engine.pool(&by(), "tank").unwrap().id;
    let record = rig.machine.record(&format!("key-{id}")).unwrap();
    assert!(!record.contains(&key) && !record.contains(&key[..9]), "{record}");
    rig.restart();
    assert_eq!(rig.engine.pool(&by(), "tank").unwrap().state, PoolState::Ready);
    assert_eq!(rig.engine.pool_key(&by(), "tank").unwrap().key, key);
    // Once a start, whatever else is asked: a TPM is slow.
    rig.engine.reconcile().unwrap();
    let opened = rig
        .machine
        .calls()
        .iter()
        .filter(|call| call.starts_with("seals.unseal"))
        .count();
    assert_eq!(opened, 2, "after sealing, and after the restart");
}

#[test]
fn what_a_tpm_does_not_give_back_is_not_relied_on() {
    for call in ["seals.seal", "seals.unseal"] {
        let rig = with_a_tpm();
        rig.machine
            .fail_next(call, cistern_host::memory::MemoryHost::failure(call));
        let job = rig.try_pool(&request(SEALED, Layout::Mirror, &["a", "b"])).unwrap();
        assert!(matches!(job.state, JobState::Failed { .. }), "{job:?}");
        assert!(rig.machine.writes(&serial("a")).is_empty());
        assert!(is_blank(&rig, "a"));
    }
}

#[test]
fn a_pool_whose_tpm_is_gone_is_locked_until_its_key_is_given_and_then_sealed_anew() {
    let (mut rig, key) = sealed();
    let id = rig.engine.pool(&by(), "tank").unwrap().id.to_string();
    let record = format!("key-{id}");
    let give = |rig: &Rig| {
        rig.engine
            .give_pool_key(&by(), &id, &PoolKeyRequest { key: key.clone() })
    };
    // Another board, with a TPM of its own.
    rig.machine.fit_tpm(Some(2));
    rig.restart();
    assert!(rig.engine.pool(&by(), "tank").is_err());
    let orphans = rig.engine.orphans().unwrap();
    assert!(
        orphans
            .iter()
            .any(|orphan| orphan.kind == OrphanKind::LockedPool && orphan.object == id)
    );
    give(&rig).unwrap();
    assert_eq!(rig.engine.pool(&by(), "tank").unwrap().state, PoolState::Ready);
    assert!(!rig.machine.record(&record).unwrap().contains(&key));
    rig.restart();
    assert_eq!(rig.engine.pool(&by(), "tank").unwrap().state, PoolState::Ready);
    // And one that has none: the pool is served, and that its key lies open is told, once.
    rig.machine.fit_tpm(None);
    rig.restart();
    assert!(rig.engine.pool(&by(), "tank").is_err());
    give(&rig).unwrap();
    rig.engine.reconcile().unwrap();
    assert_eq!(rig.machine.record(&record), Some(key.clone()));
    let told = |rig: &Rig| {
        let events = rig.engine.events(0, 1000);
        events.iter().filter(|e| e.message.contains("lies open")).count()
    };
    assert_eq!(told(&rig), 1);
    rig.restart();
    assert_eq!(rig.engine.pool(&by(), "tank").unwrap().state, PoolState::Ready);
}

#[test]
fn a_key_that_the_tpm_does_not_open_is_asked_for_by_a_reconcile_once_and_by_nobody_who_looks() {
    let (mut rig, key) = sealed();
    let id = rig.engine.pool(&by(), "tank").unwrap().id.to_string();
    let asked = |rig: &Rig| {
        let calls = rig.machine.calls();
        calls.iter().filter(|call| call.starts_with("seals.unseal")).count()
    };
    rig.machine.fit_tpm(Some(2));
    rig.restart();
    let before = asked(&rig);
    for _ in 0..3 {
        assert!(!rig.engine.health().healthy);
        assert_eq!(rig.engine.orphans().unwrap().len(), 1);
        rig.engine.tick();
    }
    assert_eq!(asked(&rig), before);
    // It has two disks.
    rig.engine.reconcile().unwrap();
    assert_eq!(asked(&rig), before + 1);
    // The right TPM is back: a reconcile finds out.
    rig.machine.fit_tpm(Some(1));
    rig.engine.reconcile().unwrap();
    assert_eq!(rig.engine.pool(&by(), "tank").unwrap().state, PoolState::Ready);
    // And a key that was given is not taken for one that is refused.
    rig.machine.fit_tpm(Some(3));
    rig.restart();
    rig.engine.give_pool_key(&by(), &id, &PoolKeyRequest { key }).unwrap();
    assert_eq!(rig.engine.pool(&by(), "tank").unwrap().state, PoolState::Ready);
    rig.check();
}
