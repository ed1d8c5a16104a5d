//! One method for each route. Invariant: no logic but the route's own, and looking a volume up by its name.

use cistern_model::{
    AdoptRequest, Alert, AlertId, Client as NfsClient, ClientRemoved, ClientRequest, Disk, DiskId, EnrolRequest,
    ErrorKind, Event, ImportRequest, Job, JobId, LiveClient, NodeAccess, NodeName, Orphan, Page, Pool, PoolChange,
    PoolName, PoolPlan, PoolRequest, PowerAction, RemoveOrphanRequest, ReplaceRequest, ScrubRequest, SpareRequest,
    System, Token, TokenCreated, TokenId, TokenRequest, TopologyPlan, TopologyRequest, Volume, VolumeChange, VolumeId,
    VolumeName, VolumeOptionsChange, VolumeRequest,
};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::pages::PAGE;
use crate::{Client, ClientError};

/// What came of a request to make something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Created<T> {
    /// The thing.
    pub object: T,
    /// Whether this request made it; otherwise it was there, the same.
    pub created: bool,
}

/// What came of a request for a pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PoolCreation {
    /// It is there, the same.
    Exists(Pool),
    /// It is being made.
    Started(Job),
}

/// Which volumes are meant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VolumeQuery {
    /// Those in this pool, by name or id.
    pub pool: Option<String>,
    /// Those of this name.
    pub name: Option<String>,
    /// Those with all of these labels: `KEY=VALUE`, line feeds between them.
    pub label: Option<String>,
}

impl Client {
    /// The appliance itself.
    pub async fn system(&self) -> Result<System, ClientError> {
        self.get(&["v1", "system"]).await
    }

    /// Restarts the machine or switches it off.
    pub async fn power(&self, action: PowerAction) -> Result<(), ClientError> {
        self.act(
            self.request(Method::POST, &["v1", "system", "power"])
                .json(&json!({ "action": action })),
        )
        .await
    }

    /// Records that somebody goes to a root shell; only on the appliance's own socket.
    pub async fn record_root_shell(&self) -> Result<(), ClientError> {
        self.act(self.request(Method::POST, &["v1", "system", "root-shell"]))
            .await
    }

    /// All disks.
    pub async fn disks(&self) -> Result<Vec<Disk>, ClientError> {
        self.get(&["v1", "disks"]).await
    }

    /// One disk.
    pub async fn disk(&self, id: &DiskId) -> Result<Disk, ClientError> {
        self.get(&["v1", "disks", id.as_str()]).await
    }

    /// Wipes a disk. `confirm` must be its id once more; the appliance compares them. A part of a pool that lacks other disks
    /// for good is wiped only if that pool is named in `give_up`.
    pub async fn wipe_disk(&self, id: &DiskId, confirm: &str, give_up: Option<&str>) -> Result<Disk, ClientError> {
        let path = ["v1", "disks", id.as_str(), "wipe"];
        let body = json!({ "confirm": confirm, "give_up": give_up });
        Ok(self.post(&path, &body).await?.1)
    }

    /// All pools that may be seen.
    pub async fn pools(&self) -> Result<Vec<Pool>, ClientError> {
        self.get(&["v1", "pools"]).await
    }

    /// One pool.
    pub async fn pool(&self, name_or_id: &str) -> Result<Pool, ClientError> {
        self.get(&["v1", "pools", name_or_id]).await
    }

    /// What a request for a pool would come to.
    pub async fn plan_pool(&self, request: &PoolRequest) -> Result<PoolPlan, ClientError> {
        Ok(self.post(&["v1", "pools", "plan"], request).await?.1)
    }

    /// Makes a pool, in a job.
    pub async fn create_pool(&self, request: &PoolRequest) -> Result<PoolCreation, ClientError> {
        let (status, body) = self
            .send(self.request(Method::POST, &["v1", "pools"]).json(request))
            .await?;
        if status == StatusCode::ACCEPTED {
            self.parse(&body).map(PoolCreation::Started)
        } else {
            self.parse(&body).map(PoolCreation::Exists)
        }
    }

    /// Changes a pool's settings.
    pub async fn change_pool(&self, name_or_id: &str, change: &PoolChange) -> Result<Pool, ClientError> {
        let request = self.request(Method::PATCH, &["v1", "pools", name_or_id]).json(change);
        let (_, body) = self.send(request).await?;
        self.parse(&body)
    }

    /// Deletes an empty pool, in a job.
    pub async fn delete_pool(&self, name_or_id: &str) -> Result<Job, ClientError> {
        let (_, body) = self
            .send(self.request(Method::DELETE, &["v1", "pools", name_or_id]))
            .await?;
        self.parse(&body)
    }

    /// Lets a disk take the place of another one of a pool, in a job.
    pub async fn replace_disk(&self, pool: &str, request: &ReplaceRequest) -> Result<Job, ClientError> {
        Ok(self.post(&["v1", "pools", pool, "replace"], request).await?.1)
    }

    /// Makes a disk a spare of a pool.
    pub async fn add_spare(&self, pool: &str, request: &SpareRequest) -> Result<Pool, ClientError> {
        Ok(self.post(&["v1", "pools", pool, "spares"], request).await?.1)
    }

    /// Takes a spare out of a pool.
    pub async fn remove_spare(&self, pool: &str, disk: &DiskId) -> Result<Pool, ClientError> {
        let request = self.request(Method::DELETE, &["v1", "pools", pool, "spares"]);
        let request = request.query(&[("disk", disk.as_str())]);
        let (_, body) = self.send(request).await?;
        self.parse(&body)
    }

    /// Compares a pool's copies, in a job.
    pub async fn scrub_pool(&self, pool: &str, request: &ScrubRequest) -> Result<Job, ClientError> {
        Ok(self.post(&["v1", "pools", pool, "scrub"], request).await?.1)
    }

    /// One page of volumes.
    pub async fn volumes(
        &self,
        query: &VolumeQuery,
        limit: usize,
        from: Option<&str>,
    ) -> Result<Page<Volume>, ClientError> {
        let asked = [
            ("pool", query.pool.as_deref()),
            ("name", query.name.as_deref()),
            ("label", query.label.as_deref()),
        ];
        self.page(&["v1", "volumes"], &asked, limit, from).await
    }

    /// All volumes, page by page. One that is made or deleted meanwhile may or may not be among them.
    pub async fn all_volumes(&self, query: &VolumeQuery) -> Result<Vec<Volume>, ClientError> {
        let (mut all, mut from) = (Vec::new(), None);
        loop {
            let page = self.volumes(query, PAGE, from.as_deref()).await?;
            from = self.follow(page, from.as_ref(), &mut all)?;
            if from.is_none() {
                return Ok(all);
            }
        }
    }

    /// Makes a volume.
    pub async fn create_volume(&self, request: &VolumeRequest) -> Result<Created<Volume>, ClientError> {
        let (status, object) = self.post(&["v1", "volumes"], request).await?;
        Ok(Created {
            object,
            created: status == StatusCode::CREATED,
        })
    }

    /// One volume.
    pub async fn volume(&self, id: VolumeId) -> Result<Volume, ClientError> {
        self.get(&["v1", "volumes", &id.to_string()]).await
    }

    /// The volume that a person means: by id, by name, or by `POOL/NAME`. A name may hold a slash too, and whoever makes volumes
    /// chooses it: what can be read both ways is refused, so that nobody's volume is taken for another's.
    pub async fn find_volume(&self, reference: &str) -> Result<Volume, ClientError> {
        if let Ok(id) = reference.parse() {
            return self.volume(id).await;
        }
        let mut found = match reference.split_once('/') {
            Some((pool, name)) if pool.parse::<PoolName>().is_ok() => {
                match self.volumes_named(name, Some(pool)).await {
                    // There is no such pool; of one that is away this is not said.
                    Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
                    asked => asked?,
                }
            }
            Some(_) | None => Vec::new(),
        };
        let whole = self.volumes_named(reference, None).await;
        found.extend(unless_away(!found.is_empty(), whole)?);
        if found.len() > 1 {
            return Err(ClientError::ambiguous(reference, &found, &[]));
        }
        found.pop().ok_or_else(|| ClientError::NoVolume(reference.to_owned()))
    }

    async fn volumes_named(&self, name: &str, pool: Option<&str>) -> Result<Vec<Volume>, ClientError> {
        let Ok(name) = name.parse::<VolumeName>() else {
            return Ok(Vec::new());
        };
        let query = VolumeQuery {
            pool: pool.map(str::to_owned),
            name: Some(name.to_string()),
            label: None,
        };
        self.all_volumes(&query).await
    }

    /// Changes what is given of a volume.
    pub async fn change_volume(&self, id: VolumeId, change: &VolumeChange) -> Result<Volume, ClientError> {
        let request = self.request(Method::PATCH, &["v1", "volumes", &id.to_string()]);
        let (_, body) = self.send(request.json(change)).await?;
        self.parse(&body)
    }

    /// Deletes a volume; one that is not there is an error of kind `NotFound`.
    pub async fn delete_volume(&self, id: VolumeId) -> Result<(), ClientError> {
        self.act(self.request(Method::DELETE, &["v1", "volumes", &id.to_string()]))
            .await
    }

    /// Allows a client to mount a volume.
    pub async fn add_client(&self, id: VolumeId, client: NfsClient) -> Result<Volume, ClientError> {
        let path = ["v1", "volumes", &id.to_string(), "clients"];
        Ok(self.post(&path, &ClientRequest { client }).await?.1)
    }

    /// Allows a client no longer to mount a volume, and cuts it off.
    pub async fn remove_client(&self, id: VolumeId, client: NfsClient) -> Result<ClientRemoved, ClientError> {
        let path = ["v1", "volumes", &id.to_string(), "clients"];
        let request = self
            .request(Method::DELETE, &path)
            .query(&[("client", client.to_string())]);
        let (_, body) = self.send(request).await?;
        self.parse(&body)
    }

    /// The clients that the NFS server knows now.
    pub async fn live_clients(&self) -> Result<Vec<LiveClient>, ClientError> {
        self.get(&["v1", "clients"]).await
    }

    /// Publishes a volume to a node.
    pub async fn publish_to_node(
        &self,
        id: VolumeId,
        node: &NodeName,
        access: &NodeAccess,
    ) -> Result<Volume, ClientError> {
        let path = ["v1", "volumes", &id.to_string(), "nodes", node.as_str()];
        let (_, body) = self.send(self.request(Method::PUT, &path).json(access)).await?;
        self.parse(&body)
    }

    /// Takes a volume from a node, and cuts it off.
    pub async fn unpublish_from_node(&self, id: VolumeId, node: &NodeName) -> Result<ClientRemoved, ClientError> {
        let path = ["v1", "volumes", &id.to_string(), "nodes", node.as_str()];
        let (_, body) = self.send(self.request(Method::DELETE, &path)).await?;
        self.parse(&body)
    }

    /// Changes how a volume is served.
    pub async fn set_options(&self, id: VolumeId, change: &VolumeOptionsChange) -> Result<Volume, ClientError> {
        let path = ["v1", "volumes", &id.to_string(), "options"];
        let (_, body) = self.send(self.request(Method::PATCH, &path).json(change)).await?;
        self.parse(&body)
    }

    /// The jobs, those that have ended among them.
    pub async fn jobs(&self) -> Result<Vec<Job>, ClientError> {
        self.get(&["v1", "jobs"]).await
    }

    /// One job.
    pub async fn job(&self, id: JobId) -> Result<Job, ClientError> {
        self.get(&["v1", "jobs", &id.to_string()]).await
    }

    /// Events after the one numbered `after`, or, without it, the newest before the one numbered `before`; the oldest
    /// first. Those of kinds that this version does not know are passed over.
    pub async fn events(
        &self,
        after: Option<u64>,
        before: Option<u64>,
        limit: Option<usize>,
    ) -> Result<Vec<Event>, ClientError> {
        let mut request = self.request(Method::GET, &["v1", "events"]);
        for (key, number) in [("after", after), ("before", before)] {
            if let Some(number) = number {
                request = request.query(&[(key, number)]);
            }
        }
        if let Some(limit) = limit {
            request = request.query(&[("limit", limit)]);
        }
        let (_, body) = self.send(request).await?;
        let all: Vec<Value> = self.parse(&body)?;
        Ok(all
            .into_iter()
            .filter_map(|event| serde_json::from_value(event).ok())
            .collect())
    }

    /// What is on the disks and not explained.
    pub async fn orphans(&self) -> Result<Vec<Orphan>, ClientError> {
        self.get(&["v1", "orphans"]).await
    }

    /// Takes a volume that is none of Cistern's as a volume.
    pub async fn adopt_orphan(&self, request: &AdoptRequest) -> Result<Volume, ClientError> {
        Ok(self.post(&["v1", "orphans", "adopt"], request).await?.1)
    }

    /// Removes a volume that is none of Cistern's.
    pub async fn remove_orphan(&self, request: &RemoveOrphanRequest) -> Result<(), ClientError> {
        self.act(self.request(Method::POST, &["v1", "orphans", "remove"]).json(request))
            .await
    }

    /// Takes in a pool that another appliance made.
    pub async fn import_pool(&self, request: &ImportRequest) -> Result<Pool, ClientError> {
        Ok(self.post(&["v1", "pools", "import"], request).await?.1)
    }

    /// Gives a pool up, for another appliance to import.
    pub async fn release_pool(&self, name_or_id: &str) -> Result<Orphan, ClientError> {
        let (_, body) = self
            .send(self.request(Method::POST, &["v1", "pools", name_or_id, "release"]))
            .await?;
        self.parse(&body)
    }

    /// What a heketi topology's node that is this appliance would come to as a pool.
    pub async fn plan_topology(&self, request: &TopologyRequest) -> Result<TopologyPlan, ClientError> {
        Ok(self.post(&["v1", "pools", "plan-topology"], request).await?.1)
    }

    /// What is the matter now; with `cleared` also what has ended. Alerts of kinds that this version does not know are
    /// passed over.
    pub async fn alerts(&self, cleared: bool) -> Result<Vec<Alert>, ClientError> {
        let mut request = self.request(Method::GET, &["v1", "alerts"]);
        if cleared {
            request = request.query(&[("cleared", true)]);
        }
        let (_, body) = self.send(request).await?;
        let all: Vec<Value> = self.parse(&body)?;
        Ok(all
            .into_iter()
            .filter_map(|alert| serde_json::from_value(alert).ok())
            .collect())
    }

    /// Notes that an alert was seen.
    pub async fn acknowledge_alert(&self, id: &AlertId) -> Result<Alert, ClientError> {
        let path = ["v1", "alerts", &id.to_string(), "acknowledge"];
        let (_, body) = self.send(self.request(Method::POST, &path)).await?;
        self.parse(&body)
    }

    /// Exchanges the console's one-time code for the first token.
    pub async fn enrol(&self, request: &EnrolRequest) -> Result<TokenCreated, ClientError> {
        Ok(self.post(&["v1", "enrol"], request).await?.1)
    }

    /// All tokens, without their secrets.
    pub async fn tokens(&self) -> Result<Vec<Token>, ClientError> {
        self.get(&["v1", "tokens"]).await
    }

    /// Makes a token.
    pub async fn create_token(&self, request: &TokenRequest) -> Result<TokenCreated, ClientError> {
        Ok(self.post(&["v1", "tokens"], request).await?.1)
    }

    /// Takes a token back.
    pub async fn delete_token(&self, id: TokenId) -> Result<(), ClientError> {
        self.act(self.request(Method::DELETE, &["v1", "tokens", &id.to_string()]))
            .await
    }
}

/// What a further reading of what was named comes to. Where there is something by another reading already, one that may lie in a
/// pool that is away does not keep that from being used.
pub(crate) fn unless_away<T>(is_found: bool, asked: Result<Vec<T>, ClientError>) -> Result<Vec<T>, ClientError> {
    match asked {
        Err(error) if is_found && error.kind() == ErrorKind::Unavailable => Ok(Vec::new()),
        asked => asked,
    }
}
