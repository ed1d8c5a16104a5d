//! The routes of snapshots and of the trash, one method for each.

use cistern_model::{
    Client as NfsClient, GroupSnapshotRequest, Page, RollbackRequest, Snapshot, SnapshotClients, SnapshotId,
    SnapshotName, SnapshotRequest, TrashedVolume, UndeleteRequest, Volume, VolumeId,
};
use reqwest::{Method, StatusCode};

use crate::pages::PAGE;
use crate::routes::unless_away;
use crate::{Client, ClientError, Created};

/// Which snapshots are meant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SnapshotQuery {
    /// Those in this pool, by name or id.
    pub pool: Option<String>,
    /// Those of this volume.
    pub volume: Option<VolumeId>,
    /// Those of this name.
    pub name: Option<String>,
    /// Tell also what each takes of its pool.
    pub sizes: bool,
}

impl Client {
    /// One page of snapshots.
    pub async fn snapshots(
        &self,
        query: &SnapshotQuery,
        limit: usize,
        from: Option<&str>,
    ) -> Result<Page<Snapshot>, ClientError> {
        let volume = query.volume.map(|id| id.to_string());
        let asked = [
            ("pool", query.pool.as_deref()),
            ("volume", volume.as_deref()),
            ("name", query.name.as_deref()),
            ("sizes", query.sizes.then_some("true")),
        ];
        self.page(&["v1", "snapshots"], &asked, limit, from).await
    }

    /// All snapshots, page by page. One that is made or deleted meanwhile may or may not be among them.
    pub async fn all_snapshots(&self, query: &SnapshotQuery) -> Result<Vec<Snapshot>, ClientError> {
        let (mut all, mut from) = (Vec::new(), None);
        loop {
            let page = self.snapshots(query, PAGE, from.as_deref()).await?;
            from = self.follow(page, from.as_ref(), &mut all)?;
            if from.is_none() {
                return Ok(all);
            }
        }
    }

    /// One snapshot; with `sizes`, what it takes of its pool.
    pub async fn snapshot(&self, id: SnapshotId, sizes: bool) -> Result<Snapshot, ClientError> {
        let mut request = self.request(Method::GET, &["v1", "snapshots", &id.to_string()]);
        if sizes {
            request = request.query(&[("sizes", "true")]);
        }
        let (_, body) = self.send(request).await?;
        self.parse(&body)
    }

    /// The snapshot that a person means: by id, or by `VOLUME@NAME`, where the volume is as [`Client::find_volume`] takes
    /// it. None: there is no such snapshot. Either name may hold an @: what can be read in two ways is refused.
    pub async fn find_snapshot(&self, reference: &str) -> Result<Option<Snapshot>, ClientError> {
        if let Ok(id) = reference.parse() {
            return self.snapshot(id, false).await.map(Some);
        }
        let mut found = Vec::new();
        for (at, _) in reference.match_indices('@') {
            let named = self.snapshots_named(&reference[..at], &reference[at + 1..]).await;
            found.extend(unless_away(!found.is_empty(), named)?);
        }
        if found.len() > 1 {
            return Err(ClientError::ambiguous(reference, &[], &found));
        }
        Ok(found.pop())
    }

    async fn snapshots_named(&self, volume: &str, name: &str) -> Result<Vec<Snapshot>, ClientError> {
        let Ok(name) = name.parse::<SnapshotName>() else {
            return Ok(Vec::new());
        };
        let volume = match self.find_volume(volume).await {
            Ok(volume) => volume,
            Err(ClientError::NoVolume(_)) => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let query = SnapshotQuery {
            volume: Some(volume.id),
            name: Some(name.to_string()),
            ..SnapshotQuery::default()
        };
        self.all_snapshots(&query).await
    }

    /// Makes a snapshot of a volume.
    pub async fn create_snapshot(
        &self,
        volume: VolumeId,
        request: &SnapshotRequest,
    ) -> Result<Created<Snapshot>, ClientError> {
        let path = ["v1", "volumes", &volume.to_string(), "snapshots"];
        let (status, object) = self.post(&path, request).await?;
        Ok(Created {
            object,
            created: status == StatusCode::CREATED,
        })
    }

    /// Makes snapshots of several volumes at one moment.
    pub async fn create_group_snapshot(
        &self,
        request: &GroupSnapshotRequest,
    ) -> Result<Created<Vec<Snapshot>>, ClientError> {
        let (status, object) = self.post(&["v1", "snapshots"], request).await?;
        Ok(Created {
            object,
            created: status == StatusCode::CREATED,
        })
    }

    /// Deletes a snapshot.
    pub async fn delete_snapshot(&self, id: SnapshotId) -> Result<(), ClientError> {
        self.act(self.request(Method::DELETE, &["v1", "snapshots", &id.to_string()]))
            .await
    }

    /// Serves a snapshot to these clients and no others.
    pub async fn serve_snapshot(&self, id: SnapshotId, clients: Vec<NfsClient>) -> Result<Snapshot, ClientError> {
        let request = self.request(Method::PUT, &["v1", "snapshots", &id.to_string(), "clients"]);
        let (_, body) = self.send(request.json(&SnapshotClients { clients })).await?;
        self.parse(&body)
    }

    /// Makes a volume again what one of its snapshots is.
    pub async fn roll_back(&self, volume: VolumeId, request: &RollbackRequest) -> Result<Volume, ClientError> {
        let path = ["v1", "volumes", &volume.to_string(), "rollback"];
        Ok(self.post(&path, request).await?.1)
    }

    /// Deleted volumes that can be had back, the oldest first.
    pub async fn trash(&self) -> Result<Vec<TrashedVolume>, ClientError> {
        self.get(&["v1", "trash"]).await
    }

    /// Takes a volume back out of the trash.
    pub async fn undelete(&self, id: VolumeId, request: &UndeleteRequest) -> Result<Volume, ClientError> {
        Ok(self
            .post(&["v1", "trash", &id.to_string(), "undelete"], request)
            .await?
            .1)
    }

    /// Removes a volume that is in the trash, for good.
    pub async fn purge(&self, id: VolumeId) -> Result<(), ClientError> {
        self.act(self.request(Method::DELETE, &["v1", "trash", &id.to_string()]))
            .await
    }
}
