//! Where a volume is to lie and how large it is to be. Invariant: asked again, it is found where it was made before.

use std::collections::BTreeMap;

use cistern_client::VolumeQuery;
use cistern_model::{Bytes, MINIMUM_VOLUME, Pool, PoolName, PoolState};
use tonic::{Code, Status};

use crate::access::Access;
use crate::appliances::{self, answered};
use crate::controller::Controller;
use crate::csi;
use crate::handle::ApplianceId;
use crate::models::signed;
use crate::parameters::Class;
use crate::refusal::{Asked, invalid};
use crate::registry::Appliance;
use crate::secrets::Secrets;

/// In what a volume is measured: as the engine has it (`engine/src/volumes.rs`).
const BLOCK: Bytes = Bytes::new(4096);

impl Controller {
    /// The appliances that may have it, the preferred ones first.
    pub(crate) fn candidates(
        &self,
        class: &Class,
        wanted: Option<&csi::TopologyRequirement>,
        secrets: &Secrets,
    ) -> Result<Vec<Appliance>, Status> {
        let all = appliances::of_class(&self.registry, class.endpoint.as_deref(), secrets)?;
        let all: Vec<Appliance> = all.into_iter().map(Appliance::for_making).collect();
        let Some(wanted) = wanted.filter(|_| self.zones) else {
            return Ok(all);
        };
        let segments = |topology: &csi::Topology| topology.segments.clone().into_iter().collect::<BTreeMap<_, _>>();
        let within = |appliance: &Appliance| {
            wanted.requisite.is_empty()
                || wanted
                    .requisite
                    .iter()
                    .any(|t| appliances::is_in(appliance, &segments(t)))
        };
        let rank = |appliance: &Appliance| {
            let preferred = wanted
                .preferred
                .iter()
                .position(|t| appliances::is_in(appliance, &segments(t)));
            preferred.unwrap_or(usize::MAX)
        };
        let mut near: Vec<Appliance> = all.into_iter().filter(within).collect();
        near.sort_by_key(rank);
        if near.is_empty() {
            return Err(Status::resource_exhausted(
                "no appliance of this class is in a zone that the claim's pod can run in",
            ));
        }
        Ok(near)
    }

    /// Why a copy cannot be made on the appliance that its source lies on, which is none of the candidates. In another zone that is no fault
    /// of the request's: the pod is to go elsewhere (`RESOURCE_EXHAUSTED`).
    pub(crate) fn why_not_there(&self, class: &Class, source: &ApplianceId, secrets: &Secrets) -> Status {
        let of_class = match appliances::of_class(&self.registry, class.endpoint.as_deref(), secrets) {
            Ok(all) => all,
            Err(status) => return status,
        };
        match of_class.iter().find(|appliance| appliance.id == *source) {
            Some(there) => Status::resource_exhausted(format!(
                "what it is to be made of lies on appliance {source} in zone {}, where the claim's pod cannot run; a copy lies where its \
                 source does",
                there.zone.as_deref().unwrap_or_default()
            )),
            None => invalid(format!(
                "what it is to be made of lies on appliance {source}, which is not this class's; use a class of that appliance"
            )),
        }
    }

    /// The pool that a class means. Whether there is one of the name that it gives is found by what is made there: to ask first would take
    /// the appliance longer than to look for it.
    pub(crate) async fn pool_of(&self, appliance: &Appliance, class: &Class) -> Result<PoolName, Status> {
        if let Some(name) = &class.pool {
            return Ok(name.clone());
        }
        let pools = answered(Asked::Make, appliance, appliance.client.pools().await)?;
        match <[Pool; 1]>::try_from(pools) {
            Ok([pool]) => Ok(pool.name),
            Err(pools) if pools.is_empty() => Err(no_pools(appliance)),
            Err(pools) => Err(invalid(format!(
                "parameter pool is missing, and appliance {} has {} pools: {}",
                appliance.id,
                pools.len(),
                names(&pools)
            ))),
        }
    }

    /// Why an appliance did not find what a volume was to be made of or in, which it told so: where it is the class's pool, that the
    /// parameter is wrong (`INVALID_ARGUMENT`), or that the pool is away.
    pub(crate) async fn why_not_found(&self, appliance: &Appliance, class: &Class, told: Status) -> Status {
        let Some(name) = &class.pool else { return told };
        let pool = answered(Asked::Make, appliance, appliance.client.pool(name.as_str()).await);
        let missing = match pool {
            Ok(_) => return told,
            Err(status) if status.code() == Code::NotFound => status,
            Err(status) => return status,
        };
        let there = match answered(Asked::Make, appliance, appliance.client.pools().await) {
            Ok(pools) if pools.is_empty() => return no_pools(appliance),
            Ok(pools) => format!("there are {}", names(&pools)),
            Err(status) => return status,
        };
        invalid(format!("parameter pool: {}; {there}", missing.message()))
    }

    /// The volume of this name that was made before, if it was: where there are several candidates it may lie on any. Each has to say that it
    /// has none; one that cannot say so now, as where a pool is away, keeps it from being made elsewhere.
    pub(crate) async fn made_before(
        &self,
        candidates: &[Appliance],
        class: &Class,
        name: &str,
    ) -> Result<Option<Appliance>, Status> {
        if candidates.len() < 2 {
            return Ok(None);
        }
        for appliance in candidates {
            let query = VolumeQuery {
                pool: class.pool.as_ref().map(ToString::to_string),
                name: Some(name.to_owned()),
                label: None,
            };
            match answered(Asked::Make, appliance, appliance.client.all_volumes(&query).await) {
                Ok(found) if found.is_empty() => {}
                Ok(_) => return Ok(Some(appliance.clone())),
                // It has no pool of this name, here or away. Of what is in all of its pools that would be no answer.
                Err(status) if status.code() == Code::NotFound && class.pool.is_some() => {}
                Err(status) => return Err(status),
            }
        }
        Ok(None)
    }
}

/// What is told of an appliance that shows no pool at all. The request is not at fault, and each of the reasons can end without another one:
/// it is asked again.
fn no_pools(appliance: &Appliance) -> Status {
    Status::unavailable(format!(
        "appliance {} shows no pool: there is none yet (`cistern pools create`), its pools' disks are away or locked, or the token is for \
         none of them",
        appliance.id
    ))
}

fn names(pools: &[Pool]) -> String {
    let names: Vec<String> = pools.iter().map(|pool| pool.name.to_string()).collect();
    names.join(", ")
}

impl Controller {
    /// How much room there is for volumes of a class. Where several appliances may have them, of those that answer: what is told to be
    /// less than there is, is tried elsewhere or later.
    pub(crate) async fn capacity(&self, request: csi::GetCapacityRequest) -> Result<csi::GetCapacityResponse, Status> {
        let none = csi::GetCapacityResponse {
            minimum_volume_size: Some(signed(MINIMUM_VOLUME)),
            ..csi::GetCapacityResponse::default()
        };
        if !request.volume_capabilities.is_empty() && Access::read_all(&request.volume_capabilities).is_err() {
            return Ok(none);
        }
        let class = Class::read(&request.parameters.into_iter().collect()).map_err(invalid)?;
        let segments: Option<BTreeMap<String, String>> = request
            .accessible_topology
            .filter(|_| self.zones)
            .map(|topology| topology.segments.into_iter().collect());
        let mut all = match class.endpoint.as_deref() {
            Some(endpoint) => appliances::of_class(&self.registry, Some(endpoint), &Secrets::default())?,
            None => appliances::usable(&self.registry)?,
        };
        all.retain(|appliance| {
            segments
                .as_ref()
                .is_none_or(|segments| appliances::is_in(appliance, segments))
        });
        let (mut sum, mut largest, mut answers, mut silent) = (Bytes::ZERO, Bytes::ZERO, all.is_empty(), None);
        for appliance in &all {
            let pools = match answered(Asked::Other, appliance, appliance.client.pools().await) {
                Ok(pools) => pools,
                Err(status) => {
                    tracing::warn!(%status, "how much room there is, is told without this appliance");
                    silent = Some(status);
                    continue;
                }
            };
            answers = true;
            // A class that names none means an appliance's only one; where there are several, nothing can be made of it.
            let only = pools.len() == 1;
            let meant = |pool: &&Pool| class.pool.as_ref().map_or(only, |name| *name == pool.name);
            for pool in pools.iter().filter(meant).filter(|pool| serves(pool.state)) {
                sum = sum.saturating_add(pool.available);
                largest = largest.max(pool.available);
            }
        }
        if let Some(status) = silent.filter(|_| !answers) {
            return Err(status);
        }
        Ok(csi::GetCapacityResponse {
            available_capacity: signed(sum),
            maximum_volume_size: Some(signed(largest)),
            ..none
        })
    }
}

fn serves(state: PoolState) -> bool {
    matches!(state, PoolState::Ready | PoolState::Degraded)
}

/// How large a volume is to be, in the whole blocks in which it is made, and at most may be.
pub(crate) fn size(range: Option<&csi::CapacityRange>, usual: Bytes) -> Result<(Bytes, Option<Bytes>), Status> {
    let Some(range) = range else { return Ok((usual, None)) };
    let of = |what: &str, value: i64| {
        u64::try_from(value)
            .map(Bytes::new)
            .map_err(|_| invalid(format!("{what} is {value}, which is no size")))
    };
    let (required, limit) = (
        of("required_bytes", range.required_bytes)?,
        of("limit_bytes", range.limit_bytes)?,
    );
    let limit = (limit > Bytes::ZERO).then_some(limit);
    if limit.is_some_and(|limit| required > limit) {
        return Err(Status::out_of_range(format!(
            "at least {required:#} are asked for, and at most {:#}",
            limit.unwrap_or_default()
        )));
    }
    let wanted = match (required > Bytes::ZERO, limit) {
        (true, _) => required,
        (false, Some(limit)) => usual.min(limit.round_down(BLOCK)),
        (false, None) => usual,
    };
    let wanted = wanted.max(MINIMUM_VOLUME).round_up(BLOCK);
    if let Some(limit) = limit.filter(|limit| wanted > *limit) {
        return Err(Status::out_of_range(format!(
            "the smallest volume that is enough has {wanted:#} (at least {MINIMUM_VOLUME:#}, in whole blocks of 4 KiB), and at most {limit:#} \
             are asked for"
        )));
    }
    Ok((wanted, limit))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sized(required: i64, limit: i64) -> Result<(Bytes, Option<Bytes>), Status> {
        let range = csi::CapacityRange {
            required_bytes: required,
            limit_bytes: limit,
        };
        size(Some(&range), Bytes::gib(1))
    }

    #[test]
    fn a_size_is_in_whole_blocks_and_its_limit_is_compared_with_those() {
        const MIB: i64 = 1 << 20;
        assert_eq!(size(None, Bytes::gib(5)).unwrap(), (Bytes::gib(5), None));
        for (required, limit, comes_to) in [
            (0, 0, 1024 * MIB),
            (1, 0, 300 * MIB),
            (1_000_000_000, 0, 1_000_001_536),
            (1_000_000_000, 1_000_001_536, 1_000_001_536),
            (0, 1_000_000_000, 999_997_440),
            (0, 2048 * MIB, 1024 * MIB),
            (5120 * MIB, 5120 * MIB, 5120 * MIB),
        ] {
            let (wanted, at_most) = sized(required, limit).unwrap();
            assert_eq!(signed(wanted), comes_to, "{required} {limit}");
            assert_eq!(at_most.map_or(0, signed), limit, "{required} {limit}");
        }
        for (required, limit, code) in [
            (1_000_000_000, 1_000_000_000, Code::OutOfRange),
            (1_000_000_000, 1_000_001_535, Code::OutOfRange),
            (0, 300 * MIB - 1, Code::OutOfRange),
            (2048 * MIB, 1024 * MIB, Code::OutOfRange),
            (-1, 0, Code::InvalidArgument),
            (0, -1, Code::InvalidArgument),
        ] {
            let told = sized(required, limit).unwrap_err();
            assert_eq!(told.code(), code, "{required} {limit}: {told}");
        }
    }
}
