//! The routes by which a pool gets more room, and those of its key, one method for each.

use cistern_model::{AddDisksRequest, DrainRequest, GrowthPlan, Job, PoolKey, PoolKeyRequest};
use serde_json::json;

use crate::{Client, ClientError};

impl Client {
    /// Adds blank disks to a pool, in a job.
    pub async fn add_disks(&self, pool: &str, request: &AddDisksRequest) -> Result<Job, ClientError> {
        Ok(self.post(&["v1", "pools", pool, "disks"], request).await?.1)
    }

    /// What adding disks to a pool would come to.
    pub async fn plan_disks(&self, pool: &str, request: &AddDisksRequest) -> Result<GrowthPlan, ClientError> {
        Ok(self.post(&["v1", "pools", pool, "disks", "plan"], request).await?.1)
    }

    /// Takes up what a pool's disks have grown by, in a job.
    pub async fn grow_pool(&self, pool: &str) -> Result<Job, ClientError> {
        Ok(self.post(&["v1", "pools", pool, "grow"], &json!({})).await?.1)
    }

    /// Empties a disk of a pool and takes it out, in a job.
    pub async fn drain_disk(&self, pool: &str, request: &DrainRequest) -> Result<Job, ClientError> {
        Ok(self.post(&["v1", "pools", pool, "drain"], request).await?.1)
    }

    /// The key of an encrypted pool.
    pub async fn pool_key(&self, pool: &str) -> Result<PoolKey, ClientError> {
        self.get(&["v1", "pools", pool, "key"]).await
    }

    /// Gives the appliance the key of an encrypted pool.
    pub async fn give_pool_key(&self, pool: &str, request: &PoolKeyRequest) -> Result<PoolKey, ClientError> {
        Ok(self.post(&["v1", "pools", pool, "key"], request).await?.1)
    }

    /// What growing a pool would come to.
    pub async fn plan_growth(&self, pool: &str) -> Result<GrowthPlan, ClientError> {
        Ok(self.post(&["v1", "pools", pool, "grow", "plan"], &json!({})).await?.1)
    }
}
