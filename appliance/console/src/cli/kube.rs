//! What is given to a cluster.

use std::num::NonZeroU32;
use std::path::PathBuf;

use clap::{Args, Subcommand};

#[derive(Debug, Subcommand)]
pub(crate) enum Kube {
    /// Print everything that a cluster needs to use this appliance, for `kubectl apply -f -`
    Manifests(Box<Manifests>),
    /// Print the dashboard, for Grafana's own import; `manifests --monitoring` gives it to a cluster
    Dashboard,
    /// Print the rules, as a file for Prometheus; `manifests --monitoring` gives them to a cluster
    Rules,
    /// Compare a cluster with its appliances: what leaks, does not fit or is stuck, and the cure of each
    Doctor(Doctor),
}

#[derive(Debug, Args)]
pub(crate) struct Doctor {
    /// What `kubectl get -o json` printed elsewhere, for a cluster that this computer does not reach; give it once for each file
    #[arg(long, value_name = "FILE")]
    pub(crate) from: Vec<PathBuf>,
    /// By which profile an appliance of the cluster's is known here, where that is not found out; give it once for each
    #[arg(long = "appliance", value_name = "ID=PROFILE")]
    pub(crate) appliances: Vec<String>,
    /// As kubectl takes it
    #[arg(long, value_name = "FILE", conflicts_with = "from")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// As kubectl takes it
    #[arg(long, value_name = "NAME", conflicts_with = "from")]
    pub(crate) context: Option<String>,
    /// The namespace of the plugin
    #[arg(long, default_value = "cistern-csi", value_name = "NAME")]
    pub(crate) namespace: String,
    /// The program that reads the cluster
    #[arg(long, default_value = "kubectl", value_name = "PROGRAM")]
    pub(crate) kubectl: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct Manifests {
    /// The name by which classes and volumes know this appliance; it stays with each volume
    #[arg(long, default_value = "cistern", value_name = "NAME")]
    pub(crate) id: String,
    /// A pool that there is to be a class for; give it once for each, all pools if none is named
    #[arg(long = "pool", value_name = "POOL")]
    pub(crate) pools: Vec<String>,
    /// Makes a token of this name on the appliance for the plugin; its secret is in what is printed
    #[arg(long, value_name = "NAME", required_unless_present = "token_file")]
    pub(crate) new_token: Option<String>,
    /// A file with the secret of a token of role provisioner that there is
    #[arg(long, value_name = "FILE", conflicts_with = "new_token")]
    pub(crate) token_file: Option<PathBuf>,
    /// The address at which the cluster reaches the API, if it is another than this computer's
    #[arg(long, value_name = "URL")]
    pub(crate) url: Option<String>,
    /// The address or name from which nodes mount, if it is another than the API's
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) nfs: Option<String>,
    /// The namespace for the plugin
    #[arg(long, default_value = "cistern-csi", value_name = "NAME")]
    pub(crate) namespace: String,
    /// The plugin's image
    #[arg(long, default_value = cistern_kube::IMAGE, value_name = "IMAGE")]
    pub(crate) image: String,
    /// From where the sidecars' images come
    #[arg(long, default_value = "registry.k8s.io/sig-storage", value_name = "PREFIX")]
    pub(crate) sidecars: String,
    /// The kubelet's folder on each node
    #[arg(long, default_value = "/var/lib/kubelet", value_name = "FOLDER")]
    pub(crate) kubelet: String,
    /// With snapshots of several volumes at one moment; their CRDs have to be in the cluster
    #[arg(long)]
    pub(crate) group_snapshots: bool,
    /// The zone (topology.kubernetes.io/zone) in which this appliance is: only pods on nodes of it get volumes there
    #[arg(long, value_name = "ZONE")]
    pub(crate) zone: Option<String>,
    /// With zones, also if this appliance has none: it is near to all nodes then
    #[arg(long)]
    pub(crate) zones: bool,
    /// A node gives an appliance up that has not answered for so many minutes when its volumes are to be taken from it; what was
    /// written there and not synced is lost then
    #[arg(long, value_name = "MINUTES")]
    pub(crate) give_up_after: Option<NonZeroU32>,
    /// With a dashboard for Grafana and rules for Prometheus, for kube-prometheus-stack, installed as this release
    #[arg(long, value_name = "RELEASE", num_args = 0..=1, default_missing_value = cistern_kube::RELEASE)]
    pub(crate) monitoring: Option<String>,
    /// Write a Helm chart into this new folder instead
    #[arg(long, value_name = "FOLDER", conflicts_with = "kustomize")]
    pub(crate) helm: Option<PathBuf>,
    /// Write a kustomize base into this new folder instead
    #[arg(long, value_name = "FOLDER")]
    pub(crate) kustomize: Option<PathBuf>,
}
