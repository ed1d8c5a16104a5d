//! How a volume lies on several disks: copies, stripes, parity. Pure.
//!
//! Invariant: images are numbered as the disks were given; what one of them can do without is said here once, for those
//! that plan, count and pretend.

/// How a logical volume lies on its disks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RaidLevel {
    /// One copy: a linear volume.
    Linear,
    /// raid1.
    Mirror {
        /// How many copies: two or more.
        copies: u32,
    },
    /// raid10, near layout: images 0 and 1 are copies of each other, so are 2 and 3.
    StripeMirror {
        /// How many images: an even number, four or more.
        images: u32,
    },
    /// raid5.
    Parity {
        /// How many images: three or more.
        images: u32,
    },
    /// raid6.
    DoubleParity {
        /// How many images: five or more.
        images: u32,
    },
}

impl RaidLevel {
    /// What of each disk is one stripe, in KiB; of no meaning for those that are not striped.
    pub const STRIPE_KIB: u32 = 64;

    /// How many disks each stretch of it lies on.
    pub const fn images(self) -> u32 {
        match self {
            RaidLevel::Linear => 1,
            RaidLevel::Mirror { copies } => copies,
            RaidLevel::StripeMirror { images } | RaidLevel::Parity { images } | RaidLevel::DoubleParity { images } => {
                images
            }
        }
    }

    /// How many images' worth of data it holds: its size is this many times an image's.
    pub const fn data_images(self) -> u32 {
        match self {
            RaidLevel::Linear | RaidLevel::Mirror { .. } => 1,
            RaidLevel::StripeMirror { images } => images / 2,
            RaidLevel::Parity { images } => images.saturating_sub(1),
            RaidLevel::DoubleParity { images } => images.saturating_sub(2),
        }
    }

    /// Whether it has metadata of its own, one extent beside each image.
    pub const fn is_raid(self) -> bool {
        !matches!(self, RaidLevel::Linear)
    }

    /// Whether all data is there with these images, in their order; `true` is one that is there and good.
    pub fn has_all_data(self, there: &[bool]) -> bool {
        let lost = there.iter().filter(|there| !**there).count();
        match self {
            RaidLevel::Linear => lost == 0,
            RaidLevel::Mirror { .. } => lost < there.len(),
            RaidLevel::StripeMirror { .. } => there.chunks(2).all(|pair| pair.contains(&true)),
            RaidLevel::Parity { .. } => lost <= 1,
            RaidLevel::DoubleParity { .. } => lost <= 2,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_level_can_do_without_what_its_name_promises() {
        let mirror = RaidLevel::Mirror { copies: 3 };
        let pairs = RaidLevel::StripeMirror { images: 4 };
        let parity = RaidLevel::Parity { images: 3 };
        let double = RaidLevel::DoubleParity { images: 5 };
        for (level, there, enough) in [
            (RaidLevel::Linear, &[true][..], true),
            (RaidLevel::Linear, &[false], false),
            (mirror, &[false, false, true], true),
            (mirror, &[false, false, false], false),
            (pairs, &[false, true, true, false], true),
            (pairs, &[false, false, true, true], false),
            (parity, &[true, false, true], true),
            (parity, &[true, false, false], false),
            (double, &[true, false, true, false, true], true),
            (double, &[true, false, false, false, true], false),
        ] {
            assert_eq!(level.has_all_data(there), enough, "{level:?} {there:?}");
        }
        assert_eq!(
            (pairs.data_images(), parity.data_images(), double.data_images()),
            (2, 2, 3)
        );
    }
}
