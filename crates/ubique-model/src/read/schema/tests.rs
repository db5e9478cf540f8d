use super::*;
use crate::internet::Internet;
use crate::scenario::Scenario;
use crate::service::Service;

/// Every table of a description with the TOML that leads to it.
fn tables(spec: &'static Spec, header: String, found: &mut Vec<(String, &'static Spec)>) {
    let variants = spec.variants.map_or(&[][..], |v| v.list);
    for field in spec.fields.iter().chain(variants.iter().flat_map(|v| v.fields)) {
        let path = if header.is_empty() { field.key.to_owned() } else { format!("{header}.{}", field.key) };
        match field.ty {
            Type::Table(below) | Type::Switch(below) | Type::Tables { spec: below, .. } => tables(below, path, found),
            _ => {}
        }
    }
    found.push((header, spec));
}

/// A file in which one key of one table holds a date, which no key accepts.
fn with_date(root: &'static Spec, header: &str, tag: Option<(&str, &str)>, key: &str) -> String {
    let mut text = String::new();
    if !header.is_empty() {
        let mut spec = root;
        let mut path = String::new();
        for part in header.split('.') {
            let variants = spec.variants.map_or(&[][..], |v| v.list);
            let mut all = spec.fields.iter().chain(variants.iter().flat_map(|v| v.fields));
            let field = all.find(|f| f.key == part).unwrap();
            path = if path.is_empty() { part.to_owned() } else { format!("{path}.{part}") };
            match field.ty {
                Type::Tables { spec: below, .. } => {
                    text += &format!("[[{path}]]\n");
                    spec = below;
                }
                Type::Table(below) | Type::Switch(below) => {
                    text += &format!("[{path}]\n");
                    spec = below;
                }
                _ => unreachable!(),
            }
        }
    }
    if let Some((tag, name)) = tag.filter(|(tag, _)| *tag != key) {
        text += &format!("{tag} = \"{name}\"\n");
    }
    text + &format!("{key} = 1979-05-27\n")
}

/// The parser reads every key that is described: a value of the wrong type is noticed at each.
fn every_key_is_read(root: &'static Spec, codes: impl Fn(&str) -> Vec<String>) {
    let mut found = Vec::new();
    tables(root, String::new(), &mut found);
    for (header, spec) in found {
        let mut cases: Vec<(Option<(&str, &str)>, &Field)> = Vec::new();
        match spec.variants {
            None => cases.extend(spec.fields.iter().map(|f| (None, f))),
            Some(variants) => {
                for variant in variants.list {
                    let tag = Some((variants.tag, variant.name));
                    cases.extend(spec.fields.iter().chain(variant.fields).map(|f| (tag, f)));
                }
            }
        }
        for (tag, field) in cases {
            let text = with_date(root, &header, tag, field.key);
            let last_line = text.lines().count();
            let found = codes(&text);
            let wanted = format!("E0103@{last_line}");
            assert!(found.contains(&wanted), "{} of [{header}] is not read:\n{text}{found:?}", field.key);
            assert!(!found.iter().any(|f| f.starts_with("E0101") || f.starts_with("E0105")), "{text}{found:?}");
        }
        let unknown = with_date(root, &header, None, "no-such-key");
        assert!(codes(&unknown).contains(&format!("E0101@{}", unknown.lines().count())), "{unknown}");
    }
}

fn listed<T>(parsed: crate::Parsed<T>) -> Vec<String> {
    parsed.diagnostics.iter().map(|d| format!("{}@{}", d.code, d.line)).collect()
}

#[test]
fn described_keys_and_read_keys_are_the_same() {
    every_key_is_read(&crate::service::spec::FILE, |text| listed(Service::parse("f", text.as_bytes())));
    every_key_is_read(&crate::scenario::spec::FILE, |text| listed(Scenario::parse("f", text.as_bytes())));
    every_key_is_read(&crate::internet::spec::FILE, |text| listed(Internet::parse("f", text.as_bytes())));
}

/// Keys of a description and of the schema made from it, as paths.
fn spec_keys(spec: &'static Spec, path: &str, keys: &mut Vec<String>) {
    let variants = spec.variants.map_or(&[][..], |v| v.list);
    for field in spec.fields.iter().chain(variants.iter().flat_map(|v| v.fields)) {
        let path = format!("{path}/{}", field.key);
        if let Type::Table(below) | Type::Switch(below) | Type::Tables { spec: below, .. } = field.ty {
            spec_keys(below, &path, keys);
        }
        keys.push(path);
    }
}

fn schema_keys(schema: &Value, path: &str, keys: &mut Vec<String>) {
    for alternative in schema["oneOf"].as_array().into_iter().flatten() {
        schema_keys(alternative, path, keys);
    }
    if schema.get("items").is_some() {
        schema_keys(&schema["items"], path, keys);
    }
    for (key, below) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}/{key}");
        schema_keys(below, &path, keys);
        keys.push(path);
    }
}

#[test]
fn schema_holds_exactly_the_described_keys() {
    for (spec, schema) in [
        (&crate::service::spec::FILE, service_schema()),
        (&crate::scenario::spec::FILE, scenario_schema()),
        (&crate::internet::spec::FILE, internet_schema()),
    ] {
        let (mut described, mut in_schema) = (Vec::new(), Vec::new());
        spec_keys(spec, "", &mut described);
        schema_keys(&schema, "", &mut in_schema);
        for keys in [&mut described, &mut in_schema] {
            keys.sort();
            keys.dedup();
        }
        assert_eq!(described, in_schema);
        assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
        assert_eq!(schema["additionalProperties"], false);
    }
}

#[test]
fn schema_states_defaults_and_variants() {
    let schema = service_schema();
    let upstream = &schema["properties"]["site"]["items"]["properties"]["upstream"]["items"];
    assert_eq!(upstream["properties"]["hold-time"]["default"], "9s");
    assert_eq!(upstream["required"], json!(["asn", "address"]));
    let kinds = schema["properties"]["check"]["items"]["oneOf"].as_array().unwrap();
    let names: Vec<&Value> = kinds.iter().map(|k| &k["properties"]["kind"]["const"]).collect();
    assert_eq!(names, ["dns", "http", "tcp", "tls", "udp", "ntp", "process", "systemd", "exec", "load"]);
    assert!(kinds[0]["properties"].get("url").is_none());
}
