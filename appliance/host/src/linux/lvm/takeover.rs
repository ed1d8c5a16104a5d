//! Groups and volumes that others made: lvmsystemid(7), vgexport(8); and an XFS' superblock, from the device itself.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use cistern_model::Bytes;
use uuid::Uuid;

use super::args::LvmCommand;
use super::{LinuxLvm, file};
use crate::{HostError, Lvm, Takeover, XfsFound};

impl Takeover for LinuxLvm {
    fn take_group(&self, vg: &str, from: &str) -> Result<(), HostError> {
        let operation = format!("take over {vg} from {from}");
        let own = self.system_id()?;
        self.change(&operation, &take_group(vg, from, &own), vg)
    }

    fn import_group(&self, vg: &str) -> Result<(), HostError> {
        self.change(&format!("import {vg}"), &plain("vgimport", &[vg]), vg)
    }

    fn export_group(&self, vg: &str) -> Result<(), HostError> {
        let (operation, command) = (format!("give up {vg}"), plain("vgexport", &[vg]));
        self.commit(&operation, vg, || self.run_on(&operation, &command, vg, None))
    }

    fn xfs_on(&self, node: &Path) -> Result<Option<XfsFound>, HostError> {
        let mut sector = [0; 512];
        match File::open(node).and_then(|mut device| device.read_exact(&mut sector)) {
            Ok(()) => Ok(superblock(&sector)),
            Err(error) if io::Error::kind(&error) == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(source) => Err(file::io("look for an XFS", node, source)),
        }
    }
}

fn plain(program: &'static str, words: &[&str]) -> LvmCommand {
    let mut command = super::args::remove_vg("");
    command.program = program;
    command.args.pop();
    command.args.extend(words.iter().map(|word| (*word).to_owned()));
    command
}

/// The other machine's system ID is one more of ours for this command, which LVM asks for before it lets go.
fn take_group(vg: &str, from: &str, own: &str) -> LvmCommand {
    let mut command = plain("vgchange", &["--yes", "--systemid", own, vg]);
    if let Some(config) = command.args.get_mut(1) {
        // LVM's strings end at a quote; a system ID has none.
        let from: String = from.chars().filter(|c| *c != '"' && *c != '\\').collect();
        config.push_str(&format!(" local{{extra_system_ids=[\"{from}\"]}}"));
    }
    command
}

/// Big endian: the magic at 0, the block's size at 4, the number of blocks at 8, the UUID at 32 (xfs_types.h, `xfs_dsb`).
fn superblock(sector: &[u8]) -> Option<XfsFound> {
    let array = |at: usize, length: usize| sector.get(at..at + length);
    if array(0, 4)? != b"XFSB" {
        return None;
    }
    let block = u32::from_be_bytes(array(4, 4)?.try_into().ok()?);
    let blocks = u64::from_be_bytes(array(8, 8)?.try_into().ok()?);
    Some(XfsFound {
        uuid: Uuid::from_slice(array(32, 16)?).ok()?,
        size: Bytes::new(blocks.checked_mul(block.into())?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_command_is_written_out() {
        let take = take_group("p", "other\"", "me");
        assert_eq!(
            (take.program, &take.args[2..]),
            ("vgchange", &["--yes", "--systemid", "me", "p"].map(str::to_owned)[..])
        );
        assert!(
            take.args[1].ends_with(" local{extra_system_ids=[\"other\"]}"),
            "{}",
            take.args[1]
        );
        let export = plain("vgexport", &["p"]);
        assert_eq!((export.program, &export.args[2..]), ("vgexport", &["p".to_owned()][..]));
    }

    #[test]
    fn a_superblock_gives_the_exact_size() {
        let mut sector = vec![0; 512];
        assert_eq!(superblock(&sector), None);
        sector[..4].copy_from_slice(b"XFSB");
        sector[4..8].copy_from_slice(&4096_u32.to_be_bytes());
        sector[8..16].copy_from_slice(&76_800_u64.to_be_bytes());
        sector[32] = 7;
        let found = superblock(&sector).unwrap();
        assert_eq!((found.size, found.uuid.as_bytes()[0]), (Bytes::mib(300), 7));
        sector[8..16].copy_from_slice(&u64::MAX.to_be_bytes());
        assert_eq!((superblock(&sector), superblock(b"XFSB")), (None, None));
    }
}
