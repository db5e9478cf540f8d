//! Which request of the admin socket is at which path, and the OpenAPI 3.1 document made from it.
//!
//! [`ROUTES`] is all there is: it serves, and it is described. Parameters, bodies and replies come from the types that
//! the socket itself reads and writes, with their comments, so that neither can be forgotten.

use hyper::Method;
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::{Map, Value, json};

use crate::admin;

/// Where the document is.
pub(super) const OPENAPI: &str = "/v1/openapi.json";

/// Where schemas are in it.
const SCHEMAS: &str = "/components/schemas";

/// Most parameters of a URL.
const MAX_PARAMETERS: usize = 32;

/// A request with its place.
pub(super) struct Route {
    pub method: Method,
    pub path: &'static str,
    /// As `query` of the admin socket spells it; what it takes is what that takes.
    pub query: &'static str,
    pub summary: &'static str,
    /// Schema of the reply.
    reply: fn(&mut SchemaGenerator) -> Schema,
}

const fn get(path: &'static str, query: &'static str, summary: &'static str, reply: Reply) -> Route {
    Route { method: Method::GET, path, query, summary, reply }
}

const fn post(path: &'static str, query: &'static str, summary: &'static str, reply: Reply) -> Route {
    Route { method: Method::POST, path, query, summary, reply }
}

type Reply = fn(&mut SchemaGenerator) -> Schema;

fn of<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

/// It was carried out.
#[derive(JsonSchema)]
#[allow(dead_code, reason = "only its schema is used")]
struct Done {
    /// Always true.
    ok: bool,
}

/// The actions, or with `dry_run` what one would mean.
#[derive(JsonSchema)]
#[serde(untagged)]
#[allow(dead_code, reason = "only its schema is used")]
enum ActReply {
    Begun(admin::ActionList),
    Plan(admin::Plan),
}

/// The drain, or with `dry_run` what it would mean.
#[derive(JsonSchema)]
#[serde(untagged)]
#[allow(dead_code, reason = "only its schema is used")]
enum DrainReply {
    Begun(Box<admin::DrainView>),
    Plan(admin::Plan),
}

/// It was not carried out.
#[derive(JsonSchema)]
#[allow(dead_code, reason = "only its schema is used")]
struct Error {
    /// Why, and what to do.
    error: String,
}

/// Every request.
pub(super) static ROUTES: &[Route] = &[
    get("/v1/status", "status", "What the site does, and why", of::<admin::Status>),
    get("/v1/routes", "routes", "Routes received and sent, a page at a time", of::<admin::RoutesPage>),
    post("/v1/drain", "drain", "Move traffic away from the site", of::<Done>),
    get("/v1/actions", "actions", "Timed actions that last", of::<admin::ActionList>),
    post("/v1/actions", "act", "Begin a timed action, or say what it would mean", of::<ActReply>),
    post("/v1/actions/cancel", "cancel", "End a timed action", of::<Done>),
    get("/v1/drain", "drain-progress", "Where the watched drain is", of::<admin::DrainView>),
    post("/v1/drain/watched", "drain-watched", "Drain, and watch the traffic go", of::<DrainReply>),
    post("/v1/undrain", "undrain", "Let a drained site announce again", of::<Done>),
    post("/v1/reload", "reload", "Read the service file again and carry out what differs", of::<admin::ReloadReply>),
    post("/v1/upgrade", "upgrade", "Execute the program at its path again, in place", of::<admin::UpgradeReply>),
];

/// What the admin socket takes: for each `query` its fields.
fn requests(generator: &mut SchemaGenerator) -> Vec<(String, Map<String, Value>)> {
    let whole = admin::Request::json_schema(generator).to_value();
    let variants = whole["oneOf"].as_array().cloned().unwrap_or_default();
    let one = |variant: Value| {
        let tag = variant["properties"]["query"]["const"].as_str()?.to_owned();
        let mut object = variant.as_object()?.clone();
        // Fields that are a type of their own are described there.
        if let Some(target) = object.remove("$ref") {
            let target = target.as_str()?.rsplit('/').next()?;
            let fields = generator.definitions().get(target)?.get("properties").cloned().unwrap_or_default();
            object.insert("properties".to_owned(), fields);
            object.remove("required");
        }
        if let Some(properties) = object.get_mut("properties").and_then(Value::as_object_mut) {
            properties.remove("query");
        }
        if let Some(required) = object.get_mut("required").and_then(Value::as_array_mut) {
            required.retain(|name| name != "query");
        }
        Some((tag, object))
    };
    variants.into_iter().filter_map(one).collect()
}

/// The OpenAPI document.
pub(super) fn document() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|s| {
        s.definitions_path = SCHEMAS.into();
        s.meta_schema = None;
    });
    let mut generator = settings.into_generator();
    let requests = requests(&mut generator);
    let problem = of::<Error>(&mut generator);
    let mut paths: Map<String, Value> = Map::new();
    for route in ROUTES {
        let reply = (route.reply)(&mut generator);
        let schema = requests.iter().find(|(tag, _)| tag == route.query).map(|(_, object)| object.clone());
        let operation = operation(route, schema.unwrap_or_default(), &reply, &problem, generator.definitions());
        let methods = paths.entry(route.path).or_insert_with(|| json!({}));
        methods[route.method.as_str().to_ascii_lowercase()] = operation;
    }
    let mut itself = responses(&json!({ "type": "object" }), &problem);
    itself["200"]["description"] = json!("This document");
    let get = json!({ "operationId": "openapi", "summary": "This document", "responses": itself });
    paths.insert(OPENAPI.to_owned(), json!({ "get": get }));
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "ubique agent",
            "version": admin::SCHEMA_VERSION.to_string(),
            "description": "The requests of an agent's admin socket over HTTPS. Both sides show certificates; \
                clients that may only read get 403 for what acts. Fields are added, never renamed.",
            "license": { "name": "Apache-2.0 OR MIT", "identifier": "Apache-2.0 OR MIT" },
        },
        "security": [{ "certificate": [] }],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "certificate": { "type": "mutualTLS", "description": "A certificate of `client-ca`." },
            },
            "schemas": generator.take_definitions(true),
        },
    })
}

fn operation(
    route: &Route,
    mut request: Map<String, Value>,
    reply: &Schema,
    problem: &Schema,
    definitions: &Map<String, Value>,
) -> Value {
    let mut operation = json!({ "operationId": route.query, "summary": route.summary });
    if let Some(description) = request.remove("description") {
        operation["description"] = description;
    }
    if route.method == Method::GET {
        let parameters = parameters(&request, definitions);
        if !parameters.is_empty() {
            operation["parameters"] = Value::Array(parameters);
        }
    } else {
        operation["requestBody"] =
            json!({ "required": true, "content": { "application/json": { "schema": request } } });
    }
    operation["responses"] = responses(&reply.clone().to_value(), problem);
    operation
}

fn responses(reply: &Value, problem: &Schema) -> Value {
    let json = |schema: &Value| json!({ "application/json": { "schema": schema } });
    let problem = problem.clone().to_value();
    let failed = |why: &str| json!({ "description": why, "content": json(&problem) });
    json!({
        "200": { "description": "Done, or told", "content": json(reply) },
        "400": failed("Not a request"),
        "403": failed("The client may read, not act"),
        "409": failed("Refused: not now, or by a guard"),
        "503": failed("The agent is ending"),
    })
}

/// Fields as parameters of a URL; objects as JSON.
fn parameters(request: &Map<String, Value>, definitions: &Map<String, Value>) -> Vec<Value> {
    let required: Vec<&str> =
        request.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
    let fields = request.get("properties").and_then(Value::as_object).cloned().unwrap_or_default();
    let one = |(name, mut schema): (String, Value)| {
        let mut parameter = json!({ "name": name, "in": "query", "required": required.contains(&name.as_str()) });
        if let Some(description) = schema.as_object_mut().and_then(|s| s.remove("description")) {
            parameter["description"] = description;
        }
        if is_object(&schema, definitions) {
            parameter["content"] = json!({ "application/json": { "schema": schema } });
        } else {
            parameter["schema"] = schema;
        }
        parameter
    };
    fields.into_iter().map(one).collect()
}

fn is_object(schema: &Value, definitions: &Map<String, Value>) -> bool {
    let named = schema["$ref"].as_str().and_then(|target| definitions.get(target.rsplit('/').next()?));
    schema["type"] == "object"
        || named.is_some_and(|schema| is_object(schema, definitions))
        || schema["anyOf"].as_array().is_some_and(|all| all.iter().any(|schema| is_object(schema, definitions)))
}

/// Parameters of a URL as fields: texts, `true` and `false`, and objects in JSON.
pub(super) fn query_object(query: &str) -> Result<Map<String, Value>, String> {
    let mut object = Map::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        if object.len() == MAX_PARAMETERS {
            return Err(format!("more than {MAX_PARAMETERS} parameters"));
        }
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let (name, value) = (decoded(name)?, decoded(value)?);
        let value = match value.as_str() {
            "true" => Value::Bool(true),
            "false" => Value::Bool(false),
            text if text.starts_with('{') => {
                serde_json::from_str(text).map_err(|e| format!("parameter {name:?} is not JSON: {e}"))?
            }
            _ => Value::String(value),
        };
        if object.contains_key(&name) {
            return Err(format!("parameter {name:?} is there twice"));
        }
        object.insert(name, value);
    }
    Ok(object)
}

/// Percent signs and plus signs resolved.
fn decoded(text: &str) -> Result<String, String> {
    let bad = || format!("{text:?} is not percent-encoded UTF-8");
    let mut octets = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(octet) = rest.next() {
        octets.push(match octet {
            b'+' => b' ',
            b'%' => {
                let mut digit = || (rest.next()? as char).to_digit(16);
                let (high, low) = (digit().ok_or_else(bad)?, digit().ok_or_else(bad)?);
                u8::try_from(high << 4 | low).map_err(|_| bad())?
            }
            octet => octet,
        });
    }
    String::from_utf8(octets).map_err(|_| bad())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn generator() -> SchemaGenerator {
        SchemaSettings::draft2020_12().with(|s| s.definitions_path = SCHEMAS.into()).into_generator()
    }

    #[test]
    fn every_request_has_a_route_and_every_route_a_request() {
        let requests: BTreeSet<String> = requests(&mut generator()).into_iter().map(|(tag, _)| tag).collect();
        let routes: BTreeSet<String> = ROUTES.iter().map(|r| r.query.to_owned()).collect();
        assert_eq!(requests, routes);
        assert_eq!(routes.len(), ROUTES.len(), "one route each");
    }

    #[test]
    fn what_acts_is_posted() {
        for route in ROUTES {
            let fields = requests(&mut generator()).into_iter().find(|(tag, _)| tag == route.query).unwrap().1;
            let mut line = json!({ "query": route.query });
            for name in fields.get("required").and_then(Value::as_array).into_iter().flatten() {
                line[name.as_str().unwrap()] = example(&fields["properties"][name.as_str().unwrap()]);
            }
            let request: admin::Request =
                serde_json::from_value(line.clone()).unwrap_or_else(|e| panic!("{line}: {e}"));
            assert_eq!(request.acts(), route.method == Method::POST, "{}", route.path);
        }
    }

    /// A value that such a field takes.
    fn example(schema: &Value) -> Value {
        match schema["type"].as_str() {
            _ if schema["examples"].is_array() => schema["examples"][0].clone(),
            Some("integer" | "number") => json!(1),
            Some("boolean") => json!(true),
            Some("array") => json!([]),
            _ => json!("198.51.100.0/24"),
        }
    }

    /// Every `$ref` of the document leads somewhere.
    fn check_references(whole: &Value, part: &Value) {
        if let Some(target) = part.get("$ref") {
            let pointer = target.as_str().unwrap().strip_prefix('#').unwrap();
            assert!(whole.pointer(pointer).is_some(), "{pointer}");
        }
        match part {
            Value::Object(fields) => fields.values().for_each(|v| check_references(whole, v)),
            Value::Array(items) => items.iter().for_each(|v| check_references(whole, v)),
            _ => {}
        }
    }

    #[test]
    fn the_document_describes_every_route_and_nothing_else() {
        let document = document();
        let described: BTreeSet<(String, String)> = document["paths"]
            .as_object()
            .unwrap()
            .iter()
            .flat_map(|(path, methods)| methods.as_object().unwrap().keys().map(move |m| (path.clone(), m.clone())))
            .collect();
        let served = ROUTES.iter().map(|r| (r.path.to_owned(), r.method.as_str().to_ascii_lowercase()));
        assert_eq!(described, served.chain([(OPENAPI.to_owned(), "get".to_owned())]).collect());
        check_references(&document, &document);
        let drain = &document["paths"]["/v1/drain"]["post"]["requestBody"]["content"]["application/json"]["schema"];
        assert!(drain["properties"]["reason"]["description"].is_string(), "{drain}");
        let routes = document["paths"]["/v1/routes"]["get"]["parameters"].as_array().unwrap();
        let names: BTreeSet<&str> = routes.iter().map(|p| p["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["address", "after", "direction", "peer", "prefix"].into());
        assert!(routes.iter().any(|p| p["name"] == "after" && p["content"].is_object()));
        let status = &document["components"]["schemas"]["Status"]["properties"];
        for key in ["site", "checks", "peers", "events"] {
            assert!(status[key].is_object(), "{key} in {status}");
        }
    }

    /// The validator of the OpenAPI people, where it is installed.
    #[test]
    fn the_document_is_valid_openapi() {
        let python = "python3";
        let has = |code: &str| {
            std::process::Command::new(python).args(["-c", code]).output().is_ok_and(|o| o.status.success())
        };
        if !has("import openapi_spec_validator") {
            eprintln!("skipped: python3 has no openapi-spec-validator here");
            return;
        }
        let file = std::env::temp_dir().join(format!("ubique-openapi-{}.json", std::process::id()));
        std::fs::write(&file, document().to_string()).unwrap();
        let code = "import sys, json, openapi_spec_validator as v; v.validate_spec(json.load(open(sys.argv[1])))";
        let output = std::process::Command::new(python).args(["-c", code]).arg(&file).output().unwrap();
        std::fs::remove_file(&file).unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    #[test]
    fn parameters_of_a_url_become_fields() {
        let object = query_object("prefix=198.51.100.0%2F24&peer=2001:db8::1&x=a+b&t=true&o=%7B%22a%22:1%7D").unwrap();
        let expected =
            json!({ "prefix": "198.51.100.0/24", "peer": "2001:db8::1", "x": "a b", "t": true, "o": { "a": 1 } });
        assert_eq!(Value::Object(object), expected);
        for bad in ["a=%", "a=%4", "a=%zz", "a=%ff", "a=1&a=2", "a={"] {
            assert!(query_object(bad).is_err(), "{bad}");
        }
        assert!(query_object(&"a".repeat(9)).is_ok());
        let many: Vec<String> = (0..40).map(|n| format!("a{n}=1")).collect();
        assert!(query_object(&many.join("&")).is_err());
    }
}
