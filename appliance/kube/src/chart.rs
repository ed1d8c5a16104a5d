//! The same objects as a Helm chart and as a kustomize base: folders of files.

use crate::fit::Unfit;
use crate::manifests::{
    ACCESS, ACCESS_ZONES, BINDING_ANYWHERE, BINDING_ZONE, CLASS, CONTROLLER, CSIDRIVER, DASHBOARD, ENTRY, ENTRY_NFS,
    ENTRY_ZONE, GROUP_SNAPSHOT_CLASS, Installation, NODE, RULES, SECRET, SNAPSHOT_CLASS,
};
use crate::{dashboard, rules};

/// A folder's files: the path below it, and the text.
pub type Chart = Vec<(String, String)>;

/// What stands in the templates in a chart, and the value of that name.
const VALUES: &[(&str, &str)] = &[
    ("${namespace}", "{{ .Release.Namespace }}"),
    ("${image}", "{{ .Values.image }}"),
    ("${sidecars}", "{{ .Values.sidecars }}"),
    ("${kubelet}", "{{ .Values.kubelet }}"),
];
/// The same within the list of appliances.
const OF_APPLIANCE: &[(&str, &str)] = &[
    ("${id}", "{{ $id }}"),
    ("${url}", "{{ $appliance.url }}"),
    ("${token}", "{{ $appliance.token }}"),
    ("${fingerprint}", "{{ $appliance.fingerprint }}"),
    ("${endpoint}", "{{ $id }}"),
    ("${zone}", "{{ $appliance.zone }}"),
    ("${pool}", "{{ $pool }}"),
    // Not by how many appliances there are: a class that was named otherwise with each new one would be deleted and made anew.
    (
        "${name}",
        "{{ $appliance.classes | default (printf \"cistern-%s\" $id) }}-{{ $pool }}",
    ),
];

/// What Helm says when it has installed the chart. Its namespace is made by it or by its user, without the label that the other ways give it.
const NOTES: &str = "\
The node's part mounts for pods, and so is privileged. Where the cluster holds pods to Pod Security, let this namespace have such:

    kubectl label namespace {{ .Release.Namespace }} pod-security.kubernetes.io/enforce=privileged
";

const IF_ZONE: &str = "{{- if $appliance.zone }}\n";

/// What kube-prometheus-stack is usually installed as.
pub const RELEASE: &str = "kube-prometheus-stack";

/// A Helm chart whose values are this installation's.
///
/// # Errors
/// As [`Installation::documents`].
pub fn chart(installation: &Installation, version: &str) -> Result<Chart, Unfit> {
    installation.documents()?;
    let values = Installation {
        namespace: value("${namespace}"),
        image: value("${image}"),
        sidecars: value("${sidecars}"),
        kubelet: value("${kubelet}"),
        ..installation.clone()
    };
    let each = "{{- range $id, $appliance := .Values.appliances }}\n";
    let nfs = format!(
        "{{{{- if $appliance.nfs }}}}\n{}{{{{- end }}}}\n",
        ENTRY_NFS.replace("${nfs}", "{{ $appliance.nfs }}")
    );
    let (zone, binding, access) = match installation.zones {
        true => (
            format!("{IF_ZONE}{ENTRY_ZONE}{{{{- end }}}}\n"),
            format!("{IF_ZONE}{BINDING_ZONE}{{{{- else }}}}\n{BINDING_ANYWHERE}{{{{- end }}}}\n"),
            values.fill(ACCESS) + &values.fill(ACCESS_ZONES),
        ),
        false => (String::new(), BINDING_ANYWHERE.to_owned(), values.fill(ACCESS)),
    };
    let entry = ENTRY.replace("${nfs}", &nfs).replace("${in-zone}", &zone);
    let entry = put(&entry, OF_APPLIANCE);
    let class = put(&CLASS.replace("${binding}", &binding), OF_APPLIANCE);
    let entries = format!("{each}{entry}{{{{- end }}}}\n");
    let classes =
        format!("{each}{{{{- range $pool := $appliance.pools }}}}\n---\n{class}{{{{- end }}}}\n{{{{- end }}}}\n");
    let groups = match installation.group_snapshots {
        true => vec![("groupsnapshotclass.yaml", GROUP_SNAPSHOT_CLASS.to_owned())],
        false => Vec::new(),
    };
    let templates = [
        ("csidriver.yaml", values.fill(CSIDRIVER)),
        ("access.yaml", access),
        ("secret.yaml", values.fill(SECRET).replace("${entries}", &entries)),
        ("controller.yaml", values.fill(CONTROLLER)),
        ("node.yaml", values.fill(NODE)),
        ("classes.yaml", classes),
        ("snapshotclass.yaml", SNAPSHOT_CLASS.to_owned()),
    ];
    let templates = templates.into_iter().chain(groups);
    // Both have braces of their own, which Helm would take for its.
    let monitoring = [
        ("dashboard.yaml", DASHBOARD, "${dashboard}", "files/dashboard.json", 4),
        ("rules.yaml", RULES, "${rules}", "files/rules.yaml", 2),
    ];
    let monitoring = monitoring.map(|(name, template, place, file, by)| {
        let object = values
            .fill(template)
            .replace("${release}", "{{ .Values.monitoring.release }}");
        let object = object.replace(place, &format!("{{{{ .Files.Get {file:?} | indent {by} }}}}"));
        (
            name,
            format!("{{{{- if .Values.monitoring.enabled }}}}\n{object}{{{{- end }}}}\n"),
        )
    });
    let templates = templates.chain(monitoring);
    let mut files: Chart = templates
        .map(|(name, text)| (format!("templates/{name}"), text))
        .collect();
    files.push(("templates/NOTES.txt".to_owned(), NOTES.to_owned()));
    files.push((
        "Chart.yaml".to_owned(),
        format!(
            "apiVersion: v2\nname: cistern-csi\ndescription: Volumes of Cistern's appliances for claims.\ntype: application\n\
             version: {version}\nappVersion: {version:?}\n"
        ),
    ));
    files.push(("files/dashboard.json".to_owned(), format!("{:#}\n", dashboard())));
    files.push(("files/rules.yaml".to_owned(), rules()));
    files.push(("values.yaml".to_owned(), values_text(installation)));
    Ok(files)
}

fn value(place: &str) -> String {
    let found = VALUES.iter().find(|(known, _)| *known == place);
    found.map(|(_, value)| (*value).to_owned()).unwrap_or_default()
}

fn put(template: &str, words: &[(&str, &str)]) -> String {
    words
        .iter()
        .fold(template.to_owned(), |text, (place, word)| text.replace(place, word))
}

fn values_text(installation: &Installation) -> String {
    let Installation {
        image,
        sidecars,
        kubelet,
        ..
    } = installation;
    let mut text = format!(
        "# A dashboard for Grafana and rules for Prometheus, for kube-prometheus-stack of this release.\n\
         monitoring:\n  enabled: {}\n  release: {:?}\n\
         # The image of cistern-csi, and from where the sidecars' images come.\nimage: {image:?}\nsidecars: {sidecars:?}\n\
         # The kubelet's folder on each node.\nkubelet: {kubelet:?}\n\
         # The appliances, by the names that classes and volumes know them by. Each of their pools becomes a class: its name begins with\n\
         # `classes`, or with cistern- and the appliance's name where that is not said. Neither may change as long as claims name a class.\n\
         appliances:\n",
        installation.monitoring.is_some(),
        installation.monitoring.as_deref().unwrap_or(RELEASE),
    );
    for appliance in &installation.appliances {
        let pools: Vec<&str> = appliance.pools.iter().map(|pool| pool.as_str()).collect();
        text.push_str(&format!(
            "  {:?}:\n    url: {:?}\n    token: {:?}\n    fingerprint: {:?}\n    pools: {pools:?}\n    classes: {:?}\n",
            appliance.id,
            appliance.url,
            appliance.token,
            appliance.fingerprint,
            installation.class_prefix(appliance)
        ));
        if let Some(nfs) = &appliance.nfs {
            text.push_str(&format!("    nfs: {nfs:?}\n"));
        }
        if let Some(zone) = &appliance.zone {
            text.push_str(&format!("    zone: {zone:?}\n"));
        }
    }
    text
}

/// A kustomize base of this installation.
///
/// # Errors
/// As [`Installation::documents`].
pub fn kustomize(installation: &Installation) -> Result<Chart, Unfit> {
    let documents = installation.documents()?;
    let mut list = String::from("apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources:\n");
    for (name, _) in &documents {
        list.push_str(&format!("  - {name}\n"));
    }
    let mut files: Chart = documents
        .into_iter()
        .map(|(name, text)| (name.to_owned(), text))
        .collect();
    files.push(("kustomization.yaml".to_owned(), list));
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifests::tests::installation;

    #[test]
    fn a_chart_s_templates_have_values_in_place_of_words_and_its_values_are_the_installation_s() {
        let zones = Installation {
            zones: true,
            ..installation()
        };
        let files = chart(&zones, "1.2.3").unwrap();
        for (name, text) in files.iter().filter(|(name, _)| name.starts_with("templates/")) {
            assert!(!text.contains("${"), "{name}: {text}");
            assert_eq!(text.matches("{{").count(), text.matches("}}").count(), "{name}");
            let opened =
                text.matches("range ").count() + text.matches("{{ if ").count() + text.matches("{{- if ").count();
            assert_eq!(opened, text.matches(" end }}").count(), "{name}: {text}");
        }
        let of = |name: &str| &files.iter().find(|(file, _)| file == name).unwrap().1;
        assert!(of("templates/controller.yaml").contains("image: {{ .Values.image }}"));
        assert!(!of("templates/secret.yaml").contains("cistern_secret"));
        assert!(of("templates/NOTES.txt").contains("pod-security.kubernetes.io/enforce=privileged"));
        let values: serde_json::Value = serde_saphyr::from_str(of("values.yaml")).unwrap();
        assert_eq!(values["appliances"]["rack-2"]["nfs"], "10.0.0.5");
        assert_eq!(values["appliances"]["rack-2"]["zone"], "b");
        assert_eq!(values["appliances"]["rack-1"]["pools"][1], "fast");
    }

    #[test]
    fn a_second_appliance_leaves_the_first_one_s_classes_their_names() {
        let mut one = installation();
        one.appliances.truncate(1);
        let files = chart(&one, "1.2.3").unwrap();
        let of = |name: &str| &files.iter().find(|(file, _)| file == name).unwrap().1;
        let values: serde_json::Value = serde_saphyr::from_str(of("values.yaml")).unwrap();
        assert_eq!(values["appliances"]["rack-1"]["classes"], "cistern");
        let classes = of("templates/classes.yaml");
        assert!(!classes.contains("len "), "{classes}");
        let both: serde_json::Value = serde_saphyr::from_str(&values_text(&installation())).unwrap();
        assert_eq!(both["appliances"]["rack-2"]["classes"], "cistern-rack-2");
    }

    #[test]
    fn a_word_that_looks_like_something_else_stays_text() {
        let mut odd = installation();
        odd.namespace = "1e3".to_owned();
        odd.appliances[0].id = "007".to_owned();
        odd.appliances[0].pools = ["123", "null"].map(|name| name.parse().unwrap()).into();
        let values: serde_json::Value = serde_saphyr::from_str(&values_text(&odd)).unwrap();
        assert_eq!(values["appliances"]["007"]["pools"], serde_json::json!(["123", "null"]));
        for text in odd.text().unwrap().split("\n---\n") {
            let object: serde_json::Value = serde_saphyr::from_str(text).unwrap();
            let namespace = &object["metadata"]["namespace"];
            assert!(namespace.is_null() || namespace == "1e3", "{text}");
        }
    }

    #[test]
    fn a_base_lists_each_of_its_files() {
        let files = kustomize(&installation()).unwrap();
        let list = &files.iter().find(|(name, _)| name == "kustomization.yaml").unwrap().1;
        for (name, _) in files.iter().filter(|(name, _)| name != "kustomization.yaml") {
            assert!(list.contains(&format!("  - {name}\n")), "{name}");
        }
    }
}
