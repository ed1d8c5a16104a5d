//! Several appliances in one cluster: each has volumes of its own, and one that is gone keeps no claim of another's waiting.

use anyhow::{Result, ensure};
use cistern_model::TokenCreated;

use super::claims::{CLASS, LIMIT, bound, claim_of, cluster, nothing_is_left, only, pod, volumes};
use crate::kubernetes::Cluster;
use crate::lab::Lab;

const SECOND: &str = "rack-2";
/// The class of the second appliance's pool.
const SECOND_CLASS: &str = "second-tank";
const SIZE: &str = "300Mi";

/// A claim of each, and one client that has both mounted; then the second loses its power, and comes back.
pub(super) fn two_appliances(lab: &Lab) -> Result<()> {
    // It starts while the control plane does.
    let second = lab.second_appliance()?;
    second.check(|second| {
        let cluster = cluster(lab)?;
        cluster.check(|cluster| {
            register(cluster, second)?;
            for (name, class, of) in [("one", CLASS, lab), ("two", SECOND_CLASS, second)] {
                cluster.apply(&claim_of(name, class, SIZE, ""))?;
                bound(cluster, name)?;
                cluster.apply(&pod(name, name))?;
                cluster.wait(LIMIT, "publication to the node", |_| Ok(only(of)?.nodes.len() == 1))?;
                let mount = of.mount_command(&only(of)?, &format!("/mnt/{name}"));
                lab.peer.sh(&format!(
                    "{mount} && echo {name} > /mnt/{name}/file && sync /mnt/{name}/file"
                ))?;
            }

            second.appliance.power_cut()?;
            cluster.apply(&claim_of("late-two", SECOND_CLASS, SIZE, ""))?;
            cluster.apply(&claim_of("late-one", CLASS, SIZE, ""))?;
            bound(cluster, "late-one")?;
            cluster.kubectl(&["delete", "pvc", "late-one"])?;
            cluster.wait(LIMIT, "end of a claim beside an appliance that is gone", |_| {
                Ok(volumes(lab)?.len() == 1)
            })?;
            cluster.wait(LIMIT, "word of the appliance that is gone", |cluster| {
                let told = cluster.warnings("PersistentVolumeClaim", "late-two")?;
                Ok(told.iter().any(|message| message.contains("appliance rack-2")))
            })?;
            read(lab, "one")?;

            second.appliance.power_on()?;
            second.wait_for_api()?;
            bound(cluster, "late-two")?;
            read(lab, "two")?;
            lab.peer.sh("umount /mnt/one /mnt/two")?;
            cluster.kubectl(&["delete", "pod", "one", "two", "--grace-period=0", "--force"])?;
            cluster.kubectl(&["delete", "pvc", "--all", "--wait=false"])?;
            nothing_is_left(lab, cluster)?;
            ensure!(volumes(second)?.is_empty(), "{:?}", volumes(second)?);
            Ok(())
        })
    })
}

/// Makes a pool in the second appliance and tells the cluster of it, as docs/kubernetes.md does: an entry in the Secret, and a class.
fn register(cluster: &Cluster, second: &Lab) -> Result<()> {
    second.enrol(&second.banner()?)?;
    second.create_tank()?;
    second.cli.ok(&["pools", "set", "tank", "--overcommit", "1000"])?;
    let create = ["tokens", "create", "cluster", "--role", "provisioner", "--pool", "tank"];
    let token: TokenCreated = second.cli.json(&create)?;
    let entry = format!(
        "url = \"{}\"\ntoken = \"{}\"\nfingerprint = \"{}\"\nnfs = \"{}\"\n",
        second.appliance.url()?,
        token.secret,
        second.cli.profile_value("fingerprint")?,
        second.address
    );
    cluster.register(SECOND, &entry)?;
    cluster.apply(&format!(
        "apiVersion: storage.k8s.io/v1\nkind: StorageClass\nmetadata:\n  name: {SECOND_CLASS}\nprovisioner: csi.cistern.storage\n\
         parameters:\n  endpoint: {SECOND}\n  pool: tank\n"
    ))
}

/// What was written to the claim of this name is read, from its appliance and from no cache: to empty that, what another appliance has
/// given would be given back to it.
fn read(lab: &Lab, name: &str) -> Result<()> {
    let read = lab
        .peer
        .sh(&format!("dd if=/mnt/{name}/file iflag=direct bs=64k status=none"))?;
    ensure!(read == format!("{name}\n"), "claim {name} holds {read:?}");
    Ok(())
}
