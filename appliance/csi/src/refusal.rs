//! What goes wrong, as gRPC's codes. Invariant: the sidecars act on codes alone, and the same code means another thing to each
//! of them; so a code is chosen here, once, for what is being asked. The words are the appliance's, because they end in the
//! events of a claim.

use cistern_client::ClientError;
use cistern_model::ErrorKind;
use tonic::{Code, Status};

use crate::handle::ApplianceId;

/// What was being asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// Something is to be made. No space: the provisioner looks elsewhere.
    Make,
    /// A snapshot is to be made. No space: the snapshotter takes `RESOURCE_EXHAUSTED` for "still being done", and does not let the
    /// snapshot be deleted meanwhile.
    Snapshot,
    /// Something is to grow. No space: the resizer takes `RESOURCE_EXHAUSTED` for "still being done", and `OUT_OF_RANGE` for
    /// what cannot be.
    Grow,
    /// Anything else.
    Other,
}

/// The status of a request that cannot be.
pub fn invalid(why: impl std::fmt::Display) -> Status {
    Status::invalid_argument(why.to_string())
}

/// The status of what an appliance refused or failed to do.
pub fn status(asked: Asked, appliance: &ApplianceId, error: &ClientError) -> Status {
    // It may have been done: an answer that is not understood is no answer, and it is asked again.
    if let ClientError::Answer { .. } = error {
        return Status::unavailable(format!(
            "appliance {appliance}: {error}; is it an appliance, and are it and this plugin ({}) of versions that go together? Update the \
             older of the two",
            env!("CARGO_PKG_VERSION")
        ));
    }
    let code = match (error.kind(), asked) {
        (ErrorKind::Invalid, _) | (ErrorKind::TooLarge, _) => Code::InvalidArgument,
        (ErrorKind::NotFound, _) => Code::NotFound,
        // It says nothing of what was asked for: that must not be taken for gone.
        (ErrorKind::NoRoute, _) => Code::Unimplemented,
        (ErrorKind::NameTaken, _) => Code::AlreadyExists,
        (ErrorKind::Conflict | ErrorKind::DiskInUse, _) => Code::FailedPrecondition,
        (ErrorKind::NoSpace, Asked::Grow | Asked::Snapshot) => Code::OutOfRange,
        (ErrorKind::NoSpace, Asked::Make | Asked::Other) => Code::ResourceExhausted,
        // Whether it was done is not known, and it is asked again.
        (ErrorKind::TimedOut, _) => Code::DeadlineExceeded,
        (ErrorKind::Unavailable | ErrorKind::TooManyRequests, _) => Code::Unavailable,
        // A token can be given anew, and then what is asked again succeeds.
        (ErrorKind::Unauthenticated, _) => Code::Unauthenticated,
        (ErrorKind::Forbidden, _) => Code::PermissionDenied,
        (ErrorKind::Internal, _) => Code::Internal,
    };
    let unknown_field = matches!(error, ClientError::Problem(problem) if problem.is_unknown_field());
    let way_out = match error.kind() {
        ErrorKind::Invalid if unknown_field => concat!(
            "; the appliance is older than this plugin (",
            env!("CARGO_PKG_VERSION"),
            "), and does not know all that it asks for: update the appliance first"
        ),
        ErrorKind::Unauthenticated => {
            "; put a token of role provisioner and the certificate's fingerprint into the plugin's Secret anew"
        }
        ErrorKind::NameTaken if asked == Asked::Make => {
            "; delete or rename that volume, or delete the claim and make it anew: a new one has another name"
        }
        ErrorKind::NoSpace if asked == Asked::Make => {
            "; delete volumes or snapshots there, add disks to the pool, or name another pool in the class"
        }
        ErrorKind::NoSpace => "; delete volumes or snapshots there, or add disks to the pool",
        ErrorKind::NoRoute => concat!(
            "; the appliance is older than this plugin (",
            env!("CARGO_PKG_VERSION"),
            "), and cannot do that: update it"
        ),
        _ => "",
    };
    Status::new(code, format!("appliance {appliance}: {error}{way_out}"))
}

#[cfg(test)]
mod tests {
    use cistern_model::Problem;

    use super::*;

    #[test]
    fn no_space_is_told_so_that_each_sidecar_does_what_it_should() {
        let full = ClientError::Problem(Problem::new(ErrorKind::NoSpace, "pool tank has 1 GiB left"));
        let rack = "rack-1".parse().unwrap();
        assert_eq!(status(Asked::Make, &rack, &full).code(), Code::ResourceExhausted);
        assert_eq!(status(Asked::Grow, &rack, &full).code(), Code::OutOfRange);
        assert_eq!(status(Asked::Snapshot, &rack, &full).code(), Code::OutOfRange);
        let told = status(Asked::Make, &rack, &full);
        assert!(told.message().contains("rack-1") && told.message().contains("pool tank has 1 GiB left"));
        assert!(told.message().contains("add disks"));
        let taken = ClientError::Problem(Problem::new(ErrorKind::NameTaken, "the name pvc-1 is in use"));
        assert!(status(Asked::Make, &rack, &taken).message().contains("make it anew"));
        assert!(
            !status(Asked::Snapshot, &rack, &taken)
                .message()
                .contains("make it anew")
        );
    }

    #[test]
    fn an_appliance_that_does_not_know_a_field_is_to_be_updated_and_one_that_is_asked_for_what_cannot_be_is_not() {
        let rack = "rack-1".parse().unwrap();
        for (problem, older) in [
            (Problem::unknown_field("the body: unknown field `colour`"), true),
            (
                Problem::new(ErrorKind::Invalid, "the body: unknown field `colour`"),
                false,
            ),
        ] {
            let told = status(Asked::Make, &rack, &ClientError::Problem(problem));
            assert_eq!(told.code(), Code::InvalidArgument);
            assert!(told.message().contains("`colour`"), "{told}");
            assert_eq!(told.message().contains("update the appliance first"), older, "{told}");
        }
    }
}
