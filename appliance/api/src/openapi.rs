//! The OpenAPI document, made from the handlers' attributes and checked in as docs/openapi.json.

use std::sync::LazyLock;

use utoipa::openapi::OpenApi as Document;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::{Modify, OpenApi};

use crate::routes::{
    alerts, clients, disks, events, gate, growth, jobs, keys, nodes, options, orphans, pools, snapshots, system, trash,
    volumes,
};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Cistern",
        description = "Raw disks in, Kubernetes volumes out. Errors are application/problem+json; docs/api.md has their kinds."
    ),
    paths(
        system::health, system::metrics, system::openapi, system::show, system::power, system::root_shell,
        disks::list, disks::show, disks::wipe,
        pools::list, pools::create, pools::plan, pools::show, pools::change, pools::remove,
        pools::replace, pools::add_spare, pools::remove_spare, pools::scrub,
        growth::add_disks, growth::plan_disks, growth::grow, growth::plan_growth, growth::drain,
        keys::show, keys::give,
        volumes::list, volumes::create, volumes::show, volumes::change, volumes::remove, volumes::add_client, volumes::remove_client,
        nodes::publish, nodes::unpublish, clients::list,
        options::change,
        snapshots::create, snapshots::roll_back, snapshots::list, snapshots::create_group, snapshots::show,
        snapshots::remove, snapshots::serve,
        trash::list, trash::purge, trash::undelete,
        jobs::list, jobs::show, events::list,
        alerts::list, alerts::acknowledge,
        orphans::list, orphans::adopt, orphans::remove, orphans::import, orphans::release, orphans::plan_topology,
        gate::enrol, gate::tokens, gate::create_token, gate::delete_token,
    ),
    security(("token" = [])),
    modifiers(&TokenScheme)
)]
struct Api;

struct TokenScheme;

impl Modify for TokenScheme {
    fn modify(&self, document: &mut Document) {
        let scheme = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
        document
            .components
            .get_or_insert_with(Default::default)
            .add_security_scheme("token", scheme);
    }
}

/// The document.
pub fn document() -> Document {
    let mut document = Api::openapi();
    document.info.license = Some(utoipa::openapi::License::new("Apache-2.0"));
    document
}

/// The document's JSON, made once: anybody may ask for it, as often as they like.
pub(crate) fn text() -> Result<&'static str, &'static serde_json::Error> {
    static TEXT: LazyLock<Result<String, serde_json::Error>> = LazyLock::new(|| serde_json::to_string(&document()));
    match &*TEXT {
        Ok(text) => Ok(text),
        Err(error) => Err(error),
    }
}
