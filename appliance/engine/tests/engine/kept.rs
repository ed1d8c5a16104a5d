//! Records on the state partition that are not what the engine wrote there.

use cistern_model::{Bytes, EventKind, Severity};

use crate::support::Rig;

#[test]
fn a_record_that_is_not_understood_is_set_aside_and_told_once_and_all_is_served() {
    for name in ["pools.json", "left-out.json", "layers.json"] {
        let mut rig = Rig::with_pool();
        rig.make_volume("v", Bytes::gib(1));
        for (number, text) in ["", "nonsense", r#"{"pool-1":"#, "7"].into_iter().enumerate() {
            rig.machine.host().records.replace(name, text).unwrap();
            rig.restart();
            rig.restart();
            let mut told = rig.engine.events(0, 1000);
            told.retain(|event| event.kind == EventKind::RecordUnreadable);
            assert_eq!(told.len(), number + 1, "{name} {text:?}: {told:?}");
            assert!(
                told.iter()
                    .all(|event| event.severity == Severity::Error && event.message.contains(name)),
                "{told:?}"
            );
            let aside = rig.machine.record(&format!("{name}.unreadable"));
            assert_eq!(aside.as_deref(), Some(text), "{name}");
            assert_eq!(rig.volumes().len(), 1);
            rig.check();
        }
    }
}
