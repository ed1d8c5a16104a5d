//! The routes of the API: one table that the router is checked against, by which cistern-gate and cisternd both decide
//! who may do what, and which the OpenAPI document is compared with.
//!
//! Invariant: a route that is not in this table is served by nobody. Not here: which objects a token may see within a
//! route; the engine decides that.

use cistern_model::{ErrorKind, Principal, Problem, Role};

/// Who may use a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Anybody, without a token.
    Open,
    /// These roles.
    Roles(&'static [Role]),
    /// Root on the appliance, over cisternd's own socket; no token.
    Local,
    /// cistern-gate itself, when it acts for nobody.
    Gate,
}

/// Which daemon answers a route; the other one passes the request on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Server {
    /// cisternd.
    Supervisor,
    /// cistern-gate, which holds the tokens.
    Gate,
}

/// A route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// The method, in capitals.
    pub method: &'static str,
    /// The path; `{name}` stands for one segment.
    pub path: &'static str,
    /// Who may use it.
    pub access: Access,
    /// Who answers it.
    pub server: Server,
}

/// Reads the appliance as a whole.
pub(crate) const READ: Access = Access::Roles(&[Role::Viewer, Role::Operator, Role::Admin]);
/// Reads what the engine lets the token see.
const READ_OWN: Access = Access::Roles(&[Role::Viewer, Role::Provisioner, Role::Operator, Role::Admin]);
/// Changes volumes that the engine lets the token touch.
const VOLUMES: Access = Access::Roles(&[Role::Provisioner, Role::Operator, Role::Admin]);
/// Changes disks and pools.
const OPERATE: Access = Access::Roles(&[Role::Operator, Role::Admin]);
/// Changes the appliance and its tokens.
const ADMINISTER: Access = Access::Roles(&[Role::Admin]);

const fn supervisor(method: &'static str, path: &'static str, access: Access) -> Route {
    Route {
        method,
        path,
        access,
        server: Server::Supervisor,
    }
}

const fn gate(method: &'static str, path: &'static str, access: Access) -> Route {
    Route {
        method,
        path,
        access,
        server: Server::Gate,
    }
}

/// All routes.
pub const ROUTES: &[Route] = &[
    supervisor("GET", "/healthz", Access::Open),
    supervisor("GET", "/metrics", READ),
    supervisor("GET", "/v1/openapi.json", Access::Open),
    supervisor("GET", "/v1/system", READ),
    supervisor("POST", "/v1/system/power", ADMINISTER),
    supervisor("POST", "/v1/system/root-shell", Access::Local),
    supervisor("GET", "/v1/disks", READ),
    supervisor("GET", "/v1/disks/{id}", READ),
    supervisor("POST", "/v1/disks/{id}/wipe", OPERATE),
    supervisor("GET", "/v1/pools", READ_OWN),
    supervisor("POST", "/v1/pools", OPERATE),
    supervisor("POST", "/v1/pools/plan", OPERATE),
    supervisor("GET", "/v1/pools/{pool}", READ_OWN),
    supervisor("PATCH", "/v1/pools/{pool}", OPERATE),
    supervisor("DELETE", "/v1/pools/{pool}", OPERATE),
    supervisor("POST", "/v1/pools/{pool}/replace", OPERATE),
    supervisor("POST", "/v1/pools/{pool}/spares", OPERATE),
    supervisor("DELETE", "/v1/pools/{pool}/spares", OPERATE),
    supervisor("POST", "/v1/pools/{pool}/scrub", OPERATE),
    supervisor("POST", "/v1/pools/{pool}/disks", OPERATE),
    supervisor("POST", "/v1/pools/{pool}/disks/plan", OPERATE),
    supervisor("POST", "/v1/pools/{pool}/grow", OPERATE),
    supervisor("POST", "/v1/pools/{pool}/grow/plan", OPERATE),
    supervisor("POST", "/v1/pools/{pool}/drain", OPERATE),
    supervisor("GET", "/v1/pools/{pool}/key", ADMINISTER),
    supervisor("POST", "/v1/pools/{pool}/key", ADMINISTER),
    supervisor("GET", "/v1/volumes", READ_OWN),
    supervisor("POST", "/v1/volumes", VOLUMES),
    supervisor("GET", "/v1/volumes/{id}", READ_OWN),
    supervisor("PATCH", "/v1/volumes/{id}", VOLUMES),
    supervisor("DELETE", "/v1/volumes/{id}", VOLUMES),
    supervisor("POST", "/v1/volumes/{id}/clients", VOLUMES),
    supervisor("DELETE", "/v1/volumes/{id}/clients", VOLUMES),
    supervisor("PUT", "/v1/volumes/{id}/nodes/{node}", VOLUMES),
    supervisor("DELETE", "/v1/volumes/{id}/nodes/{node}", VOLUMES),
    supervisor("PATCH", "/v1/volumes/{id}/options", VOLUMES),
    supervisor("GET", "/v1/clients", READ),
    supervisor("POST", "/v1/volumes/{id}/snapshots", VOLUMES),
    supervisor("POST", "/v1/volumes/{id}/rollback", VOLUMES),
    supervisor("GET", "/v1/snapshots", READ_OWN),
    supervisor("POST", "/v1/snapshots", VOLUMES),
    supervisor("GET", "/v1/snapshots/{id}", READ_OWN),
    supervisor("DELETE", "/v1/snapshots/{id}", VOLUMES),
    supervisor("PUT", "/v1/snapshots/{id}/clients", VOLUMES),
    supervisor("GET", "/v1/trash", READ_OWN),
    supervisor("DELETE", "/v1/trash/{id}", VOLUMES),
    supervisor("POST", "/v1/trash/{id}/undelete", VOLUMES),
    supervisor("GET", "/v1/jobs", READ_OWN),
    supervisor("GET", "/v1/jobs/{id}", READ_OWN),
    supervisor("GET", "/v1/events", READ),
    supervisor("GET", "/v1/orphans", READ),
    supervisor("POST", "/v1/orphans/adopt", OPERATE),
    supervisor("POST", "/v1/orphans/remove", OPERATE),
    supervisor("POST", "/v1/pools/import", OPERATE),
    supervisor("POST", "/v1/pools/plan-topology", OPERATE),
    supervisor("POST", "/v1/pools/{pool}/release", OPERATE),
    supervisor("GET", "/v1/alerts", READ),
    supervisor("POST", "/v1/alerts/{id}/acknowledge", OPERATE),
    supervisor("POST", "/v1/gate/token-changes", Access::Gate),
    gate("POST", "/v1/enrol", Access::Open),
    gate("GET", "/v1/tokens", ADMINISTER),
    gate("POST", "/v1/tokens", ADMINISTER),
    gate("DELETE", "/v1/tokens/{id}", ADMINISTER),
];

/// What the table says of a request's method and path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lookup {
    /// This route.
    Found(&'static Route),
    /// The path is there, with these methods only.
    OtherMethods(Vec<&'static str>),
    /// There is no such path.
    Unknown,
}

/// Finds the route of a request. A literal segment wins over a `{name}`, as it does in the router. `HEAD` is `GET`.
pub fn find(method: &str, path: &str) -> Lookup {
    let method = if method == "HEAD" { "GET" } else { method };
    let Some(best) = ROUTES
        .iter()
        .filter(|r| matches(r.path, path))
        .min_by_key(|r| r.path.matches('{').count())
    else {
        return Lookup::Unknown;
    };
    let same = || ROUTES.iter().filter(|r| r.path == best.path);
    match same().find(|r| r.method == method) {
        Some(route) => Lookup::Found(route),
        None => Lookup::OtherMethods(same().map(|r| r.method).collect()),
    }
}

/// A path as it is shown and logged: its first 200 characters. Clients choose it, and it may be as long as a head may be.
pub fn shown(path: &str) -> String {
    path.chars().take(200).collect()
}

/// Whether what is called so could not be reached at `{parent}/{name}`, since a route has that very segment there.
pub fn is_segment(parent: &str, name: &str) -> bool {
    let first = |route: &Route| -> Option<&'static str> {
        let rest = route.path.strip_prefix(parent)?.strip_prefix('/')?;
        rest.split('/').next()
    };
    ROUTES.iter().any(|route| first(route) == Some(name))
}

/// The problem that a request to no route is answered with.
pub fn missing(method: &str, path: &str, lookup: &Lookup) -> Option<Problem> {
    let path = shown(path);
    match lookup {
        Lookup::Found(_) => None,
        Lookup::OtherMethods(others) => {
            let mut problem = Problem::new(
                ErrorKind::Invalid,
                format!("{path} does not take {method}, only {}", others.join(", ")),
            );
            problem.status = 405;
            Some(problem)
        }
        Lookup::Unknown => Some(Problem::new(
            ErrorKind::NoRoute,
            format!("there is nothing at {path}; GET /v1/openapi.json lists what there is"),
        )),
    }
}

impl Access {
    /// Whether a token's holder may use the route.
    pub fn allows(self, principal: &Principal) -> bool {
        match self {
            Access::Open => true,
            Access::Roles(roles) => roles.contains(&principal.role),
            Access::Local | Access::Gate => false,
        }
    }
}

/// The problem that a token is answered with whose role does not allow a route.
pub fn forbidden(route: &Route, principal: &Principal) -> Problem {
    let detail = match route.access {
        Access::Roles(roles) => {
            let names: Vec<&str> = roles.iter().map(|r| r.name()).collect();
            format!(
                "{} {} needs the role {}; the token {} has {}",
                route.method,
                route.path,
                names.join(" or "),
                principal.owner,
                principal.role
            )
        }
        Access::Local => format!("{} {} is for the appliance's own console", route.method, route.path),
        Access::Gate => format!("{} {} is for cistern-gate", route.method, route.path),
        Access::Open => format!("{} {} is open to all", route.method, route.path),
    };
    Problem::new(ErrorKind::Forbidden, detail)
}

fn matches(pattern: &str, path: &str) -> bool {
    let (mut pattern, mut path) = (pattern.split('/'), path.split('/'));
    loop {
        match (pattern.next(), path.next()) {
            (None, None) => return true,
            (Some(p), Some(s)) if p.starts_with('{') && !s.is_empty() => {}
            (Some(p), Some(s)) if p == s => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_found_by_its_segments_and_never_by_a_part_of_one() {
        for (method, path, found) in [
            ("GET", "/v1/pools/tank", Some("/v1/pools/{pool}")),
            ("POST", "/v1/pools/plan", Some("/v1/pools/plan")),
            ("HEAD", "/healthz", Some("/healthz")),
            ("GET", "/v1/pools/", None),
            ("GET", "/v1/pools/tank/", None),
            ("GET", "//v1/pools", None),
            ("GET", "/v1/pools/a/b", None),
            ("GET", "/v1/../metrics", None),
        ] {
            let route = match find(method, path) {
                Lookup::Found(route) => Some(route.path),
                Lookup::OtherMethods(_) | Lookup::Unknown => None,
            };
            assert_eq!(route, found, "{method} {path}");
        }
        assert_eq!(
            find("PUT", "/v1/volumes/x"),
            Lookup::OtherMethods(vec!["GET", "PATCH", "DELETE"])
        );
    }

    #[test]
    fn a_long_path_is_cut_between_characters() {
        assert_eq!(shown("/v1/volumes"), "/v1/volumes");
        assert_eq!(shown(&"ü".repeat(5000)), "ü".repeat(200));
    }

    /// Who puts a literal segment beside what people name has names to refuse, as the routes of pools do.
    #[test]
    fn only_beside_pools_names_are_literal_segments() {
        let mut beside = Vec::new();
        for (route, at) in ROUTES
            .iter()
            .flat_map(|r| r.path.match_indices("/{").map(move |(at, _)| (r, at)))
        {
            let parent = &route.path[..at];
            let segments = ROUTES
                .iter()
                .filter_map(|r| r.path.strip_prefix(parent)?.strip_prefix('/')?.split('/').next());
            beside.extend(
                segments
                    .filter(|s| !s.starts_with('{'))
                    .map(|s| format!("{parent}/{s}")),
            );
        }
        beside.sort();
        beside.dedup();
        assert_eq!(
            beside,
            ["/v1/pools/import", "/v1/pools/plan", "/v1/pools/plan-topology"]
        );
        for (name, taken) in [
            ("plan", true),
            ("import", true),
            ("plan-topology", true),
            ("planning", false),
            ("scrub", false),
        ] {
            assert_eq!(is_segment("/v1/pools", name), taken, "{name}");
        }
    }

    /// The table once more, by role, written by hand: who may, of viewer, provisioner, operator, admin.
    #[test]
    fn each_role_may_use_exactly_its_routes() {
        let expected = [
            ("GET /healthz", "vpoa"),
            ("GET /metrics", "v-oa"),
            ("GET /v1/openapi.json", "vpoa"),
            ("GET /v1/system", "v-oa"),
            ("POST /v1/system/power", "---a"),
            ("POST /v1/system/root-shell", "----"),
            ("GET /v1/disks", "v-oa"),
            ("GET /v1/disks/{id}", "v-oa"),
            ("POST /v1/disks/{id}/wipe", "--oa"),
            ("GET /v1/pools", "vpoa"),
            ("POST /v1/pools", "--oa"),
            ("POST /v1/pools/plan", "--oa"),
            ("GET /v1/pools/{pool}", "vpoa"),
            ("PATCH /v1/pools/{pool}", "--oa"),
            ("DELETE /v1/pools/{pool}", "--oa"),
            ("POST /v1/pools/{pool}/replace", "--oa"),
            ("POST /v1/pools/{pool}/spares", "--oa"),
            ("DELETE /v1/pools/{pool}/spares", "--oa"),
            ("POST /v1/pools/{pool}/scrub", "--oa"),
            ("POST /v1/pools/{pool}/disks", "--oa"),
            ("POST /v1/pools/{pool}/disks/plan", "--oa"),
            ("POST /v1/pools/{pool}/grow", "--oa"),
            ("POST /v1/pools/{pool}/grow/plan", "--oa"),
            ("POST /v1/pools/{pool}/drain", "--oa"),
            ("GET /v1/pools/{pool}/key", "---a"),
            ("POST /v1/pools/{pool}/key", "---a"),
            ("GET /v1/volumes", "vpoa"),
            ("POST /v1/volumes", "-poa"),
            ("GET /v1/volumes/{id}", "vpoa"),
            ("PATCH /v1/volumes/{id}", "-poa"),
            ("DELETE /v1/volumes/{id}", "-poa"),
            ("POST /v1/volumes/{id}/clients", "-poa"),
            ("DELETE /v1/volumes/{id}/clients", "-poa"),
            ("PUT /v1/volumes/{id}/nodes/{node}", "-poa"),
            ("DELETE /v1/volumes/{id}/nodes/{node}", "-poa"),
            ("PATCH /v1/volumes/{id}/options", "-poa"),
            ("GET /v1/clients", "v-oa"),
            ("POST /v1/volumes/{id}/snapshots", "-poa"),
            ("POST /v1/volumes/{id}/rollback", "-poa"),
            ("GET /v1/snapshots", "vpoa"),
            ("POST /v1/snapshots", "-poa"),
            ("GET /v1/snapshots/{id}", "vpoa"),
            ("DELETE /v1/snapshots/{id}", "-poa"),
            ("PUT /v1/snapshots/{id}/clients", "-poa"),
            ("GET /v1/trash", "vpoa"),
            ("DELETE /v1/trash/{id}", "-poa"),
            ("POST /v1/trash/{id}/undelete", "-poa"),
            ("GET /v1/jobs", "vpoa"),
            ("GET /v1/jobs/{id}", "vpoa"),
            ("GET /v1/events", "v-oa"),
            ("GET /v1/orphans", "v-oa"),
            ("POST /v1/orphans/adopt", "--oa"),
            ("POST /v1/orphans/remove", "--oa"),
            ("POST /v1/pools/import", "--oa"),
            ("POST /v1/pools/plan-topology", "--oa"),
            ("POST /v1/pools/{pool}/release", "--oa"),
            ("GET /v1/alerts", "v-oa"),
            ("POST /v1/alerts/{id}/acknowledge", "--oa"),
            ("POST /v1/gate/token-changes", "----"),
            ("POST /v1/enrol", "vpoa"),
            ("GET /v1/tokens", "---a"),
            ("POST /v1/tokens", "---a"),
            ("DELETE /v1/tokens/{id}", "---a"),
        ];
        assert_eq!(expected.len(), ROUTES.len());
        for (route, (name, letters)) in ROUTES.iter().zip(expected) {
            assert_eq!(format!("{} {}", route.method, route.path), name);
            for (role, letter) in Role::ALL.into_iter().zip(letters.chars()) {
                let principal = Principal {
                    role,
                    ..Principal::local()
                };
                assert_eq!(route.access.allows(&principal), letter != '-', "{name} for {role}");
            }
        }
    }
}
