//! Cistern tested as it is used: the built image under QEMU, beside a second VM that is a real NFS client.
//!
//! Invariant: a scenario reads like the steps an operator would take; machinery for VMs in general lives in `qemu/`,
//! machinery for Cistern's two VMs in [`lab`].
//!
//! Not here: anything simulated.

pub mod bench;
pub mod cli;
pub mod kubernetes;
pub mod lab;
pub mod scenarios;
pub mod torture;
