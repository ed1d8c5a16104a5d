//! How much room a filesystem has, in the words by which a process that looked tells it.

use std::fmt;

use nix::sys::statvfs::Statvfs;

/// A filesystem's room.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Room {
    /// How many bytes a block has.
    pub block: u64,
    /// Its blocks.
    pub blocks: Amount,
    /// Its inodes.
    pub inodes: Amount,
}

/// How many there are of something.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Amount {
    /// All.
    pub all: u64,
    /// Those that are free.
    pub free: u64,
    /// Those that are free for others than root.
    pub available: u64,
}

impl Room {
    pub(super) fn of(seen: &Statvfs) -> Self {
        Room {
            block: seen.fragment_size(),
            blocks: Amount {
                all: seen.blocks(),
                free: seen.blocks_free(),
                available: seen.blocks_available(),
            },
            inodes: Amount {
                all: seen.files(),
                free: seen.files_free(),
                available: seen.files_available(),
            },
        }
    }

    /// What [`fmt::Display`] wrote.
    pub(super) fn read(text: &str) -> Option<Self> {
        let numbers = text.split_whitespace().map(|word| word.parse::<u64>().ok());
        let numbers: Vec<u64> = numbers.collect::<Option<_>>()?;
        let &[
            block,
            blocks,
            blocks_free,
            blocks_available,
            inodes,
            inodes_free,
            inodes_available,
        ] = numbers.as_slice()
        else {
            return None;
        };
        Some(Room {
            block,
            blocks: Amount {
                all: blocks,
                free: blocks_free,
                available: blocks_available,
            },
            inodes: Amount {
                all: inodes,
                free: inodes_free,
                available: inodes_available,
            },
        })
    }
}

impl fmt::Display for Room {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let amount = |amount: &Amount| format!("{} {} {}", amount.all, amount.free, amount.available);
        write!(f, "{} {} {}", self.block, amount(&self.blocks), amount(&self.inodes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_reads_back_and_what_is_none_of_it_does_not() {
        let told = "4096 100 50 40 10 5 3";
        let room = Room::read(&format!("{told}\n")).unwrap();
        assert_eq!((room.block, room.blocks.available, room.inodes.all), (4096, 40, 10));
        assert_eq!(room.to_string(), told);
        for text in ["", "4096", "4096 100 50 40 10 5 -3", "4096 100 50 40 10 5 3 7"] {
            assert_eq!(Room::read(text), None, "{text:?}");
        }
    }
}
