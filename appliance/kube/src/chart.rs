//! The same objects as a Helm chart and as a kustomize base: folders of files.

use std::num::NonZeroU32;

use crate::fit::Unfit;
use crate::manifests::{
    ACCESS, ACCESS_ZONES, BINDING_ANYWHERE, BINDING_ZONE, CLASS, CONTROLLER, CSIDRIVER, DASHBOARD, ENTRY, ENTRY_NFS,
    ENTRY_ZONE, GIVE_UP_AFTER, GROUP_SNAPSHOT_CLASS, Installation, NODE, RULES, SECRET, SNAPSHOT_CLASS,
};
use crate::schema::schema;
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

/// By this name a chart's Secret has the text of an entry.
const ENTRY_NAME: &str = "cistern-csi.entry";
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
    let (binding, access) = match installation.zones {
        true => (
            format!("{IF_ZONE}{BINDING_ZONE}{{{{- else }}}}\n{BINDING_ANYWHERE}{{{{- end }}}}\n"),
            values.fill(ACCESS) + &values.fill(ACCESS_ZONES),
        ),
        false => (BINDING_ANYWHERE.to_owned(), values.fill(ACCESS)),
    };
    let class = put(&CLASS.replace("${binding}", &binding), OF_APPLIANCE);
    let classes =
        format!("{each}{{{{- range $pool := $appliance.pools }}}}\n---\n{class}{{{{- end }}}}\n{{{{- end }}}}\n");
    let give_up = GIVE_UP_AFTER.replace("${minutes}", "{{ int .Values.giveUpAfter }}");
    let give_up = format!("{{{{- if .Values.giveUpAfter }}}}\n{give_up}{{{{- end }}}}\n");
    let groups = match installation.group_snapshots {
        true => vec![("groupsnapshotclass.yaml", GROUP_SNAPSHOT_CLASS.to_owned())],
        false => Vec::new(),
    };
    let templates = [
        ("csidriver.yaml", values.fill(CSIDRIVER)),
        ("access.yaml", access),
        ("secret.yaml", secret(&values.fill(SECRET), each, installation.zones)),
        ("controller.yaml", values.fill(CONTROLLER)),
        ("node.yaml", values.fill(&NODE.replace("${give-up-after}", &give_up))),
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
    files.push((
        "values.schema.json".to_owned(),
        format!("{:#}\n", schema(installation.zones)),
    ));
    Ok(files)
}

/// The Secret with an entry for each appliance, in `data` and so in base64. Of `stringData` an API server keeps no trace but what it adds
/// to `data`: an appliance that was taken out of the values would stay.
fn secret(template: &str, each: &str, zones: bool) -> String {
    let nfs = format!("{{{{- if $appliance.nfs }}}}\n{ENTRY_NFS}{{{{- end }}}}\n");
    let nfs = nfs.replace("${nfs}", "{{ $appliance.nfs }}");
    let zone = match zones {
        true => format!("{IF_ZONE}{ENTRY_ZONE}{{{{- end }}}}\n"),
        false => String::new(),
    };
    let entry = ENTRY.replace("${nfs}", &nfs).replace("${in-zone}", &zone);
    let entry = put(&entry, OF_APPLIANCE);
    let (key, text) = entry.split_once("|\n").unwrap_or_default();
    // Its text stands at the margin: nothing takes the indentation away that a block in YAML has.
    let text: String = text.lines().map(|line| format!("{}\n", line.trim_start())).collect();
    let entries = format!("{each}{key}{{{{ include {ENTRY_NAME:?} $appliance | b64enc }}}}\n{{{{- end }}}}\n");
    let object = template.replace("stringData:", "data:").replace("${entries}", &entries);
    format!("{{{{- define {ENTRY_NAME:?} -}}}}\n{{{{- $appliance := . -}}}}\n{text}{{{{ end -}}}}\n{object}")
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
        give_up_after,
        ..
    } = installation;
    let mut text = format!(
        "# A dashboard for Grafana and rules for Prometheus, for kube-prometheus-stack of this release.\n\
         monitoring:\n  enabled: {}\n  release: {:?}\n\
         # The image of cistern-csi, and from where the sidecars' images come.\nimage: {image:?}\nsidecars: {sidecars:?}\n\
         # The kubelet's folder on each node.\nkubelet: {kubelet:?}\n\
         # After how many minutes without an answer a node gives an appliance up, when it is to take its volumes away; what was written there\n\
         # and not synced is lost then. 0: never.\ngiveUpAfter: {}\n\
         # The appliances, by the names that classes and volumes know them by. Each of their pools becomes a class: its name begins with\n\
         # `classes`, or with cistern- and the appliance's name where that is not said. Neither may change as long as claims name a class.\n\
         appliances:\n",
        installation.monitoring.is_some(),
        installation.monitoring.as_deref().unwrap_or(RELEASE),
        give_up_after.map_or(0, NonZeroU32::get),
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
        if let Some(zone) = installation.zone(appliance) {
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
            let opened = ["range ", "{{ if ", "{{- if ", "{{- define "].map(|word| text.matches(word).count());
            let ended = [" end }}", " end -}}"].map(|word| text.matches(word).count());
            assert_eq!(
                opened.iter().sum::<usize>(),
                ended.iter().sum::<usize>(),
                "{name}: {text}"
            );
        }
        let of = |name: &str| &files.iter().find(|(file, _)| file == name).unwrap().1;
        assert!(of("templates/controller.yaml").contains("image: \"{{ .Values.image }}\""));
        assert!(!of("templates/secret.yaml").contains("cistern_secret"));
        assert!(of("templates/node.yaml").contains(
            "{{- if .Values.giveUpAfter }}\n            - --give-up-after={{ int .Values.giveUpAfter }}\n{{- end }}\n          env:"
        ));
        assert!(of("templates/NOTES.txt").contains("pod-security.kubernetes.io/enforce=privileged"));
        let values: serde_json::Value = serde_saphyr::from_str(of("values.yaml")).unwrap();
        assert_eq!(values["appliances"]["rack-2"]["nfs"], "10.0.0.5");
        assert_eq!(values["appliances"]["rack-2"]["zone"], "b");
        assert_eq!(values["appliances"]["rack-1"]["pools"][1], "fast");
        assert_eq!(values["giveUpAfter"], 0);
        let patient = Installation {
            give_up_after: NonZeroU32::new(30),
            ..installation()
        };
        let values: serde_json::Value = serde_saphyr::from_str(&values_text(&patient)).unwrap();
        assert_eq!(values["giveUpAfter"], 30);
    }

    #[test]
    fn an_appliance_that_is_taken_out_of_a_chart_s_values_is_taken_out_of_its_secret() {
        let zones = Installation {
            zones: true,
            ..installation()
        };
        let files = chart(&zones, "1.2.3").unwrap();
        let secret = &files
            .iter()
            .find(|(file, _)| file == "templates/secret.yaml")
            .unwrap()
            .1;
        let expected = r#"{{- define "cistern-csi.entry" -}}
{{- $appliance := . -}}
url = "{{ $appliance.url }}"
token = "{{ $appliance.token }}"
fingerprint = "{{ $appliance.fingerprint }}"
{{- if $appliance.nfs }}
nfs = "{{ $appliance.nfs }}"
{{- end }}
{{- if $appliance.zone }}
zone = "{{ $appliance.zone }}"
{{- end }}
{{ end -}}
apiVersion: v1
kind: Secret
metadata:
  name: cistern-appliances
  namespace: "{{ .Release.Namespace }}"
type: Opaque
data:
{{- range $id, $appliance := .Values.appliances }}
  {{ $id }}.toml: {{ include "cistern-csi.entry" $appliance | b64enc }}
{{- end }}
"#;
        assert_eq!(secret, expected);
        // What is applied, by itself or of a base, lets the entries stand that others put there.
        assert!(zones.text().unwrap().contains("\nstringData:\n"));
        let base = kustomize(&zones).unwrap();
        assert!(base.iter().any(|(_, text)| text.contains("\nstringData:\n")));
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
        odd.image = "123".to_owned();
        odd.sidecars = "*mine".to_owned();
        odd.kubelet = "~".to_owned();
        odd.appliances[0].id = "007".to_owned();
        odd.appliances[0].pools = ["123", "null"].map(|name| name.parse().unwrap()).into();
        let values: serde_json::Value = serde_saphyr::from_str(&values_text(&odd)).unwrap();
        assert_eq!(values["appliances"]["007"]["pools"], serde_json::json!(["123", "null"]));
        for text in odd.text().unwrap().split("\n---\n") {
            let object: serde_json::Value = serde_saphyr::from_str(text).unwrap();
            let namespace = &object["metadata"]["namespace"];
            assert!(namespace.is_null() || namespace == "1e3", "{text}");
            let pod = &object["spec"]["template"]["spec"];
            let all = |value: &serde_json::Value, name: &str| value[name].as_array().cloned().unwrap_or_default();
            for container in all(pod, "containers") {
                assert!(container["image"].is_string(), "{text}");
                let mounts = all(&container, "volumeMounts");
                assert!(mounts.iter().all(|mount| mount["mountPath"].is_string()), "{text}");
            }
            for volume in all(pod, "volumes") {
                let path = volume.get("hostPath").map(|path| &path["path"]);
                assert!(path.is_none_or(serde_json::Value::is_string), "{text}");
            }
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
