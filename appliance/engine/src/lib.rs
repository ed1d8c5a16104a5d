//! What is done: operations on disks, pools and volumes, and reconciling the machine with what its disks say.
//!
//! Knows the traits of `cistern_host` and never Linux; knows nothing of HTTP. All calls block; callers keep them off async
//! threads.
//!
//! # Rules
//!
//! - **The truth is in LVM tags** (`tags`). The engine keeps a copy (`view`), changed only after a commit to the tags, or
//!   by reading them all anew: at the start, when a disk comes or goes, and after every change that failed.
//! - **Disks.** One on which anything was found is refused, read from the disk itself when a request is judged and again
//!   just before it is joined to others. Only a wipe that names it touches it.
//! - **A pool's making** begins with one command that joins its disks, with all that is to be known in the group's tags,
//!   `state=creating` among it: before it there is nothing of ours on any disk. What was interrupted after it is finished
//!   by the next reconcile or by the same request. Its deleting is likewise finished; if the power goes between the parting
//!   of the disks and the taking off of their labels, these disks are shown as carrying `LVM2_member`, to be wiped by name.
//! - **The boot disk's free part** (`free_part`) is a disk that is taken only alone and by name. Its partition is made first,
//!   then it is looked at what lay there. A partition without a pool is an available disk, whoever made it.
//! - **A volume's making**: LV with `state=creating` and all other tags in one commit, mkfs (on an LV that was made just
//!   now, which reads as zeroes, only what is not zero is written), mount, open root, export,
//!   `state=ready`. What was not answered is undone: at once if a step failed, at the next reconcile if the power went; if
//!   undoing fails too, the same request goes on with it. mkfs runs only on an LV whose tag says `creating`.
//! - **A volume's deleting**: `state=deleting`, unexport, release, unmount, remove. Once that tag is committed it is
//!   finished, by the same request or by reconcile.
//! - **A volume's change**: name, labels, owner and schedule are one commit. Growth is device, size tag, filesystem: from the
//!   tag on reconcile finishes it.
//! - **A snapshot** is one commit, whole. Those of a group are `creating` until the last is made, while all their volumes are
//!   frozen; if one is `ready` all are finished, else all are taken away. What is frozen is thawed by a guard, and by the
//!   next start. One that is served is activated and mounted read-only; no other is active. It is its volume's owner's, whoever
//!   that is, while there is its volume; before that goes for good its own tag is made to say so.
//! - **A clone** is a thin snapshot with a volume's tags, made as a volume is but never formatted.
//! - **Rolling back** (`rollback`): from `state=rolling-back` on it is finished; the volume's LV is removed only when what
//!   replaces it is there with all of its tags.
//! - **The trash**: `state=trash` is the deletion; then unexport, release, unmount. Removal is one commit.
//! - **Several locks** are taken in the order of their names' text: `snapshot ...`, `trash ...`, `volume ...`.
//! - **Clients**: the tag comes before the export, both ways. If the export then failed, the same request makes up for it.
//! - **Fencing** (`fencing`): what a client that was taken away still holds is revoked after its export is gone, by the
//!   gentlest way that frees the volume; the answer tells what that touched. The same request again looks again.
//! - **Options**: tags, root directory, export, in this order. The root directory is given its owner, group and mode once:
//!   the tag `root-pending` stands from the request until that is done, by the request or by the next reconcile.
//! - **The same request again**: for a volume, the same name, pool and size (after raising); for a pool, the same name,
//!   layout and disks. Anything else under the name is `NameTaken`; a thing being deleted is `Conflict`.
//! - **Sizes** are raised to 300 MiB and to whole 4 KiB blocks; the filesystem has exactly these bytes, the LV whole
//!   extents. What is promised (the LVs) stays under the pool's size without its reserve, times its overcommit. No volume is
//!   made in a pool whose metadata is over 75 % full, or, if it is overcommitted, whose data is over 90 % full.
//! - **A pool that lacks a disk** is not changed (LVM changes no group that lacks one, but for its tags): `Unavailable`;
//!   clients come and go all the same.
//!   One of which enough images are there is served, degraded; when it has to be activated without all of its disks, that
//!   is done after `Config::degraded_wait`, and only after the images of its data and its metadata were counted (LVM's
//!   own refusal is switched off then). One that lacks data is incomplete, its volumes failed, their exports in place, so
//!   that clients wait. A pool of which no disk is left stays known until the restart. A disk that comes back is taken
//!   back by itself: its images are filled from the others.
//! - **Another disk in a disk's place** (`replace`): `replace-old` and `replace-new` in the group's tags, the new one
//!   joined, metadata and then data moved to it, filled, the old one taken out, the tags as they are now. Once the tags are
//!   committed it is finished, by its job or after the next start. A spare takes the place of a missing or failed disk by
//!   itself (`mending`), after `Config::degraded_wait`. A disk that cannot be taken out, because the group lacks another by then, is
//!   `draining` from the same commit on, and leaves when it is whole.
//! - **Further disks** (`grow_pool`): `coming` in the group's tags, the disks joined, the data laid on them group by group,
//!   the tags as they are now. Once the tags are committed it is finished, by its job or after the next start. Taking up
//!   what disks have grown by is not noted: each of its steps is whole by itself, and asking again goes on.
//! - **A disk that leaves** (`drain`): `draining` in the group's tags, the metadata's copy and then the data moved to the
//!   others, the disk taken out, the tags as they are now. Only where there is one copy and the others have room.
//! - **A volume that is not served** (`reviving`), because the kernel has shut its filesystem down or it could not be mounted, is
//!   tried again by the clock, once its pool takes writes; its clients wait.
//! - **NFS** starts only after every known volume has its export, and not at all while the volumes are not known.
//! - **What cannot be explained** is an event (`OrphanFound`), once, and is left alone. A group of another machine is not
//!   touched before it is imported.
//! - **Taking over** (`adopt`): a group of another machine becomes ours in one commit, at the word of somebody who names
//!   that machine; a pool of ours is given up by `vgexport`, its last step.
//! - **Alerts** (`alerts`, `causes`) follow from the state as it is, and end with their cause. They and the events are kept
//!   (`keeping`); that they cannot be kept stops nothing.
//! - **Care** (`care`, `scrub_schedule`): disks are asked now and then how they are, and none is woken for that; a pool
//!   that is whole and at rest is scrubbed when its time has come, one at a time. What must be remembered of that is in the
//!   group's tags. A clock that was never set decides nothing.
//! - **Space** (`capacity`, `fill`) is looked after by the clock (`tick`). What is promised to volumes is kept before all
//!   else; what was made by hand is never given up.
//! - **Locks** (`locks`): one request at a time on a volume's name; one change at a time in a pool, held for a single LVM
//!   command; none of all while the state is read as a whole. Reconcile passes by what a request is at.

mod adopt;
mod alerts;
mod capacity;
mod care;
mod causes;
mod changes;
mod checksums;
mod clients;
mod clones;
mod disks;
mod drain;
mod engine;
mod error;
mod events;
mod exports_had;
mod failure;
mod fencing;
mod fill;
mod free_part;
mod giving_up;
mod grow_pool;
mod growing;
mod growth;
mod jobs;
mod keeping;
mod kept;
mod layer_keys;
mod layer_record;
mod layers;
mod layout;
mod left_out;
mod live;
mod locks;
mod logs;
mod mending;
mod names;
mod nodes;
mod orphans;
mod pending;
mod plan;
mod pool_settings;
mod pool_steps;
mod pools;
mod pools_away;
mod react;
mod reconcile;
mod renewing;
mod replace;
mod reviving;
mod rollback;
mod schedules;
mod scrub;
mod scrub_schedule;
mod serving;
mod shun;
mod snapshot_steps;
mod snapshots;
mod spares;
mod status;
mod tags;
mod tick;
mod topology;
mod trash;
mod unserved;
mod view;
mod volume_options;
mod volume_steps;
mod volumes;

pub use engine::{Config, Engine};
pub use error::EngineError;
pub use pools::PoolCreation;
pub use snapshots::SnapshotFilter;
pub use status::{Health, Metrics};
pub use view::views_taken_twice;
pub use volumes::{Created, VolumeFilter};
