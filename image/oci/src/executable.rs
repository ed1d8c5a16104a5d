//! What is read of an executable before it is packed.

use elf::ElfBytes;
use elf::abi::{EM_AARCH64, EM_X86_64, PT_INTERP};
use elf::endian::AnyEndian;
use elf::parse::ParseError;

/// For which machines an image is, in the words of the OCI's image specification (which are Go's).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Architecture {
    /// x86_64.
    Amd64,
    /// aarch64.
    Arm64,
}

impl Architecture {
    /// As an image's configuration has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Architecture::Amd64 => "amd64",
            Architecture::Arm64 => "arm64",
        }
    }
}

/// An executable that would not start in an image that holds nothing else.
#[derive(Debug, thiserror::Error)]
pub enum Unpackable {
    /// No executable of Linux'.
    #[error("it is no ELF file: {0}")]
    NoElf(#[from] ParseError),
    /// It wants a loader and libraries.
    #[error(
        "it is linked against libraries, and the image has none: build it with `-C target-feature=+crt-static`, as image/csi does"
    )]
    Dynamic,
    /// For a machine that Cistern is not built for.
    #[error("it is for a machine of ELF's number {0}; give one for x86_64 or aarch64")]
    Machine(u16),
    /// It cannot be put into a tar.
    #[error("it cannot be packed: {0}")]
    Packing(#[from] std::io::Error),
}

/// For which machines an executable is that needs nothing beside itself.
///
/// # Errors
/// [`Unpackable`] if it is none.
pub(crate) fn examine(executable: &[u8]) -> Result<Architecture, Unpackable> {
    let file = ElfBytes::<AnyEndian>::minimal_parse(executable)?;
    let architecture = match file.ehdr.e_machine {
        EM_X86_64 => Architecture::Amd64,
        EM_AARCH64 => Architecture::Arm64,
        other => return Err(Unpackable::Machine(other)),
    };
    // One that is linked statically has a dynamic section as well (it may lie anywhere in memory), but nobody to load it.
    let wants_a_loader = file.segments().into_iter().flatten().any(|one| one.p_type == PT_INTERP);
    match wants_a_loader {
        true => Err(Unpackable::Dynamic),
        false => Ok(architecture),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The head of an ELF file with one segment of this type, and this at its end.
    pub(crate) fn elf_file(machine: u16, segment: u32, tail: &[u8]) -> Vec<u8> {
        let mut file = b"\x7fELF\x02\x01\x01".to_vec();
        file.resize(16, 0);
        for half in [2, machine] {
            file.extend(half.to_le_bytes());
        }
        file.extend(1_u32.to_le_bytes());
        for address in [0_u64, 64, 0] {
            file.extend(address.to_le_bytes());
        }
        file.extend(0_u32.to_le_bytes());
        for half in [64_u16, 56, 1, 0, 0, 0] {
            file.extend(half.to_le_bytes());
        }
        file.extend(segment.to_le_bytes());
        file.resize(64 + 56, 0);
        file.extend(tail);
        file
    }

    #[test]
    fn an_executable_that_needs_nothing_is_known_by_its_machine() {
        let load = elf::abi::PT_LOAD;
        assert_eq!(examine(&elf_file(EM_X86_64, load, b"")).unwrap().as_str(), "amd64");
        assert_eq!(examine(&elf_file(EM_AARCH64, load, b"")).unwrap().as_str(), "arm64");
    }

    #[test]
    fn what_would_not_start_alone_is_refused_with_the_way_out() {
        let refused = |file: &[u8]| examine(file).unwrap_err().to_string();
        assert!(refused(b"#!/bin/sh\n").contains("no ELF file"));
        assert!(refused(&elf_file(EM_X86_64, PT_INTERP, b"")).contains("crt-static"));
        assert!(refused(&elf_file(elf::abi::EM_RISCV, elf::abi::PT_LOAD, b"")).contains("243"));
        // This very test is linked as anything is by default.
        let own = std::fs::read("/proc/self/exe").unwrap();
        assert!(matches!(examine(&own), Err(Unpackable::Dynamic)));
    }
}
